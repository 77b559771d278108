//! One headless viewer, without socket, clock or task: messages and datagrams go in with their moment, what to send comes out.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peercam::protocol::{Candidates, Close, Hello, HelloReply, Id, Message, Offer, OfferReply, Playout, Reply, Request, VERSION};
use serde_json::Value;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::{Extension, ExtensionMap, RtpPacket};
use str0m::stats::{CandidatePairStats, MediaIngressStats};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

use crate::assembler::{Assembler, Packet};
use crate::control::Control;
use crate::moment::Moment;
use crate::tally::{Tally, Verdict};

/// A request is sent again, with the same id, if it is not answered in this time: the broker may have lost it.
const RETRY: Duration = Duration::from_secs(3);

/// After this time without an answer the viewer gives up.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an offer is good for, from when it is sent.
const OFFER_LIFE_MS: u64 = 15_000;

/// As long as the device coalesces requests of all viewers; asking more often would not help.
const PLI_INTERVAL: Duration = Duration::from_millis(300);

/// A viewer that asks without need and comes late to it does not make up for more than this.
const PLI_ARREARS: Duration = Duration::from_millis(100);

/// A device that hangs up usually says why over MQTT, which is slower than the connection itself.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Candidates of the device that are kept until the session's id is known.
const EARLY_CANDIDATES: usize = 64;

/// The moments of one viewer's join, as far as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    pub hello: Option<Moment>,
    pub hello_reply: Option<Moment>,
    pub offer: Option<Moment>,
    pub answer: Option<Moment>,
    pub connected: Option<Moment>,
    pub ended: Option<Moment>,
}

/// Why a viewer saw its end before the run's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No reply to `session.hello`: nobody is there.
    Unreachable,
    /// The device refused; its own words.
    Refused(String),
    /// The device closed the session; its own words.
    Closed(String),
    /// Something broke.
    Broken(String),
}

/// What a viewer is to ask for.
#[derive(Default)]
pub struct Wishes {
    /// The stream's name; the device's first one without.
    pub stream: Option<String>,
    /// Where the stream is written to.
    pub save: Option<Box<dyn Write>>,
    /// Offer no transport-wide feedback, as viewers that know none.
    pub no_twcc: bool,
    /// Ask for key frames in this distance, needed or not.
    pub pli_every: Option<Duration>,
}

/// What a viewer wants to have done.
#[derive(Debug)]
pub enum Action {
    Transmit(Transmit),
    /// A JSON-RPC message for the device.
    Publish(String),
}

enum Stage {
    Hello,
    Offered { hello: HelloReply },
    Joined { session: String },
    Ended,
}

struct Waiting {
    id: u64,
    text: String,
    since: Instant,
    again: Instant,
}

/// One viewer.
pub struct Viewer {
    pub milestones: Milestones,
    pub failure: Option<Failure>,
    pub tally: Tally,
    pub control: Control,
    pub plis: u64,
    pub datagram_bytes: u64,
    pub video_bytes: u64,
    pub packets: u64,
    pub ingress: Option<MediaIngressStats>,
    pub pair: Option<CandidatePairStats>,
    /// What stands in the way of saving, if anything.
    pub save_error: Option<std::io::Error>,
    rtc: Rtc,
    rtc_deadline: Instant,
    mid: Mid,
    pending: Option<SdpPendingOffer>,
    sdp: String,
    stream: Option<String>,
    local: Vec<Candidate>,
    remote: HashMap<SocketAddr, String>,
    early: Vec<Candidates>,
    stage: Stage,
    waiting: Option<Waiting>,
    next_id: u64,
    assembler: Assembler,
    pli_wanted: bool,
    pli_after: Option<Instant>,
    pli_every: Option<Duration>,
    /// When the next one is due that is asked for without need.
    pli_next: Option<Instant>,
    /// The connection has ended, as far as it tells itself; the device's own reason is waited for until then.
    hung_up: Option<(Instant, Failure)>,
    save: Option<Box<dyn Write>>,
    actions: VecDeque<Action>,
}

impl Viewer {
    /// A viewer that can be reached at `addresses`, and says hello at once.
    ///
    /// # Errors
    /// str0m does not take an address as a host candidate.
    pub fn new(addresses: &[SocketAddr], wishes: Wishes, now: Moment) -> anyhow::Result<Self> {
        let mut extensions = ExtensionMap::standard();
        if wishes.no_twcc {
            extensions = ExtensionMap::empty();
            extensions.set(4, Extension::RtpMid);
        }
        let mut rtc = Rtc::builder()
            .set_extension_map(extensions)
            .clear_codecs()
            .enable_h264(true)
            .set_rtp_mode(true)
            .set_extension(5, Extension::PlayoutDelay)
            .set_extension(6, Extension::AbsoluteCaptureTime)
            .set_stats_interval(Some(Duration::from_secs(1)))
            .build(now.mono);
        let mut changes = rtc.sdp_api();
        let mid = changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let channel = changes.add_channel("control".to_owned());
        let (offer, pending) = changes.apply().ok_or_else(|| anyhow::anyhow!("str0m made no offer"))?;
        let mut viewer = Self {
            milestones: Milestones {
                hello: Some(now),
                ..Milestones::default()
            },
            failure: None,
            tally: Tally::default(),
            control: Control::new(channel),
            plis: 0,
            datagram_bytes: 0,
            video_bytes: 0,
            packets: 0,
            ingress: None,
            pair: None,
            save_error: None,
            rtc,
            rtc_deadline: now.mono,
            mid,
            pending: Some(pending),
            sdp: offer.to_sdp_string(),
            stream: wishes.stream,
            local: Vec::new(),
            remote: HashMap::new(),
            early: Vec::new(),
            stage: Stage::Hello,
            waiting: None,
            next_id: 0,
            assembler: Assembler::default(),
            pli_wanted: false,
            pli_after: None,
            pli_every: wishes.pli_every,
            pli_next: None,
            hung_up: None,
            save: wishes.save,
            actions: VecDeque::new(),
        };
        viewer.drain(now);
        for address in addresses {
            let candidate = Candidate::host(*address, "udp")?;
            viewer.local.extend(viewer.rtc.add_local_candidate(candidate).cloned());
            viewer.drain(now);
        }
        viewer.ask("session.hello", &Hello { version: VERSION }, now);
        Ok(viewer)
    }

    /// Takes a message of the device that came over MQTT.
    pub fn message(&mut self, bytes: &[u8], now: Moment) {
        match Message::parse(bytes) {
            Ok(Message::Reply(reply)) => self.reply(reply, now),
            Ok(Message::Notification(note)) => self.notification(&note.method, note.params, now),
            Ok(Message::Request(_)) | Err(_) => tracing::debug!("a message that is neither reply nor notification"),
        }
    }

    /// Takes a datagram that came from `source` to our `destination`.
    pub fn datagram(&mut self, source: SocketAddr, destination: SocketAddr, bytes: &[u8], arrived: Moment) {
        self.datagram_bytes += bytes.len() as u64;
        let Ok(receive) = Receive::new(Protocol::Udp, source, destination, bytes) else {
            return;
        };
        let result = self.rtc.handle_input(Input::Receive(arrived.mono, receive));
        self.check("reading a datagram", result.map_err(|error| error.to_string()), arrived);
        self.drain(arrived);
    }

    /// To be called when [`Viewer::deadline`] is reached.
    pub fn timeout(&mut self, now: Moment) {
        let result = self.rtc.handle_input(Input::Timeout(now.mono));
        self.check("a WebRTC timer", result.map_err(|error| error.to_string()), now);
        self.drain(now);
        self.retry(now);
        if let Some((_, failure)) = self.hung_up.take_if(|(until, _)| now.mono >= *until) {
            self.end(Some(failure), now);
        }
        self.control.timeout(now);
        self.assemble(now);
        self.drain(now);
        self.pester(now);
    }

    /// When [`Viewer::timeout`] wants to be called.
    pub fn deadline(&self) -> Instant {
        let own = [
            self.assembler.deadline(),
            self.control.deadline(),
            self.hung_up.as_ref().map(|(until, _)| *until),
            self.waiting.as_ref().map(|waiting| waiting.again),
            self.pli_next,
        ];
        own.into_iter().flatten().fold(self.rtc_deadline, Instant::min)
    }

    /// The next thing to do, if any.
    pub fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Leaves, telling the device.
    pub fn leave(&mut self, reason: &str, now: Moment) {
        if let Stage::Joined { session } = &self.stage {
            let close = Close {
                session: session.clone(),
                reason: reason.to_owned(),
            };
            self.publish(Message::notification("session.close", &close).to_json());
        }
        self.end(None, now);
    }

    /// Whether it is over, by whoever's will.
    pub fn ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Packets that came after they had been given up.
    pub fn late_packets(&self) -> u64 {
        self.assembler.late()
    }

    /// What kind of candidate the device's `address` is, in SDP's words; `prflx` if it was never told.
    pub fn remote_kind(&self, address: SocketAddr) -> &str {
        self.remote.get(&address).map_or("prflx", String::as_str)
    }

    /// Whether the selected pair leads to one of this machine's own `addresses`.
    pub fn is_local(&self, addresses: &[IpAddr]) -> bool {
        self.pair.as_ref().is_some_and(|pair| addresses.contains(&pair.remote.addr.ip()))
    }

    fn publish(&mut self, text: String) {
        self.actions.push_back(Action::Publish(text));
    }

    fn ask(&mut self, method: &str, params: &impl serde::Serialize, now: Moment) {
        self.next_id += 1;
        let request = Message::Request(Request {
            id: Id::Number(self.next_id),
            method: method.to_owned(),
            params: serde_json::to_value(params).unwrap_or_default(),
        });
        let text = request.to_json();
        self.waiting = Some(Waiting {
            id: self.next_id,
            text: text.clone(),
            since: now.mono,
            again: now.mono + RETRY,
        });
        self.publish(text);
    }

    fn retry(&mut self, now: Moment) {
        let Some(waiting) = &mut self.waiting else { return };
        if now.mono >= waiting.since + PATIENCE {
            let failure = match &self.stage {
                Stage::Hello => Failure::Unreachable,
                Stage::Offered { .. } | Stage::Joined { .. } | Stage::Ended => {
                    Failure::Broken(format!("session.offer was not answered within {} s", PATIENCE.as_secs()))
                }
            };
            self.end(Some(failure), now);
        } else if now.mono >= waiting.again {
            waiting.again = now.mono + RETRY;
            let text = waiting.text.clone();
            self.publish(text);
        }
    }

    fn reply(&mut self, reply: Reply, now: Moment) {
        let waiting = self.waiting.take_if(|waiting| reply.id == Some(Id::Number(waiting.id)));
        if waiting.is_none() {
            return;
        }
        match (std::mem::replace(&mut self.stage, Stage::Ended), reply.result) {
            (Stage::Hello, Ok(result)) => match serde_json::from_value::<HelloReply>(result) {
                Ok(hello) => {
                    self.milestones.hello_reply = Some(now);
                    self.milestones.offer = Some(now);
                    self.offer(hello, now);
                }
                Err(error) => self.end(Some(Failure::Broken(format!("reading the reply to session.hello: {error}"))), now),
            },
            (Stage::Offered { hello }, Err(error)) if error.code == peercam::protocol::ErrorCode::Expired.number() => {
                let data = error.data.as_ref();
                let nonce = data.and_then(|data| data.get("nonce")).and_then(Value::as_str);
                let clock_ms = data.and_then(|data| data.get("clock_ms")).and_then(Value::as_u64);
                match (nonce, clock_ms) {
                    (Some(nonce), Some(clock_ms)) if nonce != hello.nonce => {
                        let nonce = nonce.to_owned();
                        self.offer(HelloReply { nonce, clock_ms, ..hello }, now);
                    }
                    _ => self.end(Some(Failure::Refused(error.to_string())), now),
                }
            }
            (Stage::Offered { .. }, Ok(result)) => match serde_json::from_value::<OfferReply>(result) {
                Ok(reply) => self.answer(reply, now),
                Err(error) => self.end(Some(Failure::Broken(format!("reading the reply to session.offer: {error}"))), now),
            },
            (Stage::Hello | Stage::Offered { .. }, Err(error)) => {
                let reason = error.data.as_ref().and_then(|data| data.get("reason")).and_then(Value::as_str);
                let refusal = format!("{} ({})", error.message, reason.unwrap_or("no reason named"));
                self.end(Some(Failure::Refused(refusal)), now);
            }
            (stage @ (Stage::Joined { .. } | Stage::Ended), _) => self.stage = stage,
        }
    }

    /// Sends the offer in the moment in which the device's clock was learned.
    fn offer(&mut self, hello: HelloReply, now: Moment) {
        let offer = Offer {
            nonce: hello.nonce.clone(),
            expires_ms: hello.clock_ms.saturating_add(OFFER_LIFE_MS),
            sdp: self.sdp.clone(),
            session: None,
            stream: self.stream.clone(),
            playout: Playout::Realtime,
        };
        self.stage = Stage::Offered { hello };
        self.ask("session.offer", &offer, now);
    }

    fn answer(&mut self, reply: OfferReply, now: Moment) {
        self.milestones.answer = Some(now);
        self.remember(&reply.sdp);
        let Some(pending) = self.pending.take() else { return };
        let accepted = SdpAnswer::from_sdp_string(&reply.sdp)
            .map_err(|error| error.to_string())
            .and_then(|answer| self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| error.to_string()));
        let session = reply.session;
        self.stage = Stage::Joined { session: session.clone() };
        self.check("taking the device's answer", accepted, now);
        self.drain(now);
        if self.ended() {
            return;
        }
        let candidates = self.local.iter().map(Candidate::to_sdp_string).collect();
        for candidates in [candidates, Vec::new()] {
            let trickle = Candidates {
                session: session.clone(),
                candidates,
            };
            self.publish(Message::notification("session.candidates", &trickle).to_json());
        }
        for early in std::mem::take(&mut self.early) {
            self.candidates(early, now);
        }
    }

    fn notification(&mut self, method: &str, params: Value, now: Moment) {
        match method {
            "session.candidates" => {
                if let Ok(candidates) = serde_json::from_value(params) {
                    self.candidates(candidates, now);
                }
            }
            "session.close" => {
                let Ok(close) = serde_json::from_value::<Close>(params) else {
                    return;
                };
                if matches!(&self.stage, Stage::Joined { session } if *session == close.session) {
                    self.end(Some(Failure::Closed(close.reason)), now);
                }
            }
            other => tracing::debug!(method = other, "unknown notification"),
        }
    }

    fn candidates(&mut self, trickle: Candidates, now: Moment) {
        match &self.stage {
            Stage::Joined { session } if *session == trickle.session => {
                for line in &trickle.candidates {
                    self.remember(line);
                    match Candidate::from_sdp_string(line) {
                        Ok(candidate) => {
                            self.rtc.add_remote_candidate(candidate);
                            self.drain(now);
                        }
                        Err(error) => tracing::debug!(%error, "a candidate that can't be used"),
                    }
                }
            }
            Stage::Offered { .. } if self.early.len() < EARLY_CANDIDATES => self.early.push(trickle),
            Stage::Hello | Stage::Offered { .. } | Stage::Joined { .. } | Stage::Ended => {}
        }
    }

    /// Notes which kind each candidate in `text` (SDP or single lines) is of.
    fn remember(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.strip_prefix("a=").unwrap_or(line);
            if let Ok(candidate) = Candidate::from_sdp_string(line) {
                self.remote.insert(candidate.addr(), candidate.kind().to_string());
            }
        }
    }

    /// One mutation, then drain: what waits to be written is written one by one with a drain after each.
    fn drain(&mut self, now: Moment) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => self.actions.push_back(Action::Transmit(transmit)),
                Ok(Output::Event(event)) => self.event(event, now),
                Ok(Output::Timeout(at)) => {
                    self.rtc_deadline = at;
                    if !self.mutate(now) {
                        return;
                    }
                }
                // str0m reports some orderly ends as an error too.
                Err(error) => {
                    self.rtc.disconnect();
                    self.rtc_deadline = now.mono + LAST_WORD;
                    self.hang_up(Failure::Broken(format!("the connection ended: {error}")), now);
                    return;
                }
            }
        }
    }

    fn hang_up(&mut self, failure: Failure, now: Moment) {
        self.hung_up.get_or_insert((now.mono + LAST_WORD, failure));
    }

    /// Does one thing that waits; `false` if none does.
    fn mutate(&mut self, now: Moment) -> bool {
        if self.ended() {
            return false;
        }
        if let Some((channel, text)) = self.control.write() {
            if let Some(mut channel) = self.rtc.channel(channel) {
                let result = channel.write(false, text.as_bytes()).map(|_| ());
                self.check("writing to the data channel", result.map_err(|error| error.to_string()), now);
            }
            return true;
        }
        if !self.pli_wanted || self.pli_after.is_some_and(|after| now.mono < after) {
            return false;
        }
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx_by_mid(self.mid, None) else {
            return false;
        };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        self.pli_wanted = false;
        self.pli_after = Some(now.mono + PLI_INTERVAL);
        self.plis += 1;
        true
    }

    /// Asks for the key frames that nobody needs. The stack sends one with each of its timeouts.
    fn pester(&mut self, now: Moment) {
        while let (Some(every), Some(next)) = (self.pli_every, self.pli_next.take_if(|next| *next <= now.mono)) {
            let earliest = now.mono.checked_sub(PLI_ARREARS).unwrap_or(now.mono);
            self.pli_next = Some((next + every).max(earliest));
            let mut api = self.rtc.direct_api();
            // There is none before the first packet.
            let Some(stream) = api.stream_rx_by_mid(self.mid, None) else {
                continue;
            };
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.plis += 1;
            let result = self.rtc.handle_input(Input::Timeout(now.mono));
            self.check("asking for a key frame", result.map_err(|error| error.to_string()), now);
            self.drain(now);
        }
    }

    fn event(&mut self, event: Event, now: Moment) {
        match event {
            Event::Connected => {
                self.milestones.connected = Some(now);
                self.pli_next = self.pli_every.map(|every| now.mono + every);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) if self.hung_up.is_none() => {
                self.end(
                    Some(Failure::Broken(
                        "the device can't be reached any more (ICE disconnected)".to_owned(),
                    )),
                    now,
                );
            }
            Event::Closed => self.hang_up(Failure::Closed("without a word".to_owned()), now),
            Event::RtpPacket(packet) => self.packet(packet, now),
            Event::ChannelOpen(channel, label) => self.control.opened(channel, &label, now),
            Event::ChannelData(data) => {
                if let Some(close) = self.control.message(&data.data, now) {
                    self.end(Some(Failure::Closed(close.reason)), now);
                }
            }
            Event::MediaIngressStats(stats) => self.ingress = Some(stats),
            Event::PeerStats(stats) => self.pair = stats.selected_candidate_pair.or_else(|| self.pair.take()),
            // str0m's list is open and has nothing else that a receiver measures.
            _ => {}
        }
    }

    fn packet(&mut self, packet: RtpPacket, now: Moment) {
        self.packets += 1;
        self.video_bytes += packet.payload.len() as u64;
        let capture = packet.header.ext_vals.abs_capture_time;
        self.assembler.push(Packet {
            seq: *packet.seq_no,
            ticks: packet.time.numer(),
            marker: packet.header.marker,
            capture_ms: capture.and_then(|stamp| {
                let unix = stamp.capture_time.duration_since(std::time::UNIX_EPOCH).ok()?;
                Some(unix.as_secs_f64() * 1e3)
            }),
            payload: packet.payload,
            arrived: now,
        });
        self.assemble(now);
    }

    fn assemble(&mut self, now: Moment) {
        while let Some(assembled) = self.assembler.poll(now.mono) {
            let save = self.save.as_mut().map(|save| &mut **save as &mut dyn Write);
            match self.tally.enter(&assembled, save) {
                Ok(Verdict::Fine) => self.pli_wanted = false,
                Ok(Verdict::NeedsKeyFrame) => self.pli_wanted = true,
                Err(error) => (self.save, self.save_error) = (None, Some(error)),
            }
        }
    }

    fn check(&mut self, doing: &str, result: Result<(), String>, now: Moment) {
        if let Err(error) = result {
            self.end(Some(Failure::Broken(format!("{doing}: {error}"))), now);
        }
    }

    fn end(&mut self, failure: Option<Failure>, now: Moment) {
        if self.milestones.ended.is_some() {
            return;
        }
        self.milestones.ended = Some(now);
        self.failure = failure;
        self.stage = Stage::Ended;
        self.waiting = None;
        self.pli_next = None;
        self.tally.finish(now);
        if let Some(mut save) = self.save.take() {
            self.save_error = save.flush().err();
        }
        if self.rtc.close().is_err() {
            self.rtc.disconnect();
        }
        // What DTLS and SCTP say at the end; events no longer matter.
        while let Ok(output) = self.rtc.poll_output() {
            match output {
                Output::Transmit(transmit) => self.actions.push_back(Action::Transmit(transmit)),
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
    }
}
