//! One viewer's session: WebRTC, its data channel and its bandwidth estimate, without sockets, clocks or tasks.
//!
//! The driver gives it the time with every [`Input`] and takes what it has to say from an [`Outbox`]. After each input the
//! stack is drained until it only waits for a timeout: one mutation, then drain.

mod channel;
mod events;
mod figures;
mod ladder;
mod offer;
mod outbox;
mod outgoing;
mod rtc;
mod seam;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::Rtc;
use str0m::channel::ChannelId;
use str0m::media::{Mid, Pt};
use str0m::net::Receive;

use self::ladder::Ladder;
use crate::media::{Bitrate, MediaTime, Quality, StreamFormat};
use crate::protocol::{ErrorCode, Message, PeerId, Playout, Role, RpcError};

pub use figures::{Counts, Ending, SessionFigures};
pub use outbox::{Datagrams, Outbox, Route, Run, Transport};
pub use seam::{Event, Input, Reflexive, Relayed, Setup, WallClock};

/// A viewer that has not connected by then never will: browsers give up after about as long.
const CONNECT_TIME: Duration = Duration::from_secs(15);

/// Candidates taken of a viewer: browsers have a dozen. Each costs a check with every address of ours.
const MAX_CANDIDATES: usize = 32;

/// Addresses of ours outside this network that one session is told of: a server that comes and goes gives a new one each time.
const MAX_OUTSIDE: usize = 256;

/// How a STUN message begins that answers a check (RFC 8489, 5).
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// One viewer's session.
pub struct Session {
    rtc: Rtc,
    peer: PeerId,
    role: Role,
    /// The viewer's DTLS certificate, as its first offer told it.
    fingerprints: Vec<String>,
    format: StreamFormat,
    playout: Playout,
    target: Bitrate,
    quality: Quality,
    /// What the encoder of the high rung is asked for.
    high: Bitrate,
    ladder: Ladder,
    /// Of the last picture that was sent.
    last_time: Option<MediaTime>,
    media: Option<(Mid, Pt)>,
    channel: Option<ChannelId>,
    connected: bool,
    seq_no: u64,
    /// The last time given to the stack: it must never run backwards.
    now: Instant,
    /// When the stack wants the time.
    stack_due: Instant,
    /// When it has to get it.
    next_timeout: Instant,
    /// When the session gives up, unless the connection is there.
    give_up: Option<(Instant, Ending, &'static str)>,
    /// Not before then may the next picture be sent.
    ready_at: Instant,
    /// For how many seconds in a row packets have been lost.
    lossy_secs: u32,
    /// Whether the path is known to be too narrow: then the stack paces.
    narrow: bool,
    /// Whether the stack is told the whole rate that is wanted, or a little less so that it can rise.
    asks: bool,
    /// Bits a second sent in the last second.
    sent_rate: u64,
    sent_before: Option<(u64, Instant)>,
    requests: usize,
    /// How many of the viewer's candidates were taken since the last ICE restart.
    candidates: usize,
    /// How the newest of this device's own addresses is preferred.
    newest_host: u16,
    /// How many of our addresses outside this network it was told of.
    outside: usize,
    /// The way that the newest picture went.
    path: Option<Route>,
    /// Where viewers may connect by TCP.
    tcp_port: Option<u16>,
    /// That address is gone or the viewer has given the way up, and with it what was on it; no other way has been found yet.
    cut: bool,
    dropped: u64,
    /// A second ago.
    dropped_before: u64,
    /// What the stack reported and is not dealt with yet; empty between inputs.
    pending: VecDeque<str0m::Event>,
    closed: bool,
    ending: Ending,
    figures: SessionFigures,
}

impl Session {
    /// Accepts a viewer's offer; returns the session and the answer's SDP.
    ///
    /// # Errors
    /// [`ErrorCode::UnsupportedCodec`] where the viewer can't decode the stream, [`ErrorCode::InvalidParams`] where the
    /// offer is no offer.
    pub fn accept(setup: Setup<'_>, sdp: &str, now: Instant) -> Result<(Self, String), RpcError> {
        let candidates = count_candidates(sdp)?;
        let choice = offer::choose(sdp, setup.format).map_err(|sentence| RpcError::new(ErrorCode::UnsupportedCodec, sentence))?;
        let start_bitrate = offer::reports_arrivals(sdp).then_some(setup.bitrate);
        let mut rtc = rtc::build(setup.certificate, choice, start_bitrate, now);
        let answer =
            rtc::accept(&mut rtc, sdp, &setup.candidates()).map_err(|sentence| RpcError::new(ErrorCode::InvalidParams, sentence))?;
        if !offer::sends_video(&answer) {
            let sentence = "the offer asks for no video: it needs a video section that receives";
            return Err(RpcError::new(ErrorCode::InvalidParams, sentence));
        }
        // A random start hides how long the stream has run (RFC 3550, 5.1); below 2^15 the roll-over counter starts at zero.
        let seq_no = setup.id.bytes().fold(0u64, |sum, byte| (sum * 31 + u64::from(byte)) % (1 << 15));
        let mut session = Self {
            rtc,
            peer: setup.peer,
            role: setup.role,
            fingerprints: offer::fingerprints(sdp),
            format: setup.format,
            playout: setup.playout,
            target: setup.bitrate,
            quality: setup.quality,
            high: setup.high,
            ladder: Ladder::new(now),
            last_time: None,
            media: None,
            channel: None,
            connected: false,
            seq_no,
            now,
            stack_due: now,
            next_timeout: now,
            give_up: Some((
                now + CONNECT_TIME,
                Ending::NeverConnected,
                "no network path to the viewer was found",
            )),
            ready_at: now,
            lossy_secs: 0,
            narrow: false,
            asks: true,
            sent_rate: 0,
            sent_before: None,
            requests: 0,
            candidates,
            newest_host: rtc::FIRST_HOST,
            outside: setup.reflexive.len() + setup.relayed.len(),
            path: None,
            tcp_port: setup.tcp_port,
            cut: false,
            dropped: 0,
            dropped_before: 0,
            pending: VecDeque::new(),
            closed: false,
            ending: Ending::Failed,
            figures: SessionFigures::default(),
        };
        let mut outbox = Outbox::default();
        session.drain(&mut outbox);
        Ok((session, offer::finish(&answer, setup.format)))
    }

    /// Accepts an offer that restarts ICE; the session, its keys and its data channel stay.
    ///
    /// # Errors
    /// [`ErrorCode::Conflict`] if the offer comes with another DTLS fingerprint, [`ErrorCode::InvalidParams`] if it is none.
    pub fn restart(&mut self, sdp: &str, now: Instant, outbox: &mut Outbox) -> Result<String, RpcError> {
        // The handshake that proves it may still be on its way, so it is compared with the first offer's.
        let offered = offer::fingerprints(sdp);
        let same = !offered.is_empty() && offered.iter().all(|line| self.fingerprints.contains(line));
        if !same {
            return Err(RpcError::new(
                ErrorCode::Conflict,
                "the offer belongs to another viewer: its DTLS fingerprint is a different one",
            ));
        }
        self.candidates = count_candidates(sdp)?;
        self.now = self.now.max(now);
        let answer = rtc::accept(&mut self.rtc, sdp, &[]).map_err(|sentence| RpcError::new(ErrorCode::InvalidParams, sentence))?;
        self.cut = true;
        self.ladder.forget();
        self.drain(outbox);
        Ok(offer::finish(&answer, self.format))
    }

    /// Whose session it is.
    #[must_use]
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// What they may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The stream is of this format now. `false`: its profile is another one, and a new session has to be agreed on.
    #[must_use]
    pub fn follow(&mut self, format: StreamFormat) -> bool {
        let carried = offer::carries(self.format, format);
        if carried {
            self.format = format;
        }
        carried
    }

    /// The local ICE user name fragment, by which the first STUN packets find their session.
    pub fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Whether media can flow.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The way that pictures go, once they do.
    #[must_use]
    pub fn path(&self) -> Option<Route> {
        self.path
    }

    /// Whether it is over and can be forgotten.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the path takes a picture now. Until then pictures wait in the hub, which drops what becomes too old.
    #[must_use]
    pub fn is_ready(&mut self, now: Instant) -> bool {
        // Timers run a little ahead of the clock; what they have reached counts, or the one set for `ready_at` would be spent.
        if !self.connected || self.closed || now.max(self.now) < self.ready_at {
            return false;
        }
        let Some((mid, _)) = self.media else { return false };
        // Unpaced, a picture leaves at once. What the stack tells of its queue is older, and would hold the next picture back
        // until its pacer looks again, up to 40 ms later.
        if !self.narrow {
            return true;
        }
        let mut api = self.rtc.direct_api();
        let queued = api
            .stream_tx_by_mid(mid, None)
            .and_then(|stream| stream.queue_info().map(str0m::rtp::StreamTxQueueInfo::packet_count));
        queued.unwrap_or(0) == 0
    }

    /// When [`Input::Timeout`] is due, and what for.
    #[must_use]
    pub fn deadline(&self) -> (Instant, &'static str) {
        let stack = (self.next_timeout, "webrtc");
        let ready = (self.ready_at, "catching up");
        let stack = if self.ready_at > self.now && ready.0 < stack.0 {
            ready
        } else {
            stack
        };
        match self.give_up {
            Some((at, ..)) if at < stack.0 => (at, "giving up"),
            Some(_) | None => stack,
        }
    }

    /// The bandwidth estimate of this viewer's path, once there is one.
    #[must_use]
    pub fn estimate(&self) -> Option<Bitrate> {
        self.figures.estimate
    }

    /// What it has counted, and how its path is.
    #[must_use]
    pub fn figures(&self) -> SessionFigures {
        self.figures
    }

    /// Why it ended, once it is over.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.closed.then_some(self.ending)
    }

    /// Whether a rung of this format can be shown within what was agreed on.
    #[must_use]
    pub fn can_carry(&self, rung: StreamFormat) -> bool {
        offer::decodes(self.format, rung)
    }

    /// The viewer is shown this rung now, whose encoder is asked for this bit rate.
    pub fn shows(&mut self, quality: Quality, bitrate: Bitrate) {
        self.quality = quality;
        self.target = bitrate;
    }

    /// The encoder of the high rung is asked for this bit rate now.
    pub fn set_high(&mut self, bitrate: Bitrate) {
        self.high = bitrate;
    }

    /// Pictures were dropped because the viewer's path was full.
    pub fn note_dropped(&mut self, pictures: u64) {
        self.dropped += pictures;
    }

    /// One input, then everything that follows from it. A failure closes this session alone.
    ///
    /// Returns whether the input was meant for this session: a datagram may be somebody else's.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, clock: &WallClock, outbox: &mut Outbox) -> bool {
        if self.closed {
            return false;
        }
        self.now = self.now.max(now);
        let done = match input {
            Input::Datagram {
                transport,
                source,
                destination,
                bytes,
            } => match self.datagram(transport, source, destination, bytes, outbox) {
                Ok(true) => Ok(()),
                Ok(false) => return false,
                Err(reason) => Err((Ending::Failed, reason)),
            },
            Input::Timeout => self.timeout(outbox),
            Input::Picture { unit, payloads, backlog } => {
                self.picture(unit, payloads, backlog, clock, outbox);
                if self.stack_due <= self.now { self.stack_timeout() } else { Ok(()) }
            }
            Input::Message(message) => {
                if matches!(message, Message::Reply(_)) {
                    self.requests = self.requests.saturating_sub(1);
                }
                self.say(message).map_err(|reason| (Ending::ChannelFull, reason))
            }
            Input::Candidates(candidates) => {
                self.candidates(candidates);
                Ok(())
            }
            Input::AddressesAdded(addresses) => {
                let hosts = addresses.iter().map(|address| {
                    self.newest_host = self.newest_host.saturating_add(1);
                    rtc::hosts(*address, self.tcp_port, self.newest_host)
                });
                let hosts: Vec<_> = hosts.flatten().collect();
                self.add_locals(hosts, outbox);
                Ok(())
            }
            Input::AddressesGone(addresses) => {
                for address in addresses {
                    for host in rtc::hosts(*address, self.tcp_port, 0) {
                        self.cut |= self.path.is_some_and(|path| path.begin() == (host.proto().into(), host.addr()));
                        self.remove_local(Some(host));
                    }
                }
                Ok(())
            }
            Input::ReflexiveAdded(reflexive) => {
                self.add_outside(rtc::reflexive(reflexive), outbox);
                Ok(())
            }
            // Our checks leave from its base all the same: only what it was called is no more.
            Input::ReflexiveGone(reflexive) => {
                self.remove_local(rtc::reflexive(reflexive));
                Ok(())
            }
            Input::RelayedAdded(relayed) => {
                self.add_outside(rtc::relayed(relayed), outbox);
                Ok(())
            }
            Input::RelayedGone(relayed) => {
                self.cut |= self.path.is_some_and(|path| path.source == relayed.address);
                self.remove_local(rtc::relayed(relayed));
                Ok(())
            }
        };
        match done {
            Ok(()) => self.drain_and_answer(clock, outbox),
            Err((ending, reason)) => self.finish(ending, reason, outbox),
        }
        true
    }

    /// Says good-bye: on the data channel in words, then in every protocol below it.
    pub fn close(&mut self, farewell: Option<&Message>, ending: Ending, reason: &str, now: Instant, outbox: &mut Outbox) {
        if self.closed {
            return;
        }
        self.now = self.now.max(now);
        if let Some(message) = farewell
            && self.say(message).is_ok()
        {
            self.drain(outbox);
        }
        self.hang_up(ending, reason, outbox);
    }

    fn hang_up(&mut self, ending: Ending, reason: &str, outbox: &mut Outbox) {
        self.finish(ending, reason.to_owned(), outbox);
        if self.rtc.close().is_ok() {
            self.drain(outbox);
        }
    }

    fn finish(&mut self, ending: Ending, reason: String, outbox: &mut Outbox) {
        if !self.closed {
            self.closed = true;
            self.ending = ending;
            self.connected = false;
            outbox.events.push(Event::Closed(reason));
        }
    }

    fn datagram(
        &mut self,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> Result<bool, String> {
        // What is no WebRTC packet came to the wrong address; it says nothing about this session.
        let Ok(receive) = Receive::new(transport.into(), source, destination, bytes) else {
            return Ok(false);
        };
        let input = str0m::Input::Receive(self.now, receive);
        // STUN carries its own proof. For the rest the driver knows the address; the stack would refuse a ClientHello that
        // overtakes our own check of the same path, and cost the viewer half a second until it is sent again.
        let is_stun = bytes.first().is_some_and(|first| *first < 4);
        if is_stun && !self.rtc.accepts(&input) {
            return Ok(false);
        }
        self.rtc
            .handle_input(input)
            .map_err(|error| format!("the viewer sent what WebRTC forbids: {error}"))?;
        if bytes.starts_with(&BINDING_SUCCESS) {
            let back = Route {
                transport,
                source: destination,
                destination: source,
            };
            self.answered(back, outbox);
        }
        // It may have asked for packets again; the stack itself would look for that only when its pacer's time comes.
        if outgoing::is_rtcp(bytes) && !self.narrow {
            self.send_now(None, outbox);
        }
        Ok(true)
    }

    fn timeout(&mut self, outbox: &mut Outbox) -> Result<(), (Ending, String)> {
        if let Some((at, ending, reason)) = self.give_up
            && self.now >= at
        {
            self.hang_up(ending, reason, outbox);
            return Ok(());
        }
        self.stack_timeout()
    }

    fn stack_timeout(&mut self) -> Result<(), (Ending, String)> {
        self.rtc
            .handle_input(str0m::Input::Timeout(self.now))
            .map_err(|error| (Ending::Failed, format!("the connection failed: {error}")))
    }

    fn candidates(&mut self, candidates: &[String]) {
        for line in candidates.iter().take(MAX_CANDIDATES.saturating_sub(self.candidates)) {
            self.candidates += 1;
            // A `.local` name can't be resolved here; the viewer's own checks tell its address (peer-reflexive).
            if let Ok(candidate) = str0m::Candidate::from_sdp_string(line) {
                self.rtc.add_remote_candidate(candidate);
            }
        }
    }

    /// A check of ours was answered: this way leads to the viewer.
    fn answered(&mut self, way: Route, outbox: &mut Outbox) {
        if std::mem::take(&mut self.cut) {
            // The viewer takes seconds to notice that the way that it has chosen is gone, and to choose another one.
            self.rtc.direct_api().send_by(str0m::SendAddr {
                proto: way.transport.into(),
                source: way.source,
                destination: way.destination,
            });
            self.path = Some(way);
            outbox.events.push(Event::KeyFrameWanted);
        }
        // However many seconds that takes: the way that pictures go is not lost.
        if self.path.is_some_and(|path| path.begin() == way.begin())
            && let Some((until, Ending::PathLost, _)) = &mut self.give_up
        {
            *until = self.now + events::LOST_TIME;
        }
    }

    fn add_outside(&mut self, candidate: Option<str0m::Candidate>, outbox: &mut Outbox) {
        self.outside += 1;
        let Some(candidate) = candidate.filter(|_| self.outside <= MAX_OUTSIDE) else {
            return;
        };
        // What the viewer's answer to a check has told the stack already, it does not take again; the viewer has to know it all the same.
        let known = candidate.to_sdp_string();
        let line = self
            .rtc
            .add_local_candidate(candidate)
            .map_or(known, str0m::Candidate::to_sdp_string);
        outbox.events.push(Event::Candidates(vec![line]));
    }

    fn remove_local(&mut self, candidate: Option<str0m::Candidate>) {
        if let Some(candidate) = candidate {
            self.rtc.direct_api().invalidate_candidate(&candidate);
        }
    }

    fn add_locals(&mut self, candidates: impl IntoIterator<Item = str0m::Candidate>, outbox: &mut Outbox) {
        let added: Vec<String> = candidates
            .into_iter()
            .filter_map(|candidate| self.rtc.add_local_candidate(candidate).map(str0m::Candidate::to_sdp_string))
            .collect();
        if !added.is_empty() {
            outbox.events.push(Event::Candidates(added));
        }
    }
}

/// How many candidates an offer holds, if they are not too many.
fn count_candidates(sdp: &str) -> Result<usize, RpcError> {
    let count = offer::candidates(sdp);
    if count > MAX_CANDIDATES {
        let sentence = format!("the offer has more than {MAX_CANDIDATES} candidates");
        return Err(RpcError::new(ErrorCode::InvalidParams, sentence));
    }
    Ok(count)
}
