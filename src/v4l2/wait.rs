//! Waiting for devices: which of them has something, and why one has nothing any more.
#![expect(clippy::disallowed_methods, reason = "a signal must not make a wait longer")]

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Device;

/// What is waited for at a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// A buffer of its capture queue is filled.
    pub filled: bool,
    /// A buffer of its output queue is free again.
    pub emptied: bool,
    /// An event is pending.
    pub event: bool,
}

impl Interest {
    /// A filled buffer and nothing else.
    pub const FILLED: Self = Self {
        filled: true,
        emptied: false,
        event: false,
    };
}

/// What [`wait`] found at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// This much of what was waited for.
    Has(Interest),
    /// Nothing within the time.
    Timeout,
    /// The driver reports an error (POLLERR): the next dequeue says which. An encoder also reports one when it has no buffer.
    Error,
    /// The device is gone (POLLHUP).
    Gone,
}

/// Waits until one of the devices has what is wanted of it or fails, for at most `timeout`.
///
/// # Errors
/// The system's.
pub fn wait<const N: usize>(devices: [(&Device, Interest); N], timeout: Duration) -> io::Result<[Ready; N]> {
    let until = Instant::now() + timeout;
    // SAFETY: the borrowed devices keep their descriptors open for as long as these borrows live.
    let mut fds =
        devices.map(|(device, interest)| PollFd::from_borrowed_fd(unsafe { BorrowedFd::borrow_raw(device.fd()) }, flags(interest)));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos() as _,
        };
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(fds.map(|fd| found(fd.revents()))),
        }
    }
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.filled);
    flags.set(PollFlags::OUT, interest.emptied);
    flags.set(PollFlags::PRI, interest.event);
    flags
}

fn found(flags: PollFlags) -> Ready {
    // The kernel answers a poll of an unregistered device with ERR, HUP and PRI, of a failed queue with ERR.
    if flags.intersects(PollFlags::HUP | PollFlags::NVAL) {
        return Ready::Gone;
    }
    // A buffer filled before the error is still good, but vb2 hands none out once its queue failed.
    if flags.contains(PollFlags::ERR) {
        return Ready::Error;
    }
    let has = Interest {
        filled: flags.contains(PollFlags::IN),
        emptied: flags.contains(PollFlags::OUT),
        event: flags.contains(PollFlags::PRI),
    };
    if has == Interest::default() {
        Ready::Timeout
    } else {
        Ready::Has(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_a_device_that_is_gone_and_silence_are_three_things() {
        use PollFlags as P;
        assert_eq!(found(P::ERR | P::HUP | P::PRI), Ready::Gone);
        assert_eq!(found(P::ERR | P::PRI), Ready::Error);
        assert_eq!(found(P::empty()), Ready::Timeout);
        assert_eq!(found(P::IN), Ready::Has(Interest::FILLED));
        let both = Interest {
            filled: false,
            emptied: true,
            event: true,
        };
        assert_eq!(found(P::OUT | P::PRI), Ready::Has(both));
        assert_eq!(flags(both), P::OUT | P::PRI);
    }
}
