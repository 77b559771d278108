//! Which encoder there is, told by what devices can do: numbers differ from board to board, and from boot to boot.

use std::path::PathBuf;

use crate::v4l2::{self, Device, FourCc, QueueKind};

/// A memory-to-memory device that makes H.264.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEncoder {
    pub path: PathBuf,
    /// What people call it.
    pub card: String,
    pub driver: String,
    /// The queue that pictures go into.
    pub input: QueueKind,
    /// The queue that H.264 comes out of.
    pub coded: QueueKind,
    /// The pixel formats that it takes.
    pub formats: Vec<FourCc>,
}

/// Every hardware encoder of this machine; opens each video device for a moment.
#[must_use]
pub fn find_all() -> Vec<FoundEncoder> {
    v4l2::nodes().into_iter().filter_map(look).collect()
}

/// The first hardware encoder that takes one of these pixel formats (any, if there are none), and which: the first of them.
#[must_use]
pub fn find(formats: &[FourCc]) -> Option<(FoundEncoder, FourCc)> {
    find_all().into_iter().find_map(|found| {
        let format = formats.iter().copied().find(|format| found.formats.contains(format))?;
        Some((found, format))
    })
}

/// `None` for what is no encoder: a decoder has H.264 on the other side.
fn look(path: PathBuf) -> Option<FoundEncoder> {
    let device = Device::open(&path).ok()?;
    let capability = device.capability().ok()?;
    let (input, coded) = capability.memory_to_memory()?;
    if !device.formats(coded).contains(&FourCc::H264) {
        return None;
    }
    Some(FoundEncoder {
        formats: device.formats(input),
        card: capability.card,
        driver: capability.driver,
        path,
        input,
        coded,
    })
}
