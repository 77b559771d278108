//! What harm strangers can do to an agent that six good viewers watch: none that those six, or who joins meanwhile, notice.
//!
//! With `PEERCAM_SOAK=1` there is ten times as much of everything.

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::device::{Device, Settings};
use common::memory::Memory;
use common::peer::{Peer, request};
use common::probe::Probe;
use common::scrape::Scrape;
use common::{SOON, free_port, http, sdp, soak, until};
use rumqttc::PublishOptions;
use serde_json::{Value, json};

/// By how much the agent's memory may rise over what it is with six viewers.
const RISE_KIB: i64 = 20 * 1_024;

/// How much of that may be left when all is over. The C library keeps for the next time what lies between pieces that are in use.
const REST_KIB: i64 = RISE_KIB / 2;

/// By how much more it may rise when the same is done again: what is kept is used again.
const AGAIN_KIB: i64 = 2 * 1_024;

/// The promise is one second from hello to the first key frame, ten times.
const JOIN_MS: f64 = 10_000.0;

/// A session that never connects is given up after 15 s.
const GIVEN_UP: Duration = Duration::from_secs(60);

#[test]
fn attacks_cost_good_viewers_no_picture_and_the_agent_no_memory() {
    let scene = Scene::set();
    scene.under("nothing", |_| std::thread::sleep(Duration::from_millis(100)));
    scene.under("malformed messages", malformed_messages);
    scene.under("messages that unfold", messages_that_unfold);
    retained_messages(&scene);
    scene.under("messages of 10 MB", huge_messages);
    scene.under("bodies that never end", endless_bodies);
    scene.under("half an offer", half_an_offer);
    scene.under("10,000 offers of one viewer", offers_of_one);
    scene.under("10,000 offers of many viewers", offers_of_many);
    scene.under("viewers that never answer", silent_viewers);
    scene.under("rubbish from 1,000 addresses", rubbish_datagrams);
    let once = scene.under("1,000 PLI a second", key_frame_requests);
    let twice = scene.under("10,000 offers of many viewers again", offers_of_many);
    assert!(
        twice < once + AGAIN_KIB,
        "memory rises by {once} KiB, and when all is done again by {twice} KiB"
    );
    scene.end();
}

/// The device with its six viewers.
struct Scene {
    broker: Broker,
    device: Device,
    server: SocketAddr,
    media: SocketAddr,
    memory: Memory,
    /// Of the agent with six viewers, before anybody did harm.
    base_kib: i64,
    watching: Probe,
    times: u32,
}

impl Scene {
    fn set() -> Self {
        let broker = Broker::start();
        let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut device = Device::with(Settings {
            broker: broker.url(),
            http: server.to_string(),
            more: "http.signaling = true\nhttp.whep = true\n",
            ..Settings::default()
        });
        let media = SocketAddr::from(([127, 0, 0, 1], free_port()));
        device.configure(&device.config().replace("udp_port = 0", &format!("udp_port = {}", media.port())));
        device.start();
        device.live(&broker);
        let memory = Memory::of(device.process().id());
        println!("the agent alone: {} KiB", memory.resident_kib());
        let watching = Probe::start(broker.address, device.id(), &["--viewers", "6", "--seconds", "3600"]);
        until("six viewers watch", SOON, || {
            (Scrape::of(server).value("peercam_sessions_connected_total") == 6.0).then_some(())
        });
        // What a session keeps for retransmissions is there after a second of pictures.
        let pictures = || Scrape::of(server).value("peercam_pictures_total{stream=\"card\",quality=\"high\"}");
        let enough = pictures() + f64::from(3 * device.settings.fps);
        until("three seconds of pictures", SOON, || (pictures() >= enough).then_some(()));
        let base_kib = memory.resident_kib();
        println!("with six viewers: {base_kib} KiB");
        Self {
            broker,
            device,
            server,
            media,
            memory,
            base_kib,
            watching,
            times: if soak() { 10 } else { 1 },
        }
    }

    /// Somebody does harm, again and again, until a good viewer has joined and left. Returns by how many KiB the agent's memory rose.
    fn under(&self, what: &str, harm: impl Fn(&Self)) -> i64 {
        self.memory.forget_peak();
        let joined = AtomicBool::new(false);
        let began = Instant::now();
        let (took_ms, refusals) = std::thread::scope(|scope| {
            let join = scope.spawn(|| {
                // Into the attack, not before it.
                std::thread::sleep(Duration::from_millis(300));
                let joins = self.good_viewer();
                joined.store(true, Ordering::Relaxed);
                joins
            });
            for _ in 0..self.times {
                harm(self);
            }
            while !joined.load(Ordering::Relaxed) {
                harm(self);
            }
            join.join().expect("a good viewer")
        });
        let rise = self.memory.peak_kib() - self.base_kib;
        let scrape = Scrape::of(self.server);
        println!(
            "{} sessions opened, {} pictures held back so far",
            scrape.value("peercam_sessions_opened_total"),
            scrape.value("peercam_viewer_pictures_dropped_total{stream=\"card\",quality=\"high\"}"),
        );
        println!(
            "{what}: {:.1} s, memory up to {rise:+} KiB, then {:+} KiB; a good viewer has its picture after {took_ms:.0} ms{}",
            began.elapsed().as_secs_f64(),
            self.memory.resident_kib() - self.base_kib,
            if refusals.is_empty() {
                String::new()
            } else {
                format!(", refused before: {refusals:?}")
            },
        );
        assert!(
            took_ms < JOIN_MS,
            "{what}: a good viewer waits {took_ms} ms for its picture: {refusals:?}"
        );
        assert!(rise < RISE_KIB, "{what}: the agent's memory rises by {rise} KiB");
        rise
    }

    /// A viewer that tries until it has a picture, or has lost its patience: after how many milliseconds, and why not earlier.
    fn good_viewer(&self) -> (f64, Vec<String>) {
        let began = Instant::now();
        let mut refusals = Vec::new();
        loop {
            let tried = began.elapsed().as_secs_f64() * 1e3;
            let arguments = ["--viewers", "1", "--seconds", "1"];
            let report = Probe::start(self.broker.address, self.device.id(), &arguments).report(SOON * 2);
            let viewer = &report["per_viewer"][0];
            match viewer["hello_to_key_ms"].as_f64() {
                Some(ms) if viewer["failed"].is_null() => return (tried + ms, refusals),
                _ if tried > JOIN_MS => return (f64::INFINITY, refusals),
                _ => refusals.push(viewer["failed"].to_string()),
            }
        }
    }

    /// All is over: the six have lost nothing, and the memory is as it was.
    fn end(mut self) {
        until("sessions that never connected are given up", GIVEN_UP, || {
            (Scrape::of(self.server).value("peercam_viewers{stream=\"card\",quality=\"high\"}") == 6.0).then_some(())
        });
        let began = Instant::now();
        let rest = loop {
            let rest = self.memory.resident_kib() - self.base_kib;
            if rest < REST_KIB || began.elapsed() > SOON {
                break rest;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        println!("afterwards: {rest:+} KiB");
        assert!(rest < REST_KIB, "the agent keeps {rest} KiB when all is over");
        let scrape = Scrape::of(self.server);
        assert_eq!(scrape.value("peercam_datagrams_dropped_total"), 0.0, "every packet was sent");
        let report = self.watching.stop(SOON);
        let viewers = report["per_viewer"].as_array().expect("a list");
        assert_eq!(viewers.len(), 6);
        for viewer in viewers {
            assert!(viewer["failed"].is_null(), "a good viewer did not see it to the end: {viewer}");
            for lost in [
                &viewer["frames_lost"],
                &viewer["frames_undecodable"],
                &viewer["session_stats"]["dropped"],
            ] {
                assert_eq!(*lost, 0, "a good viewer lost pictures: {viewer}");
            }
        }
        println!(
            "{} pictures shown, {} freezes, {} pictures skipped by the camera",
            report["frames_shown"], report["freezes"], report["frames_skipped"]
        );
        assert!(self.device.process().is_alive(), "the agent still runs");
        let log = self.device.process().log();
        assert!(!log.contains("panicked"), "{log}");
        println!("{} lines in its log", log.lines().count());
    }

    /// A connection to the broker that hears what is said to anybody.
    fn stranger(&self) -> Peer {
        Peer::join(self.broker.address, self.device.id(), "+")
    }

    fn topic_of(&self, name: &str) -> String {
        format!("peercam/v1/{}/from/{name}", self.device.id())
    }
}

/// Waits until the device has dealt with all that `stranger` has sent before.
fn settle(scene: &Scene, stranger: &mut Peer) {
    until("the device has come to the end of what was sent to it", SOON * 2, || {
        let name = new_name();
        let id = json!(name);
        let hello = request(&id, "session.hello", &json!({ "version": 1 })).to_string();
        stranger.publish(&scene.topic_of(&name), hello, PublishOptions::at_least_once());
        stranger
            .reply(&id, Duration::from_secs(2))
            .filter(|reply| reply.message["result"].is_object())
            .map(drop)
    });
}

fn malformed_messages(scene: &Scene) {
    let mut stranger = scene.stranger();
    let whole = request(&json!(1), "session.hello", &json!({ "version": 1, "name": "\u{1f3a5}" })).to_string();
    let mut messages: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole.as_bytes()[..end].to_vec()).collect();
    messages.extend(
        [
            "null",
            "[]",
            "7e999999999",
            "\"\\ud800\"",
            "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"session.hello\"}",
            "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":[],\"params\":7}",
            "{\"jsonrpc\":\"2.0\",\"id\":18446744073709551616,\"method\":\"session.hello\"}",
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    messages.extend((1..=255u8).map(|byte| vec![byte; usize::from(byte)]));
    for number in 0..2_000 {
        let message = &messages[number % messages.len()];
        let topic = scene.topic_of(&format!("malformed-{}", number % 400));
        stranger.publish(&topic, message.clone(), PublishOptions::at_most_once());
    }
    settle(scene, &mut stranger);
}

/// As large as the device takes them, and much larger once they are read.
fn messages_that_unfold(scene: &Scene) {
    const BYTES: usize = 64 * 1_024;
    let mut stranger = scene.stranger();
    let call = |method: &str, params: String| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}");
    let padded = |open: &str, piece: &str, close: &str| {
        let times = (BYTES - 200) / piece.len();
        format!("{open}{}{close}", piece.repeat(times))
    };
    let messages = [
        call("session.hello", padded("[", "0,", "0]")),
        call("session.offer", padded("[", "[],", "[]]")),
        call("session.close", padded("{\"a\":[", "{\"\":0},", "0]}")),
        call(
            "session.candidates",
            padded("{\"session\":\"x\",\"candidates\":[", "\"\",", "\"\"]}"),
        ),
        call(&padded("", "\\u0000", ""), "{}".into()),
        padded("", "[", ""),
    ];
    for number in 0..600 {
        let topic = scene.topic_of(&format!("unfold-{number}"));
        stranger.publish(&topic, messages[number % messages.len()].clone(), PublishOptions::at_most_once());
    }
    for message in &messages {
        let answer = http::request(
            scene.server,
            "POST",
            "/rpc/unfold",
            &[("Content-Type", "application/json")],
            message,
        );
        assert!([200, 400, 429].contains(&answer.status), "{answer:?}");
    }
    settle(scene, &mut stranger);
}

/// Whoever takes the device's own name at the broker ends its connection; it comes back to what was retained for it meanwhile.
fn retained_messages(scene: &Scene) {
    let stranger = scene.stranger();
    for _ in 0..3 {
        let topic = scene.topic_of(&new_name());
        stranger.publish(&topic, huge_message(), PublishOptions::at_least_once().retained());
    }
    let connections = || Scrape::of(scene.server).value("peercam_broker_connections_total");
    let before = connections();
    let name = format!("peercam-{}", scene.device.id());
    drop(Peer::log_in(scene.broker.address, scene.device.id(), &name, ("", "")));
    until("the device is at the broker again", SOON, || (connections() > before).then_some(()));
}

fn huge_message() -> String {
    let params = json!({ "version": 1, "padding": "x".repeat(10_000_000) });
    request(&json!(1), "session.hello", &params).to_string()
}

fn huge_messages(scene: &Scene) {
    let mut stranger = scene.stranger();
    let message = huge_message();
    let connections = || Scrape::of(scene.server).value("peercam_broker_connections_total");
    let before = connections();
    // About as large as the device takes; the broker counts what the message has beside its payload.
    for size in (68 * 1_024 - 100)..(68 * 1_024 + 20) {
        stranger.publish(&scene.topic_of("x"), "x".repeat(size), PublishOptions::at_least_once());
    }
    for retained in [false, true, false] {
        let options = PublishOptions::at_least_once();
        let options = if retained { options.retained() } else { options };
        stranger.publish(&scene.topic_of(&new_name()), message.clone(), options);
    }
    for (path, kind, length) in [
        ("/rpc/huge", "application/json", true),
        ("/rpc/huge", "application/json", false),
        ("/whep", "application/sdp", true),
        ("/whep", "application/sdp", false),
    ] {
        let mut stream = http::connect(scene.server);
        let size = if length {
            format!("Content-Length: {}", message.len())
        } else {
            "Transfer-Encoding: chunked".to_owned()
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\n{size}\r\n\r\n",
            scene.server
        );
        let body = if length {
            message.clone()
        } else {
            format!("{:x}\r\n{message}\r\n0\r\n\r\n", message.len())
        };
        // The device does not read all of it.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
    settle(scene, &mut stranger);
    assert_eq!(connections(), before, "no message of a stranger ends the device's connection");
}

/// Every connection that the device takes, each with all of a request but its last byte.
fn endless_bodies(scene: &Scene) {
    const BYTES: usize = 64 * 1_024;
    let head = format!(
        "POST /rpc/slow HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {BYTES}\r\n\r\n",
        scene.server
    );
    let body = " ".repeat(BYTES - 1);
    let connections: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = http::connect(scene.server);
            // Some have to go when others come.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            stream
        })
        .collect();
    // The attack itself: so long nothing more comes.
    std::thread::sleep(Duration::from_millis(500));
    drop(connections);
    let size = Scrape::of(scene.server).value("peercam_messages_refused_total{carrier=\"http\",reason=\"size\"}");
    assert!(size > 0.0, "some were refused");
}

fn half_an_offer(scene: &Scene) {
    let mut stranger = scene.stranger();
    let whole = sdp::offer();
    for (number, (name, hello)) in greet(scene, &mut stranger, 100).iter().enumerate() {
        for part in 0..10 {
            let end = whole.len() * (part * 100 + number) / 1_000;
            send_offer(scene, &stranger, name, part, hello, &whole[..end]);
        }
    }
    settle(scene, &mut stranger);
}

fn offers_of_one(scene: &Scene) {
    let mut stranger = scene.stranger();
    for (name, hello) in greet(scene, &mut stranger, 1) {
        (0..10_000).for_each(|id| send_offer(scene, &stranger, &name, id, &hello, &sdp::offer()));
    }
    settle(scene, &mut stranger);
}

fn offers_of_many(scene: &Scene) {
    let mut stranger = scene.stranger();
    let greeted = greet(scene, &mut stranger, 1_000);
    for id in 0..10 {
        for (name, hello) in &greeted {
            send_offer(scene, &stranger, name, id, hello, &sdp::offer());
        }
    }
    settle(scene, &mut stranger);
}

/// Each door, and as many candidates as the device takes, at which nobody is.
fn silent_viewers(scene: &Scene) {
    let mut stranger = scene.stranger();
    let whole = sdp::offer();
    for (id, (name, hello)) in greet(scene, &mut stranger, 20).iter().enumerate() {
        send_offer(scene, &stranger, name, id, hello, &whole);
        let Some(reply) = stranger.reply(&json!(id), SOON) else { continue };
        let candidates: Vec<String> = (0..32)
            .map(|number| format!("candidate:{number} 1 udp 2122260223 127.0.7.{} 9 typ host", number + 1))
            .collect();
        let params = json!({ "session": reply.message["result"]["session"], "candidates": candidates });
        let note = json!({ "jsonrpc": "2.0", "method": "session.candidates", "params": params }).to_string();
        stranger.publish(&scene.topic_of(name), note, PublishOptions::at_most_once());
    }
    for _ in 0..40 {
        let answer = http::request(scene.server, "POST", "/whep", &[("Content-Type", "application/sdp")], &whole);
        assert!([201, 429, 503].contains(&answer.status), "{answer:?}");
        let name = new_name();
        if let Ok(hello) = http::call(scene.server, &name, 1, "session.hello", &json!({ "version": 1 })) {
            let _ = http::call(scene.server, &name, 2, "session.offer", &sdp::offer_params(&hello, &whole));
        }
    }
    settle(scene, &mut stranger);
}

fn rubbish_datagrams(scene: &Scene) {
    // A byte string that is different each time and the same in each run.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    };
    let stun = |ufrag: &str| {
        let name = format!("{ufrag}:x");
        let padded = name.len().next_multiple_of(4);
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0, 6, 0, name.len() as u8]);
        message.extend(name.bytes().chain(std::iter::repeat(0)).take(padded));
        message[3] = (4 + padded) as u8;
        message
    };
    for number in 0..1_000u16 {
        let [high, low] = number.to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 10 + high, low), 0)).expect("an address of this machine");
        for length in [1, 20, 100, 1_200, 8_000] {
            for first in [0, 1, 20, 22, 64, 128, 144, 200] {
                let mut rubbish = bytes(length);
                rubbish[0] = first;
                let _ = socket.send_to(&rubbish, scene.media);
            }
        }
        let _ = socket.send_to(&stun(&format!("{number:016x}")), scene.media);
    }
}

fn key_frame_requests(scene: &Scene) {
    let arguments = ["--viewers", "1", "--seconds", "3", "--pli-per-second", "1000"];
    let report = Probe::start(scene.broker.address, scene.device.id(), &arguments).report(SOON * 2);
    let plis = report["per_viewer"][0]["plis"].as_u64().expect("a count");
    assert!(plis > 500, "the attack does not take place: {plis} PLI");
}

/// Viewers that nobody has seen before: the name of each, and what it was told.
fn greet(scene: &Scene, stranger: &mut Peer, count: usize) -> Vec<(String, Value)> {
    let mut greeted: Vec<(String, Value)> = Vec::new();
    let mut missing: Vec<String> = (0..count).map(|_| new_name()).collect();
    for _ in 0..5 {
        // Fewer than may wait for the broker.
        for some in missing.chunks(50) {
            for name in some {
                let hello = request(&json!(name), "session.hello", &json!({ "version": 1 })).to_string();
                stranger.publish(&scene.topic_of(name), hello, PublishOptions::at_most_once());
            }
            for name in some {
                let reply = stranger.reply(&json!(name), Duration::from_millis(500));
                let Some(mut reply) = reply else { continue };
                assert!(reply.message["result"].is_object(), "hello was refused: {}", reply.message);
                greeted.push((name.clone(), reply.message["result"].take()));
            }
        }
        missing.retain(|name| !greeted.iter().any(|(known, _)| known == name));
    }
    assert!(greeted.len() * 10 >= count * 9, "only {} of {count} were answered", greeted.len());
    greeted
}

/// A name that was not used before: the pace of those that were is spent.
fn new_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("stranger-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn send_offer(scene: &Scene, stranger: &Peer, name: &str, id: usize, hello: &Value, sdp: &str) {
    let message = request(&json!(id), "session.offer", &sdp::offer_params(hello, sdp)).to_string();
    stranger.publish(&scene.topic_of(name), message, PublishOptions::at_most_once());
}
