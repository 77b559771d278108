//! When a buffer was captured.
#![expect(
    clippy::disallowed_methods,
    reason = "the kernel's stamps are compared with the clock they were taken from"
)]

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use v4l::v4l_sys as sys;

/// A stamp that is older than this is no capture time.
const OLDEST_STAMP: Duration = Duration::from_secs(2);

/// When a buffer was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferStamp {
    /// The driver's stamp on the monotonic clock.
    Monotonic(Instant),
    /// The driver gave none that can be used: the moment it was dequeued.
    Dequeued(Instant),
}

impl BufferStamp {
    /// The moment, whoever told it.
    #[must_use]
    pub fn instant(self) -> Instant {
        match self {
            Self::Monotonic(at) | Self::Dequeued(at) => at,
        }
    }
}

/// The stamp as the driver wrote it.
pub(super) fn raw_stamp(raw: &sys::v4l2_buffer) -> Duration {
    let seconds = u64::try_from(raw.timestamp.tv_sec).unwrap_or(0);
    let micros = u64::try_from(raw.timestamp.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// The driver's stamp as an `Instant`, which on Linux counts on the same monotonic clock.
pub(super) fn stamp(raw: &sys::v4l2_buffer) -> BufferStamp {
    let now = Instant::now();
    let clock = clock_gettime(ClockId::Monotonic);
    let monotonic = raw.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
    let age =
        nanos(clock.tv_sec.into(), clock.tv_nsec.into()) - nanos(raw.timestamp.tv_sec.into(), i128::from(raw.timestamp.tv_usec) * 1000);
    match captured(now, age).filter(|_| monotonic) {
        Some(captured) => BufferStamp::Monotonic(captured),
        None => BufferStamp::Dequeued(now),
    }
}

/// The moment `age` nanoseconds before `now`, unless that makes no sense for a picture that has just come.
fn captured(now: Instant, age: i128) -> Option<Instant> {
    let age = Duration::from_nanos(u64::try_from(age).ok()?);
    if age > OLDEST_STAMP { None } else { now.checked_sub(age) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v4l2::QueueKind;
    use crate::v4l2::queue::empty_buffer;

    #[test]
    fn stamps_on_the_monotonic_clock_become_instants_and_others_are_not_believed() {
        let mut raw = empty_buffer(QueueKind::Capture, sys::v4l2_memory_V4L2_MEMORY_MMAP, 0);
        let before = Instant::now();
        let clock = clock_gettime(ClockId::Monotonic);
        raw.timestamp.tv_sec = clock.tv_sec as _;
        raw.timestamp.tv_usec = (clock.tv_nsec / 1000) as _;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a stamp of unknown clock was believed"
        );
        raw.flags = sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        let BufferStamp::Monotonic(captured) = stamp(&raw) else {
            panic!("a monotonic stamp was not believed")
        };
        let error = captured.max(before) - captured.min(before);
        assert!(error < Duration::from_millis(5), "{error:?} off");
        raw.timestamp.tv_sec -= 3;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a picture of three seconds ago has not just come"
        );
        raw.timestamp.tv_sec += 5;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a picture of the future has not just come"
        );
    }
}
