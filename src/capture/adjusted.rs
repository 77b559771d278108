//! A camera with other settings than its configuration says, of those that it is opened anew for.

use super::rpicam;
use crate::config::{Camera, Source};
use crate::media::settings::Change;

/// `camera` with the size and rate that somebody asks for, and the controls of `rpicam-vid`.
///
/// # Errors
/// This kind of camera can't have them; a sentence that says what it can.
pub(super) fn adjusted(camera: &Camera, change: &Change) -> Result<Camera, String> {
    let mut camera = camera.clone();
    match &mut camera.source {
        Source::V4l2 { size, fps, .. } => {
            *size = change.size.or(*size);
            *fps = change.fps.or(*fps);
        }
        Source::Rpicam(program) => {
            program.size = change.size.unwrap_or(program.size);
            program.fps = change.fps.unwrap_or(program.fps);
            for (name, value) in &change.controls {
                rpicam::controls::set(program, name, value)?;
            }
            if !program.own_h264 && !program.size.0.get().is_multiple_of(64) {
                return Err("raw pictures of rpicam-vid have a width that is a multiple of 64".into());
            }
        }
        Source::Pattern { size, fps, .. } => {
            *size = change.size.unwrap_or(*size);
            *fps = change.fps.unwrap_or(*fps);
        }
        Source::File { .. } if change.size.is_none() && change.fps.is_none() => {}
        Source::File { .. } => return Err("a recording is played in the size and at the rate that it has".into()),
    }
    Ok(camera)
}
