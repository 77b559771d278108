//! A camera's pictures through the hardware encoder.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;
use peercam::encode::Encoded;
use peercam::encode::m2m::{self, M2mEncoder, M2mSettings};
use peercam::media::{Bitrate, EncoderTarget};
use peercam::v4l2::{Device, Format, FourCc, Interest, Queue, Size, Taken, control, wait};

use crate::{Outcome, check, during};

/// Pictures in all; the one for which a key frame is asked; that from which on the bit rate is low; pictures between key frames.
const PICTURES: usize = 60;
const FORCED: usize = 10;
const SLOWER: usize = 40;
const GOP: usize = 25;
const FPS: u32 = 25;
const FAST: Bitrate = Bitrate::kbps(2_000);
const SLOW: Bitrate = Bitrate::kbps(300);
/// Ten times what it takes on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What was given to the encoder.
struct Given {
    captured: Instant,
    luma: Vec<u8>,
}

/// Whose memory the encoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The camera's.
    Shared,
    /// Its own: it is not offered the camera's.
    Copied,
    /// Its own: it is offered the camera's, but wants padding that this does not have.
    Padded,
}

pub fn run(path: &Path, fourcc: FourCc, size: Size, memory: Memory) -> Outcome {
    let shared = memory == Memory::Shared;
    let before = descriptors()?;
    let (found, _) = m2m::find(&[fourcc]).ok_or("no hardware encoder found")?;
    let device = Arc::new(Device::open(path).map_err(during("opening the camera"))?);
    let capability = device.capability().map_err(during("asking what the camera is"))?;
    let kind = capability.camera().ok_or("it is no camera")?;
    let format = device
        .set_format(kind, &Format::new(fourcc, size))
        .map_err(during("setting the format"))?;
    check(format.fourcc == fourcc && format.size == size, || {
        format!("the camera's format is {format:?}")
    })?;
    let rate = device.set_rate(kind, FPS).map_err(during("setting the rate"))?;
    check(rate == Some(f64::from(FPS)), || format!("the camera's rate is {rate:?}"))?;
    let mut camera = Queue::mapped(Arc::clone(&device), kind, 4).map_err(during("asking for buffers"))?;
    let settings = M2mSettings {
        fps: f64::from(FPS),
        bitrate: FAST,
        gop: Duration::from_secs(1) * GOP as u32 / FPS,
    };
    let offered = (memory != Memory::Copied).then_some(&camera);
    let mut encoder = M2mEncoder::open(&found, &format, offered, &settings).map_err(during("opening the encoder"))?;
    check(encoder.shares_memory() == shared, || {
        format!("shares memory: {}", encoder.shares_memory())
    })?;
    controls(encoder.device())?;
    camera.start().map_err(during("starting the camera"))?;

    let (given, units, drained) = stream(&mut camera, &mut encoder, &format)?;
    check(drained > 0, || {
        "nothing was inside when the encoder was stopped: the drain was not tried".into()
    })?;
    judge(&given, &units, size)?;
    println!(
        "encode: {} ({}) {} at {size}, memory {}: {} pictures in order with their stamps, key frames where they belong, \
         pixels equal, {drained} by draining",
        path.display(),
        if kind.is_multi_planar() { "multi-planar" } else { "single-planar" },
        fourcc,
        match memory {
            Memory::Shared => "shared",
            Memory::Copied => "copied",
            Memory::Padded => "copied for its padding",
        },
        units.len(),
    );
    drop((encoder, camera, device));
    let after = descriptors()?;
    check(after == before, || {
        format!("{before} descriptors were open before, {after} are after")
    })
}

fn descriptors() -> Result<usize, String> {
    Ok(std::fs::read_dir("/proc/self/fd").map_err(during("counting descriptors"))?.count())
}

/// What was set on the encoder's own descriptor is what it says.
fn controls(device: &Device) -> Outcome {
    let expected = [
        (control::BITRATE, 2_000_000),
        (control::I_PERIOD, GOP as i64),
        (control::REPEAT_HEADERS, 1),
        // Constrained Baseline, level 3.1.
        (control::PROFILE, 1),
        (control::LEVEL, 9),
    ];
    for (id, value) in expected {
        let got = device.control_value(id).map_err(during("reading a control"))?;
        check(got == value, || format!("control {id:#x} is {got}, set was {value}"))?;
    }
    Ok(())
}

/// Gives the encoder pictures as the agent does, then stops it with the last one inside. What went in, what came out, and how
/// much of it only at the end.
fn stream(camera: &mut Queue, encoder: &mut M2mEncoder, format: &Format) -> Result<(Vec<Given>, Vec<Encoded>, usize), String> {
    let (mut given, mut units, mut waiting) = (Vec::new(), Vec::new(), VecDeque::<Taken>::new());
    let until = Instant::now() + LIMIT;
    while given.len() < PICTURES {
        check(Instant::now() < until, || format!("{} pictures after {LIMIT:?}", given.len()))?;
        while let Some(unit) = encoder.unit().map_err(during("encoding"))? {
            units.push(unit);
        }
        while let Some(index) = encoder.returned().map_err(during("taking a picture back"))? {
            if encoder.shares_memory() {
                camera.give(index).map_err(during("giving a buffer back"))?;
            }
        }
        while let Some(taken) = camera.take().map_err(during("reading the camera"))? {
            waiting.push_back(taken);
        }
        // The newest wins.
        while waiting.len() > 1
            && let Some(old) = waiting.pop_front()
        {
            camera.give(old.index).map_err(during("giving a buffer back"))?;
        }
        if encoder.busy() || waiting.is_empty() {
            let wanted = [(camera.device(), Interest::FILLED), (encoder.device(), M2mEncoder::INTEREST)];
            wait(wanted, Duration::from_secs(5)).map_err(during("waiting"))?;
            continue;
        }
        let Some(taken) = waiting.pop_front() else { continue };
        let captured = taken.stamp.instant();
        let data = camera.data(&taken, 0);
        given.push(Given {
            captured,
            luma: luma(data, format),
        });
        let target = EncoderTarget {
            bitrate: (given.len() - 1 == SLOWER).then_some(SLOW),
            keyframe: given.len() - 1 == FORCED,
        };
        encoder.steer(target).map_err(during("steering the encoder"))?;
        if encoder.shares_memory() {
            encoder.submit_shared(&taken).map_err(during("sharing a picture"))?;
        } else {
            let whole = encoder.submit_copy(data, format, captured).map_err(during("copying a picture"))?;
            check(whole, || "the picture was not taken".into())?;
            camera.give(taken.index).map_err(during("giving a buffer back"))?;
        }
    }
    let before = units.len();
    units.extend(encoder.drain(Duration::from_secs(10)));
    let drained = units.len() - before;
    check(encoder.drain(Duration::ZERO).is_empty(), || "a second drain gave something".into())?;
    Ok((given, units, drained))
}

fn luma(data: &[u8], format: &Format) -> Vec<u8> {
    let (width, height) = (format.size.width as usize, format.size.height as usize);
    let stride = format.planes.first().map_or(width, |plane| plane.stride as usize);
    let step = if format.fourcc == FourCc::YUYV { 2 } else { 1 };
    let row = |row: &[u8]| row.iter().step_by(step).take(width).copied().collect::<Vec<_>>();
    data.chunks(stride).take(height).flat_map(row).collect()
}

fn judge(given: &[Given], units: &[Encoded], size: Size) -> Outcome {
    check(units.len() == given.len(), || {
        format!("{} pictures went in, {} came out", given.len(), units.len())
    })?;
    let mut decoder = Decoder::new().map_err(during("starting a decoder"))?;
    let (mut fast, mut slow) = ((0, 0), (0, 0));
    for (n, (given, unit)) in given.iter().zip(units).enumerate() {
        let off = given.captured.max(unit.captured) - given.captured.min(unit.captured);
        check(off <= Duration::from_micros(1), || {
            format!("picture {n} was captured {off:?} from its stamp")
        })?;
        let expected = n == 0 || n >= FORCED && (n - FORCED).is_multiple_of(GOP);
        check(unit.key == expected, || {
            format!("picture {n}: key frame {}, expected {expected}", unit.key)
        })?;
        let picture = decoder.decode(&unit.data).map_err(during("decoding"))?;
        let picture = picture.ok_or_else(|| format!("picture {n} shows nothing"))?;
        let dimensions = (size.width as usize, size.height as usize);
        check(picture.dimensions() == dimensions, || {
            format!("picture {n} has {:?} pixels", picture.dimensions())
        })?;
        if unit.key {
            let rows = picture.y().chunks(picture.strides().0);
            let decoded: Vec<u8> = rows.take(dimensions.1).flat_map(|row| &row[..dimensions.0]).copied().collect();
            let differs = |(_, (got, made)): &(usize, (&u8, &u8))| got != made;
            let mut wrong = decoded.iter().zip(&given.luma).enumerate().filter(differs);
            let first = wrong.next();
            let wrong = wrong.count() + usize::from(first.is_some());
            check(decoded.len() == given.luma.len() && wrong == 0, || {
                format!(
                    "key frame {n} differs from the camera's picture in {wrong} of {} samples, first (place, (got, made)): {first:?}",
                    given.luma.len()
                )
            })?;
        } else if n < SLOWER {
            fast = (fast.0 + 1, fast.1 + unit.data.len());
        } else {
            slow = (slow.0 + 1, slow.1 + unit.data.len());
        }
    }
    // Between key frames the encoder keeps to its rate; pictures that were dropped make the next ones larger.
    let mean = |(count, bytes): (usize, usize)| bytes / count.max(1);
    let (fast, slow) = (mean(fast), mean(slow));
    check(slow * 3 < fast, || format!("{fast} bytes a picture at {FAST}, {slow} at {SLOW}"))?;
    println!("encode: {fast} bytes a picture at {FAST}, {slow} at {SLOW}");
    Ok(())
}
