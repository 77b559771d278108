//! Where a STUN server sees one of our sockets (RFC 8489): what an address translation on the way has made of its address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, Message, MessageClass, MessageWrite as _, MessageWriteExt as _, MessageWriteVec, TransactionId};

use super::transaction::{FIRST_PAUSE, LONGEST_PAUSE, SENDS};

/// NATs may forget a silent UDP binding after 30 s.
const REFRESH: Duration = Duration::from_secs(25);
/// A server that does not answer, or refuses, is asked again after so long.
const RETRY: Duration = Duration::from_secs(10);

/// What an answer has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was none to our question.
    Nothing,
    /// What is known already, or that the server does not say.
    Same,
    /// Another address than before.
    Moved(SocketAddr),
}

/// One socket as one server sees it. It owns no socket and no clock: its driver sends what [`Binding::timeout`] gives, and hands over what
/// comes from the server.
#[derive(Debug)]
pub struct Binding {
    asking: Option<Asking>,
    mapped: Option<SocketAddr>,
    /// When there is something to do.
    due: Instant,
    silent: bool,
}

#[derive(Debug)]
struct Asking {
    id: TransactionId,
    bytes: Vec<u8>,
    sends_left: u32,
    pause: Duration,
}

impl Binding {
    /// One that asks at its first timeout, which is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            asking: None,
            mapped: None,
            due: now,
            silent: false,
        }
    }

    /// Where the server sees the socket, as far as it has told.
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Whether the server has not answered when it was asked last.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// When [`Binding::timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.due
    }

    /// Does what is due; returns what has to go to the server.
    pub fn timeout(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.due {
            return None;
        }
        let asking = match self.asking.take() {
            None => Asking::new()?,
            Some(Asking { sends_left: 0, .. }) => {
                // What it said before may still be true, and costs a viewer a check at most.
                self.silent = true;
                self.due = now + RETRY;
                return None;
            }
            Some(asking) => asking,
        };
        let bytes = asking.bytes.clone();
        self.due = now + asking.pause;
        self.asking = Some(Asking {
            sends_left: asking.sends_left - 1,
            pause: (asking.pause * 2).min(LONGEST_PAUSE),
            ..asking
        });
        Some(bytes)
    }

    /// Takes what came from the server's address to the socket.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Heard {
        let Some(asking) = &self.asking else { return Heard::Nothing };
        let answer = Message::from_bytes(bytes)
            .ok()
            .filter(|message| message.has_method(BINDING) && message.transaction_id() == asking.id)
            .filter(|message| message.has_class(MessageClass::Success) || message.has_class(MessageClass::Error));
        let Some(answer) = answer else { return Heard::Nothing };
        let told = answer
            .attribute::<XorMappedAddress>()
            .ok()
            .map(|mapped| mapped.addr(answer.transaction_id()))
            .filter(|mapped| answer.has_class(MessageClass::Success) && mapped.port() != 0 && !mapped.ip().is_unspecified());
        self.asking = None;
        self.silent = told.is_none();
        self.due = now + if told.is_some() { REFRESH } else { RETRY };
        match told {
            Some(mapped) if self.mapped.replace(mapped) != Some(mapped) => Heard::Moved(mapped),
            Some(_) | None => Heard::Same,
        }
    }
}

impl Asking {
    /// `None` where a request can't be written, which the crate's types allow for.
    fn new() -> Option<Self> {
        let mut message = Message::builder_request(BINDING, MessageWriteVec::new());
        message.add_fingerprint().ok()?;
        let bytes = message.finish();
        Some(Self {
            id: Message::from_bytes(&bytes).ok()?.transaction_id(),
            bytes,
            sends_left: SENDS,
            pause: FIRST_PAUSE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8], mapped: Option<&str>) -> Vec<u8> {
        let request = Message::from_bytes(request).expect("a request");
        let mut message = if mapped.is_some() {
            Message::builder_success(&request, MessageWriteVec::new())
        } else {
            Message::builder_error(&request, MessageWriteVec::new())
        };
        if let Some(mapped) = mapped {
            let mapped = XorMappedAddress::new(mapped.parse().expect("an address"), request.transaction_id());
            message.add_attribute(&mapped).expect("room");
        }
        message.finish()
    }

    #[test]
    fn a_server_is_asked_again_before_a_nat_forgets_and_a_new_mapping_is_told_once() {
        let mut now = Instant::now();
        let mut binding = Binding::new(now);
        for (mapped, heard) in [
            ("203.0.113.7:5000", Heard::Moved("203.0.113.7:5000".parse().expect("an address"))),
            ("203.0.113.7:5000", Heard::Same),
            ("203.0.113.7:5001", Heard::Moved("203.0.113.7:5001".parse().expect("an address"))),
        ] {
            let request = binding.timeout(now).expect("it asks");
            assert_eq!(binding.timeout(now), None, "it waits for the answer");
            assert_eq!(binding.receive(&answer(&request, Some(mapped)), now), heard);
            assert_eq!(binding.deadline(), now + REFRESH);
            now = binding.deadline();
        }
        assert_eq!(binding.mapped(), Some("203.0.113.7:5001".parse().expect("an address")));
    }

    #[test]
    fn what_is_no_answer_to_our_question_is_nothing() {
        let now = Instant::now();
        let (mut binding, mut other) = (Binding::new(now), Binding::new(now));
        assert_eq!(binding.receive(&[], now), Heard::Nothing, "nothing was asked");
        let request = binding.timeout(now).expect("it asks");
        let foreign = other.timeout(now).expect("it asks");
        for bytes in [&[][..], &[1, 1, 0, 0], &request, &answer(&foreign, Some("203.0.113.7:5000"))] {
            assert_eq!(binding.receive(bytes, now), Heard::Nothing);
        }
        let good = answer(&request, Some("203.0.113.7:5000"));
        assert!(matches!(binding.receive(&good, now), Heard::Moved(_)));
        assert_eq!(binding.receive(&good, now), Heard::Nothing, "it was answered already");
    }

    #[test]
    fn a_server_that_is_silent_or_refuses_is_asked_again_later_and_takes_nothing_away() {
        let mut now = Instant::now();
        let mut binding = Binding::new(now);
        let request = binding.timeout(now).expect("it asks");
        assert!(matches!(
            binding.receive(&answer(&request, Some("203.0.113.7:5000")), now),
            Heard::Moved(_)
        ));
        now = binding.deadline();
        let began = now;
        let mut sent = 0;
        while !binding.is_silent() {
            sent += u32::from(binding.timeout(now).is_some());
            now = binding.deadline();
        }
        assert_eq!((sent, now - began), (SENDS, Duration::from_millis(4_400) + RETRY));
        assert!(binding.mapped().is_some());
        let request = binding.timeout(now).expect("it asks");
        assert_eq!(binding.receive(&answer(&request, None), now), Heard::Same);
        assert!(binding.is_silent() && binding.deadline() == now + RETRY);
    }
}
