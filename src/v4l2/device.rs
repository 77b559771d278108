//! One device node: what it is, what it offers, and its controls.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;
use v4l::video::Capture as _;

use super::ioctl;

/// Controls of encoders (the kernel's "Codec Control Reference").
pub mod control {
    use v4l::v4l_sys as sys;

    /// Bits a second.
    pub const BITRATE: u32 = sys::V4L2_CID_MPEG_VIDEO_BITRATE;
    /// A button: the next picture is a key frame.
    pub const FORCE_KEY_FRAME: u32 = sys::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME;
    /// Parameter sets in front of every key frame.
    pub const REPEAT_HEADERS: u32 = sys::V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER;
    /// B frames between two P frames.
    pub const B_FRAMES: u32 = sys::V4L2_CID_MPEG_VIDEO_B_FRAMES;
    /// Pictures from one key frame to the next.
    pub const GOP_SIZE: u32 = sys::V4L2_CID_MPEG_VIDEO_GOP_SIZE;
    /// Pictures from one I picture to the next.
    pub const I_PERIOD: u32 = sys::V4L2_CID_MPEG_VIDEO_H264_I_PERIOD;
    /// A menu: 0 Baseline, 1 Constrained Baseline, 2 Main, 3 Extended, 4 High; above, profiles that browsers do not show.
    pub const PROFILE: u32 = sys::V4L2_CID_MPEG_VIDEO_H264_PROFILE;
}

/// A pixel format's four letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// H.264 in Annex B, one access unit in a buffer.
    pub const H264: Self = Self(*b"H264");
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end())
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
    /// Whether it delivers pictures by the single-planar API, which is what [`super::CaptureQueue`] speaks.
    #[must_use]
    pub fn captures(&self) -> bool {
        self.flags & sys::V4L2_CAP_VIDEO_CAPTURE != 0 && self.flags & sys::V4L2_CAP_STREAMING != 0
    }

    /// Whether it delivers pictures by the multi-planar API only.
    #[must_use]
    pub fn captures_multi_planar(&self) -> bool {
        self.flags & sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0
    }
}

/// Pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Pictures a second, from the slowest to the fastest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates(pub Vec<f64>);

/// A control that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    pub id: u32,
    pub minimum: i64,
    pub maximum: i64,
    pub step: i64,
}

impl Control {
    /// The nearest value that the control can have.
    #[must_use]
    pub fn nearest(&self, wanted: i64) -> i64 {
        let step = self.step.max(1);
        let steps = (wanted.max(self.minimum) - self.minimum + step / 2) / step;
        (self.minimum + steps * step).clamp(self.minimum, self.maximum.max(self.minimum))
    }
}

/// An open device node.
pub struct Device {
    path: PathBuf,
    inner: v4l::Device,
}

impl Device {
    /// Opens a node; the device does nothing yet.
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

    /// The pixel formats it delivers.
    #[must_use]
    pub fn formats(&self) -> Vec<FourCc> {
        let mut formats = Vec::new();
        // More than a hundred formats would be a driver that never says "no more".
        for index in 0..128 {
            // SAFETY: plain integers and byte arrays, for which zeros are valid.
            let mut raw: sys::v4l2_fmtdesc = unsafe { std::mem::zeroed() };
            raw.index = index;
            raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
            // SAFETY: VIDIOC_ENUM_FMT reads and fills in a v4l2_fmtdesc.
            if unsafe { ioctl(self.fd(), vidioc::VIDIOC_ENUM_FMT, &mut raw) }.is_err() {
                break;
            }
            formats.push(FourCc(raw.pixelformat.to_le_bytes()));
        }
        formats
    }

    /// The sizes it offers in a format; of a range, the smallest and the largest.
    #[must_use]
    pub fn sizes(&self, format: FourCc) -> Vec<Size> {
        let mut sizes = Vec::new();
        for size in self.inner.enum_framesizes(v4l::FourCC::new(&format.0)).unwrap_or_default() {
            match size.size {
                FrameSizeEnum::Discrete(size) => sizes.push(Size {
                    width: size.width,
                    height: size.height,
                }),
                FrameSizeEnum::Stepwise(range) => sizes.extend(
                    [(range.min_width, range.min_height), (range.max_width, range.max_height)]
                        .map(|(width, height)| Size { width, height }),
                ),
            }
        }
        sizes.sort();
        sizes.dedup();
        sizes
    }

    /// The rates it offers in a format and size; of a range, the slowest and the fastest.
    #[must_use]
    pub fn rates(&self, format: FourCc, size: Size) -> Rates {
        let mut rates = Vec::new();
        let offered = self.inner.enum_frameintervals(v4l::FourCC::new(&format.0), size.width, size.height);
        for interval in offered.unwrap_or_default() {
            match interval.interval {
                FrameIntervalEnum::Discrete(interval) => rates.extend(per_second(interval)),
                FrameIntervalEnum::Stepwise(range) => rates.extend([range.max, range.min].into_iter().filter_map(per_second)),
            }
        }
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        Rates(rates)
    }

    /// The format that is set: its four letters and size.
    ///
    /// # Errors
    /// The system's; EINVAL from a loopback device that nobody writes to.
    pub fn format(&self) -> io::Result<(FourCc, Size)> {
        let mut raw = empty_format();
        // SAFETY: VIDIOC_G_FMT reads the type of a v4l2_format and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_G_FMT, &mut raw)? };
        Ok(pix(&raw))
    }

    /// Asks for a format and size; gives back what the driver made of it, which may be another size or even format.
    ///
    /// # Errors
    /// The system's; EBUSY while somebody streams.
    pub fn set_format(&self, format: FourCc, size: Size) -> io::Result<(FourCc, Size)> {
        let mut raw = empty_format();
        // SAFETY: plain integers, for which zeros are valid.
        let mut wanted: sys::v4l2_pix_format = unsafe { std::mem::zeroed() };
        wanted.width = size.width;
        wanted.height = size.height;
        wanted.pixelformat = u32::from_le_bytes(format.0);
        wanted.field = sys::v4l2_field_V4L2_FIELD_ANY;
        raw.fmt.pix = wanted;
        // SAFETY: VIDIOC_S_FMT reads and fills in a v4l2_format, of whose union the type names the member `pix`.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_S_FMT, &mut raw)? };
        Ok(pix(&raw))
    }

    /// Pictures a second that are set; `None` if the driver does not tell.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        per_second(self.inner.params().ok()?.interval)
    }

    /// Asks for a rate; gives back the one that the driver chose, if it tells.
    ///
    /// # Errors
    /// The driver has no rates to choose from.
    pub fn set_rate(&self, fps: u32) -> io::Result<Option<f64>> {
        let chosen = self.inner.set_params(&v4l::video::capture::Parameters::with_fps(fps))?;
        Ok(per_second(chosen.interval))
    }

    /// A control, if the device has it and it can be set.
    #[must_use]
    pub fn control(&self, id: u32) -> Option<Control> {
        const UNUSABLE: u32 = sys::V4L2_CTRL_FLAG_DISABLED | sys::V4L2_CTRL_FLAG_READ_ONLY;
        // SAFETY: plain integers and byte arrays, for which zeros are valid.
        let mut raw: sys::v4l2_queryctrl = unsafe { std::mem::zeroed() };
        raw.id = id;
        // SAFETY: VIDIOC_QUERYCTRL reads the id of a v4l2_queryctrl and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYCTRL, &mut raw) }.ok()?;
        (raw.flags & UNUSABLE == 0).then_some(Control {
            id,
            minimum: raw.minimum.into(),
            maximum: raw.maximum.into(),
            step: raw.step.into(),
        })
    }

    /// The value of a control.
    ///
    /// # Errors
    /// The device does not have it.
    pub fn control_value(&self, id: u32) -> io::Result<i64> {
        let mut raw = sys::v4l2_control { id, value: 0 };
        // SAFETY: VIDIOC_G_CTRL reads the id of a v4l2_control and fills in its value.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_G_CTRL, &mut raw)? };
        Ok(raw.value.into())
    }

    /// Sets a control; a button is pressed by any value.
    ///
    /// # Errors
    /// The system's; EBUSY for one that cannot change while streaming.
    pub fn set_control(&self, id: u32, value: i64) -> io::Result<()> {
        self.inner.set_control(v4l::Control {
            id,
            value: v4l::control::Value::Integer(value),
        })
    }
}

fn empty_format() -> sys::v4l2_format {
    // SAFETY: integers and byte arrays; its union's pointers are never used for a capture format, and zeros are valid for all.
    let mut raw: sys::v4l2_format = unsafe { std::mem::zeroed() };
    raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
    raw
}

fn pix(raw: &sys::v4l2_format) -> (FourCc, Size) {
    // SAFETY: the type is VIDEO_CAPTURE, for which `pix` is the union's member; it holds integers only.
    let pix = unsafe { raw.fmt.pix };
    let size = Size {
        width: pix.width,
        height: pix.height,
    };
    (FourCc(pix.pixelformat.to_le_bytes()), size)
}

fn per_second(interval: v4l::Fraction) -> Option<f64> {
    (interval.numerator > 0 && interval.denominator > 0).then(|| f64::from(interval.denominator) / f64::from(interval.numerator))
}

/// A name that the kernel cut to fit, perhaps in the middle of a character.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_takes_the_nearest_value_it_can_have() {
        let bitrate = Control {
            id: control::BITRATE,
            minimum: 25_000,
            maximum: 25_000_000,
            step: 25_000,
        };
        assert_eq!(bitrate.nearest(812_000), 800_000);
        assert_eq!(bitrate.nearest(813_000), 825_000);
        assert_eq!(bitrate.nearest(1), 25_000);
        assert_eq!(bitrate.nearest(i64::from(u32::MAX)), 25_000_000);
        assert_eq!(Control { step: 0, ..bitrate }.nearest(812_345), 812_345);
    }

    #[test]
    fn names_cut_in_the_middle_of_a_character_are_read() {
        assert_eq!(text(b"Kamera \xc3\0\0"), "Kamera \u{fffd}");
        assert_eq!(text(b"full"), "full");
    }

    #[test]
    fn what_is_no_video_device_is_an_error_and_no_panic() {
        let null = Device::open(Path::new("/dev/null")).expect("everybody may open it");
        assert!(null.capability().is_err() && null.format().is_err());
        assert_eq!((null.formats(), null.control(control::BITRATE)), (vec![], None));
        assert!(Device::open(Path::new("/dev/no\0such")).is_err());
    }
}
