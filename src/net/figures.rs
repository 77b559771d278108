//! What the driver counts, and how its viewers' paths are: asked for with [`super::Command::Figures`].

use super::batch::Sent;
use crate::session::{Counts, Ending};

/// What a driver has counted since it was started. No address and no viewer's name is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub traffic: Traffic,
    pub counted: Counted,
    /// Sessions that ended, in the order of [`Ending::ALL`].
    pub closed: [u64; Ending::ALL.len()],
    /// Of all sessions, those that have ended included.
    pub sessions: Counts,
    /// Sessions now, for each stream in the order of the configuration.
    pub viewers: Vec<u64>,
    /// Bytes a second that the viewers' paths are believed to carry.
    pub estimate: Option<Spread>,
    /// Round trip time in seconds.
    pub rtt: Option<Spread>,
    /// Share of packets lost in the last second, 0 to 1.
    pub loss: Option<Spread>,
}

/// The sockets' side. It rises only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent: Sent,
    /// System calls that received at least one datagram.
    pub receive_calls: u64,
}

/// The sessions' side. It rises only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub datagrams: u64,
    /// Datagrams of no session: rubbish, a viewer that is gone, an attacker.
    pub unclaimed: u64,
    pub opened: u64,
    pub connected: u64,
    /// ICE restarts.
    pub restarted: u64,
    /// Notices to the rest of the agent that found their queue full.
    pub notices_dropped: u64,
    /// Addresses of a viewer that were not remembered because it had too many.
    pub addresses_refused: u64,
    /// How often a session had more to do than one turn allows.
    pub turns_cut: u64,
}

/// Of the viewers who have such a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// `None` without values. Of an even number of values the median is the higher of the two in the middle.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: *values.get(values.len() / 2)?,
            max: *values.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_nothing_is_nothing() {
        assert_eq!(Spread::of([].into_iter()), None);
        let one = Spread::of([0.5].into_iter()).expect("a value");
        assert_eq!((one.min, one.median, one.max), (0.5, 0.5, 0.5));
        let many = Spread::of([9.0, 1.0, 2.0, 3.0].into_iter()).expect("values");
        assert_eq!((many.min, many.median, many.max), (1.0, 3.0, 9.0));
    }
}
