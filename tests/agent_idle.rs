//! What a camera does while nobody watches, and how soon it shows a picture to who comes then.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::probe::Probe;
use common::scrape::{Scrape, get};
use common::{SOON, free_port, until};

/// Nobody has watched for so long when the camera rests.
const LINGER: Duration = Duration::from_secs(10);

/// A device that does `idle` while nobody watches, and where its figures are.
fn device(broker: &Broker, idle: &str) -> (Device, SocketAddr) {
    let page = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut device = Device::with(Settings {
        broker: broker.url(),
        http: page.to_string(),
        ..Settings::default()
    });
    device.configure(&format!("{}idle = \"{idle}\"\n", device.config()));
    device.start();
    device.live(broker);
    (device, page)
}

fn pictures(page: SocketAddr) -> f64 {
    Scrape::of(page).value("peercam_pictures_total{stream=\"card\",quality=\"high\"}")
}

fn rests(page: SocketAddr) -> bool {
    Scrape::of(page).value("peercam_camera_resting{stream=\"card\",quality=\"high\"}") == 1.0
}

/// Nobody comes; then no pictures are made, and all is well; then somebody comes and sees one at once, again and again.
fn rests_and_wakes(idle: &str) {
    let broker = Broker::start();
    let (device, page) = device(&broker, idle);
    for round in 0..2 {
        until("the camera rests", LINGER + SOON, || rests(page).then_some(()));
        let before = pictures(page);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(pictures(page), before, "nobody needs a picture");
        let health = get(page, "/healthz", "").expect("an answer");
        assert_eq!(health.status, 200, "{}", health.body);

        let report = Probe::start(broker.address, device.id(), &["--seconds", "3"]).report(SOON * 2);
        let viewer = &report["per_viewer"][0];
        assert!(viewer["failed"].is_null(), "round {round}: {viewer}");
        let first = viewer["hello_to_key_ms"].as_f64().expect("a picture");
        println!("{idle}: the first picture after {first:.0} ms");
        assert!(first < 2_000.0, "{viewer}");
        assert_eq!(viewer["frames_lost"], 0, "{viewer}");
        assert!(viewer["frames_shown"].as_u64().is_some_and(|frames| frames > 10), "{viewer}");
        assert!(!rests(page), "who has just left may come back");
    }
}

#[test]
fn an_encoder_that_nobody_needs_rests_and_shows_a_picture_at_once_to_who_comes() {
    rests_and_wakes("rest");
}

#[test]
fn a_camera_that_is_closed_while_nobody_watches_is_opened_for_who_comes() {
    rests_and_wakes("close");
}

#[test]
fn a_camera_that_shall_go_on_goes_on() {
    let broker = Broker::start();
    let (_device, page) = device(&broker, "run");
    std::thread::sleep(LINGER + Duration::from_secs(3));
    let before = pictures(page);
    until("there are more pictures", SOON, || (pictures(page) > before).then_some(()));
    assert!(!rests(page));
}
