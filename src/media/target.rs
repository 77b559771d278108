//! The one value that flows back from viewers to the encoder.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::Bitrate;
use super::settings::{Order, Orders};

/// What the viewers want of an encoder. The latest wins; it is never queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EncoderTarget {
    /// A new bit rate; `None` leaves the configured one.
    pub bitrate: Option<Bitrate>,
    /// Whether the next picture has to be a key frame.
    pub keyframe: bool,
}

/// Holds key-frame requests back so that the encoder sees at most one in [`KeyFrameGate::INTERVAL`]; one held back is not lost.
#[derive(Debug, Default)]
pub struct KeyFrameGate {
    wanted: bool,
    last: Option<Instant>,
}

impl KeyFrameGate {
    /// A key frame costs about ten times a P frame, so a storm of PLIs must not turn the stream into nothing else.
    pub const INTERVAL: Duration = Duration::from_millis(300);

    /// Notes that somebody needs a key frame.
    pub fn request(&mut self) {
        self.wanted = true;
    }

    /// Notes that a key frame has been made, asked for or not: it serves everybody who waits.
    pub fn made(&mut self, now: Instant) {
        self.wanted = false;
        self.last = Some(now);
    }

    /// Whether to ask the encoder for a key frame now.
    pub fn take(&mut self, now: Instant) -> bool {
        let open = self.last.is_none_or(|last| now.saturating_duration_since(last) >= Self::INTERVAL);
        if self.wanted && open {
            self.wanted = false;
            self.last = Some(now);
            return true;
        }
        false
    }
}

/// Where viewers leave what they want, and the camera's thread picks it up before each picture.
#[derive(Debug, Default)]
pub struct TargetCell {
    state: Mutex<State>,
    /// Rung when somebody comes.
    somebody: Condvar,
}

#[derive(Debug, Default)]
struct State {
    gate: KeyFrameGate,
    /// When the camera's thread gave its last sign of life.
    alive: Option<Instant>,
    /// Who watches now.
    watchers: usize,
    /// Whether somebody came, or asked for a key frame, since the camera's thread looked last.
    asked: bool,
    bitrate: Option<Bitrate>,
    bitrate_changed: bool,
    key_frames: KeyFrameCounts,
    orders: Orders,
}

/// How many key frames were asked for, and how many of these wishes reached the encoder: the rest were coalesced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFrameCounts {
    pub requested: u64,
    pub forwarded: u64,
}

impl TargetCell {
    /// Asks for a key frame. Any number of calls within [`KeyFrameGate::INTERVAL`] make one.
    pub fn request_key_frame(&self) {
        let mut state = self.lock();
        state.key_frames.requested += 1;
        state.gate.request();
        state.asked = true;
        self.somebody.notify_all();
    }

    /// Somebody watches, until [`TargetCell::leave`].
    pub fn come(&self) {
        let mut state = self.lock();
        state.watchers += 1;
        state.asked = true;
        self.somebody.notify_all();
    }

    /// Somebody who has come watches no longer.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.watchers = state.watchers.saturating_sub(1);
    }

    /// The camera's thread is alive: it says so before each picture, and while it waits for a camera or for somebody.
    pub fn sign_of_life(&self, now: Instant) {
        self.lock().alive = Some(now);
    }

    /// When the camera's thread gave its last sign of life; one that is stuck in a driver gives none.
    #[must_use]
    pub fn alive(&self) -> Option<Instant> {
        self.lock().alive
    }

    /// Whether pictures are for anybody: somebody watches, or was here since this was asked last.
    pub fn is_wanted(&self) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut state.asked) || state.watchers > 0
    }

    /// Waits until somebody comes or asks for a key frame, at most for `patience`.
    pub fn wait_for_somebody(&self, patience: Duration) {
        let state = self.lock();
        let nobody = |state: &mut State| !state.asked && state.watchers == 0;
        // Poisoned or not: whoever waited looks again.
        drop(self.somebody.wait_timeout_while(state, patience, nobody));
    }

    /// What was asked for so far.
    #[must_use]
    pub fn key_frames(&self) -> KeyFrameCounts {
        self.lock().key_frames
    }

    /// Asks for a bit rate; the latest wins.
    pub fn set_bitrate(&self, bitrate: Bitrate) {
        let mut state = self.lock();
        state.bitrate_changed |= state.bitrate != Some(bitrate);
        state.bitrate = Some(bitrate);
    }

    /// Leaves an order for the camera's thread, and wakes it.
    ///
    /// # Errors
    /// Too many wait; the order comes back.
    pub fn order(&self, order: Order) -> Result<(), Order> {
        let mut state = self.lock();
        state.orders.push(order)?;
        state.asked = true;
        self.somebody.notify_all();
        Ok(())
    }

    /// The order that waits longest.
    pub fn next_order(&self) -> Option<Order> {
        self.lock().orders.pop()
    }

    /// Notes that the stream produced a key frame by itself or on request.
    pub fn key_frame_made(&self, now: Instant) {
        self.lock().gate.made(now);
    }

    /// What the encoder has to do before its next picture, if anything.
    pub fn take(&self, now: Instant) -> Option<EncoderTarget> {
        let mut state = self.lock();
        let keyframe = state.gate.take(now);
        state.key_frames.forwarded += u64::from(keyframe);
        let bitrate = if std::mem::take(&mut state.bitrate_changed) {
            state.bitrate
        } else {
            None
        };
        (keyframe || bitrate.is_some()).then_some(EncoderTarget { bitrate, keyframe })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_requests_makes_one_key_frame_in_300_ms_and_the_held_back_one_is_not_lost() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let cell = TargetCell::default();
        let mut made = Vec::new();
        for ms in 0..700 {
            if ms < 350 {
                cell.request_key_frame();
            }
            if let Some(target) = cell.take(at(ms)) {
                assert!(target.keyframe);
                made.push(ms);
            }
        }
        assert_eq!(made, [0, 300, 600]);
        let counts = KeyFrameCounts {
            requested: 350,
            forwarded: 3,
        };
        assert_eq!(cell.key_frames(), counts);
    }

    #[test]
    fn pictures_are_wanted_while_somebody_watches_and_once_after_somebody_asked() {
        let cell = TargetCell::default();
        assert!(!cell.is_wanted(), "nobody was ever here");
        cell.request_key_frame();
        assert!(cell.is_wanted() && !cell.is_wanted());
        cell.come();
        cell.come();
        cell.leave();
        assert!(cell.is_wanted() && cell.is_wanted(), "one of two is still there");
        cell.leave();
        assert!(!cell.is_wanted());
        cell.leave();
        cell.come();
        assert!(cell.is_wanted(), "one who left twice takes nobody's place");
    }

    #[test]
    fn who_waits_for_somebody_is_woken_at_once() {
        let cell = TargetCell::default();
        let began = Instant::now();
        cell.wait_for_somebody(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cell.wait_for_somebody(Duration::from_secs(600)));
            cell.request_key_frame();
            waiting.join().expect("it was woken");
        });
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_key_frame_that_came_by_itself_serves_those_who_wait() {
        let now = Instant::now();
        let cell = TargetCell::default();
        cell.request_key_frame();
        cell.key_frame_made(now);
        assert_eq!(cell.take(now + Duration::from_secs(1)), None);
    }

    #[test]
    fn a_bit_rate_is_handed_over_once() {
        let now = Instant::now();
        let cell = TargetCell::default();
        cell.set_bitrate(Bitrate::kbps(800));
        cell.set_bitrate(Bitrate::kbps(700));
        let target = cell.take(now).expect("a new bit rate was asked for");
        assert_eq!(
            target,
            EncoderTarget {
                bitrate: Some(Bitrate::kbps(700)),
                keyframe: false
            }
        );
        cell.set_bitrate(Bitrate::kbps(700));
        assert_eq!(cell.take(now), None);
    }
}
