//! A camera in virtual time, whose pictures a viewer can tell whole from broken.

use std::sync::Arc;
use std::time::Instant;

use peercam::hub::Hub;
use peercam::media::annexb::nal_units;
use peercam::media::{AccessUnit, MediaTime, StreamFormat};

pub const FORMAT: StreamFormat = StreamFormat {
    width: 1280,
    height: 720,
    profile_level_id: [0x42, 0xe0, 0x1f],
};

/// Slice header, number and size.
const HEADER: usize = 2 + 5 + 4;

/// The only slice of picture `number`, in `size` bytes or as few as it needs.
pub fn slice(number: u32, size: usize, key: bool) -> Vec<u8> {
    let size = size.max(HEADER);
    // Seven bits a byte and never a zero, so never a start code.
    let digits = |value: u64, count: u32| (0..count).rev().map(move |place| 0x80 | (value >> (7 * place)) as u8);
    let mut nal = vec![if key { 0x65 } else { 0x41 }, 0x9a];
    nal.extend(digits(number.into(), 5));
    nal.extend(digits(size as u64, 4));
    nal.resize(size, 0x55);
    nal
}

/// The whole picture in Annex B; a key frame has its parameter sets.
pub fn access_unit(slice: &[u8]) -> Vec<u8> {
    let sets: &[&[u8]] = if slice[0] == 0x65 {
        &[&[0x67, 0x42, 0xe0, 0x1f, 0x8c], &[0x68, 0xce, 0x3c]]
    } else {
        &[]
    };
    let nals = sets.iter().copied().chain([slice]);
    nals.flat_map(|nal| [&[0, 0, 0, 1], nal].concat()).collect()
}

/// What a viewer got: the picture's number and whether it is a key frame. `None` if a NAL unit or a byte of it is missing.
pub fn recognise(annexb: &[u8]) -> Option<(u32, bool)> {
    let last = nal_units(annexb).last()?.bytes();
    let value = |digits: &[u8]| digits.iter().fold(0, |value, digit| value << 7 | u64::from(digit & 0x7f));
    let (number, size) = last.get(2..HEADER)?.split_at(5);
    let number = u32::try_from(value(number)).ok()?;
    let key = last[0] == 0x65;
    let whole = access_unit(&slice(number, usize::try_from(value(size)).ok()?, key));
    nal_units(annexb)
        .map(|nal| nal.bytes())
        .eq(nal_units(&whole).map(|nal| nal.bytes()))
        .then_some((number, key))
}

/// A camera that makes key frames on demand, at its hub.
pub struct Camera {
    pub hub: Arc<Hub>,
    epoch: Instant,
    /// Pictures from one key frame to the next, if nobody asks for one.
    pub gop: u32,
    /// Bytes of a key frame's slice and of another's.
    pub sizes: (usize, usize),
    number: u32,
    next_key: u32,
}

impl Camera {
    pub fn new(epoch: Instant, gop: u32, sizes: (usize, usize)) -> Self {
        let hub = Hub::new("card");
        hub.set_format(FORMAT, true);
        Self {
            hub,
            epoch,
            gop,
            sizes,
            number: 0,
            next_key: 0,
        }
    }

    /// Publishes one picture that is captured now; returns its number and whether it is a key frame.
    pub fn shoot(&mut self, now: Instant) -> (u32, bool) {
        let number = self.number;
        let forced = self.hub.target().take(now).is_some_and(|target| target.keyframe);
        let key = forced || number == self.next_key;
        if key {
            self.next_key = number + self.gop;
            self.hub.target().key_frame_made(now);
        }
        let size = if key { self.sizes.0 } else { self.sizes.1 };
        let unit = AccessUnit {
            data: access_unit(&slice(number, size, key)).into(),
            time: MediaTime::since(self.epoch, now),
            captured: now,
            key,
        };
        self.hub.publish(unit, now);
        self.number += 1;
        (number, key)
    }
}
