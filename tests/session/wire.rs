//! One direction of the network: it delays, loses and reorders, the same way for the same seed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What a network does to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// On the way, each.
    pub delay: Duration,
    /// Share that never arrives, 0 to 1; each by its own luck.
    pub loss: f64,
    /// Share that takes [`LATE_MS`] longer than the others, and so arrives after some that were sent later.
    pub reorder: f64,
    /// The narrowest link, before all that.
    pub bottleneck: Option<Bottleneck>,
}

/// A link that takes its time for each datagram. Those that come meanwhile wait; where they would wait too long they are lost.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    /// Of IP packets, in bits a second.
    pub rate: u64,
    pub queue: Duration,
}

/// Bytes of the headers of IPv4 and UDP.
const HEADERS: u64 = 28;

/// From within one picture's packets to beyond the next picture's, and longer than a receiver waits before it asks again.
const LATE_MS: RangeInclusive<u64> = 1..=40;

/// One direction.
pub struct Wire {
    pub weather: Weather,
    /// Every so-manieth datagram is lost; 0 for none.
    pub lose_every: u64,
    pub cut: bool,
    count: u64,
    dice: Dice,
    /// Until when the bottleneck is busy with what it has.
    busy_until: Option<Instant>,
    /// Bytes that it was given and took.
    pub squeezed: u64,
    /// By arrival, and by the order of sending where that is the same.
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
}

impl Wire {
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            lose_every: 0,
            cut: false,
            count: 0,
            dice: Dice(seed),
            busy_until: None,
            squeezed: 0,
            flying: BTreeMap::new(),
        }
    }

    pub fn carry(&mut self, now: Instant, bytes: &[u8]) {
        self.count += 1;
        let Weather { delay, loss, reorder, .. } = self.weather;
        let Some(passed) = self.squeeze(now, bytes.len()) else { return };
        let unlucky = self.dice.share() < loss;
        if self.cut || unlucky || (self.lose_every > 0 && self.count.is_multiple_of(self.lose_every)) {
            return;
        }
        let mut at = passed + delay;
        if self.dice.share() < reorder {
            let spread = LATE_MS.end() - LATE_MS.start() + 1;
            at += Duration::from_millis(LATE_MS.start() + self.dice.next() % spread);
        }
        self.flying.insert((at, self.count), bytes.to_vec());
    }

    /// How long a datagram would wait at the bottleneck now.
    pub fn waiting(&self, now: Instant) -> Duration {
        self.busy_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// When a datagram has passed the bottleneck, if there is room for it.
    fn squeeze(&mut self, now: Instant, size: usize) -> Option<Instant> {
        let Some(Bottleneck { rate, queue }) = self.weather.bottleneck else {
            return Some(now);
        };
        let waiting = self.waiting(now);
        if waiting > queue {
            return None;
        }
        self.squeezed += size as u64 + HEADERS;
        let passes = Duration::from_nanos((size as u64 + HEADERS) * 8 * 1_000_000_000 / rate);
        self.busy_until = Some(now + waiting + passes);
        self.busy_until
    }

    /// When the next datagram arrives.
    pub fn next(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    /// A datagram that has arrived by `now`.
    pub fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// SplitMix64: the same seed gives the same numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
