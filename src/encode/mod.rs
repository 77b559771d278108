//! Raw frames → access units.

#[cfg(feature = "software-encoder")]
mod software;

#[cfg(feature = "software-encoder")]
pub use software::{Settings, SoftwareEncoder};

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
}
