//! The TURN servers of a driver: what they lend this device an address for, and how datagrams find their way through them.
//!
//! There is one allocation on each server, for all viewers of the driver. It is made when a viewer comes, and given back when there was none
//! for a while. No server is ever waited for.

mod prepare;
mod way;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFd;
use rustix::fd::OwnedFd;

use self::way::Way;
use crate::config::{IceServer, Listen, MAX_RELAYS, TurnUrl};
use crate::relay::Credentials;
use crate::session::{Relayed, WallClock};

/// So long after the last viewer the servers are kept: one who comes back finds its relay ready.
const LINGER: Duration = Duration::from_secs(60);
/// Addresses that were ours at servers and are no more: what is still sent from one is dropped, and not sent from another.
const MAX_FORMER: usize = 64;
/// Addresses of one viewer's message that servers are told of.
const MAX_PERMITS: usize = 32;

/// A TURN server of the configuration, by one transport.
#[derive(Clone, Debug)]
pub struct Server {
    pub turn: TurnUrl,
    pub credentials: Credentials,
    pub ca_file: Option<PathBuf>,
}

impl Server {
    /// The TURN servers among those that viewers are told of.
    #[must_use]
    pub fn all(ice_servers: &[IceServer]) -> Vec<Self> {
        let each = ice_servers.iter().flat_map(|server| {
            let credentials = credentials(server);
            let own = |turn: &TurnUrl| {
                Some(Self {
                    turn: turn.clone(),
                    credentials: credentials.clone()?,
                    ca_file: server.ca_file.clone(),
                })
            };
            server.turn.iter().filter_map(own).collect::<Vec<_>>()
        });
        each.take(MAX_RELAYS).collect()
    }
}

/// How long a password is good that is made from a shared secret. A relay that is refreshed may ask for it again as long.
const PASSWORD_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// Who we, and viewers, are to a server; `None` where it asks nobody.
#[must_use]
pub fn credentials(server: &IceServer) -> Option<Credentials> {
    if let Some(secret) = &server.shared_secret {
        return Some(Credentials::Shared {
            secret: secret.reveal().to_owned(),
            name: server.username.clone().unwrap_or_else(|| "peercam".into()),
            lifetime: PASSWORD_LIFETIME,
        });
    }
    let (username, password) = server.username.clone().zip(server.credential.as_ref())?;
    Some(Credentials::Static {
        username,
        password: password.reveal().to_owned(),
    })
}

/// What became of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It relays for us.
    Up(Relayed),
    /// It does not, or no longer.
    Down(Option<Relayed>),
}

/// What was counted of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayFigures {
    /// How many drivers have an address at it.
    pub up: u64,
    pub allocations: u64,
    /// Tries that failed, and allocations that were lost.
    pub failures: u64,
    /// Datagrams to viewers through it.
    pub sent: u64,
    /// Datagrams that found no way or no room.
    pub dropped: u64,
    /// Datagrams of viewers through it.
    pub received: u64,
}

impl RelayFigures {
    /// Adds what another driver has counted of the same server.
    pub fn add(&mut self, other: &Self) {
        let Self {
            up,
            allocations,
            failures,
            sent,
            dropped,
            received,
        } = other;
        self.up += up;
        self.allocations += allocations;
        self.failures += failures;
        self.sent += sent;
        self.dropped += dropped;
        self.received += received;
    }
}

/// All servers of one driver.
pub struct Relays {
    servers: Vec<Server>,
    listen: Listen,
    /// Rung when a preparation is done.
    event: Arc<OwnedFd>,
    /// One for each server while they are wanted; else none.
    ways: Vec<Way>,
    until: Instant,
    former: VecDeque<SocketAddr>,
    changes: Vec<Change>,
    /// What was counted in earlier times, for each server.
    counted: Vec<RelayFigures>,
}

impl Relays {
    /// Those of `servers`, which are not spoken to before somebody watches.
    #[must_use]
    pub fn new(servers: Vec<Server>, listen: Listen, event: Arc<OwnedFd>, now: Instant) -> Self {
        Self {
            counted: vec![RelayFigures::default(); servers.len()],
            servers,
            listen,
            event,
            ways: Vec::new(),
            until: now,
            former: VecDeque::new(),
            changes: Vec::new(),
        }
    }

    /// Somebody watches, or wants to.
    pub fn want(&mut self, clock: &WallClock) {
        self.until = clock.instant + LINGER;
        if self.ways.is_empty() {
            let way = |server: &Server| Way::new(server.clone(), self.listen.clone(), Arc::clone(&self.event), clock.instant);
            self.ways = self.servers.iter().map(way).collect();
        }
    }

    /// Lets whoever is at the addresses of these candidates speak to us, so that no first check is lost.
    pub fn permit<'a>(&mut self, candidates: impl Iterator<Item = &'a str>, clock: &WallClock) {
        if self.ways.is_empty() {
            return;
        }
        for ip in candidates.filter_map(candidate_ip).take(MAX_PERMITS) {
            for way in &mut self.ways {
                way.permit(ip, clock, &mut self.changes);
            }
        }
    }

    /// This machine's addresses may be others now: a way that begins at one that is gone is open no longer, however long its server would be
    /// waited for.
    pub fn moved(&mut self) {
        for way in &mut self.ways {
            way.moved();
        }
    }

    /// Whether `source` is, or was, an address at a server.
    #[must_use]
    pub fn is_relayed(&self, source: SocketAddr) -> bool {
        !self.ways.is_empty() && (self.way(source).is_some() || self.former.contains(&source))
    }

    /// Sends a datagram whose source is an address at a server.
    pub fn send(&mut self, source: SocketAddr, peer: SocketAddr, payload: &[u8], clock: &WallClock) {
        let way = self
            .ways
            .iter_mut()
            .find(|way| way.relayed().is_some_and(|own| own.address == source));
        if let Some(way) = way {
            way.send(peer, payload, clock, &mut self.changes);
        }
    }

    /// Does what is due, and gives `deliver` what viewers have sent: from whom, to which address at a server.
    pub fn turn(&mut self, clock: &WallClock, mut deliver: impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        for way in &mut self.ways {
            way.turn(clock, &mut self.changes, &mut deliver);
        }
        if clock.instant >= self.until && !self.ways.is_empty() {
            self.end(clock);
        }
    }

    /// Gives all allocations back.
    pub fn end(&mut self, clock: &WallClock) {
        for (mut way, counted) in std::mem::take(&mut self.ways).into_iter().zip(&mut self.counted) {
            way.end(clock);
            way.figures.up = 0;
            counted.add(&way.figures);
            self.changes.extend(way.relayed().map(|relayed| Change::Down(Some(relayed))));
        }
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        for change in &self.changes {
            if let Change::Down(Some(relayed)) = change {
                self.former.push_back(relayed.address);
                self.former.drain(..self.former.len().saturating_sub(MAX_FORMER));
            }
        }
        std::mem::take(&mut self.changes)
    }

    /// Those through which no more pictures can go for a moment.
    pub fn full(&self) -> impl Iterator<Item = SocketAddr> {
        let full = self.ways.iter().filter(|way| way.is_full());
        full.filter_map(Way::relayed).map(|relayed| relayed.address)
    }

    /// Whether pictures that had to wait need no longer; told once.
    pub fn have_emptied(&mut self) -> bool {
        // Each is asked, so that none tells it later.
        self.ways.iter_mut().filter_map(|way| way.has_emptied().then_some(())).count() > 0
    }

    /// What stands in the way of every server, in words; `None` while one relays or is being tried for the first time.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.servers.is_empty() {
            let sentence = match self.listen {
                Listen::Loopback => "network.listen is \"loopback\", which reaches viewers on this machine only",
                Listen::All(_) | Listen::Addresses(_) => "no TURN server is configured, which leads around firewalls (docs/turn.md)",
            };
            return Some(sentence.into());
        }
        let mut sentences = Vec::new();
        for way in &self.ways {
            match (way.relayed(), way.trouble()) {
                (None, Some(trouble)) => sentences.push(format!("{}: {trouble}", way.url())),
                (Some(_), _) | (None, None) => return None,
            }
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }

    /// When [`Relays::turn`] has to be called; `now` where it has to be at once.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.ways.iter().any(Way::is_broken) || !self.changes.is_empty() {
            return Some(now);
        }
        let ways = self.ways.iter().map(Way::deadline).min();
        ways.map(|at| at.min(self.until))
    }

    /// What to wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.ways.iter().filter_map(Way::poll_fd)
    }

    /// What was counted, by the servers' URLs.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, RelayFigures)> {
        let now = |index: usize| self.ways.get(index).map(|way| &way.figures);
        let each = self.servers.iter().zip(&self.counted).enumerate();
        each.map(|(index, (server, counted))| {
            let mut sum = counted.clone();
            if let Some(figures) = now(index) {
                sum.add(figures);
            }
            (server.turn.url.clone(), sum)
        })
        .collect()
    }

    fn way(&self, source: SocketAddr) -> Option<&Way> {
        self.ways.iter().find(|way| way.relayed().is_some_and(|own| own.address == source))
    }
}

/// The address in a candidate's line (RFC 8839, 5.1), be it of SDP or by itself; none for names.
fn candidate_ip(line: &str) -> Option<IpAddr> {
    let line = line.trim();
    let rest = line.strip_prefix("a=").unwrap_or(line).strip_prefix("candidate:")?;
    rest.split(' ').nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidates_address_is_found_in_sdp_and_alone() {
        let line = "candidate:1 1 udp 2113929471 203.0.113.100 10100 typ host";
        let ip: IpAddr = "203.0.113.100".parse().expect("an address");
        assert_eq!(candidate_ip(line), Some(ip));
        assert_eq!(candidate_ip(&format!("a={line}\r")), Some(ip));
        for other in ["", "candidate:", "a=ice-ufrag:x", "candidate:1 1 udp 7 b1c2.local 9 typ host"] {
            assert_eq!(candidate_ip(other), None, "{other}");
        }
    }
}
