//! Events: what a driver tells beside its buffers, and the one command that ends an encoder's stream.

use std::io;

use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc::{self, _IOC_TYPE};

use super::{Device, ioctl};

/// `_IOR('V', 89, struct v4l2_event)`; crate `v4l` has no events.
const DEQUEUE_EVENT: _IOC_TYPE = number(READ, 89, size_of::<sys::v4l2_event>());
/// `_IOW('V', 90, struct v4l2_event_subscription)`.
const SUBSCRIBE_EVENT: _IOC_TYPE = number(WRITE, 90, size_of::<sys::v4l2_event_subscription>());
/// `_IOWR('V', 95, struct v4l2_selection)`.
pub(super) const SET_SELECTION: _IOC_TYPE = number(READ | WRITE, 95, size_of::<sys::v4l2_selection>());
const WRITE: _IOC_TYPE = 1;
const READ: _IOC_TYPE = 2;

/// An ioctl's number as the kernel's `ioctl.h` composes it: direction, size, type, number.
const fn number(direction: _IOC_TYPE, number: u8, size: usize) -> _IOC_TYPE {
    direction << 30 | (size as _IOC_TYPE) << 16 | (b'V' as _IOC_TYPE) << 8 | number as _IOC_TYPE
}

/// Something that a driver tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An encoder has given out the last buffer of a stream that was stopped.
    EndOfStream,
    /// The picture that comes in has changed: what was negotiated holds no longer.
    SourceChange,
    /// A control has changed; its id.
    Control(u32),
    /// One that this program knows nothing of.
    Other(u32),
}

impl Device {
    /// Asks to be told of an event; of a control, each change of it. Drivers that don't have the event refuse.
    ///
    /// # Errors
    /// EINVAL, ENOTTY: the driver does not tell it.
    pub fn subscribe(&self, event: Event) -> io::Result<()> {
        // SAFETY: plain integers, for which zeros are valid.
        let mut raw: sys::v4l2_event_subscription = unsafe { std::mem::zeroed() };
        (raw.type_, raw.id) = match event {
            Event::EndOfStream => (sys::V4L2_EVENT_EOS, 0),
            Event::SourceChange => (sys::V4L2_EVENT_SOURCE_CHANGE, 0),
            Event::Control(id) => (sys::V4L2_EVENT_CTRL, id),
            Event::Other(kind) => (kind, 0),
        };
        // SAFETY: VIDIOC_SUBSCRIBE_EVENT reads a v4l2_event_subscription.
        unsafe { ioctl(self.fd(), SUBSCRIBE_EVENT, &mut raw) }
    }

    /// The oldest event that was not yet told; `None` if there is none.
    ///
    /// # Errors
    /// ENODEV: the device is gone.
    pub fn next_event(&self) -> io::Result<Option<Event>> {
        // SAFETY: integers, and a union of integers; zeros are valid.
        let mut raw: sys::v4l2_event = unsafe { std::mem::zeroed() };
        // SAFETY: VIDIOC_DQEVENT fills in a v4l2_event.
        match unsafe { ioctl(self.fd(), DEQUEUE_EVENT, &mut raw) } {
            // The device is opened non-blocking; ENOENT and EAGAIN both say that nothing is pending.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        }
        Ok(Some(match raw.type_ {
            sys::V4L2_EVENT_EOS => Event::EndOfStream,
            sys::V4L2_EVENT_SOURCE_CHANGE => Event::SourceChange,
            sys::V4L2_EVENT_CTRL => Event::Control(raw.id),
            other => Event::Other(other),
        }))
    }

    /// Ends an encoder's stream: it encodes what was queued, and marks the last buffer (which may be empty).
    ///
    /// # Errors
    /// ENOTTY, EINVAL: it is no encoder, or does not know the command.
    pub fn stop_encoder(&self) -> io::Result<()> {
        self.encoder_command(sys::V4L2_ENC_CMD_STOP)
    }

    /// Goes on after [`Device::stop_encoder`] and the last buffer.
    ///
    /// # Errors
    /// As [`Device::stop_encoder`].
    pub fn start_encoder(&self) -> io::Result<()> {
        self.encoder_command(sys::V4L2_ENC_CMD_START)
    }

    fn encoder_command(&self, command: u32) -> io::Result<()> {
        // SAFETY: plain integers, for which zeros are valid.
        let mut raw: sys::v4l2_encoder_cmd = unsafe { std::mem::zeroed() };
        raw.cmd = command;
        // SAFETY: VIDIOC_ENCODER_CMD reads and fills in a v4l2_encoder_cmd.
        unsafe { ioctl(self.fd(), vidioc::VIDIOC_ENCODER_CMD, &mut raw) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_kernel() {
        // The same composition gives the numbers that crate `v4l` has.
        assert_eq!(
            number(READ | WRITE, 77, size_of::<sys::v4l2_encoder_cmd>()),
            vidioc::VIDIOC_ENCODER_CMD
        );
        assert_eq!(number(WRITE, 18, size_of::<std::ffi::c_int>()), vidioc::VIDIOC_STREAMON);
        #[cfg(target_pointer_width = "64")]
        assert_eq!((DEQUEUE_EVENT, SUBSCRIBE_EVENT), (0x8088_5659, 0x4020_565a));
    }
}
