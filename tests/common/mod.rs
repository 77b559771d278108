//! What the black-box tests share: a broker, the agent and viewers as processes and connections of their own, all on loopback.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod broker;
pub mod certificates;
pub mod coturn;
pub mod device;
pub mod film;
pub mod http;
pub mod memory;
pub mod netns;
pub mod page;
pub mod peer;
pub mod probe;
pub mod process;
pub mod rpicam;
pub mod scrape;
pub mod sdp;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that normally takes an instant: a loaded machine is no fault of the agent.
pub const SOON: Duration = Duration::from_secs(15);

/// Looks until there is something to see; after `limit` the test fails with what it waited for.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: waited {limit:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A TCP port that is free on loopback. It lies below those that the system gives away by itself, so that a broker can leave it
/// for a while and come back to it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::process::id() * 61;
    until("looking for a free port", SOON, || {
        let port = 12_000 + (base + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = u16::try_from(port).expect("below 32,000");
        TcpListener::bind(("0.0.0.0", port)).is_ok().then_some(port)
    })
}

/// Whether the long variants are wanted: `PEERCAM_SOAK=1`.
pub fn soak() -> bool {
    std::env::var_os("PEERCAM_SOAK").is_some_and(|value| value != "0")
}
