//! Viewers that connect by TCP, where no UDP gets through (ICE-TCP, RFC 6544; this side is the passive one).
//!
//! A connection is somebody's when a check has come over it that a session has accepted. Until then it is a stranger's: there are few of
//! those, and not for long.

mod frames;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use self::frames::{Frames, append};
use super::sessions::Sessions;
use super::socket::{Datagram, MediaSocket, set_traffic_class};
use super::stream::Stream;
use crate::session::{Route, Run, Transport, WallClock};

/// Connections over which nobody has proved anything yet; one more takes the place of the oldest.
const MAX_STRANGERS: usize = 32;
/// Browsers check as soon as they are connected.
const STRANGERS_TIME: Duration = Duration::from_secs(10);
/// Connections of one session: a browser has one for each of our addresses that it reaches, and new ones after it has moved.
const MAX_OF_SESSION: usize = 8;
/// Connections taken in a turn.
const ACCEPTS_A_TURN: usize = 16;
/// Where the system gives no connection, such as for want of file descriptors, it is asked again after so long.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// What viewers that connect by themselves tell in place of a port of theirs (RFC 6544, 4.5).
const ACTIVE: u16 = 9;
/// What the system keeps for us to take.
const BACKLOG: i32 = 64;

/// What was counted; it rises only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IceTcpFigures {
    pub accepted: u64,
    /// Closed by us: strangers that proved nothing in time or made room, or who spoke something else.
    pub refused: u64,
    /// Datagrams that found no connection or no room.
    pub dropped: u64,
}

impl IceTcpFigures {
    /// Adds what another driver has counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            accepted,
            refused,
            dropped,
        } = other;
        self.accepted += accepted;
        self.refused += refused;
        self.dropped += dropped;
    }
}

/// Our address and the viewer's.
type Ends = (SocketAddr, SocketAddr);

/// All of a driver.
pub struct IceTcp {
    listeners: Vec<Socket>,
    /// Not before then are listeners looked at again.
    accept_at: Option<Instant>,
    connections: HashMap<Ends, Connection>,
    scratch: Vec<u8>,
    pub figures: IceTcpFigures,
}

struct Connection {
    stream: Stream,
    frames: Frames,
    /// From us to the viewer.
    route: Route,
    since: Instant,
    /// Its place among all: several may have come at the same time.
    number: u64,
    /// Whose it is.
    session: Option<u64>,
    /// It holds what is no stream of datagrams.
    garbled: bool,
    over: bool,
}

impl IceTcp {
    /// Listens at `port` of each of the addresses that `sockets` are bound to; without a port nowhere.
    ///
    /// # Errors
    /// The port is taken: with the address named.
    pub fn bind(sockets: &[MediaSocket], port: Option<u16>) -> anyhow::Result<Self> {
        let addresses = sockets.iter().map(|socket| socket.local().ip());
        let bound = addresses.zip(port.into_iter().cycle()).map(|(ip, port)| {
            listen(SocketAddr::new(ip, port)).map_err(|error| {
                anyhow::Error::new(error).context(format!(
                    "binding TCP port {port} on {ip} for viewers: does another program listen there, or the page? `network.tcp_port` in \
                     the configuration says another one"
                ))
            })
        });
        Ok(Self {
            listeners: bound.collect::<anyhow::Result<_>>()?,
            accept_at: None,
            connections: HashMap::new(),
            scratch: Vec::new(),
            figures: IceTcpFigures::default(),
        })
    }

    /// Takes new connections at addresses that viewers are told of, gives `sessions` what has come, and lets go of what is over; returns the keys
    /// of the sessions that changed.
    pub fn turn(&mut self, sessions: &mut Sessions, clock: &WallClock) -> Vec<u64> {
        self.accept(sessions.locals(), clock.instant);
        let (mut changed, mut claimed) = (Vec::new(), Vec::new());
        for connection in self.connections.values_mut() {
            connection.receive(sessions, &mut changed, clock);
            if connection.session.is_none() {
                connection.session = sessions.owner((Transport::Tcp, connection.route.destination));
                claimed.extend(connection.session);
            }
        }
        self.let_go(sessions, &claimed, clock.instant);
        changed
    }

    /// Queues the datagrams of `run`; whether they go by TCP at all.
    pub fn take(&mut self, run: &Run<'_>) -> bool {
        if run.route.transport != Transport::Tcp {
            return false;
        }
        let Some(connection) = self.connections.get_mut(&(run.route.source, run.route.destination)) else {
            // Nobody has promised to listen there: it is for us to be connected to.
            if run.route.destination.port() != ACTIVE {
                self.figures.dropped += run.count as u64;
            }
            return true;
        };
        for datagram in run.bytes.chunks(run.segment.max(1)) {
            self.scratch.clear();
            let queued = append(datagram, &mut self.scratch) && connection.stream.push(&self.scratch);
            self.figures.dropped += u64::from(!queued);
        }
        true
    }

    /// Sends what the connections take.
    pub fn flush(&mut self) {
        for connection in self.connections.values_mut() {
            connection.over |= connection.stream.send().is_err();
        }
    }

    /// Those that take no more pictures for a moment.
    pub fn full(&self) -> impl Iterator<Item = Route> {
        let full = self.connections.values().filter(|connection| connection.stream.is_full());
        full.map(|connection| connection.route)
    }

    /// Sessions whose pictures had to wait and need no longer; told once.
    pub fn emptied(&mut self) -> impl Iterator<Item = u64> {
        let each = self.connections.values_mut();
        each.filter_map(|connection| connection.session.filter(|_| connection.stream.has_emptied()))
    }

    /// When [`IceTcp::turn`] has to be called at the latest.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let strangers = self.connections.values().filter(|connection| connection.session.is_none());
        let patience = strangers.map(|connection| connection.since + STRANGERS_TIME).min();
        let accept = self.accept_at.filter(|at| *at > now);
        patience.into_iter().chain(accept).min()
    }

    /// What to wait for.
    pub fn poll_fds(&self, now: Instant) -> impl Iterator<Item = PollFd<'_>> {
        let listeners = self.listeners.iter().filter(move |_| self.accept_at.is_none_or(|at| at <= now));
        let listeners = listeners.map(|socket| PollFd::new(socket, PollFlags::IN));
        let each = self.connections.values();
        listeners.chain(each.map(|connection| PollFd::new(connection.stream.socket(), connection.stream.interest())))
    }

    fn accept(&mut self, locals: &[SocketAddr], now: Instant) {
        if self.accept_at.is_some_and(|at| at > now) {
            return;
        }
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_A_TURN {
                let socket = match self.listeners[index].accept() {
                    Ok((socket, _)) => socket,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // It was over before we came to it.
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "taking a viewer's TCP connection failed");
                        self.accept_at = Some(now + ACCEPT_AGAIN);
                        return;
                    }
                };
                // One that was closed again at once has no addresses.
                let Ok(connection) = Connection::new(socket, self.figures.accepted, now) else {
                    continue;
                };
                let Route { source, destination, .. } = connection.route;
                self.figures.accepted += 1;
                if locals.iter().any(|local| local.ip() == source.ip()) {
                    self.connections.insert((source, destination), connection);
                    self.bound(None, MAX_STRANGERS);
                } else {
                    self.figures.refused += 1;
                }
            }
        }
    }

    fn let_go(&mut self, sessions: &Sessions, claimed: &[u64], now: Instant) {
        let figures = &mut self.figures;
        self.connections.retain(|_, connection| match connection.session {
            Some(session) => !connection.over && sessions.goes_on(session),
            None => {
                let late = now >= connection.since + STRANGERS_TIME;
                figures.refused += u64::from(late || connection.garbled);
                !connection.over && !late
            }
        });
        for session in claimed {
            self.bound(Some(*session), MAX_OF_SESSION);
        }
    }

    /// Closes the oldest connections of a session, or of strangers, beyond so many.
    fn bound(&mut self, session: Option<u64>, most: usize) {
        loop {
            let of_it = || self.connections.iter().filter(|(_, connection)| connection.session == session);
            let oldest = of_it().min_by_key(|(_, connection)| connection.number);
            let Some(ends) = oldest.filter(|_| of_it().count() > most).map(|(ends, _)| *ends) else {
                return;
            };
            self.connections.remove(&ends);
            self.figures.refused += 1;
        }
    }
}

impl Connection {
    fn new(socket: Socket, number: u64, now: Instant) -> io::Result<Self> {
        let stream = Stream::accepted(socket)?;
        Ok(Self {
            route: Route {
                transport: Transport::Tcp,
                source: stream.socket().local_addr()?,
                destination: stream.socket().peer_addr()?,
            },
            stream,
            frames: Frames::default(),
            since: now,
            number,
            session: None,
            garbled: false,
            over: false,
        })
    }

    fn receive(&mut self, sessions: &mut Sessions, changed: &mut Vec<u64>, clock: &WallClock) {
        let (frames, route, garbled) = (&mut self.frames, self.route, &mut self.garbled);
        let ended = self.stream.receive(|bytes| {
            let whole = frames.push(bytes, |bytes| {
                let datagram = Datagram {
                    transport: Transport::Tcp,
                    source: route.destination,
                    destination: route.source,
                    bytes,
                    arrived: clock.instant,
                };
                changed.extend(sessions.datagram(&datagram, clock));
            });
            *garbled |= whole.is_err();
        });
        self.over |= ended.is_err() || self.garbled;
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Else connections that have just ended keep us from starting again.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections inherit it.
    set_traffic_class(&socket, address.ip());
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
