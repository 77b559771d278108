//! The way out of networks that let nothing in: one allocation on one TURN server, for all viewers (RFC 8656). Beside it the question to a STUN
//! server how this device looks from outside ([`Binding`]).
//!
//! A [`Relay`] owns no socket and no clock. Its driver resolves and connects when asked to ([`Output::Open`]), tells what happened
//! ([`Input`]), hands over what came from the server, and sends what [`Relay::poll`] gives until that gives nothing. It calls
//! [`Input::Timeout`] at [`Relay::deadline`].

mod binding;
mod credentials;
mod frames;
mod message;
mod peers;
mod transaction;
mod trouble;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use stun_proto::auth::{LongTermClientAuth, LongTermClientAuthErrorReason, LongTermClientValidation};
use stun_types::message::{LongTermCredentials, Message};

pub use self::binding::{Binding, Heard};
pub use self::credentials::{Credentials, Minted};
use self::frames::{Kind, Stream};
use self::message::{Answer, Granted};
use self::peers::Peers;
use self::transaction::{Ask, MAX_WAITING, Transaction, Transactions};
pub use self::trouble::Trouble;

/// How long connecting to a server may take.
const OPENING: Duration = Duration::from_secs(8);
/// While pictures go through the server we look this often whether it still knows us: one that was restarted throws them away silently.
const WATCH: Duration = Duration::from_secs(2);
/// NATs may forget a silent UDP binding after 30 s, so we speak twice in that time (RFC 4787, REQ-5, asks for 120 s).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Who sent something so recently is watched closely.
const IN_USE: Duration = Duration::from_secs(10);
/// A server that wants a request signed anew more often than this is not going to take it.
const MAX_RESIGNED: u8 = 3;
/// An allocation that ends sooner is no sign that the server is well: the pause before the next one grows.
const SHORT_LIVED: Duration = Duration::from_secs(10);
/// However short a server says an allocation lives, it is refreshed no more often than twice in this time.
const LEAST_LIFETIME: Duration = Duration::from_secs(4);
/// The shortest and the longest pause between two tries at a server that is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// What lies between us and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Datagrams,
    /// TCP or TLS.
    Stream,
}

/// Which addresses an allocation relays to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What a relay is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub carrier: Carrier,
    pub family: Family,
    pub credentials: Credentials,
}

/// What happened to the way to the server.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// It is open. `wall` is the wall clock, for credentials that expire.
    Opened { wall: SystemTime },
    /// It could not be opened, or broke; why, as a sentence's end.
    Closed { reason: &'a str },
    /// The time from [`Relay::deadline`] has come.
    Timeout,
    /// The credentials are others now.
    Credentials(&'a Credentials),
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Resolve the server's name, open the way to it, and say [`Input::Opened`] or [`Input::Closed`].
    Open,
    /// Close it; nothing is to be said.
    Close,
    /// Send these bytes to the server, as one datagram or into the stream.
    Send(Vec<u8>),
    /// Pictures can go through the server. `mapped` is where it sees us.
    Up { relayed: SocketAddr, mapped: Option<SocketAddr> },
    /// They cannot any more, or the first try failed; it goes on trying.
    Down(Trouble),
}

/// Why something was not sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no allocation.
    Down,
    /// The server does not relay to that address.
    Refused,
    /// It is longer than any message.
    TooLong,
}

/// One allocation on one server.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    phase: Phase,
    auth: LongTermClientAuth,
    transactions: Transactions,
    peers: Peers,
    stream: Stream,
    outputs: VecDeque<Output>,
    /// Tries since it was up for a while last.
    failures: u32,
}

#[derive(Debug)]
enum Phase {
    /// Until the next try.
    Waiting {
        until: Instant,
    },
    Opening {
        until: Instant,
    },
    /// `cleared`: what an earlier life has left was given back already.
    Allocating {
        until: Instant,
        cleared: bool,
    },
    Up(Allocation),
}

#[derive(Debug)]
struct Allocation {
    relayed: SocketAddr,
    since: Instant,
    /// When it ends if nothing is done.
    ends: Instant,
    /// When it was made or refreshed last.
    confirmed: Instant,
    /// When something was sent to a peer last.
    used: Option<Instant>,
}

impl Allocation {
    fn refresh_at(&self) -> Instant {
        let in_use = self.used.is_some_and(|used| used + IN_USE > self.confirmed);
        let soon = self.confirmed + if in_use { WATCH } else { KEEP_ALIVE };
        soon.min(self.ends - (self.ends - self.confirmed) / 2)
    }
}

impl Relay {
    /// A relay that begins at its first timeout, which is due at once.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            transactions: Transactions::new(settings.carrier),
            settings,
            phase: Phase::Waiting { until: now },
            auth: LongTermClientAuth::new(),
            peers: Peers::default(),
            stream: Stream::default(),
            outputs: VecDeque::new(),
            failures: 0,
        }
    }

    /// Our address at the server, while there is one.
    #[must_use]
    pub fn relayed(&self) -> Option<SocketAddr> {
        match &self.phase {
            Phase::Up(allocation) => Some(allocation.relayed),
            Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Allocating { .. } => None,
        }
    }

    /// The next thing to do. Has to be asked after every other call until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, and what for.
    #[must_use]
    pub fn deadline(&self) -> (Instant, &'static str) {
        let own = match &self.phase {
            Phase::Waiting { until } => (*until, "trying the TURN server"),
            Phase::Opening { until } => (*until, "opening the way to the TURN server"),
            Phase::Allocating { until, .. } => (*until, "allocating at the TURN server"),
            Phase::Up(allocation) => self.next_look(allocation),
        };
        match self.transactions.deadline() {
            Some(at) if at < own.0 => (at, "asking the TURN server again"),
            Some(_) | None => own,
        }
    }

    fn next_look(&self, allocation: &Allocation) -> (Instant, &'static str) {
        let refreshing = self.transactions.is_waiting(|ask| ask == Ask::Refresh);
        let refresh = if refreshing { allocation.ends } else { allocation.refresh_at() };
        match self.peers.deadline() {
            Some(at) if at < refresh && self.transactions.has_room() => (at, "renewing permissions at the TURN server"),
            Some(_) | None => (refresh, "refreshing the allocation"),
        }
    }

    /// What happened.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Opened { wall } => self.opened(wall, now),
            Input::Closed { reason } => self.fail(Trouble::Closed(reason.to_owned()), now),
            Input::Timeout => self.timeout(now),
            Input::Credentials(credentials) => self.settings.credentials = credentials.clone(),
        }
    }

    /// Gives the allocation back. What [`Relay::poll`] says then is the last to be sent; the relay is of no use any more.
    pub fn end(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Up(_)) {
            self.ask(Ask::Free, 0, now);
        }
    }

    /// Lets whoever is at `ip` speak to us. Said for each of a viewer's candidates, it saves that viewer the first check's loss.
    pub fn permit(&mut self, ip: IpAddr, now: Instant) {
        if message::is_peer(ip, self.settings.family) {
            self.peers.permit(ip, now);
            self.ask_for_peers(now);
        }
    }

    /// Appends to `out` what has to go to the server so that `payload` goes to `peer`, as one datagram or into the stream.
    ///
    /// # Errors
    /// It would not arrive.
    pub fn send(&mut self, peer: SocketAddr, payload: &[u8], now: Instant, out: &mut Vec<u8>) -> Result<(), NotSent> {
        let Phase::Up(allocation) = &mut self.phase else {
            return Err(NotSent::Down);
        };
        if !message::is_peer(peer.ip(), self.settings.family) {
            return Err(NotSent::Refused);
        }
        allocation.used = Some(now);
        let channel = self.peers.speak(peer, now);
        if self.peers.has_unasked() {
            self.ask_for_peers(now);
        }
        match channel {
            Some(number) => {
                out.extend(frames::channel_header(number, payload.len()).ok_or(NotSent::TooLong)?);
                out.extend_from_slice(payload);
                if self.settings.carrier == Carrier::Stream {
                    out.resize(out.len() + frames::padding(payload.len()), 0);
                }
            }
            // The request for the permission is before it on the same way.
            None if self.peers.is_permitted(peer.ip()) => {
                out.extend(message::send_indication(peer, payload).ok_or(NotSent::TooLong)?);
            }
            None => return Err(NotSent::Refused),
        }
        Ok(())
    }

    /// Takes what came from the server, a datagram or a piece of the stream, and gives `deliver` what came from peers.
    pub fn receive(&mut self, bytes: &[u8], now: Instant, mut deliver: impl FnMut(SocketAddr, &[u8])) {
        match self.settings.carrier {
            Carrier::Datagrams => self.message(bytes, now, &mut deliver),
            Carrier::Stream => {
                let mut stream = std::mem::take(&mut self.stream);
                let whole = stream.push(bytes, |message| self.message(message, now, &mut deliver));
                match whole {
                    // Not if a message has ended the connection, and with it the stream.
                    Ok(()) if !matches!(self.phase, Phase::Waiting { .. }) => self.stream = stream,
                    Ok(()) => {}
                    Err(frames::Garbled) => self.fail(Trouble::Garbled, now),
                }
            }
        }
    }

    fn message(&mut self, bytes: &[u8], now: Instant, deliver: &mut impl FnMut(SocketAddr, &[u8])) {
        let is_up = matches!(self.phase, Phase::Up(_));
        match bytes.first().copied().and_then(Kind::of) {
            Some(Kind::ChannelData) => {
                if is_up
                    && let Some((number, payload)) = frames::channel_data(bytes)
                    && let Some(peer) = self.peers.behind(number, now)
                {
                    deliver(peer, payload);
                }
            }
            Some(Kind::Stun) => {
                let Ok(message) = Message::from_bytes(bytes) else { return };
                let peers = &mut self.peers;
                let is_data = message::data_indication(&message, |peer, payload| {
                    // A server that relays from whom it was not told to would only cost us.
                    if is_up && peers.is_permitted(peer.ip()) {
                        peers.heard(peer.ip(), now);
                        deliver(peer, payload);
                    }
                });
                if !is_data {
                    self.answer(&message, now);
                }
            }
            None => {}
        }
    }

    fn opened(&mut self, wall: SystemTime, now: Instant) {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        let minted = self.settings.credentials.mint(wall);
        self.auth = LongTermClientAuth::new();
        self.auth.add_supported_integrity(stun_types::message::IntegrityAlgorithm::Sha256);
        self.auth
            .set_credentials(LongTermCredentials::new(minted.username, minted.password));
        self.stream = Stream::default();
        self.transactions.clear();
        self.allocate(false, now);
    }

    fn allocate(&mut self, cleared: bool, now: Instant) {
        let until = now + OPENING;
        self.phase = Phase::Allocating { until, cleared };
        self.ask(Ask::Allocate, 0, now);
    }

    fn ask(&mut self, ask: Ask, resigned: u8, now: Instant) {
        match message::write(ask, self.settings.family, &mut self.auth) {
            Ok(written) => {
                self.outputs.push_back(Output::Send(written.bytes.clone()));
                self.transactions
                    .add(written.id, ask, (written.signed, resigned), written.bytes, now);
            }
            Err(error) => self.fail(Trouble::Unfit(error.to_string()), now),
        }
    }

    fn ask_for_peers(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Up(_)) {
            let room = MAX_WAITING.saturating_sub(self.transactions.len());
            for ask in self.peers.ask(now, room) {
                self.ask(ask, 0, now);
            }
        }
    }

    fn timeout(&mut self, now: Instant) {
        match &self.phase {
            Phase::Waiting { until } if *until <= now => {
                self.phase = Phase::Opening { until: now + OPENING };
                self.outputs.push_back(Output::Open);
                return;
            }
            Phase::Opening { until } | Phase::Allocating { until, .. } if *until <= now => return self.fail(Trouble::Silent, now),
            Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Allocating { .. } | Phase::Up(_) => {}
        }
        let outputs = &mut self.outputs;
        let unanswered = self
            .transactions
            .timeout(now, |bytes| outputs.push_back(Output::Send(bytes.to_vec())));
        for ask in unanswered {
            match ask {
                Ask::Allocate | Ask::Refresh => return self.fail(Trouble::Silent, now),
                // Then it is not ours any more, or nobody hears us: the next answer tells.
                Ask::Free => self.ask(Ask::Allocate, 0, now),
                Ask::Permission(_) | Ask::Channel(..) => self.peers.answered(ask, false, now),
            }
        }
        if let Phase::Up(allocation) = &self.phase {
            if allocation.ends <= now {
                return self.lost(now);
            }
            let due = allocation.refresh_at() <= now;
            if due && !self.transactions.is_waiting(|ask| ask == Ask::Refresh) {
                self.ask(Ask::Refresh, 0, now);
            }
            self.ask_for_peers(now);
        }
    }

    fn answer(&mut self, message: &Message<'_>, now: Instant) {
        let Some(transaction) = self.transactions.find(message.transaction_id()) else {
            return;
        };
        let signed = transaction.signed;
        let Some(answer) = Answer::read(message) else { return };
        let verdict = self.auth.validate_incoming_message(message);
        // An answer that anybody could have written is none. A server without users signs nothing, and errors may come before it knows us.
        let trusted = verdict.is_ok() || !signed || matches!(answer, Answer::Refused { .. });
        if !trusted {
            return;
        }
        let Some(transaction) = self.transactions.take(message.transaction_id()) else {
            return;
        };
        match verdict {
            Ok(LongTermClientValidation::ResendRequest(_)) if transaction.resigned < MAX_RESIGNED => {
                self.ask(transaction.ask, transaction.resigned + 1, now);
                return;
            }
            Ok(LongTermClientValidation::ResendRequest(_)) => return self.fail(Trouble::Credentials, now),
            Err(error) if error.reason() == LongTermClientAuthErrorReason::UnsupportedFeature => {
                return self.fail(
                    Trouble::Unfit("it asks for a way of signing that peercam does not know".into()),
                    now,
                );
            }
            Ok(LongTermClientValidation::Validated(_)) | Err(_) => {}
        }
        match answer {
            Answer::Done(granted) => self.granted(&transaction, &granted, now),
            Answer::Refused { code, reason } => self.refused(&transaction, code, reason, now),
        }
    }

    fn granted(&mut self, transaction: &Transaction, granted: &Granted, now: Instant) {
        let lifetime = granted.lifetime.unwrap_or(Duration::from_secs(600)).max(LEAST_LIFETIME);
        match (transaction.ask, &mut self.phase) {
            (Ask::Allocate, Phase::Allocating { .. }) => {
                let Some(relayed) = granted.relayed else {
                    return self.fail(Trouble::Unfit("it named no relayed address".into()), now);
                };
                self.phase = Phase::Up(Allocation {
                    relayed,
                    since: now,
                    ends: now + lifetime,
                    confirmed: now,
                    used: None,
                });
                self.peers.start_anew();
                let mapped = granted.mapped;
                self.outputs.push_back(Output::Up { relayed, mapped });
                self.ask_for_peers(now);
            }
            (Ask::Refresh, Phase::Up(allocation)) => {
                allocation.confirmed = now;
                allocation.ends = now + lifetime;
            }
            (Ask::Free, Phase::Allocating { .. }) => self.allocate(true, now),
            (ask @ (Ask::Permission(_) | Ask::Channel(..)), Phase::Up(_)) => {
                self.peers.answered(ask, true, now);
                self.ask_for_peers(now);
            }
            // The answer to what is not wanted any more.
            (Ask::Allocate | Ask::Refresh | Ask::Free | Ask::Permission(_) | Ask::Channel(..), _) => {}
        }
    }

    fn refused(&mut self, transaction: &Transaction, code: u16, reason: String, now: Instant) {
        /// Allocation Mismatch: there is one already, or none.
        const MISMATCH: u16 = 437;
        const UNAUTHORIZED: u16 = 401;
        match (transaction.ask, &self.phase) {
            // Of an earlier life of this device, which had the same port.
            (Ask::Allocate, Phase::Allocating { cleared: false, until }) if code == MISMATCH => {
                self.phase = Phase::Allocating {
                    until: *until,
                    cleared: true,
                };
                self.ask(Ask::Free, 0, now);
            }
            (Ask::Free, _) => self.allocate(true, now),
            (Ask::Allocate, _) => self.fail(Trouble::refused(code, reason), now),
            (Ask::Refresh, Phase::Up(_)) => self.lost(now),
            // It was restarted, and knows us no longer.
            (Ask::Permission(_) | Ask::Channel(..), Phase::Up(_)) if matches!(code, MISMATCH | UNAUTHORIZED) => self.lost(now),
            (ask @ (Ask::Permission(_) | Ask::Channel(..)), _) => {
                tracing::debug!(code, reason, "the TURN server relays not to everybody");
                self.peers.answered(ask, false, now);
            }
            (Ask::Refresh, Phase::Waiting { .. } | Phase::Opening { .. } | Phase::Allocating { .. }) => {}
        }
    }

    /// The server has forgotten the allocation: it gets another one, at once unless that happens again and again.
    fn lost(&mut self, now: Instant) {
        self.settle_failures(now);
        if self.failures > 0 {
            return self.fail(Trouble::Forgotten, now);
        }
        self.failures = 1;
        self.outputs.push_back(Output::Down(Trouble::Forgotten));
        self.outputs.push_back(Output::Close);
        self.begin_again(Duration::ZERO, now);
    }

    /// An allocation that has lived for a while makes up for what went wrong before it.
    fn settle_failures(&mut self, now: Instant) {
        if let Phase::Up(allocation) = &self.phase
            && now >= allocation.since + SHORT_LIVED
        {
            self.failures = 0;
        }
    }

    fn fail(&mut self, trouble: Trouble, now: Instant) {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return;
        }
        self.settle_failures(now);
        let doubled = RETRY.0.saturating_mul(1 << self.failures.min(10)).min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.max(trouble.least_pause());
        self.outputs.push_back(Output::Down(trouble));
        self.outputs.push_back(Output::Close);
        self.begin_again(pause, now);
    }

    fn begin_again(&mut self, pause: Duration, now: Instant) {
        self.transactions.clear();
        self.stream = Stream::default();
        self.phase = Phase::Waiting { until: now + pause };
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
