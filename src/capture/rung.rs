//! The low rung: the camera's raw pictures, halved, for an encoder of their own, on a thread of its own.
//!
//! The camera's thread leaves one small picture in a [`Tap`], whose place a newer one takes; it never waits. The rung is supervised as a
//! camera is, so an encoder that fails comes back by itself and harms nobody who watches the other rung.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::encoded::{EncodedSource, RawSource, Wanted, start_encoder};
use super::supervise::{Kept, supervise};
use super::{CaptureError, CaptureEvent};
use crate::config::{self, Idle};
use crate::media::scale::{halve, halved};
use crate::media::{Bitrate, MediaTime, Quality, RawFrame, TargetCell};

/// How long the rung waits for a camera that starts.
const PATIENCE: Duration = Duration::from_secs(1);

/// Smaller pictures than this are no use, and hardware encoders refuse them.
const LEAST: (u32, u32) = (160, 90);

/// Runs the low rung of `camera` at this bit rate on the calling thread until `stop` is set, as [`super::run`] does the camera itself:
/// its encoder is started when somebody comes, and stopped 10 s after the last has gone. `targets` are the rung's own.
pub fn run_low(
    camera: &config::Camera,
    bitrate: Bitrate,
    tap: &Arc<Tap>,
    targets: &TargetCell,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(CaptureEvent),
) {
    let camera = config::Camera {
        bitrate,
        idle: Idle::Close,
        controls: BTreeMap::new(),
        ..camera.clone()
    };
    let kept = Kept {
        camera: &camera,
        tap,
        quality: Quality::Low,
    };
    let mut open = |_: &config::Camera| {
        let away = || CaptureError::Lost("the camera gives no pictures that could be encoded a second time".into());
        let wanted = tap.wanted(bitrate, PATIENCE).ok_or_else(away)?;
        let encoder = start_encoder(&wanted)?;
        Ok(Box::new(EncodedSource::new(tap.open(&wanted), encoder, None, None)) as Box<dyn super::Source>)
    };
    supervise(&mut open, kept, targets, stop, on_event);
}

/// Where the camera's thread leaves pictures for the thread of the low rung.
pub struct Tap {
    /// When media time is 0, for both rungs: a viewer goes from one to the other within one RTP stream.
    epoch: Instant,
    state: Mutex<State>,
    /// Rung when a picture comes, or the first of another camera may.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What encodes the high rung, while the camera gives raw pictures; the size is theirs.
    fed: Option<Wanted>,
    /// Whether somebody takes pictures out.
    wanted: bool,
    picture: Option<RawFrame>,
    /// The memory of a picture that was replaced or taken.
    spare: Vec<u8>,
    /// Pictures whose place a newer one took since they are taken out.
    replaced: u64,
}

impl Tap {
    /// For one camera, whose media time begins at `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// How large pictures of the low rung are, while there can be some: pixels.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        let state = self.lock();
        let size = state.fed.as_ref().map(|fed| (halved(fed.width), halved(fed.height)));
        size.filter(|(width, height)| *width >= LEAST.0 && *height >= LEAST.1)
    }

    /// For a source whose pictures are encoded as `high` says: where it leaves them. When that is dropped, there are no more.
    pub(super) fn feed(self: &Arc<Self>, high: &Wanted) -> Feed {
        let mut state = self.lock();
        state.fed = Some(*high);
        state.picture = None;
        drop(state);
        self.changed.notify_all();
        Feed(Arc::clone(self))
    }

    /// What the low rung's encoder is asked for; waits for the camera's pictures at most for `patience`.
    pub(super) fn wanted(&self, bitrate: Bitrate, patience: Duration) -> Option<Wanted> {
        let state = self.lock();
        let away = |state: &mut State| state.fed.is_none();
        let waited = self.changed.wait_timeout_while(state, patience, away);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.fed.map(|high| low_of(&high, bitrate))
    }

    /// The pictures, for an encoder that was started as `low` says.
    pub(super) fn open(self: &Arc<Self>, low: &Wanted) -> Outlet {
        let mut state = self.lock();
        state.picture = None;
        state.replaced = 0;
        state.wanted = true;
        drop(state);
        Outlet {
            tap: Arc::clone(self),
            low: *low,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn low_of(high: &Wanted, bitrate: Bitrate) -> Wanted {
    Wanted {
        width: halved(high.width),
        height: halved(high.height),
        bitrate,
        ..*high
    }
}

/// The camera's end.
pub(super) struct Feed(Arc<Tap>);

impl Feed {
    /// Whether pictures are for anybody.
    pub fn is_wanted(&self) -> bool {
        self.0.lock().wanted
    }

    /// Leaves half a picture, if it is for anybody. Never waits for the encoder.
    pub fn leave(&self, picture: &RawFrame) {
        let mut state = self.0.lock();
        if !state.wanted {
            return;
        }
        let mut small = RawFrame {
            i420: std::mem::take(&mut state.spare),
            width: 0,
            height: 0,
            time: MediaTime::default(),
            captured: picture.captured,
        };
        drop(state);
        halve(picture, &mut small);
        let mut state = self.0.lock();
        if let Some(older) = state.picture.replace(small) {
            state.replaced += 1;
            state.spare = older.i420;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.lock().fed = None;
    }
}

/// The encoder's end: raw pictures as if they came from a camera.
pub(super) struct Outlet {
    tap: Arc<Tap>,
    /// What the encoder was started with.
    low: Wanted,
}

impl RawSource for Outlet {
    fn next(&mut self, patience: Duration, frame: &mut RawFrame) -> Result<bool, CaptureError> {
        let empty = |state: &mut State| state.picture.is_none();
        let waited = self.tap.changed.wait_timeout_while(self.tap.lock(), patience, empty);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let Some(picture) = state.picture.take() else { return Ok(false) };
        if state.fed.is_some_and(|high| low_of(&high, self.low.bitrate) != self.low) {
            return Err(CaptureError::Lost(
                "the camera has another size or rate now; its encoder is opened anew".into(),
            ));
        }
        state.spare = std::mem::replace(frame, picture).i420;
        Ok(true)
    }

    fn discard(&mut self) -> Result<(), CaptureError> {
        self.tap.lock().picture = None;
        Ok(())
    }

    fn lost(&self) -> u64 {
        self.tap.lock().replaced
    }

    fn fps(&self) -> Option<f64> {
        Some(self.low.fps)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut state = self.tap.lock();
        state.wanted = false;
        state.picture = None;
        // Megabytes that nobody may need for days.
        state.spare = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EncoderChoice;
    use crate::encode::Colour;

    fn high(width: u32, height: u32) -> Wanted {
        Wanted {
            encoder: EncoderChoice::Software,
            width,
            height,
            fps: 30.0,
            bitrate: Bitrate::kbps(2_500),
            gop: Duration::from_secs(2),
            colour: Colour::Bt709,
        }
    }

    fn picture(width: u32, height: u32, sample: u8) -> RawFrame {
        RawFrame {
            i420: vec![sample; (width * height * 3 / 2) as usize],
            width,
            height,
            time: MediaTime::default(),
            captured: Instant::now(),
        }
    }

    #[test]
    fn of_pictures_that_come_too_fast_the_newest_wins_and_the_others_are_counted() {
        let tap = Tap::new(Instant::now());
        assert_eq!((tap.size(), tap.wanted(Bitrate::kbps(500), Duration::ZERO)), (None, None));
        let feed = tap.feed(&high(640, 360));
        feed.leave(&picture(640, 360, 1));
        let wanted = tap.wanted(Bitrate::kbps(500), Duration::ZERO).expect("the camera is there");
        assert_eq!((wanted.width, wanted.height, wanted.bitrate), (320, 180, Bitrate::kbps(500)));
        assert!(!feed.is_wanted());
        let mut outlet = tap.open(&wanted);
        let mut frame = picture(2, 2, 0);
        assert!(
            !outlet.next(Duration::ZERO, &mut frame).expect("it is there"),
            "what nobody wanted is not kept"
        );
        assert!(feed.is_wanted());
        for sample in [2, 3, 4] {
            feed.leave(&picture(640, 360, sample));
        }
        assert!(outlet.next(Duration::ZERO, &mut frame).expect("it is there"));
        assert_eq!((frame.width, frame.height, frame.i420[0], outlet.lost()), (320, 180, 4, 2));
        assert!(!outlet.next(Duration::ZERO, &mut frame).expect("it is there"), "each comes once");
        drop(outlet);
        assert!(!feed.is_wanted());
        drop(feed);
        assert_eq!(tap.size(), None);
    }

    #[test]
    fn a_camera_with_another_size_has_its_low_rung_opened_anew_and_one_too_small_has_none() {
        let tap = Tap::new(Instant::now());
        let feed = tap.feed(&high(640, 360));
        let wanted = tap.wanted(Bitrate::kbps(500), Duration::ZERO).expect("the camera is there");
        let mut outlet = tap.open(&wanted);
        drop(feed);
        let feed = tap.feed(&high(1280, 720));
        feed.leave(&picture(1280, 720, 9));
        let error = outlet.next(Duration::ZERO, &mut picture(2, 2, 0)).expect_err("another size");
        assert!(error.to_string().contains("another size or rate"), "{error}");
        drop(feed);
        let _feed = tap.feed(&high(300, 200));
        assert_eq!(tap.size(), None);
    }
}
