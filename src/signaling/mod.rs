//! The carriers of protocol messages: MQTT, HTTP for the page, and WHEP for players of others.

mod backoff;
mod counters;
mod gate;
mod guard;
pub mod http;
pub mod mqtt;
mod pace;
mod replies;
mod tls;
mod trouble;
mod web;
pub mod whep;

pub use guard::Guard;

use crate::protocol::{Message, PeerId, Role};

pub use counters::{Counters, Figures, Loss, Refusal};

/// A message on its way to a viewer.
#[derive(Debug)]
pub struct Outgoing {
    pub peer: PeerId,
    pub message: Message,
}

/// What a peer may do that speaks JSON-RPC, by MQTT or HTTP. Until pairing exists everybody who reaches the broker or the page may
/// watch, and nothing more. For WHEP, see there.
#[must_use]
pub fn role_of(_peer: &PeerId) -> Role {
    Role::View
}
