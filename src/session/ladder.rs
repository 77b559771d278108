//! Which rung of a stream a viewer's path carries, judged once a second. It does not ask how long a path is, only whether it becomes longer.

use std::time::{Duration, Instant};

use crate::media::{Bitrate, Quality};

/// More loss than this in a second is congestion; radio links lose a few per cent without any.
pub const CONGESTION_LOSS: f32 = 0.05;

/// A path that was away for a moment loses much at once; one that is too narrow goes on losing.
pub const CONGESTION_SECS: u32 = 3;

/// So much above the shortest round trip, packets wait somewhere on the way.
const QUEUE: Duration = Duration::from_millis(150);

/// For so long a path is believed to be narrow that was found to be.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The same after many vain attempts; each costs the viewer some bad seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Who has kept the high rung for so long did not climb in vain.
const SETTLED: Duration = Duration::from_secs(30);

/// Whether a path that carries `estimate` has no room for what is sent. A still picture needs little, and tells little of the path: so a
/// quarter of what the encoder is asked for, `target`, is the least.
#[must_use]
pub fn is_too_little(estimate: Bitrate, sent: Bitrate, target: Bitrate) -> bool {
    estimate.as_bps() < sent.as_bps().max(target.as_bps() / 4)
}

/// What a second has shown.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// What congestion control believes the path carries. By itself it proves nothing: on a busy machine it falls with the jitter of timers.
    pub estimate: Option<Bitrate>,
    /// What was sent.
    pub sent: Bitrate,
    /// Share of packets that did not arrive, from 0 to 1.
    pub loss: f32,
    pub rtt: Option<Duration>,
    /// Pictures had to be dropped, since those before them had not left yet.
    pub dropped: bool,
}

/// What is believed of a path, and why.
#[derive(Debug)]
pub struct Ladder {
    carries: Quality,
    since: Instant,
    /// How many seconds in a row were bad.
    bad: u32,
    /// How long the low rung is kept before the high one is tried again.
    pause: Duration,
    shortest: Option<Duration>,
}

impl Ladder {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            carries: Quality::High,
            since: now,
            bad: 0,
            pause: FIRST_PAUSE / 2,
            shortest: None,
        }
    }

    /// The path is another one now: what was measured does not count, and the high rung is worth an attempt.
    pub fn forget(&mut self) {
        self.bad = 0;
        self.shortest = None;
        self.pause = FIRST_PAUSE / 2;
    }

    /// The best rung that the path carries, as far as known.
    #[must_use]
    pub fn carries(&self) -> Quality {
        self.carries
    }

    /// One more second, in which `shown` was sent; `high` is what the encoder of the high rung is asked for. Returns whether the belief is
    /// another one now.
    pub fn step(&mut self, second: &Second, shown: Quality, high: Bitrate, now: Instant) -> bool {
        let shortest = self.shortest.into_iter().chain(second.rtt).min();
        self.shortest = shortest;
        let queued = second.rtt.zip(shortest).is_some_and(|(rtt, shortest)| rtt > shortest + QUEUE);
        let too_little = second.estimate.is_none_or(|estimate| is_too_little(estimate, second.sent, high));
        let bad = second.dropped || too_little && (queued || second.loss >= CONGESTION_LOSS);
        self.bad = if bad { self.bad + 1 } else { 0 };
        let elapsed = now.saturating_duration_since(self.since);
        match self.carries {
            Quality::High if shown == Quality::High && self.bad >= CONGESTION_SECS => {
                self.pause = if elapsed < SETTLED {
                    (self.pause * 2).min(LONGEST_PAUSE)
                } else {
                    FIRST_PAUSE
                };
                self.turn(Quality::Low, now)
            }
            Quality::Low if self.bad == 0 && elapsed >= self.pause => self.turn(Quality::High, now),
            Quality::High | Quality::Low => false,
        }
    }

    fn turn(&mut self, carries: Quality, now: Instant) -> bool {
        (self.carries, self.since, self.bad) = (carries, now, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: Bitrate = Bitrate::kbps(2_000);
    const LOW_KBPS: u64 = 300;

    /// A viewer on a path that carries `kbps`, which waits `queue` where more is sent, for so many seconds: what is shown in each.
    fn shown(ladder: &mut Ladder, start: Instant, seconds: std::ops::Range<u64>, kbps: u64, loss: f32, queue: Duration) -> String {
        let mut shown = String::new();
        for second in seconds {
            let rung = ladder.carries();
            let sent = if rung == Quality::High { 2_000 } else { LOW_KBPS };
            let full = sent > kbps;
            let second_seen = Second {
                estimate: Some(Bitrate::kbps(kbps.min(sent * 3 / 2))),
                sent: Bitrate::kbps(sent),
                loss: if full { loss } else { 0.0 },
                rtt: Some(Duration::from_millis(40) + if full { queue } else { Duration::ZERO }),
                dropped: false,
            };
            ladder.step(&second_seen, rung, HIGH, start + Duration::from_secs(second));
            shown.push(if rung == Quality::High { 'h' } else { 'l' });
        }
        shown
    }

    #[test]
    fn a_narrow_path_goes_down_after_three_seconds_and_is_tried_less_and_less() {
        for (loss, queue) in [(0.3, Duration::ZERO), (0.0, Duration::from_millis(400))] {
            let start = Instant::now();
            let mut ladder = Ladder::new(start);
            // Whoever joins has a round trip of its own first.
            assert_eq!(shown(&mut ladder, start, 0..1, 4_000, 0.0, Duration::ZERO), "h");
            let seen = shown(&mut ladder, start, 1..300, 600, loss, queue);
            assert!(seen.starts_with("hhhllllllllll"), "{seen}");
            let tries: Vec<usize> = seen.split('h').map(str::len).filter(|length| *length > 0).collect();
            assert!(tries.is_sorted() && tries.len() <= 6, "{tries:?}");
            let wide = shown(&mut ladder, start, 300..640, 4_000, 0.0, Duration::ZERO);
            assert!(wide.ends_with("hhhhhhhhhhhhhhhhhhhh"), "{wide}");
            assert!(!wide.trim_start_matches('l').contains('l'), "{wide}");
        }
    }

    #[test]
    fn loss_of_a_radio_link_a_long_path_and_a_low_estimate_alone_move_nobody() {
        let start = Instant::now();
        let mut ladder = Ladder::new(start);
        let second = |estimate: u64, loss: f32, rtt: u64| Second {
            estimate: Some(Bitrate::kbps(estimate)),
            sent: HIGH,
            loss,
            rtt: Some(Duration::from_millis(rtt)),
            dropped: false,
        };
        for (n, seen) in [second(400, 0.03, 600), second(4_000, 0.2, 600), second(300, 0.0, 610)]
            .iter()
            .cycle()
            .take(300)
            .enumerate()
        {
            assert!(!ladder.step(seen, Quality::High, HIGH, start + Duration::from_secs(n as u64)));
        }
    }

    #[test]
    fn another_path_is_tried_soon() {
        let start = Instant::now();
        let mut ladder = Ladder::new(start);
        shown(&mut ladder, start, 0..1, 4_000, 0.0, Duration::ZERO);
        shown(&mut ladder, start, 1..200, 600, 0.3, Duration::ZERO);
        ladder.forget();
        let wide = shown(&mut ladder, start, 200..210, 4_000, 0.0, Duration::ZERO);
        assert!(wide.ends_with("hhhh"), "{wide}");
    }
}
