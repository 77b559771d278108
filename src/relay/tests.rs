//! Against another maker's server, in virtual time.

use std::collections::VecDeque;

use turn_server_proto::api::{DelayedMessageOrChannelSend, Transmit, TurnServerApi as _, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_types::prelude::DelayedTransmitBuild as _;
use turn_types::transmit::TransmitBuild;
use turn_types::{AddressFamily, TransportType};

use super::*;

/// A device behind a server, and peers that it talks to. A datagram takes no time.
struct World {
    start: Instant,
    now: Instant,
    server: TurnServer,
    client: SocketAddr,
    listen: SocketAddr,
    next_port: u16,
    relay: Relay,
    events: Vec<Output>,
    /// What reached a peer, and from where.
    at_peers: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// What reached the device from peers.
    at_device: Vec<(SocketAddr, Vec<u8>)>,
    /// Whether what the device sends to the server is lost.
    cut: bool,
    sent: usize,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn server(listen: SocketAddr) -> TurnServer {
    let mut server = TurnServer::new(TransportType::Udp, listen, "realm".into());
    server.add_user("user".into(), "password".into());
    server.set_nonce_expiry_duration(Duration::from_secs(60));
    server
}

fn settings(password: &str) -> Settings {
    Settings {
        carrier: Carrier::Datagrams,
        family: Family::V4,
        credentials: Credentials::Static {
            username: "user".into(),
            password: password.into(),
        },
    }
}

impl World {
    fn new(password: &str) -> Self {
        let (start, listen) = (Instant::now(), address("192.0.2.1:3478"));
        Self {
            start,
            now: start,
            server: server(listen),
            client: address("198.51.100.7:8555"),
            listen,
            next_port: 50_000,
            relay: Relay::new(settings(password), start),
            events: Vec::new(),
            at_peers: Vec::new(),
            at_device: Vec::new(),
            cut: false,
            sent: 0,
        }
    }

    fn server_now(&self) -> turn_types::Instant {
        // The server's clock does not begin at zero, as it takes times before it began.
        let since = self.now.saturating_duration_since(self.start) + Duration::from_secs(1_000_000);
        turn_types::Instant::from_nanos(since.as_nanos() as i64)
    }

    fn datagram(data: Vec<u8>, from: SocketAddr, to: SocketAddr) -> Transmit<Vec<u8>> {
        Transmit {
            data,
            transport: TransportType::Udp,
            from,
            to,
        }
    }

    /// A datagram at the server: from the device, or from a peer.
    fn at_server(&mut self, data: Vec<u8>, from: SocketAddr, to: SocketAddr) {
        let now = self.server_now();
        let onwards: Option<TransmitBuild<DelayedMessageOrChannelSend<Vec<u8>>>> = self.server.recv(Self::datagram(data, from, to), now);
        if let Some(onwards) = onwards {
            let (from, to) = (onwards.from, onwards.to);
            self.arrive(onwards.data.build(), from, to);
        }
        self.turn_server();
    }

    fn turn_server(&mut self) {
        loop {
            let now = self.server_now();
            while let Some(transmit) = self.server.poll_transmit(now) {
                self.arrive(transmit.data, transmit.from, transmit.to);
            }
            match self.server.poll(now) {
                TurnServerPollRet::AllocateSocket {
                    transport,
                    listen_addr,
                    client_addr,
                    allocation_transport,
                    family,
                } => {
                    assert_eq!(family, AddressFamily::IPV4);
                    let relayed = SocketAddr::new(self.listen.ip(), self.next_port);
                    self.next_port += 1;
                    let given = Ok(relayed);
                    self.server
                        .allocated_socket(transport, listen_addr, client_addr, allocation_transport, family, given, now);
                }
                TurnServerPollRet::WaitUntil(_) => match self.server.poll_transmit(now) {
                    Some(transmit) => self.arrive(transmit.data, transmit.from, transmit.to),
                    None => return,
                },
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } | TurnServerPollRet::SocketClose { .. } => {}
            }
        }
    }

    fn arrive(&mut self, data: Vec<u8>, from: SocketAddr, to: SocketAddr) {
        if to == self.client {
            let (now, heard) = (self.now, &mut self.at_device);
            self.relay.receive(&data, now, |peer, payload| heard.push((peer, payload.to_vec())));
        } else {
            self.at_peers.push((from, to, data));
        }
    }

    /// Does what the relay wants, until it wants nothing.
    fn drain(&mut self) {
        let mut waiting = VecDeque::new();
        loop {
            waiting.extend(std::iter::from_fn(|| self.relay.poll()));
            let Some(output) = waiting.pop_front() else { return };
            match output {
                Output::Open => {
                    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                    self.relay.handle(Input::Opened { wall }, self.now);
                }
                Output::Send(bytes) => {
                    self.sent += 1;
                    if !self.cut {
                        self.at_server(bytes, self.client, self.listen);
                    }
                }
                Output::Close => {}
                event @ (Output::Up { .. } | Output::Down(_)) => self.events.push(event),
            }
        }
    }

    /// Time goes on for so long, and what is due is done.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let (at, why) = self.relay.deadline();
            let turn = self.sent;
            if at > until {
                break;
            }
            assert!(at >= self.now || turn == self.sent, "{why} lies in the past");
            self.now = self.now.max(at);
            self.turn_server();
            self.relay.handle(Input::Timeout, self.now);
            self.drain();
            assert_ne!(self.relay.deadline(), (at, why), "{why} does not end");
        }
        self.now = until;
        self.turn_server();
    }

    fn send(&mut self, peer: SocketAddr, payload: &[u8]) -> Result<(), NotSent> {
        let mut out = Vec::new();
        let sent = self.relay.send(peer, payload, self.now, &mut out);
        self.drain();
        if sent.is_ok() && !self.cut {
            self.at_server(out, self.client, self.listen);
        }
        self.drain();
        sent
    }

    fn seconds(&self) -> u64 {
        self.now.saturating_duration_since(self.start).as_secs()
    }
}

const PEER: &str = "203.0.113.9:40000";

#[test]
fn for_15_minutes_with_new_nonces_every_picture_gets_through_both_ways() {
    let mut world = World::new("password");
    world.run(Duration::from_millis(1));
    let relayed = world.relay.relayed().expect("allocated at once");
    assert_eq!(
        world.events,
        [Output::Up {
            relayed,
            mapped: Some(world.client)
        }]
    );
    let peer = address(PEER);
    world.relay.permit(peer.ip(), world.now);
    world.drain();
    let mut requests = Vec::new();
    for n in 0..900_u32 {
        let payload = [&n.to_be_bytes()[..], &vec![1; n as usize % 7]].concat();
        world.send(peer, &payload).unwrap_or_else(|error| panic!("picture {n}: {error:?}"));
        world.at_server(payload.clone(), peer, relayed);
        assert_eq!(
            world.at_peers.pop(),
            Some((relayed, peer, payload.clone())),
            "to the peer, picture {n}"
        );
        assert_eq!(world.at_device.pop(), Some((peer, payload)), "from the peer, picture {n}");
        let before = world.sent;
        world.run(Duration::from_secs(1));
        requests.push(world.sent - before);
    }
    assert_eq!(world.events.len(), 1, "one allocation, at {} s", world.seconds());
    let asked: usize = requests.iter().sum();
    assert!((450..1_000).contains(&asked), "{asked} requests in 15 minutes");
}

#[test]
fn a_server_that_was_restarted_is_noticed_within_seconds_and_pictures_go_on() {
    let mut world = World::new("password");
    world.run(Duration::from_millis(1));
    let peer = address(PEER);
    world.send(peer, b"before").expect("sent");
    world.server = server(world.listen);
    world.at_peers.clear();
    let restarted = world.now;
    while world.at_peers.is_empty() {
        world.run(Duration::from_millis(100));
        let _ = world.send(peer, b"after");
        assert!(world.now - restarted < Duration::from_secs(5), "{:?}", world.events);
    }
    assert!(world.events.contains(&Output::Down(Trouble::Forgotten)), "{:?}", world.events);
    let (from, to, payload) = &world.at_peers[0];
    assert_eq!((Some(*from), *to, &payload[..]), (world.relay.relayed(), peer, &b"after"[..]));
}

#[test]
fn a_server_that_is_away_is_tried_for_ever_at_a_bounded_pace_and_found_when_it_is_back() {
    let mut world = World::new("password");
    world.cut = true;
    world.run(Duration::from_secs(600));
    assert_eq!(world.send(address(PEER), b"nobody hears it"), Err(NotSent::Down));
    let silent = world.events.iter().filter(|event| **event == Output::Down(Trouble::Silent)).count();
    assert!((30..150).contains(&silent), "{silent} tries");
    assert!(world.sent < 1_000, "{} datagrams", world.sent);
    world.cut = false;
    world.run(Duration::from_secs(15));
    assert!(world.relay.relayed().is_some());
}

#[test]
fn a_wrong_password_is_said_and_tried_seldom() {
    let mut world = World::new("wrong");
    world.run(Duration::from_secs(300));
    assert!(
        world.events.iter().all(|event| *event == Output::Down(Trouble::Credentials)),
        "{:?}",
        world.events
    );
    assert!((10..25).contains(&world.events.len()), "{}", world.events.len());
    let right = settings("password").credentials;
    world.relay.handle(Input::Credentials(&right), world.now);
    world.run(Duration::from_secs(20));
    assert!(world.relay.relayed().is_some(), "the right one is taken");
}

#[test]
fn peers_of_another_family_and_impossible_ones_are_refused_at_once() {
    let mut world = World::new("password");
    world.run(Duration::from_millis(1));
    for peer in ["[2001:db8::1]:1000", "0.0.0.0:1000", "224.0.0.1:1000"] {
        assert_eq!(world.send(address(peer), b"x"), Err(NotSent::Refused), "{peer}");
    }
    assert_eq!(world.send(address(PEER), &vec![0; 65_536]), Err(NotSent::TooLong));
    assert_eq!(world.send(address(PEER), b""), Ok(()), "nothing can be sent too");
}
