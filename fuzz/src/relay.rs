//! What a TURN or STUN server says.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use peercam::relay::{Binding, Carrier, Credentials, Family, Input, Output, Relay, Settings};

/// What one message of a server, or one moment, may make us send: as many requests as may wait, and one of each kind beside them.
const MOST_AT_ONCE: usize = 40;
/// What an hour without a word of the server may: a dead one is tried every 8 s, with six datagrams each time.
const MOST_IN_AN_HOUR: usize = 6_000;
/// Where an answer has no transaction id of its own, in its place.
const ID: std::ops::Range<usize> = 8..20;

/// Messages of a TURN server, each behind two bytes with its length. The first byte of all says whether they come by UDP or in a stream. A
/// message whose transaction id is zero answers the request that was sent last.
pub fn relay(bytes: &[u8]) {
    let Some((&carrier, mut rest)) = bytes.split_first() else { return };
    let settings = Settings {
        carrier: if carrier & 1 == 0 { Carrier::Datagrams } else { Carrier::Stream },
        family: Family::V4,
        credentials: Credentials::Static {
            username: "device".into(),
            password: "secret".into(),
        },
    };
    let start = Instant::now();
    let mut world = World {
        relay: Relay::new(settings, start),
        now: start,
        last: [0; 12],
        sent: 0,
        is_up: false,
        ups: 0,
    };
    world.step();
    while let [high, low, tail @ ..] = rest {
        let size = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (message, after) = tail.split_at(size);
        rest = after;
        bind(message, start);
        let mut message = message.to_vec();
        if let Some(id) = message.get_mut(ID)
            && id.iter().all(|byte| *byte == 0)
        {
            id.copy_from_slice(&world.last);
        }
        world.now += Duration::from_millis(7);
        let (relay, now) = (&mut world.relay, world.now);
        let (was_up, mut heard) = (relay.relayed().is_some(), false);
        relay.receive(&message, now, |_, payload| {
            // A stream may have kept a part of the message before.
            assert!(payload.len() <= usize::from(u16::MAX), "more came of it than was in it");
            heard = true;
        });
        let ups = world.ups;
        world.drain();
        assert!(
            !heard || was_up || world.ups > ups,
            "a viewer speaks where there is no address to speak to"
        );
        world.speak();
        world.step();
    }
    world.wait(Duration::from_secs(3_600));
}

/// The same message as a STUN server's answer.
fn bind(message: &[u8], now: Instant) {
    let mut binding = Binding::new(now);
    let request = binding.timeout(now).expect("it asks at once");
    let mut answer = message.to_vec();
    if let Some(id) = answer.get_mut(ID) {
        id.copy_from_slice(&request[ID]);
    }
    binding.receive(&answer, now);
    assert!(
        binding
            .mapped()
            .is_none_or(|mapped| mapped.port() != 0 && !mapped.ip().is_unspecified())
    );
    assert!(binding.deadline() > now, "it does not ask without a pause");
}

struct World {
    relay: Relay,
    now: Instant,
    /// The transaction id of the last request.
    last: [u8; 12],
    sent: usize,
    is_up: bool,
    /// How often it came up.
    ups: usize,
}

impl World {
    /// Does what the client wants; the way to the server is always open.
    fn drain(&mut self) {
        let before = self.sent;
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Open => {
                    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
                    self.relay.handle(Input::Opened { wall }, self.now);
                }
                Output::Close => {}
                Output::Send(bytes) => {
                    self.sent += 1;
                    assert!(bytes.len() < 4_096, "a request of {} bytes", bytes.len());
                    self.last.copy_from_slice(&bytes[ID]);
                }
                Output::Up { relayed, .. } => {
                    assert!(!self.is_up, "it was up already");
                    assert!(self.relay.relayed().is_none_or(|own| own == relayed), "two addresses");
                    self.is_up = true;
                    self.ups += 1;
                }
                Output::Down(trouble) => {
                    assert!(
                        !trouble.to_string().chars().any(char::is_control),
                        "{trouble:?} is no line of a log"
                    );
                    self.is_up = false;
                }
            }
        }
        assert!(self.sent - before <= MOST_AT_ONCE, "{} requests at once", self.sent - before);
        assert_eq!(self.relay.relayed().is_some(), self.is_up, "what it says and what it is");
    }

    /// A viewer is spoken to.
    fn speak(&mut self) {
        let viewer = SocketAddr::from(([203, 0, 113, 9], 40_000));
        self.relay.permit(IpAddr::from([203, 0, 113, 10]), self.now);
        let mut out = Vec::new();
        let sent = self.relay.send(viewer, b"picture", self.now, &mut out);
        assert!(sent.is_err() || out.len() > b"picture".len());
        self.drain();
    }

    /// What is due now.
    fn step(&mut self) {
        if self.relay.deadline().0 <= self.now {
            self.relay.handle(Input::Timeout, self.now);
            self.drain();
        }
    }

    /// Nobody says anything for so long.
    fn wait(&mut self, time: Duration) {
        let (until, before) = (self.now + time, self.sent);
        let mut steps = 0;
        loop {
            let (at, why) = self.relay.deadline();
            if at > until {
                break;
            }
            steps += 1;
            assert!(steps < 2 * MOST_IN_AN_HOUR, "{why} does not end");
            self.now = self.now.max(at);
            self.step();
        }
        assert!(self.sent - before < MOST_IN_AN_HOUR, "{} datagrams to nobody", self.sent - before);
    }
}
