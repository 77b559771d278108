//! Limits of a driver that nobody can be brought to from outside without many machines: each is counted.

use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use super::*;
use crate::media::{Bitrate, StreamFormat};
use crate::protocol::{Offer, OfferReply, Playout, Role};

const OFFER: &str = include_str!("../../../fuzz/seeds/offer/browser.sdp");

fn certificate() -> DtlsCert {
    let provider = str0m::crypto::from_feature_flags().dtls_provider;
    provider.generate_certificate().expect("a certificate")
}

/// Sessions of a camera that is live, with room for so many notices; nobody takes them.
fn sessions(notices: usize) -> (Sessions, Receiver<Notice>, WallClock) {
    let stream = Stream::new("card", true);
    let format = StreamFormat {
        width: 640,
        height: 360,
        profile_level_id: [0x42, 0xe0, 0x1f],
    };
    stream.high.set_format(format, true);
    let (notices, receiver) = channel(notices);
    let shared = Shared {
        certificate: certificate(),
        streams: vec![Offered {
            stream,
            bitrate: Bitrate::kbps(500),
            low_bitrate: Bitrate::kbps(150),
        }],
        seats: Seats::new(20),
        max_unheard: MAX_UNHEARD,
        notices,
    };
    let local = "127.0.0.1:9".parse().expect("an address");
    let clock = WallClock {
        instant: Instant::now(),
        wall: std::time::SystemTime::now(),
    };
    (Sessions::new(shared, vec![local], None, Arc::default()), receiver, clock)
}

fn offer(peer: &str, sdp: &str, session: Option<String>, reply: oneshot::Sender<Result<OfferReply, RpcError>>) -> Command {
    Command::Offer {
        peer: PeerId::parse(peer).expect("a name"),
        role: Role::View,
        offer: Offer {
            nonce: String::new(),
            expires_ms: 0,
            sdp: sdp.to_owned(),
            session,
            stream: None,
            playout: Playout::Realtime,
            quality: Quality::High,
        },
        reply,
    }
}

fn open(sessions: &mut Sessions, peer: &str, clock: &WallClock) -> u64 {
    let (reply, mut answer) = oneshot::channel();
    let keys = sessions.command(offer(peer, OFFER, None, reply), clock);
    answer.try_recv().expect("an answer").expect("the offer is good");
    keys[0]
}

#[test]
fn notices_that_nobody_takes_are_dropped_and_counted() {
    let (mut sessions, _waiting, clock) = sessions(1);
    for _ in 0..4 {
        open(&mut sessions, "alice", &clock);
    }
    let told = sessions.figures();
    assert_eq!(told.counted.opened, 4);
    assert_eq!(told.viewers, [1, 0], "a viewer has one session");
    assert_eq!(closed(&told, Ending::Replaced), 3);
    assert_eq!(told.counted.notices_dropped, 2, "one of three found room");
}

#[test]
fn a_viewer_with_too_many_addresses_is_known_by_the_first_ones_and_the_rest_is_counted() {
    let (mut sessions, _waiting, clock) = sessions(1);
    let key = open(&mut sessions, "alice", &clock);
    let addresses = u16::try_from(MAX_ADDRESSES).expect("a small number") + 8;
    for port in 1..=addresses {
        sessions.remember_address(key, (Transport::Udp, SocketAddr::from(([192, 0, 2, 1], port))));
    }
    assert_eq!(sessions.by_address.len(), MAX_ADDRESSES);
    assert_eq!(sessions.figures().counted.addresses_refused, 8);
}

#[test]
fn an_offer_that_is_refused_ends_nothing() {
    let (mut sessions, _waiting, clock) = sessions(16);
    let key = open(&mut sessions, "alice", &clock);
    let (reply, mut answer) = oneshot::channel();
    sessions.command(offer("alice", "v=0\r\nnothing", None, reply), &clock);
    answer.try_recv().expect("an answer").expect_err("that is no offer");
    assert!(sessions.slots.contains_key(&key), "alice's session goes on");
}

#[test]
fn restarts_without_end_leave_nothing_behind() {
    let (mut sessions, _waiting, clock) = sessions(16);
    let key = open(&mut sessions, "alice", &clock);
    let id = sessions.slots[&key].id.clone();
    let ufrag = OFFER
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .expect("an offer has one");
    for number in 0..100 {
        let (reply, mut answer) = oneshot::channel();
        let sdp = OFFER.replace(&format!("a=ice-ufrag:{ufrag}"), &format!("a=ice-ufrag:again{number}"));
        sessions.command(offer("alice", &sdp, Some(id.clone()), reply), &clock);
        let (reply, _) = oneshot::channel();
        sessions.command(offer("alice", &sdp, Some(id.clone()), reply), &clock);
        answer.try_recv().expect("an answer").expect("the same viewer restarts");
    }
    assert_eq!(sessions.figures().counted.restarted, 200, "each of them twice");
    let slot = &sessions.slots[&key];
    assert_eq!((slot.ufrags.len(), sessions.by_ufrag.len()), (2, 2));
}

fn closed(figures: &Figures, ending: Ending) -> u64 {
    let place = Ending::ALL.iter().position(|known| *known == ending).expect("a place");
    figures.closed[place]
}

#[test]
fn a_stream_of_another_size_and_level_ends_no_session_and_one_of_another_profile_ends_all() {
    let (mut sessions, _waiting, clock) = sessions(16);
    let keys = [open(&mut sessions, "alice", &clock), open(&mut sessions, "bob", &clock)];
    let hub = Arc::clone(&sessions.shared.streams[0].stream.high);
    let larger = StreamFormat {
        width: 1920,
        height: 1080,
        profile_level_id: [0x42, 0xe0, 0x28],
    };
    hub.set_format(larger, true);
    assert_eq!(sessions.format_changed("card", &clock), [0; 0]);
    assert_eq!(sessions.slots.len(), 2);

    let (reply, mut answer) = oneshot::channel();
    let id = sessions.slots[&keys[0]].id.clone();
    sessions.command(offer("alice", OFFER, Some(id), reply), &clock);
    let sdp = answer.try_recv().expect("an answer").expect("the same viewer restarts").sdp;
    assert!(sdp.contains("[x=1920,y=1080]"), "a restart tells the size of now: {sdp}");

    let main = StreamFormat {
        profile_level_id: [0x4d, 0x00, 0x28],
        ..larger
    };
    hub.set_format(main, true);
    assert_eq!(sessions.format_changed("another", &clock), [0; 0]);
    let mut ended = sessions.format_changed("card", &clock);
    ended.sort_unstable();
    assert_eq!(ended, keys);
    assert_eq!(closed(&sessions.figures(), Ending::StreamChanged), 2);
}

#[test]
fn offers_without_end_take_no_seat_and_the_oldest_goes() {
    let (mut sessions, _waiting, clock) = sessions(1_000);
    let keys: Vec<u64> = (0..MAX_UNHEARD + 20)
        .map(|number| open(&mut sessions, &format!("tab-{number}"), &clock))
        .collect();
    let told = sessions.figures();
    assert_eq!((told.viewers[0], closed(&told, Ending::Displaced)), (MAX_UNHEARD as u64, 20));
    assert!(
        keys[..20].iter().all(|key| !sessions.slots.contains_key(key)),
        "the first ones had to go"
    );

    // The seats are 20: who is heard then finds none, and who offers then is told at once.
    for key in &keys[20..41] {
        sessions.heard(*key, &clock);
    }
    let told = sessions.figures();
    assert_eq!(closed(&told, Ending::NoSeat), 1);
    assert!(sessions.slots.contains_key(&keys[39]) && !sessions.slots.contains_key(&keys[40]));
    let error = sessions.make_room(&clock).expect_err("every seat is taken");
    assert_eq!(error.code, ErrorCode::TooManyViewers.number());
    let seated = keys[20];
    sessions.close(seated, Ending::ViewerLeft, "the viewer left", &clock);
    sessions.make_room(&clock).expect("one has left");
}

#[test]
fn messages_of_viewers_leave_room_for_what_the_driver_has_to_say() {
    let (mut sessions, _waiting, clock) = sessions(256);
    let key = open(&mut sessions, "alice", &clock);
    for _ in 0..1_000 {
        let message = Message::notification("session.close", &"x");
        sessions.event(key, Event::Message(message), &clock);
    }
    let told = sessions.figures();
    assert_eq!(told.counted.notices_dropped, 1_000 - MAX_MESSAGES_WAITING as u64);
    open(&mut sessions, "alice", &clock);
    assert_eq!(sessions.figures().counted.notices_dropped, told.counted.notices_dropped);
}
