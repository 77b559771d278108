//! What the stack has to say, and what follows from it.

use std::time::Duration;

use str0m::bwe::BweKind;
use str0m::media::MediaKind;
use str0m::{IceConnectionState, PacerReason, Reason};

use super::{Ending, Event, Outbox, Route, Session, rtc};
use crate::media::Bitrate;
use crate::protocol::Message;

/// How long a lost connection may take to come back, by itself or by an ICE restart.
pub(super) const LOST_TIME: Duration = Duration::from_secs(20);

/// How late the stack's housekeeping may come: it is then done with the next picture, and needs no turn of its own.
const HOUSEKEEPING_SLACK: Duration = Duration::from_millis(20);

impl Session {
    /// Takes everything out of the stack. Events are dealt with only once it is drained, since dealing with one may change it.
    pub(super) fn drain(&mut self, outbox: &mut Outbox) {
        loop {
            match self.rtc.poll_output() {
                Ok(str0m::Output::Timeout(at)) => {
                    self.stack_due = at;
                    self.next_timeout = if self.can_wait() { at + HOUSEKEEPING_SLACK } else { at };
                    match self.pending.pop_front() {
                        Some(event) => self.event(event, outbox),
                        None => break,
                    }
                }
                Ok(str0m::Output::Transmit(transmit)) => {
                    let route = Route {
                        transport: transmit.proto.into(),
                        source: transmit.source,
                        destination: transmit.destination,
                    };
                    outbox.datagrams.push(route, &transmit.contents);
                }
                Ok(str0m::Output::Event(event)) => self.pending.push_back(event),
                Err(error) => return self.finish(Ending::Failed, format!("the connection failed: {error}"), outbox),
            }
        }
        if !self.rtc.is_alive() {
            self.finish(Ending::ViewerLeft, "the viewer left".into(), outbox);
        }
    }

    /// Whether what the stack wants the time for is only to look at its estimate and its empty queue.
    fn can_wait(&self) -> bool {
        let reason = self.rtc.last_timeout_reason();
        let housekeeping = matches!(reason, Reason::BweDelayControl | Reason::Pacer(PacerReason::Handle));
        housekeeping && self.connected && !self.narrow
    }

    fn event(&mut self, event: str0m::Event, outbox: &mut Outbox) {
        match event {
            str0m::Event::Connected => {
                self.connected = true;
                self.give_up = None;
                outbox.events.push(Event::Connected);
            }
            str0m::Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed) if self.connected => {
                self.give_up = None;
            }
            // Checking counts too: after a restart whose viewer is never heard it would go on for ever.
            str0m::Event::IceConnectionStateChange(_) if self.connected => {
                let until = self.now + LOST_TIME;
                self.give_up
                    .get_or_insert((until, Ending::PathLost, "the network path to the viewer was lost"));
            }
            // Sound that was offered beside it is told too, although the answer rejects it.
            str0m::Event::MediaAdded(added) if added.kind == MediaKind::Video && self.media.is_none() => {
                let pt = self.rtc.media(added.mid).and_then(|media| media.remote_pts().first().copied());
                self.media = pt.map(|pt| (added.mid, pt));
                rtc::bound_rtx(&mut self.rtc, added.mid);
                self.pace();
            }
            str0m::Event::KeyframeRequest(_) => outbox.events.push(Event::KeyFrameWanted),
            str0m::Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => {
                self.figures.estimate = Some(Bitrate::bps(estimate.as_u64()));
                self.pace();
            }
            str0m::Event::ChannelOpen(id, label) if label == "control" => self.channel = Some(id),
            str0m::Event::ChannelData(data) if Some(data.id) == self.channel => match Message::parse(&data.data) {
                Ok(message) => outbox.events.push(Event::Message(message)),
                Err(reply) => {
                    let _ = self.say(&Message::Reply(*reply));
                }
            },
            str0m::Event::ChannelClose(id) if Some(id) == self.channel => self.channel = None,
            str0m::Event::PeerStats(stats) => {
                self.figures.note_peer(&stats);
                self.note_stats(&stats, outbox);
            }
            str0m::Event::MediaEgressStats(stats) => self.figures.note_stream(&stats),
            str0m::Event::Closed => self.finish(Ending::ViewerLeft, "the viewer left".into(), outbox),
            _ => {}
        }
    }
}
