//! Requests that wait for their answers.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::message::TransactionId;

use super::Carrier;

/// The first pause before a request is sent again over UDP. RFC 8489, 6.2.1, recommends half a second for paths that nobody knows; a server
/// that people watch a camera through is nearer, and each lost packet holds a viewer up.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a request is sent over UDP. With 20 % loss one in 15,000 gets no answer; a dead server is known after 4.4 s.
pub const SENDS: u32 = 6;
/// How long an answer may take over a stream, which sends again by itself.
const STREAM_PATIENCE: Duration = Duration::from_secs(8);
/// Requests that wait at once; more wait for their turn.
pub const MAX_WAITING: usize = 32;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Allocate,
    /// Keeps the allocation.
    Refresh,
    /// Lets go of one that an earlier life of ours has left.
    Free,
    Permission(IpAddr),
    Channel(SocketAddr, u16),
}

/// One request.
#[derive(Debug)]
pub struct Transaction {
    pub id: TransactionId,
    pub ask: Ask,
    /// Whether it proves who we are; then so must the answer.
    pub signed: bool,
    /// How often it was asked again under another id, because the server wanted it signed otherwise.
    pub resigned: u8,
    bytes: Vec<u8>,
    sends_left: u32,
    pause: Duration,
    due: Instant,
}

/// All requests of one allocation.
#[derive(Debug)]
pub struct Transactions {
    carrier: Carrier,
    waiting: Vec<Transaction>,
}

impl Transactions {
    pub fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            waiting: Vec::new(),
        }
    }

    /// Remembers a request that is being sent.
    pub fn add(&mut self, id: TransactionId, ask: Ask, (signed, resigned): (bool, u8), bytes: Vec<u8>, now: Instant) {
        let (sends_left, pause) = match self.carrier {
            Carrier::Datagrams => (SENDS - 1, FIRST_PAUSE),
            Carrier::Stream => (0, STREAM_PATIENCE),
        };
        self.waiting.push(Transaction {
            id,
            ask,
            signed,
            resigned,
            bytes,
            sends_left,
            pause,
            due: now + pause,
        });
    }

    /// The request that `id` belongs to.
    pub fn find(&self, id: TransactionId) -> Option<&Transaction> {
        self.waiting.iter().find(|transaction| transaction.id == id)
    }

    /// The same, which then waits no longer.
    pub fn take(&mut self, id: TransactionId) -> Option<Transaction> {
        let index = self.waiting.iter().position(|transaction| transaction.id == id)?;
        Some(self.waiting.swap_remove(index))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Whether `ask` waits for its answer.
    pub fn is_waiting(&self, ask: impl Fn(Ask) -> bool) -> bool {
        self.waiting.iter().any(|transaction| ask(transaction.ask))
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// When [`Transactions::timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|transaction| transaction.due).min()
    }

    /// Gives `send` what has to be sent again, and returns what got no answer in all its time.
    pub fn timeout(&mut self, now: Instant, mut send: impl FnMut(&[u8])) -> Vec<Ask> {
        let mut unanswered = Vec::new();
        self.waiting.retain_mut(|transaction| {
            if transaction.due > now {
                return true;
            }
            if transaction.sends_left == 0 {
                unanswered.push(transaction.ask);
                return false;
            }
            send(&transaction.bytes);
            transaction.sends_left -= 1;
            transaction.pause = (transaction.pause * 2).min(LONGEST_PAUSE);
            transaction.due = now + transaction.pause;
            true
        });
        unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_udp_a_request_is_sent_again_and_given_up_after_some_four_seconds() {
        let start = Instant::now();
        let mut transactions = Transactions::new(Carrier::Datagrams);
        transactions.add(TransactionId::from(7), Ask::Allocate, (false, 0), vec![1], start);
        let mut sent = Vec::new();
        let given_up = loop {
            let due = transactions.deadline().expect("it waits");
            let unanswered = transactions.timeout(due, |_| sent.push((due - start).as_millis()));
            if !unanswered.is_empty() {
                break (unanswered, (due - start).as_millis());
            }
        };
        assert_eq!(sent, [200, 600, 1400, 2400, 3400]);
        assert_eq!(given_up, (vec![Ask::Allocate], 4400));
        assert_eq!(transactions.deadline(), None);
    }

    #[test]
    fn over_a_stream_it_is_sent_once() {
        let start = Instant::now();
        let mut transactions = Transactions::new(Carrier::Stream);
        transactions.add(TransactionId::from(7), Ask::Refresh, (true, 0), vec![1], start);
        let unanswered = transactions.timeout(start + STREAM_PATIENCE, |_| panic!("sent again"));
        assert_eq!(unanswered, [Ask::Refresh]);
    }
}
