//! A source made of something that gives raw pictures, and an encoder.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::time::{Duration, Instant, SystemTime};

use super::overlay::Overlay;
use super::rung::Feed;
use super::{CaptureError, REST, Source, Timeline};
use crate::config::EncoderChoice;
use crate::encode::m2m::{M2mEncoder, M2mError, M2mSettings};
use crate::encode::{Colour, EncodeError, Encoder};
use crate::media::{AccessUnit, Bitrate, EncoderTarget, MediaTime, RawFrame, TargetCell};
use crate::v4l2::Device;

/// How long one call waits for a picture.
const WAIT: Duration = Duration::from_secs(1);
/// While a picture is inside the encoder, how long it is waited for before the camera is looked at.
const TURN: Duration = Duration::from_millis(4);
/// How often a camera is looked at while nobody watches.
const REST_TURN: Duration = Duration::from_millis(50);
/// A picture that stays in the encoder for so long is not waited for any more.
const INSIDE: Duration = Duration::from_secs(1);

/// Something that makes raw pictures.
pub trait RawSource: Send {
    /// Puts the newest picture into `frame`, whose memory it may use again, waiting at most `patience`; `false` if none came.
    /// `frame.time` is not touched.
    ///
    /// # Errors
    /// The device is gone.
    fn next(&mut self, patience: Duration, frame: &mut RawFrame) -> Result<bool, CaptureError>;

    /// Lets go of what came meanwhile, at no cost: called in place of [`RawSource::next`] while nobody watches.
    ///
    /// # Errors
    /// As [`RawSource::next`].
    fn discard(&mut self) -> Result<(), CaptureError>;

    /// Pictures that were lost, damaged, or replaced by a newer one, since it was opened.
    fn lost(&self) -> u64;

    /// As [`Source::device`].
    fn device(&self) -> Option<&Device> {
        None
    }

    /// As [`Source::fps`].
    fn fps(&self) -> Option<f64> {
        None
    }
}

/// What an encoder is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    pub encoder: EncoderChoice,
    /// Pixels; even.
    pub width: u32,
    /// Pixels; even.
    pub height: u32,
    /// Pictures a second.
    pub fps: f64,
    pub bitrate: Bitrate,
    /// From one key frame to the next.
    pub gop: Duration,
    /// Told to viewers, as far as the encoder writes it into its stream.
    pub colour: Colour,
}

/// Raw pictures and their encoder.
pub struct EncodedSource<R> {
    raw: R,
    encoder: Option<Box<dyn Encoder>>,
    /// What an encoder is asked for that is started with the first picture.
    late: Option<Wanted>,
    overlay: Option<Overlay>,
    low: Option<Feed>,
    frame: RawFrame,
    /// Whether `frame` holds a picture that the encoder does not have yet.
    waiting: bool,
    /// Pictures that the encoder took, and access units that it gave.
    taken: u64,
    given: u64,
    /// When the encoder took one or gave one last.
    moved: Instant,
    dropped: u64,
    timeline: Timeline,
}

impl<R: RawSource> EncodedSource<R> {
    /// Joins them; with an overlay, that is written into every picture. Every picture is left for the low rung too.
    pub fn new(raw: R, encoder: Box<dyn Encoder>, overlay: Option<Overlay>, low: Option<Feed>) -> Self {
        Self::joined(raw, Some(encoder), None, overlay, low)
    }

    /// The same where it is known only with the first picture whether there is a camera: no encoder is opened for one that fails.
    pub fn late(raw: R, wanted: Wanted, overlay: Option<Overlay>, low: Option<Feed>) -> Self {
        Self::joined(raw, None, Some(wanted), overlay, low)
    }

    fn joined(raw: R, encoder: Option<Box<dyn Encoder>>, late: Option<Wanted>, overlay: Option<Overlay>, low: Option<Feed>) -> Self {
        let now = Instant::now();
        Self {
            raw,
            encoder,
            late,
            overlay,
            low,
            frame: RawFrame {
                i420: Vec::new(),
                width: 0,
                height: 0,
                time: MediaTime::default(),
                captured: now,
            },
            waiting: false,
            taken: 0,
            given: 0,
            moved: now,
            dropped: 0,
            timeline: Timeline::default(),
        }
    }

    fn left_out(&self) -> u64 {
        self.encoder.as_ref().map_or(0, |encoder| encoder.skipped())
    }

    /// Whether an access unit may come without another picture.
    fn is_busy(&mut self, now: Instant) -> bool {
        let done = self.given + self.left_out();
        if now.saturating_duration_since(self.moved) >= INSIDE {
            // Hardware does not tell of every picture that it skips.
            self.taken = done;
        }
        self.waiting || self.taken > done
    }
}

impl<R: RawSource> Source for EncodedSource<R> {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let until = Instant::now() + WAIT;
        loop {
            let now = Instant::now();
            let busy = self.is_busy(now);
            let patience = if busy { TURN } else { Duration::ZERO };
            if let Some(encoder) = &mut self.encoder
                && let Some(unit) = encoder.collect(patience).map_err(failed)?
            {
                self.given += 1;
                self.moved = now;
                return Ok(Some(AccessUnit {
                    data: unit.data,
                    // The supervisor gives the stream its time.
                    time: MediaTime::default(),
                    captured: unit.captured,
                    key: unit.key,
                }));
            }
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(None);
            }
            let fresh = self.raw.next(if busy { Duration::ZERO } else { left }, &mut self.frame)?;
            if fresh {
                if let Some(wanted) = self.late.take() {
                    self.encoder = Some(start_encoder(&wanted)?);
                }
                self.frame.time = self.timeline.stamp(self.frame.captured);
                if let Some(overlay) = &mut self.overlay {
                    overlay.draw(&mut self.frame, SystemTime::now());
                }
                self.dropped += u64::from(std::mem::replace(&mut self.waiting, true));
            }
            if self.waiting
                && let Some(encoder) = &mut self.encoder
                && encoder.submit(&self.frame).map_err(failed)?
            {
                self.waiting = false;
                self.taken += 1;
                self.moved = Instant::now();
            }
            // While the encoder works on it.
            if let Some(low) = self.low.as_ref().filter(|_| fresh) {
                low.leave(&self.frame);
            }
        }
    }

    fn rest(&mut self, targets: &TargetCell) -> Result<bool, CaptureError> {
        let until = Instant::now() + REST;
        self.waiting = false;
        loop {
            self.raw.discard()?;
            let began = Instant::now();
            targets.wait_for_somebody(REST_TURN);
            let now = Instant::now();
            // It returned before its time: somebody is there.
            if now >= until || now.saturating_duration_since(began) < REST_TURN {
                self.raw.discard()?;
                return Ok(true);
            }
        }
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
        if let (Some(wanted), Some(bitrate)) = (&mut self.late, target.bitrate) {
            wanted.bitrate = bitrate;
        }
        self.encoder
            .as_mut()
            .map_or(Ok(()), |encoder| encoder.apply(target).map_err(failed))
    }

    fn forces_key_frames(&self) -> bool {
        self.encoder.as_ref().is_none_or(|encoder| encoder.forces_key_frames())
    }

    fn device(&self) -> Option<&Device> {
        self.raw.device()
    }

    fn fps(&self) -> Option<f64> {
        self.raw.fps()
    }

    fn skipped(&self) -> u64 {
        self.raw.lost() + self.dropped + self.left_out()
    }
}

/// Whether there is what [`start_encoder`] would start: without it there is no reason to turn a camera on.
///
/// # Errors
/// There is none; the message says what to do.
pub fn look_for_encoder(wanted: &Wanted) -> Result<(), CaptureError> {
    match wanted.encoder {
        EncoderChoice::M2m => M2mEncoder::find_for_frames().map(drop).map_err(no_hardware),
        EncoderChoice::Software | EncoderChoice::Auto if cfg!(feature = "software-encoder") => Ok(()),
        EncoderChoice::Auto if M2mEncoder::find_for_frames().is_ok() => Ok(()),
        EncoderChoice::Software | EncoderChoice::Auto => software(wanted).map(drop),
    }
}

/// Starts the encoder that the configuration names.
///
/// # Errors
/// There is none, or it is busy; the message says what to do.
pub fn start_encoder(wanted: &Wanted) -> Result<Box<dyn Encoder>, CaptureError> {
    let hardware = || {
        let settings = M2mSettings {
            fps: wanted.fps,
            bitrate: wanted.bitrate,
            gop: wanted.gop,
        };
        M2mEncoder::for_frames(wanted.width, wanted.height, wanted.colour, &settings)
    };
    match wanted.encoder {
        EncoderChoice::Software => software(wanted),
        EncoderChoice::M2m => match hardware() {
            Ok(encoder) => Ok(Box::new(encoder)),
            Err(error) => Err(no_hardware(error)),
        },
        EncoderChoice::Auto => match hardware() {
            Ok(encoder) => Ok(Box::new(encoder)),
            Err(M2mError::Missing(_)) => software(wanted),
            Err(error) => Err(failed(error.into())),
        },
    }
}

#[cfg(feature = "software-encoder")]
fn software(wanted: &Wanted) -> Result<Box<dyn Encoder>, CaptureError> {
    let fps = wanted.fps.round().clamp(1.0, 240.0);
    let settings = crate::encode::Settings {
        width: wanted.width,
        height: wanted.height,
        fps: fps as u32,
        bitrate: wanted.bitrate,
        gop: (wanted.gop.as_secs_f64() * fps).round().max(1.0) as u32,
        colour: wanted.colour,
    };
    let encoder = crate::encode::ThreadedEncoder::start(settings).map_err(failed)?;
    tracing::info!(width = wanted.width, height = wanted.height, fps, "software encoder started");
    Ok(Box::new(encoder))
}

#[cfg(not(feature = "software-encoder"))]
fn software(_wanted: &Wanted) -> Result<Box<dyn Encoder>, CaptureError> {
    Err(CaptureError::Unsupported(
        "no hardware encoder was found, and this peercam was built without its software encoder; build it with feature `software-encoder`"
            .into(),
    ))
}

fn no_hardware(error: M2mError) -> CaptureError {
    match error {
        M2mError::Missing(_) => CaptureError::Lost(format!(
            "{error}; or write camera.encoder = \"software\", which takes processor time"
        )),
        M2mError::Refused { .. } | M2mError::NotShared(..) | M2mError::Stalled { .. } | M2mError::Unsuitable(..) => failed(error.into()),
    }
}

fn failed(error: EncodeError) -> CaptureError {
    match error {
        EncodeError::Start { .. } | EncodeError::Hardware(M2mError::Unsuitable(..)) => CaptureError::Unsupported(error.to_string()),
        EncodeError::Frame { .. } | EncodeError::Encode(_) | EncodeError::Hardware(_) => CaptureError::Lost(error.to_string()),
    }
}

#[cfg(all(test, feature = "software-encoder"))]
mod tests {
    use super::*;

    /// Makes a picture every 10 ms, whether it is fetched or not, of which the newest is given.
    struct Ticking {
        start: Instant,
        seen: u64,
        lost: u64,
        discards: u64,
    }

    impl RawSource for Ticking {
        fn next(&mut self, patience: Duration, frame: &mut RawFrame) -> Result<bool, CaptureError> {
            let tick = Duration::from_millis(10);
            let mut now = self.start.elapsed().as_millis() as u64 / 10;
            if now == self.seen {
                if patience < tick {
                    return Ok(false);
                }
                std::thread::sleep(tick);
                now += 1;
            }
            self.lost += now - self.seen - 1;
            self.seen = now;
            frame.width = 64;
            frame.height = 64;
            frame.i420.clear();
            frame.i420.resize(64 * 64 * 3 / 2, (now % 200) as u8);
            frame.captured = self.start + tick * now as u32;
            Ok(true)
        }

        fn discard(&mut self) -> Result<(), CaptureError> {
            self.discards += 1;
            Ok(())
        }

        fn lost(&self) -> u64 {
            self.lost
        }
    }

    /// Has room for one picture, and needs `pace` for it.
    struct Slow {
        pace: Duration,
        inside: Option<(Instant, Instant)>,
        key: bool,
    }

    impl Encoder for Slow {
        fn submit(&mut self, frame: &RawFrame) -> Result<bool, EncodeError> {
            let room = self.inside.is_none();
            if room {
                self.inside = Some((Instant::now() + self.pace, frame.captured));
            }
            Ok(room)
        }

        fn collect(&mut self, patience: Duration) -> Result<Option<crate::encode::Encoded>, EncodeError> {
            let Some((ready, captured)) = self.inside else {
                std::thread::sleep(patience);
                return Ok(None);
            };
            let left = ready.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(patience));
            if left > patience {
                return Ok(None);
            }
            self.inside = None;
            Ok(Some(crate::encode::Encoded {
                data: vec![0, 0, 0, 1, 0x41, 0x9a].into(),
                captured,
                key: std::mem::take(&mut self.key),
            }))
        }

        fn apply(&mut self, target: EncoderTarget) -> Result<(), EncodeError> {
            self.key |= target.keyframe;
            Ok(())
        }

        fn forces_key_frames(&self) -> bool {
            true
        }

        fn skipped(&self) -> u64 {
            0
        }
    }

    fn source(pace: Duration) -> EncodedSource<Ticking> {
        let raw = Ticking {
            start: Instant::now(),
            seen: 0,
            lost: 0,
            discards: 0,
        };
        let encoder = Slow {
            pace,
            inside: None,
            key: true,
        };
        EncodedSource::new(raw, Box::new(encoder), None, None)
    }

    #[test]
    fn with_an_encoder_that_is_too_slow_pictures_are_dropped_and_counted_and_none_queues_up() {
        let mut source = source(Duration::from_millis(45));
        let mut last = None;
        for _ in 0..20 {
            let unit = source.next().expect("it works").expect("a picture");
            assert!(Some(unit.captured) > last, "in order");
            last = Some(unit.captured);
        }
        let made = source.raw.seen;
        let waits = u64::from(source.waiting) + u64::from(source.taken > source.given);
        assert_eq!(20 + source.skipped() + waits, made, "every picture is shown, counted, or the next");
        assert!(source.skipped() >= 40, "{} skipped of {made}", source.skipped());
        // Nothing but the picture inside and the one that waits can lie between the camera and what comes out.
        let unit = source.next().expect("it works").expect("a picture");
        assert!(
            unit.captured.elapsed() < Duration::from_millis(1_000),
            "{:?}",
            unit.captured.elapsed()
        );
    }

    #[test]
    fn while_nobody_watches_nothing_is_encoded_and_who_comes_gets_a_new_picture() {
        let mut source = source(Duration::from_millis(1));
        source.next().expect("it works").expect("a picture");
        let targets = TargetCell::default();
        let (given, seen) = (source.given, source.raw.seen);
        assert!(source.rest(&targets).expect("it rests"));
        assert_eq!((source.given, source.raw.seen), (given, seen), "no picture was fetched");
        assert!(source.raw.discards >= 3, "the camera was emptied {} times", source.raw.discards);
        targets.come();
        let came = Instant::now();
        assert!(source.rest(&targets).expect("it rests"));
        assert!(came.elapsed() < Duration::from_millis(400), "{:?}", came.elapsed());
        let unit = source.next().expect("it works").expect("a picture");
        assert!(unit.captured + Duration::from_millis(50) >= came, "an old picture");
    }
}
