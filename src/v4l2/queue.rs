//! A capture queue: buffers shared with the driver, filled by it, read by us, given back.
//!
//! Single-planar and memory-mapped; the buffer's type and memory are set in one place ([`CaptureQueue::empty_buffer`]), where
//! planes and DMABUF would come in.
#![expect(
    clippy::disallowed_methods,
    reason = "the kernel's stamps are compared with the clock they were taken from"
)]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::time::{ClockId, clock_gettime};
use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::{Device, ioctl};

/// What [`CaptureQueue::wait`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A buffer is filled.
    Filled,
    /// The time is over.
    Timeout,
    /// The driver reports an error (POLLERR, POLLHUP): the next dequeue says which.
    Error,
}

/// When a buffer was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferStamp {
    /// The driver's stamp on the monotonic clock.
    Monotonic(Instant),
    /// The driver gave none that can be used: the moment it was dequeued.
    Dequeued(Instant),
}

/// A buffer that the driver has filled.
#[derive(Debug)]
pub struct Filled<'a> {
    /// What is in it; may be empty.
    pub data: &'a [u8],
    /// Counts every picture that the driver saw, so a jump is a loss. From 0 at each start of streaming, in most drivers.
    pub sequence: u32,
    pub stamp: BufferStamp,
    /// The driver says that the data may be damaged.
    pub damaged: bool,
}

/// Streaming I/O of one capture device, from [`CaptureQueue::start`] until it is dropped.
pub struct CaptureQueue {
    device: Arc<Device>,
    buffers: Vec<Mapping>,
}

impl CaptureQueue {
    /// A stamp that is older than this is no capture time.
    const OLDEST_STAMP: Duration = Duration::from_secs(2);

    /// Asks the driver for `count` buffers (it may give more or fewer, at least 2 are needed), maps and queues them, and starts.
    ///
    /// # Errors
    /// The system's; EBUSY if somebody else streams from the device.
    pub fn start(device: Arc<Device>, count: u32) -> io::Result<Self> {
        let mut queue = Self {
            device,
            buffers: Vec::new(),
        };
        let granted = queue.request_buffers(count)?;
        if granted < 2 {
            return Err(io::Error::other(format!(
                "the driver gives {granted} buffers, at least 2 are needed"
            )));
        }
        for index in 0..granted {
            let mapping = queue.map(index)?;
            queue.buffers.push(mapping);
            queue.give(index)?;
        }
        queue.stream(vidioc::VIDIOC_STREAMON)?;
        Ok(queue)
    }

    /// Waits until a buffer is filled, for at most `timeout`.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, timeout: Duration) -> io::Result<Ready> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: left.as_secs() as _,
                tv_nsec: left.subsec_nanos() as _,
            };
            // SAFETY: `self.device` keeps the descriptor open for as long as this borrow lives.
            let fd = unsafe { BorrowedFd::borrow_raw(self.device.fd()) };
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(Ready::Timeout),
                Ok(_) => {
                    let found = fds[0].revents();
                    // A buffer filled before the error is still good, but vb2 hands none out once its queue failed.
                    let error = found.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
                    return Ok(if error { Ready::Error } else { Ready::Filled });
                }
            }
        }
    }

    /// Takes the oldest filled buffer, lets `read` have it, and gives it back to the driver. `None` if none is filled.
    ///
    /// # Errors
    /// ENODEV: the device is gone. EIO: it failed. EINVAL: it does not stream (any more).
    pub fn dequeue<R>(&mut self, read: impl FnOnce(Filled<'_>) -> R) -> io::Result<Option<R>> {
        let mut raw = Self::empty_buffer(0);
        // SAFETY: VIDIOC_DQBUF reads type and memory of a v4l2_buffer and fills in the rest.
        match unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_DQBUF, &mut raw) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            result => result?,
        }
        let Some(mapping) = self.buffers.get(raw.index as usize) else {
            return Err(io::Error::other(format!(
                "the driver filled a buffer {} that it never gave",
                raw.index
            )));
        };
        let mapped = mapping.bytes();
        let used = raw.bytesused as usize;
        let filled = Filled {
            data: &mapped[..used.min(mapped.len())],
            sequence: raw.sequence,
            stamp: stamp(&raw),
            damaged: raw.flags & sys::V4L2_BUF_FLAG_ERROR != 0 || used > mapped.len(),
        };
        let result = read(filled);
        self.give(raw.index)?;
        Ok(Some(result))
    }

    fn request_buffers(&self, count: u32) -> io::Result<u32> {
        // SAFETY: plain integers, for which zeros are valid.
        let mut raw: sys::v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        raw.count = count;
        raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
        raw.memory = sys::v4l2_memory_V4L2_MEMORY_MMAP;
        // SAFETY: VIDIOC_REQBUFS reads and fills in a v4l2_requestbuffers.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_REQBUFS, &mut raw)? };
        Ok(raw.count)
    }

    fn map(&self, index: u32) -> io::Result<Mapping> {
        let mut raw = Self::empty_buffer(index);
        // SAFETY: VIDIOC_QUERYBUF reads type and index of a v4l2_buffer and fills in the rest.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_QUERYBUF, &mut raw)? };
        // SAFETY: after VIDIOC_QUERYBUF on a memory-mapped buffer, `offset` is the union's member.
        let offset = unsafe { raw.m.offset };
        let length = raw.length as usize;
        // SAFETY: `self.device` keeps the descriptor open for as long as this borrow lives.
        let fd = unsafe { BorrowedFd::borrow_raw(self.device.fd()) };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, fd, offset.into()) }?;
        Ok(Mapping { address, length })
    }

    /// Queues a buffer: from here on the driver may write to it.
    fn give(&self, index: u32) -> io::Result<()> {
        let mut raw = Self::empty_buffer(index);
        // SAFETY: VIDIOC_QBUF reads a v4l2_buffer and updates its flags. Nothing borrows the buffer's bytes: `dequeue` lends
        // them to its closure only.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_QBUF, &mut raw) }
    }

    fn stream(&self, request: v4l::v4l2::vidioc::_IOC_TYPE) -> io::Result<()> {
        let mut buffer_type = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE as std::ffi::c_int;
        // SAFETY: VIDIOC_STREAMON and VIDIOC_STREAMOFF read an int.
        unsafe { ioctl(self.device.fd(), request, &mut buffer_type) }
    }

    fn empty_buffer(index: u32) -> sys::v4l2_buffer {
        // SAFETY: integers, and a union of integers and a pointer that is only used for multi-planar types; zeros are valid.
        let mut raw: sys::v4l2_buffer = unsafe { std::mem::zeroed() };
        raw.index = index;
        raw.type_ = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;
        raw.memory = sys::v4l2_memory_V4L2_MEMORY_MMAP;
        raw
    }
}

impl Drop for CaptureQueue {
    fn drop(&mut self) {
        // A device that is gone says so here too; there is nothing left to stop or free then.
        let _ = self.stream(vidioc::VIDIOC_STREAMOFF);
        self.buffers.clear();
        let _ = self.request_buffers(0);
    }
}

/// One of the driver's buffers in our address space.
struct Mapping {
    address: *mut std::ffi::c_void,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and memory shared with a device is the same from every thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// The buffer's bytes. Only called between dequeueing and queueing, while the driver does not write to them.
    fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `address` is a readable mapping of `length` bytes, which lives until this value is dropped.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `mmap` with this length, and no borrow of it outlives this value.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}

/// The driver's stamp as an `Instant`, which on Linux counts on the same monotonic clock.
fn stamp(raw: &sys::v4l2_buffer) -> BufferStamp {
    let now = Instant::now();
    let clock = clock_gettime(ClockId::Monotonic);
    let monotonic = raw.flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK == sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
    let age =
        nanos(clock.tv_sec.into(), clock.tv_nsec.into()) - nanos(raw.timestamp.tv_sec.into(), i128::from(raw.timestamp.tv_usec) * 1000);
    match captured(now, age).filter(|_| monotonic) {
        Some(captured) => BufferStamp::Monotonic(captured),
        None => BufferStamp::Dequeued(now),
    }
}

/// The moment `age` nanoseconds before `now`, unless that makes no sense for a picture that has just come.
fn captured(now: Instant, age: i128) -> Option<Instant> {
    let age = Duration::from_nanos(u64::try_from(age).ok()?);
    if age > CaptureQueue::OLDEST_STAMP {
        None
    } else {
        now.checked_sub(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_on_the_monotonic_clock_become_instants_and_others_are_not_believed() {
        let mut raw = CaptureQueue::empty_buffer(0);
        let before = Instant::now();
        let clock = clock_gettime(ClockId::Monotonic);
        raw.timestamp.tv_sec = clock.tv_sec as _;
        raw.timestamp.tv_usec = (clock.tv_nsec / 1000) as _;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a stamp of unknown clock was believed"
        );
        raw.flags = sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        let BufferStamp::Monotonic(captured) = stamp(&raw) else {
            panic!("a monotonic stamp was not believed")
        };
        let error = captured.max(before) - captured.min(before);
        assert!(error < Duration::from_millis(5), "{error:?} off");
        raw.timestamp.tv_sec -= 3;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a picture of three seconds ago has not just come"
        );
        raw.timestamp.tv_sec += 5;
        assert!(
            matches!(stamp(&raw), BufferStamp::Dequeued(_)),
            "a picture of the future has not just come"
        );
    }

    #[test]
    fn what_is_no_video_device_does_not_stream() {
        let null = Arc::new(Device::open(std::path::Path::new("/dev/null")).expect("everybody may open it"));
        assert!(CaptureQueue::start(null, 4).is_err());
    }
}
