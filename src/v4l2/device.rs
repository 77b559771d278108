//! One device node, and what it is.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::ioctl;

/// Which of a device's queues, by which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Buffers that the driver fills.
    Capture,
    CaptureMulti,
    /// Buffers that we fill.
    Output,
    OutputMulti,
}

impl QueueKind {
    pub(super) fn raw(self) -> u32 {
        match self {
            Self::Capture => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Self::CaptureMulti => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
            Self::Output => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
            Self::OutputMulti => sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
        }
    }

    /// Whether its buffers have a list of memory planes.
    #[must_use]
    pub fn is_multi_planar(self) -> bool {
        matches!(self, Self::CaptureMulti | Self::OutputMulti)
    }

    /// Whether its buffers are filled by us.
    #[must_use]
    pub fn is_output(self) -> bool {
        matches!(self, Self::Output | Self::OutputMulti)
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub driver: String,
    /// What people call it.
    pub card: String,
    pub bus: String,
    /// `V4L2_CAP_*` of this node.
    flags: u32,
}

impl Capability {
    /// The queue that a camera delivers its pictures through; `None` if it is none.
    #[must_use]
    pub fn camera(&self) -> Option<QueueKind> {
        if !self.has(sys::V4L2_CAP_STREAMING) {
            None
        } else if self.has(sys::V4L2_CAP_VIDEO_CAPTURE) {
            Some(QueueKind::Capture)
        } else if self.has(sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE) {
            Some(QueueKind::CaptureMulti)
        } else {
            None
        }
    }

    /// The queues of a memory-to-memory device (an encoder, a decoder, a scaler): what goes in, what comes out.
    #[must_use]
    pub fn memory_to_memory(&self) -> Option<(QueueKind, QueueKind)> {
        if !self.has(sys::V4L2_CAP_STREAMING) {
            None
        } else if self.has(sys::V4L2_CAP_VIDEO_M2M_MPLANE) {
            Some((QueueKind::OutputMulti, QueueKind::CaptureMulti))
        } else if self.has(sys::V4L2_CAP_VIDEO_M2M) {
            Some((QueueKind::Output, QueueKind::Capture))
        } else {
            None
        }
    }

    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// `/dev/video*`, by number.
#[must_use]
pub fn nodes() -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("video")?.parse::<u32>().ok();
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<_> = entries
        .filter_map(|entry| number(&entry.path()).map(|number| (number, entry.path())))
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

/// An open device node.
pub struct Device {
    path: PathBuf,
    pub(super) inner: v4l::Device,
}

impl Device {
    /// Opens a node, non-blocking; the device does nothing yet.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        // The crate makes a C string of the path and panics on a zero byte.
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inner = v4l::Device::with_path(path)?;
        Ok(Self {
            path: path.to_owned(),
            inner,
        })
    }

    /// The node's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> RawFd {
        self.inner.handle().fd()
    }

    /// What the device says of itself.
    ///
    /// # Errors
    /// It is no video device, or gone.
    pub fn capability(&self) -> io::Result<Capability> {
        // SAFETY: plain integers and byte arrays, for which zeros are valid.
        let mut raw: sys::v4l2_capability = unsafe { std::mem::zeroed() };
        // SAFETY: VIDIOC_QUERYCAP fills in a v4l2_capability.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYCAP, &mut raw)? };
        let own = raw.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0;
        Ok(Capability {
            driver: text(&raw.driver),
            card: text(&raw.card),
            bus: text(&raw.bus_info),
            flags: if own { raw.device_caps } else { raw.capabilities },
        })
    }
}

/// A name that the kernel cut to fit, perhaps in the middle of a character.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Event, control};
    use super::*;

    fn capability(flags: u32) -> Capability {
        Capability {
            driver: String::new(),
            card: String::new(),
            bus: String::new(),
            flags,
        }
    }

    #[test]
    fn cameras_and_codecs_are_told_apart_by_what_they_can() {
        const STREAMING: u32 = sys::V4L2_CAP_STREAMING;
        let camera = |flags| capability(flags).camera();
        assert_eq!(camera(STREAMING | sys::V4L2_CAP_VIDEO_CAPTURE), Some(QueueKind::Capture));
        assert_eq!(
            camera(STREAMING | sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE),
            Some(QueueKind::CaptureMulti)
        );
        assert_eq!(camera(sys::V4L2_CAP_VIDEO_CAPTURE | sys::V4L2_CAP_READWRITE), None);
        assert_eq!(camera(STREAMING | sys::V4L2_CAP_VIDEO_M2M), None);
        let codec = |flags| capability(flags).memory_to_memory();
        assert_eq!(
            codec(STREAMING | sys::V4L2_CAP_VIDEO_M2M_MPLANE),
            Some((QueueKind::OutputMulti, QueueKind::CaptureMulti))
        );
        assert_eq!(
            codec(STREAMING | sys::V4L2_CAP_VIDEO_M2M),
            Some((QueueKind::Output, QueueKind::Capture))
        );
        assert_eq!(codec(STREAMING | sys::V4L2_CAP_VIDEO_CAPTURE), None);
    }

    #[test]
    fn names_cut_in_the_middle_of_a_character_are_read() {
        assert_eq!(text(b"Kamera \xc3\0\0"), "Kamera \u{fffd}");
        assert_eq!(text(b"full"), "full");
    }

    #[test]
    fn what_is_no_video_device_is_an_error_and_no_panic() {
        let null = Device::open(Path::new("/dev/null")).expect("everybody may open it");
        assert!(null.capability().is_err() && null.format(QueueKind::Capture).is_err());
        assert_eq!(
            (
                null.formats(QueueKind::Capture),
                null.control(control::BITRATE),
                null.rate(QueueKind::Output)
            ),
            (vec![], None, None)
        );
        assert!(null.subscribe(Event::EndOfStream).is_err() && null.next_event().is_err() && null.stop_encoder().is_err());
        assert!(Device::open(Path::new("/dev/no\0such")).is_err());
    }
}
