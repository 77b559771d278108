//! Keeps a camera running: opens it, reports how it is doing, and brings it back.
#![expect(
    clippy::disallowed_methods,
    reason = "the camera's thread reads the clock and sleeps between tries"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::adjusted::adjusted;
use super::rpicam;
use super::rung::Tap;
use super::v4l2::controls;
use super::{CameraState, CaptureError, CaptureEvent, REST, Source, Timeline};
use crate::config::{self, Idle};
use crate::media::conform::format_of;
use crate::media::settings::{Change, ControlValue, Order, SetError, Settings};
use crate::media::{AccessUnit, Bitrate, EncoderTarget, Quality, StreamFormat, TargetCell};

/// The pause before the first try after a failure: a camera whose stream broke off is usually still there.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The pause between later tries. A try costs one `open` of a device node, and a camera plugged in is to be seen at once.
const RETRY: Duration = Duration::from_millis(400);
/// The pause after a stream that no browser shows: somebody has to change a setting, or plug another camera in, first.
const RETRY_UNSUPPORTED: Duration = Duration::from_secs(2);
/// How long after the last viewer has left pictures go on: who changes the page or the network is back by then.
const LINGER: Duration = Duration::from_secs(10);
/// How long other settings may take until their first picture, before the old ones are taken again.
const ADJUSTING: Duration = Duration::from_secs(8);
/// From one order to the next. To list a USB camera's controls takes milliseconds, in which no picture is read; everybody may ask.
const ORDERS_EVERY: Duration = Duration::from_millis(200);
/// How often a pause looks whether the agent stops.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Runs `camera` on the calling thread until `stop` is set, for as long as the agent lives, whatever the camera does.
///
/// `on_event` is told each change of state once, and every picture. [`CameraState::Live`] comes right before the key frame
/// that shows it, again when the stream's format changes. Media time always rises, also when the camera was away. What
/// `targets` says is handed to the source before each picture, the last bit rate also to a source that was opened again.
/// It returns within about a second of `stop`.
///
/// When nobody has watched for 10 s, it does what `camera.idle` says; [`CaptureEvent::Resting`] tells of it.
///
/// Orders that are left in `targets` are carried out between two pictures. Size, rate, and each control of rpicam-vid make it open the
/// camera anew; what was set is set again whenever the camera was away.
///
/// Raw pictures are left in `tap` for the low rung, while that wants them.
pub fn run(camera: &config::Camera, tap: &Arc<Tap>, targets: &TargetCell, stop: &AtomicBool, on_event: &mut dyn FnMut(CaptureEvent)) {
    let kept = Kept {
        camera,
        tap,
        quality: Quality::High,
    };
    supervise(&mut |camera| super::open(camera, tap), kept, targets, stop, on_event);
}

type Opened = Result<Box<dyn Source>, CaptureError>;

/// What is kept running.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub camera: &'a config::Camera,
    pub tap: &'a Tap,
    /// The high rung is opened at once, so that it is known what can be shown; the low one when somebody wants it.
    pub quality: Quality,
}

pub(super) fn supervise(
    open: &mut dyn FnMut(&config::Camera) -> Opened,
    kept: Kept<'_>,
    targets: &TargetCell,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(CaptureEvent),
) {
    let mut camera = Supervised {
        kept,
        state: CameraState::Starting,
        timeline: Timeline::since(kept.tap.epoch()),
        bitrate: None,
        camera: kept.camera.clone(),
        adjusting: None,
        orders_at: Instant::now(),
        wanted_at: (kept.quality == Quality::High).then(Instant::now),
        resting: false,
        targets,
        on_event,
    };
    (camera.on_event)(CaptureEvent::State(CameraState::Starting));
    let mut pause = FIRST_RETRY;
    while camera.goes_on(stop) {
        if camera.may_be_closed() {
            camera.sleep(stop);
            continue;
        }
        let result = open(&camera.camera).and_then(|mut source| camera.play(source.as_mut(), stop, &mut pause));
        // The device is closed now.
        match result {
            Ok(Played::Unwanted | Played::Adjusted) => continue,
            Err(error) if camera.takes_back(&error.to_string()) => continue,
            Err(CaptureError::Lost(reason)) => camera.enter(CameraState::Lost { reason }),
            Err(CaptureError::Unsupported(reason)) => {
                camera.enter(CameraState::Unsupported { reason });
                pause = RETRY_UNSUPPORTED;
            }
        }
        let until = Instant::now() + pause;
        while camera.goes_on(stop) && Instant::now() < until {
            camera.refuse_orders();
            std::thread::sleep(STOP_CHECK.min(until.saturating_duration_since(Instant::now())));
        }
        pause = RETRY;
    }
    camera.refuse_orders();
}

/// Why a source is let go of, when not for a failure.
enum Played {
    /// Nobody watches.
    Unwanted,
    /// It is to be opened with other settings.
    Adjusted,
}

/// Settings that the camera is opened anew for, until its first picture comes.
struct Adjusting {
    order: Order,
    before: config::Source,
    until: Instant,
}

fn set_control(source: &dyn Source, name: &str, value: &ControlValue) -> Result<(), String> {
    let device = source
        .device()
        .ok_or_else(|| format!("this camera has no controls, so no `{name}`"))?;
    controls::set(device, name, value)
}

/// What outlives a source that fails.
struct Supervised<'a> {
    kept: Kept<'a>,
    state: CameraState,
    timeline: Timeline,
    /// The bit rate that the viewers asked for last.
    bitrate: Option<Bitrate>,
    /// Its configuration, with what somebody has set since.
    camera: config::Camera,
    adjusting: Option<Adjusting>,
    /// Not before then is the next order looked at.
    orders_at: Instant,
    /// When somebody watched, or asked for a picture, for the last time.
    wanted_at: Option<Instant>,
    resting: bool,
    targets: &'a TargetCell,
    on_event: &'a mut dyn FnMut(CaptureEvent),
}

impl Supervised<'_> {
    /// Until the source fails, `stop` is set, or the device shall be closed because nobody watches.
    fn play(&mut self, source: &mut dyn Source, stop: &AtomicBool, pause: &mut Duration) -> Result<Played, CaptureError> {
        for (name, value) in &self.camera.controls {
            if let Err(error) = set_control(source, name, value) {
                tracing::warn!(control = name, error, "a setting was not taken again");
            }
        }
        let mut target = self.bitrate.map(|bitrate| EncoderTarget {
            bitrate: Some(bitrate),
            keyframe: false,
        });
        let mut skipped = 0;
        while self.goes_on(stop) {
            if Instant::now() >= self.orders_at
                && let Some(order) = self.targets.next_order()
            {
                let reopen = self.carry_out(order, source);
                self.orders_at = Instant::now() + ORDERS_EVERY;
                if reopen {
                    return Ok(Played::Adjusted);
                }
            }
            if self.is_too_late() {
                return Err(CaptureError::Lost("no picture came with these settings".into()));
            }
            if self.is_unwanted() {
                if self.camera.idle == Idle::Close {
                    return Ok(Played::Unwanted);
                }
                if source.rest(self.targets)? {
                    self.note_resting(true);
                    continue;
                }
            }
            self.note_resting(false);
            source.wait();
            if let Some(target) = target.take().or_else(|| self.targets.take(Instant::now())) {
                self.bitrate = target.bitrate.or(self.bitrate);
                if let Err(error) = source.apply(target) {
                    // The picture goes on as it was; a device that is gone says so at the next picture.
                    tracing::warn!(%error, ?target, "camera refused");
                }
            }
            let next = source.next();
            let lost = source.skipped().saturating_sub(skipped);
            if lost > 0 {
                skipped += lost;
                (self.on_event)(CaptureEvent::Skipped(lost));
            }
            if let Some(unit) = next? {
                *pause = FIRST_RETRY;
                let key = unit.key;
                self.deliver(unit, source.forces_key_frames())?;
                if key && let Some(Adjusting { order, .. }) = self.adjusting.take() {
                    order.answer(Ok(self.settings(source)));
                }
            }
        }
        Ok(Played::Unwanted)
    }

    /// Does what somebody wants; whether the camera has to be opened anew for it.
    fn carry_out(&mut self, order: Order, source: &mut dyn Source) -> bool {
        // Before anything is done: what can't be leaves the picture alone.
        let adjusted = match adjusted(&self.camera, &order.change) {
            Ok(adjusted) => adjusted,
            Err(sentence) => {
                order.answer(Err(SetError::Impossible(sentence)));
                return false;
            }
        };
        let reopen = adjusted != self.camera;
        if reopen && self.adjusting.is_some() {
            order.answer(Err(SetError::Away("other settings are being tried; try again in a second".into())));
            return false;
        }
        let mut done = Vec::new();
        if let Err(sentence) = self.set(&order.change, source, &mut done) {
            let before = if done.is_empty() {
                String::new()
            } else {
                format!("; set before it: {}", done.join(", "))
            };
            order.answer(Err(SetError::Impossible(format!("{sentence}{before}"))));
            return false;
        }
        if !reopen {
            order.answer(Ok(self.settings(source)));
            return false;
        }
        let before = std::mem::replace(&mut self.camera.source, adjusted.source);
        let until = Instant::now() + ADJUSTING;
        self.adjusting = Some(Adjusting { order, before, until });
        true
    }

    /// Bit rate and controls, one after the other; `done` tells how far it came.
    fn set(&mut self, change: &Change, source: &mut dyn Source, done: &mut Vec<String>) -> Result<(), String> {
        if let Some(bitrate) = change.bitrate {
            if !source.has_bitrate() {
                return Err("the bit rate of this camera can't be changed".into());
            }
            let target = EncoderTarget {
                bitrate: Some(bitrate),
                keyframe: false,
            };
            source.apply(target).map_err(|error| error.to_string())?;
            self.bitrate = Some(bitrate);
            (self.on_event)(CaptureEvent::Bitrate(bitrate));
            done.push("the bit rate".into());
        }
        // Those of rpicam-vid are on its command line: it is started anew for them.
        let by_device = !matches!(self.camera.source, config::Source::Rpicam(_));
        for (name, value) in change.controls.iter().filter(|_| by_device) {
            set_control(source, name, value)?;
            self.camera.controls.insert(name.clone(), value.clone());
            done.push(format!("`{name}`"));
        }
        Ok(())
    }

    fn settings(&self, source: &dyn Source) -> Settings {
        let size = match &self.state {
            CameraState::Live {
                format: StreamFormat { width, height, .. },
                ..
            } => Some((*width, *height)),
            CameraState::Starting | CameraState::Lost { .. } | CameraState::Unsupported { .. } => None,
        };
        Settings {
            size,
            fps: source.fps(),
            bitrate: self.bitrate.unwrap_or(self.camera.bitrate),
            controls: match &self.camera.source {
                config::Source::Rpicam(camera) => rpicam::controls::list(camera),
                _ => source.device().map(controls::list).unwrap_or_default(),
            },
        }
    }

    fn is_too_late(&self) -> bool {
        self.adjusting.as_ref().is_some_and(|adjusting| Instant::now() >= adjusting.until)
    }

    /// Goes back to the settings that were, if others were being tried; whoever asked is told why.
    fn takes_back(&mut self, reason: &str) -> bool {
        let Some(Adjusting { order, before, .. }) = self.adjusting.take() else {
            return false;
        };
        self.camera.source = before;
        order.answer(Err(SetError::Impossible(format!("{reason}; the old settings are kept"))));
        true
    }

    fn refuse_orders(&mut self) {
        while let Some(order) = self.targets.next_order() {
            let reason = match &self.state {
                CameraState::Lost { reason } | CameraState::Unsupported { reason } => reason.clone(),
                CameraState::Starting | CameraState::Live { .. } => "the camera is not running now; try again in a second".into(),
            };
            order.answer(Err(SetError::Away(reason)));
        }
    }

    fn deliver(&mut self, mut unit: AccessUnit, forces_key_frames: bool) -> Result<(), CaptureError> {
        if unit.key {
            let format = format_of(&unit.data).map_err(|error| CaptureError::Unsupported(error.to_string()))?;
            if let Some(format) = format {
                let low = match self.kept.quality {
                    Quality::High => self.kept.tap.size(),
                    Quality::Low => None,
                };
                self.enter(CameraState::Live {
                    format,
                    forces_key_frames,
                    low,
                });
            }
            self.targets.key_frame_made(Instant::now());
        }
        unit.time = self.timeline.stamp(unit.captured);
        (self.on_event)(CaptureEvent::Unit(unit));
        Ok(())
    }

    /// Whether the agent goes on; and a sign of life, since everything that this thread does in a loop asks here.
    fn goes_on(&self, stop: &AtomicBool) -> bool {
        self.targets.sign_of_life(Instant::now());
        !stop.load(Ordering::Relaxed)
    }

    /// Whether nobody needs pictures. What the camera shows has to be known before: whoever comes is told at once.
    fn is_unwanted(&mut self) -> bool {
        let now = Instant::now();
        if self.targets.is_wanted() {
            self.wanted_at = Some(now);
        }
        let known = self.kept.quality == Quality::Low || matches!(self.state, CameraState::Live { .. });
        let long_ago = self.wanted_at.is_none_or(|at| now.saturating_duration_since(at) >= LINGER);
        self.camera.idle != Idle::Run && known && long_ago
    }

    fn may_be_closed(&mut self) -> bool {
        self.camera.idle == Idle::Close && self.is_unwanted()
    }

    /// Waits until somebody comes.
    fn sleep(&mut self, stop: &AtomicBool) {
        while self.goes_on(stop) && self.is_unwanted() {
            self.note_resting(true);
            self.targets.wait_for_somebody(REST);
        }
    }

    fn note_resting(&mut self, resting: bool) {
        if resting != self.resting {
            self.resting = resting;
            (self.on_event)(CaptureEvent::Resting(resting));
        }
    }

    fn enter(&mut self, state: CameraState) {
        if state != self.state {
            self.state = state.clone();
            (self.on_event)(CaptureEvent::State(state));
        }
    }
}

#[cfg(all(test, feature = "software-encoder"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::encode::{Settings, SoftwareEncoder};
    use crate::media::{MediaTime, RawFrame};

    /// A source that plays what it was given and then fails.
    struct Script {
        steps: std::vec::IntoIter<Step>,
        applied: Arc<std::sync::Mutex<Vec<EncoderTarget>>>,
        skipped: u64,
    }

    #[derive(Clone)]
    enum Step {
        Key(u32),
        Delta,
        Skip(u64),
        Fail(&'static str),
        Refuse(&'static str),
    }

    impl Source for Script {
        fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
            let unit = |data: Vec<u8>, key| {
                Ok(Some(AccessUnit {
                    data: data.into(),
                    time: MediaTime::default(),
                    captured: Instant::now(),
                    key,
                }))
            };
            match self.steps.next() {
                Some(Step::Key(width)) => unit(key_frame(width), true),
                Some(Step::Delta) => unit(vec![0, 0, 0, 1, 0x41, 0x9a, 1], false),
                Some(Step::Skip(pictures)) => {
                    self.skipped += pictures;
                    Ok(None)
                }
                Some(Step::Fail(reason)) => Err(CaptureError::Lost(reason.into())),
                Some(Step::Refuse(reason)) => Err(CaptureError::Unsupported(reason.into())),
                None => Err(CaptureError::Lost("the script is over".into())),
            }
        }

        fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
            self.applied.lock().expect("not poisoned").push(target);
            Ok(())
        }

        fn forces_key_frames(&self) -> bool {
            true
        }

        fn skipped(&self) -> u64 {
            self.skipped
        }
    }

    fn configured(idle: Idle) -> config::Camera {
        config::Camera {
            name: "camera".into(),
            source: config::Source::File {
                path: "film.h264".into(),
                fps: None,
            },
            bitrate: Bitrate::kbps(2500),
            idle,
            low: None,
            controls: std::collections::BTreeMap::new(),
        }
    }

    fn keep(
        open: &mut dyn FnMut(&config::Camera) -> Opened,
        idle: Idle,
        targets: &TargetCell,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(CaptureEvent),
    ) {
        let kept = Kept {
            camera: &configured(idle),
            tap: &Tap::new(Instant::now()),
            quality: Quality::High,
        };
        supervise(open, kept, targets, stop, on_event);
    }

    fn key_frame(width: u32) -> Vec<u8> {
        let settings = Settings {
            width,
            height: 64,
            fps: 30,
            bitrate: Bitrate::kbps(300),
            gop: 1,
            colour: crate::encode::Colour::Bt709,
        };
        let frame = RawFrame {
            i420: vec![128; (width * 64 * 3 / 2) as usize],
            width,
            height: 64,
            time: MediaTime::default(),
            captured: Instant::now(),
        };
        SoftwareEncoder::new(settings)
            .expect("an encoder")
            .encode(&frame)
            .expect("encoded")
            .expect("not skipped")
    }

    struct Played {
        /// `K` and `d` for units, else the state's name and width.
        events: Vec<String>,
        times: Vec<MediaTime>,
        applied: Vec<EncoderTarget>,
    }

    /// Runs the scripts one after the other, each as a camera opened anew, until the last has begun to repeat.
    fn play(scripts: Vec<Result<Vec<Step>, &'static str>>, targets: &TargetCell, during: impl Fn(usize, &TargetCell)) -> Played {
        let stop = AtomicBool::new(false);
        let applied = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (mut events, mut times) = (Vec::new(), Vec::new());
        let mut scripts = scripts.into_iter();
        let mut open = |_: &config::Camera| -> Result<Box<dyn Source>, CaptureError> {
            match scripts.next() {
                Some(Ok(steps)) => Ok(Box::new(Script {
                    steps: steps.into_iter(),
                    applied: Arc::clone(&applied),
                    skipped: 0,
                })),
                Some(Err(reason)) => Err(CaptureError::Lost(reason.into())),
                None => {
                    stop.store(true, Ordering::Relaxed);
                    Err(CaptureError::Lost("over".into()))
                }
            }
        };
        keep(&mut open, Idle::Run, targets, &stop, &mut |event| {
            events.push(match event {
                CaptureEvent::Unit(unit) => {
                    times.push(unit.time);
                    if unit.key { "K".into() } else { "d".into() }
                }
                CaptureEvent::Skipped(pictures) => format!("skipped {pictures}"),
                CaptureEvent::Resting(resting) => format!("resting {resting}"),
                CaptureEvent::Bitrate(bitrate) => format!("bit rate {bitrate}"),
                CaptureEvent::State(CameraState::Starting) => "starting".into(),
                CaptureEvent::State(CameraState::Live { format, .. }) => format!("live {}", format.width),
                CaptureEvent::State(CameraState::Lost { reason }) => format!("lost: {reason}"),
                CaptureEvent::State(CameraState::Unsupported { reason }) => {
                    // The next try is far away.
                    stop.store(true, Ordering::Relaxed);
                    format!("unsupported: {reason}")
                }
            });
            during(events.len(), targets);
        });
        let applied = applied.lock().expect("not poisoned").clone();
        Played { events, times, applied }
    }

    #[test]
    fn states_are_told_once_and_a_camera_that_comes_back_goes_on_with_rising_time() {
        let first = vec![Step::Key(128), Step::Delta, Step::Key(128), Step::Key(160), Step::Fail("unplugged")];
        let second = vec![Step::Key(160), Step::Delta, Step::Fail("over")];
        let played = play(
            vec![Err("missing"), Err("missing"), Ok(first), Err("unplugged"), Ok(second)],
            &TargetCell::default(),
            |_, _| {},
        );
        let expected = [
            "starting",
            "lost: missing",
            "live 128",
            "K",
            "d",
            "K",
            "live 160",
            "K",
            "lost: unplugged",
            "live 160",
            "K",
            "d",
            "lost: over",
        ];
        assert_eq!(played.events, expected);
        assert!(played.times.is_sorted_by(|a, b| a < b), "media time went back: {:?}", played.times);
    }

    #[test]
    fn the_thread_that_looks_for_a_camera_gives_signs_of_life() {
        let (targets, stop) = (TargetCell::default(), AtomicBool::new(false));
        let mut ages = Vec::new();
        let mut open = |_: &config::Camera| -> Result<Box<dyn Source>, CaptureError> {
            ages.push(targets.alive().expect("a sign of life").elapsed());
            stop.store(ages.len() == 4, Ordering::Relaxed);
            Err(CaptureError::Unsupported("of another kind".into()))
        };
        keep(&mut open, Idle::Rest, &targets, &stop, &mut |_| {});
        // The last one came after three pauses of two seconds.
        assert!(ages.iter().all(|age| *age < Duration::from_secs(1)), "{ages:?}");
    }

    #[test]
    fn a_camera_opened_again_gets_the_bit_rate_that_viewers_asked_for_last() {
        let script = vec![Step::Key(128), Step::Delta, Step::Fail("unplugged")];
        let played = play(vec![Ok(script.clone()), Ok(script)], &TargetCell::default(), |count, targets| {
            if count == 3 {
                targets.set_bitrate(Bitrate::kbps(400));
            }
        });
        let target = EncoderTarget {
            bitrate: Some(Bitrate::kbps(400)),
            keyframe: false,
        };
        assert_eq!(played.applied, [target, target]);
    }

    #[test]
    fn a_key_frame_asked_for_reaches_the_source_before_the_next_picture() {
        let script = vec![Step::Delta, Step::Delta, Step::Delta, Step::Fail("over")];
        let targets = TargetCell::default();
        targets.request_key_frame();
        let played = play(vec![Ok(script)], &targets, |_, _| {});
        let target = EncoderTarget {
            bitrate: None,
            keyframe: true,
        };
        assert_eq!(played.applied, [target]);
    }

    #[test]
    fn pictures_that_the_camera_lost_are_told_once_also_after_it_was_opened_anew() {
        let script = vec![Step::Key(128), Step::Skip(3), Step::Delta, Step::Skip(2), Step::Fail("over")];
        let played = play(vec![Ok(script.clone()), Ok(script)], &TargetCell::default(), |_, _| {});
        let skipped: Vec<_> = played.events.iter().filter(|event| event.starts_with("skipped")).collect();
        assert_eq!(skipped, ["skipped 3", "skipped 2", "skipped 3", "skipped 2"]);
    }

    #[test]
    fn a_stream_that_no_browser_shows_is_told_apart_from_a_lost_camera() {
        let script = vec![Step::Key(128), Step::Refuse("B frames")];
        let played = play(vec![Ok(script)], &TargetCell::default(), |_, _| {});
        assert_eq!(played.events, ["starting", "live 128", "K", "unsupported: B frames"]);
    }
}
