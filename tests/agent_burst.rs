//! One client that asks without end is nobody else's trouble.

mod common;

use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::Device;
use common::peer::request;
use common::{SOON, until};
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
    let topic = mallory.from_topic();
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
