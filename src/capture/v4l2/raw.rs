//! A camera that delivers raw pictures, and the hardware encoder that takes them: out of the camera's own buffers where both sides
//! can, else by a copy.
//!
//! Nothing queues up: the encoder has one picture at a time, and the newest of those that come meanwhile is the next.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::sync::Arc;
use std::time::Instant;

use super::memory::unpack;
use super::pictures::Pictures;
use super::trouble::reports_error;
use super::{Opened, WAIT, Wish, failed};
use crate::capture::encoded::Wanted;
use crate::capture::rung::{Feed, Tap};
use crate::capture::{CaptureError, REST, Source};
use crate::encode::Colour;
use crate::encode::m2m::{FoundEncoder, M2mEncoder, M2mError, M2mSettings, picture_bytes};
use crate::media::{AccessUnit, EncoderTarget, MediaTime, RawFrame, TargetCell};
use crate::v4l2::{Device, Event, Format, FourCc, Interest, Ready, Taken, wait};

const BUFFERS_TO_SHARE: u32 = 3;

/// An open, streaming camera with its encoder.
pub(super) struct RawCamera {
    /// Before the camera's pictures: an encoder that reads the camera's memory is stopped first.
    encoder: M2mEncoder,
    pictures: Pictures,
    format: Format,
    found: FoundEncoder,
    settings: M2mSettings,
    /// Whether the driver tells that the picture which it receives has changed.
    tells_changes: bool,
    low: Feed,
    /// The picture that is left for the low rung, unpacked.
    unpacked: RawFrame,
}

impl RawCamera {
    /// Sets a camera and its encoder up and starts both.
    ///
    /// # Errors
    /// One of them is busy, gone, or failed; the message says what to do.
    pub fn start(camera: Opened, found: &FoundEncoder, fourcc: FourCc, wish: &Wish, tap: &Arc<Tap>) -> Result<Self, CaptureError> {
        let format = camera.set_up(fourcc, wish)?;
        let settings = M2mSettings {
            fps: camera.rate(),
            bitrate: wish.bitrate,
            gop: wish.encoding.gop,
        };
        let kind = camera.kind;
        let device = Arc::new(camera.device);
        let fail = |error| failed(device.path(), "starting", &error);
        let mut queue = Opened::buffers(&device, kind)?;
        // The encoder has one of them, one waits for it: with fewer the camera would have none to fill meanwhile.
        let shared = (queue.len() >= BUFFERS_TO_SHARE).then_some(&queue);
        let encoder = M2mEncoder::open(found, &format, shared, &settings).map_err(lost)?;
        queue.start().map_err(fail)?;
        let tells_changes = device.subscribe(Event::SourceChange).is_ok();
        tracing::info!(
            device = %device.path().display(), card = camera.card, format = %fourcc, size = %format.size, fps = settings.fps,
            "camera started"
        );
        let (width, height) = (format.size.width & !1, format.size.height & !1);
        let wanted = Wanted {
            encoder: wish.encoding.encoder,
            width,
            height,
            fps: settings.fps,
            bitrate: wish.bitrate,
            gop: settings.gop,
            colour: Colour::told_by(format.colour),
        };
        Ok(Self {
            encoder,
            pictures: Pictures::new(queue, device, picture_bytes(&format)),
            format,
            found: found.clone(),
            settings,
            tells_changes,
            low: tap.feed(&wanted),
            unpacked: RawFrame {
                i420: Vec::new(),
                width,
                height,
                time: MediaTime::default(),
                captured: Instant::now(),
            },
        })
    }

    /// Gives the encoder the newest picture, if it has room.
    fn submit(&mut self) -> Result<bool, CaptureError> {
        while let Some(index) = self.encoder.returned().map_err(lost)? {
            if self.encoder.shares_memory() {
                self.pictures.give_back(index)?;
            }
        }
        if self.encoder.busy() {
            return Ok(false);
        }
        let Some(taken) = self.pictures.take() else { return Ok(false) };
        let captured = taken.stamp.instant();
        if self.encoder.shares_memory() {
            match self.encoder.submit_shared(&taken) {
                Ok(()) => {
                    // The encoder only reads it too.
                    self.leave_for_low(&taken);
                    return Ok(true);
                }
                Err(error @ M2mError::NotShared(..)) => self.copy_from_now_on(&error)?,
                Err(error) => return Err(lost(error)),
            }
        }
        let submitted = self
            .encoder
            .submit_copy(self.pictures.data(&taken), &self.format, captured)
            .map_err(lost)?;
        if !submitted {
            self.pictures.lose();
        }
        self.leave_for_low(&taken);
        self.pictures.give_back(taken.index)?;
        Ok(true)
    }

    fn leave_for_low(&mut self, taken: &Taken) {
        if self.low.is_wanted() && unpack(&self.format, self.pictures.data(taken), &mut self.unpacked) {
            self.unpacked.captured = taken.stamp.instant();
            self.low.leave(&self.unpacked);
        }
    }

    /// Memory that two drivers agree on can still be out of an encoder's reach (not contiguous, too high): that shows only when it
    /// is handed over.
    fn copy_from_now_on(&mut self, why: &M2mError) -> Result<(), CaptureError> {
        tracing::warn!(%why, "pictures are copied from now on");
        self.encoder = M2mEncoder::open(&self.found, &self.format, None, &self.settings).map_err(lost)?;
        Ok(())
    }

    /// Waits for either side, at most until `until`.
    fn wait_for_either(&mut self, until: Instant) -> Result<bool, CaptureError> {
        let interest = Interest {
            event: self.tells_changes,
            ..Interest::FILLED
        };
        let left = until.saturating_duration_since(Instant::now());
        let ready = wait(
            [(self.pictures.device(), interest), (self.encoder.device(), M2mEncoder::INTEREST)],
            left,
        );
        let [camera, encoder] = ready.map_err(|error| self.pictures.failed("waiting for a picture from", &error))?;
        if encoder == Ready::Error || encoder == Ready::Gone {
            return Err(CaptureError::Lost(format!(
                "the encoder {} reports an error; it is opened anew",
                self.found.path.display()
            )));
        }
        match camera {
            Ready::Has(has) if has.event => self.look_at_events().map(|()| true),
            Ready::Has(_) | Ready::Timeout => Ok(camera != Ready::Timeout || encoder != Ready::Timeout),
            // Reading says which error it is; one without a reason would be reported for ever.
            Ready::Error | Ready::Gone => match self.pictures.receive()? {
                true => Ok(true),
                false => Err(reports_error(self.pictures.device().path())),
            },
        }
    }

    fn look_at_events(&self) -> Result<(), CaptureError> {
        let device = self.pictures.device();
        let event = device.next_event().map_err(|error| self.pictures.failed("reading", &error))?;
        if event == Some(Event::SourceChange) {
            return Err(CaptureError::Lost(format!(
                "what {} receives has changed; it is opened anew",
                device.path().display()
            )));
        }
        Ok(())
    }
}

impl Source for RawCamera {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(unit) = self.encoder.unit().map_err(lost)? {
                return Ok(Some(AccessUnit {
                    data: unit.data,
                    // The supervisor gives the stream its time.
                    time: MediaTime::default(),
                    captured: unit.captured,
                    key: unit.key,
                }));
            }
            let received = self.pictures.receive()?;
            if self.submit()? || received {
                continue;
            }
            self.pictures.complain_of_silence()?;
            if Instant::now() >= until || !self.wait_for_either(until)? {
                return Ok(None);
            }
        }
    }

    /// The camera goes on, so that exposure and focus are right when somebody comes; its pictures are given back unseen.
    fn rest(&mut self, _targets: &TargetCell) -> Result<bool, CaptureError> {
        while self.encoder.unit().map_err(lost)?.is_some() {}
        while let Some(index) = self.encoder.returned().map_err(lost)? {
            if self.encoder.shares_memory() {
                self.pictures.give_back(index)?;
            }
        }
        self.pictures.discard()?;
        self.pictures.complain_of_silence()?;
        self.wait_for_either(Instant::now() + REST)?;
        Ok(true)
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
        self.settings.bitrate = target.bitrate.unwrap_or(self.settings.bitrate);
        self.encoder.steer(target).map_err(lost)
    }

    fn forces_key_frames(&self) -> bool {
        self.encoder.forces_key_frames()
    }

    fn device(&self) -> Option<&Device> {
        Some(self.pictures.device())
    }

    fn fps(&self) -> Option<f64> {
        Some(self.settings.fps)
    }

    fn skipped(&self) -> u64 {
        self.pictures.lost() + self.encoder.skipped()
    }
}

fn lost(error: M2mError) -> CaptureError {
    match error {
        M2mError::Unsuitable(..) => CaptureError::Unsupported(error.to_string()),
        M2mError::Missing(_) | M2mError::Refused { .. } | M2mError::NotShared(..) | M2mError::Stalled { .. } => {
            CaptureError::Lost(error.to_string())
        }
    }
}
