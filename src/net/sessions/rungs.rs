//! Which rung of a stream a viewer is shown, and how they get to another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Sessions, Slot};
use crate::hub::{Hub, Next, Stream, Subscription};
use crate::media::{Bitrate, Quality};
use crate::protocol::{ErrorCode, PeerId, QualityReply, RpcError, SessionQuality};
use crate::session::WallClock;

/// A low rung that shows nothing for so long, while the camera does, is no use: its encoder hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// A stream that viewers may ask for, and what its encoders are asked for.
#[derive(Clone)]
pub struct Offered {
    pub stream: Stream,
    pub bitrate: Bitrate,
    /// Of the low rung.
    pub low_bitrate: Bitrate,
}

impl Offered {
    pub fn bitrate(&self, quality: Quality) -> Bitrate {
        match quality {
            Quality::High => self.bitrate,
            Quality::Low => self.low_bitrate,
        }
    }
}

/// A viewer's place in the rung that they are shown, and in the one that they are about to be.
pub(super) struct Watch {
    high: Arc<Hub>,
    shown: Subscription,
    /// When there was a picture last.
    seen: Instant,
    /// Begins with a key frame, and takes the other's place with it.
    next: Option<Subscription>,
}

impl Watch {
    /// Begins with `hub`, a rung of the stream whose high one is `high`.
    pub fn new(hub: &Arc<Hub>, high: &Arc<Hub>, now: Instant) -> Self {
        Self {
            high: Arc::clone(high),
            shown: hub.subscribe(now),
            seen: now,
            next: None,
        }
    }

    /// What the viewer is shown.
    pub fn hub(&self) -> &Arc<Hub> {
        self.shown.hub()
    }

    /// As [`Subscription::is_live`].
    pub fn is_live(&self) -> bool {
        self.shown.is_live()
    }

    /// As [`Subscription::next`]: of the rung that is shown, until there is a key frame of the next one.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(mut next) = self.next.take() {
            if let picture @ Next::Picture { .. } = next.next(now) {
                self.shown = next;
                self.seen = now;
                return picture;
            }
            self.next = Some(next);
        }
        let shown = self.shown.next(now);
        match shown {
            Next::Picture { .. } => self.seen = now,
            Next::Nothing if self.hangs(now) => {
                tracing::warn!(
                    stream = self.hub().name(),
                    "the low rung shows nothing; its viewers are shown the high one"
                );
                self.fall_back(now);
            }
            Next::Nothing | Next::Lagged { .. } => {}
        }
        shown
    }

    fn hangs(&self, now: Instant) -> bool {
        let runs = |newest| now.saturating_duration_since(newest) < PATIENCE / 3;
        let silent = now.saturating_duration_since(self.seen) >= PATIENCE;
        silent && self.hub().quality() == Quality::Low && self.high.figures().newest.is_some_and(runs)
    }

    /// Shows the high rung, and waits for the one that was shown.
    fn fall_back(&mut self, now: Instant) {
        self.seen = now;
        self.next = Some(std::mem::replace(&mut self.shown, self.high.subscribe(now)));
    }

    /// Goes over to `wished` with its next key frame; at once where what is shown has broken off.
    fn follow(&mut self, wished: &Arc<Hub>, now: Instant) {
        let is_broken = self.hub().quality() == Quality::Low && (self.hub().size().is_none() || self.hub().trouble().is_some());
        if is_broken {
            self.fall_back(now);
        }
        if Arc::ptr_eq(self.hub(), wished) {
            self.next = None;
        } else if self.next.as_ref().is_none_or(|next| !Arc::ptr_eq(next.hub(), wished)) {
            self.next = Some(wished.subscribe(now));
        }
    }
}

impl Slot {
    /// The rung that the viewer is shown, or will be once connected.
    pub(super) fn rung(&self) -> &Arc<Hub> {
        match &self.watch {
            Some(watch) => watch.hub(),
            None => self.stream.rung(self.fitting()),
        }
    }

    /// What the viewer wishes for, or less where their path carries no more.
    fn fitting(&self) -> Quality {
        if self.carried == Quality::Low { Quality::Low } else { self.wished }
    }

    /// The viewer wishes for another rung, the path carries another one, or one came or went.
    pub(super) fn follow_rungs(&mut self, now: Instant) {
        let shows = self
            .stream
            .rung(Quality::Low)
            .format()
            .is_none_or(|format| self.session.can_carry(format));
        if !shows {
            (self.wished, self.carried) = (Quality::High, Quality::High);
        }
        let rung = Arc::clone(self.stream.rung(self.fitting()));
        if let Some(watch) = &mut self.watch {
            watch.follow(&rung, now);
        }
    }
}

impl Sessions {
    /// A viewer wishes for another rung of what they watch.
    pub(super) fn change_quality(
        &mut self,
        peer: &PeerId,
        wish: &SessionQuality,
        reply: oneshot::Sender<Result<QualityReply, RpcError>>,
        clock: &WallClock,
    ) -> Vec<u64> {
        let mut result = Err(RpcError::new(ErrorCode::Conflict, "this session is over; open a new one"));
        let keys = self.on_own(peer, &wish.session, clock, |slot, _| {
            slot.wished = wish.quality;
            slot.follow_rungs(clock.instant);
            let quality = slot.stream.rung(slot.fitting()).quality();
            // Not for the log: a viewer may do this as often as they like.
            tracing::debug!(session = %slot.id, wished = wish.quality.name(), quality = quality.name(), "viewer changes rungs");
            result = Ok(QualityReply { quality });
        });
        // Nobody waits any more: the viewer sees what comes.
        let _ = reply.send(result);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{AccessUnit, MediaTime, StreamFormat};

    const FORMAT: StreamFormat = StreamFormat {
        width: 640,
        height: 360,
        profile_level_id: [0x42, 0xc0, 0x1e],
    };

    fn publish(hub: &Hub, at: Instant, key: bool) {
        let unit = AccessUnit {
            data: vec![0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 1].into(),
            time: MediaTime::default(),
            captured: at,
            key,
        };
        hub.publish(unit, at);
    }

    /// What a viewer gets now: the rung's initial, `K` for a key frame.
    fn shown(watch: &mut Watch, now: Instant) -> String {
        let mut shown = String::new();
        while let Next::Picture { picture, .. } = watch.next(now) {
            let rung = watch.hub().quality().name();
            shown.push_str(&rung[..1]);
            shown.push_str(if picture.unit.key { "K " } else { " " });
        }
        shown
    }

    #[test]
    fn a_viewer_is_shown_the_old_rung_until_the_key_frame_of_the_new_one_and_not_a_picture_longer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let stream = Stream::new("camera", true);
        assert_eq!(stream.rung(Quality::Low).quality(), Quality::High, "there is no low one yet");
        stream.high.set_format(FORMAT, true);
        stream.rungs().last().expect("a low rung").offer(Some((320, 180)));
        let (high, low) = (Arc::clone(&stream.high), Arc::clone(stream.rung(Quality::Low)));
        assert_eq!(low.quality(), Quality::Low);
        let mut watch = Watch::new(&high, &high, at(0));
        publish(&high, at(0), true);
        assert_eq!(shown(&mut watch, at(0)), "hK ");
        watch.follow(&low, at(10));
        assert!(low.target().take(at(10)).is_some_and(|target| target.keyframe), "it is asked for");
        publish(&high, at(33), false);
        publish(&low, at(33), false);
        assert_eq!(shown(&mut watch, at(33)), "h ");
        low.set_format(FORMAT, true);
        publish(&low, at(66), true);
        publish(&high, at(66), false);
        publish(&low, at(99), false);
        assert_eq!(shown(&mut watch, at(99)), "lK l ");
        assert!(!high.target().is_wanted() || low.target().is_wanted());
    }

    #[test]
    fn who_watches_the_low_rung_keeps_the_camera_going_and_falls_back_when_its_encoder_fails() {
        let now = Instant::now();
        let stream = Stream::new("camera", true);
        let low = stream.rungs().last().expect("a low rung");
        low.offer(Some((320, 180)));
        let mut watch = Watch::new(low, &stream.high, now);
        let still = |hub: &Hub| hub.target().is_wanted() && hub.target().is_wanted();
        assert!(still(&stream.high) && still(low));
        low.camera_away("no encoder");
        watch.follow(low, now);
        assert_eq!(watch.hub().quality(), Quality::High);
        assert!(still(low), "it is tried again as long as somebody wishes for it");
        publish(&stream.high, now, true);
        assert_eq!(shown(&mut watch, now), "hK ");
        low.set_format(FORMAT, true);
        publish(low, now, true);
        assert_eq!(shown(&mut watch, now), "lK ");
        low.offer(None);
        watch.follow(stream.rung(Quality::Low), now);
        assert_eq!(watch.hub().quality(), Quality::High, "the camera gives no raw pictures any more");
        assert!(!still(low));
        drop(watch);
        assert!(!still(&stream.high), "nobody is left");
    }

    #[test]
    fn a_low_rung_whose_encoder_hangs_is_not_waited_for() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let stream = Stream::new("camera", true);
        let low = stream.rungs().last().expect("a low rung");
        low.offer(Some((320, 180)));
        let mut watch = Watch::new(low, &stream.high, at(0));
        publish(low, at(0), true);
        assert_eq!(shown(&mut watch, at(0)), "lK ");
        for n in 1..=90 {
            publish(&stream.high, at(n * 33), n % 30 == 0);
            assert_eq!(shown(&mut watch, at(n * 33)), "", "after {} ms", n * 33);
        }
        publish(&stream.high, at(3_003), true);
        assert_eq!(shown(&mut watch, at(3_003)), "");
        assert_eq!(shown(&mut watch, at(3_003)), "hK ", "it has fallen back");
        publish(low, at(4_000), true);
        assert_eq!(shown(&mut watch, at(4_000)), "lK ", "and is there again");
        for ms in (8_000..12_000).step_by(500) {
            assert_eq!(shown(&mut watch, at(ms)), "");
        }
        assert_eq!(
            watch.hub().quality(),
            Quality::Low,
            "where the camera itself shows nothing nobody is moved"
        );
    }
}
