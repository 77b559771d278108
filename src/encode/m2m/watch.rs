//! What is known of pictures inside an encoder: when each was captured, and whether any still come out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Carries capture times through an encoder, which copies a buffer's stamp from the picture to its access unit.
pub(super) struct Stamps {
    epoch: Instant,
    inside: VecDeque<(Duration, Instant)>,
}

impl Stamps {
    /// More pictures than any encoder holds; those that it skipped silently leave their stamps here until a later one comes out.
    const MOST: usize = 64;
    /// Zero would be "no stamp".
    const FIRST: Duration = Duration::from_secs(1);

    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            inside: VecDeque::new(),
        }
    }

    /// The stamp for a picture's buffer: whole microseconds, each larger than the one before.
    pub fn put(&mut self, captured: Instant) -> Duration {
        let since = captured.saturating_duration_since(self.epoch) + Self::FIRST;
        let micros = Duration::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let stamp = self
            .inside
            .back()
            .map_or(micros, |(last, _)| micros.max(*last + Duration::from_micros(1)));
        if self.inside.len() == Self::MOST {
            self.inside.pop_front();
        }
        self.inside.push_back((stamp, captured));
        stamp
    }

    /// When the picture of this stamp was captured. A driver that lost the stamp gets that of the oldest picture inside.
    pub fn take(&mut self, stamp: Duration) -> Option<Instant> {
        let at = self.inside.iter().position(|(inside, _)| *inside == stamp).unwrap_or(0);
        // What went in before came out before, or never will.
        self.inside
            .drain(..=at.min(self.inside.len().checked_sub(1)?))
            .next_back()
            .map(|(_, captured)| captured)
    }
}

/// Notices an encoder that takes pictures and gives nothing: after hours, without an error (raspberrypi/picamera2#1392), or
/// because its headers' queue is full (raspberrypi/linux#4520).
#[derive(Default)]
pub(super) struct Watch {
    /// When the first picture went in since a unit came out.
    fed: Option<Instant>,
}

impl Watch {
    /// As long as a camera may be silent.
    pub const PATIENCE: Duration = Duration::from_secs(3);

    pub fn fed(&mut self, now: Instant) {
        self.fed.get_or_insert(now);
    }

    pub fn came(&mut self) {
        self.fed = None;
    }

    pub fn stalled(&self, now: Instant) -> bool {
        self.fed.is_some_and(|fed| now.saturating_duration_since(fed) >= Self::PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_times_come_out_as_they_went_in_also_when_pictures_were_skipped() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stamps = Stamps::new(start);
        let put: Vec<_> = [0, 33, 33, 66, 100].map(|ms| stamps.put(at(ms))).to_vec();
        assert!(put.is_sorted_by(|a, b| a < b) && put[0] > Duration::ZERO, "{put:?}");
        assert_eq!(stamps.take(put[0]), Some(at(0)));
        // The second was skipped.
        assert_eq!(stamps.take(put[2]), Some(at(33)));
        assert_eq!(stamps.take(Duration::ZERO), Some(at(66)), "a driver without stamps");
        assert_eq!(stamps.take(put[4]), Some(at(100)));
        assert_eq!(stamps.take(put[4]), None);
        for n in 0..1000 {
            stamps.put(at(200 + n));
        }
        assert_eq!(stamps.inside.len(), Stamps::MOST);
    }

    #[test]
    fn an_encoder_has_stalled_when_it_takes_pictures_for_three_seconds_and_gives_nothing() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = Watch::default();
        assert!(!watch.stalled(at(60_000)), "nothing went in");
        watch.fed(at(0));
        watch.fed(at(2_000));
        assert!(!watch.stalled(at(2_999)) && watch.stalled(at(3_000)));
        watch.came();
        assert!(!watch.stalled(at(10_000)));
        watch.fed(at(10_000));
        assert!(!watch.stalled(at(12_000)));
    }
}
