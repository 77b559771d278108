//! The low rung: a second stream of the same camera, made while somebody watches it, and viewers that go from one to the other.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use openh264::nal_units;
use serde_json::{Value, json};

use common::device::{Device, Settings};
use common::http::{Events, call};
use common::probe::Probe;
use common::scrape::{Scrape, get};
use common::{SOON, until};

fn device(more: &'static str) -> (Device, SocketAddr) {
    Device::by_http(Settings {
        size: "640x360",
        fps: 30,
        bitrate_kbps: 1_000,
        more,
        ..Settings::default()
    })
}

fn figure(page: SocketAddr, name: &str, quality: &str) -> f64 {
    Scrape::of(page).value(&format!("peercam_{name}{{stream=\"card\",quality=\"{quality}\"}}"))
}

fn viewer(report: &Value) -> &Value {
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "the session ended: {}", viewer["failed"]);
    viewer
}

/// Decodes a stream as the viewer got it; each picture's width, which is told once for many of the same.
fn widths(film: &[u8]) -> Vec<usize> {
    let mut decoder = Decoder::new().expect("a decoder");
    let mut widths = Vec::new();
    let mut note = |picture: Option<usize>| {
        if picture.is_some() && picture != widths.last().copied() {
            widths.extend(picture);
        }
    };
    for unit in nal_units(film) {
        note(
            decoder
                .decode(unit)
                .expect("every picture can be decoded")
                .map(|picture| picture.dimensions().0),
        );
    }
    note(
        decoder
            .flush_remaining()
            .expect("the rest")
            .last()
            .map(|picture| picture.dimensions().0),
    );
    widths
}

#[test]
fn the_low_rung_is_encoded_only_while_somebody_watches_it_and_half_as_large() {
    let (_device, page) = device("http.signaling = true");
    let url = format!("http://{page}/");
    let hello = call(page, "asker", 1, "session.hello", &json!({ "version": 1 })).expect("a hello");
    let rungs = json!([
        { "quality": "high", "width": 640, "height": 360 },
        { "quality": "low", "width": 320, "height": 180 },
    ]);
    assert_eq!(hello["streams"][0]["qualities"], rungs);
    let folder = tempfile::tempdir().expect("a folder");
    let film = folder.path().join("low.h264");
    let high = Probe::by(&["--http", &url, "--seconds", "6"]);
    until("the first watches", SOON, || (figure(page, "viewers", "high") == 1.0).then_some(()));
    assert_eq!(figure(page, "pictures_total", "low"), 0.0, "nobody wants it yet");
    let low = Probe::by(&[
        "--http",
        &url,
        "--quality",
        "low",
        "--seconds",
        "4",
        "--save",
        &film.to_string_lossy(),
    ]);
    until("one watches each", SOON, || {
        (figure(page, "viewers", "low") == 1.0 && figure(page, "viewers", "high") == 1.0).then_some(())
    });
    let (low, high) = (low.report(SOON), high.report(SOON));
    for report in [&low, &high] {
        let viewer = viewer(report);
        assert_eq!(
            (&viewer["frames_lost"], &viewer["frames_undecodable"]),
            (&json!(0), &json!(0)),
            "{viewer}"
        );
        assert!(viewer["frames_shown"].as_u64() >= Some(60), "{viewer}");
    }
    assert_eq!(viewer(&low)["session_stats"]["quality"], "low");
    // A fifth of the high one's 1,000 kbit/s.
    assert_eq!(viewer(&low)["session_stats"]["target_bps"], 200_000);
    assert_eq!(viewer(&high)["session_stats"]["target_bps"], 1_000_000);
    assert_eq!(widths(&std::fs::read(film).expect("a film")), [320]);
    until("its encoder rests when the last has gone", Duration::from_secs(60), || {
        (figure(page, "camera_resting", "low") == 1.0).then_some(())
    });
    let made = figure(page, "pictures_total", "low");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(figure(page, "pictures_total", "low"), made);
}

#[test]
fn a_viewer_goes_from_rung_to_rung_without_losing_a_picture() {
    let (_device, page) = device("http.signaling = true");
    let url = format!("http://{page}/");
    let folder = tempfile::tempdir().expect("a folder");
    let film = folder.path().join("both.h264");
    let arguments = [
        "--http",
        &url,
        "--seconds",
        "13",
        "--change-quality-ms",
        "1000",
        "--save",
        &film.to_string_lossy(),
    ];
    let report = Probe::by(&arguments).report(SOON * 2);
    let viewer = viewer(&report);
    for lost in ["frames_lost", "frames_undecodable", "frames_malformed", "freezes"] {
        assert_eq!(viewer[lost], 0, "{lost}: {viewer}");
    }
    let granted = viewer["qualities"].as_array().expect("a list");
    assert!(granted.len() >= 10, "{viewer}");
    for (place, quality) in granted.iter().enumerate() {
        assert_eq!(quality, ["low", "high"][place % 2], "{viewer}");
    }
    let widths = widths(&std::fs::read(film).expect("a film"));
    assert!(widths.len() >= 10, "{widths:?}");
    assert!(widths.windows(2).all(|pair| pair[0] + pair[1] == 960), "{widths:?}");
    assert!(viewer["frames_shown"].as_u64() >= Some(300), "{viewer}");
}

#[test]
fn the_low_rung_follows_a_camera_that_is_set_to_another_size() {
    let (_device, page) = device("http.signaling = true\nunsigned.methods = [\"camera.set\"]");
    let url = format!("http://{page}/");
    let folder = tempfile::tempdir().expect("a folder");
    let film = folder.path().join("low.h264");
    let probe = Probe::by(&[
        "--http",
        &url,
        "--quality",
        "low",
        "--seconds",
        "60",
        "--save",
        &film.to_string_lossy(),
    ]);
    let shown = |more: f64| {
        until("pictures of the low rung", SOON, || {
            (figure(page, "pictures_total", "low") >= more).then_some(())
        });
    };
    shown(30.0);
    let state = call(
        page,
        "operator",
        1,
        "camera.set",
        &json!({ "width": 960, "height": 540, "fps": 20 }),
    )
    .expect("it is set");
    assert_eq!(state["width"], 960, "{state}");
    shown(figure(page, "pictures_total", "low") + 30.0);
    let report = probe.stop(SOON);
    let viewer = viewer(&report);
    assert_eq!(
        (&viewer["frames_lost"], &viewer["frames_undecodable"]),
        (&json!(0), &json!(0)),
        "{viewer}"
    );
    assert_eq!(viewer["session_stats"]["quality"], "low");
    let widths = widths(&std::fs::read(film).expect("a film"));
    // Its encoder takes a moment, in which the high rung may be shown.
    assert!(widths.first() == Some(&320) && widths.last() == Some(&480), "{widths:?}");
}

#[test]
fn who_wishes_for_a_low_rung_where_there_is_none_is_told_and_shown_the_high_one() {
    let (device, page) = device("http.signaling = true");
    let refused = call(
        page,
        "mallory",
        1,
        "session.quality",
        &json!({ "session": "0123", "quality": "low" }),
    )
    .expect_err("not theirs");
    assert_eq!(refused["data"]["reason"], "conflict", "{refused}");
    let refused = call(
        page,
        "mallory",
        2,
        "session.quality",
        &json!({ "session": "0123", "quality": "best" }),
    )
    .expect_err("no such");
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("`high` or `low`")),
        "{refused}"
    );

    device.configure(&(device.config() + "low = false\n"));
    let url = format!("http://{page}/");
    until("the device runs with the other configuration", SOON, || {
        let figures = get(page, "/metrics", "")?;
        (!figures.body.contains("quality=\"low\"")).then_some(())
    });
    Events::open(page, "watcher").find("it shows a picture", |name, status| {
        name == "status" && status["streams"][0]["state"] == "live"
    });
    let hello = call(page, "asker", 3, "session.hello", &json!({ "version": 1 })).expect("a hello");
    assert_eq!(
        hello["streams"][0]["qualities"],
        json!([{ "quality": "high", "width": 640, "height": 360 }])
    );
    let report = Probe::by(&["--http", &url, "--quality", "low", "--change-quality-ms", "500", "--seconds", "3"]).report(SOON);
    let viewer = viewer(&report);
    assert_eq!(viewer["session_stats"]["quality"], "high");
    let granted = viewer["qualities"].as_array().expect("a list");
    assert!(!granted.is_empty() && granted.iter().all(|quality| quality == "high"), "{viewer}");
    assert_eq!(viewer["frames_lost"], 0, "{viewer}");
}
