//! What is no proper request is answered with a reason, or not at all, and harms nobody.

mod common;

use std::time::Duration;

use common::SOON;
use common::broker::Broker;
use common::device::Device;
use common::peer::request;
use rumqttc::PublishOptions;
use serde_json::{Value, json};

#[test]
fn a_wrong_call_gets_the_standard_code_and_a_sentence() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    for (method, params, code, reason, word) in [
        ("camera.explode", json!({}), -32601, "method_not_found", "camera.explode"),
        ("session.hello", json!({}), -32602, "invalid_params", "version"),
        ("session.hello", json!({ "version": "one" }), -32602, "invalid_params", "one"),
        (
            "session.hello",
            json!({ "version": 1, "colour": "red" }),
            -32602,
            "invalid_params",
            "colour",
        ),
        ("session.hello", json!({ "version": 0 }), -32602, "invalid_params", "version"),
        ("session.offer", json!({ "sdp": "v=0" }), -32602, "invalid_params", "nonce"),
        ("session.clock", json!({}), -32008, "unavailable", "data channel"),
    ] {
        let error = alice.call(method, &params).expect_err("this call is wrong");
        assert_eq!(
            (&error["code"], &error["data"]["reason"]),
            (&json!(code), &json!(reason)),
            "{method} {params}: {error}"
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|sentence| sentence.len() > 10 && sentence.contains(word)),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_message_is_answered_without_an_id() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let large = request(
        &json!("large"),
        "session.hello",
        &json!({ "version": 1, "padding": "x".repeat(65_600) }),
    )
    .to_string();
    for (payload, code) in [
        (b"hello?".to_vec(), -32700),
        (b"".to_vec(), -32700),
        (vec![0xff, 0xfe, 0x00], -32700),
        (b"[]".to_vec(), -32600),
        (br#"{"jsonrpc":"1.0","id":1,"method":"session.hello"}"#.to_vec(), -32600),
        (br#"{"jsonrpc":"2.0","id":-1,"method":"session.hello"}"#.to_vec(), -32600),
        ("[".repeat(500).into_bytes(), -32700),
        // More values than are read.
        ("[".repeat(60_000).into_bytes(), -32600),
        (large.into_bytes(), -32600),
    ] {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        alice.send(payload);
        let error = alice
            .hear(SOON, |heard| {
                heard
                    .message
                    .get("error")
                    .cloned()
                    .map(|error| (error, heard.message["id"].clone()))
            })
            .unwrap_or_else(|| panic!("no reply to {shown}"));
        assert_eq!((&error.0["code"], &error.1), (&json!(code), &Value::Null), "{shown}: {}", error.0);
    }
    alice.hello();
}

#[test]
fn a_message_larger_than_the_device_takes_never_reaches_it_and_the_connection_stays() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let before = device.peer(broker.address, "bob").hello();
    let mut alice = device.peer(broker.address, "alice");
    let huge = request(
        &json!("huge"),
        "session.hello",
        &json!({ "version": 1, "padding": "x".repeat(70 * 1024) }),
    );
    alice.send(huge.to_string());
    let after = alice.hello();
    assert!(
        alice.reply(&json!("huge"), Duration::ZERO).is_none(),
        "70 KiB are above the device's packet limit"
    );
    assert!(after["clock_ms"].as_u64() > before["clock_ms"].as_u64(), "the same agent answers");
}

#[test]
fn topics_that_are_no_peers_and_notifications_that_make_no_sense_are_passed_over() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    alice.subscribe(&format!("peercam/v1/{}/to/#", device.id()));
    let hello = request(&json!("stranger"), "session.hello", &json!({ "version": 1 })).to_string();
    for name in ["a b", "ä", &"x".repeat(65), ""] {
        alice.publish(
            &format!("peercam/v1/{}/from/{name}", device.id()),
            hello.clone(),
            PublishOptions::at_least_once(),
        );
    }
    for method in ["session.close", "session.candidates", "camera.explode"] {
        alice.notify(method, &json!({ "session": "nobody's", "reason": "none", "candidates": [] }));
        alice.notify(method, &json!(7));
    }
    alice.send(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#);
    let hello = alice.hello();
    // Two of the subscriptions match what is sent to alice, so the broker may deliver her own reply twice.
    let said = alice.hear(Duration::ZERO, |heard| (heard.message["result"] != hello).then(|| heard.clone()));
    assert!(said.is_none(), "nothing of this has an answer, but: {said:?}");
}
