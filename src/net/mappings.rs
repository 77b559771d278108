//! Where STUN servers see the media sockets of a driver: what viewers in other networks can send to, once this device has sent to them.
//!
//! The servers are asked from the media sockets themselves while somebody watches, and often enough that no address translation forgets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;

use super::preparation::{Preparation, resolve};
use super::socket::Datagram;
use crate::config::{IceServer, StunUrl};
use crate::relay::{Binding, Heard};
use crate::session::{Reflexive, WallClock};

/// So long after the last viewer the servers are asked: one who comes back finds the addresses known.
const LINGER: Duration = Duration::from_secs(60);
/// Servers that are asked: a second one helps where the first is away, a tenth does not.
const MAX_SERVERS: usize = 4;
/// Our addresses that they are asked for.
const MAX_BASES: usize = 8;
/// A name that could not be resolved is tried again after so long.
const RESOLVE_AGAIN: Duration = Duration::from_secs(10);

/// A change of what viewers can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Seen(Reflexive),
    Gone(Reflexive),
}

/// All of a driver.
pub struct Mappings {
    servers: Vec<Server>,
    /// Rung when a name is resolved.
    event: Arc<OwnedFd>,
    /// Until then they are asked; `None`: they are not.
    until: Option<Instant>,
    /// Our addresses that they are asked for.
    bases: Vec<SocketAddr>,
    asked: Vec<Asked>,
    changes: Vec<Change>,
}

struct Server {
    stun: StunUrl,
    place: Place,
    /// Whether the log has told that it does not answer.
    told_silent: bool,
}

enum Place {
    Unknown { again: Instant },
    Resolving(Preparation<Vec<SocketAddr>>),
    Known(Vec<SocketAddr>),
}

/// One of our addresses, as one server sees it.
struct Asked {
    base: SocketAddr,
    server: SocketAddr,
    /// Its place among the servers.
    index: usize,
    binding: Binding,
}

impl Asked {
    /// What a viewer can be told; nothing where no address is translated.
    fn reflexive(&self) -> Option<Reflexive> {
        let address = self.binding.mapped().filter(|mapped| is_translated(*mapped, self.base))?;
        Some(Reflexive { address, base: self.base })
    }
}

fn is_translated(mapped: SocketAddr, base: SocketAddr) -> bool {
    mapped != base && mapped.is_ipv4() == base.is_ipv4()
}

impl Mappings {
    /// Those that `ice_servers` tell, which are not spoken to before somebody watches.
    #[must_use]
    pub fn new(ice_servers: &[IceServer], event: Arc<OwnedFd>, now: Instant) -> Self {
        let mut stuns: Vec<&StunUrl> = Vec::new();
        for stun in ice_servers.iter().flat_map(|server| &server.stun) {
            let known = stuns.iter().any(|known| (&known.host, known.port) == (&stun.host, stun.port));
            if !known && stuns.len() < MAX_SERVERS {
                stuns.push(stun);
            }
        }
        let server = |stun: &StunUrl| Server {
            stun: stun.clone(),
            place: Place::Unknown { again: now },
            told_silent: false,
        };
        Self {
            servers: stuns.into_iter().map(server).collect(),
            event,
            until: None,
            bases: Vec::new(),
            asked: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Somebody watches, or wants to.
    pub fn want(&mut self, clock: &WallClock) {
        if !self.servers.is_empty() {
            self.until = Some(clock.instant + LINGER);
        }
    }

    /// Does what is due, for these addresses of ours. `send` sends from one of them to a server.
    pub fn turn(&mut self, locals: &[SocketAddr], clock: &WallClock, mut send: impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        let Some(until) = self.until else { return };
        if clock.instant >= until {
            self.end(clock.instant);
            return;
        }
        let moved = self.bases != locals;
        if self.resolve(clock.instant) || moved {
            self.bases = locals.to_vec();
            self.pair(clock.instant);
        }
        let mut was_due = false;
        for asked in self.asked.iter_mut().filter(|asked| asked.binding.deadline() <= clock.instant) {
            was_due = true;
            if let Some(bytes) = asked.binding.timeout(clock.instant) {
                send(asked.base, asked.server, &bytes);
            }
        }
        if was_due {
            self.tell_silent();
        }
    }

    /// Takes a datagram if it is a server's answer.
    pub fn take(&mut self, datagram: &Datagram<'_>, now: Instant) -> bool {
        let of_it = |asked: &&mut Asked| asked.server == datagram.source && asked.base == datagram.destination;
        // STUN messages begin with two zero bits, which tells them from DTLS and SRTP (RFC 7983).
        if datagram.bytes.first().is_none_or(|first| *first > 3) {
            return false;
        }
        let Some(asked) = self.asked.iter_mut().find(of_it) else {
            return false;
        };
        let before = asked.reflexive();
        match asked.binding.receive(datagram.bytes, now) {
            Heard::Nothing => return false,
            Heard::Same => {}
            Heard::Moved(mapped) => {
                let (after, url) = (asked.reflexive(), &self.servers[asked.index].stun.url);
                tracing::debug!(server = url, %mapped, base = %asked.base, "a STUN server sees this device");
                self.withdraw(before);
                // Another server may have told it already.
                if let Some(after) = after
                    && self.asked.iter().filter(|asked| asked.reflexive() == Some(after)).count() == 1
                {
                    self.changes.push(Change::Seen(after));
                }
            }
        }
        true
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// When [`Mappings::turn`] has to be called; `now` where it has to be at once.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let until = self.until?;
        if !self.changes.is_empty() {
            return Some(now);
        }
        let names = self.servers.iter().filter_map(|server| match server.place {
            Place::Unknown { again } => Some(again),
            Place::Resolving(_) | Place::Known(_) => None,
        });
        let asked = self.asked.iter().map(|asked| asked.binding.deadline());
        names.chain(asked).min().map(|at| at.min(until)).or(Some(until))
    }

    /// How many addresses each server has told, by the servers' URLs.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, u64)> {
        let told = |index| {
            let of_it = self.asked.iter().filter(|asked| asked.index == index);
            of_it.filter(|asked| asked.binding.mapped().is_some()).count() as u64
        };
        let each = self.servers.iter().enumerate();
        each.map(|(index, server)| (server.stun.url.clone(), told(index))).collect()
    }

    /// Whether an address has become known.
    fn resolve(&mut self, now: Instant) -> bool {
        let mut known = false;
        for server in &mut self.servers {
            let done = match &server.place {
                Place::Known(_) => continue,
                Place::Unknown { again } if *again > now => continue,
                Place::Unknown { .. } => match server.stun.host.parse() {
                    Ok(ip) => Some(Ok(vec![SocketAddr::new(ip, server.stun.port)])),
                    Err(_) => {
                        let StunUrl { host, port, .. } = server.stun.clone();
                        match Preparation::begin(&self.event, move || resolve(&host, port)) {
                            Ok(preparation) => {
                                server.place = Place::Resolving(preparation);
                                continue;
                            }
                            Err(reason) => Some(Err(reason)),
                        }
                    }
                },
                Place::Resolving(preparation) => preparation.done(),
            };
            match done {
                None => {}
                Some(Ok(addresses)) => {
                    server.place = Place::Known(first_of_each_family(&addresses));
                    known = true;
                }
                Some(Err(reason)) => {
                    server.say(&reason);
                    server.place = Place::Unknown {
                        again: now + RESOLVE_AGAIN,
                    };
                }
            }
        }
        known
    }

    /// Asks for what is not asked for yet, and lets go of what is no more.
    fn pair(&mut self, now: Instant) {
        let bases: Vec<SocketAddr> = self.bases.iter().copied().take(MAX_BASES).collect();
        let gone: Vec<Asked> = self.asked.extract_if(.., |asked| !bases.contains(&asked.base)).collect();
        for asked in gone {
            self.withdraw(asked.reflexive());
        }
        for (index, server) in self.servers.iter().enumerate() {
            let Place::Known(addresses) = &server.place else { continue };
            for address in addresses {
                // From this machine's own loopback no packet gets anywhere else.
                let fits =
                    |base: &&SocketAddr| base.is_ipv4() == address.is_ipv4() && (!base.ip().is_loopback() || address.ip().is_loopback());
                for base in bases.iter().filter(fits) {
                    let known = self.asked.iter().any(|asked| (asked.base, asked.server) == (*base, *address));
                    if !known {
                        self.asked.push(Asked {
                            base: *base,
                            server: *address,
                            index,
                            binding: Binding::new(now),
                        });
                    }
                }
            }
        }
    }

    /// A viewer is told that an address is gone when no server sees us there any more.
    fn withdraw(&mut self, reflexive: Option<Reflexive>) {
        if let Some(gone) = reflexive
            && !self.asked.iter().any(|asked| asked.reflexive() == Some(gone))
        {
            self.changes.push(Change::Gone(gone));
        }
    }

    fn tell_silent(&mut self) {
        for (index, server) in self.servers.iter_mut().enumerate() {
            let mut of_it = self.asked.iter().filter(|asked| asked.index == index).peekable();
            if of_it.peek().is_none() {
                continue;
            }
            if of_it.all(|asked| asked.binding.is_silent()) {
                server.say("it does not answer");
            } else {
                server.told_silent = false;
            }
        }
    }

    fn end(&mut self, now: Instant) {
        self.until = None;
        for asked in std::mem::take(&mut self.asked) {
            self.withdraw(asked.reflexive());
        }
        for server in &mut self.servers {
            // Until somebody watches again its name may lead elsewhere.
            server.place = Place::Unknown { again: now };
        }
        self.bases.clear();
    }
}

impl Server {
    /// Says what is wrong with it, once until it is well again.
    fn say(&mut self, trouble: &str) {
        if !std::mem::replace(&mut self.told_silent, true) {
            tracing::warn!(
                server = self.stun.url,
                "the STUN server can't be used: {trouble}; viewers in other networks may need a relay"
            );
        }
    }
}

fn first_of_each_family(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let v6 = addresses.iter().find(|address| address.is_ipv6());
    v4.into_iter().chain(v6).copied().collect()
}
