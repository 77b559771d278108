//! Raw frames → access units.

mod colour;
pub mod m2m;
#[cfg(feature = "software-encoder")]
mod software;
#[cfg(feature = "software-encoder")]
mod threaded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::{EncoderTarget, RawFrame};

pub use colour::Colour;
#[cfg(feature = "software-encoder")]
pub use software::{Settings, SoftwareEncoder};
#[cfg(feature = "software-encoder")]
pub use threaded::ThreadedEncoder;

/// Something that makes access units of raw pictures.
pub trait Encoder: Send {
    /// Hands a picture in. `Ok(false)`: no room, the picture is dropped and counted (newest wins, nothing waits).
    ///
    /// # Errors
    /// The encoder failed, or the picture is not of its size.
    fn submit(&mut self, frame: &RawFrame) -> Result<bool, EncodeError>;

    /// The next access unit in order, waiting at most `patience`; its `captured` is that of its picture.
    ///
    /// # Errors
    /// The encoder failed.
    fn collect(&mut self, patience: Duration) -> Result<Option<Encoded>, EncodeError>;

    /// Bit rate and key frames, from the next picture on.
    ///
    /// # Errors
    /// The encoder refused.
    fn apply(&mut self, target: EncoderTarget) -> Result<(), EncodeError>;

    /// Whether a key frame comes when asked for.
    fn forces_key_frames(&self) -> bool;

    /// Pictures that were handed in with success and that no access unit will come of, as far as it knows, since it was started.
    fn skipped(&self) -> u64;
}

/// One access unit as an encoder made it: Annex B, a key frame with its parameter sets.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub data: Arc<[u8]>,
    /// When its picture was captured.
    pub captured: Instant,
    pub key: bool,
}

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoder does not take these settings.
    #[error("starting the software encoder for {width}x{height}: {reason}; choose even sizes of at most 3840x2160")]
    Start { width: u32, height: u32, reason: String },
    /// The picture is not of the size that the encoder was started with.
    #[error("encoding a picture of {bytes} bytes, but {width}x{height} has {expected}")]
    Frame {
        width: u32,
        height: u32,
        bytes: usize,
        expected: usize,
    },
    /// The encoder failed.
    #[error("encoding a picture in software: {0}")]
    Encode(String),
    /// A hardware encoder failed.
    #[error(transparent)]
    Hardware(#[from] m2m::M2mError),
}
