//! The page in Chromium, in a network of its own.

mod common;

use std::time::{Duration, Instant};

use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::netns::{Firewall, Home, Nat, SERVER, World};
use common::page::Page;
use common::scrape::Scrape;
use common::{SOON, until};

/// Of film around each change: three seconds.
const FILM: u64 = 45;

/// What is promised is 2 s; this leaves room for a machine that does ten other things.
const BACK: Duration = Duration::from_secs(6);

/// Of the TURN server, as the device knows it.
const RELAYS: &[&str] = &["udp", "tcp", "tls"];

/// Where the device serves its figures, for those at its place.
const METRICS: &str = "127.0.0.1:8080";

/// What is there before the page is opened.
struct Scene {
    /// Whoever is in no home has an address of its own.
    homes: [(&'static str, Option<Home>); 2],
    /// Lines of the device's configuration.
    more: &'static str,
    /// A rule of a firewall for what comes to the viewer.
    firewall: &'static str,
    /// Whether the picture is one of many bytes, in one rung only.
    rich: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            homes: [("device", None), ("viewer", None)],
            more: "network.listen = \"all\"",
            firewall: "",
            rich: false,
        }
    }
}

/// A device and the page, each somewhere on the internet.
struct Bench {
    // Dropped in this order: the world last, when nothing runs in it any more.
    page: Page,
    device: Device,
    _coturn: Coturn,
    _broker: Broker,
    world: World,
}

impl Bench {
    /// Both have an address of their own, and the page shows the picture.
    fn in_the_open() -> Self {
        let mut bench = Self::at(None, None, |coturn| coturn.config(&["udp"], PASSWORD));
        bench.page.plays(SOON * 2);
        bench.page.watch_gaps();
        bench
    }

    /// `servers` makes the configuration of STUN and TURN servers. Whoever is in no home has an address of its own.
    fn at(device_home: Option<Home>, viewer_home: Option<Home>, servers: impl Fn(&Coturn) -> String) -> Self {
        let scene = Scene {
            homes: [("device", device_home), ("viewer", viewer_home)],
            ..Scene::default()
        };
        Self::of(&scene, servers)
    }

    fn of(scene: &Scene, servers: impl Fn(&Coturn) -> String) -> Self {
        let mut world = World::new();
        for (place, home) in scene.homes {
            match home {
                Some(home) => world.home(place, home),
                None => world.public(place),
            };
        }
        world.close("viewer", scene.firewall);
        let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
        let mut device = Device::with(Settings {
            broker: broker.url(),
            http: METRICS.into(),
            more: scene.more,
            ..Settings::default()
        });
        let config = format!("{}{}", device.config(), servers(&coturn));
        device.configure(&if scene.rich {
            config
                .replace("size = \"320x240\"\nfps = 15", "low = false\nsize = \"640x360\"\nfps = 30")
                .replace("bitrate_kbps = 500", "bitrate_kbps = 2500")
        } else {
            config
        });
        world.inside("device", || device.start());
        world.inside("internet", || device.live(&broker));
        let page = world.inside("viewer", || Page::open(&broker, device.id()));
        Self {
            page,
            device,
            _coturn: coturn,
            _broker: broker,
            world,
        }
    }

    /// The page plays, by a path that it describes so.
    fn plays_by(&mut self, name: &str, path: &str) {
        self.page.plays(SOON * 2);
        let seen = until("the page tells the path", SOON, || {
            Some(self.page.stat("Path")).filter(|path| !path.is_empty() && path != "n/a")
        });
        println!("{name}: {seen}, {:.0?} after hello", self.page.connecting());
        self.film();
        self.page.screenshot(name);
        assert!(seen.starts_with(path), "{seen}: {path}");
    }

    /// The browser has told a name in place of each of its addresses.
    fn tells_names_only(&mut self) {
        let told = self.page.candidates();
        println!("{told:?}");
        let hidden = told.iter().all(|(address, kind)| address.ends_with(".local") && kind == "host");
        assert!(hidden && !told.is_empty(), "{told:?}");
    }

    /// Until some more pictures were shown.
    fn film(&mut self) {
        let before = self.page.frames();
        until("pictures flow", SOON, || (self.page.frames() >= before + FILM).then_some(()));
    }

    /// Gives `place` another address three times; each time picture and data channel have to come back in the same session.
    fn survives_changes_at(&mut self, place: &str, first: u8) {
        let session = self.page.session();
        for (before, after) in [(first, 111), (111, 112), (112, 113)] {
            self.film();
            self.page.longest_gap();
            self.world.ip(place, &format!("addr del 203.0.113.{before}/24 dev net"));
            self.world.ip(place, &format!("addr add 203.0.113.{after}/24 dev net"));
            self.world.ip(place, &format!("route replace default via {SERVER}"));
            let changed = Instant::now();
            let answered = loop {
                if self.page.try_rpc("system.info").is_some() {
                    break changed.elapsed();
                }
                assert!(
                    changed.elapsed() < SOON,
                    "the data channel works again; log: {}",
                    self.device.process().log()
                );
            };
            self.film();
            let gap = self.page.longest_gap();
            println!("the {place}'s address changed: {gap:.1?} without a picture, a command answered after {answered:.1?}");
            assert!(gap < BACK, "{gap:?} without a picture");
            assert_eq!(self.page.session(), session, "the session stays");
        }
        self.page.screenshot(&format!("address-of-{place}"));
    }
}

#[test]
fn the_viewers_address_changes_three_times_and_the_picture_comes_back() {
    Bench::in_the_open().survives_changes_at("viewer", 12);
}

#[test]
fn the_devices_address_changes_three_times_and_the_page_keeps_the_picture() {
    Bench::in_the_open().survives_changes_at("device", 11);
}

#[test]
fn two_homes_meet_without_a_relay() {
    let home = Some(Home::behind(Nat::PortRestricted));
    let mut bench = Bench::at(home, home, |coturn| coturn.config(RELAYS, PASSWORD));
    bench.plays_by("two-homes", "direct (UDP)");
}

#[test]
fn where_both_routers_take_another_port_for_each_a_relay_carries_the_picture() {
    let home = Some(Home::behind(Nat::Symmetric));
    let mut bench = Bench::at(home, home, |coturn| coturn.config(RELAYS, PASSWORD));
    bench.plays_by("both-symmetric", "relayed");
}

/// The device hears of no address of the browser's: the browser speaks first, and shows it so.
#[test]
fn names_that_hide_the_browsers_addresses_need_not_be_resolved() {
    let mut bench = Bench::at(None, None, |_| String::new());
    bench.plays_by("hidden-addresses", "direct (UDP)");
    bench.tells_names_only();
}

/// A relay lets those in whom the device has told it of. Of the browser it learns what the browser learns by the same relay: how it looks from
/// outside, and its own address there.
#[test]
fn names_need_not_be_resolved_where_the_device_has_a_relay_only() {
    let mut bench = Bench::at(NO_UDP, None, |coturn| coturn.config(RELAYS, PASSWORD));
    bench.plays_by("hidden-addresses-and-a-relay", "relayed");
    let told = bench.page.candidates();
    println!("{told:?}");
    assert!(
        told.iter().any(|(address, kind)| address.ends_with(".local") && kind == "host"),
        "{told:?}"
    );
}

/// The viewer hears no UDP, and there is no server; the device may be connected to by TCP.
fn by_tcp() -> Scene {
    Scene {
        more: "network.listen = \"all\"\nnetwork.tcp_port = 8555",
        firewall: "iifname \"net\" meta l4proto udp drop",
        ..Scene::default()
    }
}

#[test]
fn without_udp_and_without_a_relay_the_browser_connects_by_tcp() {
    let mut bench = Bench::of(&by_tcp(), |_| String::new());
    bench.plays_by("tcp", "direct (TCP)");
    assert!(bench.page.try_rpc("system.info").is_some(), "commands get through too");
}

#[test]
fn where_udp_works_no_picture_goes_by_tcp() {
    let scene = Scene { firewall: "", ..by_tcp() };
    Bench::of(&scene, |_| String::new()).plays_by("udp-beside-tcp", "direct (UDP)");
}

#[test]
fn by_tcp_too_the_viewers_address_may_change() {
    let mut bench = Bench::of(&by_tcp(), |_| String::new());
    bench.page.plays(SOON * 2);
    bench.page.watch_gaps();
    bench.survives_changes_at("viewer", 12);
}

#[test]
fn by_tcp_too_the_devices_address_may_change() {
    let mut bench = Bench::of(&by_tcp(), |_| String::new());
    bench.page.plays(SOON * 2);
    bench.page.watch_gaps();
    bench.survives_changes_at("device", 11);
}

/// A connection that carries a fraction of the stream.
#[test]
fn what_a_tcp_connection_does_not_carry_is_left_out_up_to_a_key_frame() {
    let scene = Scene { rich: true, ..by_tcp() };
    let mut bench = Bench::of(&scene, |_| String::new());
    bench.plays_by("tcp-narrow", "direct (TCP)");
    let told = |bench: &Bench| bench.world.inside("device", || Scrape::of(METRICS.parse().expect("an address")));
    let cleared = "peercam_viewer_overflows_total{stream=\"card\",quality=\"high\"}";
    assert_eq!(told(&bench).value(cleared), 0.0, "all fits");
    // The card has 240 kbit/s.
    bench.world.narrow("viewer", "100kbit");
    until("pictures are left out three times", SOON * 4, || {
        (told(&bench).value(cleared) >= 3.0).then_some(())
    });
    let before = bench.page.frames();
    until("what fits is shown", SOON * 2, || (bench.page.frames() > before).then_some(()));
    assert_eq!(
        told(&bench).value("peercam_tcp_datagrams_dropped_total"),
        0.0,
        "no picture was torn"
    );
    bench.world.widen("viewer");
    bench.film();
    bench.film();
}

/// A company: TCP gets out, UDP does not.
const NO_UDP: Option<Home> = Some(Home {
    nat: Nat::PortRestricted,
    firewall: Firewall::NoUdp,
});

#[test]
fn where_the_viewer_has_no_udp_a_relay_is_reached_by_tcp() {
    let home = Some(Home::behind(Nat::PortRestricted));
    let mut bench = Bench::at(home, NO_UDP, |coturn| coturn.config(RELAYS, PASSWORD));
    bench.plays_by("viewer-without-udp", "relayed (this side's relay by T");
}

#[test]
fn without_udp_and_without_a_relay_the_page_says_so() {
    let mut bench = Bench::at(None, NO_UDP, |coturn| {
        format!("[[network.ice_server]]\nurls = [\"stun:{}\"]\n", coturn.address())
    });
    let said = until("the page says what stands in the way", SOON * 3, || {
        Some(bench.page.words()).filter(|words| words.starts_with("No way to the device was found"))
    });
    println!("{said}");
    bench.page.screenshot("no-udp");
    assert!(
        said.contains("This network seems to let no UDP out, and the device knows no TURN server"),
        "{said}"
    );
    let log = until("the device says so too", SOON * 2, || {
        Some(bench.device.process().log()).filter(|log| log.contains("viewer gone"))
    });
    assert!(log.contains("no TURN server is configured"), "{log}");
}
