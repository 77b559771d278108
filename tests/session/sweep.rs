//! A viewer behind a path that changes, watching a camera whose encoder follows the estimate: what becomes of both, second by second.

use std::time::{Duration, Instant};

use peercam::media::{Bitrate, Quality};

use super::film::{Camera, recognise};
use super::pair::Pair;
use super::wire::{Bottleneck, Weather};

const FPS: u32 = 30;

/// A key frame every 4 s, and when one is asked for.
const GOP: u32 = 4 * FPS;

/// A key frame's size, in pictures of the average size. The encoder saves what it is more in the pictures after it.
const KEY: f64 = 5.0;

/// In how many pictures, and how small those may become.
const REPAID_IN: f64 = FPS as f64;
const SMALLEST: f64 = 0.25;

/// What the encoder can do.
pub const MOST: u64 = 4_000_000;
const LEAST: u64 = 150_000;

/// Share of the estimate that pictures may take: the rest is for headers and for what is sent again.
const HEADROOM: f64 = 0.85;

/// How long a bottleneck lets datagrams wait.
const QUEUE: Duration = Duration::from_millis(300);

/// A path from `at` seconds on.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub at: u32,
    /// Bits a second.
    pub rate: u64,
    pub loss: f64,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Scenario<'a> {
    /// Round trip in milliseconds.
    pub rtt: u64,
    pub path: &'a [Stretch],
    pub secs: u32,
    /// Of the network's luck.
    pub seed: u64,
}

/// One second of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    pub at: u32,
    /// Of the path, in bits a second.
    pub rate: u64,
    /// At its end.
    pub estimate: u64,
    /// Bits of the pictures that could be shown.
    pub shown: u64,
    /// Bits that the path was given and took, headers and what was sent again included.
    pub used: u64,
    /// Longest that a datagram would have waited at the bottleneck.
    pub waiting: Duration,
    /// Longest time without a new picture that ended in it.
    pub gap: Duration,
    pub key_frames: u32,
    /// Pictures that the hub did not give, because they had waited too long.
    pub dropped: u64,
}

/// What became of a scenario.
pub struct Outcome {
    pub seconds: Vec<Second>,
    /// The estimate after each picture, since the beginning.
    pub estimates: Vec<(Duration, u64)>,
}

impl Scenario<'_> {
    fn stretch(&self, second: u32) -> Stretch {
        *self
            .path
            .iter()
            .rfind(|stretch| stretch.at <= second)
            .expect("a path from the beginning on")
    }

    fn weather(&self, stretch: Stretch) -> Weather {
        Weather {
            delay: Duration::from_millis(self.rtt) / 2,
            loss: stretch.loss,
            reorder: 0.0,
            bottleneck: Some(Bottleneck {
                rate: stretch.rate,
                queue: QUEUE,
            }),
        }
    }

    /// Watches from the first picture on.
    pub fn run(&self) -> Outcome {
        let start = Instant::now();
        let mut camera = Camera::new(start, GOP, (0, 0));
        let mut encoder = Encoder::default();
        let mut pair = Pair::behind(self.weather(self.stretch(0)), self.seed, &camera.hub, start);
        pair.device.shows(Quality::High, Bitrate::bps(MOST));
        let began = pair.now;
        let mut outcome = Outcome {
            seconds: Vec::new(),
            estimates: Vec::new(),
        };
        let mut viewer = Viewer {
            expected: 0,
            last_shown: began,
        };
        for second in 0..self.secs {
            let stretch = self.stretch(second);
            pair.change(self.weather(stretch));
            let mut seen = Second {
                at: second,
                rate: stretch.rate,
                ..Second::default()
            };
            let (dropped, squeezed) = (pair.dropped, pair.squeezed());
            for picture in 0..FPS {
                let at = began + Duration::from_secs(second.into()) + Duration::from_secs(1) * picture / FPS;
                pair.run(at - pair.now);
                let estimate = pair.device.estimate().map_or(MOST, Bitrate::as_bps);
                outcome.estimates.push((pair.now - began, estimate));
                camera.sizes = encoder.sizes(((estimate as f64 * HEADROOM) as u64).clamp(LEAST, MOST));
                let (_, key) = camera.shoot(pair.now);
                encoder.made(key, camera.sizes);
                seen.key_frames += u32::from(key);
                pair.take_pictures();
                seen.waiting = seen.waiting.max(pair.waiting());
                seen.estimate = estimate;
            }
            viewer.look(&mut pair, &mut seen);
            seen.dropped = pair.dropped - dropped;
            seen.used = (pair.squeezed() - squeezed) * 8;
            outcome.seconds.push(seen);
        }
        outcome
    }
}

/// What the viewer could show so far.
struct Viewer {
    /// The next picture, if it is no key frame.
    expected: u32,
    last_shown: Instant,
}

impl Viewer {
    fn look(&mut self, pair: &mut Pair, seen: &mut Second) {
        for (picture, at) in pair.pictures.iter().zip(&pair.whole_at) {
            let Some((number, key)) = recognise(&picture.data) else { continue };
            if key || number == self.expected {
                seen.shown += picture.data.len() as u64 * 8;
                seen.gap = seen.gap.max(*at - self.last_shown);
                (self.expected, self.last_shown) = (number + 1, *at);
            }
        }
        // One that has not ended yet counts too.
        seen.gap = seen.gap.max(pair.now - self.last_shown);
        pair.forget();
    }
}

/// An encoder's rate control: what key frames are larger, others are smaller.
#[derive(Default)]
struct Encoder {
    /// Bytes of a picture of the average size.
    average: f64,
    /// Bytes beyond the rate so far.
    debt: f64,
}

impl Encoder {
    /// Bytes of a key frame and of another picture at this rate.
    fn sizes(&mut self, rate: u64) -> (usize, usize) {
        self.average = rate as f64 / 8.0 / f64::from(FPS);
        let other = self.average - self.debt / REPAID_IN;
        ((KEY * self.average) as usize, other.max(SMALLEST * self.average) as usize)
    }

    fn made(&mut self, key: bool, sizes: (usize, usize)) {
        let size = if key { sizes.0 } else { sizes.1 };
        self.debt = (self.debt + size as f64 - self.average).max(0.0);
    }
}

impl Outcome {
    /// Of these seconds.
    pub fn between(&self, from: u32, to: u32) -> &[Second] {
        &self.seconds[from as usize..to as usize]
    }

    /// Bits a second of the pictures that could be shown.
    pub fn goodput(&self, from: u32, to: u32) -> u64 {
        let seconds = self.between(from, to);
        seconds.iter().map(|second| second.shown).sum::<u64>() / seconds.len() as u64
    }

    /// Bits a second that the path took.
    pub fn used(&self, from: u32, to: u32) -> u64 {
        let seconds = self.between(from, to);
        seconds.iter().map(|second| second.used).sum::<u64>() / seconds.len() as u64
    }

    /// The longest time without a new picture.
    pub fn freeze(&self, from: u32, to: u32) -> Duration {
        self.between(from, to).iter().map(|second| second.gap).max().unwrap_or_default()
    }

    /// How long after `from` the estimate was first such.
    pub fn until(&self, from: u32, such: impl Fn(u64) -> bool) -> Option<Duration> {
        let from = Duration::from_secs(from.into());
        let mut after = self.estimates.iter().filter(|(at, _)| *at >= from);
        after.find(|(_, estimate)| such(*estimate)).map(|(at, _)| *at - from)
    }

    /// Every so many seconds a line.
    pub fn print(&self, name: &str, step: u32) {
        println!("\n{name}\n   s   path  estimate    used  goodput  (kbit/s)  waits  longest gap (ms)  key frames  dropped");
        for seconds in self.seconds.chunks(step as usize) {
            let (Some(first), Some(last)) = (seconds.first(), seconds.last()) else {
                continue;
            };
            let count = seconds.len() as u64;
            println!(
                "{:4} {:6} {:9} {:7} {:8}           {:6} {:17} {:11} {:8}",
                first.at,
                last.rate / 1_000,
                last.estimate / 1_000,
                seconds.iter().map(|second| second.used).sum::<u64>() / count / 1_000,
                seconds.iter().map(|second| second.shown).sum::<u64>() / count / 1_000,
                seconds.iter().map(|second| second.waiting.as_millis()).max().unwrap_or(0),
                seconds.iter().map(|second| second.gap.as_millis()).max().unwrap_or(0),
                seconds.iter().map(|second| second.key_frames).sum::<u32>(),
                seconds.iter().map(|second| second.dropped).sum::<u64>(),
            );
        }
    }
}
