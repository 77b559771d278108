//! One TURN server by one transport: its client, and the socket that leads there.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;

use super::super::interfaces::{Own, is_ours};
use super::super::preparation::Preparation;
use super::super::stream::{Stream, about_io};
use super::prepare::{Prepared, at_once, prepare};
use super::{Change, RelayFigures, Server};
use crate::config::{Interfaces, Listen, TurnTransport};
use crate::relay::{self, Family, Input, Output, Relay, Settings, Trouble};
use crate::session::{Relayed, WallClock};

/// The longest datagram that a server passes on, with room.
const DATAGRAM_BYTES: usize = 4_096;
/// Datagrams of one server in a turn, so that it leaves the others theirs.
const DATAGRAMS_A_TURN: usize = 256;
/// A server that stays away says so in the log this often.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// A server, while somebody watches.
pub struct Way {
    server: Server,
    listen: Listen,
    event: Arc<OwnedFd>,
    relay: Relay,
    /// Of the address that is asked for.
    family: Family,
    carrier: Carrier,
    up: Option<Relayed>,
    trouble: Option<Trouble>,
    said: Option<(Trouble, Instant)>,
    /// What the socket said while something was sent.
    broke: Option<String>,
    pub figures: RelayFigures,
    scratch: Vec<u8>,
}

enum Carrier {
    None,
    Preparing(Preparation<Prepared>),
    Udp(UdpSocket),
    Stream {
        stream: Box<Stream>,
        opened: bool,
        /// The server's other addresses, if this one is no good.
        others: Prepared,
    },
}

impl Way {
    pub fn new(server: Server, listen: Listen, event: Arc<OwnedFd>, now: Instant) -> Self {
        Self {
            relay: client(&server, Family::V4, now),
            family: Family::V4,
            server,
            listen,
            event,
            carrier: Carrier::None,
            up: None,
            trouble: None,
            said: None,
            broke: None,
            figures: RelayFigures::default(),
            scratch: Vec::new(),
        }
    }

    /// The address at the server, while there is one.
    pub fn relayed(&self) -> Option<Relayed> {
        self.up
    }

    /// Why there is no address.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// What the configuration calls the server.
    pub fn url(&self) -> &str {
        &self.server.turn.url
    }

    /// When [`Way::turn`] has to be called.
    pub fn deadline(&self) -> Instant {
        self.relay.deadline().0
    }

    /// Whether there is something to do at once.
    pub fn is_broken(&self) -> bool {
        self.broke.is_some()
    }

    /// What to wait for.
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        match &self.carrier {
            Carrier::None | Carrier::Preparing(_) => None,
            Carrier::Udp(socket) => Some(PollFd::new(socket, PollFlags::IN)),
            Carrier::Stream { stream, .. } => Some(PollFd::new(stream.socket(), stream.interest())),
        }
    }

    /// Whether pictures had better wait.
    pub fn is_full(&self) -> bool {
        match &self.carrier {
            Carrier::Stream { stream, .. } => stream.is_full(),
            Carrier::None | Carrier::Preparing(_) | Carrier::Udp(_) => false,
        }
    }

    /// Whether they had to, and need no longer; told once.
    pub fn has_emptied(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Stream { stream, .. } => stream.has_emptied(),
            Carrier::None | Carrier::Preparing(_) | Carrier::Udp(_) => false,
        }
    }

    /// This machine's addresses may be others now.
    pub fn moved(&mut self) {
        let own = match &self.carrier {
            Carrier::Udp(socket) => socket.local_addr(),
            Carrier::Stream { stream, .. } => stream.socket().local_addr(),
            Carrier::None | Carrier::Preparing(_) => return,
        };
        if own.is_ok_and(|own| !is_ours(own.ip())) {
            self.broke = Some("this device has another address now".into());
        }
    }

    /// Lets whoever is at `ip` speak to us.
    pub fn permit(&mut self, ip: IpAddr, clock: &WallClock, changes: &mut Vec<Change>) {
        self.relay.permit(ip, clock.instant);
        self.drain(clock, changes);
    }

    /// Sends `payload` to `peer`, by way of the server.
    pub fn send(&mut self, peer: SocketAddr, payload: &[u8], clock: &WallClock, changes: &mut Vec<Change>) {
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        let sent = self.relay.send(peer, payload, clock.instant, &mut message);
        // A request for the permission goes first.
        self.drain(clock, changes);
        let sent = sent.is_ok() && self.put(&message);
        self.figures.sent += u64::from(sent);
        self.figures.dropped += u64::from(!sent);
        self.scratch = message;
    }

    /// Gives the allocation back, as far as that can be done at once.
    pub fn end(&mut self, clock: &WallClock) {
        self.relay.end(clock.instant);
        while let Some(output) = self.relay.poll() {
            if let Output::Send(bytes) = output {
                self.put(&bytes);
            }
        }
        if let Carrier::Stream { stream, .. } = &mut self.carrier {
            let _ = stream.send();
        }
    }

    /// Does what is due, and gives `deliver` what peers have sent: from whom, to which relayed address.
    pub fn turn(&mut self, clock: &WallClock, changes: &mut Vec<Change>, deliver: &mut impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        if let Carrier::Preparing(preparation) = &self.carrier
            && let Some(result) = preparation.done()
        {
            self.carrier = Carrier::None;
            match result {
                Ok(prepared) => self.connect(prepared, clock),
                Err(reason) => self.relay.handle(Input::Closed { reason: &reason }, clock.instant),
            }
        }
        if let Some(reason) = self.broke.take() {
            self.relay.handle(Input::Closed { reason: &reason }, clock.instant);
        }
        self.receive(clock, deliver);
        if self.relay.deadline().0 <= clock.instant {
            self.relay.handle(Input::Timeout, clock.instant);
        }
        self.drain(clock, changes);
        self.flush(clock);
        self.drain(clock, changes);
    }

    fn receive(&mut self, clock: &WallClock, deliver: &mut impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        let Self {
            relay,
            carrier,
            figures,
            up,
            ..
        } = self;
        let mut to_us = |peer: SocketAddr, payload: &[u8]| {
            if let Some(relayed) = up {
                figures.received += 1;
                deliver(peer, relayed.address, payload);
            }
        };
        match carrier {
            Carrier::None | Carrier::Preparing(_) => {}
            Carrier::Udp(socket) => {
                let mut bytes = [0; DATAGRAM_BYTES];
                for _ in 0..DATAGRAMS_A_TURN {
                    match socket.recv(&mut bytes) {
                        Ok(length) => relay.receive(&bytes[..length], clock.instant, &mut to_us),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Err(error) => {
                            let reason = about_io(&error);
                            return relay.handle(Input::Closed { reason: &reason }, clock.instant);
                        }
                    }
                }
            }
            Carrier::Stream { stream, opened, .. } => {
                let ended = stream.receive(|bytes| relay.receive(bytes, clock.instant, &mut to_us));
                if ended.is_ok() && stream.is_open() && !std::mem::replace(opened, true) {
                    relay.handle(Input::Opened { wall: clock.wall }, clock.instant);
                }
                if let Err(reason) = ended {
                    self.broken(&reason, clock);
                }
            }
        }
    }

    fn flush(&mut self, clock: &WallClock) {
        if let Carrier::Stream { stream, .. } = &mut self.carrier
            && let Err(reason) = stream.send()
        {
            self.broken(&reason, clock);
        }
    }

    /// A stream is over. Before it was open another address of the server may do.
    fn broken(&mut self, reason: &str, clock: &WallClock) {
        match std::mem::replace(&mut self.carrier, Carrier::None) {
            Carrier::Stream { opened: false, others, .. } if !others.addresses.is_empty() => self.connect(others, clock),
            Carrier::None | Carrier::Preparing(_) | Carrier::Udp(_) | Carrier::Stream { .. } => {
                self.relay.handle(Input::Closed { reason }, clock.instant);
            }
        }
    }

    /// Does what the client wants, until it wants nothing.
    fn drain(&mut self, clock: &WallClock, changes: &mut Vec<Change>) {
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Open => self.open(clock),
                Output::Close => self.carrier = Carrier::None,
                Output::Send(bytes) => {
                    if !self.put(&bytes) {
                        tracing::debug!(server = self.url(), "a request to the TURN server found no way");
                    }
                }
                Output::Up { relayed, .. } => self.is_up(relayed, changes),
                Output::Down(trouble) => self.is_down(trouble, clock.instant, changes),
            }
        }
    }

    fn is_up(&mut self, address: SocketAddr, changes: &mut Vec<Change>) {
        tracing::info!(server = self.url(), "the TURN server relays for this device");
        let relayed = Relayed {
            address,
            preference: preference(self.server.turn.transport, self.figures.allocations),
        };
        self.figures.allocations += 1;
        self.figures.up = 1;
        (self.up, self.trouble, self.said) = (Some(relayed), None, None);
        changes.push(Change::Up(relayed));
    }

    fn is_down(&mut self, trouble: Trouble, now: Instant, changes: &mut Vec<Change>) {
        if trouble == Trouble::Family && self.family == Family::V4 {
            // Most viewers can use one of IPv4, but this server has none.
            self.family = Family::V6;
            self.relay = client(&self.server, self.family, now);
            self.carrier = Carrier::None;
            return;
        }
        self.figures.failures += 1;
        self.figures.up = 0;
        let news = self
            .said
            .as_ref()
            .is_none_or(|(said, at)| *said != trouble || now >= *at + SAY_AGAIN);
        if news {
            tracing::warn!(server = self.url(), "the TURN server can't be used: {trouble}");
            self.said = Some((trouble.clone(), now));
        }
        self.trouble = Some(trouble);
        changes.push(Change::Down(self.up.take()));
    }

    fn open(&mut self, clock: &WallClock) {
        // One that takes longer than the client waits is not begun a second time.
        if matches!(self.carrier, Carrier::Preparing(_)) {
            return;
        }
        if let Some(prepared) = at_once(&self.server) {
            return self.connect(prepared, clock);
        }
        let server = self.server.clone();
        match Preparation::begin(&self.event, move || prepare(&server)) {
            Ok(preparation) => self.carrier = Carrier::Preparing(preparation),
            Err(reason) => self.relay.handle(Input::Closed { reason: &reason }, clock.instant),
        }
    }

    fn connect(&mut self, mut prepared: Prepared, clock: &WallClock) {
        let mut reason = "`network.listen` has no address of the kind that this server has".to_owned();
        while !prepared.addresses.is_empty() {
            let address = prepared.addresses.remove(0);
            let opened = self.from(address).and_then(|from| self.begin(address, from, &mut prepared));
            match opened {
                Ok(carrier) => {
                    if matches!(carrier, Carrier::Udp(_)) {
                        self.relay.handle(Input::Opened { wall: clock.wall }, clock.instant);
                    }
                    self.carrier = carrier;
                    return;
                }
                Err(sentence) => reason = sentence,
            }
        }
        self.relay.handle(Input::Closed { reason: &reason }, clock.instant);
    }

    fn begin(&self, address: SocketAddr, from: Option<IpAddr>, prepared: &mut Prepared) -> Result<Carrier, String> {
        if self.server.turn.transport == TurnTransport::Udp {
            let socket = udp(address, from).map_err(|error| about_io(&error))?;
            return Ok(Carrier::Udp(socket));
        }
        let stream = Stream::connect(address, from, prepared.tls.clone())?;
        Ok(Carrier::Stream {
            stream: Box::new(stream),
            opened: false,
            others: Prepared {
                addresses: std::mem::take(&mut prepared.addresses),
                tls: prepared.tls.clone(),
            },
        })
    }

    /// The address of ours to speak to `server` from; `None`: the system chooses. What viewers may not reach directly they may not reach
    /// through a relay either.
    fn from(&self, server: SocketAddr) -> Result<Option<IpAddr>, String> {
        match &self.listen {
            Listen::All(interfaces) => source_of(server, interfaces),
            Listen::Loopback if server.ip().is_loopback() => Ok(None),
            Listen::Loopback => {
                Err("`network.listen` is \"loopback\", so only a server on this machine may relay; write \"all\" to let others".into())
            }
            Listen::Addresses(addresses) => {
                let same = addresses.iter().find(|ip| ip.is_ipv4() == server.is_ipv4());
                let none = || "`network.listen` names no address of the kind that this server has".to_owned();
                same.map(|ip| Some(*ip)).ok_or_else(none)
            }
        }
    }

    fn put(&mut self, message: &[u8]) -> bool {
        match &mut self.carrier {
            Carrier::None | Carrier::Preparing(_) => false,
            Carrier::Udp(socket) => match socket.send(message) {
                Ok(_) => true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
                Err(error) => {
                    self.broke = Some(about_io(&error));
                    false
                }
            },
            Carrier::Stream { stream, .. } => stream.push(message),
        }
    }
}

fn client(server: &Server, family: Family, now: Instant) -> Relay {
    let settings = Settings {
        carrier: match server.turn.transport {
            TurnTransport::Udp => relay::Carrier::Datagrams,
            TurnTransport::Tcp | TurnTransport::Tls => relay::Carrier::Stream,
        },
        family,
        credentials: server.credentials.clone(),
    };
    Relay::new(settings, now)
}

/// UDP before TCP before TLS, each of which costs more than the one before. Of one server's addresses the newest: where an earlier one is
/// gone, a viewer that has not noticed yet goes over to this one at once.
fn preference(transport: TurnTransport, allocations: u64) -> u16 {
    const STEP: u16 = 4_096;
    let newest = u16::try_from(allocations % u64::from(STEP)).unwrap_or_default();
    newest
        + STEP
            * match transport {
                TurnTransport::Udp => 3,
                TurnTransport::Tcp => 2,
                TurnTransport::Tls => 1,
            }
}

/// The address of ours to speak to `server` from where the system's own choice is on an interface that carries no pictures.
fn source_of(server: SocketAddr, interfaces: &Interfaces) -> Result<Option<IpAddr>, String> {
    let chosen = udp(server, None).and_then(|socket| socket.local_addr());
    // Without a way there the attempt to connect says it better.
    let Ok(chosen) = chosen else { return Ok(None) };
    let own = Own::of_machine();
    if !own.is_left_out(chosen.ip(), interfaces) {
        return Ok(None);
    }
    let mut others = own.reachable(interfaces);
    let other = others.find(|ip| ip.is_ipv4() == server.is_ipv4());
    let none = || "`network.interfaces` and `network.exclude_interfaces` leave no address to speak to it from".to_owned();
    other.map(Some).ok_or_else(none)
}

/// A socket that hears this server only.
#[expect(clippy::disallowed_methods, reason = "the way to the server")]
fn udp(server: SocketAddr, from: Option<IpAddr>) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}
