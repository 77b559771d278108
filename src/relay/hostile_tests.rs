//! A server that means no good costs little, and time makes it cost less.

use super::*;

/// The client, and what a server without users would answer.
struct Hostile {
    relay: Relay,
    now: Instant,
    sent: usize,
    troubles: Vec<Trouble>,
}

/// An answer to `request` of this class (0x0100 success, 0x0110 error) with these attributes.
fn answer(request: &[u8], class: u16, attributes: &[u8]) -> Vec<u8> {
    let method = u16::from_be_bytes([request[0], request[1]]) | class;
    let length = u16::try_from(attributes.len()).expect("a short answer");
    let mut bytes = [method.to_be_bytes(), length.to_be_bytes()].concat();
    bytes.extend_from_slice(&request[4..20]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// ERROR-CODE.
fn code(code: u16) -> Vec<u8> {
    let (class, number) = ((code / 100) as u8, (code % 100) as u8);
    vec![0, 9, 0, 4, 0, 0, class, number]
}

/// XOR-RELAYED-ADDRESS of 192.0.2.1:50000, and LIFETIME.
fn allocated(seconds: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0x16, 0, 8, 0, 1];
    bytes.extend_from_slice(&(50_000u16 ^ 0x2112).to_be_bytes());
    bytes.extend_from_slice(&(0xc000_0201u32 ^ 0x2112_a442).to_be_bytes());
    bytes.extend_from_slice(&[0, 0x0d, 0, 4]);
    bytes.extend_from_slice(&seconds.to_be_bytes());
    bytes
}

impl Hostile {
    fn new(carrier: Carrier) -> Self {
        let now = Instant::now();
        let credentials = Credentials::Static {
            username: "user".into(),
            password: "password".into(),
        };
        let settings = Settings {
            carrier,
            family: Family::V4,
            credentials,
        };
        Self {
            relay: Relay::new(settings, now),
            now,
            sent: 0,
            troubles: Vec::new(),
        }
    }

    /// Runs for ten minutes; `server` says what it answers to each request.
    fn run(&mut self, mut server: impl FnMut(&[u8]) -> Vec<Vec<u8>>) {
        let until = self.now + Duration::from_secs(600);
        while self.relay.deadline().0 <= until {
            self.now = self.now.max(self.relay.deadline().0);
            self.relay.handle(Input::Timeout, self.now);
            let mut answers = VecDeque::new();
            loop {
                while let Some(output) = self.relay.poll() {
                    match output {
                        Output::Open => self.relay.handle(
                            Input::Opened {
                                wall: SystemTime::UNIX_EPOCH,
                            },
                            self.now,
                        ),
                        Output::Send(bytes) => {
                            self.sent += 1;
                            answers.extend(server(&bytes));
                        }
                        Output::Down(trouble) => self.troubles.push(trouble),
                        Output::Close | Output::Up { .. } => {}
                    }
                }
                let Some(bytes) = answers.pop_front() else { break };
                self.relay.receive(&bytes, self.now, |_, _| {});
            }
            assert!(self.sent < 10_000, "{} requests by {:?}", self.sent, self.troubles.last());
        }
    }
}

const ALLOCATE: u8 = 3;

#[test]
fn redirects_without_end_are_followed_nowhere_and_asked_for_seldom() {
    let mut world = Hostile::new(Carrier::Datagrams);
    world.run(|request| vec![answer(request, 0x110, &code(300))]);
    assert!((30..150).contains(&world.sent), "{} requests in ten minutes", world.sent);
}

#[test]
fn an_allocation_that_is_taken_back_at_once_again_and_again_is_asked_for_ever_more_seldom() {
    for lifetime in [0, 1, 600] {
        let mut world = Hostile::new(Carrier::Datagrams);
        world.run(|request| {
            vec![match request[1] {
                ALLOCATE => answer(request, 0x100, &allocated(lifetime)),
                _ => answer(request, 0x110, &code(437)),
            }]
        });
        let sent = world.sent;
        assert!(
            (30..700).contains(&sent),
            "{sent} requests in ten minutes, with a lifetime of {lifetime} s"
        );
        assert!(world.troubles.iter().all(|trouble| *trouble == Trouble::Forgotten));
    }
}

#[test]
fn lifetimes_of_nothing_do_not_make_us_ask_without_pause() {
    let mut world = Hostile::new(Carrier::Datagrams);
    world.run(|request| vec![answer(request, 0x100, &allocated(0))]);
    assert!((100..400).contains(&world.sent), "{} requests in ten minutes", world.sent);
}

#[test]
fn an_allocation_that_nobody_renews_ends_with_its_lifetime() {
    let mut world = Hostile::new(Carrier::Stream);
    world.run(|request| match request[1] {
        ALLOCATE => vec![answer(request, 0x100, &allocated(1))],
        _ => Vec::new(),
    });
    assert!((30..600).contains(&world.sent), "{} requests in ten minutes", world.sent);
    assert!(
        world.troubles.iter().all(|trouble| *trouble == Trouble::Forgotten),
        "{:?}",
        world.troubles
    );
}

#[test]
fn a_new_nonce_for_every_request_is_no_reason_to_go_on() {
    let mut world = Hostile::new(Carrier::Datagrams);
    let mut number = 0u32;
    world.run(|request| {
        number += 1;
        let mut attributes = code(438);
        attributes.extend_from_slice(&[0, 0x14, 0, 4, b'r', b'e', b'a', b'm', 0, 0x15, 0, 4]);
        attributes.extend_from_slice(&number.to_be_bytes().map(|byte| b'a' + byte % 26));
        vec![answer(request, 0x110, &attributes)]
    });
    assert!(world.sent < 400, "{} requests in ten minutes", world.sent);
    assert!(!world.troubles.is_empty());
}

#[test]
fn answers_to_what_was_not_asked_and_rubbish_change_nothing() {
    let mut world = Hostile::new(Carrier::Datagrams);
    world.run(|request| {
        let mut other = request.to_vec();
        other[8] ^= 1;
        let rubbish = [&[][..], &[0], &[0x40, 0, 0xff, 0xff, 1], &[7; 1_500], &request[..10]].map(<[u8]>::to_vec);
        let mut answers = vec![answer(&other, 0x100, &allocated(600)), answer(&other, 0x110, &code(401))];
        answers.extend(rubbish);
        answers
    });
    assert_eq!(world.relay.relayed(), None);
    assert!(
        world.troubles.iter().all(|trouble| *trouble == Trouble::Silent),
        "{:?}",
        world.troubles
    );
}

#[test]
fn a_frame_that_never_ends_takes_what_a_message_can_take_and_no_more() {
    let mut world = Hostile::new(Carrier::Stream);
    let mut first = true;
    world.run(|_| {
        if std::mem::take(&mut first) {
            vec![vec![0, 1, 0xff, 0xfc]]
        } else {
            Vec::new()
        }
    });
    // The same, by hand, in the time in which it is waited for.
    let mut stream = Stream::default();
    let mut messages = 0;
    stream
        .push(&[0, 1, 0xff, 0xfc], |_| messages += 1)
        .expect("it may become a message");
    for _ in 0..1_000 {
        if stream
            .push(&[0; 1_024], |message| messages += usize::from(message.len() > 60_000))
            .is_err()
        {
            break;
        }
        // A vector that grows doubles.
        assert!(stream.held() <= 3 * 65_536, "{} bytes are held", stream.held());
    }
    assert!(messages >= 1, "it ended after all");
}
