//! A viewer behind a bad network still sees the camera.

mod common;

use std::time::Duration;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::film::film;
use common::probe::Probe;
use serde_json::Value;

const FPS: usize = 30;

/// What the probe emulates: 3 % lost each way, 100 ms of round trip, 10 % overtaken by others.
const NETWORK: [&str; 6] = ["--loss", "3", "--delay-ms", "50", "--reorder", "10"];

#[test]
fn over_99_percent_of_a_cameras_pictures_come_whole_over_a_path_that_loses_delays_and_reorders() {
    let broker = Broker::start();
    let mut device = Device::with(settings(&broker));
    device.start();
    device.live(&broker);
    let viewer = watch(&broker, &device, 20);
    let lost = number(&viewer, "frames_lost");
    assert!(
        number(&viewer, "plis") >= lost.min(1.0),
        "a loss is followed by a key frame: {viewer}"
    );
}

/// The test card is small however it is set; a film can have the packets that 2.5 Mbit/s have. Who joins a film catches
/// up with seconds of it in a moment, too fast for this viewer's stack to ask twice; the percentage is of what comes after that.
#[test]
fn over_99_percent_of_a_film_of_2_and_a_half_mbits_come_whole_over_such_a_path() {
    let broker = Broker::start();
    let mut device = Device::with(settings(&broker));
    device.configure(&device.playing(&film(2_500_000, FPS), &device.config()));
    device.start();
    device.live(&broker);
    let viewer = watch(&broker, &device, 30);
    let kbps = number(&viewer, "video_bytes") * 8.0 / 1_000.0 / 30.0;
    assert!(kbps > 2_000.0, "{kbps} kbit/s came");
    assert!(number(&viewer, "nacks") > 50.0, "what was lost was asked for again: {viewer}");
    // What it is worth is held in virtual time (tests/session/estimate_follows_the_path.rs): on a busy machine timers jitter, too.
    println!("the path is estimated at {} bit/s", viewer["session_stats"]["estimate_bps"]);
}

fn settings(broker: &Broker) -> Settings {
    Settings {
        size: "640x360",
        fps: FPS as u32,
        bitrate_kbps: 1_500,
        broker: broker.url(),
        ..Settings::default()
    }
}

/// One viewer for so long over the bad network, as the probe tells of it.
fn watch(broker: &Broker, device: &Device, seconds: u32) -> Value {
    let seconds = seconds.to_string();
    let arguments = [&NETWORK[..], &["--seconds", &seconds, "--settle-seconds", "2"]].concat();
    let report = Probe::start(broker.address, device.id(), &arguments).report(Duration::from_secs(200));
    let viewer = report["per_viewer"][0].clone();
    assert!(viewer["failed"].is_null(), "{viewer}");
    println!(
        "{} pictures shown, {} lost, {} not decodable; {} % whole since it has settled; {} NACKs, {} PLIs, latency {}",
        viewer["frames_shown"],
        viewer["frames_lost"],
        viewer["frames_undecodable"],
        viewer["whole_percent"],
        viewer["nacks"],
        viewer["plis"],
        viewer["latency_ms"]
    );
    assert!(number(&viewer, "latency_ms/count") > 10.0 * FPS as f64, "pictures flow: {viewer}");
    let whole = number(&viewer, "whole_percent");
    assert!(whole > 99.0, "{whole} % of the pictures came whole: {viewer}");
    // The network was as bad as it was said to be, and the viewer did what browsers do about it.
    assert!(number(&viewer, "rtt_ms") > 100.0, "{viewer}");
    assert!(number(&viewer, "nacks") > 5.0, "what was lost was asked for again: {viewer}");
    assert!(
        viewer["session_stats"]["estimate_bps"].is_u64(),
        "the device has the viewer's feedback on each packet: {viewer}"
    );
    viewer
}

fn number(viewer: &Value, what: &str) -> f64 {
    let value = viewer.pointer(&format!("/{what}")).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {what}: {viewer}"))
}
