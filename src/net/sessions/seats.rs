//! Who may watch when not all can.
//!
//! Anybody may send an offer, any number of them, and under any names. So an offer takes no seat: the first packet does that comes from
//! its viewer, for only who has read our answer can make one. Until then a session costs little, and the oldest such one goes when
//! there are too many: so a flood of offers keeps no seat from those who mean it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Sessions;
use crate::protocol::{ErrorCode, RpcError};
use crate::session::{Ending, WallClock};

/// Sessions of viewers who were not heard of yet, of all drivers. Each costs about 40 KiB.
pub const MAX_UNHEARD: usize = 64;

/// The seats that all drivers of an agent share.
#[derive(Clone)]
pub struct Seats {
    taken: Arc<AtomicU32>,
    most: u32,
}

/// A seat that a viewer has; free again when dropped.
pub struct Seat(Arc<AtomicU32>);

impl Seats {
    /// Seats for `most` viewers at once.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// A seat, if one is free.
    fn take(&self) -> Option<Seat> {
        let one_more = |taken| (taken < self.most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Seat(Arc::clone(&self.taken)))
    }

    fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.most
    }

    fn refusal(&self) -> String {
        format!(
            "{} viewers are watching already, which is as many as this device is set to serve",
            self.most
        )
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    /// Makes room for a session that begins.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyViewers`] when every seat is taken.
    pub(super) fn make_room(&mut self, clock: &WallClock) -> Result<(), RpcError> {
        if self.shared.seats.are_taken() {
            return Err(RpcError::new(ErrorCode::TooManyViewers, self.shared.seats.refusal()));
        }
        // Keys rise, so the lowest is the oldest.
        if self.unheard().count() >= self.shared.max_unheard
            && let Some(oldest) = self.unheard().min()
        {
            let sentence = "too many others came while nothing was heard of this viewer; open a new session";
            self.close(oldest, Ending::Displaced, sentence, clock);
        }
        Ok(())
    }

    /// The viewer of this session was heard: it sits down, if there is a seat.
    pub(super) fn heard(&mut self, key: u64, clock: &WallClock) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if slot.seat.is_some() {
            return;
        }
        slot.seat = self.shared.seats.take();
        if slot.seat.is_none() {
            let sentence = self.shared.seats.refusal();
            self.close(key, Ending::NoSeat, &sentence, clock);
        }
    }

    fn unheard(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().filter(|(_, slot)| slot.seat.is_none()).map(|(key, _)| *key)
    }
}
