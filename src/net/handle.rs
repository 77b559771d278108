//! How the rest of the agent talks to a driver's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rustix::fd::OwnedFd;
use tokio::sync::oneshot;

use super::figures::Figures;
use crate::media::Bitrate;
use crate::protocol::{Candidates, Close, ErrorCode, Message, Offer, OfferReply, PeerId, QualityReply, Role, RpcError, SessionQuality};

/// Orders that may wait for a driver: it answers in microseconds, so more than this is a flood.
pub const MAX_COMMANDS: usize = 256;

/// Bytes that viewers may have in the commands that wait: 64 offers of the usual size, and 16 of the largest.
pub const MAX_COMMAND_BYTES: usize = 1024 * 1024;

/// Far above what browsers write.
const OFFER_BYTES: usize = 16 * 1024;

/// What one viewer wants, or is told.
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
    /// A message for the data channel of `peer`'s session.
    Message { peer: PeerId, session: String, message: Message },
    /// A viewer wishes for another rung.
    Quality {
        peer: PeerId,
        wish: SessionQuality,
        reply: oneshot::Sender<Result<QualityReply, RpcError>>,
    },
    /// A viewer wants a key frame.
    KeyFrame { peer: PeerId },
}

impl Command {
    /// Whom it is about.
    pub(super) fn peer(&self) -> &PeerId {
        match self {
            Self::Offer { peer, .. }
            | Self::Candidates { peer, .. }
            | Self::Close { peer, .. }
            | Self::Message { peer, .. }
            | Self::Quality { peer, .. }
            | Self::KeyFrame { peer } => peer,
        }
    }

    /// What it counts for [`MAX_COMMAND_BYTES`]: the bytes in it whose number a viewer chose. An offer counts for more than it has,
    /// because the driver takes long over one: what waits is answered in a tenth of a second.
    fn size(&self) -> usize {
        match self {
            Self::Offer { offer, .. } => (offer.sdp.len() + offer.nonce.len()).max(OFFER_BYTES),
            Self::Candidates { candidates, .. } => candidates.candidates.iter().map(|line| line.len() + size_of::<String>()).sum(),
            Self::Close { close, .. } => close.reason.len() + close.session.len(),
            Self::Quality { wish, .. } => wish.session.len(),
            Self::Message { .. } | Self::KeyFrame { .. } => 0,
        }
    }
}

/// What a driver is asked to do.
#[derive(Debug)]
pub enum Order {
    /// For the viewer whom it names.
    Viewer(Command),
    /// A stream's format changed, or one of its rungs came or went: sessions that can't carry it have to be made anew.
    FormatChanged { stream: String },
    /// The encoder of a stream's high rung is asked for another bit rate.
    TargetChanged { stream: String, bitrate: Bitrate },
    /// Somebody wants to know how it goes.
    Figures { reply: oneshot::Sender<Figures> },
    /// Close all sessions with this reason, and end.
    Shutdown { reason: String },
}

impl Order {
    fn size(&self) -> usize {
        match self {
            Self::Viewer(command) => command.size(),
            Self::FormatChanged { .. } | Self::TargetChanged { .. } | Self::Figures { .. } | Self::Shutdown { .. } => 0,
        }
    }
}

/// What a driver tells the rest of the agent.
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
    /// This machine's addresses have changed.
    Moved,
    /// A session is over.
    Closed { peer: PeerId, close: Close },
}

/// Sends orders to one driver's thread and wakes it.
#[derive(Clone)]
pub struct DriverHandle {
    orders: SyncSender<Order>,
    /// Bytes in the orders that wait.
    waiting: Arc<AtomicUsize>,
    wake: Arc<OwnedFd>,
    viewers: Arc<AtomicU32>,
    /// Orders that found the queue full.
    refused: Arc<AtomicU64>,
}

/// A driver's end of the queue.
pub struct Orders {
    orders: Receiver<Order>,
    waiting: Arc<AtomicUsize>,
}

impl Orders {
    /// The next order, if one waits.
    pub fn next(&self) -> Option<Order> {
        let order = self.orders.try_recv().ok()?;
        self.waiting.fetch_sub(order.size(), Ordering::Relaxed);
        Some(order)
    }
}

/// A queue of orders; `wake` is rung at each, and `viewers` is told to whoever asks.
pub fn queue(wake: Arc<OwnedFd>, viewers: Arc<AtomicU32>) -> (DriverHandle, Orders) {
    let (sender, orders) = sync_channel(MAX_COMMANDS);
    let waiting = Arc::new(AtomicUsize::new(0));
    let handle = DriverHandle {
        orders: sender,
        waiting: Arc::clone(&waiting),
        wake,
        viewers,
        refused: Arc::default(),
    };
    (handle, Orders { orders, waiting })
}

impl DriverHandle {
    /// Hands an order over; never waits.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when too many wait already, or too much, [`ErrorCode::Unavailable`] when the driver has ended.
    pub fn send(&self, order: Order) -> Result<(), RpcError> {
        let size = order.size();
        let busy = || {
            self.refused.fetch_add(1, Ordering::Relaxed);
            RpcError::new(ErrorCode::Busy, "the device has too much to do; try again in a second")
        };
        let waiting = self.waiting.fetch_add(size, Ordering::Relaxed) + size;
        let result = if size > 0 && waiting > MAX_COMMAND_BYTES {
            Err(busy())
        } else {
            self.orders.try_send(order).map_err(|error| match error {
                TrySendError::Full(_) => busy(),
                TrySendError::Disconnected(_) => RpcError::new(ErrorCode::Unavailable, "the device is shutting down"),
            })
        };
        if result.is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
        }
        wake(&self.wake);
        result
    }

    /// Viewers at this moment.
    #[must_use]
    pub fn viewers(&self) -> u32 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Orders that were refused because too many waited.
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
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn small_queue() -> (DriverHandle, Orders) {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd"));
        queue(wake, Arc::default())
    }

    #[test]
    fn more_commands_than_may_wait_are_refused_and_counted() {
        let (handle, waiting) = small_queue();
        let close = || Order::FormatChanged { stream: "card".into() };
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

    #[test]
    fn more_bytes_of_viewers_than_may_wait_are_refused_until_the_driver_has_dealt_with_some() {
        let (handle, waiting) = small_queue();
        let candidates = || {
            Order::Viewer(Command::Candidates {
                peer: PeerId::parse("mallory").expect("a name"),
                candidates: Candidates {
                    session: "s".into(),
                    candidates: vec!["x".repeat(60_000)],
                },
            })
        };
        let sent = (0..100).filter(|_| handle.send(candidates()).is_ok()).count();
        assert_eq!((sent, handle.refused()), (MAX_COMMAND_BYTES / 60_024, 83));
        handle
            .send(Order::FormatChanged { stream: "card".into() })
            .expect("what is ours has room");
        waiting.next().expect("a command");
        handle.send(candidates()).expect("there is room for another one");
        handle.send(candidates()).expect_err("but not for two");
        while waiting.next().is_some() {}
        assert_eq!(waiting.waiting.load(Ordering::Relaxed), 0, "nothing waits, and nothing is counted");
    }
}
