//! Everything that reads bytes from outside, each as a function that may be given anything: it must come back, and what it
//! says must be true. The fuzz targets call them, and so does `tests/hostile_bytes.rs` with every test run.

mod device;
mod files;
mod http;
mod mqtt;
mod relay;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use peercam::capture::mjpeg;
use peercam::config;
use peercam::media::annexb::{AccessUnits, NalKind, nal_units};
use peercam::media::conform::{Conformer, format_of};
use peercam::media::sps::Sps;
use peercam::media::{Bitrate, MediaTime, Quality, RawFrame, StreamFormat, rtp};
use peercam::protocol::{
    Candidates, Close, DeviceId, Hello, MAX_MESSAGE_BYTES, Message, Offer, PeerId, Playout, Role, Status, Topics, params,
};
use peercam::session::{Input, Outbox, Session, Setup, Transport, WallClock};
use str0m::config::DtlsCert;

pub use files::{identity, is_kept, start, url};
pub use http::{guard, http, restarts, whep};
pub use mqtt::{mqtt, replies};
pub use relay::relay;

/// An offer that is accepted, for what comes after it.
const OFFER: &str = include_str!("../seeds/offer/browser.sdp");

/// A camera's or a file's stream, all the way to RTP payloads. The first byte says in what pieces it comes.
pub fn annexb(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let units = split(stream, stream.len().max(1));
    assert_eq!(
        units,
        split(stream, usize::from(size).max(1)),
        "access units depend on the pieces in which the stream comes"
    );
    let mut conformer = Conformer::default();
    for unit in &units {
        match conformer.take(unit) {
            Ok(Some(conformed)) => {
                if conformed.key {
                    let format = format_of(&conformed.data).expect("a key frame's SPS was read before it was let through");
                    assert!(format.is_some(), "a key frame without SPS was let through");
                    assert!(
                        kinds(&conformed.data).contains(&NalKind::Pps),
                        "a key frame without PPS was let through"
                    );
                }
                packets(&conformed.data);
            }
            Ok(None) => {}
            Err(reason) => {
                assert!(!reason.to_string().is_empty());
                conformer.gap();
            }
        }
        // What no conformer has seen is cut too: the packetizer trusts nobody.
        packets(unit);
    }
}

fn split(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut units = Vec::new();
    let mut splitter = AccessUnits::default();
    for bytes in stream.chunks(piece) {
        splitter.push(bytes, |unit| units.push(unit.to_vec()));
    }
    splitter.finish(|unit| units.push(unit.to_vec()));
    units
}

fn kinds(unit: &[u8]) -> Vec<NalKind> {
    nal_units(unit).map(|nal| nal.kind()).collect()
}

/// A receiver gets back every NAL unit that RTP can carry, and nothing else.
fn packets(unit: &[u8]) {
    let mut received: Vec<Vec<u8>> = Vec::new();
    for payload in rtp::packetize(unit) {
        assert!(
            (1..=rtp::MAX_PAYLOAD).contains(&payload.len()),
            "a payload of {} bytes",
            payload.len()
        );
        match payload[0] & 0x1f {
            24 => {
                let mut rest = &payload[1..];
                while let [high, low, tail @ ..] = rest {
                    let (nal, after) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                    received.push(nal.to_vec());
                    rest = after;
                }
            }
            28 if payload[1] & 0x80 != 0 => {
                let header = payload[0] & 0xe0 | payload[1] & 0x1f;
                received.push([&[header], &payload[2..]].concat());
            }
            28 => received
                .last_mut()
                .expect("a fragment follows its first")
                .extend_from_slice(&payload[2..]),
            _ => received.push(payload.to_vec()),
        }
    }
    let sent = nal_units(unit).filter(|nal| match nal.kind() {
        NalKind::Delimiter | NalKind::Filler => false,
        NalKind::Other(kind) => (1..24).contains(&kind),
        NalKind::Slice | NalKind::IdrSlice | NalKind::Sei | NalKind::Sps | NalKind::Pps => true,
    });
    let sent: Vec<&[u8]> = sent.map(|nal| nal.bytes()).collect();
    assert_eq!(received, sent, "the receiver puts together something else");
}

/// A sequence parameter set.
pub fn sps(bytes: &[u8]) {
    match Sps::read(bytes) {
        Ok(sps) => {
            assert!(sps.format.width > 0 && sps.format.height > 0);
            assert!(
                sps.fps.is_none_or(|fps| (1.0..=240.0).contains(&fps)),
                "{:?} pictures a second",
                sps.fps
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A picture of a camera that delivers JPEG.
pub fn mjpeg(bytes: &[u8]) {
    let mut frame = RawFrame {
        i420: Vec::new(),
        width: 0,
        height: 0,
        time: MediaTime::default(),
        captured: Instant::now(),
    };
    // The largest pictures are for the bench: each takes a tenth of a second.
    if mjpeg::size(bytes).is_some_and(|(width, height)| width * height > 1 << 20) {
        return;
    }
    match mjpeg::Decoder::default().decode(bytes, &mut frame) {
        Ok(()) => {
            let (width, height) = (frame.width as usize, frame.height as usize);
            assert!(width >= 2 && height >= 2 && width % 2 == 0 && height % 2 == 0, "{width}x{height}");
            assert_eq!(frame.i420.len(), width * height * 3 / 2, "planes without padding");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error != mjpeg::MjpegError::Damaged(mjpeg::PANICKED.into()), "the decoder panicked");
        }
    }
}

/// A message over MQTT or the data channel, and the parameters of every method; or a retained status.
pub fn message(bytes: &[u8]) {
    match Message::parse(bytes) {
        Ok(message) => {
            let json = message.to_json();
            if json.len() <= MAX_MESSAGE_BYTES {
                let again = Message::parse(json.as_bytes()).unwrap_or_else(|reply| panic!("we don't understand ourselves: {reply:?}"));
                assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&message));
            }
            let value = match message {
                Message::Request(request) => request.params,
                Message::Notification(notification) => notification.params,
                Message::Reply(_) => return,
            };
            let _ = params::<Hello>(value.clone());
            let _ = params::<Offer>(value.clone());
            let _ = params::<Candidates>(value.clone());
            let _ = params::<Close>(value);
        }
        Err(reply) => {
            let json = Message::Reply(*reply).to_json();
            assert!(json.contains("\"error\""), "a refusal is an error: {json}");
        }
    }
    let _ = serde_json::from_slice::<Status>(bytes);
}

/// An MQTT topic; with a second line, the response topic that came with the message.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (topic, wanted) = text.split_once('\n').unwrap_or((text, text));
    let device = DeviceId::parse("front-door").expect("an id");
    let topics = Topics::new(&device);
    let alice = PeerId::parse("alice").expect("an id");
    for peer in topics.sender(topic).into_iter().chain([alice]) {
        let name = peer.to_string();
        assert!(
            !name.is_empty() && !name.contains(['/', '+', '#', '\0']),
            "{name:?} is a peer's name"
        );
        if topics.sender(topic).as_ref() == Some(&peer) {
            assert_eq!(topics.from(&peer), topic, "the sender is not whose topic it is");
        }
        if topics.may_answer(&peer, wanted) {
            let own = topics.to(&peer);
            assert!(
                wanted == own || wanted.starts_with(&format!("{own}/")),
                "{name} may be answered at {wanted:?}"
            );
            assert!(
                !wanted.contains(|c: char| c.is_control() || "+#".contains(c)),
                "nobody can publish to {wanted:?}"
            );
        }
    }
}

/// A viewer's offer, its candidates, and the same offer as an ICE restart.
pub fn offer(bytes: &[u8]) {
    let Ok(sdp) = std::str::from_utf8(bytes) else { return };
    let now = Instant::now();
    match accept(sdp, now) {
        Ok((mut session, answer)) => {
            assert!(answer.contains("m=video"), "an offer was accepted without video");
            let lines = sdp.lines().filter_map(|line| line.trim().strip_prefix("a=candidate:"));
            let candidates: Vec<String> = lines.map(|line| format!("candidate:{line}")).collect();
            let mut outbox = Outbox::default();
            session.handle(Input::Candidates(&candidates), now, &clock(now), &mut outbox);
            let _ = session.restart(sdp, now, &mut outbox);
            live_on(&mut session, now);
        }
        Err(sentence) => assert!(!sentence.is_empty(), "an offer was refused without a word"),
    }
}

/// Datagrams for a session, each behind two bytes with its length.
pub fn datagram(bytes: &[u8]) {
    let mut now = Instant::now();
    let (mut session, _) = accept(OFFER, now).expect("the offer is accepted");
    let mut rest = bytes;
    while let [high, low, tail @ ..] = rest {
        let size = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, after) = tail.split_at(size);
        rest = after;
        now += Duration::from_millis(1);
        let input = Input::Datagram {
            transport: Transport::Udp,
            source: SocketAddr::from(([192, 0, 2, 20], 4_000)),
            destination: DEVICE,
            bytes,
        };
        session.handle(input, now, &clock(now), &mut Outbox::default());
    }
    assert!(!session.is_connected(), "nobody who does not know the password can connect");
    live_on(&mut session, now);
}

const DEVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 5_000);

const FORMAT: StreamFormat = StreamFormat {
    width: 1280,
    height: 720,
    profile_level_id: [0x42, 0xe0, 0x1f],
};

fn certificate() -> &'static DtlsCert {
    static CERTIFICATE: OnceLock<DtlsCert> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let provider = str0m::crypto::from_feature_flags().dtls_provider;
        provider.generate_certificate().expect("a certificate")
    })
}

fn accept(sdp: &str, now: Instant) -> Result<(Session, String), String> {
    accept_as(certificate(), sdp, now)
}

fn accept_as(certificate: &DtlsCert, sdp: &str, now: Instant) -> Result<(Session, String), String> {
    let setup = Setup {
        id: "0123456789abcdef",
        peer: PeerId::parse("viewer").expect("a name"),
        role: Role::View,
        certificate,
        format: FORMAT,
        bitrate: Bitrate::kbps(2_500),
        high: Bitrate::kbps(2_500),
        quality: Quality::High,
        playout: Playout::Realtime,
        reflexive: &[],
        relayed: &[],
        locals: &[DEVICE],
        tcp_port: None,
    };
    Session::accept(setup, sdp, now).map_err(|error| error.message)
}

fn clock(now: Instant) -> WallClock {
    WallClock {
        instant: now,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

/// Until it gives up, which it does at a time that is known beforehand.
fn live_on(session: &mut Session, began: Instant) {
    let mut now = began;
    for _ in 0..20_000 {
        if session.is_closed() {
            return;
        }
        // A deadline that stands still would be a busy loop.
        now = session.deadline().0.max(now + Duration::from_micros(1));
        assert!(now < began + Duration::from_secs(60), "a session without a viewer lives on");
        session.handle(Input::Timeout, now, &clock(now), &mut Outbox::default());
    }
    panic!("a session without a viewer asks for the time again and again");
}

/// A configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Files that it names by a relative path are looked for in a folder that is not there.
    match config::parse(text, Path::new("/nonexistent/peercam.toml")) {
        Ok(config) => {
            for camera in &config.cameras {
                assert!((1..=32).contains(&camera.name.len()), "a stream called {:?}", camera.name);
            }
            assert!((1..=1_000).contains(&config.limits.viewers.get()));
        }
        Err(error) => assert!(error.to_string().contains("peercam.toml"), "{error}"),
    }
}

/// Whether a seed of [`offer`] is one that leads to a session.
pub fn is_accepted(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|sdp| accept(sdp, Instant::now()).is_ok())
}

/// Whether a seed of [`annexb`] leads to pictures.
pub fn is_playable(bytes: &[u8]) -> bool {
    let mut conformer = Conformer::default();
    let units = split(bytes.get(1..).unwrap_or_default(), 4_096);
    units
        .iter()
        .any(|unit| conformer.take(unit).is_ok_and(|unit| unit.is_some_and(|unit| unit.key)))
}
