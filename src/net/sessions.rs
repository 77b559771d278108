//! All sessions of a driver, and how a datagram finds its own.

mod admission;
mod relayed;
mod rungs;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use str0m::config::DtlsCert;
use str0m::ice::StunMessage;
use tokio::sync::mpsc;

pub use self::rungs::Offered;
use self::rungs::Watch;
use self::seats::Seat;
pub use self::seats::{MAX_UNHEARD, Seats};
use super::driver::is_plausible;
use super::figures::Figures;
use super::handle::{Command, Notice};
use super::latency::Latency;
use super::socket::Datagram;
use crate::hub::{Hub, Next, Stream};
use crate::media::{Bitrate, Quality};
use crate::protocol::{Candidates, Close, ErrorCode, Message, PeerId, Reply, RpcError};
use crate::session::{Datagrams, Ending, Event, Input, Outbox, Reflexive, Session, Transport, WallClock};

/// Addresses remembered for one viewer: a phone has a few, a liar has many.
const MAX_ADDRESSES: usize = 64;

/// Steps of one session in one turn, far above what a key frame's packets need: the others have their turn too.
const MAX_STEPS: usize = 4_096;

/// Messages of viewers that may be among the notices that wait, so that the driver's own find room beside them: each can have 64 KiB.
const MAX_MESSAGES_WAITING: usize = 32;

/// Where a viewer is: an address may be one viewer's by UDP and another's by TCP.
type Remote = (Transport, SocketAddr);

/// What all drivers of an agent share.
#[derive(Clone)]
pub struct Shared {
    pub certificate: DtlsCert,
    /// Every stream that viewers may ask for; the first is the default.
    pub streams: Vec<Offered>,
    pub seats: Seats,
    /// The most sessions, of one driver, of viewers who were not heard of yet.
    pub max_unheard: usize,
    pub notices: mpsc::Sender<Notice>,
}

impl Shared {
    /// Every rung of every stream, in order.
    pub fn rungs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        self.streams.iter().flat_map(|offered| offered.stream.rungs())
    }
}

/// Every session, found by key, by network address and by ICE user name fragment.
pub struct Sessions {
    shared: Shared,
    locals: Vec<SocketAddr>,
    /// Where viewers may connect by TCP.
    tcp_port: Option<u16>,
    /// Where this device is seen from outside.
    reflexive: Vec<Reflexive>,
    relayed: relayed::Held,
    slots: HashMap<u64, Slot>,
    by_address: HashMap<Remote, u64>,
    by_ufrag: HashMap<String, u64>,
    next_key: u64,
    outbox: Outbox,
    viewers: Arc<AtomicU32>,
    /// When the live pictures among the datagrams were captured, and the place of their rung among all.
    unsent: Vec<(usize, Instant)>,
    /// What only rises; what is true now is added when somebody asks.
    figures: Figures,
}

struct Slot {
    id: String,
    session: Session,
    /// Taken when a packet has come that only this viewer can make.
    seat: Option<Seat>,
    stream: Stream,
    /// The rung that the viewer wishes for.
    wished: Quality,
    /// The best one that its path carries.
    carried: Quality,
    watch: Option<Watch>,
    addresses: Vec<Remote>,
    ufrags: Vec<String>,
    scheduled: Option<Instant>,
}

impl Sessions {
    pub fn new(shared: Shared, locals: Vec<SocketAddr>, tcp_port: Option<u16>, viewers: Arc<AtomicU32>) -> Self {
        let figures = Figures {
            latencies: vec![Latency::default(); shared.rungs().count()],
            ..Figures::default()
        };
        Self {
            shared,
            locals,
            tcp_port,
            reflexive: Vec::new(),
            relayed: relayed::Held::default(),
            slots: HashMap::new(),
            by_address: HashMap::new(),
            by_ufrag: HashMap::new(),
            next_key: 0,
            outbox: Outbox::default(),
            viewers,
            unsent: Vec::new(),
            figures,
        }
    }

    /// How long the sockets may go unread: so much for each viewer, but not at all while one is connecting.
    pub fn rest(&self, per_viewer: Duration) -> Duration {
        let all_connected = self.slots.values().all(|slot| slot.session.is_connected());
        let viewers = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if all_connected {
            per_viewer.saturating_mul(viewers)
        } else {
            Duration::ZERO
        }
    }

    /// What has to be sent, in order; whoever has sent it clears it.
    pub fn datagrams(&mut self) -> &mut Datagrams {
        &mut self.outbox.datagrams
    }

    /// Whether a live picture is among the datagrams.
    pub fn has_pictures(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The datagrams were given to the system, which ended at `now`.
    pub fn sent(&mut self, now: Instant) {
        for (rung, captured) in self.unsent.drain(..) {
            if let Some(latency) = self.figures.latencies.get_mut(rung) {
                latency.note(now.saturating_duration_since(captured));
            }
        }
    }

    /// This machine's addresses, as far as viewers are told of them.
    pub fn locals(&self) -> &[SocketAddr] {
        &self.locals
    }

    /// Keys of the sessions that want pictures.
    pub fn watching(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().filter(|(_, slot)| slot.watch.is_some()).map(|(key, _)| *key)
    }

    /// Gives a datagram to the session it is meant for; returns that session's key.
    ///
    /// A STUN request names its session by the ufrag (RFC 8445, 7.2.2); all else is known by its address. An address is
    /// taken over only after the session has accepted the request, whose integrity only its viewer can make.
    pub fn datagram(&mut self, datagram: &Datagram<'_>, clock: &WallClock) -> Option<u64> {
        let claimed = self.claim(datagram, clock);
        self.figures.counted.datagrams += 1;
        self.figures.counted.unclaimed += u64::from(!claimed.is_some_and(|(_, accepted)| accepted));
        claimed.map(|(key, _)| key)
    }

    /// The session that a datagram says it is for, and whether that session took it.
    fn claim(&mut self, datagram: &Datagram<'_>, clock: &WallClock) -> Option<(u64, bool)> {
        if !is_plausible(datagram.source) {
            return None;
        }
        let named = StunMessage::parse(datagram.bytes).ok().and_then(|message| {
            let (local, _) = message.split_username()?;
            self.by_ufrag.get(local).copied()
        });
        let from = (datagram.transport, datagram.source);
        let key = named.or_else(|| self.owner(from))?;
        let slot = self.slots.get_mut(&key)?;
        // Each new address is one more candidate to the session, and one more check.
        if slot.addresses.len() >= MAX_ADDRESSES && self.by_address.get(&from) != Some(&key) {
            self.figures.counted.addresses_refused += 1;
            return None;
        }
        let input = Input::Datagram {
            transport: datagram.transport,
            source: datagram.source,
            destination: datagram.destination,
            bytes: datagram.bytes,
        };
        let accepted = slot.session.handle(input, datagram.arrived, clock, &mut self.outbox);
        if accepted && named.is_some() {
            self.remember_address(key, from);
            self.heard(key, clock);
        }
        self.settle(key, clock);
        Some((key, accepted))
    }

    /// Whose datagrams come from there, if one is.
    pub fn owner(&self, remote: Remote) -> Option<u64> {
        self.by_address.get(&remote).copied()
    }

    /// Whether this session goes on.
    pub fn goes_on(&self, key: u64) -> bool {
        self.slots.contains_key(&key)
    }

    /// Carries a command out; returns the keys of the sessions that changed.
    pub fn command(&mut self, command: Command, clock: &WallClock) -> Vec<u64> {
        match command {
            Command::Offer { peer, role, offer, reply } => {
                let result = match offer.session.clone() {
                    Some(id) => self.restart(&peer, &id, &offer, clock),
                    None => self.accept(peer, role, &offer, clock),
                };
                let (keys, result) = match result {
                    Ok((key, answer)) => (vec![key], Ok(answer)),
                    Err(error) => (Vec::new(), Err(error)),
                };
                // Nobody waits any more: the session gives up by itself.
                let _ = reply.send(result);
                keys
            }
            Command::Candidates { peer, candidates } => self.on_own(&peer, &candidates.session, clock, |slot, outbox| {
                slot.session
                    .handle(Input::Candidates(&candidates.candidates), clock.instant, clock, outbox);
            }),
            Command::Close { peer, close } => self.on_own(&peer, &close.session, clock, |slot, outbox| {
                let (ending, reason) = if slot.session.is_connected() {
                    (Ending::ViewerLeft, "the viewer left")
                } else {
                    (Ending::NeverConnected, "the viewer left before a network path to it was found")
                };
                slot.session.close(None, ending, reason, clock.instant, outbox);
            }),
            Command::Message { peer, session, message } => self.on_own(&peer, &session, clock, |slot, outbox| {
                slot.session.handle(Input::Message(&message), clock.instant, clock, outbox);
            }),
            Command::Quality { peer, wish, reply } => self.change_quality(&peer, &wish, reply, clock),
            Command::KeyFrame { peer } => {
                for slot in self.slots.values().filter(|slot| *slot.session.peer() == peer) {
                    slot.rung().target().request_key_frame();
                }
                Vec::new()
            }
        }
    }

    /// A stream's format changed, or one of its rungs came or went: closes the sessions that can't carry it; returns their keys.
    pub fn format_changed(&mut self, stream: &str, clock: &WallClock) -> Vec<u64> {
        let of_stream = self.slots.iter_mut().filter(|(_, slot)| slot.stream.name() == stream);
        let keys: Vec<u64> = of_stream
            .filter_map(|(key, slot)| {
                let follows = slot.stream.high.format().is_some_and(|format| slot.session.follow(format));
                slot.follow_rungs(clock.instant);
                (!follows).then_some(*key)
            })
            .collect();
        let sentence = "the camera's stream is another one now; open a new session";
        for key in &keys {
            self.close(*key, Ending::StreamChanged, sentence, clock);
        }
        keys
    }

    /// The encoder of a stream's high rung is asked for another bit rate: sessions tell it, and new ones start from it.
    pub fn target_changed(&mut self, stream: &str, bitrate: Bitrate) {
        for offered in self.shared.streams.iter_mut().filter(|offered| offered.stream.name() == stream) {
            offered.bitrate = bitrate;
        }
        for slot in self.slots.values_mut().filter(|slot| slot.stream.name() == stream) {
            slot.session.set_high(bitrate);
            if slot.rung().quality() == Quality::High {
                slot.session.shows(Quality::High, bitrate);
            }
        }
    }

    /// Runs one session's timers up to `ahead` of now, and gives it the pictures that wait for it.
    pub fn advance(&mut self, key: u64, ahead: Duration, clock: &WallClock) {
        for _ in 0..MAX_STEPS {
            let now = clock.instant;
            let Some(slot) = self.slots.get_mut(&key) else { return };
            let (at, _) = slot.session.deadline();
            if at <= now + ahead {
                slot.session.handle(Input::Timeout, at.max(now), clock, &mut self.outbox);
            } else if slot.session.is_ready(now)
                && !self.relayed.holds_back(slot.session.path())
                && let Some(watch) = &mut slot.watch
            {
                let before = watch.hub().quality();
                match watch.next(now) {
                    Next::Picture { picture, backlog } => {
                        let quality = watch.hub().quality();
                        if quality != before
                            && let Some(offered) = self
                                .shared
                                .streams
                                .iter()
                                .find(|offered| offered.stream.name() == slot.stream.name())
                        {
                            slot.session.shows(quality, offered.bitrate(quality));
                        }
                        let input = Input::Picture {
                            unit: &picture.unit,
                            payloads: picture.payloads(),
                            backlog,
                        };
                        slot.session.handle(input, now, clock, &mut self.outbox);
                        let rung = self.shared.rungs().position(|hub| Arc::ptr_eq(hub, watch.hub()));
                        let live = watch.is_live();
                        self.unsent.extend(rung.filter(|_| live).map(|rung| (rung, picture.unit.captured)));
                    }
                    Next::Lagged { dropped } => {
                        tracing::warn!(session = %slot.id, dropped, "viewer too slow, waiting for a key frame");
                        slot.session.note_dropped(dropped);
                    }
                    Next::Nothing => return,
                }
            } else {
                return;
            }
            self.settle(key, clock);
        }
        self.figures.counted.turns_cut += 1;
    }

    /// The time a session was scheduled for, and the one it wants now. `None`: not at all.
    pub fn reschedule(&mut self, key: u64) -> (Option<Instant>, Option<Instant>) {
        match self.slots.get_mut(&key) {
            Some(slot) => {
                let wanted = Some(slot.session.deadline().0);
                (std::mem::replace(&mut slot.scheduled, wanted), wanted)
            }
            None => (None, None),
        }
    }

    /// This machine's addresses; new ones are told to every viewer, and ways that begin at those that are gone are left at once.
    pub fn set_locals(&mut self, locals: Vec<SocketAddr>, clock: &WallClock) -> Vec<u64> {
        let without = |these: &[SocketAddr], those: &[SocketAddr]| -> Vec<SocketAddr> {
            these.iter().copied().filter(|address| !those.contains(address)).collect()
        };
        let (added, gone) = (without(&locals, &self.locals), without(&self.locals, &locals));
        self.locals = locals;
        let mut changed = Vec::new();
        if !added.is_empty() {
            tracing::info!(addresses = ?added, "new network addresses");
            changed.extend(self.tell_all(&Input::AddressesAdded(&added), clock));
        }
        if !gone.is_empty() {
            tracing::info!(addresses = ?gone, "network addresses that are gone");
            changed.extend(self.tell_all(&Input::AddressesGone(&gone), clock));
        }
        changed
    }

    /// Tells the rest of the agent that this machine's addresses have changed.
    pub fn tell_moved(&mut self) {
        if self.shared.notices.try_send(Notice::Moved).is_err() {
            self.figures.counted.notices_dropped += 1;
        }
    }

    /// Tells every viewer good-bye.
    pub fn close_all(&mut self, reason: &str, clock: &WallClock) {
        for key in self.slots.keys().copied().collect::<Vec<_>>() {
            self.close(key, Ending::Shutdown, reason, clock);
        }
    }

    fn key_of(&self, id: &str) -> Option<u64> {
        self.slots.iter().find(|(_, slot)| slot.id == id).map(|(key, _)| *key)
    }

    /// Runs `act` on a session if it is `peer`'s own.
    fn on_own(&mut self, peer: &PeerId, id: &str, clock: &WallClock, act: impl FnOnce(&mut Slot, &mut Outbox)) -> Vec<u64> {
        let own = self
            .key_of(id)
            .filter(|key| self.slots.get(key).is_some_and(|slot| slot.session.peer() == peer));
        own.map_or_else(Vec::new, |key| self.on_slot(key, clock, act))
    }

    fn on_slot(&mut self, key: u64, clock: &WallClock, act: impl FnOnce(&mut Slot, &mut Outbox)) -> Vec<u64> {
        if let Some(slot) = self.slots.get_mut(&key) {
            act(slot, &mut self.outbox);
        }
        self.settle(key, clock);
        vec![key]
    }

    fn close(&mut self, key: u64, ending: Ending, reason: &str, clock: &WallClock) {
        self.on_slot(key, clock, |slot, outbox| {
            let farewell = Message::notification(
                "session.close",
                &Close {
                    session: slot.id.clone(),
                    reason: reason.to_owned(),
                },
            );
            slot.session.close(Some(&farewell), ending, reason, clock.instant, outbox);
        });
    }

    fn remember_address(&mut self, key: u64, address: Remote) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if self.by_address.get(&address) == Some(&key) {
            return;
        }
        if slot.addresses.len() >= MAX_ADDRESSES {
            self.figures.counted.addresses_refused += 1;
            return;
        }
        slot.addresses.push(address);
        if let Some(previous) = self.by_address.insert(address, key)
            && let Some(slot) = self.slots.get_mut(&previous)
        {
            slot.addresses.retain(|known| *known != address);
        }
    }

    /// Deals with what a session has said: its events, and the addresses it now speaks to.
    fn settle(&mut self, key: u64, clock: &WallClock) {
        let spoken_to: Vec<Remote> = self
            .outbox
            .datagrams
            .new_routes()
            .map(|route| (route.transport, route.destination))
            .filter(|destination| !self.by_address.contains_key(destination))
            .collect();
        for address in spoken_to {
            self.remember_address(key, address);
        }
        while !self.outbox.events.is_empty() {
            for event in std::mem::take(&mut self.outbox.events) {
                self.event(key, event, clock);
            }
        }
    }

    fn event(&mut self, key: u64, event: Event, clock: &WallClock) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        match event {
            Event::Connected => {
                tracing::info!(session = %slot.id, "viewer connected");
                self.figures.counted.connected += 1;
                slot.watch = Some(Watch::new(slot.rung(), &slot.stream.high, clock.instant));
            }
            Event::Carries(quality) => {
                slot.carried = quality;
                slot.follow_rungs(clock.instant);
                if slot.stream.low().is_some_and(|low| low.size().is_some()) {
                    tracing::info!(session = %slot.id, "the path to the viewer carries the {} rung", quality.name());
                }
            }
            Event::KeyFrameWanted => slot.rung().target().request_key_frame(),
            Event::Candidates(candidates) => {
                let candidates = Candidates {
                    session: slot.id.clone(),
                    candidates,
                };
                let notice = Notice::Candidates {
                    peer: slot.session.peer().clone(),
                    candidates,
                };
                if self.shared.notices.try_send(notice).is_err() {
                    self.figures.counted.notices_dropped += 1;
                    tracing::warn!(session = %slot.id, "too many notices wait; new candidates were not told to the viewer");
                }
            }
            Event::Message(message) => {
                let busy = match &message {
                    Message::Request(request) => Some(request.id.clone()),
                    Message::Notification(_) | Message::Reply(_) => None,
                };
                let notice = Notice::Message {
                    session: slot.id.clone(),
                    peer: slot.session.peer().clone(),
                    role: slot.session.role(),
                    message,
                };
                let notices = &self.shared.notices;
                let waiting = notices.max_capacity() - notices.capacity();
                if waiting >= MAX_MESSAGES_WAITING || notices.try_send(notice).is_err() {
                    self.figures.counted.notices_dropped += 1;
                    let Some(id) = busy else { return };
                    let error = RpcError::new(ErrorCode::Busy, "the device has too much to do; try again in a second");
                    let reply = Message::Reply(Reply {
                        id: Some(id),
                        result: Err(error),
                    });
                    slot.session.handle(Input::Message(&reply), clock.instant, clock, &mut self.outbox);
                }
            }
            Event::Closed(reason) => self.remove(key, reason),
        }
    }

    fn remove(&mut self, key: u64, reason: String) {
        let Some(slot) = self.slots.remove(&key) else { return };
        for address in &slot.addresses {
            self.by_address.remove(address);
        }
        for ufrag in &slot.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        self.count_viewers();
        let ending = slot.session.ending().unwrap_or(Ending::Failed);
        let reason = self.relayed.explain(ending, reason);
        self.figures.sessions.add(&slot.session.figures().counts);
        if let Some(index) = Ending::ALL.iter().position(|known| *known == ending) {
            self.figures.closed[index] += 1;
        }
        tracing::info!(session = %slot.id, %reason, viewers = self.slots.len(), "viewer gone");
        let notice = Notice::Closed {
            peer: slot.session.peer().clone(),
            close: Close { session: slot.id, reason },
        };
        if self.shared.notices.try_send(notice).is_err() {
            self.figures.counted.notices_dropped += 1;
            tracing::debug!("too many notices wait; the viewer learns from the closed connection");
        }
    }

    /// What was counted so far, but for the sockets' side, and how the viewers' paths are.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures.clone();
        let paths: Vec<_> = self.slots.values().map(|slot| slot.session.figures()).collect();
        for path in &paths {
            figures.sessions.add(&path.counts);
        }
        let of_rung = |hub: &Arc<Hub>| self.slots.values().filter(|slot| Arc::ptr_eq(slot.rung(), hub)).count() as u64;
        figures.viewers = self.shared.rungs().map(of_rung).collect();
        figures.estimates = paths.iter().filter_map(|path| Some(path.estimate?.as_bps() as f64 / 8.0)).collect();
        figures.rtts = paths.iter().filter_map(|path| Some(path.rtt?.as_secs_f64())).collect();
        figures.losses = paths.iter().filter_map(|path| Some(f64::from(path.loss?))).collect();
        figures
    }

    fn count_viewers(&self) {
        self.viewers
            .store(u32::try_from(self.slots.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}
