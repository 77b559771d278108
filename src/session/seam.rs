//! What goes into a session, and what comes out of it.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use str0m::config::DtlsCert;

use super::Transport;
use crate::media::{AccessUnit, Bitrate, Quality, StreamFormat};
use crate::protocol::{Message, PeerId, Playout, Role};

/// What a session starts from.
pub struct Setup<'a> {
    /// Its name: random, unguessable.
    pub id: &'a str,
    /// Whose it is.
    pub peer: PeerId,
    /// What they may do.
    pub role: Role,
    /// The device's DTLS certificate.
    pub certificate: &'a DtlsCert,
    /// What the stream is.
    pub format: StreamFormat,
    /// What the encoder is asked for: where the estimate starts.
    pub bitrate: Bitrate,
    /// What the encoder of the high rung is asked for.
    pub high: Bitrate,
    /// The rung that is shown first.
    pub quality: Quality,
    /// What the viewer prefers.
    pub playout: Playout,
    /// This device's addresses, as host candidates.
    pub locals: &'a [SocketAddr],
    /// The port at each of them where viewers may connect by TCP.
    pub tcp_port: Option<u16>,
    /// Where STUN servers see them.
    pub reflexive: &'a [Reflexive],
    /// Its addresses at TURN servers.
    pub relayed: &'a [Relayed],
}

/// An address of ours as a STUN server sees it, behind address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflexive {
    /// Where viewers send to.
    pub address: SocketAddr,
    /// Where what they send arrives, and what is sent to them leaves.
    pub base: SocketAddr,
}

/// An address of ours at a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Where viewers send to.
    pub address: SocketAddr,
    /// Which of several is to be taken: the highest.
    pub preference: u16,
}

/// What can happen to a session.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Bytes from the network: by what, from whom, to which of our addresses.
    Datagram {
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &'a [u8],
    },
    /// The time from [`super::Session::deadline`] has come.
    Timeout,
    /// A picture to send; `backlog` more wait behind it.
    Picture {
        unit: &'a AccessUnit,
        payloads: &'a [std::sync::Arc<[u8]>],
        backlog: u64,
    },
    /// A message for the viewer's data channel.
    Message(&'a Message),
    /// Candidates of the viewer.
    Candidates(&'a [String]),
    /// New addresses of this device.
    AddressesAdded(&'a [SocketAddr]),
    /// It has these no longer.
    AddressesGone(&'a [SocketAddr]),
    /// A STUN server sees this device.
    ReflexiveAdded(Reflexive),
    /// None sees it there any more.
    ReflexiveGone(Reflexive),
    /// A TURN server lends this device an address.
    RelayedAdded(Relayed),
    /// It does no longer.
    RelayedGone(Relayed),
}

/// What a session tells its driver.
#[derive(Debug)]
pub enum Event {
    /// Media can flow.
    Connected,
    /// The viewer can't go on without a key frame (PLI or FIR).
    KeyFrameWanted,
    /// The viewer said something on the data channel.
    Message(Message),
    /// New local candidates to trickle.
    Candidates(Vec<String>),
    /// The best rung that the path carries is another one.
    Carries(Quality),
    /// It is over. The reason is a sentence.
    Closed(String),
}

/// The relation of this machine's two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock at that moment.
    pub wall: SystemTime,
}

impl WallClock {
    /// The wall clock's time at `instant`.
    #[must_use]
    pub fn at(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.wall + later,
            None => self.wall - self.instant.duration_since(instant),
        }
    }

    pub(super) fn unix_ms(&self, instant: Instant) -> f64 {
        self.at(instant)
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
    }
}
