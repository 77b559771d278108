//! What a viewer and the device say to each other until there is a session, and when it ends: JSON-RPC, whichever carrier brings it.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use peercam::media::Quality;
use peercam::protocol::{
    Candidates, Close, ErrorCode, Hello, HelloReply, Id, Message, Offer, OfferReply, Playout, Reply, Request, RpcError, VERSION,
};
use serde_json::Value;

use crate::doors::NO_ANSWER;
use crate::moment::Moment;

/// A request is sent again, with the same id, if it is not answered in this time: the broker may have lost it.
const RETRY: Duration = Duration::from_secs(3);

/// After this time without an answer the viewer gives up.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an offer is good for, from when it is sent.
const OFFER_LIFE_MS: u64 = 15_000;

/// Messages with candidates that are kept until the session's id is known.
const EARLY_CANDIDATES: usize = 64;

/// Why a viewer saw its end before the run's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No reply to `session.hello`: nobody is there.
    Unreachable,
    /// The device refused; its own words.
    Refused(String),
    /// The device closed the session; its own words.
    Closed(String),
    /// Something broke.
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no reply to session.hello; is the device online, and its id right?"),
            Self::Refused(reason) => write!(f, "the device refused: {reason}"),
            Self::Closed(reason) => write!(f, "the device closed the session: {reason}"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

/// What the viewer has to do because of something that was said, or was not.
#[derive(Debug)]
pub enum Heard {
    /// The device is there; the offer has been sent to it.
    Hello,
    /// The device's SDP.
    Answer(String),
    /// Candidates of the device, as SDP's lines.
    Candidates(Vec<String>),
    /// It is over.
    Ended(Failure),
}

enum Stage {
    Hello,
    Offered { hello: HelloReply },
    Joined { session: String },
    Ended,
}

struct Waiting {
    id: u64,
    text: String,
    since: Instant,
    again: Instant,
}

/// One viewer's part of the conversation.
pub struct Dialogue {
    sdp: String,
    stream: Option<String>,
    quality: Quality,
    stage: Stage,
    waiting: Option<Waiting>,
    next_id: u64,
    early: Vec<Candidates>,
    to_say: VecDeque<String>,
}

impl Dialogue {
    /// Says hello, and will offer `sdp` for this rung of the `stream` of this name, or of the device's first one.
    pub fn new(sdp: String, stream: Option<String>, quality: Quality, now: Moment) -> Self {
        let mut dialogue = Self {
            sdp,
            stream,
            quality,
            stage: Stage::Hello,
            waiting: None,
            next_id: 0,
            early: Vec::new(),
            to_say: VecDeque::new(),
        };
        dialogue.ask("session.hello", &Hello { version: VERSION }, now);
        dialogue
    }

    /// The session's id, while there is one.
    pub fn session(&self) -> Option<&str> {
        match &self.stage {
            Stage::Joined { session } => Some(session),
            Stage::Hello | Stage::Offered { .. } | Stage::Ended => None,
        }
    }

    /// The next message for the device, if any.
    pub fn speak(&mut self) -> Option<String> {
        self.to_say.pop_front()
    }

    /// Takes a message of the device.
    pub fn message(&mut self, bytes: &[u8], now: Moment) -> Option<Heard> {
        match Message::parse(bytes) {
            Ok(Message::Reply(reply)) => self.reply(reply, now),
            Ok(Message::Notification(note)) => self.notification(&note.method, note.params),
            Ok(Message::Request(_)) | Err(_) => {
                tracing::debug!("a message that is neither reply nor notification");
                None
            }
        }
    }

    /// Asks again what was not answered, or gives up. To be called at [`Dialogue::deadline`].
    pub fn timeout(&mut self, now: Moment) -> Option<Heard> {
        let waiting = self.waiting.as_mut()?;
        if now.mono >= waiting.since + PATIENCE {
            return Some(Heard::Ended(match &self.stage {
                Stage::Hello => Failure::Unreachable,
                Stage::Offered { .. } | Stage::Joined { .. } | Stage::Ended => {
                    Failure::Broken(format!("session.offer was not answered within {} s", PATIENCE.as_secs()))
                }
            }));
        }
        if now.mono >= waiting.again {
            waiting.again = now.mono + RETRY;
            self.to_say.push_back(waiting.text.clone());
        }
        None
    }

    /// When [`Dialogue::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.again)
    }

    /// Tells the device all of the viewer's candidates, and that there will be no more. Returns what came of the device's early.
    pub fn tell_candidates(&mut self, candidates: Vec<String>) -> Vec<String> {
        let Stage::Joined { session } = &self.stage else {
            return Vec::new();
        };
        let trickle = |candidates| Candidates {
            session: session.clone(),
            candidates,
        };
        for message in [trickle(candidates), trickle(Vec::new())] {
            let message = Message::notification("session.candidates", &message);
            self.to_say.push_back(message.to_json());
        }
        let early = std::mem::take(&mut self.early).into_iter();
        early
            .filter(|early| early.session == *session)
            .flat_map(|early| early.candidates)
            .collect()
    }

    /// Takes leave of the device, for this reason.
    pub fn leave(&mut self, reason: &str) {
        if let Stage::Joined { session } = &self.stage {
            let close = Close {
                session: session.clone(),
                reason: reason.to_owned(),
            };
            self.to_say.push_back(Message::notification("session.close", &close).to_json());
        }
        self.end();
    }

    /// Nothing is asked or listened to any more.
    pub fn end(&mut self) {
        self.stage = Stage::Ended;
        self.waiting = None;
    }

    fn ask(&mut self, method: &str, params: &impl serde::Serialize, now: Moment) {
        self.next_id += 1;
        let request = Message::Request(Request {
            id: Id::Number(self.next_id),
            method: method.to_owned(),
            params: serde_json::to_value(params).unwrap_or_default(),
        });
        let text = request.to_json();
        self.waiting = Some(Waiting {
            id: self.next_id,
            text: text.clone(),
            since: now.mono,
            again: now.mono + RETRY,
        });
        self.to_say.push_back(text);
    }

    fn reply(&mut self, reply: Reply, now: Moment) -> Option<Heard> {
        self.waiting.take_if(|waiting| reply.id == Some(Id::Number(waiting.id)))?;
        match (std::mem::replace(&mut self.stage, Stage::Ended), reply.result) {
            (Stage::Hello, Ok(result)) => match serde_json::from_value::<HelloReply>(result) {
                Ok(hello) => {
                    self.offer(hello, now);
                    Some(Heard::Hello)
                }
                Err(error) => Some(broken("session.hello", &error)),
            },
            (Stage::Offered { hello }, Err(error)) if error.code == ErrorCode::Expired.number() => {
                let Some((nonce, clock_ms)) = renewed(&error).filter(|(nonce, _)| *nonce != hello.nonce) else {
                    return Some(Heard::Ended(Failure::Refused(error.to_string())));
                };
                self.offer(HelloReply { nonce, clock_ms, ..hello }, now);
                None
            }
            (Stage::Offered { .. }, Ok(result)) => match serde_json::from_value::<OfferReply>(result) {
                Ok(reply) => {
                    self.stage = Stage::Joined { session: reply.session };
                    Some(Heard::Answer(reply.sdp))
                }
                Err(error) => Some(broken("session.offer", &error)),
            },
            (Stage::Hello | Stage::Offered { .. }, Err(error)) if error.code == NO_ANSWER => {
                Some(Heard::Ended(Failure::Broken(error.message)))
            }
            (Stage::Hello | Stage::Offered { .. }, Err(error)) => {
                let reason = error.data.as_ref().and_then(|data| data.get("reason")).and_then(Value::as_str);
                let refusal = match reason {
                    Some(reason) => format!("{} ({reason})", error.message),
                    None => error.message,
                };
                Some(Heard::Ended(Failure::Refused(refusal)))
            }
            (stage @ (Stage::Joined { .. } | Stage::Ended), _) => {
                self.stage = stage;
                None
            }
        }
    }

    /// Sends the offer in the moment in which the device's clock was learned.
    fn offer(&mut self, hello: HelloReply, now: Moment) {
        let offer = Offer {
            nonce: hello.nonce.clone(),
            expires_ms: hello.clock_ms.saturating_add(OFFER_LIFE_MS),
            sdp: self.sdp.clone(),
            session: None,
            stream: self.stream.clone(),
            playout: Playout::Realtime,
            quality: self.quality,
        };
        self.stage = Stage::Offered { hello };
        self.ask("session.offer", &offer, now);
    }

    fn notification(&mut self, method: &str, params: Value) -> Option<Heard> {
        match method {
            "session.candidates" => {
                let told: Candidates = serde_json::from_value(params).ok()?;
                match &self.stage {
                    Stage::Joined { session } if *session == told.session => return Some(Heard::Candidates(told.candidates)),
                    Stage::Offered { .. } if self.early.len() < EARLY_CANDIDATES => self.early.push(told),
                    Stage::Hello | Stage::Offered { .. } | Stage::Joined { .. } | Stage::Ended => {}
                }
                None
            }
            "session.close" => {
                let close: Close = serde_json::from_value(params).ok()?;
                let own = matches!(&self.stage, Stage::Joined { session } if *session == close.session);
                own.then_some(Heard::Ended(Failure::Closed(close.reason)))
            }
            other => {
                tracing::debug!(method = other, "unknown notification");
                None
            }
        }
    }
}

fn broken(method: &str, error: &serde_json::Error) -> Heard {
    Heard::Ended(Failure::Broken(format!("reading the reply to {method}: {error}")))
}

/// The nonce and the clock that a device sends with the refusal of an offer that came too late.
fn renewed(error: &RpcError) -> Option<(String, u64)> {
    let data = error.data.as_ref()?;
    Some((data.get("nonce")?.as_str()?.to_owned(), data.get("clock_ms")?.as_u64()?))
}
