//! A viewer against a str0m sender in virtual time: no socket, no clock, no sleep.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use peercam::protocol::{Clock, ErrorCode, Id, Message, Reply, RpcError};
use serde_json::{Value, json};
use str0m::change::SdpOffer;
use str0m::format::Codec;
use str0m::media::{KeyframeRequestKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{AbsCaptureTime, Extension, ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::args::ClockChoice;
use crate::dialogue::Failure;
use crate::moment::Moment;
use crate::report::{Account, Reading};
use crate::viewer::{Action, Viewer, Wishes};

const VIEWER: &str = "10.0.0.2:5000";
const DEVICE: &str = "10.0.0.1:7000";

/// One way of the link.
const LINK_MS: f64 = 5.0;

/// The device's clock is this far ahead of the viewer's.
const AHEAD_MS: f64 = 250.0;

/// Capture and encoding.
const CAMERA_MS: f64 = 12.0;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A device as the protocol knows it: answers over a lossless broker, sends RTP over a link that loses what the test says.
struct Device {
    rtc: Rtc,
    mid: Option<Mid>,
    pt: Option<Pt>,
    connected: bool,
    seq: u64,
    frames: u64,
    key_wanted: bool,
    plis: u64,
    /// What `session.offer` is answered with before it is taken.
    refusals: VecDeque<RpcError>,
    offers: Vec<Value>,
    heard: Vec<Value>,
    to_viewer: Vec<String>,
    sent: Vec<u8>,
}

/// Viewer, device, and the link between them.
struct World {
    now: Moment,
    viewer: Viewer,
    device: Device,
    /// Datagrams under way: when they arrive, a number for order, whether to the viewer, the bytes.
    under_way: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    start: Moment,
    number: u64,
    /// Which pictures' packets the link loses, retransmissions too.
    losing: bool,
    next_frame_ms: f64,
}

impl Device {
    fn new(now: Moment) -> Self {
        let rtc = Rtc::builder()
            .clear_codecs()
            .enable_h264(true)
            .set_rtp_mode(true)
            .set_extension(5, Extension::PlayoutDelay)
            .set_extension(6, Extension::AbsoluteCaptureTime)
            .build(now.mono);
        Self {
            rtc,
            mid: None,
            pt: None,
            connected: false,
            seq: 100,
            frames: 0,
            key_wanted: true,
            plis: 0,
            refusals: VecDeque::new(),
            offers: Vec::new(),
            heard: Vec::new(),
            to_viewer: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn drain(&mut self, now: Moment) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let mut answers = VecDeque::new();
        loop {
            match self.rtc.poll_output().expect("the sender works") {
                Output::Timeout(_) => {
                    let Some((channel, text)) = answers.pop_front() else {
                        return datagrams;
                    };
                    let mut channel = self.rtc.channel(channel).expect("an open channel");
                    assert!(channel.write(false, String::as_bytes(&text)).expect("room in the channel"));
                }
                Output::Transmit(transmit) => datagrams.push(transmit.contents.to_vec()),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::MediaAdded(media)) => self.mid = Some(media.mid),
                Output::Event(Event::KeyframeRequest(request)) => {
                    assert_eq!(request.kind, KeyframeRequestKind::Pli);
                    self.plis += 1;
                    self.key_wanted = true;
                }
                Output::Event(Event::ChannelData(data)) => {
                    let Ok(Message::Request(request)) = Message::parse(&data.data) else {
                        panic!("not a request")
                    };
                    assert_eq!(request.method, "session.clock");
                    let stamp = now.unix_ms + AHEAD_MS;
                    let clock = Clock {
                        received_ms: stamp,
                        sent_ms: stamp,
                    };
                    let reply = Message::Reply(Reply {
                        id: Some(request.id),
                        result: Ok(json!(clock)),
                    });
                    answers.push_back((data.id, reply.to_json()));
                }
                Output::Event(_) => {}
            }
        }
    }

    /// What the device does with a message over MQTT.
    fn message(&mut self, text: &str, now: Moment) -> Vec<Vec<u8>> {
        let message = Message::parse(text.as_bytes()).expect("the viewer speaks JSON-RPC");
        match message {
            Message::Request(request) => {
                let result = match request.method.as_str() {
                    "session.hello" => Ok(hello()),
                    "session.offer" => self.offer(request.params),
                    other => panic!("{other} is not expected"),
                };
                self.reply(request.id, result);
            }
            Message::Notification(note) => {
                if note.method == "session.candidates" {
                    for line in note.params["candidates"].as_array().expect("a list") {
                        let candidate = Candidate::from_sdp_string(line.as_str().expect("a line")).expect("a candidate");
                        self.rtc.add_remote_candidate(candidate);
                        let datagrams = self.drain(now);
                        assert!(datagrams.len() < 10);
                    }
                }
                self.heard.push(json!({ "method": note.method, "params": note.params }));
            }
            Message::Reply(_) => panic!("the device asked nothing"),
        }
        self.drain(now)
    }

    fn reply(&mut self, id: Id, result: Result<Value, RpcError>) {
        self.to_viewer.push(Message::Reply(Reply { id: Some(id), result }).to_json());
    }

    fn offer(&mut self, params: Value) -> Result<Value, RpcError> {
        self.offers.push(params.clone());
        if let Some(refusal) = self.refusals.pop_front() {
            return Err(refusal);
        }
        let candidate = Candidate::host(address(DEVICE), "udp").expect("a candidate");
        self.rtc.add_local_candidate(candidate);
        let offer = SdpOffer::from_sdp_string(params["sdp"].as_str().expect("an SDP")).expect("an offer");
        let answer = self.rtc.sdp_api().accept_offer(offer).expect("an offer that can be answered");
        Ok(json!({ "session": "s1", "sdp": answer.to_sdp_string() }))
    }

    /// Sends one picture in packetization-mode 1 and notes its NAL units.
    fn picture(&mut self, now: Moment) {
        let Some(mid) = self.mid.filter(|_| self.connected) else { return };
        let key = std::mem::take(&mut self.key_wanted);
        let n = self.frames as u8;
        let payloads: Vec<Vec<u8>> = if key {
            vec![
                vec![0x78, 0, 4, 0x67, 66, 0xc0, 31, 0, 3, 0x68, 0xce, n],
                vec![0x7c, 0x85, 0x88, n, 1],
                vec![0x7c, 0x45, 2, 0, 0, 3],
            ]
        } else {
            vec![vec![0x5c, 0x81, 0x9a, n], vec![0x5c, 0x41, n, 0, 0]]
        };
        if key {
            self.sent.extend([
                0, 0, 0, 1, 0x67, 66, 0xc0, 31, 0, 0, 0, 1, 0x68, 0xce, n, 0, 0, 0, 1, 0x65, 0x88, n, 1, 2, 0, 0, 3,
            ]);
        } else {
            self.sent.extend([0, 0, 0, 1, 0x41, 0x9a, n, n, 0, 0]);
        }
        let pt = *self.pt.get_or_insert_with(|| {
            let remote = self.rtc.media(mid).expect("the video").remote_pts().to_vec();
            let params = self.rtc.codec_config().params().iter().find(|params| {
                params.spec().codec == Codec::H264 && params.spec().format.packetization_mode == Some(1) && remote.contains(&params.pt())
            });
            params.expect("H.264 was negotiated").pt()
        });
        let captured = UNIX_EPOCH + Duration::from_secs_f64((now.unix_ms + AHEAD_MS - CAMERA_MS) / 1e3);
        let count = payloads.len();
        for (place, payload) in payloads.into_iter().enumerate() {
            let extensions = ExtensionValues {
                abs_capture_time: Some(AbsCaptureTime {
                    capture_time: captured,
                    clock_offset: None,
                }),
                ..ExtensionValues::default()
            };
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None).expect("a stream to send on");
            let packet = RtpWrite::new(
                pt,
                self.seq.into(),
                (self.frames * 3_000) as u32,
                now.mono,
                Arc::<[u8]>::from(payload),
            );
            stream.write_rtp(packet.nackable(true).marker(place + 1 == count).ext_vals(extensions));
            self.seq += 1;
        }
        self.frames += 1;
    }
}

fn hello() -> Value {
    json!({
        "version": 1, "device": { "id": "cam", "name": "Camera", "software": "1" }, "methods": [], "nonce": "n1", "clock_ms": 5_000,
        "ice_servers": [], "ice_transport_policy": "all", "streams": [{ "name": "main" }], "limits": { "viewers": 9, "message_bytes": 65536 },
        "a field of a newer device": true
    })
}

/// A file that outlives the viewer which writes it.
#[derive(Clone, Default)]
struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    fn new(save: Option<Shared>) -> Self {
        let save = save.map(|save| Box::new(save) as Box<dyn std::io::Write>);
        Self::with(Wishes { save, ..Wishes::default() })
    }

    fn with(wishes: Wishes) -> Self {
        str0m::crypto::from_feature_flags().install_process_default();
        let now = Moment::now();
        Self {
            viewer: Viewer::new(&[address(VIEWER)], wishes, now).expect("a viewer"),
            device: Device::new(now),
            under_way: BTreeMap::new(),
            start: now,
            now,
            number: 0,
            losing: false,
            next_frame_ms: 0.0,
        }
    }

    fn elapsed_ms(&self) -> f64 {
        self.now.ms_since(self.start)
    }

    /// Puts datagrams on their way.
    fn carry(&mut self, to_viewer: bool, datagrams: Vec<Vec<u8>>) {
        let arrival = ((self.elapsed_ms() + LINK_MS) * 1e3) as u64;
        for datagram in datagrams {
            // RTP has version 2 in its first two bits and no RTCP packet type in its second byte (RFC 7983, RFC 5761).
            let media = (0x80..0xc0).contains(&datagram[0]) && !(192..=223).contains(&datagram[1]);
            if self.losing && to_viewer && media {
                continue;
            }
            self.number += 1;
            self.under_way.insert((arrival, self.number), (to_viewer, datagram));
        }
    }

    fn exchange(&mut self) {
        loop {
            let mut datagrams = Vec::new();
            let mut texts = Vec::new();
            while let Some(action) = self.viewer.action() {
                match action {
                    Action::Transmit(transmit) => datagrams.push(transmit.contents.to_vec()),
                    Action::Publish(text) => texts.push(text),
                }
            }
            self.carry(false, datagrams);
            if texts.is_empty() {
                return;
            }
            for text in texts {
                let datagrams = self.device.message(&text, self.now);
                self.carry(true, datagrams);
            }
            for text in std::mem::take(&mut self.device.to_viewer) {
                self.viewer.message(text.as_bytes(), self.now);
            }
        }
    }

    /// Runs in steps of a millisecond of virtual time until `until` holds, but at most `ms`.
    fn run(&mut self, ms: f64, until: impl Fn(&Self) -> bool) {
        let end = self.elapsed_ms() + ms;
        while self.elapsed_ms() < end && !until(self) {
            self.exchange();
            self.now = self.now.plus_ms(1.0);
            let due = self.under_way.split_off(&((self.elapsed_ms() * 1e3) as u64 + 1, 0));
            for (_, (to_viewer, datagram)) in std::mem::replace(&mut self.under_way, due) {
                if to_viewer {
                    self.viewer.datagram(address(DEVICE), address(VIEWER), &datagram, self.now);
                } else {
                    let receive = Receive::new(Protocol::Udp, address(VIEWER), address(DEVICE), &datagram).expect("a datagram");
                    self.device
                        .rtc
                        .handle_input(Input::Receive(self.now.mono, receive))
                        .expect("the sender works");
                    let datagrams = self.device.drain(self.now);
                    self.carry(true, datagrams);
                }
            }
            if self.elapsed_ms() >= self.next_frame_ms {
                self.next_frame_ms += 100.0 / 3.0;
                self.device.picture(self.now);
            }
            self.device
                .rtc
                .handle_input(Input::Timeout(self.now.mono))
                .expect("the sender works");
            let datagrams = self.device.drain(self.now);
            self.carry(true, datagrams);
            if self.viewer.deadline() <= self.now.mono {
                self.viewer.timeout(self.now);
            }
        }
        self.exchange();
    }

    fn report(&self, choice: ClockChoice) -> crate::report::ViewerReport {
        let reading = Reading {
            own: &[],
            clock: choice,
            late_ms: 250.0,
            has_hello: true,
            end: self.now,
        };
        Account::of(0, "p".to_owned(), &self.viewer, &reading).report
    }
}

#[test]
fn a_viewer_joins_measures_and_saves_every_nal_unit() {
    let saved = Shared::default();
    let mut world = World::new(Some(saved.clone()));
    world.run(10_000.0, |_| false);
    let report = world.report(ClockChoice::Auto);
    assert_eq!(report.failed, None);
    assert_eq!(
        (report.frames_lost, report.frames_undecodable, report.frames_skipped, report.freezes),
        (0, 0, 0, 0),
        "{report:?}"
    );
    let fps = report.fps.expect("pictures came");
    assert!((fps - 30.0).abs() < 0.5, "{fps} pictures a second instead of 30");
    let key = report.offer_to_key_ms.expect("a key frame came");
    assert!((20.0..2_000.0).contains(&key), "the first key frame came after {key} ms");
    assert_eq!(report.latency_clock, Some("device"));
    let offset = report.clock_offset.expect("the clocks were compared");
    assert!((offset.offset_ms - AHEAD_MS).abs() <= offset.error_ms + 1.0, "{offset:?}");
    let latency = report.latency_ms.expect("pictures carry their capture time");
    assert!((latency.p50 - CAMERA_MS - LINK_MS).abs() < 2.0, "{latency:?}");
    assert_eq!(report.path.as_deref(), Some("10.0.0.2:5000 to 10.0.0.1:7000 (host)"));
    assert!(
        report.rtt_ms.is_some_and(|rtt| (2.0 * LINK_MS..4.0 * LINK_MS).contains(&rtt)),
        "{:?}",
        report.rtt_ms
    );
    world.viewer.leave("enough", world.now);
    world.run(5.0, |_| false);
    assert!(world.viewer.ended());
    let whole = saved.0.borrow();
    assert!(
        whole.len() > 2_000 && world.device.sent.starts_with(&whole),
        "what is saved is what was sent"
    );
    let closed = world.device.heard.last().expect("the device was told");
    assert_eq!(
        closed,
        &json!({ "method": "session.close", "params": { "session": "s1", "reason": "enough" } })
    );
    let candidates = &world.device.heard[0]["params"]["candidates"];
    assert!(
        candidates[0].as_str().is_some_and(|line| line.contains("10.0.0.2 5000")),
        "{candidates}"
    );
    assert_eq!(world.device.heard[1]["params"]["candidates"], json!([]));
}

#[test]
fn a_loss_that_no_retransmission_repairs_is_counted_and_ends_with_a_requested_key_frame() {
    let mut world = World::new(None);
    world.run(4_000.0, |world| world.viewer.video.tally.shown >= 60);
    let mid = world.device.mid.expect("the device sends video");
    let mut api = world.device.rtc.direct_api();
    api.stream_tx_by_mid(mid, None)
        .expect("a stream")
        .set_rtx_cache(0, Duration::ZERO, None);
    world.losing = true;
    world.run(150.0, |_| false);
    world.losing = false;
    world.run(4_000.0, |_| false);
    let report = world.report(ClockChoice::Device);
    assert_eq!(report.failed, None);
    assert!(
        (4..=6).contains(&report.frames_lost),
        "{} of the 4 to 6 pictures in 150 ms are counted as lost",
        report.frames_lost
    );
    assert!(report.plis >= 1 && world.device.plis >= 1, "a key frame was asked for");
    assert!(
        report.key_frames >= 2 && report.frames_undecodable >= 1 && report.freezes == 1,
        "{report:?}"
    );
    assert!(report.nacks >= 1, "lost packets were asked for again");
}

#[test]
fn a_viewer_that_is_to_pester_asks_for_key_frames_as_often_as_told() {
    let mut world = World::with(Wishes {
        pli_every: Some(Duration::from_millis(1)),
        ..Wishes::default()
    });
    world.run(4_000.0, |world| world.viewer.video.tally.shown >= 5);
    let before = world.device.plis;
    world.run(500.0, |_| false);
    let plis = world.device.plis - before;
    assert!((400..=600).contains(&plis), "{plis} arrived in half a second");
}

#[test]
fn an_offer_that_expired_is_sent_again_with_the_new_nonce() {
    let mut world = World::new(None);
    let expired = RpcError::new(ErrorCode::Expired, "too late")
        .with("nonce", json!("n2"))
        .with("clock_ms", json!(90_000));
    world.device.refusals.push_back(expired);
    world.run(2_000.0, |world| world.viewer.video.tally.shown > 0);
    assert!(world.viewer.video.tally.shown > 0, "the second offer leads to a picture");
    assert_eq!(
        (&world.device.offers[0]["nonce"], &world.device.offers[0]["expires_ms"]),
        (&json!("n1"), &json!(20_000))
    );
    assert_eq!(
        (&world.device.offers[1]["nonce"], &world.device.offers[1]["expires_ms"]),
        (&json!("n2"), &json!(105_000))
    );
}

#[test]
fn a_refusal_and_a_close_are_shown_in_the_devices_words() {
    let mut world = World::new(None);
    let refusal = RpcError::new(ErrorCode::TooManyViewers, "9 viewers are watching already");
    world.device.refusals.push_back(refusal);
    world.run(1_000.0, |_| false);
    assert_eq!(
        world.viewer.failure,
        Some(Failure::Refused("9 viewers are watching already (too_many_viewers)".to_owned()))
    );

    let mut world = World::new(None);
    world.run(2_000.0, |world| world.viewer.video.tally.shown > 0);
    for (session, ended) in [("another", false), ("s1", true)] {
        let close = json!({ "jsonrpc": "2.0", "method": "session.close", "params": { "session": session, "reason": "shutting down" } });
        world.viewer.message(close.to_string().as_bytes(), world.now);
        assert_eq!(world.viewer.ended(), ended, "{session}");
    }
    assert_eq!(world.viewer.failure, Some(Failure::Closed("shutting down".to_owned())));
}

#[test]
fn nobody_there_is_asked_again_and_then_given_up() {
    let now = Moment::now();
    let mut viewer = Viewer::new(&[address(VIEWER)], Wishes::default(), now).expect("a viewer");
    let mut hellos = Vec::new();
    for second in 0..=20 {
        viewer.timeout(now.plus_ms(f64::from(second) * 1e3));
        while let Some(action) = viewer.action() {
            if let Action::Publish(text) = action {
                hellos.push(text);
            }
        }
    }
    assert_eq!(viewer.failure, Some(Failure::Unreachable));
    assert_eq!(hellos.len(), 5, "one at once, then one every 3 s before 15 s");
    assert!(
        hellos.iter().all(|text| *text == hellos[0]),
        "the same id, so that the device answers once"
    );
}

#[test]
fn garbage_from_outside_changes_nothing() {
    let mut world = World::new(None);
    world.run(2_000.0, |world| world.viewer.video.tally.shown > 0);
    for text in [
        "",
        "{",
        "[]",
        "{\"jsonrpc\":\"2.0\",\"method\":\"session.close\",\"params\":7}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}",
    ] {
        world.viewer.message(text.as_bytes(), world.now);
    }
    let mut bytes = vec![0; 60];
    for first in 0..=255 {
        bytes[0] = first;
        world.viewer.datagram(address(DEVICE), address(VIEWER), &bytes, world.now);
        world
            .viewer
            .datagram(address("10.9.9.9:9"), address(VIEWER), &bytes[..3], world.now);
    }
    let before = world.viewer.video.tally.shown;
    world.run(500.0, |_| false);
    assert_eq!(world.viewer.failure, None);
    assert!(world.viewer.video.tally.shown >= before + 13, "pictures go on");
}

#[test]
fn a_device_that_hangs_up_has_half_a_second_to_say_why() {
    for word in [Some("restarting"), None] {
        let mut world = World::new(None);
        world.run(2_000.0, |world| world.viewer.video.tally.shown > 0);
        world.device.rtc.close().expect("a sender that can leave");
        world.run(200.0, |_| false);
        assert_eq!(world.viewer.failure, None, "the reason may still come");
        if let Some(reason) = word {
            let close = json!({ "jsonrpc": "2.0", "method": "session.close", "params": { "session": "s1", "reason": reason } });
            world.viewer.message(close.to_string().as_bytes(), world.now);
        }
        world.run(500.0, |_| false);
        match word {
            Some(reason) => assert_eq!(world.viewer.failure, Some(Failure::Closed(reason.to_owned()))),
            None => assert!(world.viewer.failure.is_some(), "the viewer knows that it is over"),
        }
    }
}
