//! What a device lets people set, by name.

use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::{Device, ioctl};

/// A driver that goes on for ever is not followed. Webcams have about twenty.
const MOST: usize = 128;
/// Entries of a menu that are looked at.
const MOST_ENTRIES: i64 = 64;
/// Those of encoders and decoders are ours to set.
const CODECS: [u32; 2] = [sys::V4L2_CTRL_CLASS_CODEC, sys::V4L2_CTRL_CLASS_CODEC_STATELESS];

/// A control as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub id: u32,
    /// As people read it.
    pub name: String,
    pub kind: Kind,
    pub minimum: i64,
    pub maximum: i64,
    pub step: i64,
    pub default: i64,
    pub read_only: bool,
    /// A menu's entries, by number.
    pub entries: Vec<(i64, String)>,
}

/// What a control's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Boolean,
    Menu,
    Button,
}

impl Device {
    /// Every control that is one number and no encoder's, in the driver's order.
    #[must_use]
    pub fn controls(&self) -> Vec<Described> {
        let mut found = Vec::new();
        let mut id = 0;
        for _ in 0..MOST {
            // SAFETY: plain integers and byte arrays, for which zeros are valid.
            let mut raw: sys::v4l2_queryctrl = unsafe { std::mem::zeroed() };
            raw.id = id | sys::V4L2_CTRL_FLAG_NEXT_CTRL;
            // SAFETY: VIDIOC_QUERYCTRL reads the id of a v4l2_queryctrl and fills in the rest.
            let next = unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYCTRL, &mut raw) };
            if next.is_err() || raw.id <= id {
                break;
            }
            id = raw.id;
            found.extend(self.described(&raw));
        }
        found
    }

    fn described(&self, raw: &sys::v4l2_queryctrl) -> Option<Described> {
        const CLASS: u32 = 0x0fff_0000;
        let kind = match raw.type_ {
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER => Kind::Integer,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => Kind::Boolean,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => Kind::Menu,
            sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => Kind::Button,
            // Texts, areas, and names of groups.
            _ => return None,
        };
        if raw.flags & sys::V4L2_CTRL_FLAG_DISABLED != 0 || CODECS.contains(&(raw.id & CLASS)) {
            return None;
        }
        let (minimum, maximum) = (i64::from(raw.minimum), i64::from(raw.maximum));
        let entries = match kind {
            Kind::Menu => {
                let last = maximum.min(minimum.saturating_add(MOST_ENTRIES));
                (minimum..=last).filter_map(|entry| self.entry(raw, entry)).collect()
            }
            Kind::Integer | Kind::Boolean | Kind::Button => Vec::new(),
        };
        Some(Described {
            id: raw.id,
            name: super::device::text(&raw.name),
            kind,
            minimum,
            maximum,
            step: i64::from(raw.step).max(1),
            default: raw.default_value.into(),
            read_only: raw.flags & sys::V4L2_CTRL_FLAG_READ_ONLY != 0,
            entries,
        })
    }

    /// A menu's entry; drivers leave some out.
    fn entry(&self, control: &sys::v4l2_queryctrl, entry: i64) -> Option<(i64, String)> {
        // SAFETY: plain integers and byte arrays, for which zeros are valid.
        let mut raw: sys::v4l2_querymenu = unsafe { std::mem::zeroed() };
        raw.id = control.id;
        raw.index = u32::try_from(entry).ok()?;
        // SAFETY: VIDIOC_QUERYMENU reads id and index of a v4l2_querymenu and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYMENU, &mut raw) }.ok()?;
        let text = if control.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU {
            // SAFETY: the kernel has filled in the number of an integer menu's entry; any bytes are a number. The struct is packed,
            // so it is copied out.
            let number = unsafe { raw.__bindgen_anon_1.value };
            number.to_string()
        } else {
            // SAFETY: the kernel has filled in the name of a menu's entry; any bytes are bytes.
            let name = unsafe { raw.__bindgen_anon_1.name };
            super::device::text(&name)
        };
        Some((entry, text))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_no_video_device_has_no_controls() {
        let null = Device::open(Path::new("/dev/null")).expect("everybody may open it");
        assert_eq!(null.controls(), []);
    }
}
