//! The software encoder on a thread of its own, so that pictures can be fetched while one is encoded.
#![expect(clippy::disallowed_methods, reason = "waiting has a deadline")]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{EncodeError, Encoded, Encoder, Settings, SoftwareEncoder};
use crate::media::annexb::{NalKind, nal_units};
use crate::media::{EncoderTarget, RawFrame};

/// [`SoftwareEncoder`] behind [`Encoder`]. One picture is being encoded and one waits, whose place a newer one takes; no further
/// picture is begun before the last access unit is fetched. So what comes out is never older than two pictures take.
pub struct ThreadedEncoder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The memory of a picture that was replaced or encoded.
    spare: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung at every change.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Option<RawFrame>,
    encoded: Option<Encoded>,
    spare: Option<Vec<u8>>,
    target: EncoderTarget,
    /// Pictures whose place a newer one took, or that the encoder skipped.
    skipped: u64,
    failed: Option<EncodeError>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadedEncoder {
    /// Starts the encoder and its thread.
    ///
    /// # Errors
    /// The encoder does not take the settings, or the system has no more threads.
    pub fn start(settings: Settings) -> Result<Self, EncodeError> {
        let encoder = SoftwareEncoder::new(settings)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("encoder".into())
            .spawn(move || encode(encoder, &theirs))
            .map_err(|error| EncodeError::Encode(format!("starting its thread: {error}")))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            spare: Vec::new(),
        })
    }

    /// What went wrong, once.
    fn failure(&self, state: &mut State) -> Result<(), EncodeError> {
        match state.failed.take() {
            Some(error) => Err(error),
            None if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => Err(EncodeError::Encode("its thread has ended".into())),
            None => Ok(()),
        }
    }
}

impl Encoder for ThreadedEncoder {
    fn submit(&mut self, frame: &RawFrame) -> Result<bool, EncodeError> {
        // Copied before anybody is made to wait for the lock.
        let mut i420 = std::mem::take(&mut self.spare);
        i420.clone_from(&frame.i420);
        let copy = RawFrame { i420, ..*frame };
        let mut state = self.shared.lock();
        self.failure(&mut state)?;
        let older = state.waiting.replace(copy);
        state.skipped += u64::from(older.is_some());
        let spare = older.map(|older| older.i420).or_else(|| state.spare.take());
        drop(state);
        self.spare = spare.unwrap_or_default();
        self.shared.changed.notify_all();
        Ok(true)
    }

    fn collect(&mut self, patience: Duration) -> Result<Option<Encoded>, EncodeError> {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        loop {
            if let Some(encoded) = state.encoded.take() {
                self.shared.changed.notify_all();
                return Ok(Some(encoded));
            }
            self.failure(&mut state)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), EncodeError> {
        let mut state = self.shared.lock();
        state.target.bitrate = target.bitrate.or(state.target.bitrate);
        state.target.keyframe |= target.keyframe;
        Ok(())
    }

    fn forces_key_frames(&self) -> bool {
        true
    }

    fn skipped(&self) -> u64 {
        self.shared.lock().skipped
    }
}

impl Drop for ThreadedEncoder {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the software encoder's thread panicked");
        }
    }
}

/// The thread: until it shall stop, or the encoder fails.
fn encode(mut encoder: SoftwareEncoder, shared: &Shared) {
    loop {
        let (frame, target) = {
            let mut state = shared.lock();
            loop {
                if state.stop {
                    return;
                }
                if state.encoded.is_none()
                    && let Some(frame) = state.waiting.take()
                {
                    break (frame, std::mem::take(&mut state.target));
                }
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let captured = frame.captured;
        let made = one(&mut encoder, &frame, target);
        let mut state = shared.lock();
        state.spare = Some(frame.i420);
        match made {
            Ok(Some(data)) => {
                let key = nal_units(&data).any(|nal| nal.kind() == NalKind::IdrSlice);
                state.encoded = Some(Encoded {
                    data: data.into(),
                    captured,
                    key,
                });
            }
            Ok(None) => state.skipped += 1,
            Err(error) => {
                state.failed = Some(error);
                shared.changed.notify_all();
                return;
            }
        }
        shared.changed.notify_all();
    }
}

fn one(encoder: &mut SoftwareEncoder, frame: &RawFrame, target: EncoderTarget) -> Result<Option<Vec<u8>>, EncodeError> {
    if let Some(bitrate) = target.bitrate {
        encoder.set_bitrate(bitrate)?;
    }
    if target.keyframe {
        encoder.force_key_frame();
    }
    encoder.encode(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Bitrate, MediaTime};

    const SETTINGS: Settings = Settings {
        width: 320,
        height: 180,
        fps: 30,
        bitrate: Bitrate::kbps(500),
        gop: 300,
        colour: crate::encode::Colour::Bt709,
    };
    const SOON: Duration = Duration::from_secs(10);

    fn frame(start: Instant, n: u32) -> RawFrame {
        let mut i420 = vec![128; (SETTINGS.width * SETTINGS.height * 3 / 2) as usize];
        i420[..64].fill((n * 7 % 200) as u8);
        RawFrame {
            i420,
            width: SETTINGS.width,
            height: SETTINGS.height,
            time: MediaTime::from_ticks(u64::from(n) * 3000),
            captured: start + Duration::from_millis(u64::from(n) * 33),
        }
    }

    #[test]
    fn each_picture_that_is_waited_for_comes_out_with_its_moment_and_a_key_frame_when_asked() {
        let start = Instant::now();
        let mut encoder = ThreadedEncoder::start(SETTINGS).expect("an encoder");
        for n in 0..30 {
            let target = EncoderTarget {
                bitrate: (n == 10).then_some(Bitrate::kbps(300)),
                keyframe: n == 20,
            };
            encoder.apply(target).expect("steered");
            assert!(encoder.submit(&frame(start, n)).expect("taken"));
            let encoded = encoder.collect(SOON).expect("encoded").expect("a unit");
            assert_eq!(encoded.captured, frame(start, n).captured, "picture {n}");
            // A new bit rate starts a new encoder.
            assert_eq!(encoded.key, [0, 10, 20].contains(&n), "picture {n}");
        }
        assert_eq!(encoder.skipped(), 0);
        assert!(encoder.collect(Duration::ZERO).expect("idle").is_none());
    }

    #[test]
    fn of_pictures_that_come_too_fast_the_newest_wins_the_others_are_counted_and_none_is_late() {
        let start = Instant::now();
        let mut encoder = ThreadedEncoder::start(SETTINGS).expect("an encoder");
        for n in 0..50 {
            assert!(encoder.submit(&frame(start, n)).expect("taken"), "submitting never waits");
        }
        let mut units = Vec::new();
        while units.last() != Some(&frame(start, 49).captured) {
            let encoded = encoder.collect(SOON).expect("encoded").expect("the newest picture comes out");
            units.push(encoded.captured);
        }
        assert!(units.is_sorted_by(|a, b| a < b));
        // One was being encoded, one was fetched late, and one waited.
        assert!(units.len() <= 3, "{} of 50 were encoded", units.len());
        assert_eq!(encoder.skipped(), 50 - units.len() as u64);
    }

    #[test]
    fn a_picture_of_another_size_is_an_error_and_not_a_silence() {
        let mut encoder = ThreadedEncoder::start(SETTINGS).expect("an encoder");
        let mut wrong = frame(Instant::now(), 0);
        wrong.i420.pop();
        assert!(encoder.submit(&wrong).expect("taken"));
        assert!(matches!(encoder.collect(SOON), Err(EncodeError::Frame { .. })));
        let again = encoder.collect(SOON).expect_err("it is over").to_string();
        assert!(again.contains("has ended"), "{again}");
    }
}
