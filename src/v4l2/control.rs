//! Controls: what a device lets be set. An encoder's belong to the open file, so the one that streams must set them
//! (raspberrypi/firmware#1612).

use std::io;

use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::{Device, ioctl};

// Controls of encoders (the kernel's "Codec Control Reference").

/// Bits a second.
pub const BITRATE: u32 = sys::V4L2_CID_MPEG_VIDEO_BITRATE;
/// A button: the next picture is a key frame.
pub const FORCE_KEY_FRAME: u32 = sys::V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME;
/// Parameter sets in front of every key frame.
pub const REPEAT_HEADERS: u32 = sys::V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER;
/// A menu: 0 gives parameter sets a buffer of their own, 1 puts them before the first picture.
pub const HEADER_MODE: u32 = sys::V4L2_CID_MPEG_VIDEO_HEADER_MODE;
/// A menu: 0 one slice a picture; above, several.
pub const SLICE_MODE: u32 = sys::V4L2_CID_MPEG_VIDEO_MULTI_SLICE_MODE;
/// B frames between two P frames.
pub const B_FRAMES: u32 = sys::V4L2_CID_MPEG_VIDEO_B_FRAMES;
/// Pictures from one key frame to the next.
pub const GOP_SIZE: u32 = sys::V4L2_CID_MPEG_VIDEO_GOP_SIZE;
/// Pictures from one I picture to the next.
pub const I_PERIOD: u32 = sys::V4L2_CID_MPEG_VIDEO_H264_I_PERIOD;
/// A menu: 0 Baseline, 1 Constrained Baseline, 2 Main, 3 Extended, 4 High; above, profiles that browsers do not show.
pub const PROFILE: u32 = sys::V4L2_CID_MPEG_VIDEO_H264_PROFILE;
/// A menu: 0 is level 1, 1 is 1b, 2 is 1.1, and so on up to 15, which is 5.1.
pub const LEVEL: u32 = sys::V4L2_CID_MPEG_VIDEO_H264_LEVEL;
/// How many buffers the driver needs to hold before it fills one.
pub const MIN_CAPTURE_BUFFERS: u32 = sys::V4L2_CID_MIN_BUFFERS_FOR_CAPTURE;

/// A control that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    pub id: u32,
    pub minimum: i64,
    pub maximum: i64,
    pub step: i64,
}

impl Control {
    /// The nearest value that the control can have.
    #[must_use]
    pub fn nearest(&self, wanted: i64) -> i64 {
        let step = self.step.max(1);
        let steps = (wanted.max(self.minimum) - self.minimum + step / 2) / step;
        (self.minimum + steps * step).clamp(self.minimum, self.maximum.max(self.minimum))
    }
}

impl Device {
    /// A control, if the device has it and it can be set.
    #[must_use]
    pub fn control(&self, id: u32) -> Option<Control> {
        const UNUSABLE: u32 = sys::V4L2_CTRL_FLAG_DISABLED | sys::V4L2_CTRL_FLAG_READ_ONLY;
        // SAFETY: plain integers and byte arrays, for which zeros are valid.
        let mut raw: sys::v4l2_queryctrl = unsafe { std::mem::zeroed() };
        raw.id = id;
        // SAFETY: VIDIOC_QUERYCTRL reads the id of a v4l2_queryctrl and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYCTRL, &mut raw) }.ok()?;
        (raw.flags & UNUSABLE == 0).then_some(Control {
            id,
            minimum: raw.minimum.into(),
            maximum: raw.maximum.into(),
            step: raw.step.into(),
        })
    }

    /// Whether a menu control has this entry.
    #[must_use]
    pub fn offers(&self, id: u32, entry: u32) -> bool {
        // SAFETY: plain integers and byte arrays, for which zeros are valid.
        let mut raw: sys::v4l2_querymenu = unsafe { std::mem::zeroed() };
        raw.id = id;
        raw.index = entry;
        // SAFETY: VIDIOC_QUERYMENU reads id and index of a v4l2_querymenu and fills in the rest.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_QUERYMENU, &mut raw) }.is_ok()
    }

    /// The value of a control.
    ///
    /// # Errors
    /// The device does not have it.
    pub fn control_value(&self, id: u32) -> io::Result<i64> {
        let mut raw = sys::v4l2_control { id, value: 0 };
        // SAFETY: VIDIOC_G_CTRL reads the id of a v4l2_control and fills in its value.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_G_CTRL, &mut raw)? };
        Ok(raw.value.into())
    }

    /// Sets a control; a button is pressed by any value.
    ///
    /// # Errors
    /// The system's; EBUSY for one that cannot change while streaming.
    pub fn set_control(&self, id: u32, value: i64) -> io::Result<()> {
        self.inner.set_control(v4l::Control {
            id,
            value: v4l::control::Value::Integer(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_takes_the_nearest_value_it_can_have() {
        let bitrate = Control {
            id: BITRATE,
            minimum: 25_000,
            maximum: 25_000_000,
            step: 25_000,
        };
        assert_eq!(bitrate.nearest(812_000), 800_000);
        assert_eq!(bitrate.nearest(813_000), 825_000);
        assert_eq!(bitrate.nearest(1), 25_000);
        assert_eq!(bitrate.nearest(i64::from(u32::MAX)), 25_000_000);
        assert_eq!(Control { step: 0, ..bitrate }.nearest(812_345), 812_345);
    }
}
