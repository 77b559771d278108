//! Who may watch when not all can.
//!
//! Anybody may send an offer, any number of them, and under any names. So an offer takes no seat: the first packet does that comes from
//! its viewer, for only who has read our answer can make one. Until then a session costs little, and the oldest such one goes when
//! there are too many: so a flood of offers keeps no seat from those who mean it.

use super::Sessions;
use crate::protocol::{ErrorCode, RpcError};
use crate::session::{Ending, WallClock};

/// Sessions of viewers who were not heard of yet. Each costs about 40 KiB.
pub const MAX_UNHEARD: usize = 64;

impl Sessions {
    /// Makes room for a session that begins.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyViewers`] when every seat is taken.
    pub(super) fn make_room(&mut self, clock: &WallClock) -> Result<(), RpcError> {
        let unheard = self.unheard().count();
        if self.slots.len() - unheard >= self.context.max_viewers as usize {
            return Err(RpcError::new(ErrorCode::TooManyViewers, self.all_taken()));
        }
        // Keys rise, so the lowest is the oldest.
        if unheard >= MAX_UNHEARD
            && let Some(oldest) = self.unheard().min()
        {
            let sentence = "too many others came while nothing was heard of this viewer; open a new session";
            self.close(oldest, Ending::Displaced, sentence, clock);
        }
        Ok(())
    }

    /// The viewer of this session was heard: it sits down, if there is a seat.
    pub(super) fn heard(&mut self, key: u64, clock: &WallClock) {
        if self.slots.get(&key).is_none_or(|slot| slot.heard) {
            return;
        }
        let seated = self.slots.len() - self.unheard().count();
        if seated >= self.context.max_viewers as usize {
            self.close(key, Ending::NoSeat, &self.all_taken(), clock);
        } else if let Some(slot) = self.slots.get_mut(&key) {
            slot.heard = true;
        }
    }

    fn unheard(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().filter(|(_, slot)| !slot.heard).map(|(key, _)| *key)
    }

    fn all_taken(&self) -> String {
        format!(
            "{} viewers are watching already, which is as many as this device is set to serve",
            self.context.max_viewers
        )
    }
}
