//! A device's session and a viewer, joined by a network that delays, loses, and counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peercam::hub::{Hub, Next, Subscription};
use peercam::media::{AccessUnit, MediaTime, rtp};
use peercam::protocol::{Message, RpcError};
use peercam::session::{Ending, Event, Input, Outbox, Session, Transport, WallClock};
use str0m::channel::ChannelId;
use str0m::config::DtlsCert;
use str0m::media::{KeyframeRequestKind, MediaData, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Rtc, RtcConfig};

use super::film;
use super::setup::{Kind, answer_as, browser, certificate, clock, offer_of, player};
use super::wire::{Weather, Wire};

/// A viewer that can't decode asks again this often, as browsers do.
const PLI_INTERVAL: Duration = Duration::from_millis(300);

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
    /// When the viewer had all of each.
    pub whole_at: Vec<Instant>,
    pub heard: Vec<String>,
    pub channel: Option<ChannelId>,
    /// Time that the device's side has really taken, and datagrams that it sent: for benches.
    pub busy: Duration,
    pub datagrams: u64,
    next_unit: u32,
    /// The stream that is watched, and the place in it once there is a connection.
    hub: Option<Arc<Hub>>,
    subscription: Option<Subscription>,
    /// One of them has closed the connection, or it is cut: the viewer's stack may call that an error.
    leaving: bool,
    /// Whether the device ever was connected to the viewer.
    pub was_connected: bool,
    /// Pictures that the hub did not give because the viewer was too slow.
    pub dropped: u64,
    /// The viewer has no key frame yet, or misses a picture that those after it refer to.
    pub waits_for_key: bool,
    pli_at: Option<Instant>,
    mid: Option<Mid>,
}

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What a pair begins with.
pub struct Beginning<'a> {
    pub now: Instant,
    pub clock: WallClock,
    pub certificate: &'a DtlsCert,
    /// The session's.
    pub id: &'a str,
    pub weather: Weather,
    /// Of the network's luck.
    pub seed: u64,
}

impl Pair {
    /// A browser behind such a network that watches `hub`, connected.
    pub fn behind(weather: Weather, seed: u64, hub: &Arc<Hub>, now: Instant) -> Self {
        let mut pair = Self::watching(
            hub,
            Kind::Browser,
            &Beginning {
                now,
                clock: clock(now),
                certificate: &certificate(),
                id: "0123456789abcdef",
                weather,
                seed,
            },
        );
        pair.run_until(Duration::from_secs(10), |pair| pair.device.is_connected());
        pair
    }

    /// Two ends that have not spoken yet, `delay` apart.
    pub fn new(delay: Duration) -> Self {
        Self::of(delay, browser(), &[MediaKind::Video], Some("control"))
    }

    /// The same, where the viewer wants this, in this order.
    pub fn of(delay: Duration, viewer: RtcConfig, wanted: &[MediaKind], channel: Option<&str>) -> Self {
        let now = Instant::now();
        let beginning = Beginning {
            now,
            clock: clock(now),
            certificate: &certificate(),
            id: "0123456789abcdef",
            weather: Weather {
                delay,
                ..Weather::default()
            },
            seed: 0,
        };
        Self::begin(&beginning, viewer, wanted, channel)
    }

    /// A viewer that begins to watch `hub`.
    pub fn watching(hub: &Arc<Hub>, kind: Kind, beginning: &Beginning<'_>) -> Self {
        let (viewer, channel) = match kind {
            Kind::Browser => (browser(), Some("control")),
            Kind::Player => (player(), None),
        };
        let mut pair = Self::begin(beginning, viewer, &[MediaKind::Video], channel);
        pair.hub = Some(Arc::clone(hub));
        pair
    }

    fn begin(beginning: &Beginning<'_>, viewer: RtcConfig, wanted: &[MediaKind], channel: Option<&str>) -> Self {
        let Beginning {
            now,
            clock,
            certificate,
            id,
            weather,
            seed,
        } = *beginning;
        let device_address = "192.0.2.10:5000".parse().expect("an address");
        let (mut viewer, sdp, pending, viewer_address) = offer_of(now, viewer, wanted, channel);
        let (device, answer) = answer_as(id, certificate, &sdp, now, device_address).expect("the offer is accepted");
        let answer = str0m::change::SdpAnswer::from_sdp_string(&answer).expect("an answer");
        viewer.sdp_api().accept_answer(pending, answer).expect("the answer fits the offer");
        Self {
            device,
            viewer,
            now,
            start: now,
            clock,
            device_address,
            viewer_address,
            viewer_timeout: now,
            wires: [Wire::new(weather, 2 * seed), Wire::new(weather, 2 * seed + 1)],
            events: Vec::new(),
            pictures: Vec::new(),
            whole_at: Vec::new(),
            heard: Vec::new(),
            channel: None,
            busy: Duration::ZERO,
            datagrams: 0,
            next_unit: 0,
            hub: None,
            subscription: None,
            leaving: false,
            was_connected: false,
            dropped: 0,
            waits_for_key: true,
            pli_at: None,
            mid: None,
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

    /// From now on the network is like this.
    pub fn change(&mut self, weather: Weather) {
        self.wires.iter_mut().for_each(|wire| wire.weather = weather);
    }

    /// How long a datagram to the viewer would wait at the bottleneck now.
    pub fn waiting(&self) -> Duration {
        self.wires[0].waiting(self.now)
    }

    /// Bytes of IP packets to the viewer that the bottleneck took so far.
    pub fn squeezed(&self) -> u64 {
        self.wires[0].squeezed
    }

    /// From now on nothing arrives, either way.
    pub fn cut(&mut self) {
        self.wires.iter_mut().for_each(|wire| wire.cut = true);
        self.leaving = true;
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
        let key = self.next_unit == 0;
        let nal = film::slice(self.next_unit, size, key);
        self.next_unit += 1;
        let unit = AccessUnit {
            data: film::access_unit(&nal).into(),
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

    /// Gives the viewer what the hub has for it, as the driver does.
    pub fn take_pictures(&mut self) {
        loop {
            if self.device.deadline().0 <= self.now {
                if self.device.is_closed() {
                    return;
                }
                self.feed(Input::Timeout);
                continue;
            }
            if !self.device.is_ready(self.now) {
                return;
            }
            match self.subscription.as_mut().map(|subscription| subscription.next(self.now)) {
                Some(Next::Picture { picture, backlog }) => self.feed(Input::Picture {
                    unit: &picture.unit,
                    payloads: picture.payloads(),
                    backlog,
                }),
                Some(Next::Lagged { dropped }) => {
                    self.device.note_dropped(dropped);
                    self.dropped += dropped;
                }
                Some(Next::Nothing) | None => return,
            }
        }
    }

    /// The viewer closes its connection, or goes without a word if it has none yet.
    pub fn close(&mut self) {
        self.leaving = true;
        match self.viewer.close() {
            Ok(()) => self.drain_viewer(),
            Err(_) => self.vanish(),
        }
    }

    fn vanish(&mut self) {
        self.cut();
        self.viewer.disconnect();
        self.viewer_timeout = self.now + FOREVER;
    }

    /// The device closes the session.
    pub fn send_away(&mut self, ending: Ending) {
        self.leaving = true;
        let mut outbox = Outbox::default();
        self.device.close(None, ending, "the viewer left", self.now, &mut outbox);
        self.collect(outbox);
    }

    /// Forgets what was seen and heard so far.
    pub fn forget(&mut self) {
        self.events.clear();
        self.pictures.clear();
        self.whole_at.clear();
        self.heard.clear();
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
        self.restart_with(str::to_owned)
    }

    /// The same with an offer that is not quite what the viewer's stack wrote.
    pub fn restart_with(&mut self, edit: impl Fn(&str) -> String) -> Result<(), RpcError> {
        let mut change = self.viewer.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().expect("a restart is a change");
        let mut outbox = Outbox::default();
        let answer = self.device.restart(&edit(&offer.to_sdp_string()), self.now, &mut outbox)?;
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
        for event in &outbox.events {
            let Some(hub) = &self.hub else { break };
            match event {
                Event::Connected => {
                    self.was_connected = true;
                    self.subscription = Some(hub.subscribe(self.now));
                }
                Event::KeyFrameWanted => hub.target().request_key_frame(),
                Event::Closed(_) => self.subscription = None,
                Event::Message(_) | Event::Candidates(_) | Event::Carries(_) => {}
            }
        }
        self.events.extend(outbox.events);
    }

    /// The next thing that happens before `end`, if any.
    fn step(&mut self, end: Instant) -> bool {
        let device = if self.device.is_closed() { end } else { self.device.deadline().0 };
        let arrivals = self.wires.iter().filter_map(Wire::next);
        let next = arrivals
            .chain([device, self.viewer_timeout])
            .min()
            .expect("something is always to come")
            .max(self.now);
        if next >= end {
            return false;
        }
        self.now = next;
        if let Some(bytes) = self.wires[0].due(next) {
            let receive = Receive::new(Protocol::Udp, self.device_address, self.viewer_address, &bytes).expect("WebRTC");
            if self.viewer.is_alive() {
                self.viewer
                    .handle_input(str0m::Input::Receive(next, receive))
                    .expect("the viewer takes it");
                self.drain_viewer();
            }
        } else if let Some(bytes) = self.wires[1].due(next) {
            self.feed(Input::Datagram {
                transport: Transport::Udp,
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
        if self.subscription.is_some() {
            self.take_pictures();
        }
        true
    }

    fn drain_viewer(&mut self) {
        loop {
            let output = match self.viewer.poll_output() {
                Ok(output) => output,
                Err(_) if self.leaving => return self.vanish(),
                Err(error) => panic!("the viewer goes on: {error}"),
            };
            match output {
                str0m::Output::Timeout(at) => {
                    // A viewer that asks for a time long past would stop this clock.
                    self.viewer_timeout = at.max(self.now + Duration::from_nanos(1));
                    if !self.ask_for_key_frame() {
                        return;
                    }
                }
                str0m::Output::Transmit(transmit) => self.wires[1].carry(self.now, &transmit.contents),
                str0m::Output::Event(str0m::Event::MediaData(data)) => {
                    self.mid = Some(data.mid);
                    let whole = film::recognise(&data.data);
                    self.waits_for_key = match whole {
                        Some((_, true)) => false,
                        Some((_, false)) => self.waits_for_key || !data.contiguous,
                        None => true,
                    };
                    self.pictures.push(data);
                    self.whole_at.push(self.now);
                }
                str0m::Output::Event(str0m::Event::ChannelOpen(id, _)) => self.channel = Some(id),
                str0m::Output::Event(str0m::Event::ChannelData(data)) => {
                    self.heard.push(String::from_utf8(data.data).expect("the device speaks text"));
                }
                str0m::Output::Event(_) => {}
            }
        }
    }

    /// Whether it asked.
    fn ask_for_key_frame(&mut self) -> bool {
        if !self.waits_for_key || self.pli_at.is_some_and(|at| self.now < at + PLI_INTERVAL) {
            return false;
        }
        let Some(mid) = self.mid else { return false };
        let mut api = self.viewer.direct_api();
        let Some(stream) = api.stream_rx_by_mid(mid, None) else {
            return false;
        };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        self.pli_at = Some(self.now);
        true
    }
}
