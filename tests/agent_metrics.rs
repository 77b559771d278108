//! `/metrics` and `/healthz`: what they tell is true, documented and well written, and each limit that is reached is counted.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::peer::request;
use common::probe::Probe;
use common::scrape::{Scrape, get};
use common::sdp::{self, offer_params};
use common::{SOON, free_port, http, until};
use rumqttc::PublishOptions;
use serde_json::{Value, json};

/// A session that never connects is given up after 15 s.
const GIVEN_UP: Duration = Duration::from_secs(40);

/// A device whose page is at the address.
fn monitored(broker: &Broker, more: &str) -> (Device, SocketAddr) {
    let mut device = Device::new(broker);
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    device.configure(&(more.to_owned() + &with_page(&device.config(), server)));
    device.start();
    (device, server)
}

fn with_page(config: &str, server: SocketAddr) -> String {
    config.replace("http.listen = \"off\"", &format!("http.listen = \"{server}\""))
}

fn online(broker: &Broker) -> (Device, SocketAddr) {
    let (mut device, server) = monitored(broker, "");
    device.live(broker);
    (device, server)
}

/// Waits until `sample` has a value that `enough` takes; returns it.
fn reaches(server: SocketAddr, sample: &str, limit: Duration, enough: impl Fn(f64) -> bool) -> f64 {
    until(&format!("{sample} is as expected"), limit, || {
        Some(Scrape::of(server).value(sample)).filter(|value| enough(*value))
    })
}

/// `None` while the agent starts anew and nobody listens.
fn health(server: SocketAddr) -> Option<(u16, Value)> {
    let response = get(server, "/healthz", "")?;
    let json = serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {}", response.body));
    Some((response.status, json))
}

/// Waits until `/healthz` says this, with a reason in which `words` stand.
fn becomes(server: SocketAddr, status: u16, verdict: &str, words: &str) -> Value {
    until(
        &format!("/healthz says {status} {verdict}: {words}"),
        Duration::from_secs(30),
        || {
            let (code, told) = health(server)?;
            let reasons = told["reasons"].as_array().expect("reasons");
            let said = words.is_empty() == reasons.is_empty()
                && (words.is_empty()
                    || reasons
                        .iter()
                        .any(|reason| reason.as_str().is_some_and(|reason| reason.contains(words))));
            (code == status && told["status"] == verdict && said).then_some(told)
        },
    )
}

fn refused(reason: &str) -> String {
    format!("peercam_messages_refused_total{{carrier=\"mqtt\",reason=\"{reason}\"}}")
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// The names in the first column of the tables of docs/metrics.md.
fn documented() -> BTreeSet<String> {
    read("docs/metrics.md")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .filter(|name| name.starts_with("peercam_") || name.starts_with("process_"))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect()
}

#[test]
fn every_figure_is_documented_and_every_documented_figure_is_told() {
    let broker = Broker::start();
    let (device, server) = online(&broker);
    let scrape = Scrape::of(server);
    assert_eq!(scrape.names(), documented(), "left: told, right: in docs/metrics.md");
    let document = read("docs/metrics.md");
    for label in ["reason", "state", "aggregate", "method", "result", "carrier"] {
        for value in scrape.label_values(label) {
            assert!(
                document.contains(&format!("`{value}`")),
                "docs/metrics.md does not say what {label}=\"{value}\" means"
            );
        }
    }
    let browser = get(server, "/metrics", "Accept: text/html\r\n").expect("an answer");
    assert!(browser.head.contains("content-type: text/plain; version=0.0.4"), "{}", browser.head);
    let typed = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    let older: BTreeSet<String> = browser.body.lines().filter_map(typed).collect();
    assert_eq!(older, documented(), "the older format has types under the samples' own names");
    assert!(
        !browser.body.contains(device.id()),
        "a page about a device names neither it nor its viewers"
    );
}

#[test]
fn the_table_of_limits_names_only_figures_that_there_are() {
    let (known, document) = (documented(), read("docs/metrics.md"));
    let mut named = BTreeSet::new();
    for line in read("docs/limits.md").lines().filter(|line| line.starts_with("| ")) {
        // | limit | bound | when it is reached | figure | test |
        let cells: Vec<&str> = line.split('|').collect();
        let [_, _, _, _, figures, _, _] = cells[..] else { continue };
        for quoted in figures.split('`').skip(1).step_by(2) {
            let name = quoted.split('{').next().unwrap_or_default();
            let figure = known.contains(&format!("peercam_{name}")) || known.contains(&format!("peercam_{name}_total"));
            // Else it is a reason by itself.
            assert!(
                figure || name.is_empty() || document.contains(&format!("| `{name}` |")),
                "docs/metrics.md knows no {name}: {line}"
            );
            if let Some((_, reason)) = quoted.split_once("reason=\"") {
                let reason = reason.split('"').next().unwrap_or_default();
                assert!(
                    document.contains(&format!("`{reason}`")),
                    "docs/metrics.md knows no reason {reason}: {line}"
                );
            }
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() >= 20, "{named:?}");
}

#[test]
fn the_dashboard_shows_only_what_there_is() {
    fn collect(value: &Value, exprs: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(expr) if key == "expr" => exprs.push(expr.to_owned()),
                _ => collect(value, exprs),
            }),
            Value::Array(list) => list.iter().for_each(|value| collect(value, exprs)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/peercam.json")).expect("JSON");
    let mut exprs = Vec::new();
    collect(&dashboard, &mut exprs);
    assert!(exprs.len() >= 15, "{exprs:?}");
    let known = documented();
    for expr in &exprs {
        let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: Vec<&str> = words
            .filter(|word| word.starts_with("peercam_") || word.starts_with("process_"))
            .collect();
        assert!(!names.is_empty(), "nothing of peercam's in: {expr}");
        for name in names {
            assert!(known.contains(name), "docs/metrics.md knows no {name}: {expr}");
        }
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has its own id");
}

#[test]
fn viewers_are_counted_while_they_watch_and_what_they_got_stays_counted() {
    let broker = Broker::start();
    let (device, server) = online(&broker);
    let before = Scrape::of(server);
    let watching = "peercam_viewers{stream=\"card\",quality=\"high\"}";
    assert_eq!(before.value(watching), 0.0);
    assert!(
        !before.samples.contains_key("peercam_viewer_rtt_seconds{aggregate=\"median\"}"),
        "of nobody"
    );
    let probe = Probe::start(broker.address, device.id(), &["--viewers", "2", "--seconds", "6"]);
    reaches(server, "peercam_sessions_connected_total", SOON, |value| value == 2.0);
    let during = until("the paths are known", SOON, || {
        let scrape = Scrape::of(server);
        let told = ["estimate_bytes_per_second", "rtt_seconds", "loss_ratio"].iter().all(|name| {
            scrape
                .samples
                .contains_key(&format!("peercam_viewer_{name}{{aggregate=\"median\"}}"))
        });
        told.then_some(scrape)
    });
    assert_eq!(during.value(watching), 2.0);
    assert!(during.value("peercam_viewer_rtt_seconds{aggregate=\"max\"}") < 5.0);
    assert!((0.0..=1.0).contains(&during.value("peercam_viewer_loss_ratio{aggregate=\"max\"}")));
    let report = probe.report(SOON * 2);
    let shown: f64 = report["per_viewer"]
        .as_array()
        .expect("viewers")
        .iter()
        .filter_map(|viewer| viewer["frames_shown"].as_f64())
        .sum();
    reaches(server, watching, SOON, |value| value == 0.0);
    let after = Scrape::of(server);
    assert_eq!(after.value("peercam_sessions_opened_total"), 2.0);
    assert_eq!(after.value("peercam_sessions_closed_total{reason=\"viewer_left\"}"), 2.0);
    assert!(
        !after.samples.contains_key("peercam_viewer_rtt_seconds{aggregate=\"median\"}"),
        "nobody is there any more"
    );
    // What they caught up with when they joined does not count, so it may be fewer; nothing counts twice.
    let timed = after.value("peercam_picture_latency_seconds_count{stream=\"card\",quality=\"high\"}");
    let endless = after.value("peercam_picture_latency_seconds_bucket{le=\"+Inf\",stream=\"card\",quality=\"high\"}");
    assert!(
        timed >= shown / 2.0 && timed <= 2.0 * after.value("peercam_pictures_total{stream=\"card\",quality=\"high\"}"),
        "{shown} pictures were shown, the time of {timed} was told"
    );
    assert_eq!(timed, endless, "each picture is in a bucket");
    assert!(
        after.value("peercam_picture_latency_seconds_sum{stream=\"card\",quality=\"high\"}") > 0.0,
        "no time passed"
    );
    // The last second of each is not told.
    let packets = after.value("peercam_video_packets_sent_total");
    assert!(packets >= shown / 2.0, "{shown} pictures were shown, in {packets} packets");
    for rising in [
        "peercam_pictures_total{stream=\"card\",quality=\"high\"}",
        "peercam_picture_bytes_total{stream=\"card\",quality=\"high\"}",
        "peercam_viewer_bytes_sent_total",
        "peercam_datagrams_sent_total",
        "peercam_send_calls_total",
        "peercam_datagrams_received_total",
        "peercam_receive_calls_total",
        "peercam_messages_sent_total{carrier=\"mqtt\"}",
        "process_cpu_seconds_total",
    ] {
        assert!(after.value(rising) > before.value(rising), "{rising}");
        assert!(after.value(rising) >= during.value(rising), "{rising} went back");
    }
}

#[test]
fn what_is_refused_is_counted_with_its_reason() {
    let broker = Broker::start();
    let mut device = Device::new(&broker);
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    device.settings.viewers = 1;
    device.configure(&with_page(&device.config(), server));
    device.start();
    device.live(&broker);
    let calls = |result: &str| format!("peercam_requests_total{{method=\"session.offer\",result=\"{result}\"}}");
    let mut alice = device.peer(broker.address, "alice");
    let mut bob = device.peer(broker.address, "bob");

    let hello = alice.hello();
    let mut stale = offer_params(&hello, &sdp::offer());
    stale["expires_ms"] = json!(1);
    alice.call("session.offer", &stale).expect_err("too late");
    let params = offer_params(&hello, &sdp::offer_without_h264());
    alice.call("session.offer", &params).expect_err("no H.264");
    alice
        .call("session.offer", &offer_params(&hello, &sdp::offer()))
        .expect("a session");
    let probe = Probe::start(broker.address, device.id(), &["--seconds", "600"]);
    device.seated();
    let hello = bob.hello();
    bob.call("session.offer", &offer_params(&hello, &sdp::offer()))
        .expect_err("the device is full");
    alice.call("camera.explode", &json!({})).expect_err("no such method");
    let scrape = Scrape::of(server);
    for (result, count) in [("ok", 2.0), ("expired", 1.0), ("unsupported_codec", 1.0), ("too_many_viewers", 1.0)] {
        assert_eq!(scrape.value(&calls(result)), count, "{result}");
    }
    assert_eq!(
        scrape.value("peercam_requests_total{method=\"unknown\",result=\"method_not_found\"}"),
        1.0
    );
    assert_eq!(
        (
            scrape.value("peercam_viewers{stream=\"card\",quality=\"high\"}"),
            scrape.value("peercam_viewers_limit")
        ),
        (2.0, 1.0),
        "alice, of whom nothing was heard, has no seat"
    );
    probe.stop(SOON);

    // Many wishes make few key frames.
    for _ in 0..15 {
        alice.call("camera.keyframe", &json!({})).expect("it is asked for");
    }
    let scrape = Scrape::of(server);
    let [wished, forwarded] = ["requests", "requests_forwarded"]
        .map(|name| scrape.value(&format!("peercam_key_frame_{name}_total{{stream=\"card\",quality=\"high\"}}")));
    assert!(wished >= 15.0 && forwarded >= 1.0 && forwarded < wished, "{forwarded} of {wished}");

    bob.publish(&bob.request_topic(), "{}", PublishOptions::at_least_once().retained());
    reaches(server, &refused("retained"), SOON, |value| value == 1.0);
    let strange = format!("peercam/v1/{}/from/a b", device.id());
    bob.publish(&strange, "{}", PublishOptions::at_least_once());
    reaches(server, &refused("topic"), SOON, |value| value == 1.0);
    bob.send("hello?");
    reaches(server, &refused("unparsable"), SOON, |value| value == 1.0);
    let twice = request(&json!("twice"), "system.info", &json!({})).to_string();
    bob.send(twice.clone());
    bob.send(twice);
    reaches(server, &refused("repeated"), SOON, |value| value == 1.0);
    reaches(
        server,
        "peercam_sessions_closed_total{reason=\"never_connected\"}",
        GIVEN_UP,
        |value| value == 1.0,
    );
}

#[test]
fn a_client_that_asks_without_end_fills_limits_that_are_counted() {
    let broker = Broker::start();
    let (mut device, server) = online(&broker);
    let mallory = device.peer(broker.address, "mallory");
    let id = device.id().to_owned();
    let flood = |names: u32, each: u32, payload: &dyn Fn(u32) -> String| {
        for number in 0..each {
            for name in 0..names {
                let topic = format!("peercam/v1/{id}/from/flood-{name}");
                mallory.publish(&topic, payload(number), PublishOptions::at_most_once());
            }
        }
    };
    let hello = |id: u32| request(&json!(id), "session.hello", &json!({ "version": 1 })).to_string();
    let mut round = 0;
    let mut fills = |sample: &str, names: u32, each: u32| {
        let value = until(&format!("{sample} rises"), Duration::from_secs(60), || {
            // Other ids each time: what was answered is not run again.
            round += 1;
            // Of 256 peers who owe at once only who takes 8,000 messages a second hears: so these have no reply.
            let quick = sample.contains("unmetered");
            // All of them wait when it wakes up, however busy this machine is.
            device.process().signal("STOP");
            flood(names, each, &|number| match quick {
                true => json!({ "jsonrpc": "2.0", "method": "x" }).to_string(),
                false => hello(round * 1_000 + number),
            });
            std::thread::sleep(Duration::from_millis(500));
            device.process().signal("CONT");
            std::thread::sleep(Duration::from_millis(500));
            Some(Scrape::of(server).value(sample)).filter(|value| *value > 0.0)
        });
        println!("{sample} {value} after {round} rounds");
    };
    fills(&refused("pace"), 1, 100);
    fills(&refused("ignored"), 1, 100);
    fills(&refused("requests"), 1, 32);
    fills("peercam_messages_unmetered_total{carrier=\"mqtt\"}", 400, 20);
    // No more is read than can be answered, so the queue to the broker is not among them.
    let lost = Scrape::of(server).value("peercam_messages_dropped_total{carrier=\"mqtt\",reason=\"queue\"}");
    assert_eq!(lost, 0.0, "replies are lost");
}

#[test]
fn the_limits_of_http_and_whep_are_counted_too() {
    let (_device, server) = Device::by_http(Settings {
        more: "http.whep = true",
        viewers: 1,
        ..Settings::default()
    });
    const JSON: (&str, &str) = ("Content-Type", "application/json");
    let refused = |carrier: &str, reason: &str| format!("peercam_messages_refused_total{{carrier=\"{carrier}\",reason=\"{reason}\"}}");
    let hello = |id: u32| request(&json!(id), "session.hello", &json!({ "version": 1 })).to_string();
    let post = |peer: &str, more: &[(&str, &str)], body: &str| {
        let headers = [&[JSON][..], more].concat();
        http::request(server, "POST", &format!("/rpc/{peer}"), &headers, body).status
    };
    // It is waited for at the end.
    let mut slow = http::connect(server);
    let head = format!("POST /rpc/slow HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n");
    slow.write_all(head.as_bytes()).expect("a request");

    assert_eq!(post("alice", &[("Origin", "https://evil.example")], &hello(1)), 403);
    assert_eq!(post("alice", &[("Content-Length", "70000")], ""), 413);
    assert_eq!(post("alice", &[], "hello?"), 400);
    assert_eq!(post("alice", &[], &hello(2)), 200);
    assert_eq!(post("alice", &[], &hello(2)), 200);
    // All at once: a slow machine would not reach the pace one by one.
    let flood = |path: &str, kind: &str, body: &dyn Fn(u32) -> String| -> BTreeSet<u16> {
        let requests: String = (0..100)
            .map(|id| {
                let (body, last) = (body(id), if id == 99 { "Connection: close\r\n" } else { "" });
                let head = format!("POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: {kind}\r\n{last}");
                format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
            })
            .collect();
        let mut stream = http::connect(server);
        stream.write_all(requests.as_bytes()).expect("a hundred requests");
        let mut answers = BufReader::new(stream);
        (0..100).map(|_| http::read(&mut answers, false).status).collect()
    };
    let statuses = flood("/rpc/mallory", JSON.1, &hello);
    assert_eq!(statuses, BTreeSet::from([200, 429]), "first busy, then not at all");
    // Who listens nowhere is told nothing.
    let told = json!(http::call(server, "bob", 1, "session.hello", &json!({ "version": 1 })).expect("a reply"));
    for id in 2..4 {
        let mut params = offer_params(&told, &sdp::offer());
        params["expires_ms"] = json!(u64::from(u32::MAX));
        http::call(server, "bob", id, "session.offer", &params).expect("an answer");
    }
    let whep = flood("/whep", "application/sdp", &|_| "v=0".to_owned());
    assert_eq!(whep, BTreeSet::from([400, 429]));
    let large = [("Content-Type", "application/sdp"), ("Content-Length", "70000")];
    // Who goes on without a pause is held back for as long.
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(http::request(server, "POST", "/whep", &large, "").status, 413);

    let scrape = Scrape::of(server);
    for (carrier, reason) in [
        ("http", "foreign"),
        ("http", "size"),
        ("http", "unparsable"),
        ("http", "repeated"),
        ("http", "pace"),
        ("http", "ignored"),
        ("whep", "pace"),
        ("whep", "size"),
    ] {
        assert!(scrape.value(&refused(carrier, reason)) >= 1.0, "{carrier}: {reason}");
    }
    assert!(scrape.value("peercam_messages_dropped_total{carrier=\"http\",reason=\"disconnected\"}") >= 1.0);
    assert!(scrape.value("peercam_messages_received_total{carrier=\"whep\"}") >= 100.0);
    assert_eq!(scrape.value("peercam_whep_sessions_forgotten_total"), 0.0);
    assert_eq!(scrape.value("peercam_http_connections_evicted_total"), 0.0);
    assert!(!scrape.samples.keys().any(|sample| sample.contains("mqtt")), "there is no broker");

    reaches(server, &refused("http", "slow"), SOON * 2, |value| value == 1.0);
    let open: Vec<_> = (0..150).map(|_| http::connect(server)).collect();
    reaches(server, "peercam_http_connections_evicted_total", SOON, |value| value > 0.0);
    assert!(
        Scrape::of(server).value("peercam_http_connections") <= 129.0,
        "{} were opened",
        open.len()
    );
}

#[test]
fn datagrams_of_nobody_are_counted() {
    let broker = Broker::start();
    let port = free_port();
    let mut device = Device::new(&broker);
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = with_page(&device.config(), server).replace("udp_port = 0", &format!("udp_port = {port}"));
    device.configure(&config);
    device.start();
    device.live(&broker);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for rubbish in [&b"\x00\x01\x00\x00\x21\x12\xa4\x42"[..], b"\x80hello", b"x", b"\x16\xfe\xff"] {
        stranger.send_to(rubbish, ("127.0.0.1", port)).expect("sent");
    }
    reaches(server, "peercam_datagrams_unclaimed_total", SOON, |value| value == 4.0);
    assert_eq!(Scrape::of(server).value("peercam_datagrams_received_total"), 4.0);

    device.process().signal("STOP");
    for _ in 0..8_000 {
        stranger.send_to(&[b'x'; 1_000], ("127.0.0.1", port)).expect("sent");
    }
    device.process().signal("CONT");
    reaches(server, "peercam_datagrams_overflowed_total", SOON, |value| value > 0.0);
    until("what was not lost was received", SOON, || {
        let scrape = Scrape::of(server);
        let [received, lost] = ["received", "overflowed"].map(|name| scrape.value(&format!("peercam_datagrams_{name}_total")));
        (received + lost == 8_004.0).then_some(())
    });
}

#[test]
fn health_tells_apart_what_ends_the_picture_and_what_does_not() {
    let mut broker = Broker::start();
    let (mut device, server) = online(&broker);
    becomes(server, 200, "ok", "");
    let good = with_page(&device.config(), server);

    device.configure("nonsense = 1\n");
    device.process().signal("HUP");
    becomes(server, 200, "degraded", "configuration");
    assert_eq!(Scrape::of(server).value("peercam_config_error"), 1.0);
    device.configure(&good);
    device.process().signal("HUP");
    becomes(server, 200, "ok", "");

    let mut alice = device.peer(broker.address, "alice");
    let hello = alice.hello();
    alice
        .call("session.offer", &offer_params(&hello, &sdp::offer()))
        .expect("a session");
    drop(alice);
    broker.kill();
    becomes(server, 200, "degraded", "broker");
    let away = Scrape::of(server);
    assert_eq!(away.value("peercam_broker_connected"), 0.0);
    assert!(away.value("peercam_broker_failures_total") >= 1.0);
    // Alice's session is given up, and there is no way to tell her.
    reaches(
        server,
        "peercam_messages_dropped_total{carrier=\"mqtt\",reason=\"disconnected\"}",
        GIVEN_UP,
        |value| value >= 1.0,
    );
    broker.run();
    becomes(server, 200, "ok", "");
    let back = Scrape::of(server);
    assert_eq!(
        (
            back.value("peercam_broker_connected"),
            back.value("peercam_broker_connections_total")
        ),
        (1.0, 2.0)
    );

    device.configure(&device.playing(b"no film", &good));
    device.process().signal("HUP");
    let told = becomes(server, 503, "failing", "`card` has not shown a picture yet");
    println!("{told}");
    assert_eq!(
        Scrape::of(server).value("peercam_camera_state{stream=\"card\",state=\"live\"}"),
        0.0
    );
}

#[test]
fn metrics_are_read_by_whom_the_configuration_says() {
    let broker = Broker::start();
    let answer = |server: SocketAddr, headers: &str| {
        until("the page is served", SOON, || std::net::TcpStream::connect(server).ok());
        get(server, "/metrics", headers).expect("an answer")
    };
    let proxied = "X-Forwarded-For: 127.0.0.1\r\n";

    let (_device, server) = monitored(&broker, "http.metrics = \"off\"\n");
    assert_eq!(answer(server, "").status, 404);
    assert_eq!(
        get(server, "/healthz", proxied).expect("an answer").head.split(' ').next(),
        Some("http/1.1"),
        "health is for everybody"
    );

    let (_device, server) = monitored(&broker, "");
    assert_eq!(answer(server, "").status, 200);
    let response = answer(server, proxied);
    assert_eq!(response.status, 403);
    assert!(response.body.contains("http.metrics"), "{}", response.body);

    let (_device, server) = monitored(&broker, "http.metrics = \"all\"\n");
    assert_eq!(answer(server, proxied).status, 200);

    let interfaces = if_addrs::get_if_addrs().expect("interfaces");
    let Some(outside) = interfaces
        .iter()
        .map(if_addrs::Interface::ip)
        .find(|ip| ip.is_ipv4() && !ip.is_loopback())
    else {
        println!("this machine has no address but loopback; the rest of this test needs one");
        return;
    };
    let server = SocketAddr::new(outside, free_port());
    let mut device = Device::new(&broker);
    device.configure(&with_page(&device.config(), server));
    device.start();
    assert_eq!(answer(server, "").status, 403, "who comes by another address is not let in");
    assert_eq!(
        health(server).map(|(_, told)| told["reasons"].is_array()),
        Some(true),
        "but may ask how it is"
    );
}

#[test]
fn the_reader_of_these_tests_takes_nothing_that_is_wrong() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"y\"} 1\na_total{x=\"z\"} 2\n# HELP b B.\n# TYPE b gauge\nb 0.5\n# EOF\n";
    let scrape = Scrape::parse(good).expect("this is good");
    assert_eq!((scrape.value("a_total{x=\"z\"}"), scrape.value("b")), (2.0, 0.5));
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total{x=\"y\"} 1\n", "a{x=\"y\"} 1\n"),
        ("a_total{x=\"z\"} 2", "a_total{x=\"y\"} 2"),
        ("a_total{x=\"z\"} 2", "a_total{x=\"z\"} -2"),
        ("a_total{x=\"z\"} 2", "a_total{x=z} 2"),
        ("a_total{x=\"z\"} 2", "a_total{x=\"z\" 2"),
        ("b 0.5", "b NaN"),
        ("b 0.5", "b"),
        ("b 0.5", "c 0.5"),
        ("# HELP b B.\n", ""),
        ("# TYPE b gauge\n", ""),
        ("# TYPE b gauge", "# TYPE b thing"),
        ("# TYPE b gauge", "# TYPE a counter"),
        ("b 0.5\n", "b 0.5\n\n"),
    ] {
        assert!(good.contains(from));
        let bad = good.replace(from, to);
        assert!(Scrape::parse(&bad).is_err(), "taken as good:\n{bad}");
    }
}
