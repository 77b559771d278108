//! The kernel's video devices: a streaming queue of our own beneath crate `v4l`'s device, formats and controls.
//!
//! The home of `unsafe` in this program. What the kernel fills in is read here with care: names may be cut in the middle
//! of a character, and enumerations may hold values newer than this program; `v4l`'s own readers panic on both, so
//! capabilities, formats and control descriptions are read by [`Device`] itself.
#![allow(unsafe_code, reason = "ioctl, mmap and poll on device nodes; every block says why it is sound")]

mod device;
mod queue;

use std::io;
use std::os::fd::RawFd;

use v4l::v4l_sys;

pub use device::{Capability, Control, Device, FourCc, Rates, Size, control};
pub use queue::{BufferStamp, CaptureQueue, Filled, Ready};

/// Runs one ioctl, again if a signal interrupts it.
///
/// # Safety
/// `request` must be an ioctl whose argument is a `T`, and what `T` points to must be valid for what the kernel does with it.
unsafe fn ioctl<T>(fd: RawFd, request: v4l::v4l2::vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: `argument` is a live, exclusive reference to the type that the caller vouches for.
        match unsafe { v4l::v4l2::ioctl(fd, request, std::ptr::from_mut(argument).cast()) } {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The numbers that the kernel's headers give these structures: a wrong one would make every ioctl number wrong.
/// On 32-bit ARM `v4l2_buffer` has 68 bytes with the C library's 32-bit `time_t` and 80 with the 64-bit one; the kernel takes both.
const _: () = {
    assert!(size_of::<v4l_sys::v4l2_capability>() == 104);
    assert!(size_of::<v4l_sys::v4l2_fmtdesc>() == 64);
    assert!(size_of::<v4l_sys::v4l2_requestbuffers>() == 20);
    assert!(size_of::<v4l_sys::v4l2_queryctrl>() == 68);
    assert!(size_of::<v4l_sys::v4l2_control>() == 8);
    assert!(size_of::<v4l_sys::v4l2_pix_format>() == 48);
    if cfg!(target_pointer_width = "64") {
        assert!(size_of::<v4l_sys::v4l2_format>() == 208);
        assert!(size_of::<v4l_sys::v4l2_buffer>() == 88);
    } else {
        assert!(size_of::<v4l_sys::v4l2_format>() == 204);
        assert!(size_of::<v4l_sys::v4l2_buffer>() == if size_of::<v4l_sys::timeval>() == 16 { 80 } else { 68 });
    }
};
