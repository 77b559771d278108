//! What a camera has filled: the newest whole picture, the others counted and given back.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::failed;
use super::trouble::silent_for;
use crate::capture::CaptureError;
use crate::v4l2::{Device, Queue, Taken};

/// The buffers of a camera of whole pictures, each of which stands for itself.
pub(super) struct Pictures {
    queue: Queue,
    device: Arc<Device>,
    intake: Intake,
    newest: Option<Taken>,
    /// When something usable came last.
    heard: Instant,
}

/// What is known of the pictures that came; knows no device, so that it can be tried without one.
#[derive(Default)]
struct Intake {
    /// Bytes of a whole picture.
    whole: usize,
    sequence: Option<u32>,
    lost: u64,
}

impl Pictures {
    /// Of a queue that runs; a picture has `whole` bytes or more.
    pub fn new(queue: Queue, device: Arc<Device>, whole: usize) -> Self {
        Self {
            queue,
            device,
            intake: Intake {
                whole,
                ..Intake::default()
            },
            newest: None,
            heard: Instant::now(),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Takes what the camera has filled; keeps the newest. Whether there was anything.
    ///
    /// # Errors
    /// The camera failed, as with every method here that can fail.
    pub fn receive(&mut self) -> Result<bool, CaptureError> {
        let mut any = false;
        while let Some(taken) = self.queue.take().map_err(|error| self.failed("reading", &error))? {
            any = true;
            let useless = if self.intake.take(taken.bytes(), taken.sequence, taken.damaged) {
                self.heard = Instant::now();
                let older = self.newest.replace(taken);
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

    /// The newest picture, if it was not taken before: to be given back.
    pub fn take(&mut self) -> Option<Taken> {
        self.newest.take()
    }

    /// The bytes of a picture that was taken.
    pub fn data(&self, taken: &Taken) -> &[u8] {
        self.queue.data(taken, 0)
    }

    /// Lets the camera fill a buffer again.
    pub fn give_back(&mut self, index: u32) -> Result<(), CaptureError> {
        self.queue
            .give(index)
            .map_err(|error| self.failed("giving a buffer back to", &error))
    }

    /// Gives everything back that came. What nobody wanted is not lost.
    pub fn discard(&mut self) -> Result<(), CaptureError> {
        let lost = self.intake.lost;
        self.receive()?;
        if let Some(unseen) = self.take() {
            self.give_back(unseen.index)?;
        }
        self.intake.lost = lost;
        Ok(())
    }

    /// Counts a picture that could not be used after all.
    pub fn lose(&mut self) {
        self.intake.lost += 1;
    }

    /// Pictures that were lost, damaged, or replaced by a newer one.
    pub fn lost(&self) -> u64 {
        self.intake.lost
    }

    /// An error, if nothing usable has come for too long.
    pub fn complain_of_silence(&self) -> Result<(), CaptureError> {
        silent_for(self.device.path(), self.heard.elapsed())
    }

    /// The error of something done to the camera.
    pub fn failed(&self, doing: &str, error: &io::Error) -> CaptureError {
        failed(self.device.path(), doing, error)
    }
}

impl Intake {
    /// Whether a buffer holds a picture; counts what was lost or damaged.
    fn take(&mut self, bytes: usize, sequence: u32, damaged: bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_short_and_missing_pictures_are_counted_and_none_of_them_is_encoded() {
        let mut intake = Intake {
            whole: 1000,
            ..Intake::default()
        };
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
