//! A bad network, emulated between a viewer and its sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::samples::Dice;

/// How much longer a datagram takes that is overtaken, in milliseconds: from within one picture's packets to beyond the next one's.
const LATE_MS: RangeInclusive<u64> = 1..=40;

/// Datagrams on their way at once, each way; more are lost. A second of 150 Mbit/s.
const UNDER_WAY: usize = 16_384;

/// What the network does to datagrams, each way alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args, Serialize)]
#[command(next_help_heading = "Emulated network, for media in both directions; the broker or HTTP is reached as it is")]
pub struct Weather {
    /// Lose so many of a hundred datagrams.
    #[arg(long = "loss", value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub loss_percent: f64,
    /// Delay each datagram by so many milliseconds; the round trip grows by twice that.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub delay_ms: u32,
    /// Let so many of a hundred datagrams be up to 40 ms later than the others, so that these overtake them.
    #[arg(long = "reorder", value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub reorder_percent: f64,
}

impl Weather {
    /// Whether there is nothing to emulate.
    pub fn is_calm(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "each way {} % lost, {} ms delay, {} % late",
            self.loss_percent, self.delay_ms, self.reorder_percent
        )
    }
}

/// One direction of it.
#[derive(Debug)]
pub struct Wire<T> {
    weather: Weather,
    dice: Dice,
    sent: u64,
    /// By arrival, and by the order of sending where that is the same.
    under_way: BTreeMap<(Instant, u64), T>,
}

impl<T> Wire<T> {
    /// The same seed brings the same luck.
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            dice: Dice::new(seed),
            sent: 0,
            under_way: BTreeMap::new(),
        }
    }

    /// Sends a datagram at `now`, or loses it.
    pub fn send(&mut self, datagram: T, now: Instant) {
        self.sent += 1;
        let (lost, late) = (
            self.dice.percent(self.weather.loss_percent),
            self.dice.percent(self.weather.reorder_percent),
        );
        if lost || self.under_way.len() >= UNDER_WAY {
            return;
        }
        let mut delay = Duration::from_millis(self.weather.delay_ms.into());
        if late {
            let spread = LATE_MS.end() - LATE_MS.start() + 1;
            delay += Duration::from_millis(LATE_MS.start() + self.dice.below(spread));
        }
        self.under_way.insert((now + delay, self.sent), datagram);
    }

    /// The next datagram that has arrived by `now`, and when it did.
    pub fn arrived(&mut self, now: Instant) -> Option<(Instant, T)> {
        let first = self.under_way.first_entry()?;
        let (at, _) = *first.key();
        (at <= now).then(|| (at, first.remove()))
    }

    /// When the next one arrives.
    pub fn next(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }
}

/// Reads a share of a hundred.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err("a number from 0 to 100 is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 10_000;

    /// Sends one datagram a millisecond; returns what arrives, in its order, with the milliseconds that it took.
    fn carry(weather: Weather, seed: u64) -> Vec<(u32, u128)> {
        let start = Instant::now();
        let sent_at = |number: u32| start + Duration::from_millis(number.into());
        let mut wire = Wire::new(weather, seed);
        (0..COUNT).for_each(|number| wire.send(number, sent_at(number)));
        assert_eq!(
            wire.arrived(start + Duration::from_millis(weather.delay_ms.into()) - Duration::from_nanos(1)),
            None
        );
        std::iter::from_fn(|| {
            let at = wire.next()?;
            wire.arrived(at)
        })
        .map(|(at, number)| (number, at.duration_since(sent_at(number)).as_millis()))
        .collect()
    }

    #[test]
    fn as_many_are_lost_and_late_as_was_said_and_the_same_ones_for_the_same_seed() {
        let weather = Weather {
            loss_percent: 3.0,
            delay_ms: 50,
            reorder_percent: 10.0,
        };
        let arrived = carry(weather, 1);
        assert_eq!(arrived, carry(weather, 1));
        assert_ne!(arrived, carry(weather, 2));
        let lost = COUNT as usize - arrived.len();
        assert!((200..400).contains(&lost), "{lost} of 10,000 are lost, about 300 wanted");
        let late = arrived.iter().filter(|(_, ms)| *ms > 50).count();
        assert!((800..1_200).contains(&late), "{late} of 10,000 are late, about 970 wanted");
        assert!(arrived.iter().all(|(_, ms)| (50..=90).contains(ms)), "50 ms, or up to 40 more");
        let overtaken = arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        assert!(overtaken > 700, "{overtaken} of those that are late are overtaken");
    }

    #[test]
    fn a_calm_network_keeps_all_and_their_order() {
        let arrived = carry(Weather::default(), 1);
        assert_eq!(arrived, (0..COUNT).map(|number| (number, 0)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let weather = Weather {
            delay_ms: 10_000,
            ..Weather::default()
        };
        let mut wire = Wire::new(weather, 1);
        let now = Instant::now();
        (0..2 * UNDER_WAY).for_each(|number| wire.send(number, now));
        assert_eq!(wire.under_way.len(), UNDER_WAY);
    }

    #[test]
    fn a_percentage_is_between_0_and_100() {
        for good in ["0", "3", "0.5", "100"] {
            assert!(percent(good).is_ok(), "{good}");
        }
        for bad in ["-1", "101", "NaN", "3%", ""] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
