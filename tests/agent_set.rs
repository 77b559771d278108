//! `camera.get` and `camera.set`: what viewers see while somebody changes the camera.

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};

use common::device::{Device, Settings};
use common::http::call;
use common::probe::Probe;
use common::scrape::Scrape;
use common::{SOON, until};

fn device(more: &'static str) -> (Device, SocketAddr) {
    Device::by_http(Settings {
        size: "1280x720",
        fps: 30,
        bitrate_kbps: 2_000,
        more,
        ..Settings::default()
    })
}

const ALLOWED: &str = "http.signaling = true\nunsigned.methods = [\"camera.set\"]";

fn set(address: SocketAddr, id: u64, params: &Value) -> Result<Value, Value> {
    call(address, "operator", id, "camera.set", params)
}

#[test]
fn bit_rate_size_and_rate_change_while_three_viewers_watch_and_none_is_lost() {
    let (_device, address) = device(ALLOWED);
    let url = format!("http://{address}/");
    let probe = Probe::by(&["--http", &url, "--viewers", "3", "--seconds", "20"]);
    until("three watch", SOON, || {
        (Scrape::of(address).value("peercam_viewers{stream=\"card\",quality=\"high\"}") == 3.0).then_some(())
    });
    // The test card needs less than any of these: that the encoder keeps to them is shown in tests/agent_rpicam.rs.
    for (id, bps) in (0..).zip([300_000, 2_000_000]) {
        let state = set(address, id, &json!({ "bitrate_bps": bps })).expect("it is set");
        assert_eq!((&state["bitrate_bps"], &state["stream"]), (&json!(bps), &json!("card")), "{state}");
    }
    let sizes = [(320, 180, 30), (640, 360, 15), (1920, 1080, 5), (1280, 720, 30)];
    for (id, (width, height, fps)) in sizes.into_iter().enumerate() {
        let began = Instant::now();
        let state = set(address, 10 + id as u64, &json!({ "width": width, "height": height, "fps": fps })).expect("it is set");
        println!("{width}x{height} at {fps} after {:?}", began.elapsed());
        assert_eq!(
            (&state["width"], &state["height"], &state["fps"]),
            (&json!(width), &json!(height), &json!(f64::from(fps))),
            "{state}"
        );
        assert_eq!(state["bitrate_bps"], 2_000_000, "what was set before stays: {state}");
    }
    let report = probe.report(SOON * 3);
    for viewer in report["per_viewer"].as_array().expect("a list") {
        assert!(viewer["failed"].is_null(), "a session ended: {}", viewer["failed"]);
        assert_eq!(viewer["frames_lost"], 0, "{viewer}");
        assert!(viewer["frames_shown"].as_u64() > Some(100), "{viewer}");
    }
}

#[test]
fn what_a_camera_cannot_have_is_said_and_nothing_changes() {
    let (_device, address) = device(ALLOWED);
    let before = call(address, "operator", 1, "camera.get", &json!({})).expect("everybody may ask");
    assert_eq!(
        before,
        json!({ "stream": "card", "width": 1280, "height": 720, "fps": 30.0, "bitrate_bps": 2_000_000, "controls": {} })
    );
    let impossible = [
        (json!({ "width": 640 }), "belong together"),
        (json!({ "width": 641, "height": 360 }), "even numbers"),
        (json!({ "fps": 1000 }), "from 1 to 240"),
        (json!({ "bitrate_bps": 1 }), "150000 to 50000000"),
        (json!({ "controls": { "brightness": 1 } }), "no controls, so no `brightness`"),
        (json!({ "stream": "garden" }), "no such stream; this device has: card"),
        (json!({ "controls": { "brightness": {} } }), "a number, true, false, or the text"),
        // Known only when it is tried; the old one is back then.
        (json!({ "width": 64, "height": 64 }), "at least 160x120"),
        (json!({ "width": 4096, "height": 4096 }), "at most 3840x2160"),
    ];
    for (id, (params, words)) in (2..).zip(impossible) {
        let error = set(address, id, &params).expect_err("refused");
        assert_eq!(error["code"], -32602, "{error}");
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains(words)),
            "{params}: {error}"
        );
    }
    let after = call(address, "operator", 100, "camera.get", &json!({ "stream": "card" })).expect("it runs on");
    assert_eq!(after, before);
}

#[test]
fn unless_the_owner_allows_it_viewers_change_nothing() {
    let (_device, address) = device("http.signaling = true");
    let error = set(address, 1, &json!({ "bitrate_bps": 300_000 })).expect_err("refused");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("[unsigned]")), "{error}");
    let state = call(address, "operator", 2, "camera.get", &json!({})).expect("it can be looked at");
    assert_eq!(state["bitrate_bps"], 2_000_000);
}
