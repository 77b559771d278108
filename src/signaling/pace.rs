//! How fast one peer may speak: a client that asks without end must not fill the queue to the broker for all others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::protocol::PeerId;

/// What one message costs: 32 a second in the long run. A viewer says a dozen in its first second and then next to nothing.
const COST: Duration = Duration::from_micros(31_250);

/// What a peer may owe: 32 messages at once. Their replies fit into the queue to the broker.
const CREDIT: Duration = Duration::from_secs(1);

/// Peers that are remembered while they owe anything. Beyond that nobody new is held back.
const MAX_PEERS: usize = 256;

/// What to do with a peer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deal with it.
    Take,
    /// Tell the peer that it asks too fast.
    Refuse,
    /// It has been told; don't spend a reply on it.
    Ignore,
}

/// What each peer owes: the generic cell rate algorithm (ITU-T I.371), one instant a peer.
#[derive(Debug, Default)]
pub struct Pace {
    paid_at: HashMap<PeerId, Instant>,
    full: bool,
}

impl Pace {
    /// Decides about one message of `peer` that came at `now`.
    pub fn admit(&mut self, peer: &PeerId, now: Instant) -> Verdict {
        let paid_at = self.paid_at.get(peer).copied().unwrap_or(now).max(now);
        let debt = paid_at.saturating_duration_since(now);
        let verdict = if debt < CREDIT {
            Verdict::Take
        } else if debt < CREDIT + COST {
            Verdict::Refuse
        } else {
            return Verdict::Ignore;
        };
        if self.paid_at.len() >= MAX_PEERS && !self.paid_at.contains_key(peer) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        self.full = self.paid_at.len() >= MAX_PEERS && !self.paid_at.contains_key(peer);
        if !self.full {
            self.paid_at.insert(peer.clone(), paid_at + COST);
        }
        verdict
    }

    /// Whether the last message taken was of a peer that could not be remembered.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::parse(name).expect("a name")
    }

    #[test]
    fn a_burst_is_taken_then_refused_once_then_ignored_until_time_has_passed() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let [alice, mallory] = ["alice", "mallory"].map(peer);
        let verdicts: Vec<Verdict> = (0..10_000).map(|_| pace.admit(&mallory, now)).collect();
        assert!(verdicts[..32].iter().all(|verdict| *verdict == Verdict::Take));
        assert_eq!(verdicts[32], Verdict::Refuse);
        assert!(verdicts[33..].iter().all(|verdict| *verdict == Verdict::Ignore));
        assert_eq!(pace.admit(&alice, now), Verdict::Take, "another peer's burst costs alice nothing");

        assert_eq!(
            pace.admit(&mallory, now + 2 * COST),
            Verdict::Take,
            "what is ignored costs nothing either"
        );
        assert_eq!(pace.admit(&mallory, now + Duration::from_secs(60)), Verdict::Take);
    }

    #[test]
    fn thirty_two_messages_a_second_are_never_held_back() {
        let (mut pace, start, alice) = (Pace::default(), Instant::now(), peer("alice"));
        for number in 0..1_000 {
            assert_eq!(pace.admit(&alice, start + number * COST), Verdict::Take);
        }
    }

    #[test]
    fn any_number_of_names_fills_no_memory() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for number in 0..10_000 {
            assert_eq!(pace.admit(&peer(&format!("tab-{number}")), now), Verdict::Take);
        }
        assert!(pace.paid_at.len() <= MAX_PEERS);
        assert!(pace.is_full(), "who comes now is not held back");
        assert_eq!(pace.admit(&peer("late"), now + CREDIT), Verdict::Take);
        assert_eq!(pace.paid_at.len(), 1, "those who owe nothing are forgotten");
        assert!(!pace.is_full());
    }
}
