//! Signaling over HTTP, without any broker, and what the HTTP server bears.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::{Device, Settings};
use common::http::{Answer, Events, call, connect, read, request};
use common::probe::Probe;
use common::sdp::{self, offer_params};
use common::{SOON, free_port, until};
use serde_json::json;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"session.hello","params":{"version":1}}"#;

fn device() -> (Device, SocketAddr) {
    Device::by_http(Settings::default())
}

fn hello(address: SocketAddr, headers: &[(&str, &str)]) -> Answer {
    request(address, "POST", "/rpc/alice", headers, HELLO)
}

#[test]
fn a_viewer_joins_and_leaves_without_a_broker() {
    let (_device, address) = device();
    let page = request(address, "GET", "/peercam.json", &[], "").json();
    assert!(page["device"].is_string() && page.get("broker").is_none(), "{page}");
    let mut events = Events::open(address, "alice");
    let greeting = call(address, "alice", 1, "session.hello", &json!({ "version": 1 })).expect("hello is answered");
    assert_eq!(greeting["streams"][0]["name"], "card");
    let offer = offer_params(&greeting, &sdp::offer());
    let error = call(address, "bob", 1, "session.offer", &offer).expect_err("the nonce is alice's");
    assert_eq!(error["data"]["reason"], "expired");
    let first = call(address, "alice", 2, "session.offer", &offer).expect("the offer is answered");
    let again = call(address, "alice", 2, "session.offer", &offer).expect("the reply is repeated");
    assert_eq!(first, again, "a request is run once, its reply repeated");
    let second = call(address, "alice", 3, "session.offer", &offer).expect("the second offer is answered");
    let close = events.find("the end of the first session is told", |_, message| {
        message["method"] == "session.close"
    });
    assert_eq!(close["params"]["session"], first["session"]);
    let bye = json!({ "jsonrpc": "2.0", "method": "session.close", "params": { "session": second["session"], "reason": "seen enough" } });
    let answer = request(address, "POST", "/rpc/alice", &[JSON], &bye.to_string());
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    events.find("the end of the second session is told", |_, message| {
        message["params"]["session"] == second["session"]
    });
}

#[test]
fn viewers_by_http_get_every_picture() {
    let (_device, address) = device();
    let probe = Probe::by(&["--http", &format!("http://{address}/"), "--viewers", "3", "--seconds", "3"]);
    let report = probe.report(3 * SOON);
    let viewers_of_it = report["per_viewer"].as_array().expect("a list");
    assert_eq!(viewers_of_it.len(), 3);
    for viewer in viewers_of_it {
        assert!(viewer["failed"].is_null(), "{}", viewer["failed"]);
        assert!(viewer["frames_shown"].as_u64() > Some(20) && viewer["frames_lost"] == 0, "{viewer}");
    }
    assert_eq!(report["statuses"][0][1]["online"], true, "{report}");
}

#[test]
fn the_status_comes_first_and_the_farewell_last() {
    let (mut device, address) = device();
    let mut events = Events::open(address, "alice");
    let (name, status) = events.next_within(SOON).expect("an event");
    assert_eq!((name.as_str(), &status["online"]), ("status", &json!(true)));
    let mut newer = Events::open(address, "alice");
    newer.next_within(SOON).expect("an event");
    assert_eq!(events.next_within(SOON), None, "a peer listens once");
    let greeting = call(address, "alice", 1, "session.hello", &json!({ "version": 1 })).expect("hello is answered");
    call(address, "alice", 2, "session.offer", &offer_params(&greeting, &sdp::offer())).expect("the offer is answered");
    device.process().signal("TERM");
    newer.find("the session's end is told", |_, message| message["method"] == "session.close");
    newer.find("the device says that it goes", |name, status| {
        name == "status" && status["online"] == false
    });
    assert_eq!(newer.next_within(SOON), None, "the stream ends");
    let ended = device.take_process().end_within(SOON);
    assert!(ended.status.success() && ended.took < Duration::from_secs(2), "{ended:?}");
}

#[test]
fn a_page_of_another_origin_can_do_nothing() {
    let (_device, address) = device();
    let own = format!("http://{address}");
    assert_eq!(hello(address, &[JSON, ("Origin", &own)]).status, 200);
    assert_eq!(hello(address, &[JSON, ("Origin", "https://evil.example")]).status, 403);
    assert_eq!(hello(address, &[JSON, ("Sec-Fetch-Site", "cross-site")]).status, 403);
    // What a form or a simple request can send.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(hello(address, &[("Content-Type", kind)]).status, 415);
    }
    assert_eq!(hello(address, &[]).status, 415);
    // What DNS rebinding looks like: the browser believes that it speaks to the page's own site.
    let rebound = [JSON, ("Host", "evil.example"), ("Origin", "http://evil.example")];
    assert_eq!(hello(address, &rebound).status, 421);
    let rebound = request(address, "GET", "/peercam.json", &[("Host", "evil.example")], "");
    assert_eq!(
        rebound.status, 421,
        "the page's settings are not for a name that only seems to be ours"
    );
    // Which of two is meant, a proxy may see otherwise.
    for path in ["/peercam.json", "/rpc/alice/events", "/healthz"] {
        let twice = [("Host", "localhost"), ("Host", "evil.example")];
        assert_eq!(request(address, "GET", path, &twice, "").status, 400, "{path}");
    }
    let preflight = request(address, "OPTIONS", "/rpc/alice", &[("Origin", "https://evil.example")], "");
    assert_eq!(preflight.status, 405);
    assert_eq!(preflight.header("access-control-allow-origin"), None);
    let listening = request(address, "GET", "/rpc/alice/events", &[("Origin", "https://evil.example")], "");
    assert_eq!(listening.status, 403);
    for answer in [hello(address, &[JSON]), listening] {
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn what_is_no_message_is_refused_before_it_costs_anything() {
    let (_device, address) = device();
    let post = |body: &str| request(address, "POST", "/rpc/alice", &[JSON], body);
    let bad = post("{");
    assert_eq!((bad.status, &bad.json()["error"]["code"]), (400, &json!(-32700)));
    assert_eq!(post(&format!("{{\"x\":\"{}\"}}", "x".repeat(70_000))).status, 413);
    assert_eq!(request(address, "POST", "/rpc/a%2Fb", &[JSON], HELLO).status, 404);
    let no_text = request(address, "POST", "/rpc/%ab", &[JSON], HELLO);
    assert_eq!((no_text.status, no_text.header("x-content-type-options")), (400, Some("nosniff")));
    for no_call in [
        r#"{"jsonrpc":"2.0","id":null,"method":"system.info"}"#,
        r#"["2.0",1,"session.hello",{"version":1},null,null]"#,
    ] {
        let refused = post(no_call);
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (400, &json!(-32600)),
            "{no_call}"
        );
    }
    let positional = call(address, "alice", 6, "session.hello", &json!([1])).expect_err("parameters have names");
    assert_eq!(positional["code"], -32602);
    let unknown = call(address, "alice", 5, "open.door", &json!({})).expect_err("there is no such method");
    assert_eq!(unknown["code"], -32601);
    // An announced length is believed at once; without one, what is too much is counted.
    let mut chunked = connect(address);
    let head =
        format!("POST /rpc/alice HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let _ = chunked.write_all(format!("{head}{chunk}{chunk}{chunk}").as_bytes());
    assert_eq!(read(&mut BufReader::new(chunked), false).status, 413);
}

#[test]
fn a_peer_that_asks_without_end_is_held_back_and_the_others_are_not() {
    let (_device, address) = device();
    let statuses: Vec<u16> = (0..80)
        .map(|id| {
            let body = json!({ "jsonrpc": "2.0", "id": id, "method": "system.info" }).to_string();
            request(address, "POST", "/rpc/mallory", &[JSON], &body).status
        })
        .collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    call(address, "alice", 1, "session.hello", &json!({ "version": 1 })).expect("alice is answered");
}

#[test]
fn slow_and_silent_connections_are_ended() {
    let (_device, address) = device();
    let began = Instant::now();
    let mut silent = connect(address);
    let mut half = connect(address);
    half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("half a head");
    let mut body = connect(address);
    let head = format!("POST /rpc/alice HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{");
    body.write_all(head.as_bytes()).expect("half a body");
    let mut idle = connect(address);
    idle.write_all(format!("GET /peercam.json HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .expect("a request");
    let mut idle = BufReader::new(idle);
    assert_eq!(read(&mut idle, false).status, 200);
    assert_eq!(read(&mut BufReader::new(&mut body), false).status, 408);
    let mut rest = Vec::new();
    for mut stream in [silent.try_clone().expect("a socket"), half.try_clone().expect("a socket")] {
        stream.read_to_end(&mut rest).expect("the device ends the connection");
    }
    idle.read_to_end(&mut rest)
        .expect("the device ends a connection that is not used any more");
    let took = began.elapsed();
    assert!((5..25).contains(&took.as_secs()), "after its time, not {took:?}");
    let _ = (silent.flush(), half.flush());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (_device, address) = device();
    let large = "x".repeat(40_000);
    assert_eq!(request(address, "GET", "/", &[("X-Large", &large)], "").status, 431);
    let many: Vec<(String, String)> = (0..200).map(|number| (format!("X-{number}"), "1".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(request(address, "GET", "/", &many, "").status, 431);
}

#[test]
fn one_address_that_takes_every_connection_loses_its_own() {
    let (_device, address) = device();
    let mut alice = Events::open(address, "alice");
    alice.next_within(SOON).expect("an event");
    // All tests come from one address; what others have left is proven beside the code.
    let hoard: Vec<_> = (0..400).map(|_| connect(address)).collect();
    assert_eq!(hello(address, &[JSON]).status, 200, "a new one gets in all the same");
    let ended = until("the oldest ones are ended", SOON, || {
        let ended = hoard.iter().filter(|stream| {
            stream.set_nonblocking(true).expect("a socket");
            matches!((&**stream).read(&mut [0]), Ok(0))
                || (&**stream)
                    .read(&mut [0])
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        });
        let ended = ended.count();
        (ended >= 200).then_some(ended)
    });
    assert!(ended < 400, "{ended}");
}

#[test]
fn where_the_page_has_a_broker_http_is_no_way_around_it() {
    let broker = Broker::start();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = |more| Settings {
        broker: broker.url(),
        http: address.to_string(),
        more,
        ..Settings::default()
    };
    let mut device = Device::with(settings("broker.page_url = \"ws://127.0.0.1:9\""));
    device.start();
    device.live(&broker);
    assert_eq!(hello(address, &[JSON]).status, 404);
    let page = request(address, "GET", "/peercam.json", &[], "").json();
    assert_eq!(page["broker"], "ws://127.0.0.1:9");
    drop(device);
    let mut device = Device::with(settings("http.signaling = true\nbroker.page_url = \"ws://127.0.0.1:9\""));
    device.start();
    device.live(&broker);
    assert_eq!(hello(address, &[JSON]).status, 200);
    // The same name at two doors is two peers.
    let mut by_mqtt = device.peer(broker.address, "alice");
    let nonce = hello(address, &[JSON]).json()["result"].clone();
    let error = by_mqtt
        .call("session.offer", &offer_params(&nonce, &sdp::offer()))
        .expect_err("this nonce was given to another");
    assert_eq!(error["data"]["reason"], "expired");
}
