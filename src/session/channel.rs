//! The data channel `control`: the same messages as over any other carrier.

use super::{Ending, Event, Outbox, Session, WallClock};
use crate::protocol::{Clock, ErrorCode, Message, Reply, Request, RpcError};

/// Requests of one viewer that may wait for their replies.
const MAX_REQUESTS: usize = 16;

impl Session {
    pub(super) fn drain_and_answer(&mut self, clock: &WallClock, outbox: &mut Outbox) {
        let heard = outbox.events.len();
        self.drain(outbox);
        // What the session answers by itself: the clock, and a viewer that asks faster than it listens.
        let mut index = heard;
        while index < outbox.events.len() {
            let reply = match &outbox.events[index] {
                Event::Message(Message::Request(request)) => self.own_reply(request, clock),
                _ => None,
            };
            match reply {
                Some(reply) => {
                    outbox.events.remove(index);
                    if let Err(reason) = self.say(&Message::Reply(reply)) {
                        return self.finish(Ending::ChannelFull, reason, outbox);
                    }
                    self.drain(outbox);
                }
                None => index += 1,
            }
        }
    }

    pub(super) fn say(&mut self, message: &Message) -> Result<(), String> {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else {
            return Ok(());
        };
        match channel.write(false, message.to_json().as_bytes()) {
            Ok(true) => Ok(()),
            Ok(false) => Err("the viewer does not read its data channel".into()),
            Err(error) => Err(format!("the data channel failed: {error}")),
        }
    }

    fn own_reply(&mut self, request: &Request, clock: &WallClock) -> Option<Reply> {
        let id = Some(request.id.clone());
        if request.method == "session.clock" {
            let now = clock.unix_ms(self.now);
            let result = serde_json::to_value(Clock {
                received_ms: now,
                sent_ms: now,
            })
            .unwrap_or_default();
            return Some(Reply { id, result: Ok(result) });
        }
        if self.requests >= MAX_REQUESTS {
            self.figures.counts.busy += 1;
            let sentence = format!("{MAX_REQUESTS} requests wait for their replies already; ask again after the next reply");
            return Some(Reply {
                id,
                result: Err(RpcError::new(ErrorCode::Busy, sentence)),
            });
        }
        self.requests += 1;
        None
    }
}
