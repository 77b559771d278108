//! The driver's memory in our address space.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memory plane of one of the driver's buffers in our address space.
pub(super) struct Mapping {
    address: *mut std::ffi::c_void,
    length: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone, and memory shared with a device is the same from every thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes of a device from `offset` on, to be read, or to be written too.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(device: BorrowedFd<'_>, offset: u64, length: usize, writable: bool) -> io::Result<Self> {
        let access = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, device, offset) }?;
        Ok(Self { address, length, writable })
    }

    /// Bytes of it.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The plane's bytes. Only called while the driver does not have the buffer, so that it does not write to them.
    pub fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `address` is a readable mapping of `length` bytes, which lives until this value is dropped.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }

    /// The same, for writing. Empty where the mapping is for reading only.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.length == 0 || !self.writable {
            return &mut [];
        }
        // SAFETY: as in `bytes`, writable too, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `mmap` with this length, and no borrow of it outlives this value.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
