//! A camera that delivers raw pictures, and the hardware encoder that takes them: out of the camera's own buffers where both sides
//! can, else by a copy.
//!
//! Nothing queues up: the encoder has one picture at a time, and the newest of those that come meanwhile is the next.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::sync::Arc;
use std::time::Instant;

use super::{Opened, SILENCE, WAIT, Wish, failed};
use crate::capture::{CaptureError, REST, Source, Timeline};
use crate::encode::m2m::{FoundEncoder, M2mEncoder, M2mError, M2mSettings, picture_bytes};
use crate::media::{AccessUnit, EncoderTarget, TargetCell};
use crate::v4l2::{Device, Event, Format, FourCc, Interest, Queue, Ready, Taken, wait};

const BUFFERS_TO_SHARE: u32 = 3;

/// An open, streaming camera with its encoder.
pub(super) struct RawCamera {
    /// Before the camera's queue: an encoder that reads the camera's memory is stopped first.
    encoder: M2mEncoder,
    queue: Queue,
    device: Arc<Device>,
    format: Format,
    found: FoundEncoder,
    settings: M2mSettings,
    /// The newest picture that the encoder does not have yet.
    next: Option<Taken>,
    intake: Intake,
    /// When something usable came last.
    heard: Instant,
    timeline: Timeline,
    /// Whether the driver tells that the picture which it receives has changed.
    tells_changes: bool,
}

/// What is known of the pictures that came; knows no device, so that it can be tried without one.
#[derive(Default)]
pub(super) struct Intake {
    /// Bytes of a whole picture.
    whole: usize,
    sequence: Option<u32>,
    pub lost: u64,
}

impl RawCamera {
    /// Sets a camera and its encoder up and starts both.
    ///
    /// # Errors
    /// One of them is busy, gone, or failed; the message says what to do.
    pub fn start(camera: Opened, found: &FoundEncoder, fourcc: FourCc, wish: &Wish) -> Result<Self, CaptureError> {
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
        Ok(Self {
            encoder,
            queue,
            device,
            intake: Intake::new(picture_bytes(&format)),
            format,
            found: found.clone(),
            settings,
            next: None,
            heard: Instant::now(),
            timeline: Timeline::default(),
            tells_changes,
        })
    }

    /// Takes what the camera has filled; keeps the newest.
    fn receive(&mut self) -> Result<bool, CaptureError> {
        let mut any = false;
        while let Some(taken) = self.queue.take().map_err(|error| self.camera_lost("reading", &error))? {
            any = true;
            let useless = if self.intake.take(taken.bytes(), taken.sequence, taken.damaged) {
                self.heard = Instant::now();
                let older = self.next.replace(taken);
                self.intake.lost += u64::from(older.is_some());
                older
            } else {
                Some(taken)
            };
            if let Some(taken) = useless {
                self.give_back(taken.index)?;
            }
        }
        Ok(any)
    }

    /// Gives the encoder the newest picture, if it has room.
    fn submit(&mut self) -> Result<bool, CaptureError> {
        while let Some(index) = self.encoder.returned().map_err(lost)? {
            if self.encoder.shares_memory() {
                self.give_back(index)?;
            }
        }
        if self.encoder.busy() {
            return Ok(false);
        }
        let Some(taken) = self.next.take() else { return Ok(false) };
        let captured = taken.stamp.instant();
        if self.encoder.shares_memory() {
            match self.encoder.submit_shared(&taken) {
                Ok(()) => return Ok(true),
                Err(error @ M2mError::NotShared(..)) => self.copy_from_now_on(&error)?,
                Err(error) => return Err(lost(error)),
            }
        }
        let submitted = self
            .encoder
            .submit_copy(self.queue.data(&taken, 0), &self.format, captured)
            .map_err(lost)?;
        self.intake.lost += u64::from(!submitted);
        self.give_back(taken.index)?;
        Ok(true)
    }

    /// Memory that two drivers agree on can still be out of an encoder's reach (not contiguous, too high): that shows only when it
    /// is handed over.
    fn copy_from_now_on(&mut self, why: &M2mError) -> Result<(), CaptureError> {
        tracing::warn!(%why, "pictures are copied from now on");
        self.encoder = M2mEncoder::open(&self.found, &self.format, None, &self.settings).map_err(lost)?;
        Ok(())
    }

    fn give_back(&mut self, index: u32) -> Result<(), CaptureError> {
        self.queue
            .give(index)
            .map_err(|error| self.camera_lost("giving a buffer back to", &error))
    }

    fn camera_lost(&self, doing: &str, error: &std::io::Error) -> CaptureError {
        failed(self.device.path(), doing, error)
    }

    fn complain_of_silence(&self) -> Result<(), CaptureError> {
        if self.heard.elapsed() < SILENCE {
            return Ok(());
        }
        let (path, seconds) = (self.device.path().display(), SILENCE.as_secs());
        Err(CaptureError::Lost(format!(
            "{path} delivers no picture for {seconds} s; it is opened anew"
        )))
    }

    /// Waits for either side, at most until `until`.
    fn wait_for_either(&mut self, until: Instant) -> Result<bool, CaptureError> {
        let interest = Interest {
            event: self.tells_changes,
            ..Interest::FILLED
        };
        let left = until.saturating_duration_since(Instant::now());
        let ready = wait([(&self.device, interest), (self.encoder.device(), M2mEncoder::INTEREST)], left);
        let [camera, encoder] = ready.map_err(|error| self.camera_lost("waiting for a picture from", &error))?;
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
            Ready::Error | Ready::Gone => match self.receive()? {
                true => Ok(true),
                false => Err(CaptureError::Lost(format!(
                    "{} reports an error; it is opened anew",
                    self.device.path().display()
                ))),
            },
        }
    }

    fn look_at_events(&self) -> Result<(), CaptureError> {
        let event = self.device.next_event().map_err(|error| self.camera_lost("reading", &error))?;
        if event == Some(Event::SourceChange) {
            return Err(CaptureError::Lost(format!(
                "what {} receives has changed; it is opened anew",
                self.device.path().display()
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
                    time: self.timeline.stamp(unit.captured),
                    data: unit.data,
                    captured: unit.captured,
                    key: unit.key,
                }));
            }
            let received = self.receive()?;
            if self.submit()? || received {
                continue;
            }
            self.complain_of_silence()?;
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
                self.give_back(index)?;
            }
        }
        if let Some(unseen) = self.next.take() {
            self.give_back(unseen.index)?;
        }
        self.receive()?;
        self.complain_of_silence()?;
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
        Some(&self.device)
    }

    fn fps(&self) -> Option<f64> {
        Some(self.settings.fps)
    }

    fn skipped(&self) -> u64 {
        self.intake.lost + self.encoder.skipped()
    }
}

impl Intake {
    /// For pictures of at least so many bytes.
    pub fn new(whole: usize) -> Self {
        Self { whole, ..Self::default() }
    }

    /// Whether a buffer holds a picture; counts what was lost or damaged.
    pub fn take(&mut self, bytes: usize, sequence: u32, damaged: bool) -> bool {
        let gap = self.sequence.map_or(0, |last| sequence.wrapping_sub(last).wrapping_sub(1));
        self.sequence = Some(sequence);
        // A sequence that goes back or stays is a driver that counts nothing: its numbers say nothing about losses.
        let gap = if gap > u32::MAX / 2 { 0 } else { gap };
        let damaged = damaged || bytes < self.whole;
        if gap > 0 || damaged {
            self.lost += u64::from(gap) + u64::from(damaged);
            tracing::debug!(sequence, gap, damaged, bytes, lost = self.lost, "pictures lost");
        }
        !damaged
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_short_and_missing_pictures_are_counted_and_none_of_them_is_encoded() {
        let mut intake = Intake::new(1000);
        let taken: Vec<bool> = [
            (1000, 7, false),
            (1000, 8, true),
            (999, 9, false),
            (1024, 12, false),
            (0, 13, false),
        ]
        .into_iter()
        .map(|(bytes, sequence, damaged)| intake.take(bytes, sequence, damaged))
        .collect();
        assert_eq!(taken, [true, false, false, true, false]);
        assert_eq!(intake.lost, 1 + 1 + 2 + 1);
        assert!(
            intake.take(1000, 13, false) && intake.take(1000, 0, false),
            "a driver that counts nothing"
        );
        assert_eq!(intake.lost, 5);
    }
}
