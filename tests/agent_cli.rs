//! `peercam check` and `peercam devices`: what people ask before anything runs.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::device::PEERCAM;
use common::rpicam::stand_in;

fn peercam(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(PEERCAM).args(arguments).output().expect("running peercam");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("peercam.toml");
    fs::write(&file, text).expect("a file");
    let (output, said) = peercam(&["check", "--config", &file.to_string_lossy()]);
    (output.status.code(), said)
}

#[test]
fn the_shipped_configuration_is_good_and_explained() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/peercam.toml");
    let (output, said) = peercam(&["check", "--config", &shipped.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for word in [
        "is good",
        "broker",
        "tcp://127.0.0.1:1883",
        "UDP port 8555 on loopback",
        "at most 20",
    ] {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
}

#[test]
fn a_mistake_is_shown_with_its_line_a_caret_below_it_and_what_is_allowed() {
    for (text, place, caret_below, word) in [
        ("[limits]\nviewers = 0\n", ":2:11: ", "0", "from 1 to 1000"),
        ("[broker]\nurll = \"tcp://b\"\n", ":2:1: ", "urll", "did you mean `url`?"),
        ("[broker]\nurl = \"http://b\"\n", ":2:7: ", "\"http://b\"", "tcp, tls, ws or wss"),
        ("[[camera]]\nsource = \"pattern\"\ngop_secs = 99\n", ":3:12: ", "99", "60"),
        ("[log]\nfilter = info\n", ":2:10: ", "info", "double quotes"),
    ] {
        let (code, said) = check(text);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("peercam.toml{place}")) && said.contains(word),
            "`{place}` or `{word}` is missing:\n{said}"
        );
        assert_eq!(
            said.contains("this is not TOML"),
            text.contains("= info"),
            "only what is no TOML is called that:\n{said}"
        );
        // The caret's line stands under the excerpt's, which has the same margin.
        let lines: Vec<&str> = said.lines().collect();
        let caret = lines
            .iter()
            .position(|line| line.contains('^'))
            .unwrap_or_else(|| panic!("no caret:\n{said}"));
        let column = lines[caret].find('^').expect("the caret");
        assert!(
            lines[caret - 1][column..].starts_with(caret_below),
            "the caret is not below {caret_below}:\n{said}"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_to_do() {
    let (output, said) = peercam(&["check", "--config", "/nonexistent/peercam.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("/nonexistent/peercam.toml") && said.contains("copy config/peercam.toml there"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_recording_that_is_missing_is_told_and_no_mistake() {
    let (code, said) = check("[[camera]]\nname = \"yard\"\nsource = \"file\"\npath = \"yard.h264\"\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("yard.h264, again and again (no picture until it is there: No such file"),
        "{said}"
    );
}

#[test]
fn a_pipe_as_configuration_is_refused_and_waits_for_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("peercam.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let (output, said) = peercam(&["check", "--config", &pipe.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no regular file"), "{said}");
}

#[test]
fn devices_lists_csi_cameras_with_lines_that_the_check_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    stand_in(folder.path().join("rpicam-vid"));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("PATH"));
    let devices = || {
        let output = Command::new(PEERCAM)
            .arg("devices")
            .env("PATH", &path)
            .output()
            .expect("running peercam");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = devices();
    assert!(
        said.contains("CSI camera 0: imx219") && said.contains("CSI camera 1: imx708_wide"),
        "{said}"
    );
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("    ")).collect();
    let (code, checked) = check(&lines.join("\n"));
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.contains("camera-1: rpicam-vid"), "{checked}");

    for (mode, says) in [("none", "no camera found"), ("stall", "has not listed its cameras after 10 s")] {
        fs::write(folder.path().join("rpicam-vid.mode"), mode).expect("a file");
        let said = devices();
        assert!(said.contains(says), "{mode}: {said}");
    }
}

#[test]
fn devices_lists_the_cameras_or_says_what_to_do_without_one() {
    let (output, said) = peercam(&["devices"]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let nodes = fs::read_dir("/dev")
        .expect("/dev")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("video"))
        .count();
    if nodes == 0 {
        assert!(said.contains("no camera found") && said.contains("plug one in"), "{said}");
    } else {
        assert!(said.contains("/dev/video") || said.contains("no camera found"), "{said}");
    }
}
