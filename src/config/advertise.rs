//! Where a router forwards a port to this device: addresses that viewers are told of and that no server is asked for.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use super::value::FromText;

/// An address of `network.advertise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    ip: IpAddr,
    /// `None`: the same port outside as inside.
    port: Option<NonZeroU16>,
}

impl Advertised {
    /// What leads to the socket that thread `index` has at `port`: as inside, each thread has a port of its own from the first one on.
    #[must_use]
    pub fn for_thread(self, index: usize, port: u16) -> Option<SocketAddr> {
        let outside = match self.port {
            None => port,
            Some(first) => first.get().checked_add(u16::try_from(index).ok()?)?,
        };
        Some(SocketAddr::new(self.ip, outside))
    }
}

impl FromText for Advertised {
    const ALLOWED: &'static str = "an address outside, such as \"203.0.113.7\", or with its port where that is another one, such as \"203.0.113.7:5000\" or \"[2001:db8::7]:5000\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let refuse = |what: &str| Err(format!("{text:?} {what}; write {}", Self::ALLOWED));
        let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (Err(_), Ok(address)) => match NonZeroU16::new(address.port()) {
                None => return refuse("has no port that can be reached"),
                port => (address.ip(), port),
            },
            (Err(_), Err(_)) => return refuse("is not an address"),
        };
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || link_local {
            return refuse("is no address that leads here from outside");
        }
        Ok(Self { ip, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_port_of_its_own_outside_too() {
        for (text, index, expected) in [
            ("203.0.113.7", 1, Some("203.0.113.7:8556")),
            ("203.0.113.7:5000", 0, Some("203.0.113.7:5000")),
            ("[2001:db8::7]:5000", 2, Some("[2001:db8::7]:5002")),
            ("203.0.113.7:65535", 1, None),
        ] {
            let address = Advertised::from_text(text)
                .expect("an address")
                .for_thread(index, 8_555 + index as u16);
            assert_eq!(address, expected.map(|text| text.parse().expect("an address")), "{text}");
        }
    }
}
