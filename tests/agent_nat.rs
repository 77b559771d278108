//! Through address translation and firewalls: real ones of the kernel, in network namespaces of the test's own.

mod common;

use std::net::{IpAddr, SocketAddr};

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
