//! A driver: one thread that owns its share of the sessions, their sockets and their timers.
//!
//! Each turn takes what the sockets, the orders and the hubs have, runs the timers that are due, and flushes once. No
//! lock is held around any WebRTC state, and nothing here walks all sessions for one datagram.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;

use super::batch::{Batch, send_to};
use super::figures::{Figures, Traffic};
use super::forwards::Forwards;
use super::handle::{Command, DriverHandle, Order, Orders, queue, wake};
use super::ice_tcp::IceTcp;
use super::interfaces::{Watch, local_addresses, tell_left_out};
use super::mappings::Mappings;
use super::relays::{Relays, Server};
use super::sessions::{Sessions, Shared};
use super::socket::{Datagram, MediaSocket, ReceiveBuffers};
use crate::config::{Advertised, IceServer, Listen, TransportPolicy};
use crate::session::{Transport, WallClock};

/// Timers are run this much ahead: the pacer asks for its next packet a microsecond after the last, and a picture has to
/// leave in one call.
const AHEAD: Duration = Duration::from_micros(300);

/// How often the interfaces are looked at for new addresses, and how busy the thread was.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a change of the addresses is left to settle: a card that comes up gets several, one after the other.
const SETTLE: Duration = Duration::from_millis(20);

/// Batches of one socket in a row, so that a flood on one leaves the others their turn.
const BATCHES_A_TURN: usize = 16;

/// So much is encrypted before it is sent: the kernel's code and ours in turn for each viewer would push each other out of the
/// processor's caches, and all viewers before the first send would keep that one waiting.
const FLUSH_BYTES: usize = 128 * 1024;

/// Each viewer sends some dozens of small datagrams a second, mostly feedback, and each costs more in waking up than in being
/// read. So the sockets rest for this long per viewer after they were read; with one viewer that is as good as nothing.
const REST_PER_VIEWER: Duration = Duration::from_micros(20);

/// The longest rest: what a retransmission or a request may come later by.
const MAX_REST: Duration = Duration::from_millis(2);

/// Orders in a row: an offer takes up to a millisecond on a small board, and meanwhile no picture leaves.
const ORDERS_A_TURN: usize = 8;

/// A driver that is busy for more than this share of its time has viewers waiting for each other.
const BUSY: f64 = 0.9;

/// The sockets of a driver.
pub struct Sockets {
    pub udp: Vec<MediaSocket>,
    pub tcp: IceTcp,
    /// Where viewers may connect by TCP.
    pub tcp_port: Option<u16>,
}

/// What a driver does with STUN and TURN servers.
#[derive(Clone)]
pub struct Relaying {
    pub ice_servers: Vec<IceServer>,
    pub listen: Listen,
    /// Where routers forward to it.
    pub advertise: Vec<Advertised>,
    /// With `Relay` viewers are told of no other address.
    pub policy: TransportPolicy,
}

/// Starts the thread of driver number `index`.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(
    index: usize,
    sockets: Sockets,
    shared: Shared,
    relaying: Relaying,
) -> anyhow::Result<(DriverHandle, std::thread::JoinHandle<()>)> {
    let Sockets {
        udp: sockets,
        tcp: ice_tcp,
        tcp_port,
    } = sockets;
    let event = Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("creating an eventfd")?);
    let viewers = Arc::new(AtomicU32::new(0));
    let pictures = Arc::new(AtomicBool::new(false));
    for hub in shared.rungs() {
        let (event, pictures) = (Arc::clone(&event), Arc::clone(&pictures));
        hub.add_wake(Arc::new(move || {
            pictures.store(true, Ordering::Release);
            wake(&event);
        }));
    }
    let mut locals = local_addresses(&sockets, &relaying.listen);
    tracing::info!(addresses = ?locals, "media sockets bound");
    if index == 0 {
        tell_left_out(&relaying.listen);
    }
    // Nobody is told how this device looks from outside either.
    let mut reflectors = &relaying.ice_servers[..];
    if relaying.policy == TransportPolicy::Relay {
        locals.clear();
        reflectors = &[];
    }
    let port = sockets.first().map_or(0, |socket| socket.local().port());
    let forwarded = relaying.advertise.iter().filter_map(|address| address.for_thread(index, port));
    let (handle, orders) = queue(Arc::clone(&event), Arc::clone(&viewers));
    let clock = read_clock();
    let mut driver = Driver {
        relays: Relays::new(
            Server::all(&relaying.ice_servers),
            relaying.listen.clone(),
            Arc::clone(&event),
            clock.instant,
        ),
        forwards: Forwards::new(forwarded.collect()),
        mappings: Mappings::new(reflectors, Arc::clone(&event), clock.instant),
        listen: relaying.listen,
        policy: relaying.policy,
        buffers: ReceiveBuffers::new(&sockets),
        batch: Batch::new(true),
        traffic: Traffic::default(),
        sessions: Sessions::new(shared, locals, tcp_port, viewers),
        timers: BTreeSet::new(),
        watch: Watch::start(),
        sockets,
        ice_tcp,
        event,
        pictures,
        orders,
        clock,
        look: Look {
            at: clock.instant + LOOK_EVERY,
            told: false,
            measured: clock.instant,
            spent: Duration::ZERO,
            was_busy: false,
        },
        receive_at: clock.instant,
    };
    driver.sessions.relays_changed(&[], driver.relays.trouble(), &clock);
    driver.tell_forwards();
    let thread = std::thread::Builder::new()
        .name(format!("driver {index}"))
        .spawn(move || driver.run())
        .context("starting a driver's thread")?;
    Ok((handle, thread))
}

#[expect(clippy::disallowed_methods, reason = "the driver is where protocol code gets its time from")]
fn read_clock() -> WallClock {
    WallClock {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}

/// Processor time of this thread. What others took from it does not count: another thread would not help against that.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = time.tv_sec.try_into().unwrap_or(0);
    let nanoseconds = time.tv_nsec.try_into().unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

struct Driver {
    sockets: Vec<MediaSocket>,
    ice_tcp: IceTcp,
    buffers: ReceiveBuffers,
    batch: Batch,
    traffic: Traffic,
    sessions: Sessions,
    relays: Relays,
    mappings: Mappings,
    forwards: Forwards,
    listen: Listen,
    policy: TransportPolicy,
    timers: BTreeSet<(Instant, u64)>,
    /// Tells of changes of this machine's addresses.
    watch: Option<Watch>,
    event: Arc<OwnedFd>,
    pictures: Arc<AtomicBool>,
    orders: Orders,
    clock: WallClock,
    look: Look,
    /// Not before then are the sockets looked at again.
    receive_at: Instant,
}

/// What is looked at every [`LOOK_EVERY`].
struct Look {
    /// When the next time is.
    at: Instant,
    /// Whether the kernel has told of a change since the last time.
    told: bool,
    /// When it was measured how busy the thread is.
    measured: Instant,
    /// The thread's processor time then.
    spent: Duration,
    was_busy: bool,
}

impl Driver {
    fn run(mut self) {
        // The first random number gathers entropy for tens of milliseconds; no viewer shall wait for it.
        let _ = aws_lc_rs::rand::fill(&mut [0; 16]);
        loop {
            self.clock = read_clock();
            let mut changed = Vec::new();
            if self.clock.instant >= self.receive_at {
                self.receive(&mut changed);
            }
            if let Err(reason) = self.obey(&mut changed) {
                self.sessions.close_all(&reason, &self.clock);
                self.transmit();
                self.relays.end(&self.clock);
                return;
            }
            self.relay(&mut changed);
            self.look_from_outside(&mut changed);
            if self.pictures.swap(false, Ordering::AcqRel) {
                changed.extend(self.sessions.watching());
            }
            changed.extend(self.due());
            self.look_around(&mut changed);
            changed.sort_unstable();
            changed.dedup();
            for key in changed {
                self.sessions.advance(key, AHEAD, &self.clock);
                self.reschedule(key);
                if self.sessions.datagrams().bytes() >= FLUSH_BYTES {
                    self.transmit();
                }
            }
            self.transmit();
            self.wait();
        }
    }

    fn receive(&mut self, changed: &mut Vec<u64>) {
        for index in 0..self.sockets.len() {
            for _ in 0..BATCHES_A_TURN {
                let (sessions, mappings, clock) = (&mut self.sessions, &mut self.mappings, &self.clock);
                let received = self.sockets[index].receive(&mut self.buffers, clock, |datagram| {
                    if !mappings.take(&datagram, clock.instant) {
                        changed.extend(sessions.datagram(&datagram, clock));
                    }
                });
                match received {
                    Ok(0) => break,
                    Ok(_) => self.traffic.receive_calls += 1,
                    Err(error) => {
                        tracing::warn!(%error, "reading the media socket failed");
                        break;
                    }
                }
            }
        }
        changed.extend(self.ice_tcp.turn(&mut self.sessions, &self.clock));
        self.transmit();
        self.receive_at = self.clock.instant + self.sessions.rest(REST_PER_VIEWER).min(MAX_REST);
    }

    /// Lets the TURN servers have their turn.
    fn relay(&mut self, changed: &mut Vec<u64>) {
        let (sessions, clock) = (&mut self.sessions, &self.clock);
        // Where there is no other way, no viewer shall have to wait for it; by WHEP nobody could be told of it later.
        if sessions.are_there() || self.policy == TransportPolicy::Relay {
            self.relays.want(clock);
        }
        self.relays.turn(clock, |source, destination, bytes| {
            let datagram = Datagram {
                transport: Transport::Udp,
                source,
                destination,
                bytes,
                arrived: clock.instant,
            };
            changed.extend(sessions.datagram(&datagram, clock));
        });
        let changes = self.relays.changes();
        if !changes.is_empty() {
            changed.extend(sessions.relays_changed(&changes, self.relays.trouble(), clock));
        }
        if self.relays.have_emptied() {
            changed.extend(sessions.watching());
        }
        changed.extend(self.ice_tcp.emptied());
        sessions.hold_back(self.relays.full(), self.ice_tcp.full());
    }

    /// Lets the STUN servers have their turn.
    fn look_from_outside(&mut self, changed: &mut Vec<u64>) {
        let (sessions, clock) = (&mut self.sessions, &self.clock);
        if sessions.are_there() {
            self.mappings.want(clock);
        }
        self.mappings.turn(sessions.locals(), clock, |base, server, request| {
            if let Err(error) = send_to(&self.sockets, base, server, request) {
                tracing::debug!(%error, %base, %server, "a STUN request found no way");
            }
        });
        let changes = self.mappings.changes();
        if !changes.is_empty() {
            changed.extend(sessions.mappings_changed(&changes, clock));
        }
    }

    /// Whose candidates a command tells of may speak to us through the TURN servers, from now on.
    fn permit(&mut self, command: &Command) {
        match command {
            Command::Offer { offer, .. } => {
                self.relays.want(&self.clock);
                self.mappings.want(&self.clock);
                self.relays.permit(offer.sdp.lines(), &self.clock);
            }
            Command::Candidates { candidates, .. } => {
                self.relays.permit(candidates.candidates.iter().map(String::as_str), &self.clock);
            }
            Command::Close { .. } | Command::Message { .. } | Command::Quality { .. } | Command::KeyFrame { .. } => {}
        }
    }

    /// Carries out what waits; `Err` with the reason when that is to end.
    fn obey(&mut self, changed: &mut Vec<u64>) -> Result<(), String> {
        for _ in 0..ORDERS_A_TURN {
            match self.orders.next() {
                None => return Ok(()),
                Some(Order::Shutdown { reason }) => return Err(reason),
                Some(Order::Viewer(command)) => {
                    self.permit(&command);
                    changed.extend(self.sessions.command(command, &self.clock));
                }
                Some(Order::FormatChanged { stream }) => changed.extend(self.sessions.format_changed(&stream, &self.clock)),
                Some(Order::TargetChanged { stream, bitrate }) => self.sessions.target_changed(&stream, bitrate),
                Some(Order::Figures { reply }) => {
                    let figures = Figures {
                        traffic: Traffic {
                            busy: processor_time(),
                            ice_tcp: self.ice_tcp.figures,
                            ..self.traffic
                        },
                        relays: self.relays.figures(),
                        mappings: self.mappings.figures(),
                        ..self.sessions.figures()
                    };
                    // Whoever asked may have given up.
                    let _ = reply.send(figures);
                }
            }
        }
        // More may wait; after this turn the next one follows at once.
        wake(&self.event);
        Ok(())
    }

    fn due(&mut self) -> Vec<u64> {
        let horizon = self.clock.instant + AHEAD;
        let mut due = Vec::new();
        while let Some((at, key)) = self.timers.first().copied()
            && at <= horizon
        {
            self.timers.pop_first();
            due.push(key);
        }
        due
    }

    fn look_around(&mut self, changed: &mut Vec<u64>) {
        let now = self.clock.instant;
        if now < self.look.at {
            return;
        }
        if std::mem::take(&mut self.look.told) {
            self.sessions.tell_moved();
        }
        self.relays.moved();
        match self.policy {
            TransportPolicy::All => {
                changed.extend(self.sessions.set_locals(local_addresses(&self.sockets, &self.listen), &self.clock));
                changed.extend(self.tell_forwards());
            }
            TransportPolicy::Relay => {}
        }
        self.look.at = now + LOOK_EVERY;
        let since = now.saturating_duration_since(self.look.measured);
        // An address has changed in between: too short a time to measure.
        if since < LOOK_EVERY {
            return;
        }
        let spent = processor_time();
        let share = spent.saturating_sub(self.look.spent).div_duration_f64(since);
        let busy = share > BUSY;
        if busy && !self.look.was_busy {
            tracing::warn!(
                "one thread has more viewers than it can serve in time ({:.0} % busy); where the board has another core, give it a thread \
                 more: `network.threads` in the configuration",
                share * 100.0
            );
        }
        (self.look.measured, self.look.spent, self.look.was_busy) = (now, spent, busy);
    }

    /// Tells viewers where routers forward to the addresses of now.
    fn tell_forwards(&mut self) -> Vec<u64> {
        let changes = self.forwards.changes(self.sessions.locals());
        self.sessions.mappings_changed(&changes, &self.clock)
    }

    fn transmit(&mut self) {
        let datagrams = self.sessions.datagrams();
        let (relays, ice_tcp, clock) = (&mut self.relays, &mut self.ice_tcp, &self.clock);
        self.batch.send_others(&self.sockets, datagrams, &mut self.traffic.sent, |run| {
            if ice_tcp.take(run) {
                return true;
            }
            let relayed = relays.is_relayed(run.route.source);
            if relayed {
                for datagram in run.bytes.chunks(run.segment.max(1)) {
                    relays.send(run.route.source, run.route.destination, datagram, clock);
                }
            }
            relayed
        });
        datagrams.clear();
        self.ice_tcp.flush();
        if self.sessions.has_pictures() {
            self.sessions.sent(read_clock().instant);
        }
    }

    fn reschedule(&mut self, key: u64) {
        let (old, new) = self.sessions.reschedule(key);
        if old != new {
            if let Some(old) = old {
                self.timers.remove(&(old, key));
            }
            if let Some(new) = new {
                self.timers.insert((new, key));
            }
        } else if let Some(at) = new {
            // Due timers were taken out; one that did not move goes back in.
            self.timers.insert((at, key));
        }
    }

    fn wait(&mut self) {
        let now = read_clock().instant;
        let resting = now < self.receive_at;
        let timer = self.timers.first().map(|(at, _)| *at);
        let rested = resting.then_some(self.receive_at);
        let relays = self.relays.deadline(now);
        let mappings = self.mappings.deadline(now);
        let ice_tcp = self.ice_tcp.deadline(now);
        let next = [timer, rested, relays, mappings, ice_tcp]
            .into_iter()
            .flatten()
            .fold(self.look.at, Instant::min);
        let patience = next.saturating_duration_since(now);
        let timeout = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(1),
            tv_nsec: i64::from(patience.subsec_nanos()) as _,
        };
        let sockets: &[MediaSocket] = if resting { &[] } else { &self.sockets };
        let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket.inner(), PollFlags::IN)).collect();
        if !resting {
            fds.extend(self.relays.poll_fds());
            fds.extend(self.ice_tcp.poll_fds(now));
        }
        fds.push(PollFd::new(&*self.event, PollFlags::IN));
        let watched = self.watch.as_ref().map(|watch| {
            fds.push(PollFd::new(watch.inner(), PollFlags::IN));
            fds.len() - 1
        });
        // Interrupted or not: the next turn looks at everything.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        let told = watched.is_some_and(|index| !fds[index].revents().is_empty());
        let _ = rustix::io::read(&*self.event, &mut [0u8; 8]);
        if let (true, Some(watch)) = (told, &self.watch) {
            watch.drain();
            self.look.at = self.look.at.min(read_clock().instant + SETTLE);
            self.look.told = true;
        }
    }
}

/// Whether `address` is one that a packet can come from.
pub(super) fn is_plausible(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}
