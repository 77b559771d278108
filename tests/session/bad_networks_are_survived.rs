use std::time::{Duration, Instant};

use super::film::{Camera, recognise};
use super::pair::Pair;
use super::wire::Weather;

const FPS: u32 = 30;

/// 100 ms of round trip.
const DELAY: Duration = Duration::from_millis(50);

/// 2.5 Mbit/s with a key frame of 60 kB every 4 s.
const GOP: u32 = 4 * FPS;
const KEY: usize = 60_000;
const OTHER: usize = (2_500_000 / 8 * 4 - KEY) / (GOP as usize - 1);

/// A handshake whose last message is lost is finished when this viewer's stack asks again, after one second or three; meanwhile it
/// can't read the pictures that come, and then a key frame is asked for.
const JOIN: Duration = Duration::from_secs(5);

/// The last one brings such a handshake.
const SEEDS: [u64; 3] = [1, 2, 5];

/// What became of the pictures of one viewer, from its first one on.
#[derive(Debug, Default)]
struct Seen {
    /// From when the device had a connection to the first picture of which the viewer had all.
    join: Duration,
    sent: usize,
    /// All NAL units arrived.
    whole: usize,
    /// And those of all pictures that they refer to.
    shown: usize,
    /// Pictures the hub held back.
    dropped: u64,
    key_frames: u32,
}

/// One viewer for `secs` behind such a network.
fn watch(weather: Weather, seed: u64, secs: u32) -> Seen {
    let start = Instant::now();
    let mut camera = Camera::new(start, GOP, (KEY, OTHER));
    let mut pair = Pair::behind(weather, seed, &camera.hub, start);
    let began = pair.now;
    let mut seen = Seen::default();
    let mut last = 0;
    for picture in 0..secs * FPS {
        let at = began + Duration::from_secs(1) * picture / FPS;
        pair.run(at - pair.now);
        let (number, key) = camera.shoot(pair.now);
        last = number;
        seen.key_frames += u32::from(key);
        pair.take_pictures();
    }
    pair.run(Duration::from_secs(2));
    seen.dropped = pair.dropped;
    let mut expected = None;
    for picture in &pair.pictures {
        let Some((number, key)) = recognise(&picture.data) else { continue };
        if seen.whole == 0 {
            seen.join = picture.network_time - began;
            seen.sent = (last - number) as usize + 1;
        }
        seen.whole += 1;
        if key || expected == Some(number) {
            seen.shown += 1;
            expected = Some(number + 1);
        }
    }
    println!("{weather:?} seed {seed}: {seen:?} {:?}", pair.device.figures());
    seen
}

#[test]
fn over_99_percent_of_the_pictures_are_whole_where_one_datagram_in_a_hundred_is_lost() {
    over_99_percent(0.01, 0.0);
}

#[test]
fn over_99_percent_of_the_pictures_are_whole_where_three_datagrams_in_a_hundred_are_lost() {
    over_99_percent(0.03, 0.0);
}

#[test]
fn over_99_percent_of_the_pictures_are_whole_where_one_is_lost_and_ten_are_late() {
    over_99_percent(0.01, 0.1);
}

#[test]
fn over_99_percent_of_the_pictures_are_whole_where_three_are_lost_and_ten_are_late() {
    over_99_percent(0.03, 0.1);
}

/// Handshakes are random, so that the same seed loses a little differently each time.
fn over_99_percent(loss: f64, reorder: f64) {
    let weather = Weather {
        delay: DELAY,
        loss,
        reorder,
        ..Weather::default()
    };
    for seed in SEEDS {
        let seen = watch(weather, seed, 60);
        assert!(seen.join < JOIN, "the first picture came after {:?} (seed {seed})", seen.join);
        assert!(seen.sent > 50 * FPS as usize, "a minute is watched (seed {seed}): {seen:?}");
        assert!(
            seen.whole * 100 > seen.sent * 99,
            "{} of {} pictures arrived whole (seed {seed}): {seen:?}",
            seen.whole,
            seen.sent
        );
        // One that is missing must not cost those after it up to the next regular key frame.
        assert!(
            seen.shown * 100 > seen.sent * 93,
            "{} of {} pictures could be shown (seed {seed}): {seen:?}",
            seen.shown,
            seen.sent
        );
    }
}
