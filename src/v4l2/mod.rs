//! The kernel's video devices: streaming queues of our own beneath crate `v4l`'s device and lists of sizes.
//!
//! The home of `unsafe` in this program. What the kernel fills in is read here with care: names may be cut in the middle
//! of a character, and enumerations may hold values newer than this program; `v4l`'s own readers panic on both, so
//! capabilities, formats and control descriptions are read by [`Device`] itself.
#![allow(unsafe_code, reason = "ioctl, mmap and poll on device nodes; every block says why it is sound")]

pub mod control;
mod controls;
mod device;
mod event;
mod format;
mod layout;
mod mapping;
mod queue;
mod stamp;
mod wait;

use std::io;
use std::os::fd::RawFd;

pub use control::Control;
pub use controls::{Described, Kind};
pub use device::{Capability, Device, QueueKind, nodes};
pub use event::Event;
pub use format::{Colour, Format, FourCc, PlaneFormat, Rates, Size};
pub use queue::{Filled, Queue, SharedPlane, Taken};
pub use stamp::BufferStamp;
pub use wait::{Interest, Ready, wait};

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
