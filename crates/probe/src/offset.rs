//! How far the device's capture clock is from ours (NTP's four stamps, RFC 5905).

use peercam::protocol::Clock;
use serde::Serialize;

/// The best estimate so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOffset {
    best: Option<Estimate>,
}

/// An offset and how wrong it can be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The device's clock minus ours, in milliseconds.
    pub offset_ms: f64,
    /// The offset is at most this wrong: half of the round trip.
    pub error_ms: f64,
}

impl ClockOffset {
    /// Enters one exchange, asked at `asked_ms` and answered at `answered_ms` by our clock. The one with the shortest round trip
    /// counts; one that can't be (an answer before its question) doesn't.
    pub fn enter(&mut self, asked_ms: f64, answered_ms: f64, clock: &Clock) {
        let round_trip = (answered_ms - asked_ms) - (clock.sent_ms - clock.received_ms);
        if !round_trip.is_finite() || round_trip < 0.0 || clock.sent_ms < clock.received_ms {
            return;
        }
        let estimate = Estimate {
            offset_ms: f64::midpoint(clock.received_ms - asked_ms, clock.sent_ms - answered_ms),
            error_ms: round_trip / 2.0,
        };
        if self.best.is_none_or(|best| estimate.error_ms < best.error_ms) {
            self.best = Some(estimate);
        }
    }

    /// The estimate, once there was an exchange.
    pub fn estimate(&self) -> Option<Estimate> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_with_the_shortest_round_trip_counts() {
        let mut offset = ClockOffset::default();
        assert_eq!(offset.estimate(), None);
        // The device is 500 ms ahead; 30 ms there, 10 ms back.
        offset.enter(
            1_000.0,
            1_041.0,
            &Clock {
                received_ms: 1_530.0,
                sent_ms: 1_531.0,
            },
        );
        assert_eq!(
            offset.estimate(),
            Some(Estimate {
                offset_ms: 510.0,
                error_ms: 20.0
            })
        );
        offset.enter(
            2_000.0,
            2_004.0,
            &Clock {
                received_ms: 2_502.0,
                sent_ms: 2_502.0,
            },
        );
        assert_eq!(
            offset.estimate(),
            Some(Estimate {
                offset_ms: 500.0,
                error_ms: 2.0
            })
        );
        offset.enter(
            3_000.0,
            3_100.0,
            &Clock {
                received_ms: 3_590.0,
                sent_ms: 3_590.0,
            },
        );
        offset.enter(
            3_000.0,
            2_000.0,
            &Clock {
                received_ms: 3_590.0,
                sent_ms: 3_590.0,
            },
        );
        offset.enter(
            3_000.0,
            3_001.0,
            &Clock {
                received_ms: f64::NAN,
                sent_ms: 3_590.0,
            },
        );
        assert_eq!(
            offset.estimate(),
            Some(Estimate {
                offset_ms: 500.0,
                error_ms: 2.0
            })
        );
    }
}
