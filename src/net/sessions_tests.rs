//! Limits of the driver that nobody can be brought to from outside without many machines: each is counted.

use str0m::config::DtlsCert;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;

use super::*;
use crate::config::{Listen, Network, TransportPolicy};
use crate::media::StreamFormat;
use crate::net::Figures;
use crate::protocol::Playout;

const OFFER: &str = include_str!("../../fuzz/seeds/offer/browser.sdp");

fn certificate() -> DtlsCert {
    let provider = str0m::crypto::from_feature_flags().dtls_provider;
    provider.generate_certificate().expect("a certificate")
}

/// Sessions of a camera that is live, with room for so many notices; nobody takes them.
fn sessions(notices: usize) -> (Sessions, Receiver<Notice>, WallClock) {
    let hub = Hub::new("card");
    let format = StreamFormat {
        width: 640,
        height: 360,
        profile_level_id: [0x42, 0xe0, 0x1f],
    };
    hub.set_format(format, true);
    let (notices, receiver) = channel(notices);
    let context = Context {
        network: Network {
            listen: Listen::Loopback,
            udp_port: 0,
            transport_policy: TransportPolicy::All,
            ice_servers: Vec::new(),
        },
        certificate: certificate(),
        streams: vec![(hub, Bitrate::kbps(500))],
        max_viewers: 20,
        notices,
    };
    let local = "127.0.0.1:9".parse().expect("an address");
    let clock = WallClock {
        instant: Instant::now(),
        wall: std::time::SystemTime::now(),
    };
    (Sessions::new(context, vec![local], Arc::default()), receiver, clock)
}

fn open(sessions: &mut Sessions, peer: &str, clock: &WallClock) -> u64 {
    let (reply, mut answer) = oneshot::channel();
    let command = Command::Offer {
        peer: PeerId::parse(peer).expect("a name"),
        role: Role::View,
        offer: Offer {
            nonce: String::new(),
            expires_ms: 0,
            sdp: OFFER.to_owned(),
            session: None,
            stream: None,
            playout: Playout::Realtime,
        },
        reply,
    };
    let keys = sessions.command(command, clock);
    answer.try_recv().expect("an answer").expect("the offer is good");
    keys[0]
}

fn figures(sessions: &mut Sessions, clock: &WallClock) -> Figures {
    let (reply, mut answer) = oneshot::channel();
    sessions.command(Command::Figures { reply }, clock);
    answer.try_recv().expect("an answer")
}

#[test]
fn notices_that_nobody_takes_are_dropped_and_counted() {
    let (mut sessions, _waiting, clock) = sessions(1);
    for _ in 0..4 {
        open(&mut sessions, "alice", &clock);
    }
    let told = figures(&mut sessions, &clock);
    assert_eq!(told.counted.opened, 4);
    assert_eq!(told.viewers, [1], "a viewer has one session");
    let replaced = Ending::ALL.iter().position(|ending| *ending == Ending::Replaced).expect("a place");
    assert_eq!(told.closed[replaced], 3);
    assert_eq!(told.counted.notices_dropped, 2, "one of three found room");
}

#[test]
fn a_viewer_with_too_many_addresses_is_known_by_the_first_ones_and_the_rest_is_counted() {
    let (mut sessions, _waiting, clock) = sessions(1);
    let key = open(&mut sessions, "alice", &clock);
    let addresses = u16::try_from(MAX_ADDRESSES).expect("a small number") + 8;
    for port in 1..=addresses {
        sessions.remember_address(key, SocketAddr::from(([192, 0, 2, 1], port)));
    }
    assert_eq!(sessions.by_address.len(), MAX_ADDRESSES);
    assert_eq!(figures(&mut sessions, &clock).counted.addresses_refused, 8);
}
