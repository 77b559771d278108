//! What has to be done before a way to a server can be opened and may take long: resolving its name, reading who is trusted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::super::preparation::resolve;
use super::super::stream::Tls;
use super::Server;
use crate::config::TurnTransport;
use crate::tls;

/// Where the server is, in the order in which to try, and how to speak TLS to it if it is to be spoken.
pub struct Prepared {
    pub addresses: Vec<SocketAddr>,
    pub tls: Option<Tls>,
}

/// What needs no waiting for: an address, without TLS.
pub fn at_once(server: &Server) -> Option<Prepared> {
    let ip: IpAddr = server.turn.host.parse().ok()?;
    (server.turn.transport != TurnTransport::Tls).then(|| Prepared {
        addresses: vec![SocketAddr::new(ip, server.turn.port)],
        tls: None,
    })
}

/// All of it. It may take long.
///
/// # Errors
/// A sentence's end.
pub fn prepare(server: &Server) -> Result<Prepared, String> {
    let host = &server.turn.host;
    let addresses = resolve(host, server.turn.port)?;
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
