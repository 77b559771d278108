//! The test pattern: a moving card with a clock, encoded in software.
#![expect(
    clippy::disallowed_methods,
    reason = "the camera's thread reads the clock: the stamp is the wall clock at the moment of capture"
)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::card::Card;
use super::encoded::Wanted;
use super::pacer::Pacer;
use super::rung::{Feed, Tap};
use super::{CaptureError, REST, Source, Timeline};
use crate::config::EncoderChoice;
use crate::encode::{Colour, EncodeError, Settings, SoftwareEncoder};
use crate::media::annexb::{NalKind, nal_units};
use crate::media::{AccessUnit, Bitrate, EncoderTarget, TargetCell};

/// A camera that needs no camera. [`super::stamp`] says how a program reads time and number off its pictures.
pub struct Pattern {
    card: Card,
    encoder: SoftwareEncoder,
    pacer: Pacer,
    timeline: Timeline,
    number: u64,
    fps: u32,
    low: Feed,
}

impl Pattern {
    /// Starts the pattern.
    ///
    /// # Errors
    /// The encoder does not take the size or rate.
    pub fn open(
        name: &str,
        (width, height): (NonZeroU32, NonZeroU32),
        fps: NonZeroU32,
        gop: Duration,
        bitrate: Bitrate,
        tap: &Arc<Tap>,
    ) -> Result<Self, CaptureError> {
        let (width, height, fps) = (width.get(), height.get(), fps.get());
        if width < 160 || height < 120 || fps > 120 {
            return Err(CaptureError::Unsupported(format!(
                "the test pattern cannot be {width}x{height} at {fps} pictures a second; choose at least 160x120 and at most 120"
            )));
        }
        let wanted = Wanted {
            encoder: EncoderChoice::Software,
            width,
            height,
            fps: f64::from(fps),
            bitrate,
            gop,
            colour: Colour::Bt709,
        };
        let gop = (gop.as_secs_f64() * f64::from(fps)).round().max(1.0) as u32;
        let settings = Settings {
            width,
            height,
            fps,
            bitrate,
            gop,
            colour: wanted.colour,
        };
        Ok(Self {
            encoder: SoftwareEncoder::new(settings).map_err(refused)?,
            card: Card::new(width, height, name, Instant::now()),
            pacer: Pacer::new(Instant::now(), f64::from(fps)),
            timeline: Timeline::default(),
            number: 0,
            fps,
            low: tap.feed(&wanted),
        })
    }
}

impl Source for Pattern {
    fn wait(&mut self) {
        self.pacer.wait();
    }

    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let (captured, wall) = (Instant::now(), SystemTime::now());
        let time = self.timeline.stamp(captured);
        let frame = self.card.draw(self.number, wall, captured, time);
        self.number += 1;
        // First, so that both are encoded at the same time.
        self.low.leave(frame);
        let Some(data) = self.encoder.encode(frame).map_err(refused)? else {
            tracing::warn!(skipped = self.encoder.skipped(), "the software encoder skipped a picture");
            return Ok(None);
        };
        let key = nal_units(&data).any(|nal| nal.kind() == NalKind::IdrSlice);
        Ok(Some(AccessUnit {
            data: data.into(),
            time,
            captured,
            key,
        }))
    }

    fn rest(&mut self, targets: &TargetCell) -> Result<bool, CaptureError> {
        targets.wait_for_somebody(REST);
        Ok(true)
    }

    fn fps(&self) -> Option<f64> {
        Some(f64::from(self.fps))
    }

    fn skipped(&self) -> u64 {
        self.encoder.skipped()
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
        if let Some(bitrate) = target.bitrate {
            self.encoder.set_bitrate(bitrate).map_err(refused)?;
        }
        if target.keyframe {
            self.encoder.force_key_frame();
        }
        Ok(())
    }

    fn forces_key_frames(&self) -> bool {
        true
    }
}

fn refused(error: EncodeError) -> CaptureError {
    CaptureError::Unsupported(format!("test pattern: {error}"))
}

#[cfg(test)]
mod tests {
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource;

    use super::*;
    use crate::capture::stamp::Stamp;

    fn number(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).expect("not zero")
    }

    #[test]
    fn at_300_kbit_the_stamp_of_every_decoded_picture_tells_when_it_was_captured() {
        let size = (number(1280), number(720));
        let mut pattern = Pattern::open(
            "test",
            size,
            number(30),
            Duration::from_secs(4),
            Bitrate::kbps(300),
            &Tap::new(Instant::now()),
        )
        .expect("a good pattern");
        let mut decoder = Decoder::new().expect("a decoder");
        let (begin, mut bytes, mut last) = (Instant::now(), 0, None);
        for n in 0..45u16 {
            if n == 20 {
                pattern
                    .apply(EncoderTarget {
                        bitrate: None,
                        keyframe: true,
                    })
                    .expect("a key frame can be forced");
            }
            pattern.wait();
            let unit = pattern.next().expect("the pattern runs").expect("no picture is skipped");
            assert_eq!(unit.key, n == 0 || n == 20, "picture {n}");
            assert!(Some(unit.time) > last, "time goes on");
            last = Some(unit.time);
            bytes += unit.data.len();
            let picture = decoder.decode(&unit.data).expect("a good picture").expect("no delay");
            let (width, height) = picture.dimensions();
            let luma: Vec<u8> = picture
                .y()
                .chunks(picture.strides().0)
                .flat_map(|row| &row[..width])
                .copied()
                .collect();
            let stamp = Stamp::read(&luma, width, height).unwrap_or_else(|| panic!("no stamp on picture {n}"));
            assert_eq!(stamp.frame, n);
            let wall = SystemTime::now() - unit.captured.elapsed();
            let unix_ms = wall.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
            assert!(
                stamp.unix_ms.abs_diff(unix_ms) <= 5,
                "stamp {} for a picture of {unix_ms}",
                stamp.unix_ms
            );
        }
        let elapsed = begin.elapsed();
        assert!(
            elapsed >= Duration::from_millis(1_400),
            "45 pictures at 30 a second took {elapsed:?}"
        );
        println!("{:.0} kbit/s", bytes as f64 * 8.0 / 1.5 / 1000.0);
    }

    #[test]
    fn impossible_sizes_are_refused_in_words() {
        let error = Pattern::open(
            "test",
            (number(31), number(30)),
            number(30),
            Duration::from_secs(1),
            Bitrate::kbps(300),
            &Tap::new(Instant::now()),
        )
        .err();
        assert!(error.is_some_and(|error| error.to_string().contains("31x30")));
    }
}
