//! A streaming queue: buffers that pass between us and a driver, of a camera or of either side of an encoder.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use v4l::v4l_sys as sys;
use v4l::v4l2::vidioc;

use super::mapping::Mapping;
use super::stamp::{BufferStamp, raw_stamp, stamp};
use super::{Device, QueueKind, ioctl};

/// The kernel's `VIDEO_MAX_PLANES`.
const MAX_PLANES: usize = 8;

/// So long the kernel may take to tidy up after a device that was unplugged, which takes it some milliseconds. Who closes the device
/// meanwhile is in a race with that in uvcvideo (`media_device_unregister_entity` looks whether there is a media device before it takes
/// the lock; seen in Debian's 6.1.192), and the thread that loses it dies in the kernel. No camera is back sooner.
const UNPLUGGED: Duration = Duration::from_millis(200);

/// A buffer that the driver has handed back: filled from a capture queue, emptied from an output queue.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Which of the queue's buffers.
    pub index: u32,
    /// Counts every picture that the driver saw, so a jump is a loss. From 0 at each start of streaming, in most drivers.
    pub sequence: u32,
    pub stamp: BufferStamp,
    /// The stamp as the driver wrote it; an encoder copies that of the picture it encoded.
    pub raw_stamp: Duration,
    /// The driver says that the data may be damaged.
    pub damaged: bool,
    /// The last buffer of an encoder that was stopped; may be empty.
    pub last: bool,
    planes: usize,
    /// Of each memory plane, where its data begins and ends.
    spans: [(usize, usize); MAX_PLANES],
}

impl Taken {
    /// Where the data of the first plane begins: a multi-planar driver may keep something of its own before it.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.spans[0].0
    }

    /// Bytes of data, in all planes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.spans[..self.planes].iter().map(|(begin, end)| end - begin).sum()
    }
}

/// A buffer that the driver has filled, lent for reading.
#[derive(Debug)]
pub struct Filled<'a> {
    /// What is in its first plane; may be empty.
    pub data: &'a [u8],
    pub taken: Taken,
}

/// A memory plane of somebody else's buffer.
#[derive(Clone, Copy, Debug)]
pub struct SharedPlane<'a> {
    /// The DMABUF.
    pub memory: BorrowedFd<'a>,
    /// Bytes of the whole plane.
    pub length: u32,
    /// Bytes that are filled.
    pub used: u32,
}

/// Streaming I/O of one of a device's queues, from its making until it is dropped.
pub struct Queue {
    device: Arc<Device>,
    kind: QueueKind,
    memory: u32,
    slots: Vec<Slot>,
    streaming: bool,
}

struct Slot {
    /// The memory planes, where the driver's memory is ours to see.
    planes: Vec<Mapping>,
    /// The driver has it.
    queued: bool,
}

impl Queue {
    /// Asks for `count` buffers of the driver's memory (it may give more or fewer) and maps them.
    ///
    /// # Errors
    /// The system's; EBUSY if somebody else streams from the device.
    pub fn mapped(device: Arc<Device>, kind: QueueKind, count: u32) -> io::Result<Self> {
        let mut queue = Self::request(device, kind, sys::v4l2_memory_V4L2_MEMORY_MMAP, count)?;
        for index in 0..queue.slots.len() {
            queue.slots[index].planes = queue.map(index as u32)?;
        }
        Ok(queue)
    }

    /// Asks for `count` places for other devices' memory in an output queue: the driver only reads it.
    ///
    /// # Errors
    /// The driver does not take DMABUFs, or the system's.
    pub fn importing(device: Arc<Device>, kind: QueueKind, count: u32) -> io::Result<Self> {
        if !kind.is_output() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::request(device, kind, sys::v4l2_memory_V4L2_MEMORY_DMABUF, count)
    }

    fn request(device: Arc<Device>, kind: QueueKind, memory: u32, count: u32) -> io::Result<Self> {
        let mut queue = Self {
            device,
            kind,
            memory,
            slots: Vec::new(),
            streaming: false,
        };
        let granted = queue.request_buffers(count)?;
        queue.slots.extend((0..granted).map(|_| Slot {
            planes: Vec::new(),
            queued: false,
        }));
        Ok(queue)
    }

    /// How many buffers there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of them the driver has.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.queued).count() as u32
    }

    /// One that the driver does not have.
    #[must_use]
    pub fn free(&self) -> Option<u32> {
        self.slots.iter().position(|slot| !slot.queued).map(|index| index as u32)
    }

    /// The device whose queue this is.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Gives the driver every buffer it does not have (of a capture queue), and starts.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&mut self) -> io::Result<()> {
        if !self.kind.is_output() {
            for index in 0..self.len() {
                if !self.slots[index as usize].queued {
                    self.give(index)?;
                }
            }
        }
        self.stream(vidioc::VIDIOC_STREAMON)?;
        self.streaming = true;
        Ok(())
    }

    /// The memory planes of a buffer as DMABUFs, for other devices; with the length of each.
    ///
    /// # Errors
    /// The driver cannot share its memory, or the system's.
    pub fn export(&self, index: u32) -> io::Result<Vec<(OwnedFd, u32)>> {
        let slot = self.slots.get(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
        let export = |(plane, mapping): (usize, &Mapping)| {
            // SAFETY: plain integers, for which zeros are valid.
            let mut raw: sys::v4l2_exportbuffer = unsafe { std::mem::zeroed() };
            raw.type_ = self.kind.raw();
            raw.index = index;
            raw.plane = plane as u32;
            raw.flags = rustix::fs::OFlags::CLOEXEC.bits();
            // SAFETY: VIDIOC_EXPBUF reads a v4l2_exportbuffer and fills in its descriptor.
            unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_EXPBUF, &mut raw)? };
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok((unsafe { OwnedFd::from_raw_fd(raw.fd) }, mapping.length() as u32))
        };
        slot.planes.iter().enumerate().map(export).collect()
    }

    /// Gives a buffer of a capture queue to the driver: from here on it may write to it.
    ///
    /// # Errors
    /// ENODEV: the device is gone. EINVAL: the driver does not take it.
    pub fn give(&mut self, index: u32) -> io::Result<()> {
        self.enqueue(index, &mut Planes::default(), Duration::ZERO)
    }

    /// Gives a buffer of an output queue to the driver, of whose planes so many bytes are filled.
    ///
    /// # Errors
    /// As [`Queue::give`].
    pub fn send(&mut self, index: u32, used: &[u32], stamp: Duration) -> io::Result<()> {
        let mut planes = Planes::default();
        let slot = self.slots.get(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
        for ((plane, used), mapping) in planes.0.iter_mut().zip(used).zip(&slot.planes) {
            plane.bytesused = *used;
            plane.length = mapping.length() as u32;
        }
        self.enqueue(index, &mut planes, stamp)
    }

    /// Gives another device's buffer to the driver, in place `index` of an importing queue.
    ///
    /// # Errors
    /// EINVAL: the driver cannot use this memory. ENODEV: the device is gone.
    pub fn send_shared(&mut self, index: u32, shared: &[SharedPlane<'_>], stamp: Duration) -> io::Result<()> {
        let mut planes = Planes::default();
        for (plane, shared) in planes.0.iter_mut().zip(shared) {
            plane.bytesused = shared.used;
            plane.length = shared.length;
            plane.m.fd = shared.memory.as_raw_fd();
        }
        self.enqueue(index, &mut planes, stamp)
    }

    fn enqueue(&mut self, index: u32, planes: &mut Planes, stamp: Duration) -> io::Result<()> {
        // A buffer that the driver has already would be lent twice.
        let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| !slot.queued) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut raw = empty_buffer(self.kind, self.memory, index);
        raw.timestamp.tv_sec = stamp.as_secs() as _;
        raw.timestamp.tv_usec = stamp.subsec_micros() as _;
        raw.field = sys::v4l2_field_V4L2_FIELD_NONE;
        if self.kind.is_multi_planar() {
            raw.length = slot.planes.len().max(planes.used()).clamp(1, MAX_PLANES) as u32;
            raw.m.planes = planes.0.as_mut_ptr();
        } else {
            let plane = planes.0[0];
            raw.bytesused = plane.bytesused;
            raw.length = plane.length;
            if self.memory == sys::v4l2_memory_V4L2_MEMORY_DMABUF {
                // SAFETY: planes of an importing queue were made with their descriptor.
                raw.m.fd = unsafe { plane.m.fd };
            }
        }
        // SAFETY: VIDIOC_QBUF reads a v4l2_buffer and, of a multi-planar one, `length` planes at `m.planes`, of which there are
        // MAX_PLANES; it updates both. Nothing borrows the buffer's bytes: they are lent by `&self` and `&mut self` only.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_QBUF, &mut raw)? };
        slot.queued = true;
        Ok(())
    }

    /// Takes the oldest buffer that the driver is done with. `None` if there is none.
    ///
    /// # Errors
    /// ENODEV: the device is gone. EIO: it failed. EINVAL: it does not stream (any more). EPIPE: an encoder that was stopped
    /// has given out its last buffer.
    pub fn take(&mut self) -> io::Result<Option<Taken>> {
        let mut planes = Planes::default();
        let mut raw = empty_buffer(self.kind, self.memory, 0);
        if self.kind.is_multi_planar() {
            raw.length = MAX_PLANES as u32;
            raw.m.planes = planes.0.as_mut_ptr();
        }
        // SAFETY: VIDIOC_DQBUF reads type and memory of a v4l2_buffer and fills in the rest; of a multi-planar one, also up to
        // `length` planes at `m.planes`, of which there are MAX_PLANES.
        match unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_DQBUF, &mut raw) } {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            result => result?,
        }
        let Some(slot) = self.slots.get_mut(raw.index as usize) else {
            return Err(io::Error::other(format!(
                "the driver handed back a buffer {} that it never gave",
                raw.index
            )));
        };
        slot.queued = false;
        if !self.kind.is_multi_planar() {
            planes.0[0].bytesused = raw.bytesused;
        }
        let mut taken = Taken {
            index: raw.index,
            sequence: raw.sequence,
            stamp: stamp(&raw),
            raw_stamp: raw_stamp(&raw),
            damaged: raw.flags & sys::V4L2_BUF_FLAG_ERROR != 0,
            last: raw.flags & sys::V4L2_BUF_FLAG_LAST != 0,
            planes: slot.planes.len(),
            spans: [(0, 0); MAX_PLANES],
        };
        for ((span, mapping), plane) in taken.spans.iter_mut().zip(&slot.planes).zip(&planes.0) {
            // `bytesused` counts from the plane's beginning, what lies before the data included.
            let (end, begin) = (plane.bytesused as usize, plane.data_offset as usize);
            taken.damaged |= end > mapping.length() || begin > end;
            *span = (begin.min(end).min(mapping.length()), end.min(mapping.length()));
        }
        Ok(Some(taken))
    }

    /// What is in a plane of a buffer that was taken; empty for one that the driver has again, or whose memory is not ours to see.
    #[must_use]
    pub fn data(&self, taken: &Taken, plane: usize) -> &[u8] {
        let slot = self.slots.get(taken.index as usize).filter(|slot| !slot.queued);
        let mapping = slot.and_then(|slot| slot.planes.get(plane));
        let (begin, end) = taken.spans.get(plane).copied().unwrap_or_default();
        mapping.and_then(|mapping| mapping.bytes().get(begin..end)).unwrap_or_default()
    }

    /// A plane of a buffer of an output queue, to be filled. `None` if the driver has it, or its memory is not ours to see.
    #[must_use]
    pub fn room(&mut self, index: u32, plane: usize) -> Option<&mut [u8]> {
        if !self.kind.is_output() {
            return None;
        }
        let slot = self.slots.get_mut(index as usize).filter(|slot| !slot.queued)?;
        slot.planes.get_mut(plane).map(Mapping::bytes_mut)
    }

    /// Takes the oldest filled buffer, lets `read` have it, and gives it back to the driver. `None` if none is filled.
    ///
    /// # Errors
    /// As [`Queue::take`].
    pub fn read<R>(&mut self, read: impl FnOnce(Filled<'_>) -> R) -> io::Result<Option<R>> {
        let Some(taken) = self.take()? else { return Ok(None) };
        let result = read(Filled {
            data: self.data(&taken, 0),
            taken,
        });
        if !taken.last {
            self.give(taken.index)?;
        }
        Ok(Some(result))
    }

    fn request_buffers(&self, count: u32) -> io::Result<u32> {
        // SAFETY: plain integers, for which zeros are valid.
        let mut raw: sys::v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        raw.count = count;
        raw.type_ = self.kind.raw();
        raw.memory = self.memory;
        // SAFETY: VIDIOC_REQBUFS reads and fills in a v4l2_requestbuffers.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_REQBUFS, &mut raw)? };
        Ok(raw.count)
    }

    fn map(&self, index: u32) -> io::Result<Vec<Mapping>> {
        let mut planes = Planes::default();
        let mut raw = empty_buffer(self.kind, self.memory, index);
        if self.kind.is_multi_planar() {
            raw.length = MAX_PLANES as u32;
            raw.m.planes = planes.0.as_mut_ptr();
        }
        // SAFETY: VIDIOC_QUERYBUF reads type and index of a v4l2_buffer and fills in the rest; of a multi-planar one, also up to
        // `length` planes at `m.planes`, of which there are MAX_PLANES.
        unsafe { ioctl(self.device.fd(), vidioc::VIDIOC_QUERYBUF, &mut raw)? };
        let count = if self.kind.is_multi_planar() { raw.length as usize } else { 1 };
        if !self.kind.is_multi_planar() {
            planes.0[0].length = raw.length;
            // SAFETY: after VIDIOC_QUERYBUF on a memory-mapped buffer, `offset` is the union's member.
            planes.0[0].m.mem_offset = unsafe { raw.m.offset };
        }
        // SAFETY: `self.device` keeps the descriptor open for as long as this borrow lives.
        let fd = unsafe { BorrowedFd::borrow_raw(self.device.fd()) };
        let map = |plane: &sys::v4l2_plane| {
            // SAFETY: after VIDIOC_QUERYBUF on a memory-mapped buffer, `mem_offset` is the union's member.
            let offset = unsafe { plane.m.mem_offset };
            Mapping::new(fd, offset.into(), plane.length as usize, self.kind.is_output())
        };
        planes.0.iter().take(count).map(map).collect()
    }

    fn stream(&self, request: v4l::v4l2::vidioc::_IOC_TYPE) -> io::Result<()> {
        let mut kind = self.kind.raw() as std::ffi::c_int;
        // SAFETY: VIDIOC_STREAMON and VIDIOC_STREAMOFF read an int.
        unsafe { ioctl(self.device.fd(), request, &mut kind) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // A device that is gone says so here too; there is nothing left to stop or free then.
        if self.streaming {
            let _ = self.stream(vidioc::VIDIOC_STREAMOFF);
        }
        self.slots.clear();
        if let Err(error) = self.request_buffers(0)
            && error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
        {
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when the kernel is done with a device that is gone"
            )]
            std::thread::sleep(UNPLUGGED);
        }
    }
}

/// What an ioctl on a multi-planar buffer points to; a single-planar one uses the first for its own fields.
struct Planes([sys::v4l2_plane; MAX_PLANES]);

impl Default for Planes {
    fn default() -> Self {
        // SAFETY: integers, and a union of integers; zeros are valid.
        Self(unsafe { std::mem::zeroed() })
    }
}

impl Planes {
    /// How many planes have a length.
    fn used(&self) -> usize {
        self.0.iter().take_while(|plane| plane.length > 0).count()
    }
}

pub(super) fn empty_buffer(kind: QueueKind, memory: u32, index: u32) -> sys::v4l2_buffer {
    // SAFETY: integers, and a union of integers and a pointer that is only used where it was set; zeros are valid.
    let mut raw: sys::v4l2_buffer = unsafe { std::mem::zeroed() };
    raw.index = index;
    raw.type_ = kind.raw();
    raw.memory = memory;
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_video_device_does_not_stream() {
        let null = Arc::new(Device::open(std::path::Path::new("/dev/null")).expect("everybody may open it"));
        assert!(Queue::mapped(Arc::clone(&null), QueueKind::Capture, 4).is_err());
        assert!(Queue::importing(Arc::clone(&null), QueueKind::OutputMulti, 4).is_err());
        let refused = Queue::importing(null, QueueKind::Capture, 4).err().map(|error| error.kind());
        assert_eq!(
            refused,
            Some(io::ErrorKind::InvalidInput),
            "a driver would write to memory that is lent for reading"
        );
    }
}
