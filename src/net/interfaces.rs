//! Which of this machine's addresses viewers are told of.

use std::net::{IpAddr, SocketAddr};

use super::socket::MediaSocket;

/// The addresses behind `sockets`: a bound one as it is, an unspecified one as every address of its family that another
/// machine can use.
pub fn local_addresses(sockets: &[MediaSocket]) -> Vec<SocketAddr> {
    let interfaces: Vec<IpAddr> = if_addrs::get_if_addrs()
        .inspect_err(|error| tracing::warn!(%error, "reading the network interfaces failed"))
        .map(|list| list.into_iter().map(|interface| interface.ip()).collect())
        .unwrap_or_default();
    let mut addresses = Vec::new();
    for socket in sockets {
        let local = socket.local();
        if !local.ip().is_unspecified() {
            addresses.push(local);
            continue;
        }
        let family = interfaces.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4());
        addresses.extend(family.filter(|ip| is_reachable(**ip)).map(|ip| SocketAddr::new(*ip, local.port())));
    }
    // A machine without a network can still be watched by itself.
    if addresses.is_empty() {
        addresses.extend(sockets.iter().map(|socket| {
            let ip: IpAddr = if socket.local().is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            };
            SocketAddr::new(ip, socket.local().port())
        }));
    }
    addresses
}

/// Link-local addresses need a scope that candidates can't carry; loopback is reachable by this machine only, and a browser
/// on it reaches every other address too.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}
