//! How old pictures are when their last packet has been given to the system.

use std::time::Duration;

/// Upper ends of the buckets in milliseconds; the last bucket has none.
const BOUNDS_MS: [f64; 19] = [
    0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0, 500.0, 1000.0,
];

/// Times from capture to the last packet sent, of one stream. A picture counts once for each viewer it was sent to live: what a joining
/// viewer is sent to catch up is old by intention, and does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum: Duration,
}

impl Latency {
    /// Counts one picture.
    pub fn note(&mut self, age: Duration) {
        let ms = age.as_secs_f64() * 1000.0;
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(age);
    }

    /// Adds what another driver has counted of the same stream.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Pictures counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Seconds of all of them together.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// Each bucket's upper end in seconds (that of the last is `f64::INFINITY`), and the pictures in it alone.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = BOUNDS_MS.iter().map(|ms| ms / 1000.0).chain([f64::INFINITY]);
        ends.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_counts_in_the_first_bucket_that_it_does_not_exceed() {
        let mut latency = Latency::default();
        for us in [0, 250, 251, 30_000, 2_000_000] {
            latency.note(Duration::from_micros(us));
        }
        let mut twice = latency;
        twice.add(&latency);
        let filled: Vec<_> = twice.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.000_25, 4), (0.000_5, 2), (0.03, 2), (f64::INFINITY, 2)]);
        assert_eq!(twice.count(), 10);
        assert!((twice.sum_seconds() - 4.061_002).abs() < 1e-9, "{}", twice.sum_seconds());
    }
}
