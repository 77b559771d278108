//! Formats: what a queue carries, in which sizes, how often, and how it lies in memory.

use std::fmt;
use std::io;

use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;
use v4l::video::Capture as _;

use super::{Device, QueueKind, ioctl};

/// A pixel format's four letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// H.264 in Annex B, one access unit in a buffer.
    pub const H264: Self = Self(*b"H264");
    /// A JPEG in a buffer.
    pub const MJPEG: Self = Self(*b"MJPG");
    /// 4:2:2, packed: Y0 U Y1 V.
    pub const YUYV: Self = Self(*b"YUYV");
    /// 4:2:0: a plane of Y, then one of U and V in turns, in one buffer.
    pub const NV12: Self = Self(*b"NV12");
    /// 4:2:0: planes of Y, U and V in one buffer.
    pub const YUV420: Self = Self(*b"YU12");
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end())
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

/// What a queue carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub fourcc: FourCc,
    pub size: Size,
    /// The memory planes of a buffer: one, but for multi-planar formats that keep colour planes apart.
    pub planes: Vec<PlaneFormat>,
    pub colour: Colour,
}

impl Format {
    /// A wish: all but letters and size is the driver's choice.
    #[must_use]
    pub fn new(fourcc: FourCc, size: Size) -> Self {
        Self {
            fourcc,
            size,
            planes: Vec::new(),
            colour: Colour::default(),
        }
    }
}

/// One memory plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneFormat {
    /// Bytes from one row to the next (of the first colour plane in it); 0 for compressed data.
    pub stride: u32,
    /// Bytes of the whole plane.
    pub bytes: u32,
}

/// How numbers are meant as colours: the kernel's own values, 0 where it shall decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colour {
    pub space: u32,
    pub encoding: u32,
    pub quantization: u32,
    pub transfer: u32,
}

impl Colour {
    /// `space`: standard-definition video (ITU-R BT.601).
    pub const SMPTE170M: u32 = sys::v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M;
    /// `space`: high-definition video (ITU-R BT.709).
    pub const REC709: u32 = sys::v4l2_colorspace_V4L2_COLORSPACE_REC709;
    /// `space`: digital cinema, whose Y'CbCr is BT.709's.
    pub const DCI_P3: u32 = sys::v4l2_colorspace_V4L2_COLORSPACE_DCI_P3;
    /// `space`: sRGB in BT.601's Y'CbCr, full range.
    pub const JPEG: u32 = sys::v4l2_colorspace_V4L2_COLORSPACE_JPEG;
    /// `encoding`: BT.709's, whatever the space.
    pub const ENCODING_709: u32 = sys::v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709;
    /// `quantization`: 0 to 255.
    pub const FULL: u32 = sys::v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE;
    /// `quantization`: 16 to 235.
    pub const LIMITED: u32 = sys::v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE;
}

impl Device {
    /// The pixel formats that a queue can carry.
    #[must_use]
    pub fn formats(&self, kind: QueueKind) -> Vec<FourCc> {
        let mut formats = Vec::new();
        // More than a hundred formats would be a driver that never says "no more".
        for index in 0..128 {
            // SAFETY: plain integers and byte arrays, for which zeros are valid.
            let mut raw: sys::v4l2_fmtdesc = unsafe { std::mem::zeroed() };
            raw.index = index;
            raw.type_ = kind.raw();
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
            let fractions = match interval.interval {
                FrameIntervalEnum::Discrete(interval) => vec![interval],
                FrameIntervalEnum::Stepwise(range) => vec![range.max, range.min],
            };
            rates.extend(
                fractions
                    .into_iter()
                    .filter_map(|fraction| per_second(fraction.numerator, fraction.denominator)),
            );
        }
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        Rates(rates)
    }

    /// The format that is set.
    ///
    /// # Errors
    /// The system's; EINVAL from a loopback device that nobody writes to.
    pub fn format(&self, kind: QueueKind) -> io::Result<Format> {
        let mut raw = empty(kind);
        // SAFETY: VIDIOC_G_FMT reads the type of a v4l2_format and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_G_FMT, &mut raw)? };
        Ok(read(kind, &raw))
    }

    /// Asks for a format; gives back what the driver made of it, which may be another size, layout or even format.
    ///
    /// # Errors
    /// The system's; EBUSY while somebody streams.
    pub fn set_format(&self, kind: QueueKind, wanted: &Format) -> io::Result<Format> {
        let mut raw = write(kind, wanted);
        // SAFETY: VIDIOC_S_FMT reads and fills in a v4l2_format, of whose union the type names the member.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_S_FMT, &mut raw)? };
        Ok(read(kind, &raw))
    }

    /// Tells an encoder that only so much of its input, from the upper left corner, is picture: the rest is padding.
    ///
    /// # Errors
    /// The driver cannot crop.
    pub fn crop_to(&self, kind: QueueKind, size: Size) -> io::Result<()> {
        // SAFETY: plain integers, for which zeros are valid.
        let mut raw: sys::v4l2_selection = unsafe { std::mem::zeroed() };
        // Here the kernel wants the single-planar name for both interfaces.
        raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
        if kind.is_output() {
            raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT;
        }
        raw.target = sys::V4L2_SEL_TGT_CROP;
        raw.r.width = size.width;
        raw.r.height = size.height;
        // SAFETY: VIDIOC_S_SELECTION reads and fills in a v4l2_selection.
        unsafe { ioctl(self.fd(), super::event::SET_SELECTION, &mut raw) }
    }

    /// Pictures a second that are set; `None` if the driver does not tell.
    #[must_use]
    pub fn rate(&self, kind: QueueKind) -> Option<f64> {
        // SAFETY: integers, and a union of integers; zeros are valid.
        let mut raw: sys::v4l2_streamparm = unsafe { std::mem::zeroed() };
        raw.type_ = kind.raw();
        // SAFETY: VIDIOC_G_PARM reads the type of a v4l2_streamparm and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_G_PARM, &mut raw) }.ok()?;
        interval(&raw)
    }

    /// Asks for pictures a second; gives back what the driver chose.
    ///
    /// # Errors
    /// The driver has no choice of rates, or the system's.
    pub fn set_rate(&self, kind: QueueKind, fps: u32) -> io::Result<Option<f64>> {
        // SAFETY: integers, and a union of integers; zeros are valid.
        let mut raw: sys::v4l2_streamparm = unsafe { std::mem::zeroed() };
        raw.type_ = kind.raw();
        // `output` lies on `capture` and has its interval at the same place: one reader and one writer do for both.
        raw.parm.capture.timeperframe = sys::v4l2_fract {
            numerator: 1,
            denominator: fps,
        };
        // SAFETY: VIDIOC_S_PARM reads and fills in a v4l2_streamparm.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_S_PARM, &mut raw)? };
        Ok(interval(&raw))
    }
}

const _: () = {
    assert!(std::mem::offset_of!(sys::v4l2_captureparm, timeperframe) == std::mem::offset_of!(sys::v4l2_outputparm, timeperframe));
};

fn interval(raw: &sys::v4l2_streamparm) -> Option<f64> {
    // SAFETY: all members are integers, and `capture` and `output` have their interval at the same place.
    let interval = unsafe { raw.parm.capture.timeperframe };
    per_second(interval.numerator, interval.denominator)
}

fn per_second(numerator: u32, denominator: u32) -> Option<f64> {
    (numerator > 0 && denominator > 0).then(|| f64::from(denominator) / f64::from(numerator))
}

fn empty(kind: QueueKind) -> sys::v4l2_format {
    // SAFETY: integers and byte arrays; its union's pointers are never used for picture formats, and zeros are valid for all.
    let mut raw: sys::v4l2_format = unsafe { std::mem::zeroed() };
    raw.type_ = kind.raw();
    raw
}

fn write(kind: QueueKind, wanted: &Format) -> sys::v4l2_format {
    let mut raw = empty(kind);
    let colour = wanted.colour;
    if kind.is_multi_planar() {
        // SAFETY: plain integers, for which zeros are valid.
        let mut pix: sys::v4l2_pix_format_mplane = unsafe { std::mem::zeroed() };
        pix.width = wanted.size.width;
        pix.height = wanted.size.height;
        pix.pixelformat = u32::from_le_bytes(wanted.fourcc.0);
        pix.field = sys::v4l2_field_V4L2_FIELD_ANY;
        // The driver knows how many memory planes a format has; a wish that names none has one at least.
        pix.num_planes = u8::try_from(wanted.planes.len().max(1)).unwrap_or(u8::MAX);
        let mut planes = pix.plane_fmt;
        for (plane, wish) in planes.iter_mut().zip(&wanted.planes) {
            plane.bytesperline = wish.stride;
            plane.sizeimage = wish.bytes;
        }
        pix.plane_fmt = planes;
        pix.colorspace = colour.space;
        pix.__bindgen_anon_1.ycbcr_enc = small(colour.encoding);
        pix.quantization = small(colour.quantization);
        pix.xfer_func = small(colour.transfer);
        raw.fmt.pix_mp = pix;
    } else {
        // SAFETY: plain integers, for which zeros are valid.
        let mut pix: sys::v4l2_pix_format = unsafe { std::mem::zeroed() };
        pix.width = wanted.size.width;
        pix.height = wanted.size.height;
        pix.pixelformat = u32::from_le_bytes(wanted.fourcc.0);
        pix.field = sys::v4l2_field_V4L2_FIELD_ANY;
        if let Some(plane) = wanted.planes.first() {
            pix.bytesperline = plane.stride;
            pix.sizeimage = plane.bytes;
        }
        pix.priv_ = sys::V4L2_PIX_FMT_PRIV_MAGIC;
        pix.colorspace = colour.space;
        pix.__bindgen_anon_1.ycbcr_enc = colour.encoding;
        pix.quantization = colour.quantization;
        pix.xfer_func = colour.transfer;
        raw.fmt.pix = pix;
    }
    raw
}

fn small(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(0)
}

fn read(kind: QueueKind, raw: &sys::v4l2_format) -> Format {
    if kind.is_multi_planar() {
        // SAFETY: the type is multi-planar, for which `pix_mp` is the union's member; it holds integers only.
        let pix = unsafe { raw.fmt.pix_mp };
        let planes = pix.plane_fmt;
        // SAFETY: both members of the union are a byte.
        let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
        return Format {
            fourcc: FourCc(pix.pixelformat.to_le_bytes()),
            size: Size {
                width: pix.width,
                height: pix.height,
            },
            planes: planes
                .iter()
                .take(usize::from(pix.num_planes))
                .map(|plane| PlaneFormat {
                    stride: plane.bytesperline,
                    bytes: plane.sizeimage,
                })
                .collect(),
            colour: Colour {
                space: pix.colorspace,
                encoding: encoding.into(),
                quantization: pix.quantization.into(),
                transfer: pix.xfer_func.into(),
            },
        };
    }
    // SAFETY: the type is single-planar, for which `pix` is the union's member; it holds integers only.
    let pix = unsafe { raw.fmt.pix };
    Format {
        fourcc: FourCc(pix.pixelformat.to_le_bytes()),
        size: Size {
            width: pix.width,
            height: pix.height,
        },
        planes: vec![PlaneFormat {
            stride: pix.bytesperline,
            bytes: pix.sizeimage,
        }],
        colour: Colour {
            space: pix.colorspace,
            // SAFETY: both members of the union are the same integer.
            encoding: unsafe { pix.__bindgen_anon_1.ycbcr_enc },
            quantization: pix.quantization,
            transfer: pix.xfer_func,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_as_it_was_written_by_either_interface() {
        let mut format = Format::new(FourCc::NV12, Size { width: 640, height: 360 });
        format.planes = vec![PlaneFormat {
            stride: 640,
            bytes: 345_600,
        }];
        format.colour = Colour {
            space: 3,
            encoding: 2,
            quantization: 1,
            transfer: 1,
        };
        for kind in [
            QueueKind::Capture,
            QueueKind::CaptureMulti,
            QueueKind::Output,
            QueueKind::OutputMulti,
        ] {
            let raw = write(kind, &format);
            assert_eq!((raw.type_, read(kind, &raw)), (kind.raw(), format.clone()));
        }
        format.planes.push(PlaneFormat {
            stride: 640,
            bytes: 115_200,
        });
        let raw = write(QueueKind::OutputMulti, &format);
        assert_eq!(read(QueueKind::OutputMulti, &raw), format);
    }

    #[test]
    fn a_driver_that_claims_more_planes_than_there_are_is_not_believed() {
        let mut raw = write(QueueKind::CaptureMulti, &Format::new(FourCc::NV12, Size { width: 2, height: 2 }));
        raw.fmt.pix_mp.num_planes = 200;
        assert_eq!(read(QueueKind::CaptureMulti, &raw).planes.len(), 8);
    }
}
