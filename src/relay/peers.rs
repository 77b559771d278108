//! Whom the server lets speak to us: permissions by IP address, and channels by address and port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::transaction::Ask;

/// Permissions last 300 s and channels 600 s by RFC 8656 (3.3, 12), but a server may be set otherwise, and does not say so. What is in use
/// is asked for again after so long, which costs two small packets.
const RENEW: Duration = Duration::from_secs(25);
/// Who was neither heard of nor spoken to for so long is not kept any more.
const FORGET: Duration = Duration::from_secs(60);
/// After a refusal the server is not asked again for so long.
const REFUSED: Duration = Duration::from_secs(30);
/// Addresses known at once: several for each of a hundred viewers. One more takes the place of who was silent for longest.
pub const MAX_ADDRESSES: usize = 512;
/// RFC 8656, 12.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4fff;

/// Permissions and channels of one allocation.
#[derive(Debug, Default)]
pub struct Peers {
    permissions: HashMap<IpAddr, Permission>,
    channels: HashMap<SocketAddr, Channel>,
    /// Every number that was given in this allocation.
    by_number: HashMap<u16, SocketAddr>,
    /// How many numbers were given so far.
    given: u16,
    /// Whether the server has to be asked for something at once.
    unasked: bool,
}

#[derive(Debug)]
struct Permission {
    used: Instant,
    state: Grant,
}

#[derive(Debug)]
struct Channel {
    number: u16,
    used: Instant,
    state: Grant,
}

/// How far the server has gone along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    /// It has to be asked.
    Unasked,
    /// Its answer is waited for. `before`: it was there already, and is being renewed.
    Asked {
        before: bool,
    },
    Granted {
        at: Instant,
    },
    Refused {
        at: Instant,
    },
}

impl Grant {
    fn is_due(self, now: Instant) -> bool {
        match self {
            Self::Unasked => true,
            Self::Asked { .. } => false,
            Self::Granted { at } => now >= at + RENEW,
            Self::Refused { at } => now >= at + REFUSED,
        }
    }

    fn due(self) -> Option<Instant> {
        match self {
            Self::Unasked | Self::Asked { .. } => None,
            Self::Granted { at } => Some(at + RENEW),
            Self::Refused { at } => Some(at + REFUSED),
        }
    }

    fn ask(&mut self) {
        *self = Self::Asked { before: self.is_granted() };
    }

    fn is_granted(self) -> bool {
        matches!(self, Self::Granted { .. } | Self::Asked { before: true })
    }
}

impl Peers {
    /// Lets `ip` speak to us, from the server's next answer on.
    pub fn permit(&mut self, ip: IpAddr, now: Instant) {
        if let Some(known) = self.permissions.get_mut(&ip) {
            known.used = now;
            return;
        }
        if self.permissions.len() >= MAX_ADDRESSES
            && let Some(oldest) = self.permissions.iter().min_by_key(|(_, known)| known.used).map(|(ip, _)| *ip)
        {
            self.permissions.remove(&oldest);
        }
        self.permissions.insert(
            ip,
            Permission {
                used: now,
                state: Grant::Unasked,
            },
        );
        self.unasked = true;
    }

    /// Whether the server was asked to let `ip` speak to us, and has not refused.
    pub fn is_permitted(&self, ip: IpAddr) -> bool {
        let known = self.permissions.get(&ip);
        known.is_some_and(|known| matches!(known.state, Grant::Asked { .. } | Grant::Granted { .. }))
    }

    /// The channel to `peer`, once it is bound; asks for one at the first time.
    pub fn speak(&mut self, peer: SocketAddr, now: Instant) -> Option<u16> {
        self.permit(peer.ip(), now);
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.used = now;
            return channel.state.is_granted().then_some(channel.number);
        }
        let number = self.number_for(peer)?;
        if self.channels.len() < MAX_ADDRESSES {
            self.by_number.insert(number, peer);
            self.channels.insert(
                peer,
                Channel {
                    number,
                    used: now,
                    state: Grant::Unasked,
                },
            );
            self.unasked = true;
        }
        None
    }

    /// The server holds on to a number and its peer for minutes longer than we use them, so each keeps the other (RFC 8656, 12.3). Where
    /// all are given, later peers go without a channel.
    fn number_for(&mut self, peer: SocketAddr) -> Option<u16> {
        if let Some((number, _)) = self.by_number.iter().find(|(_, known)| **known == peer) {
            return Some(*number);
        }
        let number = CHANNELS.start() + self.given;
        self.given += u16::from(CHANNELS.contains(&number));
        CHANNELS.contains(&number).then_some(number)
    }

    /// Who speaks on a channel.
    pub fn behind(&mut self, number: u16, now: Instant) -> Option<SocketAddr> {
        let peer = *self.by_number.get(&number)?;
        if let Some(channel) = self.channels.get_mut(&peer) {
            channel.used = now;
        }
        self.heard(peer.ip(), now);
        Some(peer)
    }

    /// Somebody at `ip` has spoken.
    pub fn heard(&mut self, ip: IpAddr, now: Instant) {
        if let Some(known) = self.permissions.get_mut(&ip) {
            known.used = now;
        }
    }

    /// What the server has to be asked for now, at most `room` of it; it counts as asked.
    pub fn ask(&mut self, now: Instant, room: usize) -> Vec<Ask> {
        self.forget(now);
        let mut asks = Vec::new();
        for (ip, known) in &mut self.permissions {
            if asks.len() < room && known.state.is_due(now) {
                known.state.ask();
                asks.push(Ask::Permission(*ip));
            }
        }
        for (peer, channel) in &mut self.channels {
            if asks.len() < room && channel.state.is_due(now) {
                channel.state.ask();
                asks.push(Ask::Channel(*peer, channel.number));
            }
        }
        // With no room left there may be more.
        self.unasked &= asks.len() >= room;
        asks
    }

    /// When [`Peers::ask`] will have something, but for what has to be asked at once.
    pub fn deadline(&self) -> Option<Instant> {
        let permissions = self.permissions.values().map(|known| known.state);
        let channels = self.channels.values().map(|channel| channel.state);
        permissions.chain(channels).filter_map(Grant::due).min()
    }

    /// Whether there is something to ask at once.
    pub fn has_unasked(&self) -> bool {
        self.unasked
    }

    /// The server's answer.
    pub fn answered(&mut self, ask: Ask, granted: bool, now: Instant) {
        let state = if granted {
            Grant::Granted { at: now }
        } else {
            Grant::Refused { at: now }
        };
        match ask {
            Ask::Permission(ip) => {
                if let Some(known) = self.permissions.get_mut(&ip) {
                    known.state = state;
                }
            }
            Ask::Channel(peer, _) => {
                if let Some(channel) = self.channels.get_mut(&peer) {
                    channel.state = state;
                }
            }
            Ask::Allocate | Ask::Refresh | Ask::Free => {}
        }
    }

    /// The allocation is another one: whom we want to hear stays, but the server knows nobody.
    pub fn start_anew(&mut self) {
        self.channels.clear();
        self.by_number.clear();
        self.given = 0;
        for known in self.permissions.values_mut() {
            known.state = Grant::Unasked;
        }
        self.unasked = true;
    }

    fn forget(&mut self, now: Instant) {
        self.permissions
            .retain(|_, known| now < known.used + FORGET || matches!(known.state, Grant::Asked { .. }));
        self.channels
            .retain(|_, channel| now < channel.used + FORGET || matches!(channel.state, Grant::Asked { .. }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u16) -> SocketAddr {
        let [a, b] = last.to_be_bytes();
        SocketAddr::from(([192, 0, a, b], 1000 + last))
    }

    #[test]
    fn whoever_is_spoken_to_is_asked_for_once_renewed_while_in_use_and_then_forgotten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut peers = Peers::default();
        assert_eq!(peers.speak(peer(1), start), None);
        assert!(peers.has_unasked());
        let asks = peers.ask(start, 10);
        assert_eq!(asks, [Ask::Permission(peer(1).ip()), Ask::Channel(peer(1), 0x4000)]);
        assert!(peers.ask(at(20), 10).is_empty(), "its answer is waited for");
        for ask in asks {
            peers.answered(ask, true, at(1));
        }
        assert_eq!(peers.speak(peer(1), at(2)), Some(0x4000));
        assert_eq!(peers.deadline(), Some(at(1) + RENEW));
        peers.speak(peer(1), at(20));
        let renewed = peers.ask(at(30), 10);
        assert_eq!(renewed.len(), 2);
        assert_eq!(peers.speak(peer(1), at(30)), Some(0x4000), "it works on while it is renewed");
        for ask in renewed {
            peers.answered(ask, true, at(30));
        }
        assert_eq!(peers.behind(0x4000, at(40)), Some(peer(1)));
        assert!(peers.ask(at(200), 10).is_empty(), "nobody speaks any more");
        assert!(!peers.is_permitted(peer(1).ip()));
        assert_eq!(peers.deadline(), None);
        peers.speak(peer(2), at(201));
        peers.speak(peer(1), at(201));
        let numbers: Vec<_> = peers
            .ask(at(201), 10)
            .into_iter()
            .filter(|ask| matches!(ask, Ask::Channel(..)))
            .collect();
        assert!(numbers.contains(&Ask::Channel(peer(1), 0x4000)) && numbers.contains(&Ask::Channel(peer(2), 0x4001)));
    }

    #[test]
    fn a_refusal_concerns_one_peer_alone_and_is_looked_at_again_later() {
        let start = Instant::now();
        let mut peers = Peers::default();
        peers.permit(peer(1).ip(), start);
        peers.permit(peer(2).ip(), start);
        for ask in peers.ask(start, 10) {
            peers.answered(ask, ask == Ask::Permission(peer(2).ip()), start);
        }
        assert!(!peers.is_permitted(peer(1).ip()) && peers.is_permitted(peer(2).ip()));
        peers.permit(peer(1).ip(), start + REFUSED);
        assert!(peers.ask(start + REFUSED, 10).contains(&Ask::Permission(peer(1).ip())));
    }

    #[test]
    fn no_number_of_peers_takes_more_than_the_bound() {
        let start = Instant::now();
        let mut peers = Peers::default();
        for n in 0..2_000 {
            peers.speak(peer(n), start + Duration::from_millis(u64::from(n)));
        }
        assert_eq!((peers.permissions.len(), peers.channels.len()), (MAX_ADDRESSES, MAX_ADDRESSES));
        assert!(peers.permissions.contains_key(&peer(1_999).ip()), "the newest are kept");
    }

    #[test]
    fn a_new_allocation_knows_whom_to_permit_and_no_channel() {
        let start = Instant::now();
        let mut peers = Peers::default();
        peers.speak(peer(1), start);
        for ask in peers.ask(start, 10) {
            peers.answered(ask, true, start);
        }
        peers.start_anew();
        assert_eq!(peers.ask(start, 10), [Ask::Permission(peer(1).ip())]);
        assert_eq!(peers.behind(0x4000, start), None);
    }
}
