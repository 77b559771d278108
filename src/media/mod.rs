//! The vocabulary of pictures: what travels from a camera to a viewer, and how H.264 is read.

pub mod annexb;
pub mod conform;
mod quality;
pub mod rtp;
pub mod scale;
pub mod settings;
pub mod sps;
mod target;
mod time;

use std::sync::Arc;
use std::time::Instant;

pub use quality::Quality;
pub use target::{EncoderTarget, KeyFrameCounts, KeyFrameGate, TargetCell};
pub use time::{Bitrate, MediaTime};

/// One whole H.264 access unit in Annex B format (ITU-T H.264, annex B): every NAL unit of one picture.
///
/// A key frame (IDR) carries its SPS and PPS in front, whatever the camera did.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// Annex B bytes, beginning with a start code.
    pub data: Arc<[u8]>,
    /// Capture time on the stream's RTP clock (90 kHz).
    pub time: MediaTime,
    /// Capture time on this machine's monotonic clock: the camera's own stamp where it has one.
    pub captured: Instant,
    /// Whether decoding can start here: the unit holds an IDR picture with its parameter sets.
    pub key: bool,
}

/// One uncompressed picture, planar YUV 4:2:0 (I420): a full Y plane, then U and V at half width and half height.
#[derive(Clone, Debug)]
pub struct RawFrame {
    /// The three planes one after the other, without padding: `width * height * 3 / 2` bytes.
    pub i420: Vec<u8>,
    /// Pixels; even.
    pub width: u32,
    /// Pixels; even.
    pub height: u32,
    /// Capture time on the stream's RTP clock (90 kHz).
    pub time: MediaTime,
    /// Capture time on this machine's monotonic clock.
    pub captured: Instant,
}

/// What a stream is, as its own parameter sets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFormat {
    /// Pixels, after cropping.
    pub width: u32,
    /// Pixels, after cropping.
    pub height: u32,
    /// `profile_idc`, constraint flags, `level_idc`: the three bytes of SDP's `profile-level-id` (RFC 6184, 8.1).
    pub profile_level_id: [u8; 3],
}

impl StreamFormat {
    /// The six hexadecimal digits that SDP writes, such as `42e01f`.
    #[must_use]
    pub fn profile_level_hex(&self) -> String {
        self.profile_level_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
