//! Size and rate that somebody has asked for, in place of the configuration's.

use std::num::NonZeroU32;

use super::CaptureError;
use crate::config::{Camera, Source};

/// What differs from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Adjusted {
    /// Pixels.
    pub size: Option<(NonZeroU32, NonZeroU32)>,
    /// Pictures a second.
    pub fps: Option<NonZeroU32>,
}

impl Adjusted {
    /// `camera` with what differs.
    ///
    /// # Errors
    /// This kind of camera can't have it; the message says what it can.
    pub fn apply(self, camera: &Camera) -> Result<Camera, CaptureError> {
        let mut camera = camera.clone();
        match &mut camera.source {
            Source::V4l2 { size, fps, .. } => {
                *size = self.size.or(*size);
                *fps = self.fps.or(*fps);
            }
            Source::Rpicam(rpicam) => {
                rpicam.size = self.size.unwrap_or(rpicam.size);
                rpicam.fps = self.fps.unwrap_or(rpicam.fps);
                if !rpicam.own_h264 && !rpicam.size.0.get().is_multiple_of(64) {
                    return Err(CaptureError::Unsupported(
                        "raw pictures of rpicam-vid have a width that is a multiple of 64".into(),
                    ));
                }
            }
            Source::Pattern { size, fps, .. } => {
                *size = self.size.unwrap_or(*size);
                *fps = self.fps.unwrap_or(*fps);
            }
            Source::File { .. } if self == Self::default() => {}
            Source::File { .. } => {
                return Err(CaptureError::Unsupported(
                    "a recording is played in the size and at the rate that it has".into(),
                ));
            }
        }
        Ok(camera)
    }
}
