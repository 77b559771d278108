//! Offers over a real broker: who gets a session, and who gets which reason.

mod common;

use std::time::Instant;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::Peer;
use common::probe::Probe;
use common::sdp::{self, offer_params};
use common::{SOON, until};
use serde_json::{Value, json};

fn viewers(peer: &mut Peer) -> Value {
    peer.call("system.info", &json!({})).expect("system.info is answered")["viewers"].clone()
}

#[test]
fn an_offer_is_answered_with_a_session_and_the_streams_own_h264() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let answer = alice
        .call("session.offer", &offer_params(&hello, &sdp::offer()))
        .expect("the offer is answered");
    let sdp = answer["sdp"].as_str().expect("an answer");
    assert!(answer["session"].as_str().is_some_and(|session| session.len() == 32), "{answer}");
    assert!(
        sdp.contains("a=sendonly") && sdp.contains("H264/90000") && !sdp.contains("VP8/90000"),
        "{sdp}"
    );
    assert!(
        sdp.contains("a=candidate:") && sdp.contains("127.0.0.1"),
        "the answer carries the device's addresses: {sdp}"
    );
    let level = &hello["streams"][0]["profile_level_id"].as_str().expect("six digits")[4..];
    let id = sdp
        .split("profile-level-id=")
        .nth(1)
        .map(|rest| &rest[..6])
        .expect("a profile-level-id");
    assert_eq!(&id[4..], level, "the stream's own level is declared");
    assert!(sdp.contains("x=320,y=240"), "the picture's size is declared: {sdp}");
    assert_eq!(viewers(&mut alice), 1);
}

#[test]
fn a_stale_nonce_is_refused_with_a_fresh_one_that_works() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let before = alice.hello();
    let bobs = device.peer(broker.address, "bob").hello();
    device.take_process().kill();
    device.start();
    device.live(&broker);
    for (whose, hello) in [("an earlier boot", before), ("another peer", bobs)] {
        let mut params = offer_params(&hello, &sdp::offer());
        let error = alice.call("session.offer", &params).expect_err("this nonce is stale");
        assert_eq!(
            (&error["code"], &error["data"]["reason"]),
            (&json!(-32006), &json!("expired")),
            "{whose}: {error}"
        );
        params["nonce"] = error["data"]["nonce"].clone();
        params["expires_ms"] = json!(error["data"]["clock_ms"].as_u64().expect("the device's clock") + 15_000);
        alice
            .call("session.offer", &params)
            .unwrap_or_else(|error| panic!("the fresh nonce is no good either: {error}"));
    }
}

#[test]
fn an_offer_that_comes_too_late_is_not_answered_but_may_be_repeated() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let mut params = offer_params(&hello, &sdp::offer());
    params["expires_ms"] = json!(hello["clock_ms"].as_u64().expect("the device's clock").saturating_sub(1));
    let error = alice.call("session.offer", &params).expect_err("this offer is too late");
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(-32006), &json!("expired")),
        "{error}"
    );
    assert_eq!(viewers(&mut alice), 0, "nobody waits for this session");
    params["nonce"] = error["data"]["nonce"].clone();
    params["expires_ms"] = json!(error["data"]["clock_ms"].as_u64().expect("the device's clock") + 15_000);
    alice.call("session.offer", &params).expect("repeated in time it is answered");
}

#[test]
fn a_viewer_without_h264_is_told_so_at_once() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let began = Instant::now();
    let error = alice
        .call("session.offer", &offer_params(&hello, &sdp::offer_without_h264()))
        .expect_err("there is no common codec");
    println!("refused after {} ms", began.elapsed().as_millis());
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(-32005), &json!("unsupported_codec")),
        "{error}"
    );
    assert!(
        error["message"].as_str().is_some_and(|sentence| sentence.contains("H.264")),
        "{error}"
    );
    assert_eq!(viewers(&mut alice), 0);
}

#[test]
fn an_offer_that_is_none_or_for_no_stream_is_refused_with_a_sentence() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let mut elsewhere = offer_params(&hello, &sdp::offer());
    elsewhere["stream"] = json!("garden");
    let error = alice.call("session.offer", &elsewhere).expect_err("there is no garden");
    assert_eq!(error["data"]["reason"], "invalid_params", "{error}");
    assert!(
        error["message"].as_str().is_some_and(|sentence| sentence.contains("card")),
        "it names what there is: {error}"
    );
    let mut over = offer_params(&hello, &sdp::offer());
    over["session"] = json!("00000000000000000000000000000000");
    let error = alice.call("session.offer", &over).expect_err("there is no such session");
    assert_eq!(error["data"]["reason"], "conflict", "{error}");
    let broken = sdp::offer().replace("m=video", "m=vid");
    for sdp in ["", "no SDP at all", &broken[..], &sdp::offer()[..700]] {
        let error = alice
            .call("session.offer", &offer_params(&hello, sdp))
            .expect_err("this is no offer");
        let reason = &error["data"]["reason"];
        assert!(reason == "invalid_params" || reason == "unsupported_codec", "{error}");
    }
    assert_eq!(viewers(&mut alice), 0);
}

/// A device that serves one viewer at a time.
fn one_seat() -> (Broker, Device) {
    let broker = Broker::start();
    let mut device = Device::with(Settings {
        viewers: 1,
        broker: broker.url(),
        ..Settings::default()
    });
    device.start();
    device.live(&broker);
    (broker, device)
}

#[test]
fn one_viewer_too_many_is_refused_until_another_leaves() {
    let (broker, mut device) = one_seat();
    let mut alice = device.peer(broker.address, "alice");
    let mut bob = device.peer(broker.address, "bob");
    let (hello, bobs) = (alice.hello(), bob.hello());
    alice
        .call("session.offer", &offer_params(&hello, &sdp::offer()))
        .expect("there is room");
    let probe = Probe::start(broker.address, device.id(), &["--seconds", "600"]);
    // An offer alone takes no seat from who means it.
    let session = device.seated();
    let error = bob
        .call("session.offer", &offer_params(&bobs, &sdp::offer()))
        .expect_err("there is no room for two");
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(-32003), &json!("too_many_viewers")),
        "{error}"
    );

    bob.notify("session.close", &json!({ "session": session, "reason": "I want to watch" }));
    assert_eq!(viewers(&mut bob), 2, "nobody closes another's session");
    let report = probe.stop(SOON);
    assert!(report["per_viewer"][0]["connected_ms"].is_number(), "{report}");
    until("there is room again", SOON, || {
        let bobs = bob.hello();
        bob.call("session.offer", &offer_params(&bobs, &sdp::offer())).ok()
    });
}

#[test]
fn who_comes_when_every_seat_is_taken_meanwhile_is_told() {
    let (broker, device) = one_seat();
    // Both offer before either is heard; only one can sit down.
    let report = Probe::start(broker.address, device.id(), &["--viewers", "2", "--seconds", "4"]).report(SOON * 2);
    let mut told: Vec<&str> = report["per_viewer"]
        .as_array()
        .expect("viewers")
        .iter()
        .filter_map(|viewer| viewer["failed"].as_str())
        .collect();
    assert_eq!(told.len(), 1, "{report}");
    let sentence = told.remove(0);
    assert!(sentence.contains("1 viewers are watching already"), "{sentence}");
}

#[test]
fn a_peers_second_offer_replaces_its_first_session() {
    let (broker, device) = one_seat();
    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    let offer = offer_params(&hello, &sdp::offer());
    let first = alice.call("session.offer", &offer).expect("the offer is answered")["session"].clone();
    // Even where there is room for one only: it is the same viewer.
    let second = alice.call("session.offer", &offer).expect("the second offer is answered")["session"].clone();
    assert_ne!(first, second);
    let close = alice
        .notification("session.close", SOON)
        .expect("the end of the first session is told");
    assert_eq!(close["session"], first);
    assert_eq!(viewers(&mut alice), 1);
}
