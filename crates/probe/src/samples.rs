//! Percentiles of a measured quantity, in bounded memory.

use serde::Serialize;

/// Values kept. Beyond it a uniform random choice of all values stands for them (Vitter's algorithm R); an hour at 60 frames a
/// second then costs 128 KiB a viewer, and p95 is off by less than half a percent of rank.
const KEPT: usize = 16_384;

/// Values of one quantity. Count, mean, smallest and largest are exact; percentiles are exact up to [`KEPT`] values.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: Vec<f64>,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    dice: Dice,
}

/// What [`Samples`] say, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Samples {
    /// Adds a value; one that is not finite is left out.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.sum += value;
        self.count += 1;
        if self.values.len() < KEPT {
            self.values.push(value);
        } else {
            let place = self.dice.below(self.count);
            if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.values.get_mut(place)) {
                *kept = value;
            }
        }
    }

    /// Adds what another one kept, shifted by `shift`.
    pub fn absorb(&mut self, other: &Self, shift: f64) {
        for value in &other.values {
            self.push(value + shift);
        }
    }

    /// How many values are greater than `limit`; beyond [`KEPT`] values an estimate.
    pub fn above(&self, limit: f64) -> u64 {
        let kept = self.values.len().max(1) as f64;
        let above = self.values.iter().filter(|value| **value > limit).count() as f64;
        (above / kept * self.count as f64).round() as u64
    }

    /// Count, mean and nearest-rank percentiles; `None` without values.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: f64| {
            let place = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
            sorted.get(place.clamp(1, sorted.len().max(1)) - 1).copied()
        };
        Some(Summary {
            count: self.count,
            mean: self.sum / self.count as f64,
            min: self.min,
            p50: rank(50.0)?,
            p95: rank(95.0)?,
            p99: rank(99.0)?,
            max: self.max,
        })
    }
}

/// A small deterministic random source (SplitMix64): for sampling and for join moments, not for secrets.
#[derive(Clone, Debug, Default)]
pub struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something happens that happens so many times in a hundred.
    pub fn percent(&mut self, chance: f64) -> bool {
        let share = (self.throw() >> 11) as f64 / (1u64 << 53) as f64;
        share * 100.0 < chance
    }

    /// A number from 0 up to, not including, `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.throw()) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Samples {
        let mut samples = Samples::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }

    #[test]
    fn percentiles_are_the_values_at_their_nearest_rank() {
        let cases: [(Vec<f64>, f64, f64, f64); 4] = [
            (vec![7.0], 7.0, 7.0, 7.0),
            (vec![3.0, 1.0, 2.0], 2.0, 3.0, 3.0),
            ((1..=20).map(f64::from).rev().collect(), 10.0, 19.0, 20.0),
            ((1..=100).map(f64::from).collect(), 50.0, 95.0, 100.0),
        ];
        for (values, p50, p95, max) in cases {
            let summary = of(values.clone()).summary().expect("there are values");
            assert_eq!((summary.p50, summary.p95, summary.max), (p50, p95, max), "{values:?}");
        }
        assert_eq!(Samples::default().summary(), None);
        assert_eq!(of([f64::NAN]).summary(), None);
    }

    #[test]
    fn a_million_values_stay_within_the_bound_and_keep_their_percentiles() {
        let samples = of((0..1_000_000).map(f64::from));
        assert_eq!(samples.values.len(), KEPT);
        let summary = samples.summary().expect("there are values");
        assert_eq!((summary.count, summary.min, summary.max), (1_000_000, 0.0, 999_999.0));
        assert!((summary.p95 - 950_000.0).abs() < 10_000.0, "{summary:?}");
        assert!(samples.above(899_999.5).abs_diff(100_000) < 10_000, "{}", samples.above(899_999.5));
        assert_eq!((samples.above(-1.0), samples.above(1e6)), (1_000_000, 0));
        assert_eq!(Samples::default().above(0.0), 0);
    }

    #[test]
    fn what_one_viewer_measured_is_shifted_by_its_own_clock_offset() {
        let mut all = Samples::default();
        all.absorb(&of([1.0, 2.0]), 10.0);
        all.absorb(&of([5.0]), 0.0);
        let summary = all.summary().expect("there are values");
        assert_eq!((summary.min, summary.max), (5.0, 12.0));
    }

    #[test]
    fn the_dice_fall_everywhere_and_the_same_way_for_one_seed() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..1_000).map(|_| dice.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(throw(1), throw(1));
        assert_ne!(throw(1), throw(2));
        for face in 0..10 {
            let times = throw(1).iter().filter(|number| **number == face).count();
            assert!((50..200).contains(&times), "{face} came {times} times in 1,000");
        }
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
