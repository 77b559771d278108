//! Pictures in this machine's memory through the hardware encoder, by the interface that all encoders have.

use std::time::{Duration, Instant};

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use peercam::encode::m2m::{M2mEncoder, M2mSettings, find};
use peercam::encode::{Colour, Encoder};
use peercam::media::{Bitrate, EncoderTarget, MediaTime, RawFrame};
use peercam::v4l2::FourCc;

use crate::{Outcome, check, during};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 368;
const PATIENCE: Duration = Duration::from_secs(10);
const SETTINGS: M2mSettings = M2mSettings {
    fps: 25.0,
    bitrate: Bitrate::kbps(1_000),
    gop: Duration::from_secs(4),
};

/// A picture of one grey and one colour, another in each.
fn frame(n: u8) -> RawFrame {
    let luma = (WIDTH * HEIGHT) as usize;
    let mut i420 = vec![50 + n * 5; luma];
    i420.resize(luma * 5 / 4, 90 + n);
    i420.resize(luma * 3 / 2, 160 - n);
    RawFrame {
        i420,
        width: WIDTH,
        height: HEIGHT,
        time: MediaTime::default(),
        captured: Instant::now(),
    }
}

pub fn run() -> Outcome {
    let mut encoder = M2mEncoder::for_frames(WIDTH, HEIGHT, Colour::Bt709, &SETTINGS).map_err(during("opening the encoder"))?;
    let (found, _) = find(&[FourCc::YUV420]).ok_or("there is no encoder")?;
    let told = encoder.device().format(found.input).map_err(during("reading the format"))?.colour;
    check(told == Colour::Bt709.into(), || {
        format!("the encoder was told of other colours: {told:?}")
    })?;
    let mut decoder = Decoder::new().map_err(during("starting a decoder"))?;
    for n in 0..20 {
        let picture = frame(n);
        // Every picture a key frame, so that each shows whether its pixels arrived.
        let target = EncoderTarget {
            bitrate: None,
            keyframe: true,
        };
        encoder.apply(target).map_err(during("asking for a key frame"))?;
        let taken = encoder.submit(&picture).map_err(during("submitting"))?;
        check(taken, || format!("picture {n} was not taken, though the encoder was idle"))?;
        let unit = encoder.collect(PATIENCE).map_err(during("collecting"))?;
        let unit = unit.ok_or_else(|| format!("picture {n} did not come within {PATIENCE:?}"))?;
        let off = unit.captured.max(picture.captured) - unit.captured.min(picture.captured);
        check(unit.key && off <= Duration::from_micros(1), || {
            format!("picture {n}: key {}, stamp {off:?} off", unit.key)
        })?;
        let shown = decoder.decode(&unit.data).map_err(during("decoding"))?.ok_or("nothing is shown")?;
        let expected = (50 + n * 5, 90 + n, 160 - n);
        let middle = |plane: &[u8], stride: usize, row: usize| plane[row * stride + stride / 4];
        let (y, u, v) = shown.strides();
        let got = (middle(shown.y(), y, 180), middle(shown.u(), u, 90), middle(shown.v(), v, 90));
        check(got == expected, || format!("picture {n} shows {got:?}, made was {expected:?}"))?;
    }
    // More pictures at once than the encoder holds: what has no room is refused at once, and what was taken comes.
    let taken = (0..10)
        .map(|n| encoder.submit(&frame(n)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(during("submitting"))?;
    let count = taken.iter().filter(|taken| **taken).count();
    let mut came = 0;
    while encoder.collect(Duration::from_millis(500)).map_err(during("collecting"))?.is_some() {
        came += 1;
    }
    check(taken[0] && came == count, || {
        format!("{count} of ten pictures were taken, {came} came")
    })?;
    println!("frames: 20 pictures with their colours and stamps; of ten at once {count} were taken, and came");
    Ok(())
}

/// The encoder's module was told to give nothing after some pictures.
pub fn stall() -> Outcome {
    let mut encoder = M2mEncoder::for_frames(WIDTH, HEIGHT, Colour::Bt709, &SETTINGS).map_err(during("opening the encoder"))?;
    let (mut came, mut last) = (0, Instant::now());
    let begin = Instant::now();
    for n in 0..1000_u32 {
        check(begin.elapsed() < Duration::from_secs(60), || {
            "nothing was noticed in a minute".into()
        })?;
        encoder.submit(&frame((n % 20) as u8)).map_err(during("submitting"))?;
        match encoder.collect(Duration::from_millis(100)) {
            Ok(Some(_)) => (came, last) = (came + 1, Instant::now()),
            Ok(None) => {}
            Err(error) => {
                let silent = last.elapsed();
                let text = error.to_string();
                check(text.contains("has encoded nothing for 3 s"), || format!("the error is: {text}"))?;
                check(came > 0 && silent >= Duration::from_millis(2_900), || {
                    format!("after {came} units and {silent:?}: {text}")
                })?;
                println!("stall: noticed {:.1} s after the last of {came} units", silent.as_secs_f64());
                return Ok(());
            }
        }
    }
    Err("an encoder that gives nothing was not noticed".into())
}
