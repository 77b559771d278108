//! The probe's exit codes, and its words where it could measure nothing.

mod common;

use std::net::SocketAddr;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::probe::Probe;
use common::{SOON, free_port};

/// What a run ends with, and all that it says.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let ended = Probe::by(arguments).end(3 * SOON);
    assert!(!ended.log.contains('\x1b'), "no terminal reads this: {}", ended.log);
    (ended.status.code(), ended.out + &ended.log)
}

#[test]
fn a_run_that_could_measure_nothing_says_why_and_is_no_success() {
    let (_device, address) = Device::by_http(Settings {
        more: "http.whep = true",
        ..Settings::default()
    });
    let server = format!("http://{address}");
    let whep = format!("{server}/whep");
    let stream = format!("{whep}/card");
    let nobody = format!("http://{}/whep", SocketAddr::from(([127, 0, 0, 1], free_port())));
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--whep", &nobody, "--max-failed", "1"], 2, "Connection refused"),
        (&["--whep", &server], 2, "no WHEP endpoint"),
        (&["--whep", &stream, "--stream", "card"], 2, "leave --stream card"),
        (&["--whep", &whep, "--stream", "nope"], 1, "404: there is no such stream"),
        (&["--http", &server, "--address", "192.0.2.1"], 2, "does not have this address"),
        (&["--http", &server, "--address", "0.0.0.0"], 2, "does not have this address"),
        (&["--http", &server, "--seconds", "0"], 2, "is wanted"),
        (
            &[
                "--http",
                &server,
                "--seconds",
                "1",
                "--settle-seconds",
                "60",
                "--min-whole-percent",
                "1",
            ],
            1,
            "was not measured",
        ),
    ];
    for (arguments, code, words) in cases {
        let (ended, said) = run(arguments);
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("(unavailable)"), "the device named no reason: {said}");
    }
}

#[test]
fn a_run_by_whep_has_no_reply_to_a_hello() {
    let (_device, address) = Device::by_http(Settings {
        more: "http.whep = true",
        ..Settings::default()
    });
    let probe = Probe::by(&[
        "--whep",
        &format!("http://{address}/whep"),
        "--seconds",
        "1",
        "--max-lost-frames",
        "0",
    ]);
    let report = probe.report(SOON);
    assert!(report["per_viewer"][0]["hello_reply_ms"].is_null(), "{report}");
    assert_eq!(report["missed"], serde_json::json!([]), "{report}");
}

#[test]
fn a_device_that_nobody_knows_is_not_reached_however_many_may_fail() {
    let broker = Broker::start();
    let arguments = [
        "--broker",
        &broker.url(),
        "--device",
        "nope",
        "--seconds",
        "0.5",
        "--max-failed",
        "1",
    ];
    let (ended, said) = run(&arguments);
    assert_eq!(ended, Some(2), "{said}");
    assert!(said.contains("the device did not answer"), "{said}");
}
