//! Replies already given: MQTT may deliver a request twice, and it is to be run once.

use std::collections::{HashMap, VecDeque};

use crate::protocol::{Id, PeerId, Reply};

/// Replies remembered: far more than can be in flight.
const MAX_REMEMBERED: usize = 256;

/// Requests of one peer that may wait for their replies.
const MAX_PER_PEER: usize = 16;

/// What to do with a request.
#[derive(Debug, PartialEq)]
pub enum Admission {
    /// Run it.
    Run,
    /// It runs already; its reply will come.
    Running,
    /// It was run; this was the reply.
    Repeat(Box<Reply>),
    /// The peer, or all together, ask faster than is answered.
    Busy,
}

/// The newest requests and their replies.
#[derive(Debug, Default)]
pub struct Replies {
    /// The results as JSON: a tenth of what one takes that can be looked into.
    entries: HashMap<(PeerId, Id), Option<Box<str>>>,
    order: VecDeque<(PeerId, Id)>,
}

impl Replies {
    /// Decides about a request.
    pub fn admit(&mut self, peer: &PeerId, id: &Id) -> Admission {
        let key = (peer.clone(), id.clone());
        if let Some(reply) = self.get(peer, id) {
            return Admission::Repeat(Box::new(reply));
        }
        if self.entries.contains_key(&key) {
            return Admission::Running;
        }
        let waiting = self.entries.iter().filter(|((of, _), reply)| of == peer && reply.is_none()).count();
        if waiting >= MAX_PER_PEER {
            return Admission::Busy;
        }
        if self.order.len() >= MAX_REMEMBERED {
            // The oldest that has been answered makes room.
            let answered = self.order.iter().position(|key| self.entries.get(key).is_none_or(Option::is_some));
            let Some(key) = answered.and_then(|index| self.order.remove(index)) else {
                return Admission::Busy;
            };
            self.entries.remove(&key);
        }
        self.entries.insert(key.clone(), None);
        self.order.push_back(key);
        Admission::Run
    }

    /// The reply that was given, if it was and is remembered.
    #[must_use]
    pub fn get(&self, peer: &PeerId, id: &Id) -> Option<Reply> {
        let json = self.entries.get(&(peer.clone(), id.clone()))?.as_deref()?;
        // Not as a message: what we say ourselves is held to no stranger's limits.
        let result = serde_json::from_str(json).ok()?;
        Some(Reply {
            id: Some(id.clone()),
            result,
        })
    }

    /// Remembers the reply to a request that was run.
    pub fn answered(&mut self, peer: &PeerId, reply: &Reply) {
        if let Some(id) = &reply.id
            && let Some(entry) = self.entries.get_mut(&(peer.clone(), id.clone()))
        {
            // It was made of JSON values, so it can be written.
            *entry = serde_json::to_string(&reply.result).ok().map(Into::into);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::protocol::{ErrorCode, RpcError};

    fn peer(name: &str) -> PeerId {
        PeerId::parse(name).expect("a name")
    }

    fn reply(id: u64) -> Reply {
        Reply {
            id: Some(Id::Number(id)),
            result: Ok(id.into()),
        }
    }

    #[test]
    fn a_request_that_comes_twice_is_run_once_and_its_reply_repeated() {
        let mut replies = Replies::default();
        let alice = peer("alice");
        assert_eq!(replies.admit(&alice, &Id::Number(1)), Admission::Run);
        assert_eq!(replies.admit(&alice, &Id::Number(1)), Admission::Running);
        replies.answered(&alice, &reply(1));
        assert_eq!(replies.admit(&alice, &Id::Number(1)), Admission::Repeat(Box::new(reply(1))));
        assert_eq!(
            replies.admit(&peer("bob"), &Id::Number(1)),
            Admission::Run,
            "ids are each peer's own"
        );
    }

    #[test]
    fn a_reply_is_repeated_whatever_it_holds() {
        let large: Vec<u64> = (0..2 * crate::protocol::MAX_MESSAGE_VALUES as u64).collect();
        let error = RpcError::new(ErrorCode::Busy, "ask again").with("nonce", "n".into());
        for (id, result) in [Ok(Value::Null), Ok(large.into()), Err(error)].into_iter().enumerate() {
            let (mut replies, alice, id) = (Replies::default(), peer("alice"), Id::Number(id as u64));
            let reply = Reply {
                id: Some(id.clone()),
                result,
            };
            assert_eq!(replies.admit(&alice, &id), Admission::Run);
            replies.answered(&alice, &reply);
            assert_eq!(replies.admit(&alice, &id), Admission::Repeat(Box::new(reply)));
        }
    }

    #[test]
    fn one_peer_can_not_fill_the_memory_nor_keep_others_out() {
        let mut replies = Replies::default();
        let mallory = peer("mallory");
        let admitted = (0..10_000)
            .filter(|id| replies.admit(&mallory, &Id::Number(*id)) == Admission::Run)
            .count();
        assert_eq!(admitted, MAX_PER_PEER);
        for id in 0..1_000 {
            assert_eq!(replies.admit(&peer("alice"), &Id::Number(id)), Admission::Run);
            replies.answered(&peer("alice"), &reply(id));
        }
        assert!(replies.entries.len() <= MAX_REMEMBERED);
    }
}
