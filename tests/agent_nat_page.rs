//! The page in Chromium, in a network of its own.

mod common;

use std::time::{Duration, Instant};

use common::SOON;
use common::broker::Broker;
use common::coturn::{Coturn, PASSWORD};
use common::device::{Device, Settings};
use common::netns::{SERVER, World};
use common::page::Page;

/// Of film before each change.
const FILM: Duration = Duration::from_secs(3);

/// What is promised is 2 s; this leaves room for a machine that does ten other things.
const BACK: Duration = Duration::from_secs(6);

/// A device and a page that shows its picture, each with an address of its own on the internet.
struct Bench {
    // Dropped in this order: the world last, when nothing runs in it any more.
    page: Page,
    device: Device,
    _coturn: Coturn,
    _broker: Broker,
    world: World,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        world.public("device");
        world.public("viewer");
        let (broker, coturn) = world.inside("internet", || (Broker::on(SERVER), Coturn::on(SERVER)));
        let mut device = Device::with(Settings {
            broker: broker.url(),
            more: "network.listen = \"all\"",
            ..Settings::default()
        });
        device.configure(&format!("{}{}", device.config(), coturn.config(&["udp"], PASSWORD)));
        world.inside("device", || device.start());
        world.inside("internet", || device.live(&broker));
        let mut page = world.inside("viewer", || Page::open(&broker, device.id()));
        page.plays(SOON * 2);
        page.watch_gaps();
        Self {
            page,
            device,
            _coturn: coturn,
            _broker: broker,
            world,
        }
    }

    /// Gives `place` another address three times; each time picture and data channel have to come back in the same session.
    fn survives_changes_at(&mut self, place: &str, first: u8) {
        let session = self.page.session();
        for (before, after) in [(first, 111), (111, 112), (112, 113)] {
            // The film runs in real time: there is nothing to look for meanwhile.
            std::thread::sleep(FILM);
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
            std::thread::sleep(FILM);
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
    Bench::new().survives_changes_at("viewer", 12);
}

#[test]
fn the_devices_address_changes_three_times_and_the_page_keeps_the_picture() {
    Bench::new().survives_changes_at("device", 11);
}
