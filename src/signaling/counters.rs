//! What a carrier counts. It writes, whoever watches over the device reads; nothing waits for either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Why a message of a peer was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was retained, so nobody knows when it was meant.
    Retained,
    /// Its topic names no peer.
    Topic,
    /// It is no JSON-RPC.
    Unparsable,
    /// The peer speaks too fast, and was told so.
    Pace,
    /// The peer speaks too fast and has been told.
    Ignored,
    /// Too many of the peer's requests wait for their replies.
    Requests,
    /// It came twice.
    Repeated,
    /// It is larger than is read.
    Size,
    /// It did not arrive in time.
    Slow,
    /// It is of a page of another origin, or names another device.
    Foreign,
}

impl Refusal {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::Retained,
        Self::Topic,
        Self::Unparsable,
        Self::Pace,
        Self::Ignored,
        Self::Requests,
        Self::Repeated,
        Self::Size,
        Self::Slow,
        Self::Foreign,
    ];

    /// Its name as a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Topic => "topic",
            Self::Unparsable => "unparsable",
            Self::Pace => "pace",
            Self::Ignored => "ignored",
            Self::Requests => "requests",
            Self::Repeated => "repeated",
            Self::Size => "size",
            Self::Slow => "slow",
            Self::Foreign => "foreign",
        }
    }
}

/// Why a message to a peer was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// There is no connection to the broker; by HTTP: the peer does not listen for events.
    Disconnected,
    /// The broker takes messages more slowly than there are new ones.
    Queue,
    /// The carrier did not get round to it.
    Waiting,
    /// The peer does not read its events; they end.
    Unread,
}

impl Loss {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Disconnected, Self::Queue, Self::Waiting, Self::Unread];

    /// Its name as a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Queue => "queue",
            Self::Waiting => "waiting",
            Self::Unread => "unread",
        }
    }
}

/// One carrier's counters.
#[derive(Debug, Default)]
pub struct Counters {
    connected: AtomicBool,
    connections: AtomicU64,
    failures: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    unmetered: AtomicU64,
    forgotten: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    lost: [AtomicU64; Loss::ALL.len()],
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether the broker has let us in.
    pub connected: bool,
    /// How often it has.
    pub connections: u64,
    /// Connections that broke and tries that failed.
    pub failures: u64,
    /// Messages of peers.
    pub received: u64,
    /// Messages handed over to be sent, the status included.
    pub sent: u64,
    /// Messages taken from peers beyond those whose pace can be remembered.
    pub unmetered: u64,
    /// Sessions of WHEP that were forgotten because there were too many.
    pub forgotten: u64,
    /// In the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// In the order of [`Loss::ALL`].
    pub lost: [u64; Loss::ALL.len()],
}

impl Counters {
    /// What was counted so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            connected: self.connected.load(Ordering::Relaxed),
            connections: read(&self.connections),
            failures: read(&self.failures),
            received: read(&self.received),
            sent: read(&self.sent),
            unmetered: read(&self.unmetered),
            forgotten: read(&self.forgotten),
            refused: self.refused.each_ref().map(read),
            lost: self.lost.each_ref().map(read),
        }
    }

    /// A message to a peer was not sent.
    pub fn lose(&self, loss: Loss) {
        add(&self.lost[loss as usize]);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        add(&self.refused[refusal as usize]);
    }

    pub(super) fn connect(&self) {
        self.connected.store(true, Ordering::Relaxed);
        add(&self.connections);
    }

    pub(super) fn disconnect(&self) {
        self.connected.store(false, Ordering::Relaxed);
        add(&self.failures);
    }

    pub(super) fn receive(&self) {
        add(&self.received);
    }

    pub(super) fn send(&self) {
        add(&self.sent);
    }

    pub(super) fn forget(&self, sessions: u64) {
        self.forgotten.fetch_add(sessions, Ordering::Relaxed);
    }

    pub(super) fn take_unmetered(&self) {
        add(&self.unmetered);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_place_and_name() {
        let counters = Counters::default();
        for (times, refusal) in Refusal::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.refuse(refusal));
        }
        for (times, loss) in Loss::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.lose(loss));
        }
        let figures = counters.figures();
        assert_eq!(figures.refused, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(figures.lost, [1, 2, 3, 4]);
    }
}
