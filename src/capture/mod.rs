//! The camera's thread: a source of access units, supervised so that it comes back by itself.

use crate::media::{AccessUnit, EncoderTarget, StreamFormat};

/// Something that delivers H.264 in real time. Lives on its own thread; a call blocks for at most about a second.
pub trait Source: Send {
    /// Waits for the next access unit; `Ok(None)` if none came within about a second.
    ///
    /// # Errors
    /// The device is gone, or its stream cannot be carried by WebRTC.
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError>;

    /// Does what the viewers want, from the next picture on. A source that cannot steer its encoder ignores it.
    ///
    /// # Errors
    /// The device refused.
    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError>;

    /// Whether a key frame comes when asked for. If not, a joiner is given the newest one with all that follows it.
    fn forces_key_frames(&self) -> bool;
}

/// What the camera's thread reports, in order.
#[derive(Clone, Debug)]
pub enum CaptureEvent {
    /// One picture.
    Unit(AccessUnit),
    /// The camera's state changed.
    State(CameraState),
}

/// How a camera is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// Being opened; no picture yet.
    Starting,
    /// Pictures flow.
    Live { format: StreamFormat, forces_key_frames: bool },
    /// Gone or silent; it is tried again until it is back. `reason` is a sentence for people.
    Lost { reason: String },
    /// Its stream cannot be shown in a browser. `reason` says what to change.
    Unsupported { reason: String },
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Worth trying again.
    #[error("{0}")]
    Lost(String),
    /// The stream itself is the problem.
    #[error("{0}")]
    Unsupported(String),
}
