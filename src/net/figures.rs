//! What the drivers count, and how their viewers' paths are: asked for with [`super::Drivers::figures`].

use std::time::Duration;

use super::batch::Sent;
use super::ice_tcp::IceTcpFigures;
use super::latency::Latency;
use super::relays::RelayFigures;
use crate::session::{Counts, Ending};

/// What drivers have counted since they were started. No address and no viewer's name is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub traffic: Traffic,
    pub counted: Counted,
    /// Sessions that ended, in the order of [`Ending::ALL`].
    pub closed: [u64; Ending::ALL.len()],
    /// Of all sessions, those that have ended included.
    pub sessions: Counts,
    /// Sessions now, for each rung of each stream in the order of the configuration.
    pub viewers: Vec<u64>,
    /// How old pictures were when they were sent, for each rung in the same order.
    pub latencies: Vec<Latency>,
    /// Bytes a second that the paths of viewers are believed to carry, of those where that is known.
    pub estimates: Vec<f64>,
    /// Round trip times in seconds, the same way.
    pub rtts: Vec<f64>,
    /// Shares of packets lost in the last second, 0 to 1, the same way.
    pub losses: Vec<f64>,
    /// Of each TURN server, with its URL, in the order of the configuration.
    pub relays: Vec<(String, RelayFigures)>,
    /// How many of this device's addresses each STUN server has told, by its URL.
    pub mappings: Vec<(String, u64)>,
}

impl Figures {
    /// Adds what another driver of the same agent has counted.
    pub fn add(&mut self, other: Self) {
        let Self {
            traffic,
            counted,
            closed,
            sessions,
            viewers,
            latencies,
            estimates,
            rtts,
            losses,
            relays,
            mappings,
        } = other;
        self.traffic.add(&traffic);
        self.counted.add(&counted);
        for (sum, count) in self.closed.iter_mut().zip(closed) {
            *sum += count;
        }
        self.sessions.add(&sessions);
        self.viewers.resize(viewers.len().max(self.viewers.len()), 0);
        for (sum, count) in self.viewers.iter_mut().zip(viewers) {
            *sum += count;
        }
        self.latencies.resize(latencies.len().max(self.latencies.len()), Latency::default());
        for (sum, latency) in self.latencies.iter_mut().zip(&latencies) {
            sum.add(latency);
        }
        self.estimates.extend(estimates);
        self.rtts.extend(rtts);
        self.losses.extend(losses);
        for (url, told) in mappings {
            *of_server(&mut self.mappings, url) += told;
        }
        for (url, figures) in relays {
            of_server(&mut self.relays, url).add(&figures);
        }
    }
}

/// What is known of the server with this URL; so far nothing, if it is new.
fn of_server<T: Default>(servers: &mut Vec<(String, T)>, url: String) -> &mut T {
    let index = servers.iter().position(|(known, _)| *known == url).unwrap_or_else(|| {
        servers.push((url, T::default()));
        servers.len() - 1
    });
    &mut servers[index].1
}

/// The sockets' side. It rises only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent: Sent,
    /// System calls that received at least one datagram.
    pub receive_calls: u64,
    pub ice_tcp: IceTcpFigures,
    /// Processor time of the threads.
    pub busy: Duration,
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        let Self {
            sent: Sent { datagrams, calls, dropped },
            receive_calls,
            ice_tcp,
            busy,
        } = other;
        self.sent.datagrams += datagrams;
        self.sent.calls += calls;
        self.sent.dropped += dropped;
        self.receive_calls += receive_calls;
        self.ice_tcp.add(ice_tcp);
        self.busy += *busy;
    }
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

impl Counted {
    fn add(&mut self, other: &Self) {
        let Self {
            datagrams,
            unclaimed,
            opened,
            connected,
            restarted,
            notices_dropped,
            addresses_refused,
            turns_cut,
        } = other;
        self.datagrams += datagrams;
        self.unclaimed += unclaimed;
        self.opened += opened;
        self.connected += connected;
        self.restarted += restarted;
        self.notices_dropped += notices_dropped;
        self.addresses_refused += addresses_refused;
        self.turns_cut += turns_cut;
    }
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
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
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
        assert_eq!(Spread::of(&[]), None);
        let one = Spread::of(&[0.5]).expect("a value");
        assert_eq!((one.min, one.median, one.max), (0.5, 0.5, 0.5));
        let many = Spread::of(&[9.0, 1.0, 2.0, 3.0]).expect("values");
        assert_eq!((many.min, many.median, many.max), (1.0, 3.0, 9.0));
    }
}
