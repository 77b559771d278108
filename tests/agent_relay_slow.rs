//! A relay by TCP over a connection that carries a third of the film: what is seen is seldom, but whole and not old.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::film::film;
use common::free_port;
use common::probe::Probe;
use common::scrape::Scrape;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

const FILM_BPS: usize = 2_500_000;
/// Bytes a second from the device to the relay.
const LINK: f64 = 100_000.0;

/// Where the device reaches `server`, with [`LINK`] in that direction, and little that waits on the way.
fn slow(server: SocketAddr) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(8_192).expect("a small buffer");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(4).expect("listening");
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for device in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(server) else { return };
            let back = (server.try_clone().expect("a handle"), device.try_clone().expect("a handle"));
            std::thread::spawn(move || forward(back.0, back.1, f64::INFINITY));
            std::thread::spawn(move || forward(device, server, LINK));
        }
    });
    address
}

fn forward(mut from: TcpStream, mut to: TcpStream, bytes_per_second: f64) {
    let mut bytes = [0; 1_500];
    let mut due = Instant::now();
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        due = due.max(Instant::now()) + Duration::from_secs_f64(count as f64 / bytes_per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

fn number(viewer: &Value, what: &str) -> f64 {
    let value = viewer.pointer(&format!("/{what}")).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {what}: {viewer}"))
}

#[test]
fn pictures_that_do_not_fit_are_left_out_up_to_the_next_key_frame_and_none_comes_late() {
    let (broker, coturn) = (Broker::start(), Coturn::start());
    let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut device = Device::with(Settings {
        fps: 30,
        broker: broker.url(),
        http: http.to_string(),
        more: "http.signaling = false\nnetwork.transport_policy = \"relay\"",
        ..Settings::default()
    });
    let url = coturn.url("tcp");
    let link = slow(coturn.address());
    let relay = coturn
        .config(&["tcp"], PASSWORD)
        .replace(&url, &format!("turn:{link}?transport=tcp"));
    device.configure(&device.playing(&film(FILM_BPS, 30), &format!("{}{relay}", device.config())));
    device.start();
    device.live(&broker);
    let arguments = ["--seconds", "25", "--settle-seconds", "5"];
    let report = Probe::start(broker.address, device.id(), &arguments).report(Duration::from_secs(200));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    println!(
        "{} pictures of 750, {} not decodable, {} bytes, latency {}",
        viewer["frames_shown"], viewer["frames_undecodable"], viewer["video_bytes"], viewer["latency_ms"]
    );
    // Five groups of pictures, of each the key frame and what came before the connection was full.
    assert!(
        (5.0..500.0).contains(&number(viewer, "frames_shown")),
        "some are shown, not all: {viewer}"
    );
    assert_eq!(number(viewer, "frames_undecodable"), 0.0, "whole pictures are left out: {viewer}");
    assert!(number(viewer, "latency_ms/max") < 4_000.0, "none comes late: {viewer}");
    let told = Scrape::of(http);
    assert!(
        told.value("peercam_viewer_overflows_total{stream=\"card\",quality=\"high\"}") >= 3.0,
        "the hub was cleared: {told:?}"
    );
    let dropped = format!("peercam_relay_datagrams_dropped_total{{server=\"turn:{link}?transport=tcp\"}}");
    assert_eq!(told.value(&dropped), 0.0, "no picture was torn");
}
