//! Units: RTP media time and bit rates.

use std::fmt;
use std::time::{Duration, Instant};

/// Time on the RTP clock of video: 90,000 ticks a second (RFC 6184, 8.2.1). It does not wrap; RTP carries its low 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(u64);

impl MediaTime {
    /// Ticks a second.
    pub const HZ: u64 = 90_000;

    /// From 90 kHz ticks.
    #[must_use]
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }

    /// The media time of `captured` on a stream whose clock started at `epoch`; zero for a moment before it.
    #[must_use]
    pub fn since(epoch: Instant, captured: Instant) -> Self {
        let elapsed = captured.saturating_duration_since(epoch);
        Self((elapsed.as_nanos() * u128::from(Self::HZ) / 1_000_000_000) as u64)
    }

    /// 90 kHz ticks.
    #[must_use]
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// The RTP timestamp: the low 32 bits.
    #[must_use]
    pub const fn rtp(self) -> u32 {
        self.0 as u32
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let ticks = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / 10) / (Self::HZ / 10))
    }
}

/// A rate of bits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(u64);

impl Bitrate {
    /// From bits a second.
    #[must_use]
    pub const fn bps(bits: u64) -> Self {
        Self(bits)
    }

    /// From kilobits (1,000 bits) a second.
    #[must_use]
    pub const fn kbps(kilobits: u64) -> Self {
        Self(kilobits * 1_000)
    }

    /// Bits a second.
    #[must_use]
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// Kilobits a second, rounded down.
    #[must_use]
    pub const fn as_kbps(self) -> u64 {
        self.0 / 1_000
    }
}

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s", self.as_kbps())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_time_counts_ninety_thousand_ticks_a_second_and_wraps_only_on_the_wire() {
        let epoch = Instant::now();
        assert_eq!(MediaTime::since(epoch, epoch + Duration::from_millis(1_500)).ticks(), 135_000);
        let day_later = MediaTime::since(epoch, epoch + Duration::from_secs(86_400));
        assert_eq!(day_later.ticks(), 7_776_000_000);
        assert_eq!(u64::from(day_later.rtp()), 7_776_000_000 % (1 << 32));
        assert_eq!(day_later.saturating_since(MediaTime::from_ticks(0)), Duration::from_secs(86_400));
    }
}
