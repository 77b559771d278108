//! Where the sans-IO parts meet the world: sockets, timers and the one thread that owns all sessions.

mod batch;
mod driver;
mod figures;
mod handle;
mod interfaces;
mod sessions;
mod socket;

pub use batch::Sent;
pub use driver::{Context, spawn};
pub use figures::{Counted, Figures, Spread, Traffic};
pub use handle::{Command, DriverHandle, Notice};
pub use sessions::MAX_UNHEARD;
