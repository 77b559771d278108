//! Viewers shared out among several threads: nobody notices, and what is limited is limited for all together.

mod common;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU16, Ordering};

use common::broker::Broker;
use common::device::{Device, Settings};
use common::probe::Probe;
use common::scrape::Scrape;
use common::sdp::{self, offer_params};
use common::{SOON, free_port, until};

const THREADS: u16 = 3;

/// The first of three UDP ports in a row that are free, and others for each test.
fn three_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(25_000);
    let free = |port: u16| (port..port + THREADS).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok());
    until("looking for free ports", SOON, || {
        let port = NEXT.fetch_add(THREADS, Ordering::Relaxed);
        free(port).then_some(port)
    })
}

/// A device with three threads, the first of its ports, and where its page is.
fn shared_out(broker: &Broker, viewers: u32) -> (Device, u16, std::net::SocketAddr) {
    let (media, page) = (three_ports(), free_port());
    let mut device = Device::with(Settings {
        broker: broker.url(),
        viewers,
        http: format!("127.0.0.1:{page}"),
        more: "network.threads = 3",
        ..Settings::default()
    });
    device.configure(&device.config().replace("udp_port = 0", &format!("udp_port = {media}")));
    device.start();
    device.live(broker);
    (device, media, ([127, 0, 0, 1], page).into())
}

#[test]
fn viewers_are_shared_out_and_each_is_found_again_by_the_thread_it_belongs_to() {
    let broker = Broker::start();
    let (device, media, _) = shared_out(&broker, 20);
    let mut ports = BTreeSet::new();
    for name in (0..20).map(|number| format!("viewer-{number}")) {
        let mut peer = device.peer(broker.address, &name);
        let hello = peer.hello();
        let mut offer = || {
            let answer = peer
                .call("session.offer", &offer_params(&hello, &sdp::offer()))
                .expect("the offer is answered");
            sdp::candidate_ports(answer["sdp"].as_str().expect("an answer"))
        };
        let (first, second) = (offer(), offer());
        assert_eq!(first, second, "{name} belongs to one thread");
        ports.extend(first);
    }
    let all: BTreeSet<u16> = (media..media + THREADS).collect();
    assert!(ports.is_subset(&all) && ports.len() > 1, "twenty viewers at {ports:?}, of {all:?}");
}

#[test]
fn seats_are_those_of_all_threads_together_and_every_seated_viewer_sees_all() {
    let broker = Broker::start();
    let (device, _, page) = shared_out(&broker, 6);
    let probe = Probe::start(
        broker.address,
        device.id(),
        &["--viewers", "9", "--seconds", "8", "--settle-seconds", "2"],
    );
    until("all seats are taken", SOON, || {
        let scrape = Scrape::of(page);
        (scrape.value("peercam_viewers{stream=\"card\",quality=\"high\"}") == 6.0).then_some(())
    });
    let report = probe.report(SOON * 2);
    let viewers = report["per_viewer"].as_array().expect("viewers");
    let (refused, seated): (Vec<_>, Vec<_>) = viewers.iter().partition(|viewer| viewer["failed"].is_string());
    assert_eq!((refused.len(), seated.len()), (3, 6), "{report}");
    for viewer in refused {
        assert!(viewer["failed"].to_string().contains("6 viewers are watching already"), "{viewer}");
    }
    for viewer in seated {
        assert!(viewer["frames_shown"].as_u64().is_some_and(|frames| frames > 30), "{viewer}");
        assert_eq!(viewer["frames_lost"], 0, "{viewer}");
    }
    until("all have left", SOON, || {
        (Scrape::of(page).value("peercam_viewers{stream=\"card\",quality=\"high\"}") == 0.0).then_some(())
    });
    let scrape = Scrape::of(page);
    assert_eq!(scrape.value("peercam_driver_up"), 1.0);
    assert!(scrape.value("peercam_driver_busy_seconds_total") > 0.0);
    let report = Probe::start(broker.address, device.id(), &["--viewers", "6", "--seconds", "2"]).report(SOON);
    let viewers = report["per_viewer"].as_array().expect("viewers");
    assert!(
        viewers.iter().all(|viewer| viewer["failed"].is_null()),
        "the seats are free again: {report}"
    );
}
