//! The camera's thread: a source of access units, supervised so that it comes back by itself.

mod adjusted;
#[cfg(feature = "software-encoder")]
mod card;
mod child;
#[cfg(all(test, feature = "software-encoder"))]
mod costs;
pub mod devices;
mod encoded;
mod file;
mod font;
pub mod mjpeg;
mod overlay;
mod pacer;
#[cfg(feature = "software-encoder")]
mod pattern;
mod rpicam;
mod rung;
pub mod stamp;
mod supervise;
mod timeline;
mod v4l2;

use std::fmt;
use std::sync::Arc;

use crate::config;
use crate::encode::Colour;
use crate::media::{AccessUnit, Bitrate, EncoderTarget, StreamFormat, TargetCell};
use crate::v4l2::Device;

use encoded::{EncodedSource, Wanted};
use overlay::Overlay;
pub use rung::{Tap, run_low};
pub use supervise::run;
use timeline::Timeline;

/// How long a source waits for somebody to come before it looks whether the agent stops.
const REST: std::time::Duration = std::time::Duration::from_millis(500);

/// Something that delivers H.264 in real time. Lives on its own thread; a call blocks for at most about a second.
pub trait Source: Send {
    /// Waits for the next access unit; `Ok(None)` if none came within about a second.
    ///
    /// # Errors
    /// The device is gone, or its stream cannot be carried by WebRTC.
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError>;

    /// Waits until the next picture is due, where the source makes it itself: what viewers ask for meanwhile is in time for it.
    fn wait(&mut self) {}

    /// Does what the viewers want, from the next picture on. A source that cannot steer its encoder ignores it.
    ///
    /// # Errors
    /// The device refused.
    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError>;

    /// Called in place of [`Source::next`] while nobody watches: makes no picture, and returns when somebody comes, or after about
    /// a second. `Ok(false)`: it has no encoder that could rest, and goes on.
    ///
    /// # Errors
    /// As [`Source::next`].
    fn rest(&mut self, _targets: &TargetCell) -> Result<bool, CaptureError> {
        Ok(false)
    }

    /// Whether a key frame comes when asked for. If not, a joiner is given the newest one with all that follows it.
    fn forces_key_frames(&self) -> bool;

    /// The device whose controls can be set by name.
    fn device(&self) -> Option<&Device> {
        None
    }

    /// Pictures a second, as far as the device says so.
    fn fps(&self) -> Option<f64> {
        None
    }

    /// Whether [`Source::apply`] does something about the bit rate.
    fn has_bitrate(&self) -> bool {
        true
    }

    /// Pictures that the source made and that were lost or damaged before they could be read, since it was opened. Zero where
    /// that can't be known.
    fn skipped(&self) -> u64 {
        0
    }
}

/// What the camera's thread reports, in order.
#[derive(Clone, Debug)]
pub enum CaptureEvent {
    /// One picture.
    Unit(AccessUnit),
    /// So many pictures were lost between the camera and this process.
    Skipped(u64),
    /// The camera's state changed.
    State(CameraState),
    /// Whether no pictures are made from now on because nobody watches.
    Resting(bool),
    /// Somebody has set another bit rate.
    Bitrate(Bitrate),
}

/// How a camera is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// Being opened; no picture yet.
    Starting,
    /// Pictures flow. Those of a low rung would be so large, in pixels, where there can be one.
    Live {
        format: StreamFormat,
        forces_key_frames: bool,
        low: Option<(u32, u32)>,
    },
    /// Gone or silent; it is tried again until it is back. `reason` is a sentence for people.
    Lost { reason: String },
    /// Its stream cannot be shown in a browser. `reason` says what to change.
    Unsupported { reason: String },
}

impl fmt::Display for CameraState {
    /// For the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "being opened"),
            Self::Live { format, .. } => write!(f, "live, {}x{} pixels", format.width, format.height),
            Self::Lost { reason } => write!(f, "no picture: {reason}"),
            Self::Unsupported { reason } => write!(f, "not to be shown: {reason}"),
        }
    }
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

/// Opens the source that the configuration names. Raw pictures that it has are left in `tap`.
///
/// # Errors
/// It is not there (worth trying again), or cannot be shown in a browser.
pub fn open(camera: &config::Camera, tap: &Arc<Tap>) -> Result<Box<dyn Source>, CaptureError> {
    match &camera.source {
        config::Source::V4l2 {
            device,
            format,
            size,
            fps,
            encoding,
        } => {
            let wish = v4l2::Wish {
                format: *format,
                size: *size,
                fps: *fps,
                bitrate: camera.bitrate,
                encoding: *encoding,
            };
            v4l2::open(&camera.name, device.as_deref(), &wish, tap)
        }
        config::Source::Rpicam(rpicam) if rpicam.own_h264 => Ok(Box::new(rpicam::H264Rpicam::open(rpicam, camera.bitrate)?)),
        config::Source::Rpicam(rpicam) => {
            let wanted = Wanted {
                encoder: rpicam.encoding.encoder,
                width: rpicam.size.0.get(),
                height: rpicam.size.1.get(),
                fps: rpicam.fps.get().into(),
                bitrate: camera.bitrate,
                gop: rpicam.encoding.gop,
                colour: Colour::Bt601Full,
            };
            encoded::look_for_encoder(&wanted)?;
            let raw = rpicam::RawRpicam::open(rpicam, camera.bitrate)?;
            let overlay = rpicam.encoding.overlay.then(|| Overlay::new(&camera.name));
            Ok(Box::new(EncodedSource::late(raw, wanted, overlay, Some(tap.feed(&wanted)))))
        }
        config::Source::File { path, fps } => Ok(Box::new(file::FileReplay::open(path, *fps)?)),
        #[cfg(feature = "software-encoder")]
        config::Source::Pattern { size, fps, gop } => Ok(Box::new(pattern::Pattern::open(
            &camera.name,
            *size,
            *fps,
            *gop,
            camera.bitrate,
            tap,
        )?)),
        #[cfg(not(feature = "software-encoder"))]
        config::Source::Pattern { .. } => Err(CaptureError::Unsupported(
            "this peercam was built without its software encoder, so it has no test pattern; build it with feature `software-encoder`"
                .into(),
        )),
    }
}
