//! What is between one viewer and the network: its sockets, and a bad network before them where one is emulated.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::moment::Moment;
use crate::network::{Weather, Wire};
use crate::sockets::Sockets;

/// A viewer's way to the network.
pub struct Link {
    sockets: Sockets,
    emulated: Option<Emulated>,
}

/// Datagrams on their way through a network that is only emulated.
struct Emulated {
    out: Wire<Datagram>,
    /// With the moment at which they really arrived.
    back: Wire<(Datagram, Moment)>,
}

struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
}

impl Link {
    /// Over `sockets`, in such weather.
    pub fn new(sockets: Sockets, weather: Weather, seed: u64) -> Self {
        let emulated = || Emulated {
            out: Wire::new(weather, seed.wrapping_mul(2)),
            back: Wire::new(weather, seed.wrapping_mul(2).wrapping_add(1)),
        };
        Self {
            sockets,
            emulated: (!weather.is_calm()).then(emulated),
        }
    }

    /// Sends one datagram. What the kernel does not take is lost, as on any network.
    pub fn send(&mut self, transmit: &str0m::net::Transmit, now: Moment) {
        match &mut self.emulated {
            None => self.sockets.send(transmit.source, transmit.destination, &transmit.contents),
            Some(emulated) => emulated.out.send(
                Datagram {
                    source: transmit.source,
                    destination: transmit.destination,
                    bytes: transmit.contents.to_vec(),
                },
                now.mono,
            ),
        }
    }

    /// Waits until there is something to read.
    pub async fn readable(&self) {
        self.sockets.readable().await;
    }

    /// Reads what the sockets have; `stamp` gets the arrival of each datagram, `each` those that come through at once.
    pub fn receive(&mut self, mut stamp: impl FnMut(Moment), mut each: impl FnMut(SocketAddr, SocketAddr, &[u8], Moment)) {
        let emulated = &mut self.emulated;
        self.sockets.receive(|source, destination, bytes, arrived| {
            stamp(arrived);
            match emulated {
                None => each(source, destination, bytes, arrived),
                Some(emulated) => {
                    let datagram = Datagram {
                        source,
                        destination,
                        bytes: bytes.to_vec(),
                    };
                    emulated.back.send((datagram, arrived), arrived.mono);
                }
            }
        });
    }

    /// Lets arrive what is due on the emulated network: out to the sockets, in to `each`.
    pub fn pass(&mut self, now: Moment, mut each: impl FnMut(SocketAddr, SocketAddr, &[u8], Moment)) {
        let Some(emulated) = &mut self.emulated else { return };
        while let Some((_, datagram)) = emulated.out.arrived(now.mono) {
            self.sockets.send(datagram.source, datagram.destination, &datagram.bytes);
        }
        while let Some((at, (datagram, arrived))) = emulated.back.arrived(now.mono) {
            let delay: Duration = at.saturating_duration_since(arrived.mono);
            each(datagram.source, datagram.destination, &datagram.bytes, arrived.plus(delay));
        }
    }

    /// When [`Link::pass`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let emulated = self.emulated.as_ref()?;
        [emulated.out.next(), emulated.back.next()].into_iter().flatten().min()
    }
}
