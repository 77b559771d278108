//! What sessions have of STUN and TURN servers: our addresses as seen from there, and why there are none.

use std::net::SocketAddr;

use super::Sessions;
use crate::net::mappings;
use crate::net::relays::Change;
use crate::session::{Ending, Input, Relayed, Route, Transport, WallClock};

/// What is known of the TURN servers.
#[derive(Default)]
pub struct Held {
    addresses: Vec<Relayed>,
    /// Those through which no picture can go for a moment.
    full: Vec<SocketAddr>,
    /// Connections of viewers that take no more for a moment.
    full_streams: Vec<Route>,
    /// Why there is no address.
    trouble: Option<String>,
}

impl Held {
    pub fn addresses(&self) -> &[Relayed] {
        &self.addresses
    }

    /// Whether pictures that go this way have to wait.
    pub fn holds_back(&self, path: Option<Route>) -> bool {
        path.is_some_and(|path| match path.transport {
            Transport::Udp => self.full.contains(&path.source),
            Transport::Tcp => self.full_streams.contains(&path),
        })
    }

    /// Adds to the reason for which a session ended what the servers have to do with it.
    pub fn explain(&self, ending: Ending, reason: String) -> String {
        match (ending, &self.trouble) {
            (Ending::NeverConnected | Ending::PathLost, Some(trouble)) => format!("{reason}; {trouble}"),
            _ => reason,
        }
    }
}

impl Sessions {
    /// Tells every session what became of the TURN servers; returns the keys of those that changed.
    pub fn relays_changed(&mut self, changes: &[Change], trouble: Option<String>, clock: &WallClock) -> Vec<u64> {
        self.relayed.trouble = trouble;
        let mut changed = Vec::new();
        for change in changes {
            match change {
                Change::Up(relayed) => {
                    self.relayed.addresses.push(*relayed);
                    changed.extend(self.tell_all(&Input::RelayedAdded(*relayed), clock));
                }
                Change::Down(Some(relayed)) => {
                    self.relayed.addresses.retain(|known| known != relayed);
                    changed.extend(self.tell_all(&Input::RelayedGone(*relayed), clock));
                }
                Change::Down(None) => {}
            }
        }
        changed
    }

    /// Tells every session what became of this device's addresses as they are seen from outside; returns the keys of those that changed.
    pub fn mappings_changed(&mut self, changes: &[mappings::Change], clock: &WallClock) -> Vec<u64> {
        let mut changed = Vec::new();
        for change in changes {
            let input = match change {
                mappings::Change::Seen(reflexive) => {
                    // A STUN server may see what the configuration tells.
                    let known = self.reflexive.contains(reflexive);
                    self.reflexive.push(*reflexive);
                    if known {
                        continue;
                    }
                    Input::ReflexiveAdded(*reflexive)
                }
                mappings::Change::Gone(reflexive) => {
                    if let Some(place) = self.reflexive.iter().position(|known| known == reflexive) {
                        self.reflexive.swap_remove(place);
                    }
                    if self.reflexive.contains(reflexive) {
                        continue;
                    }
                    Input::ReflexiveGone(*reflexive)
                }
            };
            changed.extend(self.tell_all(&input, clock));
        }
        changed
    }

    /// Pictures wait whose way leads through one of these addresses at TURN servers, or by one of these connections.
    pub fn hold_back(&mut self, relays: impl Iterator<Item = SocketAddr>, streams: impl Iterator<Item = Route>) {
        self.relayed.full.clear();
        self.relayed.full.extend(relays);
        self.relayed.full_streams.clear();
        self.relayed.full_streams.extend(streams);
    }

    /// Whether anybody watches, or is about to.
    pub fn are_there(&self) -> bool {
        !self.slots.is_empty()
    }

    pub(super) fn tell_all(&mut self, input: &Input<'_>, clock: &WallClock) -> Vec<u64> {
        let keys: Vec<u64> = self.slots.keys().copied().collect();
        for key in &keys {
            self.on_slot(*key, clock, |slot, outbox| {
                slot.session.handle(input.clone(), clock.instant, clock, outbox);
            });
        }
        keys
    }
}
