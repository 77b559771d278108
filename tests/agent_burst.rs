//! One client that asks without end is nobody else's trouble.

mod common;

use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::request;
use common::probe::Probe;
use common::{SOON, sdp, until};
use rumqttc::PublishOptions;
use serde_json::json;

/// The promise is one second, ten times.
const ANSWER: Duration = Duration::from_secs(10);

#[test]
fn ten_thousand_requests_of_one_client_keep_no_other_from_being_answered() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let mallory = device.peer(broker.address, "mallory");
    let topic = mallory.request_topic();
    for id in 0..10_000 {
        mallory.publish(
            &topic,
            request(&json!(id), "session.hello", &json!({ "version": 1 })).to_string(),
            PublishOptions::at_most_once(),
        );
    }
    let began = Instant::now();
    // A viewer asks again when it hears nothing for a second.
    let mut asked = 0;
    until("another peer is answered", ANSWER, || {
        asked += 1;
        alice
            .call_within("session.hello", &json!({ "version": 1 }), Duration::from_secs(1))?
            .ok()
    });
    println!("answered after {} ms, asked {asked} times", began.elapsed().as_millis());

    let mut mallory = mallory;
    let told = mallory.hear(SOON, |heard| heard.message["error"]["data"]["reason"].as_str().map(str::to_owned));
    assert_eq!(told.as_deref(), Some("busy"), "who asks too much is told so");
    assert!(device.process().is_alive(), "the agent still runs");
    let log = device.process().log();
    assert!(
        !log.contains("was dropped"),
        "no reply is lost because one client asks too much:\n{log}"
    );
    assert!(log.lines().count() < 100, "nor is the log filled:\n{log}");
    until("even who asked too much is answered again", ANSWER, || {
        mallory
            .call_within("session.hello", &json!({ "version": 1 }), Duration::from_secs(1))?
            .ok()
    });
}

#[test]
fn thousands_of_candidates_of_one_viewer_cost_no_other_a_picture() {
    let broker = Broker::start();
    let mut device = Device::with(Settings {
        size: "320x180",
        fps: 30,
        bitrate_kbps: 400,
        broker: broker.url(),
        ..Settings::default()
    });
    device.start();
    device.live(&broker);
    let probe = Probe::start(broker.address, device.id(), &["--seconds", "8"]);
    let mut mallory = device.peer(broker.address, "mallory");
    let hello = mallory.hello();
    let answer = mallory
        .call("session.offer", &sdp::offer_params(&hello, &sdp::offer()))
        .expect("an answer");
    let session = answer["session"].as_str().expect("the session's id").to_owned();
    // As fast as the pace of one peer allows.
    for message in 0..100u32 {
        let line = |n: u32| {
            let [_, b, c, d] = (message * 300 + n).to_be_bytes();
            format!("candidate:1 1 udp 2122260223 10.{b}.{c}.{d} 5000 typ host")
        };
        let candidates: Vec<String> = (0..300).map(line).collect();
        mallory.notify("session.candidates", &json!({ "session": session, "candidates": candidates }));
        std::thread::sleep(Duration::from_millis(40));
    }
    let report = probe.report(Duration::from_secs(60));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    assert_eq!((&viewer["frames_lost"], &viewer["freezes"]), (&json!(0), &json!(0)), "{viewer}");
    let dropped = &viewer["session_stats"]["dropped"];
    assert_eq!(dropped, &json!(0), "pictures were held back: {viewer}");
}
