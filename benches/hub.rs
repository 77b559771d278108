//! What a picture costs the camera's thread, and what it costs each viewer to fetch it from the hub.

mod common;

use std::time::{Duration, Instant};

use common::{access_unit, heading};
use peercam::hub::{Hub, Next};
use peercam::media::{AccessUnit, MediaTime, StreamFormat};

/// Pictures in a measurement; a key frame begins each second of 30.
const PICTURES: u32 = 3_000;

fn main() {
    heading(
        "hub: pictures of 10 kB at 30 a second, in virtual time",
        "publish: on the camera's thread, packetizing included where somebody watches; next: one viewer takes one picture. The ratio is to 1 \
         viewer: a viewer must cost the camera nothing.",
    );
    println!("{:>8} {:>12} {:>8} {:>10}", "viewers", "publish ns", "ratio", "next ns");
    let mut one = None;
    for viewers in [0, 1, 10, 100, 1_000] {
        // The median of several runs, as other work on the machine only ever adds.
        let mut runs: Vec<(f64, f64)> = (0..7).map(|_| run(viewers)).collect();
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (publish, next) = runs[runs.len() / 2];
        if viewers == 1 {
            one = Some(publish);
        }
        let ratio = one.map_or_else(|| "-".to_owned(), |one| format!("{:.2}", publish / one));
        let next = if viewers == 0 { "-".to_owned() } else { format!("{next:.0}") };
        println!("{viewers:>8} {publish:>12.0} {ratio:>8} {next:>10}");
    }
}

/// Nanoseconds for each publish, and for each picture that a viewer takes.
fn run(viewers: u32) -> (f64, f64) {
    let start = Instant::now();
    let hub = Hub::new("camera");
    let format = StreamFormat {
        width: 1_280,
        height: 720,
        profile_level_id: [0x42, 0xe0, 0x1f],
    };
    hub.set_format(format, true);
    let (key, other) = (access_unit(10_000, true), access_unit(10_000, false));
    let mut subscriptions: Vec<_> = (0..viewers).map(|_| hub.subscribe(start)).collect();
    let (mut publishing, mut taking, mut taken) = (Duration::ZERO, Duration::ZERO, 0u32);
    for number in 0..PICTURES {
        let now = start + Duration::from_secs(1) * number / 30;
        let is_key = number % 30 == 0;
        let unit = AccessUnit {
            data: if is_key { &key } else { &other }.as_slice().into(),
            time: MediaTime::since(start, now),
            captured: now,
            key: is_key,
        };
        let began = Instant::now();
        hub.publish(unit, now);
        publishing += began.elapsed();
        let began = Instant::now();
        for subscription in &mut subscriptions {
            while let Next::Picture { .. } = subscription.next(now) {
                taken += 1;
            }
        }
        taking += began.elapsed();
    }
    assert_eq!(taken, viewers * PICTURES, "every viewer gets every picture");
    (
        publishing.as_nanos() as f64 / f64::from(PICTURES),
        taking.as_nanos() as f64 / f64::from(taken.max(1)),
    )
}
