//! A device's session and a viewer, joined by a network that delays, loses, and counts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peercam::media::{AccessUnit, Bitrate, MediaTime, StreamFormat, rtp};
use peercam::protocol::{Message, PeerId, Playout, Role, RpcError};
use peercam::session::{Event, Input, Outbox, Session, Setup, WallClock};
use str0m::channel::ChannelId;
use str0m::media::{Direction, MediaData, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Rtc, RtcConfig};

pub const FORMAT: StreamFormat = StreamFormat {
    width: 1280,
    height: 720,
    profile_level_id: [0x42, 0xe0, 0x1f],
};

/// Both ends, the network between them, and the one clock.
pub struct Pair {
    pub device: Session,
    pub viewer: Rtc,
    pub now: Instant,
    start: Instant,
    clock: WallClock,
    device_address: SocketAddr,
    viewer_address: SocketAddr,
    viewer_timeout: Instant,
    wires: [Wire; 2],
    pub events: Vec<Event>,
    pub pictures: Vec<MediaData>,
    pub heard: Vec<String>,
    pub channel: Option<ChannelId>,
    /// Time that the device's side has really taken, and datagrams that it sent: for benches.
    pub busy: Duration,
    pub datagrams: u64,
    next_unit: u32,
}

/// One direction of the network.
#[derive(Default)]
struct Wire {
    delay: Duration,
    /// Every so-manieth datagram is lost; 0 for none.
    lose_every: u64,
    cut: bool,
    count: u64,
    flying: VecDeque<(Instant, Vec<u8>)>,
}

impl Wire {
    fn carry(&mut self, now: Instant, bytes: &[u8]) {
        self.count += 1;
        let lost = self.cut || (self.lose_every > 0 && self.count.is_multiple_of(self.lose_every));
        if !lost {
            self.flying.push_back((now + self.delay, bytes.to_vec()));
        }
    }
}

/// A viewer's offer of a picture and a data channel, and the viewer that made it.
pub fn offer(now: Instant, viewer: RtcConfig) -> (Rtc, String, str0m::change::SdpPendingOffer, SocketAddr) {
    offer_of(now, viewer, &[MediaKind::Video], Some("control"))
}

/// The same for whatever is wanted, in this order.
fn offer_of(
    now: Instant,
    viewer: RtcConfig,
    wanted: &[MediaKind],
    channel: Option<&str>,
) -> (Rtc, String, str0m::change::SdpPendingOffer, SocketAddr) {
    let address: SocketAddr = "192.0.2.20:4000".parse().expect("an address");
    let mut viewer = viewer.build(now);
    viewer.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
    let mut change = viewer.sdp_api();
    for kind in wanted {
        change.add_media(*kind, Direction::RecvOnly, None, None, None);
    }
    if let Some(label) = channel {
        change.add_channel(label.into());
    }
    let (offer, pending) = change.apply().expect("an offer");
    (viewer, offer.to_sdp_string(), pending, address)
}

/// A viewer as browsers are: H.264, and the extensions that the device uses.
pub fn browser() -> RtcConfig {
    RtcConfig::new()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_h264(true)
        .set_extension(10, str0m::rtp::Extension::PlayoutDelay)
        .set_extension(11, str0m::rtp::Extension::AbsoluteCaptureTime)
}

/// A device's answer to `sdp`.
pub fn answer(sdp: &str, now: Instant, device_address: SocketAddr) -> Result<(Session, String), RpcError> {
    let certificate = str0m::crypto::from_feature_flags()
        .dtls_provider
        .generate_certificate()
        .expect("a certificate");
    let setup = Setup {
        id: "0123456789abcdef",
        peer: PeerId::parse("viewer").expect("a name"),
        role: Role::View,
        certificate: &certificate,
        format: FORMAT,
        bitrate: Bitrate::kbps(2_500),
        playout: Playout::Realtime,
        locals: &[device_address],
    };
    Session::accept(setup, sdp, now)
}

impl Pair {
    /// Two ends that have not spoken yet, `delay` apart.
    pub fn new(delay: Duration) -> Self {
        Self::of(delay, browser(), &[MediaKind::Video], Some("control"))
    }

    /// The same, where the viewer wants this, in this order.
    pub fn of(delay: Duration, viewer: RtcConfig, wanted: &[MediaKind], channel: Option<&str>) -> Self {
        let now = Instant::now();
        let device_address = "192.0.2.10:5000".parse().expect("an address");
        let (mut viewer, sdp, pending, viewer_address) = offer_of(now, viewer, wanted, channel);
        let (device, answer) = answer(&sdp, now, device_address).expect("the offer is accepted");
        let answer = str0m::change::SdpAnswer::from_sdp_string(&answer).expect("an answer");
        viewer.sdp_api().accept_answer(pending, answer).expect("the answer fits the offer");
        let wire = || Wire { delay, ..Wire::default() };
        Self {
            device,
            viewer,
            now,
            start: now,
            clock: WallClock {
                instant: now,
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            },
            device_address,
            viewer_address,
            viewer_timeout: now,
            wires: [wire(), wire()],
            events: Vec::new(),
            pictures: Vec::new(),
            heard: Vec::new(),
            channel: None,
            busy: Duration::ZERO,
            datagrams: 0,
            next_unit: 0,
        }
    }

    /// Two ends between which pictures can flow, with an open data channel.
    pub fn connected(delay: Duration) -> Self {
        let mut pair = Self::new(delay);
        pair.run_until(Duration::from_secs(5), |pair| pair.device.is_connected() && pair.channel.is_some());
        pair
    }

    /// From now on every so-manieth datagram to the viewer is lost.
    pub fn lose_every(&mut self, count: u64) {
        self.wires[0].lose_every = count;
    }

    /// From now on nothing arrives, either way.
    pub fn cut(&mut self) {
        self.wires.iter_mut().for_each(|wire| wire.cut = true);
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Sends one picture of `size` bytes, captured now; returns its NAL unit.
    pub fn send_picture(&mut self, size: usize) -> Vec<u8> {
        self.send_picture_of(size, 0)
    }

    /// The same, with `backlog` pictures waiting behind it.
    pub fn send_picture_of(&mut self, size: usize, backlog: u64) -> Vec<u8> {
        let number = self.next_unit;
        self.next_unit += 1;
        let key = number == 0;
        let mut nal = vec![if key { 0x65 } else { 0x41 }, 0x9a];
        nal.extend(number.to_be_bytes().iter().map(|byte| byte | 0x80));
        nal.resize(size, 0x55);
        let sps_pps: &[&[u8]] = if key {
            &[&[0x67, 0x42, 0xe0, 0x1f, 0x8c], &[0x68, 0xce, 0x3c]]
        } else {
            &[]
        };
        let mut data = Vec::new();
        for nal in sps_pps.iter().copied().chain([nal.as_slice()]) {
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(nal);
        }
        let unit = AccessUnit {
            data: data.into(),
            time: MediaTime::since(self.start, self.now),
            captured: self.now,
            key,
        };
        let payloads = rtp::packetize(&unit.data);
        self.feed(Input::Picture {
            unit: &unit,
            payloads: &payloads,
            backlog,
        });
        nal
    }

    /// Runs the device's timers up to `at`, as a driver does that runs them ahead of its clock.
    pub fn run_ahead(&mut self, at: Instant) {
        while self.device.deadline().0 <= at {
            let (due, now) = (self.device.deadline().0, self.now);
            self.now = due.max(now);
            self.feed(Input::Timeout);
            self.now = now;
        }
    }

    /// Lets the device say something on the data channel.
    pub fn tell(&mut self, message: &Message) {
        self.feed(Input::Message(message));
    }

    /// Lets the viewer say something on the data channel.
    pub fn say(&mut self, text: &str) {
        let id = self.channel.expect("the channel is open");
        let written = self
            .viewer
            .channel(id)
            .expect("the channel is there")
            .write(false, text.as_bytes())
            .expect("written");
        assert!(written, "the channel is full");
        self.drain_viewer();
    }

    /// Runs for `time`.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`; panics if that takes longer than `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.step(end), "still waiting after {limit:?}; events: {:?}", self.events);
        }
    }

    /// Restarts ICE from the viewer's side.
    pub fn restart(&mut self) -> Result<(), RpcError> {
        let mut change = self.viewer.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().expect("a restart is a change");
        let mut outbox = Outbox::default();
        let answer = self.device.restart(&offer.to_sdp_string(), self.now, &mut outbox)?;
        self.collect(outbox);
        let answer = str0m::change::SdpAnswer::from_sdp_string(&answer).expect("an answer");
        self.viewer.sdp_api().accept_answer(pending, answer).expect("the answer fits");
        self.drain_viewer();
        Ok(())
    }

    fn feed(&mut self, input: Input<'_>) {
        let mut outbox = Outbox::default();
        let began = Instant::now();
        self.device.handle(input, self.now, &self.clock, &mut outbox);
        self.busy += began.elapsed();
        self.collect(outbox);
    }

    fn collect(&mut self, outbox: Outbox) {
        self.datagrams += outbox.datagrams.len() as u64;
        for (_, datagram) in outbox.datagrams.iter() {
            self.wires[0].carry(self.now, datagram);
        }
        self.events.extend(outbox.events);
    }

    /// The next thing that happens before `end`, if any.
    fn step(&mut self, end: Instant) -> bool {
        let device = if self.device.is_closed() { end } else { self.device.deadline().0 };
        let arrivals = self.wires.iter().filter_map(|wire| wire.flying.front().map(|(at, _)| *at));
        let next = arrivals
            .chain([device, self.viewer_timeout])
            .min()
            .expect("something is always to come")
            .max(self.now);
        if next >= end {
            return false;
        }
        self.now = next;
        if let Some(bytes) = due(&mut self.wires[0], next) {
            let receive = Receive::new(Protocol::Udp, self.device_address, self.viewer_address, &bytes).expect("WebRTC");
            self.viewer
                .handle_input(str0m::Input::Receive(next, receive))
                .expect("the viewer takes it");
            self.drain_viewer();
        } else if let Some(bytes) = due(&mut self.wires[1], next) {
            self.feed(Input::Datagram {
                source: self.viewer_address,
                destination: self.device_address,
                bytes: &bytes,
            });
        } else if device <= next && !self.device.is_closed() {
            self.feed(Input::Timeout);
        } else {
            self.viewer.handle_input(str0m::Input::Timeout(next)).expect("the viewer goes on");
            self.drain_viewer();
        }
        true
    }

    fn drain_viewer(&mut self) {
        loop {
            match self.viewer.poll_output().expect("the viewer goes on") {
                str0m::Output::Timeout(at) => {
                    // A viewer that asks for a time long past would stop this clock.
                    self.viewer_timeout = at.max(self.now + Duration::from_nanos(1));
                    return;
                }
                str0m::Output::Transmit(transmit) => self.wires[1].carry(self.now, &transmit.contents),
                str0m::Output::Event(str0m::Event::MediaData(data)) => self.pictures.push(data),
                str0m::Output::Event(str0m::Event::ChannelOpen(id, _)) => self.channel = Some(id),
                str0m::Output::Event(str0m::Event::ChannelData(data)) => {
                    self.heard.push(String::from_utf8(data.data).expect("the device speaks text"));
                }
                str0m::Output::Event(_) => {}
            }
        }
    }
}

fn due(wire: &mut Wire, now: Instant) -> Option<Vec<u8>> {
    wire.flying
        .front()
        .is_some_and(|(at, _)| *at <= now)
        .then(|| wire.flying.pop_front().map(|(_, bytes)| bytes))
        .flatten()
}
