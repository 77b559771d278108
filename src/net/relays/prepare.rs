//! What has to be done before a way to a server can be opened and may take long: resolving its name, reading who is trusted.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use rustix::fd::OwnedFd;
use rustls::pki_types::ServerName;

use super::super::handle::wake;
use super::Server;
use super::stream::Tls;
use crate::config::TurnTransport;
use crate::tls;

/// Addresses of one server that are tried.
const MAX_ADDRESSES: usize = 4;

/// Where the server is, in the order in which to try, and how to speak TLS to it if it is to be spoken.
pub struct Prepared {
    pub addresses: Vec<SocketAddr>,
    pub tls: Option<Tls>,
}

/// A preparation that goes on, on a thread of its own: neither the system's resolver nor a disk can be waited for by the driver.
pub struct Preparation(Receiver<Result<Prepared, String>>);

impl Preparation {
    /// Begins; `event` is rung when it is done.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn begin(server: &Server, event: &Arc<OwnedFd>) -> Result<Self, String> {
        let (sender, receiver) = sync_channel(1);
        let (server, event) = (server.clone(), Arc::clone(event));
        let thread = std::thread::Builder::new().name("resolver".into());
        let work = move || {
            let _ = sender.send(prepare(&server));
            wake(&event);
        };
        thread
            .spawn(work)
            .map_err(|error| format!("no thread to resolve its name: {error}"))?;
        Ok(Self(receiver))
    }

    /// What came of it; `None` while it goes on.
    pub fn done(&self) -> Option<Result<Prepared, String>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("resolving its name failed".into())),
        }
    }
}

/// What needs no waiting for: an address, without TLS.
pub fn at_once(server: &Server) -> Option<Prepared> {
    let ip: IpAddr = server.turn.host.parse().ok()?;
    (server.turn.transport != TurnTransport::Tls).then(|| Prepared {
        addresses: vec![SocketAddr::new(ip, server.turn.port)],
        tls: None,
    })
}

fn prepare(server: &Server) -> Result<Prepared, String> {
    let host = &server.turn.host;
    let found = (host.as_str(), server.turn.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = found
        .map_err(|error| format!("its name can't be resolved: {error}"))?
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        return Err("its name has no address".into());
    }
    let tls = match server.turn.transport {
        TurnTransport::Udp | TurnTransport::Tcp => None,
        TurnTransport::Tls => {
            let builder = tls::client(server.ca_file.as_deref(), "ca_file").map_err(|error| format!("{error:#}"))?;
            let name = ServerName::try_from(host.clone()).map_err(|_| "its name is none that a certificate can hold")?;
            Some(Tls {
                config: Arc::new(builder.with_no_client_auth()),
                name,
            })
        }
    };
    Ok(Prepared { addresses, tls })
}
