//! What the numbers in a raw picture mean as colours.

use crate::v4l2;

/// What the numbers in a raw picture mean: the stream says it, so that viewers see the colours that the camera saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ITU-R BT.709, limited range: high-definition video.
    Bt709,
    /// BT.709 in full range.
    Bt709Full,
    /// ITU-R BT.601, limited range: what USB cameras send where they say nothing else (UVC 1.5, 3.9.2.6), and decoded JPEG.
    Bt601,
    /// BT.601 in full range: what rpicam-vid asks libcamera for (`ColorSpace::Sycc`).
    Bt601Full,
}

impl Colour {
    /// What a driver tells of its raw pictures. Where it leaves something open, that is what the kernel's documentation ("Colorspaces",
    /// `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT`) takes it for; a matrix that is neither is taken for BT.601's.
    #[must_use]
    pub fn told_by(driver: v4l2::Colour) -> Self {
        let full = match driver.quantization {
            v4l2::Colour::FULL => true,
            v4l2::Colour::LIMITED => false,
            _ => driver.space == v4l2::Colour::JPEG,
        };
        let high = match driver.encoding {
            0 => [v4l2::Colour::REC709, v4l2::Colour::DCI_P3].contains(&driver.space),
            encoding => encoding == v4l2::Colour::ENCODING_709,
        };
        match (high, full) {
            (true, false) => Self::Bt709,
            (true, true) => Self::Bt709Full,
            (false, false) => Self::Bt601,
            (false, true) => Self::Bt601Full,
        }
    }
}

/// For an encoder that writes into its stream what its pictures are said to be.
impl From<Colour> for v4l2::Colour {
    fn from(colour: Colour) -> Self {
        let (space, quantization) = match colour {
            Colour::Bt709 => (Self::REC709, Self::LIMITED),
            Colour::Bt709Full => (Self::REC709, Self::FULL),
            Colour::Bt601 => (Self::SMPTE170M, Self::LIMITED),
            Colour::Bt601Full => (Self::JPEG, Self::FULL),
        };
        Self {
            space,
            quantization,
            // What belongs to the space.
            encoding: 0,
            transfer: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_tells_is_what_an_encoder_is_told() {
        for colour in [Colour::Bt709, Colour::Bt709Full, Colour::Bt601, Colour::Bt601Full] {
            assert_eq!(Colour::told_by(colour.into()), colour);
        }
    }

    #[test]
    fn what_a_driver_leaves_open_is_what_the_kernel_takes_it_for() {
        // V4L2_COLORSPACE_SRGB, as uvcvideo and vivid tell; V4L2_YCBCR_ENC_601.
        const SRGB: u32 = 8;
        const ENCODING_601: u32 = 1;
        let told = |space, encoding, quantization| {
            Colour::told_by(v4l2::Colour {
                space,
                encoding,
                quantization,
                transfer: 0,
            })
        };
        assert_eq!(told(0, 0, 0), Colour::Bt601);
        assert_eq!(told(SRGB, 0, 0), Colour::Bt601);
        assert_eq!(told(SRGB, 0, v4l2::Colour::FULL), Colour::Bt601Full);
        assert_eq!(told(SRGB, v4l2::Colour::ENCODING_709, 0), Colour::Bt709);
        assert_eq!(told(v4l2::Colour::REC709, 0, 0), Colour::Bt709);
        assert_eq!(told(v4l2::Colour::REC709, ENCODING_601, 0), Colour::Bt601);
        assert_eq!(told(v4l2::Colour::JPEG, 0, 0), Colour::Bt601Full);
        assert_eq!(told(v4l2::Colour::JPEG, 0, v4l2::Colour::LIMITED), Colour::Bt601);
    }
}
