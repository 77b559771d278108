//! One moment on both clocks: the monotonic one for timers, the wall clock for latency.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment as this machine's two clocks show it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For timers and intervals.
    pub mono: Instant,
    /// Milliseconds since 1970, with fractions: to be compared with abs-capture-time.
    pub unix_ms: f64,
}

impl Moment {
    /// Reads both clocks. The protocol code never calls this; it is given its moments.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            mono: Instant::now(),
            unix_ms: unix.as_secs_f64() * 1e3,
        }
    }

    /// The moment of a kernel stamp (`stamp` since 1970) that was read at `self`. A stamp that is absent, lies in the future or
    /// is older than a second (the wall clock was set in between) counts as now.
    pub fn of_stamp(self, stamp: Option<Duration>) -> Self {
        let Some(stamp) = stamp else { return self };
        let age_ms = self.unix_ms - stamp.as_secs_f64() * 1e3;
        if !(0.0..1_000.0).contains(&age_ms) {
            return self;
        }
        let age = Duration::from_secs_f64(age_ms / 1e3);
        self.mono.checked_sub(age).map_or(self, |mono| Self {
            mono,
            unix_ms: stamp.as_secs_f64() * 1e3,
        })
    }

    /// The moment `later`, on both clocks.
    pub fn plus(self, later: Duration) -> Self {
        Self {
            mono: self.mono + later,
            unix_ms: self.unix_ms + later.as_secs_f64() * 1e3,
        }
    }

    /// Milliseconds on the monotonic clock since `earlier`; zero if that is later.
    pub fn ms_since(self, earlier: Self) -> f64 {
        self.mono.saturating_duration_since(earlier.mono).as_secs_f64() * 1e3
    }

    /// The later of two moments on the monotonic clock.
    pub fn max(self, other: Self) -> Self {
        if other.mono > self.mono { other } else { self }
    }
}

#[cfg(test)]
impl Moment {
    /// The moment `ms` milliseconds later on both clocks.
    pub fn plus_ms(self, ms: f64) -> Self {
        self.plus(Duration::from_secs_f64(ms / 1e3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_stamp_moves_both_clocks_back_and_a_senseless_one_moves_none() {
        let now = Moment::now().plus_ms(5_000.0);
        let stamp = |ms_ago: f64| Some(Duration::from_secs_f64((now.unix_ms - ms_ago) / 1e3));
        let earlier = now.of_stamp(stamp(7.0));
        assert!((now.ms_since(earlier) - 7.0).abs() < 0.1);
        assert!((now.unix_ms - earlier.unix_ms - 7.0).abs() < 0.1);
        for senseless in [None, stamp(-50.0), stamp(60_000.0)] {
            assert_eq!(now.of_stamp(senseless).mono, now.mono);
        }
    }
}
