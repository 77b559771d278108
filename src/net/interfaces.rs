//! Which of this machine's addresses viewers are told of, and when they change.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::socket::MediaSocket;
use crate::config::{Interfaces, Listen};

/// Tells when this machine's addresses change (rtnetlink(7)).
pub struct Watch(OwnedFd);

impl Watch {
    /// `None` where the kernel does not tell; then one has to look.
    #[must_use]
    pub fn start() -> Option<Self> {
        /// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h.
        const ADDRESSES: u32 = 0x10 | 0x100;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let started = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .and_then(|socket| bind(&socket, &SocketAddrNetlink::new(0, ADDRESSES)).map(|()| socket));
        started
            .inspect_err(
                |error| tracing::info!(%error, "the system does not tell when addresses change; they are looked at every few seconds"),
            )
            .ok()
            .map(Self)
    }

    /// For polling.
    pub fn inner(&self) -> &OwnedFd {
        &self.0
    }

    /// Forgets what the kernel has told so far: what is true now is asked for elsewhere.
    pub fn drain(&self) {
        let mut message = [0; 4_096];
        // An overrun is told as an error once, and is no end.
        for _ in 0..64 {
            if matches!(recv(&self.0, &mut message[..], RecvFlags::empty()), Err(rustix::io::Errno::AGAIN)) {
                return;
            }
        }
    }
}

/// Whether `address` is this machine's: only such a one can be bound to.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a socket that sends nothing")]
pub fn is_ours(address: IpAddr) -> bool {
    !UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// This machine's addresses, each with its interface's name.
pub struct Own(Vec<(String, IpAddr)>);

impl Own {
    /// As they are now.
    #[must_use]
    pub fn of_machine() -> Self {
        let list = if_addrs::get_if_addrs().inspect_err(|error| tracing::warn!(%error, "reading the network interfaces failed"));
        let each = list.unwrap_or_default().into_iter();
        Self(each.map(|interface| (interface.name.clone(), interface.ip())).collect())
    }

    /// Those that another machine can use, on interfaces that carry pictures.
    pub fn reachable(&self, interfaces: &Interfaces) -> impl Iterator<Item = IpAddr> {
        let reachable = self.0.iter().filter(|(_, ip)| is_reachable(*ip));
        reachable.filter(|(name, _)| interfaces.carries(name)).map(|(_, ip)| *ip)
    }

    /// Whether an address is on no interface but such as carry no pictures. Loopback leads nowhere else, and is never meant.
    #[must_use]
    pub fn is_left_out(&self, address: IpAddr, interfaces: &Interfaces) -> bool {
        let mut names = self.0.iter().filter(|(_, ip)| *ip == address).map(|(name, _)| name).peekable();
        !address.is_loopback() && names.peek().is_some() && !names.any(|name| interfaces.carries(name))
    }

    /// Names of the interfaces that viewers could reach and that carry no pictures.
    fn left_out(&self, interfaces: &Interfaces) -> BTreeSet<&str> {
        let reachable = self.0.iter().filter(|(_, ip)| is_reachable(*ip));
        reachable
            .map(|(name, _)| name.as_str())
            .filter(|name| !interfaces.carries(name))
            .collect()
    }
}

/// The addresses behind `sockets`: a bound one as it is, an unspecified one as every address of its family that another
/// machine can use.
pub fn local_addresses(sockets: &[MediaSocket], listen: &Listen) -> Vec<SocketAddr> {
    let reachable: Vec<IpAddr> = match listen {
        Listen::All(interfaces) => Own::of_machine().reachable(interfaces).collect(),
        Listen::Loopback | Listen::Addresses(_) => Vec::new(),
    };
    let mut addresses = Vec::new();
    for socket in sockets {
        let local = socket.local();
        if !local.ip().is_unspecified() {
            addresses.push(local);
            continue;
        }
        let family = reachable.iter().filter(|ip| ip.is_ipv4() == local.is_ipv4());
        addresses.extend(family.map(|ip| SocketAddr::new(*ip, local.port())));
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

/// Says which interfaces carry no pictures, although somebody could be there.
pub fn tell_left_out(listen: &Listen) {
    let Listen::All(interfaces) = listen else { return };
    let own = Own::of_machine();
    let left_out = own.left_out(interfaces);
    if left_out.is_empty() {
        return;
    }
    if own.reachable(interfaces).next().is_none() {
        tracing::warn!(
            ?left_out,
            "no interface is left for pictures, so only browsers on this machine can watch until one comes; `network.interfaces` and \
             `network.exclude_interfaces` in the configuration say which carry them"
        );
    } else {
        tracing::info!(?left_out, "interfaces that carry no pictures");
    }
}

/// Link-local addresses need a scope that candidates can't carry; loopback is reachable by this machine only, and a browser
/// on it reaches every other address too.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}
