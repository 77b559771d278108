//! Through address translation and firewalls: real ones of the kernel, in network namespaces of the test's own.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::SOON;
use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::netns::{Home, Nat, SERVER, World};
use common::probe::Probe;
use serde_json::Value;

const FPS: f64 = 15.0;

/// A device that is at `place`, in `world`, and knows `coturn`.
fn device(world: &World, place: &str, broker: &Broker, coturn: &Coturn, transports: &[&str]) -> Device {
    let mut device = Device::with(Settings {
        broker: broker.url(),
        more: "network.listen = \"all\"",
        ..Settings::default()
    });
    device.configure(&format!("{}{}", device.config(), coturn.config(transports, PASSWORD)));
    world.inside(place, || device.start());
    world.inside("internet", || device.live(broker));
    device
}

fn watch(world: &World, place: &str, address: IpAddr, broker: SocketAddr, device: &Device) -> Value {
    let address = address.to_string();
    let report = world.inside(place, || {
        let arguments = ["--seconds", "5", "--address", &address];
        Probe::start(broker, device.id(), &arguments).report(SOON * 4)
    });
    let viewer = report["per_viewer"][0].clone();
    assert!(viewer["failed"].is_null(), "{viewer}");
    let shown = viewer["frames_shown"].as_f64().expect("a number");
    assert!(shown > 3.0 * FPS, "pictures flow: {viewer}");
    assert_eq!(viewer["frames_undecodable"], 0, "{viewer}");
    viewer
}

#[test]
fn behind_a_router_the_device_tells_how_it_looks_from_outside() {
    let mut world = World::new();
    let (_, viewer) = (world.home("device", Home::behind(Nat::PortRestricted)), world.public("viewer"));
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    let device = device(&world, "device", &broker, &coturn, &["udp"]);
    let seen = watch(&world, "viewer", viewer, broker.address, &device);
    assert!(seen["path"].as_str().is_some_and(|path| path.contains("(srflx)")), "{seen}");
}

/// What a viewer sees of three changes of the device's address, each a second of the film before the next.
#[test]
fn the_devices_address_changes_three_times_and_the_picture_stays() {
    let mut world = World::new();
    let (_, viewer) = (world.public("device"), world.public("viewer"));
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    let mut device = device(&world, "device", &broker, &coturn, &["udp"]);
    let arguments = ["--seconds", "16", "--address", &viewer.to_string()];
    let probe = world.inside("viewer", || Probe::start(broker.address, device.id(), &arguments));
    device.seated();
    for (before, after) in [(11, 111), (111, 112), (112, 113)] {
        std::thread::sleep(Duration::from_secs(4));
        world.ip("device", &format!("addr del 203.0.113.{before}/24 dev net"));
        world.ip("device", &format!("addr add 203.0.113.{after}/24 dev net"));
    }
    let report = world.inside("viewer", || probe.report(SOON * 4));
    let viewer = &report["per_viewer"][0];
    println!("{} frozen ms, {} frames lost", viewer["frozen_ms"], viewer["frames_lost"]);
    assert!(viewer["failed"].is_null(), "the session stays: {viewer}");
    assert!(viewer["frozen_ms"].as_f64().is_some_and(|ms| ms < 2_000.0), "{viewer}");
    assert!(viewer["frames_shown"].as_f64().is_some_and(|shown| shown > 14.0 * FPS), "{viewer}");
    let log = device.process().log();
    assert_eq!(
        log.matches("connected to the broker").count(),
        4,
        "the broker hears of it at once: {log}"
    );
}
