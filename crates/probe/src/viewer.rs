//! One headless viewer, without socket, clock or task: messages and datagrams go in with their moment, what to send comes out.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use peercam::media::Quality;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::stats::{CandidatePairStats, MediaIngressStats};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};

use crate::control::Control;
use crate::dialogue::{Dialogue, Failure, Heard};
use crate::moment::Moment;
use crate::video::Video;

/// A viewer that asks without need and comes late to it does not make up for more than this.
const PLI_ARREARS: Duration = Duration::from_millis(100);

/// A device that hangs up usually says why over MQTT, which is slower than the connection itself.
const LAST_WORD: Duration = Duration::from_millis(500);

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

/// What a viewer is to ask for.
#[derive(Default)]
pub struct Wishes {
    /// The stream's name; the device's first one without.
    pub stream: Option<String>,
    /// The rung to begin with.
    pub quality: Quality,
    /// Go to the other rung in this distance.
    pub change_quality_every: Option<Duration>,
    /// Where the stream is written to.
    pub save: Option<Box<dyn Write>>,
    /// Offer no transport-wide feedback, as viewers that know none.
    pub no_twcc: bool,
    /// How long after the first key frame latency is not yet counted.
    pub settle: Duration,
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

/// One viewer.
pub struct Viewer {
    pub milestones: Milestones,
    pub failure: Option<Failure>,
    pub video: Video,
    pub control: Control,
    pub datagram_bytes: u64,
    pub ingress: Option<MediaIngressStats>,
    pub pair: Option<CandidatePairStats>,
    rtc: Rtc,
    rtc_deadline: Instant,
    mid: Mid,
    pending: Option<SdpPendingOffer>,
    local: Vec<Candidate>,
    remote: HashMap<SocketAddr, String>,
    dialogue: Dialogue,
    pli_every: Option<Duration>,
    /// When the next one is due that is asked for without need.
    pli_next: Option<Instant>,
    /// The rung that was wished for last.
    quality: Quality,
    change_quality_every: Option<Duration>,
    change_quality_next: Option<Instant>,
    /// The connection has ended, as far as it tells itself; the device's own reason is waited for until then.
    hung_up: Option<(Instant, Failure)>,
    transmits: VecDeque<Transmit>,
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
            video: Video::new(wishes.settle, wishes.save),
            control: Control::new(channel),
            datagram_bytes: 0,
            ingress: None,
            pair: None,
            rtc,
            rtc_deadline: now.mono,
            mid,
            pending: Some(pending),
            local: Vec::new(),
            remote: HashMap::new(),
            dialogue: Dialogue::new(offer.to_sdp_string(), wishes.stream, wishes.quality, now),
            pli_every: wishes.pli_every,
            pli_next: None,
            quality: wishes.quality,
            change_quality_every: wishes.change_quality_every,
            change_quality_next: None,
            hung_up: None,
            transmits: VecDeque::new(),
        };
        viewer.drain(now);
        for address in addresses {
            let candidate = Candidate::host(*address, "udp")?;
            viewer.local.extend(viewer.rtc.add_local_candidate(candidate).cloned());
            viewer.drain(now);
        }
        Ok(viewer)
    }

    /// Takes a message of the device.
    pub fn message(&mut self, bytes: &[u8], now: Moment) {
        if let Some(heard) = self.dialogue.message(bytes, now) {
            self.heard(heard, now);
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
        if let Some(heard) = self.dialogue.timeout(now) {
            self.heard(heard, now);
        }
        if let Some((_, failure)) = self.hung_up.take_if(|(until, _)| now.mono >= *until) {
            self.end(Some(failure), now);
        }
        self.control.timeout(now);
        self.change_quality(now);
        self.video.timeout(now);
        self.drain(now);
        self.pester(now);
    }

    /// When [`Viewer::timeout`] wants to be called.
    pub fn deadline(&self) -> Instant {
        let own = [
            self.video.deadline(),
            self.control.deadline(),
            self.hung_up.as_ref().map(|(until, _)| *until),
            self.dialogue.deadline(),
            self.pli_next,
            self.change_quality_next,
        ];
        own.into_iter().flatten().fold(self.rtc_deadline, Instant::min)
    }

    /// The next thing to do, if any.
    pub fn action(&mut self) -> Option<Action> {
        let transmit = self.transmits.pop_front().map(Action::Transmit);
        transmit.or_else(|| self.dialogue.speak().map(Action::Publish))
    }

    /// Leaves, telling the device.
    pub fn leave(&mut self, reason: &str, now: Moment) {
        self.dialogue.leave(reason);
        self.end(None, now);
    }

    /// Whether it is over, by whoever's will.
    pub fn ended(&self) -> bool {
        self.milestones.ended.is_some()
    }

    /// What kind of candidate the device's `address` is, in SDP's words; `prflx` if it was never told.
    pub fn remote_kind(&self, address: SocketAddr) -> &str {
        self.remote.get(&address).map_or("prflx", String::as_str)
    }

    /// Whether the selected pair leads to one of this machine's own `addresses`.
    pub fn is_local(&self, addresses: &[IpAddr]) -> bool {
        self.pair.as_ref().is_some_and(|pair| addresses.contains(&pair.remote.addr.ip()))
    }

    fn heard(&mut self, heard: Heard, now: Moment) {
        match heard {
            Heard::Hello => {
                self.milestones.hello_reply = Some(now);
                self.milestones.offer = Some(now);
            }
            Heard::Answer(sdp) => self.answer(&sdp, now),
            Heard::Candidates(candidates) => self.candidates(&candidates, now),
            Heard::Ended(failure) => self.end(Some(failure), now),
        }
    }

    fn answer(&mut self, sdp: &str, now: Moment) {
        self.milestones.answer = Some(now);
        self.remember(sdp);
        let Some(pending) = self.pending.take() else { return };
        let accepted = SdpAnswer::from_sdp_string(sdp)
            .map_err(|error| error.to_string())
            .and_then(|answer| self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| error.to_string()));
        self.check("taking the device's answer", accepted, now);
        self.drain(now);
        if self.ended() {
            return;
        }
        let candidates = self.local.iter().map(Candidate::to_sdp_string).collect();
        let early = self.dialogue.tell_candidates(candidates);
        self.candidates(&early, now);
    }

    fn candidates(&mut self, candidates: &[String], now: Moment) {
        for line in candidates {
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
                Ok(Output::Transmit(transmit)) => self.transmits.push_back(transmit),
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
        if !self.video.needs_key_frame(now) {
            return false;
        }
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx_by_mid(self.mid, None) else {
            return false;
        };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        self.video.asked(now);
        true
    }

    fn change_quality(&mut self, now: Moment) {
        let Some(due) = self.change_quality_next.take_if(|next| *next <= now.mono) else {
            return;
        };
        self.change_quality_next = self.change_quality_every.map(|every| due + every);
        self.quality = match self.quality {
            Quality::High => Quality::Low,
            Quality::Low => Quality::High,
        };
        if let Some(session) = self.dialogue.session() {
            self.control.wish(session, self.quality);
        }
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
            self.video.plis += 1;
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
                self.change_quality_next = self.change_quality_every.map(|every| now.mono + every);
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
            Event::RtpPacket(packet) => self.video.packet(packet, now),
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
        self.dialogue.end();
        self.video.finish(now);
        (self.pli_next, self.change_quality_next) = (None, None);
        if self.rtc.close().is_err() {
            self.rtc.disconnect();
        }
        // What DTLS and SCTP say at the end; events no longer matter.
        while let Ok(output) = self.rtc.poll_output() {
            match output {
                Output::Transmit(transmit) => self.transmits.push_back(transmit),
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
    }
}
