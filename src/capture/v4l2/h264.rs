//! A camera that delivers H.264, one access unit in a buffer.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::intake::Intake;
use super::trouble::{reports_error, silent_for};
use super::{Opened, WAIT, Wish, failed};
use crate::capture::{CaptureError, Source};
use crate::media::{AccessUnit, Bitrate, EncoderTarget};
use crate::v4l2::{Device, FourCc, Interest, Queue, Ready, control, wait};

/// How often a camera that owes us a key frame is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// An open, streaming camera.
pub(super) struct H264Camera {
    queue: Queue,
    device: Arc<Device>,
    intake: Intake,
    forces_key_frames: bool,
    has_bitrate: bool,
    fps: f64,
    /// When something usable came last.
    heard: Instant,
    asked: Option<Instant>,
}

impl H264Camera {
    /// Sets a camera up and starts it.
    ///
    /// # Errors
    /// It is busy, gone, or failed; the message says what to do.
    pub fn start(camera: Opened, wish: &Wish) -> Result<Self, CaptureError> {
        camera.set_up(FourCc::H264, wish)?;
        set_up_encoder(&camera, wish);
        let fps = camera.rate();
        let device = Arc::new(camera.device);
        let has_bitrate = device.control(control::BITRATE).is_some();
        let forces_key_frames = device.control(control::FORCE_KEY_FRAME).is_some();
        let mut queue = Opened::buffers(&device, camera.kind)?;
        queue.start().map_err(|error| failed(device.path(), "starting", &error))?;
        tracing::info!(device = %device.path().display(), forces_key_frames, "camera started");
        Ok(Self {
            queue,
            device,
            intake: Intake::default(),
            forces_key_frames,
            has_bitrate,
            fps,
            heard: Instant::now(),
            asked: None,
        })
    }

    /// Asks the camera for the key frame without which nothing goes on.
    fn ask_for_key_frame(&mut self, now: Instant) {
        let due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if self.forces_key_frames && due && self.intake.conformer.waits_for_key_frame() {
            self.asked = Some(now);
            if let Err(error) = self.device.set_control(control::FORCE_KEY_FRAME, 1) {
                tracing::warn!(device = %self.device.path().display(), %error, "camera refused to make a key frame");
            }
        }
    }

    fn lost(&self, doing: &str, error: &io::Error) -> CaptureError {
        failed(self.device.path(), doing, error)
    }
}

impl Source for H264Camera {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let until = Instant::now() + WAIT;
        loop {
            let now = Instant::now();
            self.ask_for_key_frame(now);
            silent_for(self.device.path(), now.saturating_duration_since(self.heard))?;
            let left = until.saturating_duration_since(now);
            let [ready] =
                wait([(&self.device, Interest::FILLED)], left).map_err(|error| self.lost("waiting for a picture from", &error))?;
            if ready == Ready::Timeout {
                return Ok(None);
            }
            let intake = &mut self.intake;
            let taken = self.queue.read(|filled| {
                let taken = filled.taken;
                let usable = !taken.damaged && !filled.data.is_empty();
                let unit = intake.take(filled.data, taken.sequence, taken.damaged, taken.stamp.instant());
                (usable, unit)
            });
            let taken = taken.map_err(|error| self.lost("reading", &error))?;
            match (taken, ready) {
                (Some((usable, unit)), _) => {
                    if usable {
                        self.heard = Instant::now();
                    }
                    let refused = |error: String| CaptureError::Unsupported(format!("{}: {error}", self.device.path().display()));
                    if let Some(unit) = unit.map_err(refused)? {
                        return Ok(Some(unit));
                    }
                }
                // An error without a reason would be reported for ever.
                (None, Ready::Error | Ready::Gone) => return Err(reports_error(self.device.path())),
                (None, Ready::Has(_) | Ready::Timeout) => {}
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
        if let Some(bitrate) = target.bitrate {
            set_bitrate(&self.device, bitrate).map_err(|error| self.lost(&format!("setting bit rate {bitrate} on"), &error))?;
        }
        if target.keyframe && self.forces_key_frames {
            self.device
                .set_control(control::FORCE_KEY_FRAME, 1)
                .map_err(|error| self.lost("asking for a key frame from", &error))?;
        }
        Ok(())
    }

    fn forces_key_frames(&self) -> bool {
        self.forces_key_frames
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }

    fn has_bitrate(&self) -> bool {
        self.has_bitrate
    }

    fn skipped(&self) -> u64 {
        self.intake.lost
    }
}

/// Sets what WebRTC needs, where the camera has a control for it. What it lacks, the stream itself will show.
fn set_up_encoder(camera: &Opened, wish: &Wish) {
    let (device, bitrate) = (&camera.device, wish.bitrate);
    let pictures = (camera.rate() * wish.encoding.gop.as_secs_f64()).round() as i64;
    let wanted = [
        (control::REPEAT_HEADERS, 1),
        (control::B_FRAMES, 0),
        (control::GOP_SIZE, pictures),
        (control::I_PERIOD, pictures),
    ];
    let set = |id: u32, value: i64| {
        let Some(found) = device.control(id) else { return };
        if let Err(error) = device.set_control(id, found.nearest(value)) {
            tracing::warn!(device = %device.path().display(), control = format!("{id:#x}"), value, %error, "the camera refused a setting");
        }
    };
    for (id, value) in wanted {
        set(id, value);
    }
    if let Ok(profile) = device.control_value(control::PROFILE)
        && !matches!(profile, 0 | 1 | 2 | 4)
    {
        const HIGH: i64 = 4;
        set(control::PROFILE, HIGH);
    }
    if let Err(error) = set_bitrate(device, bitrate) {
        tracing::warn!(device = %device.path().display(), %bitrate, %error, "the camera refused the bit rate");
    }
}

fn set_bitrate(device: &Device, bitrate: Bitrate) -> io::Result<()> {
    match device.control(control::BITRATE) {
        Some(found) => device.set_control(control::BITRATE, found.nearest(i64::try_from(bitrate.as_bps()).unwrap_or(i64::MAX))),
        None => Ok(()),
    }
}
