//! The viewer's end of the data channel `control`: the clock exchange, and what the device says there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use peercam::media::Quality;
use peercam::protocol::{Clock, Close, Id, Message, QualityReply, Request, SessionQuality, SessionStats};
use str0m::channel::ChannelId;

use crate::moment::Moment;
use crate::offset::ClockOffset;
use crate::samples::Samples;

/// The first exchanges follow each other quickly, so that a short run has a good one among them ...
const QUICK: (u64, Duration) = (8, Duration::from_millis(100));

/// ... the others show drift.
const SLOW: Duration = Duration::from_secs(5);

/// Questions without an answer that are remembered; a device that answers none is not asked for ever.
const UNANSWERED: usize = 16;

/// The data channel as one viewer sees it.
pub struct Control {
    channel: ChannelId,
    pub offset: ClockOffset,
    /// Round trips of `session.clock`, in milliseconds.
    pub round_trip_ms: Samples,
    /// When the channel opened.
    pub open: Option<Moment>,
    /// The device's last `session.stats`.
    pub stats: Option<SessionStats>,
    /// Errors with which the device answered, the last one.
    pub error: Option<String>,
    /// The rungs that the device has granted, in order of its replies.
    pub granted: Vec<Quality>,
    asked: HashMap<u64, Moment>,
    /// Wishes for a rung that were not answered yet.
    wished: HashSet<u64>,
    count: u64,
    clocks: u64,
    next: Option<Instant>,
    writes: VecDeque<String>,
}

impl Control {
    /// For the channel that the offer negotiates.
    pub fn new(channel: ChannelId) -> Self {
        Self {
            channel,
            offset: ClockOffset::default(),
            round_trip_ms: Samples::default(),
            open: None,
            stats: None,
            error: None,
            granted: Vec::new(),
            asked: HashMap::new(),
            wished: HashSet::new(),
            count: 0,
            clocks: 0,
            next: None,
            writes: VecDeque::new(),
        }
    }

    /// The channel is open: the first question goes out.
    pub fn opened(&mut self, channel: ChannelId, label: &str, now: Moment) {
        if label != "control" || self.open.is_some() {
            return;
        }
        self.channel = channel;
        self.open = Some(now);
        self.ask(now);
    }

    /// When [`Control::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Asks again if it is time.
    pub fn timeout(&mut self, now: Moment) {
        if self.next.is_some_and(|next| now.mono >= next) {
            self.ask(now);
        }
    }

    /// The next text to be written, if any.
    pub fn write(&mut self) -> Option<(ChannelId, String)> {
        self.writes.pop_front().map(|text| (self.channel, text))
    }

    /// Takes what the device said; `Some` if it closes the session.
    pub fn message(&mut self, bytes: &[u8], now: Moment) -> Option<Close> {
        match Message::parse(bytes).ok()? {
            Message::Reply(reply) => {
                let Some(Id::Number(id)) = reply.id else { return None };
                if self.wished.remove(&id) {
                    match reply.result.map(serde_json::from_value::<QualityReply>) {
                        Ok(Ok(reply)) => self.granted.push(reply.quality),
                        Ok(Err(error)) => self.error = Some(format!("reading the reply to session.quality: {error}")),
                        Err(error) => self.error = Some(format!("session.quality was refused: {error}")),
                    }
                    return None;
                }
                let asked = self.asked.remove(&id)?;
                match reply.result.map(serde_json::from_value::<Clock>) {
                    Ok(Ok(clock)) => {
                        self.round_trip_ms.push(now.unix_ms - asked.unix_ms);
                        self.offset.enter(asked.unix_ms, now.unix_ms, &clock);
                    }
                    Ok(Err(error)) => self.error = Some(format!("reading the reply to session.clock: {error}")),
                    Err(error) => self.error = Some(format!("session.clock was refused: {error}")),
                }
                None
            }
            Message::Notification(note) => match note.method.as_str() {
                "session.stats" => {
                    self.stats = serde_json::from_value(note.params).ok().or_else(|| self.stats.take());
                    None
                }
                "session.close" => serde_json::from_value(note.params).ok(),
                other => {
                    tracing::debug!(method = other, "unknown notification on the data channel");
                    None
                }
            },
            Message::Request(_) => None,
        }
    }

    fn ask(&mut self, now: Moment) {
        if self.asked.len() >= UNANSWERED {
            self.next = None;
            return;
        }
        let id = self.request("session.clock", serde_json::json!({}));
        self.asked.insert(id, now);
        self.clocks += 1;
        self.next = Some(now.mono + if self.clocks < QUICK.0 { QUICK.1 } else { SLOW });
    }

    /// Asks for another rung of what `session` shows; nothing before the channel is open.
    pub fn wish(&mut self, session: &str, quality: Quality) {
        if self.open.is_none() || self.wished.len() >= UNANSWERED {
            return;
        }
        let wish = SessionQuality {
            session: session.to_owned(),
            quality,
        };
        let id = self.request("session.quality", serde_json::json!(wish));
        self.wished.insert(id);
    }

    fn request(&mut self, method: &str, params: serde_json::Value) -> u64 {
        self.count += 1;
        let request = Message::Request(Request {
            id: Id::Number(self.count),
            method: method.to_owned(),
            params,
        });
        self.writes.push_back(request.to_json());
        self.count
    }
}
