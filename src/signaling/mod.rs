//! The carriers of protocol messages.

mod backoff;
mod counters;
pub mod mqtt;
mod pace;
mod replies;
mod tls;
mod trouble;

use crate::protocol::{Message, PeerId, Role};

pub use counters::{Counters, Figures, Loss, Refusal};

/// A message on its way to a viewer.
#[derive(Debug)]
pub struct Outgoing {
    pub peer: PeerId,
    pub message: Message,
}

/// What a peer may do. Until pairing exists everybody who reaches the broker may watch, and nothing more.
#[must_use]
pub fn role_of(_peer: &PeerId) -> Role {
    Role::View
}
