//! How the rest of the agent talks to the driver's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use rustix::fd::OwnedFd;
use tokio::sync::oneshot;

use super::figures::Figures;
use crate::protocol::{Candidates, Close, ErrorCode, Message, Offer, OfferReply, PeerId, Role, RpcError};

/// Commands that may wait for the driver: it answers in microseconds, so more than this is a flood.
pub const MAX_COMMANDS: usize = 256;

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Command {
    /// A viewer's offer.
    Offer {
        peer: PeerId,
        role: Role,
        offer: Offer,
        reply: oneshot::Sender<Result<OfferReply, RpcError>>,
    },
    /// A viewer's candidates.
    Candidates { peer: PeerId, candidates: Candidates },
    /// A viewer leaves.
    Close { peer: PeerId, close: Close },
    /// A message for a session's data channel.
    Message { session: String, message: Message },
    /// A viewer wants a key frame.
    KeyFrame { peer: PeerId },
    /// A stream's format changed: sessions whose SDP is no longer true have to be made anew.
    FormatChanged { stream: String },
    /// Somebody wants to know how it goes.
    Figures { reply: oneshot::Sender<Figures> },
    /// Close all sessions with this reason, and end.
    Shutdown { reason: String },
}

/// What the driver tells the rest of the agent.
#[derive(Debug)]
pub enum Notice {
    /// A viewer said something on its data channel.
    Message {
        session: String,
        peer: PeerId,
        role: Role,
        message: Message,
    },
    /// New local candidates for a session.
    Candidates { peer: PeerId, candidates: Candidates },
    /// A session is over.
    Closed { peer: PeerId, close: Close },
}

/// Sends commands to the driver's thread and wakes it.
#[derive(Clone)]
pub struct DriverHandle {
    pub(super) commands: SyncSender<Command>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) viewers: Arc<AtomicU32>,
    /// Commands that found the queue full.
    pub(super) refused: Arc<AtomicU64>,
}

impl DriverHandle {
    /// Hands a command over; never waits.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when too many wait already, [`ErrorCode::Unavailable`] when the driver has ended.
    pub fn send(&self, command: Command) -> Result<(), RpcError> {
        let result = self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                RpcError::new(ErrorCode::Busy, "the device has too much to do; try again in a second")
            }
            TrySendError::Disconnected(_) => RpcError::new(ErrorCode::Unavailable, "the device is shutting down"),
        });
        wake(&self.wake);
        result
    }

    /// Viewers at this moment.
    #[must_use]
    pub fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Commands that were refused because too many waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Makes the driver's poll return. A counter that is full has woken it already.
pub fn wake(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn more_commands_than_may_wait_are_refused_and_counted() {
        let (commands, waiting) = sync_channel(MAX_COMMANDS);
        let handle = DriverHandle {
            commands,
            wake: Arc::new(eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd")),
            viewers: Arc::default(),
            refused: Arc::default(),
        };
        let close = || Command::FormatChanged { stream: "card".into() };
        for _ in 0..MAX_COMMANDS {
            handle.send(close()).expect("there is room");
        }
        assert_eq!(handle.refused(), 0);
        let error = handle.send(close()).expect_err("the queue is full");
        assert_eq!((error.code, handle.refused()), (ErrorCode::Busy.number(), 1));
        drop(waiting);
        handle.send(close()).expect_err("the driver is gone");
        assert_eq!(handle.refused(), 1, "a driver that is gone is no full queue");
    }
}
