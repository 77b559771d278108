//! Where routers forward a port to this device, as `network.advertise` says: told to viewers as what a STUN server sees would be.

use std::net::SocketAddr;

use super::mappings::Change;
use crate::session::Reflexive;

/// All of a driver.
pub struct Forwards {
    addresses: Vec<SocketAddr>,
    told: Vec<Reflexive>,
}

impl Forwards {
    /// `addresses`: what leads to this driver's socket from outside.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            told: Vec::new(),
        }
    }

    /// What has to be told, now that these addresses are ours. To which of them the router forwards is not known: whichever it is, what comes
    /// there is taken. No router leads to loopback.
    pub fn changes(&mut self, locals: &[SocketAddr]) -> Vec<Change> {
        let base = |address: &SocketAddr| {
            let same_kind = |local: &&SocketAddr| local.is_ipv4() == address.is_ipv4() && !local.ip().is_loopback();
            let base = *locals.iter().find(same_kind)?;
            Some(Reflexive { address: *address, base })
        };
        let now: Vec<Reflexive> = self.addresses.iter().filter_map(base).collect();
        let before = std::mem::replace(&mut self.told, now);
        let gone = before.iter().filter(|known| !self.told.contains(known)).copied().map(Change::Gone);
        let new = self.told.iter().filter(|known| !before.contains(known)).copied().map(Change::Seen);
        gone.chain(new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn it_is_told_while_there_is_an_address_to_forward_to() {
        let outside = address("203.0.113.7:5000");
        let mut forwards = Forwards::new(vec![outside]);
        let [first, second] = ["192.168.1.2:8555", "192.168.1.3:8555"].map(|base| Reflexive {
            address: outside,
            base: address(base),
        });
        assert_eq!(forwards.changes(&[address("127.0.0.1:8555"), address("[2001:db8::2]:8555")]), []);
        assert_eq!(forwards.changes(&[first.base, second.base]), [Change::Seen(first)]);
        assert_eq!(forwards.changes(&[first.base]), []);
        assert_eq!(forwards.changes(&[second.base]), [Change::Gone(first), Change::Seen(second)]);
        assert_eq!(forwards.changes(&[]), [Change::Gone(second)]);
    }
}
