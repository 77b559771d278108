//! H.264 by a V4L2 stateful memory-to-memory encoder, such as the Raspberry Pi's (up to the 4 and Zero 2).
//!
//! Controls are set on the very file that streams: an encoder's belong to the open file (raspberrypi/firmware#1612). Slices are
//! left alone, one a picture: the Pi's encoder stalls with several above 1280 pixels (raspberrypi/firmware#1114).
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

mod controls;
mod error;
mod find;
mod pixels;
mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Colour, EncodeError, Encoded, Encoder};
use crate::media::conform::{Conformed, Conformer};
use crate::media::{Bitrate, EncoderTarget, RawFrame};
use crate::v4l2::{Device, Event, Format, FourCc, Interest, PlaneFormat, Queue, QueueKind, Ready, SharedPlane, Size, Taken, control, wait};

use controls::{set_bitrate, set_up};
pub use error::M2mError;
use error::refused;
pub use find::{FoundEncoder, find, find_all};
pub use pixels::picture_bytes;
use watch::{Stamps, Watch};

/// Pictures that the encoder has at once. A second one would wait inside it, where no newer one can take its place.
const INSIDE: u32 = 1;
/// Access units that may lie in the encoder's buffers; they are taken out as they come.
const CODED_BUFFERS: u32 = 4;
/// The least room for an access unit: a key frame of a small picture can be larger than the picture's share.
const LEAST_CODED_BYTES: u32 = 512 * 1024;
/// How long stopping waits for pictures that are inside.
const DRAIN: Duration = Duration::from_millis(300);
/// What an encoder is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct M2mSettings {
    /// Pictures a second.
    pub fps: f64,
    pub bitrate: Bitrate,
    /// From one key frame to the next.
    pub gop: Duration,
}

/// An open, streaming encoder.
pub struct M2mEncoder {
    device: Arc<Device>,
    input: Queue,
    coded: Queue,
    /// How pictures have to lie in its buffers.
    format: Format,
    /// What of that is picture.
    size: Size,
    /// The camera's buffers, where the encoder reads those.
    shared: Option<Vec<Vec<(OwnedFd, u32)>>>,
    stamps: Stamps,
    watch: Watch,
    conformer: Conformer,
    skipped: u64,
    forces_key_frames: bool,
    drained: bool,
}

impl M2mEncoder {
    /// Opens an encoder for pictures of this format. Where it can, it reads them out of `camera`'s buffers; else they are copied.
    ///
    /// # Errors
    /// It does not take the format, is busy (the Pi has memory for a few at once), or gone.
    pub fn open(found: &FoundEncoder, picture: &Format, camera: Option<&Queue>, settings: &M2mSettings) -> Result<Self, M2mError> {
        let fail = |doing| move |error| refused(doing, found.path.clone(), error);
        let device = Arc::new(Device::open(&found.path).map_err(fail("opening the encoder"))?);
        // In the order that the kernel's "Memory-to-Memory Stateful Video Encoder Interface" prescribes: coded format, raw
        // format, rate, controls, buffers.
        let coded_format = coded_format(picture.size);
        let coded_format = device.set_format(found.coded, &coded_format).map_err(fail("setting H.264 on"))?;
        let format = device.set_format(found.input, picture).map_err(fail("setting the picture on"))?;
        let (got, wanted) = (format.size, picture.size);
        if coded_format.fourcc != FourCc::H264 || format.fourcc != picture.fourcc || got.width < wanted.width || got.height < wanted.height
        {
            let what = format!("{} at {wanted} ({} takes {} at {got})", picture.fourcc, found.card, format.fourcc);
            return Err(M2mError::Missing(what));
        }
        if got != wanted
            && let Err(error) = device.crop_to(found.input, wanted)
        {
            tracing::warn!(encoder = %found.path.display(), %wanted, %got, %error, "the encoder cannot crop its padding; it may be seen");
        }
        // A driver without the choice of a rate controls its bits by the pictures' stamps.
        let _ = device.set_rate(found.input, settings.fps.round().max(1.0) as u32);
        set_up(&device, &found.driver, wanted, settings);
        let (input, shared) = input_queue(&device, found.input, picture, &format, camera)?;
        let waiting = device.control_value(control::MIN_CAPTURE_BUFFERS).unwrap_or(0).clamp(0, 16) as u32;
        let coded = Queue::mapped(Arc::clone(&device), found.coded, CODED_BUFFERS + waiting).map_err(fail("asking for memory of"))?;
        // Not every encoder tells the end of the stream; the last buffer does too.
        let _ = device.subscribe(Event::EndOfStream);
        let mut encoder = Self {
            forces_key_frames: device.control(control::FORCE_KEY_FRAME).is_some(),
            device,
            input,
            coded,
            format,
            size: wanted,
            shared,
            stamps: Stamps::new(Instant::now()),
            watch: Watch::default(),
            conformer: Conformer::default(),
            skipped: 0,
            drained: false,
        };
        encoder.coded.start().map_err(fail("starting"))?;
        encoder.input.start().map_err(fail("starting"))?;
        tracing::info!(
            encoder = %found.path.display(), card = found.card, format = %encoder.format.fourcc, size = %wanted,
            shares_memory = encoder.shares_memory(), "hardware encoder started"
        );
        Ok(encoder)
    }

    /// Opens the first encoder there is for pictures in this machine's memory (planar 4:2:0), which are copied.
    ///
    /// # Errors
    /// There is none, or as [`M2mEncoder::open`].
    pub fn for_frames(width: u32, height: u32, colour: Colour, settings: &M2mSettings) -> Result<Self, M2mError> {
        let (found, fourcc) = Self::find_for_frames()?;
        let format = Format {
            colour: colour.into(),
            ..Format::new(fourcc, Size { width, height })
        };
        Self::open(&found, &format, None, settings)
    }

    /// The first device that takes pictures from our memory, and as what; keeps none open.
    ///
    /// # Errors
    /// There is none.
    pub fn find_for_frames() -> Result<(FoundEncoder, FourCc), M2mError> {
        find(&[FourCc::YUV420, FourCc::NV12]).ok_or_else(|| M2mError::Missing("planar 4:2:0".into()))
    }

    /// Whether it reads the camera's own buffers.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether a key frame comes when asked for.
    #[must_use]
    pub fn forces_key_frames(&self) -> bool {
        self.forces_key_frames
    }

    /// Pictures that it made no access unit of, as far as it tells.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The device, to wait for [`M2mEncoder::INTEREST`].
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// An access unit is made, or a picture is done with.
    pub const INTEREST: Interest = Interest {
        filled: true,
        emptied: true,
        event: false,
    };

    /// Whether a picture would have to wait.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.input.queued() >= INSIDE
    }

    /// Gives it a picture in the camera's memory, until [`M2mEncoder::returned`] gives the buffer's index back.
    ///
    /// # Errors
    /// [`M2mError::NotShared`]: it cannot use that memory.
    pub fn submit_shared(&mut self, picture: &Taken) -> Result<(), M2mError> {
        let (index, bytes) = (picture.index, picture.bytes());
        if picture.offset() > 0 {
            // The interface can say so to the encoder, but its drivers look at the beginning anyway.
            let why = format!("pictures begin at its byte {}", picture.offset());
            return Err(M2mError::NotShared(self.path(), io::Error::other(why)));
        }
        let stamp = self.stamps.put(picture.stamp.instant());
        let buffers = self.shared.as_ref().and_then(|shared| shared.get(index as usize));
        let Some([(memory, length)]) = buffers.map(Vec::as_slice) else {
            return Err(M2mError::NotShared(self.path(), io::ErrorKind::InvalidInput.into()));
        };
        let plane = SharedPlane {
            memory: memory.as_fd(),
            length: *length,
            used: u32::try_from(bytes).unwrap_or(u32::MAX).min(*length),
        };
        let sent = self.input.send_shared(index, &[plane], stamp);
        sent.map_err(|error| M2mError::NotShared(self.path(), error))?;
        self.watch.fed(Instant::now());
        Ok(())
    }

    /// Gives it a copy of a picture of `format`. `Ok(false)` if the data is not a whole picture.
    ///
    /// # Errors
    /// It failed, or is gone.
    pub fn submit_copy(&mut self, data: &[u8], format: &Format, captured: Instant) -> Result<bool, M2mError> {
        self.submit_with(captured, |room, own| pixels::copy(format, data, own, room))
    }

    fn submit_with(&mut self, captured: Instant, fill: impl FnOnce(&mut [u8], &Format) -> bool) -> Result<bool, M2mError> {
        let index = self.input.free();
        let Some((index, room)) = index.and_then(|index| Some((index, self.input.room(index, 0)?))) else {
            return Ok(false);
        };
        if !fill(room, &self.format) {
            return Ok(false);
        }
        let used = self.format.planes.first().map_or(0, |plane| plane.bytes);
        let stamp = self.stamps.put(captured);
        self.input
            .send(index, &[used], stamp)
            .map_err(|error| self.failed("giving a picture to", error))?;
        self.watch.fed(Instant::now());
        Ok(true)
    }

    /// An input buffer that it is done with.
    ///
    /// # Errors
    /// It failed, or is gone.
    pub fn returned(&mut self) -> Result<Option<u32>, M2mError> {
        let taken = self.input.take().map_err(|error| self.failed("reading", error))?;
        Ok(taken.map(|taken| taken.index))
    }

    /// The next access unit, if one is made; key frames have their parameter sets.
    ///
    /// # Errors
    /// It failed, is gone, has stalled, or makes what browsers do not show.
    pub fn unit(&mut self) -> Result<Option<Encoded>, M2mError> {
        loop {
            match self.next_buffer()? {
                Buffer::Unit(unit) => return Ok(Some(unit)),
                Buffer::Nothing => {}
                Buffer::None | Buffer::Last(_) => break,
            }
        }
        if self.watch.stalled(Instant::now()) {
            return Err(M2mError::Stalled {
                path: self.path(),
                seconds: Watch::PATIENCE.as_secs(),
            });
        }
        Ok(None)
    }

    fn next_buffer(&mut self) -> Result<Buffer, M2mError> {
        let Self {
            coded, conformer, stamps, ..
        } = self;
        let read = coded.read(|filled| {
            let taken = filled.taken;
            // Rate control that drops a picture shows as an empty buffer (raspberrypi/linux#4961); so does the end of a stream.
            if filled.data.is_empty() || taken.damaged {
                return Ok((None, taken));
            }
            // Parameter sets are not always repeated, so the conformer does that. They may also come in a buffer of their own,
            // even without the picture that they were made for (raspberrypi/picamera2#1236).
            let conformed = conformer.take(filled.data)?;
            Ok((conformed.and_then(|unit| Some((unit, stamps.take(taken.raw_stamp)?))), taken))
        });
        let (unit, taken) = match read.map_err(|error| self.failed("reading", error))? {
            None => return Ok(Buffer::None),
            Some(Err(error)) => return Err(M2mError::Unsuitable(self.path(), error)),
            Some(Ok(read)) => read,
        };
        let unit = unit.map(|(Conformed { data, key }, captured)| Encoded {
            data: data.into(),
            captured,
            key,
        });
        if unit.is_some() {
            self.watch.came();
        } else if !taken.last && (taken.bytes() == 0 || taken.damaged) {
            self.skipped += 1;
            tracing::debug!(
                skipped = self.skipped,
                damaged = taken.damaged,
                "the encoder made nothing of a picture"
            );
            if taken.damaged {
                self.conformer.gap();
            }
        }
        Ok(match (taken.last, unit) {
            (true, unit) => Buffer::Last(unit),
            (false, Some(unit)) => Buffer::Unit(unit),
            (false, None) => Buffer::Nothing,
        })
    }

    /// Does what viewers want, from the next picture on.
    ///
    /// # Errors
    /// It refused.
    pub fn steer(&mut self, target: EncoderTarget) -> Result<(), M2mError> {
        if let Some(bitrate) = target.bitrate {
            set_bitrate(&self.device, bitrate).map_err(|error| self.failed("setting the bit rate of", error))?;
        }
        if target.keyframe && self.forces_key_frames {
            let asked = self.device.set_control(control::FORCE_KEY_FRAME, 1);
            asked.map_err(|error| self.failed("asking for a key frame from", error))?;
        }
        Ok(())
    }

    /// Ends the stream in order: what is inside is encoded and given back. Nothing can be submitted any more.
    pub fn drain(&mut self, patience: Duration) -> Vec<Encoded> {
        let mut units = Vec::new();
        if std::mem::replace(&mut self.drained, true) || self.device.stop_encoder().is_err() {
            return units;
        }
        let until = Instant::now() + patience;
        loop {
            match self.next_buffer() {
                Ok(Buffer::Unit(unit)) => units.push(unit),
                Ok(Buffer::Nothing) => {}
                Ok(Buffer::Last(unit)) => {
                    units.extend(unit);
                    return units;
                }
                Ok(Buffer::None) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let ready = wait([(&self.device, Interest::FILLED)], left);
                    if !matches!(ready, Ok([Ready::Has(_)])) {
                        return units;
                    }
                }
                // A driver that says EPIPE has given out its last buffer; one that is gone has none.
                Err(_) => return units,
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.device.path().to_owned()
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> M2mError {
        refused(doing, self.path(), error)
    }
}

/// What was in a buffer of the coded queue.
enum Buffer {
    Unit(Encoded),
    /// No picture.
    Nothing,
    /// The stream's last.
    Last(Option<Encoded>),
    /// There is no buffer.
    None,
}

impl Drop for M2mEncoder {
    /// Stopped with pictures inside, the Pi's driver waits for them for seconds (raspberrypi/linux#4606).
    fn drop(&mut self) {
        self.drain(DRAIN);
    }
}

impl Encoder for M2mEncoder {
    fn submit(&mut self, frame: &RawFrame) -> Result<bool, EncodeError> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let (size, expected) = (self.size, width * height * 3 / 2);
        if (frame.width, frame.height) != (size.width, size.height) || frame.i420.len() != expected {
            return Err(EncodeError::Frame {
                width: size.width,
                height: size.height,
                bytes: frame.i420.len(),
                expected: size.width as usize * size.height as usize * 3 / 2,
            });
        }
        while self.returned()?.is_some() {}
        if self.busy() {
            return Ok(false);
        }
        Ok(self.submit_with(frame.captured, |room, own| pixels::copy_i420(&frame.i420, width, height, own, room))?)
    }

    fn collect(&mut self, patience: Duration) -> Result<Option<Encoded>, EncodeError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(unit) = self.unit()? {
                return Ok(Some(unit));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let ready = wait([(&self.device, Interest::FILLED)], left).map_err(|error| self.failed("waiting for", error))?;
            if matches!(ready, [Ready::Error | Ready::Gone]) {
                return Err(self.failed("waiting for", rustix::io::Errno::NODEV.into()).into());
            }
        }
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), EncodeError> {
        Ok(self.steer(target)?)
    }

    fn forces_key_frames(&self) -> bool {
        self.forces_key_frames
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn coded_format(size: Size) -> Format {
    let mut format = Format::new(FourCc::H264, size);
    format.planes = vec![PlaneFormat {
        stride: 0,
        bytes: LEAST_CODED_BYTES.max(size.width.saturating_mul(size.height) / 2),
    }];
    format
}

/// The encoder's side of memory: the camera's, if both mean the same by it, else its own.
type Input = (Queue, Option<Vec<Vec<(OwnedFd, u32)>>>);

fn input_queue(
    device: &Arc<Device>,
    kind: QueueKind,
    picture: &Format,
    format: &Format,
    camera: Option<&Queue>,
) -> Result<Input, M2mError> {
    if let Some(camera) = camera.filter(|_| pixels::same_layout(picture, format)) {
        let exported: io::Result<Vec<_>> = (0..camera.len()).map(|index| camera.export(index)).collect();
        let shared = exported.and_then(|shared| Ok((Queue::importing(Arc::clone(device), kind, camera.len())?, shared)));
        match shared {
            // A place in the encoder's queue for each of the camera's buffers.
            Ok((queue, shared)) if queue.len() >= camera.len() => return Ok((queue, Some(shared))),
            Ok(_) => {}
            Err(error) => tracing::debug!(encoder = %device.path().display(), %error, "no shared memory, pictures are copied"),
        }
    }
    if !pixels::known(format) {
        return Err(M2mError::Missing(format.fourcc.to_string()));
    }
    let own = Queue::mapped(Arc::clone(device), kind, INSIDE + 1);
    let own = own.map_err(|error| refused("asking for memory of", device.path().to_owned(), error))?;
    Ok((own, None))
}
