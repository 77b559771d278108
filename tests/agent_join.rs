//! How fast viewers see their first picture.

mod common;

use std::time::{Duration, Instant};

use common::SOON;
use common::broker::Broker;
use common::device::{Device, Settings};
use common::probe::Probe;
use serde_json::Value;

/// The promise of 150 ms, ten times: how fast it is on this machine is printed.
const FIRST_KEY_MS: f64 = 1_500.0;

#[test]
fn twenty_viewers_at_random_moments_get_their_first_key_frame_at_once() {
    let broker = Broker::start();
    let mut device = Device::with(Settings {
        size: "640x360",
        fps: 30,
        bitrate_kbps: 800,
        broker: broker.url(),
        ..Settings::default()
    });
    device.start();
    device.live(&broker);
    let arguments = ["--viewers", "20", "--join-spread-ms", "8000", "--seconds", "2"];
    let report = Probe::start(broker.address, device.id(), &arguments).report(Duration::from_secs(60));
    for viewer in report["per_viewer"].as_array().expect("a list") {
        assert!(viewer["failed"].is_null(), "viewer {}: {}", viewer["viewer"], viewer["failed"]);
    }
    let p95 = |what: &str| report[what]["p95"].as_f64().unwrap_or(f64::MAX);
    println!(
        "first decodable key frame of 20 viewers, key frames every 4 s: p50 {}, p95 {} ms after the offer; p50 {}, p95 {} ms after hello",
        report["offer_to_key_ms"]["p50"],
        report["offer_to_key_ms"]["p95"],
        report["hello_to_key_ms"]["p50"],
        report["hello_to_key_ms"]["p95"]
    );
    assert_eq!(report["hello_to_key_ms"]["count"].as_u64().unwrap_or(20), 20);
    assert!(
        p95("offer_to_key_ms") < FIRST_KEY_MS && p95("hello_to_key_ms") < FIRST_KEY_MS,
        "joining is slow"
    );
}

#[test]
fn a_killed_agent_started_again_shows_the_picture_again() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let before = Probe::start(broker.address, device.id(), &["--seconds", "0.5"]).report(SOON);
    assert!(before["per_viewer"][0]["failed"].is_null(), "{before}");

    device.take_process().kill();
    let began = Instant::now();
    device.start();
    let status = device.live(&broker);
    let live = began.elapsed();
    let report = Probe::start(broker.address, device.id(), &["--seconds", "0.5"]).report(SOON);
    let took = began.elapsed();
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{}", viewer["failed"]);
    assert_ne!(viewer["frames_shown"], Value::from(0));
    println!(
        "started after kill -9: live after {} ms, first key frame {} ms after hello; the viewer's whole run was over after {} ms",
        live.as_millis(),
        viewer["hello_to_key_ms"],
        took.as_millis()
    );
    assert_eq!(status["online"], true);
    assert!(took < Duration::from_secs(10), "a new session took {took:?}");
}
