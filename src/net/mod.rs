//! Where the sans-IO parts meet the world: sockets, timers and the one thread that owns all sessions.

mod batch;
mod driver;
mod handle;
mod interfaces;
mod sessions;
mod socket;

pub use driver::{Context, spawn};
pub use handle::{Command, DriverHandle, Notice};
