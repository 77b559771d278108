//! The first words between a viewer and a device, over a real broker.

mod common;

use common::SOON;
use common::broker::Broker;
use common::device::Device;
use common::peer::{Peer, request};
use rumqttc::PublishOptions;
use serde_json::{Value, json};

#[test]
fn hello_tells_who_answers_what_it_can_do_and_gives_a_nonce_and_a_clock() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let first = alice.hello();
    assert_eq!(first["version"], 1);
    assert_eq!(
        first["device"],
        json!({ "id": device.id(), "name": "porch", "software": env!("CARGO_PKG_VERSION") })
    );
    let methods: Vec<&str> = first["methods"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for method in [
        "session.hello",
        "session.offer",
        "session.candidates",
        "session.close",
        "camera.keyframe",
        "system.info",
    ] {
        assert!(methods.contains(&method), "{method} is missing in {methods:?}");
    }
    assert_eq!(first["streams"][0]["name"], "card");
    assert_eq!(
        (&first["streams"][0]["width"], &first["streams"][0]["height"]),
        (&json!(320), &json!(240))
    );
    assert!(
        first["streams"][0]["profile_level_id"].as_str().is_some_and(|id| id.len() == 6),
        "{first}"
    );
    assert_eq!(first["limits"], json!({ "viewers": 20, "message_bytes": 65_536 }));
    assert_eq!((&first["ice_servers"], &first["ice_transport_policy"]), (&json!([]), &json!("all")));

    let second = alice.hello();
    assert!(
        second["clock_ms"].as_u64() >= first["clock_ms"].as_u64(),
        "the device's clock runs forwards"
    );
    assert_ne!(second["nonce"], first["nonce"], "every hello gets a nonce of its own");
}

#[test]
fn a_request_that_is_delivered_twice_is_run_once_and_its_reply_repeated() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    let hello = request(&json!("twice"), "session.hello", &json!({ "version": 1 })).to_string();
    alice.send(hello.clone());
    let first = alice.reply(&json!("twice"), SOON).expect("the first is answered").message;
    alice.send(hello.clone());
    let again = alice.reply(&json!("twice"), SOON).expect("the second is answered too").message;
    assert!(first["result"]["nonce"].is_string(), "{first}");
    assert_eq!(again, first, "run again, it would have got another nonce");

    let mut bob = device.peer(broker.address, "bob");
    bob.send(hello);
    let bobs = bob.reply(&json!("twice"), SOON).expect("ids are each peer's own").message;
    assert_ne!(bobs["result"]["nonce"], first["result"]["nonce"]);
}

#[test]
fn a_response_topic_is_honoured_beneath_the_peers_own_and_nowhere_else() {
    let broker = Broker::start();
    let device = Device::online(&broker);
    let mut alice = device.peer(broker.address, "alice");
    // Alice reads along where she must not be able to make the device write.
    alice.subscribe(&format!("peercam/v1/{}/to/+", device.id()));
    alice.subscribe("elsewhere/#");
    let own = alice.to_topic();
    let beneath = format!("{own}/replies/7");
    let foreign = [
        "elsewhere/light/set".to_owned(),
        format!("peercam/v1/{}/to/alice2", device.id()),
        format!("peercam/v1/{}/to/bob", device.id()),
        format!("peercam/v1/{}/desired", device.id()),
        format!("{own}/../bob"),
    ];
    for (number, wanted) in std::iter::once(&beneath).chain(&foreign).enumerate() {
        let id = json!(format!("response-{number}"));
        alice.send_with_response_topic(&request(&id, "session.hello", &json!({ "version": 1 })), wanted, b"which-one");
        let reply = alice
            .reply(&id, SOON)
            .unwrap_or_else(|| panic!("no reply with the response topic {wanted}"));
        let right = if *wanted == beneath || wanted.ends_with("/../bob") {
            wanted
        } else {
            &own
        };
        assert_eq!(reply.topic, *right, "asked for {wanted}");
        assert_eq!(
            reply.correlation.as_deref(),
            Some(&b"which-one"[..]),
            "the correlation data come back"
        );
    }
}

#[test]
fn retained_requests_are_ignored_whenever_they_were_published() {
    let broker = Broker::start();
    let mut device = Device::online(&broker);
    let poison = |id: &str| request(&json!(id), "session.hello", &json!({ "version": 1 })).to_string();
    let retained = PublishOptions::at_least_once().retained();

    // While it runs: the broker passes it on at once, marked as retained.
    let mut alice = device.peer(broker.address, "alice");
    alice.publish(&alice.request_topic(), poison("while-running"), retained.clone());
    alice.hello();
    // A restarted agent finds it there.
    device.take_process().kill();
    let mut bob = device.peer(broker.address, "bob");
    bob.publish(&bob.request_topic(), poison("before-start"), retained);
    // A second subscriber proves that the broker keeps both.
    let mut witness = Peer::join(broker.address, device.id(), "witness");
    witness.subscribe(&format!("peercam/v1/{}/from/+", device.id()));
    for id in ["while-running", "before-start"] {
        let kept = witness.hear(SOON, |heard| (heard.message["id"] == id).then_some(heard.retained));
        assert_eq!(kept, Some(true), "the broker retains the request {id}");
    }
    device.start();
    device.live(&broker);
    for (peer, id) in [(&mut alice, "while-running"), (&mut bob, "before-start")] {
        // What is asked later is answered; what was retained would have come first.
        peer.hello();
        peer.hello();
        assert!(
            peer.reply(&json!(id), std::time::Duration::ZERO).is_none(),
            "a retained request ({id}) was answered"
        );
    }
}
