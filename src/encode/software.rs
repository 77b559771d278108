//! H.264 in software, by openh264: for the test card, and for boards without a hardware encoder.

use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, RateControlMode, UsageType, VuiConfig,
};
use openh264::formats::YUVSlices;

use super::{Colour, EncodeError};
use crate::media::{Bitrate, RawFrame};

/// What a software encoder is started with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Pixels; even.
    pub width: u32,
    /// Pixels; even.
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
    pub bitrate: Bitrate,
    /// Pictures from one key frame to the next.
    pub gop: u32,
    pub colour: Colour,
}

/// A real-time encoder: Constrained Baseline, one slice a picture, no reordering, parameter sets on every key frame.
///
/// It skips no picture to keep the rate: it coarsens them instead, so at rates that are too small for the picture it goes over.
/// openh264 changes its bit rate on the run only through its raw interface, which is `unsafe`; so a new rate starts a new
/// encoder, and the next picture is a key frame. `rate` changes it at most once a second.
pub struct SoftwareEncoder {
    settings: Settings,
    encoder: Encoder,
    force_key: bool,
    skipped: u64,
}

impl SoftwareEncoder {
    /// Starts an encoder.
    ///
    /// # Errors
    /// openh264 does not take the settings.
    pub fn new(settings: Settings) -> Result<Self, EncodeError> {
        Ok(Self {
            settings,
            encoder: start(&settings)?,
            force_key: false,
            skipped: 0,
        })
    }

    /// Encodes one picture to one access unit in Annex B; `None` if the encoder skipped it, which is counted.
    ///
    /// # Errors
    /// The frame is not of the size that the encoder was started with, or openh264 failed; at the first picture and after a new
    /// bit rate also because it does not take the settings, which it looks at only then.
    pub fn encode(&mut self, frame: &RawFrame) -> Result<Option<Vec<u8>>, EncodeError> {
        let Settings { width, height, .. } = self.settings;
        let (w, h) = (width as usize, height as usize);
        let expected = w * h * 3 / 2;
        if (frame.width, frame.height) != (width, height) || frame.i420.len() != expected {
            return Err(EncodeError::Frame {
                width,
                height,
                bytes: frame.i420.len(),
                expected,
            });
        }
        let (y, chroma) = frame.i420.split_at(w * h);
        let (u, v) = chroma.split_at(w * h / 4);
        let picture = YUVSlices::new((y, u, v), (w, h), (w, w / 2, w / 2));
        if std::mem::take(&mut self.force_key) {
            self.encoder.force_intra_frame();
        }
        let stamp = openh264::Timestamp::from_millis(frame.time.ticks() / 90);
        let stream = self
            .encoder
            .encode_at(&picture, stamp)
            .map_err(|error| EncodeError::Encode(error.to_string()))?;
        let unit = stream.to_vec();
        if unit.is_empty() || stream.frame_type() == FrameType::Skip {
            self.skipped += 1;
            return Ok(None);
        }
        Ok(Some(unit))
    }

    /// Makes the next picture a key frame.
    pub fn force_key_frame(&mut self) {
        self.force_key = true;
    }

    /// Changes the bit rate, with a key frame.
    ///
    /// # Errors
    /// openh264 does not take the rate; the old one stays.
    pub fn set_bitrate(&mut self, bitrate: Bitrate) -> Result<(), EncodeError> {
        if bitrate != self.settings.bitrate {
            let settings = Settings { bitrate, ..self.settings };
            self.encoder = start(&settings)?;
            self.settings = settings;
        }
        Ok(())
    }

    /// How many pictures the encoder skipped since it was started.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn start(settings: &Settings) -> Result<Encoder, EncodeError> {
    let fail = |reason: String| EncodeError::Start {
        width: settings.width,
        height: settings.height,
        reason,
    };
    let bits = u32::try_from(settings.bitrate.as_bps()).map_err(|_| fail(format!("a bit rate of {}", settings.bitrate)))?;
    if !settings.width.is_multiple_of(2) || !settings.height.is_multiple_of(2) || settings.width < 16 || settings.height < 16 {
        return Err(fail("a size that H.264 4:2:0 does not have".into()));
    }
    // It would say so at the first picture only.
    if settings.width.max(settings.height) > 3_840 || settings.width.min(settings.height) > 2_160 {
        return Err(fail("larger than openh264 encodes".into()));
    }
    let config = EncoderConfig::new()
        .usage_type(UsageType::CameraVideoRealTime)
        // Without leave to skip pictures openh264 prints one line of warning on stderr at each start; no other mode keeps to a
        // rate without it, and the line can only be turned off after the start.
        .rate_control_mode(RateControlMode::Bitrate)
        .skip_frames(false)
        .bitrate(BitRate::from_bps(bits))
        .max_frame_rate(FrameRate::from_hz(settings.fps as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames(settings.gop))
        .complexity(Complexity::Low)
        // Key frames come by the interval and on request, at no other time.
        .scene_change_detect(false)
        .num_threads(1)
        .vui(match settings.colour {
            Colour::Bt709 => VuiConfig::bt709(),
            Colour::Bt709Full => VuiConfig::bt709().full_range(true),
            Colour::Bt601 => VuiConfig::bt601(),
            Colour::Bt601Full => VuiConfig::bt601().full_range(true),
        });
    Encoder::with_api_config(OpenH264API::from_source(), config).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::media::MediaTime;
    use crate::media::annexb::{NalKind, nal_units};
    use crate::media::sps::Sps;

    const SETTINGS: Settings = Settings {
        width: 320,
        height: 180,
        fps: 30,
        bitrate: Bitrate::kbps(500),
        gop: 60,
        colour: Colour::Bt709,
    };

    /// A picture that no earlier one foretells: soft noise, another in each.
    fn frame(n: u32) -> RawFrame {
        let (width, height) = (SETTINGS.width, SETTINGS.height);
        let mut i420 = vec![128; (width * height * 3 / 2) as usize];
        let mut noise = n.wrapping_mul(0x9e37_79b9) | 1;
        for sample in &mut i420[..(width * height) as usize] {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            *sample = 110 + (noise % 32) as u8;
        }
        RawFrame {
            i420,
            width,
            height,
            time: MediaTime::from_ticks(u64::from(n) * 3000),
            captured: Instant::now() + Duration::from_millis(u64::from(n) * 33),
        }
    }

    fn kinds(unit: &[u8]) -> Vec<NalKind> {
        nal_units(unit).map(|nal| nal.kind()).collect()
    }

    fn run(encoder: &mut SoftwareEncoder, frames: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        frames
            .map(|n| {
                encoder
                    .encode(&frame(n))
                    .expect("the encoder works")
                    .expect("no picture is skipped")
            })
            .collect()
    }

    #[test]
    fn key_frames_come_by_the_interval_and_on_request_each_with_its_parameter_sets() {
        let mut encoder = SoftwareEncoder::new(SETTINGS).expect("a good encoder");
        let mut units = run(&mut encoder, 0..70);
        encoder.force_key_frame();
        units.extend(run(&mut encoder, 70..75));
        let key = [NalKind::Sps, NalKind::Pps, NalKind::IdrSlice];
        for (n, unit) in units.iter().enumerate() {
            let expected: &[NalKind] = if [0, 60, 70].contains(&n) { &key } else { &[NalKind::Slice] };
            assert_eq!(kinds(unit), expected, "picture {n}");
        }
        let sps = nal_units(&units[0])
            .next()
            .map(|nal| Sps::read(nal.bytes()).expect("a good SPS"))
            .expect("an SPS");
        assert_eq!((sps.format.width, sps.format.height), (320, 180));
        assert_eq!(sps.format.profile_level_id[..1], [66]);
        assert!(!sps.may_reorder);
    }

    #[test]
    fn a_new_bit_rate_changes_what_is_sent() {
        let mut encoder = SoftwareEncoder::new(SETTINGS).expect("a good encoder");
        let bytes = |units: Vec<Vec<u8>>| units[10..].iter().map(Vec::len).sum::<usize>();
        let before = bytes(run(&mut encoder, 0..60));
        encoder.set_bitrate(Bitrate::kbps(2_000)).expect("a good rate");
        let units = run(&mut encoder, 60..120);
        assert_eq!(
            kinds(&units[0])[0],
            NalKind::Sps,
            "the first picture at the new rate is a key frame"
        );
        let after = bytes(units);
        // 50 pictures at 30 a second.
        let expected = 500_000 / 8 * 50 / 30;
        assert!(
            before.abs_diff(expected) < expected / 4,
            "{before} bytes at 500 kbit/s, {expected} expected"
        );
        assert!(after > before * 2, "{before} bytes at 500 kbit/s, {after} at 2,000");
        assert_eq!(encoder.skipped(), 0);
    }

    #[test]
    fn a_frame_of_another_size_is_refused() {
        let mut encoder = SoftwareEncoder::new(SETTINGS).expect("a good encoder");
        let mut wrong = frame(0);
        wrong.i420.pop();
        assert!(matches!(encoder.encode(&wrong), Err(EncodeError::Frame { .. })));
        assert!(SoftwareEncoder::new(Settings { width: 321, ..SETTINGS }).is_err());
    }
}
