//! Work that may take long, such as resolving a name, on a thread of its own: neither the system's resolver nor a disk can be waited for by a
//! driver.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use rustix::fd::OwnedFd;

use super::handle::wake;

/// Addresses of one server that are tried.
const MAX_ADDRESSES: usize = 4;

/// A preparation that goes on.
pub struct Preparation<T>(Receiver<Result<T, String>>);

impl<T: Send + 'static> Preparation<T> {
    /// Begins; `event` is rung when it is done.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn begin(event: &Arc<OwnedFd>, work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<Self, String> {
        let (sender, receiver) = sync_channel(1);
        let event = Arc::clone(event);
        let thread = std::thread::Builder::new().name("resolver".into());
        let work = move || {
            let _ = sender.send(work());
            wake(&event);
        };
        thread
            .spawn(work)
            .map_err(|error| format!("no thread to resolve its name: {error}"))?;
        Ok(Self(receiver))
    }

    /// What came of it; `None` while it goes on.
    pub fn done(&self) -> Option<Result<T, String>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("resolving its name failed".into())),
        }
    }
}

/// The addresses of a server, in the order in which the system wants them tried; at least one. It may take long.
///
/// # Errors
/// There are none; a sentence's end.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = (host, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| format!("its name can't be resolved: {error}"))?
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        return Err("its name has no address".into());
    }
    Ok(addresses)
}
