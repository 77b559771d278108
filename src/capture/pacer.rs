//! Real time for sources that have none of their own.
#![expect(
    clippy::disallowed_methods,
    reason = "sources without a clock of their own are paced by the real one"
)]

use std::time::{Duration, Instant};

/// Gives each picture its moment on a fixed grid, so that small delays never add up.
///
/// A picture that is late by less than one interval comes at once and the next one on time; after a longer delay the moments
/// that have passed are left out, so that there is no burst to catch up.
#[derive(Debug)]
pub struct Pacer {
    start: Instant,
    /// Pictures a second.
    fps: f64,
    slot: u64,
}

impl Pacer {
    /// A grid of `fps` moments a second, the first of them at `start`.
    #[must_use]
    pub fn new(start: Instant, fps: f64) -> Self {
        Self { start, fps, slot: 0 }
    }

    /// When the next picture is due.
    pub fn due(&mut self, now: Instant) -> Instant {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        let current = (elapsed * self.fps) as u64;
        self.slot = self.slot.max(current);
        let due = self.start + Duration::from_secs_f64(self.slot as f64 / self.fps);
        self.slot += 1;
        due
    }

    /// Sleeps until the next picture is due.
    pub fn wait(&mut self) {
        let now = Instant::now();
        std::thread::sleep(self.due(now).saturating_duration_since(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_to_the_grid_for_an_hour_whatever_the_delays_and_never_come_in_bursts() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 30.0);
        let mut now = start;
        let mut count = 0u32;
        while now < start + Duration::from_secs(3600) {
            now = now.max(pacer.due(now)) + Duration::from_micros(700 * u64::from(count % 40));
            count += 1;
        }
        assert_eq!(count, 30 * 3600);

        // Asleep for ten seconds: the picture of that moment comes at once, then one each interval.
        let before = now;
        now += Duration::from_secs(10);
        assert!(pacer.due(now) <= now);
        let next = pacer.due(now);
        assert!(
            next > now && next <= now + Duration::from_millis(34),
            "{:?} after the long delay",
            next - before
        );
    }
}
