//! What every carrier of JSON-RPC does before a message is carried out: size, pace, and running a request only once.

use std::sync::Arc;
use std::time::Instant;

use super::pace::{Pace, Verdict};
use super::replies::{Admission, Replies};
use super::{Counters, Refusal};
use crate::protocol::{ErrorCode, Id, Message, PeerId, Reply, RpcError};

/// What to do with the bytes that a peer has sent.
#[derive(Debug)]
pub enum Decision {
    /// Carry it out; the reply to a request has to come back to [`Gate::answered`].
    Run(Message),
    /// Say this, and do nothing.
    Answer(Box<Reply>),
    /// The request with this id runs already; its reply will come.
    Running(Id),
    /// The peer asks too fast and has been told.
    Ignore,
}

/// Admission of one carrier's messages.
#[derive(Debug, Default)]
pub struct Gate {
    replies: Replies,
    pace: Pace,
    counters: Arc<Counters>,
}

impl Gate {
    /// A gate that counts whom it turns away.
    #[must_use]
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            ..Self::default()
        }
    }

    /// Decides about one message of `peer` that came at `now`.
    pub fn admit(&mut self, peer: &PeerId, bytes: &[u8], now: Instant) -> Decision {
        let verdict = self.pace.admit(peer, now);
        match verdict {
            Verdict::Take if self.pace.is_full() => self.counters.take_unmetered(),
            Verdict::Take | Verdict::Refuse => {}
            Verdict::Ignore => {
                self.counters.refuse(Refusal::Ignored);
                return Decision::Ignore;
            }
        }
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(reply) => {
                self.counters.refuse(Refusal::Unparsable);
                return Decision::Answer(reply);
            }
        };
        let Message::Request(request) = &message else {
            return Decision::Run(message);
        };
        let admission = match verdict {
            Verdict::Take => self.replies.admit(peer, &request.id),
            Verdict::Refuse | Verdict::Ignore => Admission::Busy,
        };
        match admission {
            Admission::Run => Decision::Run(message),
            Admission::Running => {
                self.counters.refuse(Refusal::Repeated);
                Decision::Running(request.id.clone())
            }
            Admission::Repeat(reply) => {
                self.counters.refuse(Refusal::Repeated);
                Decision::Answer(reply)
            }
            Admission::Busy => {
                self.counters.refuse(match verdict {
                    Verdict::Take => Refusal::Requests,
                    Verdict::Refuse | Verdict::Ignore => Refusal::Pace,
                });
                let error = RpcError::new(ErrorCode::Busy, "too many requests wait for their replies; ask again in a second");
                Decision::Answer(Box::new(Reply {
                    id: Some(request.id.clone()),
                    result: Err(error),
                }))
            }
        }
    }

    /// Remembers the reply to a request that was run.
    pub fn answered(&mut self, peer: &PeerId, reply: &Reply) {
        self.replies.answered(peer, reply);
    }

    /// The remembered reply to a request; `None` while it runs, or when it was forgotten.
    #[must_use]
    pub fn reply(&self, peer: &PeerId, id: &Id) -> Option<Reply> {
        self.replies.get(peer, id)
    }
}
