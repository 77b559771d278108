//! What a sequence parameter set says about its stream.

use h264_reader::nal::sps::{ChromaFormat, SeqParameterSet};
use h264_reader::nal::{Nal as _, RefNal};

use super::StreamFormat;

/// What a sequence parameter set says (ITU-T H.264, 7.3.2.1 and annex E).
#[derive(Clone, Debug, PartialEq)]
pub struct Sps {
    /// Size and profile.
    pub format: StreamFormat,
    /// Pictures a second, where the stream carries timing information that makes sense.
    pub fps: Option<f64>,
    /// Whether pictures may leave the decoder in another order than they entered it, as B frames do.
    /// "May" only: many encoders say nothing about it and make no B frames.
    pub may_reorder: bool,
    /// Whether the samples are 8 bit 4:2:0, the only kind that browsers show.
    pub browser_samples: bool,
}

/// An SPS that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the stream's SPS cannot be read ({0})")]
pub struct SpsError(String);

impl Sps {
    /// Reads one SPS, header byte first, without start code.
    ///
    /// # Errors
    /// It is cut short, or says something impossible.
    pub fn read(nal: &[u8]) -> Result<Self, SpsError> {
        let fail = |error| SpsError(format!("{error:?}"));
        if nal.is_empty() {
            return Err(SpsError("it is empty".into()));
        }
        let sps = SeqParameterSet::from_bits(RefNal::new(nal, &[], true).rbsp_bits()).map_err(fail)?;
        let (width, height) = sps.pixel_dimensions().map_err(fail)?;
        if width == 0 || height == 0 {
            return Err(SpsError(format!("a picture of {width}x{height}")));
        }
        let intra_only = matches!(u8::from(sps.profile_idc), 44 | 110 | 122 | 244) && sps.constraint_flags.flag3();
        let restrictions = sps.vui_parameters.as_ref().and_then(|vui| vui.bitstream_restrictions.as_ref());
        let may_reorder = match restrictions {
            Some(limits) => limits.max_num_reorder_frames > 0,
            // Baseline has no B slices (A.2.1).
            None => u8::from(sps.profile_idc) != 66 && !intra_only,
        };
        let chroma = &sps.chroma_info;
        Ok(Self {
            format: StreamFormat {
                width,
                height,
                profile_level_id: [u8::from(sps.profile_idc), u8::from(sps.constraint_flags), sps.level_idc],
            },
            fps: sps.fps().filter(|fps| (1.0..=240.0).contains(fps)),
            may_reorder,
            browser_samples: chroma.chroma_format == ChromaFormat::YUV420
                && chroma.bit_depth_luma_minus8 == 0
                && chroma.bit_depth_chroma_minus8 == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264's SPS for 1920x1080 at 25 fps, Main, with B frames allowed: cropped from 1088 lines.
    const MAIN_1080: &[u8] = &[
        0x67, 0x4d, 0x40, 0x28, 0xec, 0xa0, 0x3c, 0x01, 0x13, 0xf2, 0xe0, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x64,
        0x1e, 0x30, 0x63, 0x2c,
    ];

    #[test]
    fn size_after_cropping_profile_and_rate_are_read() {
        let sps = Sps::read(MAIN_1080).expect("a good SPS");
        assert_eq!((sps.format.width, sps.format.height), (1920, 1080));
        assert_eq!(sps.format.profile_level_hex(), "4d4028");
        assert!(sps.browser_samples);
    }

    #[test]
    fn a_broken_sps_is_an_error_in_words() {
        for cut in 0..MAIN_1080.len() - 8 {
            let error = Sps::read(&MAIN_1080[..cut]).err();
            assert!(cut > 12 || error.is_some(), "{cut} bytes of an SPS were taken for a whole one");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let mut nal = vec![0x67];
            nal.extend(bytes);
            let _ = Sps::read(&nal);
        }
    }
}
