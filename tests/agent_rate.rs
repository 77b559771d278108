//! Viewers on networks of different width: each gets what its own carries, and none spoils another's.

mod common;

use std::fs;
use std::time::Instant;

use common::broker::Broker;
use common::device::{Device, Settings};
use common::film::noise;
use common::netns::{SERVER, World};
use common::probe::Probe;
use common::rpicam::stand_in;
use common::scrape::Scrape;
use common::{SOON, until};

/// Of the high rung.
const HIGH_KBPS: u32 = 1_500;
const VIEWERS: usize = 5;
const FPS: f64 = 15.0;

/// A device that makes as many bits as it may, since its pictures are noise.
fn device(world: &World, broker: &Broker, http: std::net::SocketAddr) -> Device {
    let mut device = Device::with(Settings {
        broker: broker.url(),
        http: http.to_string(),
        more: "network.listen = \"all\"\nhttp.signaling = false\nhttp.metrics = \"all\"",
        bitrate_kbps: HIGH_KBPS,
        ..Settings::default()
    });
    let program = stand_in(device.file("rpicam-vid-stand-in"));
    let beside = |ending: &str| format!("{}.{ending}", program.display());
    fs::write(beside("mode"), "good").expect("a file");
    fs::write(beside("raw"), noise(320, 240, 8)).expect("pictures");
    let source = format!(
        "source = \"rpicam\"\ncommand = \"{}\"\nencoder = \"software\"\nlow_kbps = 200",
        program.display()
    );
    device.configure(&device.config().replace("source = \"pattern\"", &source));
    world.inside("device", || device.start());
    world.inside("internet", || device.live(broker));
    device
}

#[test]
fn who_is_on_a_narrow_network_gets_the_low_rung_and_the_others_lose_nothing() {
    let mut world = World::new();
    let at: std::net::IpAddr = world.public("device");
    let places: Vec<String> = (1..=VIEWERS).map(|number| format!("viewer{number}")).collect();
    let addresses: Vec<_> = places.iter().map(|place| world.public(place).to_string()).collect();
    let broker = world.inside("internet", || Broker::on(SERVER));
    let page = std::net::SocketAddr::new(at, 8_080);
    let device = device(&world, &broker, page);
    let figure = |name: &str, quality: &str| {
        world.inside("internet", || {
            Scrape::of(page).value(&format!("peercam_{name}{{stream=\"card\",quality=\"{quality}\"}}"))
        })
    };
    let watch = |index: usize| {
        world.inside(&places[index], || {
            Probe::start(broker.address, device.id(), &["--seconds", "60", "--address", &addresses[index]])
        })
    };
    let probes: Vec<Probe> = (0..VIEWERS).map(watch).collect();
    until("all watch the high rung", SOON, || {
        (figure("viewers", "high") == VIEWERS as f64).then_some(())
    });
    let film = |quality: &str, pictures: f64| {
        let before = figure("pictures_total", quality);
        until("the film goes on", SOON * 2, || {
            (figure("pictures_total", quality) >= before + pictures).then_some(())
        });
    };
    film("high", 4.0 * FPS);
    world.narrow("viewer5", "600kbit");
    let narrowed = Instant::now();
    until("one is shown the low rung", SOON * 2, || {
        (figure("viewers", "low") == 1.0).then_some(())
    });
    println!("the low rung {:.1?} after the network became narrow", narrowed.elapsed());
    film("low", 6.0 * FPS);
    assert_eq!((figure("viewers", "high"), figure("viewers", "low")), (4.0, 1.0), "the others stay");
    world.widen("viewer5");
    let widened = Instant::now();
    until("all are shown the high rung again", SOON * 3, || {
        (figure("viewers", "high") == VIEWERS as f64).then_some(())
    });
    println!("the high rung {:.1?} after it became wide", widened.elapsed());
    let reports: Vec<_> = probes.into_iter().map(|probe| probe.stop(SOON * 5)).collect();
    for report in &reports {
        let viewer = &report["per_viewer"][0];
        println!(
            "{} shown, {} lost, {} ms frozen; {}",
            viewer["frames_shown"], viewer["frames_lost"], viewer["frozen_ms"], viewer["session_stats"]
        );
        assert!(viewer["failed"].is_null(), "{viewer}");
    }
    let shown = |index: usize| reports[index]["per_viewer"][0]["frames_shown"].as_f64().expect("a number");
    for report in &reports[..VIEWERS - 1] {
        assert_eq!(report["per_viewer"][0]["frames_lost"], 0, "{report}");
    }
    assert!(shown(4) > 0.5 * shown(0), "{} of {}", shown(4), shown(0));
}
