//! How long to wait before the next try.

use std::time::Duration;

/// The first pause: a broker that restarts is back in about that time.
const FIRST: Duration = Duration::from_millis(250);

/// Doubling pauses up to a limit, each spread over its second half so that a fleet does not come back as one.
#[derive(Debug)]
pub struct Backoff {
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses of at most `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            next: FIRST.min(limit),
        }
    }

    /// It worked: the next failure starts from the shortest pause.
    pub fn reset(&mut self) {
        self.next = FIRST.min(self.limit);
    }

    /// The pause before the next try; `random` spreads it.
    pub fn pause(&mut self, random: u8) -> Duration {
        let pause = self.next / 2 + self.next / 2 * u32::from(random) / 255;
        self.next = (self.next * 2).min(self.limit);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_are_spread() {
        let limit = Duration::from_secs(4);
        let mut backoff = Backoff::new(limit);
        let longest: Vec<_> = (0..6).map(|_| backoff.pause(255).as_millis()).collect();
        assert_eq!(longest, [250, 500, 1_000, 2_000, 4_000, 4_000]);
        assert_eq!(backoff.pause(0), limit / 2);
        backoff.reset();
        assert_eq!(backoff.pause(255).as_millis(), 250);
    }
}
