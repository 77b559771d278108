//! Where the sans-IO parts meet the world: sockets, timers and the threads that own the sessions.

mod batch;
mod driver;
mod drivers;
mod figures;
mod forwards;
mod handle;
mod ice_tcp;
mod interfaces;
mod latency;
mod mappings;
mod preparation;
mod relays;
mod sessions;
mod socket;
mod stream;

pub use batch::Sent;
pub use drivers::{Context, Drivers, spawn};
pub use figures::{Counted, Figures, Spread, Traffic};
pub use handle::{Command, Notice};
pub use interfaces::is_ours;
pub use latency::Latency;
pub use relays::{RelayFigures, credentials};
pub use sessions::{MAX_UNHEARD, Offered};
