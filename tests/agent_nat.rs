//! Through address translation and firewalls: real ones of the kernel, in network namespaces of the test's own.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::SOON;
use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::film::film;
use common::netns::{Firewall, Home, Nat, SECOND, SERVER, SERVER_V6, World};
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

/// What the device's router does to it, and by which kind of path a viewer with a public address sees it all the same.
struct Cell {
    home: Home,
    /// Where the broker listens.
    broker: SocketAddr,
    /// Of coturn, for the device.
    transport: &'static str,
    /// The kind of the device's candidate that the viewer speaks to; `prflx`: one that nobody has told.
    kind: &'static str,
}

const BROKER: SocketAddr = SocketAddr::new(SERVER, 1883);

fn passes(cell: &Cell) {
    let mut world = World::new();
    let (_, viewer) = (world.home("device", cell.home), world.public("viewer"));
    let (broker, coturn) = world.inside("internet", || {
        let mut broker = Broker::at(cell.broker);
        broker.run();
        (broker, Coturn::on(SERVER))
    });
    let device = device(&world, "device", &broker, &coturn, &[cell.transport]);
    let seen = watch(&world, "viewer", viewer, broker.address, &device);
    let path = seen["path"].as_str().expect("a path");
    assert!(path.contains(&format!("({})", cell.kind)), "{path}: {}", cell.kind);
    println!("{:?}: {} after {} ms", cell.home, cell.kind, seen["connected_ms"]);
}

#[test]
fn behind_a_router_the_device_tells_how_it_looks_from_outside() {
    passes(&Cell {
        home: Home::behind(Nat::PortRestricted),
        broker: BROKER,
        transport: "udp",
        kind: "srflx",
    });
}

#[test]
fn behind_a_router_with_a_port_for_each_the_device_speaks_first() {
    passes(&Cell {
        home: Home::behind(Nat::Symmetric),
        broker: BROKER,
        transport: "udp",
        kind: "prflx",
    });
}

#[test]
fn where_no_udp_gets_out_a_relay_is_reached_by_tcp() {
    passes(&Cell {
        home: Home {
            nat: Nat::PortRestricted,
            firewall: Firewall::NoUdp,
        },
        broker: BROKER,
        transport: "tcp",
        kind: "relay",
    });
}

#[test]
fn where_only_port_443_is_open_broker_and_relay_are_reached_there() {
    passes(&Cell {
        home: Home {
            nat: Nat::PortRestricted,
            firewall: Firewall::Only443,
        },
        broker: SocketAddr::new(SECOND, 443),
        transport: "tls",
        kind: "relay",
    });
}

#[test]
fn a_device_with_an_address_of_its_own_is_seen_there() {
    passes(&Cell {
        home: Home::behind(Nat::None),
        broker: BROKER,
        transport: "udp",
        kind: "host",
    });
}

/// Where there is nothing but IPv6, with such a firewall at the viewer, by a path of this kind.
fn passes_by_ipv6(firewall: &str, kind: &str) {
    let mut world = World::new();
    let (_, viewer) = (world.public_v6("device"), world.public_v6("viewer"));
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER_V6), Coturn::on(SERVER_V6)));
    world.close("viewer", firewall);
    let device = device(&world, "device", &broker, &coturn, &["udp"]);
    let seen = watch(&world, "viewer", viewer, broker.address, &device);
    let path = seen["path"].as_str().expect("a path");
    assert!(path.contains(&format!("({kind})")), "{path}");
    println!("IPv6 only: {path} after {} ms", seen["connected_ms"]);
}

#[test]
fn where_there_is_only_ipv6_nothing_else_is_needed() {
    passes_by_ipv6("", "host");
}

#[test]
fn a_relay_that_has_only_ipv6_is_asked_for_that() {
    // The device's own address is of no use to the viewer.
    passes_by_ipv6("ip6 saddr 2001:db8::11 udp sport != 3478 drop", "relay");
}

#[test]
fn of_two_networks_the_one_that_leads_to_the_viewer_is_taken() {
    let mut world = World::new();
    world.public("device");
    world.public("viewer");
    let [_, viewer] = world.cable("device", "viewer");
    world.close("device", "iifname \"net\" meta l4proto udp drop");
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    let device = device(&world, "device", &broker, &coturn, &["udp"]);
    let seen = watch(&world, "viewer", viewer, broker.address, &device);
    let path = seen["path"].as_str().expect("a path");
    assert!(path.contains("to 10.200.") && path.contains("(host)"), "{path}");
    println!("two networks: {path} after {} ms", seen["connected_ms"]);
}

/// The least that IPv6 allows, as on many tunnels and mobile networks.
#[test]
fn through_a_relay_no_packet_is_too_long_for_1280_bytes() {
    let mut world = World::new();
    let (_, viewer) = (world.public("device"), world.public("viewer"));
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    for place in ["device", "viewer"] {
        world.ip(place, "link set net mtu 1280");
        world.ip("internet", &format!("link set {place} mtu 1280"));
    }
    world.ip("internet", "link set bridge mtu 1280");
    let mut device = Device::with(Settings {
        broker: broker.url(),
        more: "network.listen = \"all\"\nnetwork.transport_policy = \"relay\"",
        ..Settings::default()
    });
    let config = format!("{}{}", device.config(), coturn.config(&["udp"], PASSWORD));
    // Pictures of many packets, each as long as it may be.
    device.configure(&device.playing(&film(2_000_000, 15), &config));
    world.inside("device", || device.start());
    world.inside("internet", || device.live(&broker));
    let seen = watch(&world, "viewer", viewer, broker.address, &device);
    let path = seen["path"].as_str().expect("a path");
    assert!(path.contains("(relay)"), "{path}");
    for place in ["device", "viewer", "internet"] {
        for counter in ["FragCreates", "FragFails", "ReasmReqds"] {
            assert_eq!(world.counted(place, "Ip", counter), 0, "{counter} at {place}");
        }
    }
    assert_eq!((&seen["frames_lost"], &seen["packets_lost"]), (&0.into(), &0.into()), "{seen}");
    println!("an MTU of 1280: {} packets by {path}, none in parts", seen["packets"]);
}

/// For how long the device waits for its viewer when the path is lost. The probe, like all viewers, chooses another one later than it sees
/// pictures again; longer than this it must not depend on that.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_devices_address_changes_three_times_and_the_picture_stays() {
    /// Of film before each change.
    const FILM: Duration = Duration::from_secs(4);
    let mut world = World::new();
    let (_, viewer) = (world.public("device"), world.public("viewer"));
    let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
    let mut device = device(&world, "device", &broker, &coturn, &["udp"]);
    let seconds = (3 * FILM + PATIENCE).as_secs() + 4;
    let arguments = ["--seconds", &seconds.to_string(), "--address", &viewer.to_string()];
    let probe = world.inside("viewer", || Probe::start(broker.address, device.id(), &arguments));
    device.seated();
    for (before, after) in [(11, 111), (111, 112), (112, 113)] {
        // The film runs in real time: there is nothing to look for meanwhile.
        std::thread::sleep(FILM);
        world.ip("device", &format!("addr del 203.0.113.{before}/24 dev net"));
        world.ip("device", &format!("addr add 203.0.113.{after}/24 dev net"));
    }
    let report = world.inside("viewer", || probe.report(SOON * 5));
    let viewer = &report["per_viewer"][0];
    println!("{} frozen ms, {} frames lost", viewer["frozen_ms"], viewer["frames_lost"]);
    assert!(viewer["failed"].is_null(), "the session stays: {viewer}");
    assert!(viewer["frozen_ms"].as_f64().is_some_and(|ms| ms < 2_000.0), "{viewer}");
    let wanted = 0.9 * FPS * seconds as f64;
    assert!(viewer["frames_shown"].as_f64().is_some_and(|shown| shown > wanted), "{viewer}");
    let log = device.process().log();
    assert_eq!(
        log.matches("connected to the broker").count(),
        4,
        "the broker hears of it at once: {log}"
    );
}
