//! Which of its addresses the device tells viewers of, and speaks from: rules for interfaces, and ports that a router forwards. In network
//! namespaces, with real cables and a real router.

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::netns::{Home, Nat, SERVER, World};
use common::probe::Probe;
use common::sdp::{self, offer_params};
use common::{SOON, until};
use serde_json::Value;

/// A device at its place in `world`, with these lines in its configuration.
fn device(world: &World, broker: &Broker, more: &'static str, servers: &str) -> Device {
    let device = Device::with(Settings {
        broker: broker.url(),
        more,
        ..Settings::default()
    });
    device.configure(&(device.config() + servers));
    started(world, broker, device)
}

fn started(world: &World, broker: &Broker, mut device: Device) -> Device {
    world.inside("device", || device.start());
    world.inside("internet", || device.live(broker));
    device
}

/// The addresses that the device's answer tells a viewer.
fn told(world: &World, broker: &Broker, device: &Device, name: &str) -> BTreeSet<IpAddr> {
    let answer = world.inside("internet", || {
        let mut peer = device.peer(broker.address, name);
        let hello = peer.hello();
        peer.call("session.offer", &offer_params(&hello, &sdp::offer()))
            .expect("the offer is answered")
    });
    let sdp = answer["sdp"].as_str().expect("an answer");
    let candidates = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    candidates.filter_map(|line| line.split(' ').nth(4)?.parse().ok()).collect()
}

/// A viewer at its place, with these addresses, who sees pictures; by which path.
fn path(world: &World, broker: &Broker, device: &Device, own: &[IpAddr]) -> String {
    let own: Vec<String> = own.iter().map(|address| format!("--address={address}")).collect();
    let mut arguments = vec!["--seconds", "4"];
    arguments.extend(own.iter().map(String::as_str));
    let report: Value = world.inside("viewer", || Probe::start(broker.address, device.id(), &arguments).report(SOON * 4));
    let viewer = &report["per_viewer"][0];
    assert!(viewer["failed"].is_null(), "{viewer}");
    assert!(viewer["frames_shown"].as_f64().is_some_and(|shown| shown > 30.0), "{viewer}");
    viewer["path"].as_str().expect("a path").to_owned()
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Another network of the device's own, without anybody in it.
fn add_network(world: &World, name: &str, address: &str) {
    world.ip("device", &format!("link add {name} type bridge"));
    world.ip("device", &format!("addr add {address} dev {name}"));
    world.ip("device", &format!("link set {name} up"));
}

#[test]
fn bridges_of_containers_are_told_to_nobody_unless_they_are_asked_for() {
    let mut world = World::new();
    world.public("device");
    add_network(&world, "docker0", "172.17.0.1/16");
    add_network(&world, "wg0", "10.8.0.1/24");
    let broker = world.inside("internet", || Broker::on(SERVER));
    let shipped = device(&world, &broker, "network.listen = \"all\"", "");
    assert_eq!(told(&world, &broker, &shipped, "alice"), ips(&["203.0.113.11", "10.8.0.1"]));
    drop(shipped);
    let asked = device(&world, &broker, "network.listen = \"all\"\nnetwork.exclude_interfaces = []", "");
    let all = ips(&["203.0.113.11", "10.8.0.1", "172.17.0.1"]);
    assert_eq!(told(&world, &broker, &asked, "bob"), all);
}

#[test]
fn the_rules_hold_for_interfaces_that_come_while_somebody_watches() {
    let mut world = World::new();
    world.public("device");
    let broker = world.inside("internet", || Broker::on(SERVER));
    let rules = "network.listen = \"all\"\nnetwork.exclude_interfaces = [\"wg*\"]";
    let mut device = device(&world, &broker, rules, "");
    assert_eq!(told(&world, &broker, &device, "alice"), ips(&["203.0.113.11"]));
    add_network(&world, "wg7", "10.8.0.1/24");
    add_network(&world, "eth7", "10.7.0.1/24");
    until("the device notices the new network", SOON, || {
        device.process().log().contains("10.7.0.1").then_some(())
    });
    assert_eq!(told(&world, &broker, &device, "bob"), ips(&["203.0.113.11", "10.7.0.1"]));
    let log = device.process().log();
    assert!(!log.contains("10.8.0.1"), "{log}");
}

/// The device and a viewer meet on the internet and on a cable of their own; the device's address on
/// the cable, and both of the viewer's.
fn two_ways(world: &mut World) -> (IpAddr, [IpAddr; 2]) {
    world.public("device");
    let viewer = world.public("viewer");
    let [device, other] = world.cable("device", "viewer");
    (device, [viewer, other])
}

#[test]
fn pictures_take_the_interfaces_that_the_rules_leave() {
    let mut world = World::new();
    let (cable, viewer) = two_ways(&mut world);
    let broker = world.inside("internet", || Broker::on(SERVER));
    for (rules, address) in [
        ("network.listen = \"all\"\nnetwork.interfaces = [\"cab*\"]", cable.to_string()),
        (
            "network.listen = \"all\"\nnetwork.exclude_interfaces = [\"cab*\"]",
            "203.0.113.11".to_owned(),
        ),
    ] {
        let device = device(&world, &broker, rules, "");
        let path = path(&world, &broker, &device, &viewer);
        assert!(path.contains(&format!("to {address}:")), "{rules}: {path}");
        println!("{rules}: {path}");
    }
}

#[test]
fn a_relay_too_is_spoken_to_from_the_interfaces_that_the_rules_leave() {
    let mut world = World::new();
    let (cable, viewer) = two_ways(&mut world);
    world.ip("internet", &format!("route add {cable} via 203.0.113.11"));
    // By itself the system would take the address that is on the relay's own network.
    world.close("internet", "ip saddr 203.0.113.11 udp dport 3478 drop");
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    let rules = "network.listen = \"all\"\nnetwork.interfaces = [\"cable\"]\nnetwork.transport_policy = \"relay\"";
    let device = device(&world, &broker, rules, &coturn.config(&["udp"], PASSWORD));
    // Not the cable: coturn gives an allocation up when it has no way to a peer of it.
    let path = path(&world, &broker, &device, &viewer[..1]);
    assert!(path.contains("(relay)"), "{path}");
}

#[test]
fn a_port_that_a_router_forwards_needs_no_server() {
    let mut world = World::new();
    let inside = world.home("device", Home::behind(Nat::PortRestricted));
    let viewer = [world.public("viewer")];
    let broker = world.inside("internet", || Broker::on(SERVER));
    let outside = SocketAddr::from(([203, 0, 113, 11], 5_000));
    world.forward("device", outside.port(), SocketAddr::new(inside, 8_555));
    // The viewer's own address is not to be reached by the device's checks: what comes must come in by the forwarded port.
    world.close("viewer", "udp dport != 5353 ct state new drop");
    let device = Device::with(Settings {
        broker: broker.url(),
        more: "network.listen = \"all\"\nnetwork.advertise = [\"203.0.113.11:5000\"]",
        ..Settings::default()
    });
    device.configure(&device.config().replace("network.udp_port = 0", "network.udp_port = 8555"));
    let device = started(&world, &broker, device);
    let path = path(&world, &broker, &device, &viewer);
    assert!(path.contains(&format!("to {outside}")) && path.contains("(srflx)"), "{path}");
    println!("forwarded: {path}");
}

/// The viewer's answer to the device's check tells the same before any server does; that the viewer knows of it is for the next time it has to look for a way.
#[test]
fn how_the_device_looks_from_outside_is_told_however_late_it_is_learnt() {
    let mut world = World::new();
    world.home("device", Home::behind(Nat::PortRestricted));
    let viewer = world.public("viewer");
    let (broker, mut coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    coturn.kill();
    let stun = format!("[[network.ice_server]]\nurls = [\"stun:{}\"]\n", coturn.address());
    let mut device = device(
        &world,
        &broker,
        "network.listen = \"all\"\nlog.filter = \"info,peercam::net::mappings=debug\"",
        &stun,
    );
    let probe = world.inside("viewer", || {
        let address = format!("--address={viewer}");
        Probe::start(broker.address, device.id(), &["--seconds", "8", &address])
    });
    device.seated();
    world.inside("internet", || coturn.run());
    until("the server answers", SOON * 3, || {
        device.process().log().contains("a STUN server sees this device").then_some(())
    });
    let report = probe.report(SOON * 2);
    let path = report["per_viewer"][0]["path"].as_str().expect("a path").to_owned();
    assert!(path.contains("(srflx)"), "the viewer was told: {path}");
}
