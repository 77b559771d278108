//! Gathers datagrams of one viewer so that a picture leaves in one call to the kernel.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::socket::MediaSocket;

/// The most that UDP segmentation takes in one call: what an IP packet can hold, less headers.
const MAX_BATCH_BYTES: usize = 65_000;

/// Datagrams of equal size (the last may be smaller) on their way from one source to one destination.
pub struct Batch {
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    /// The last datagram was smaller, so none may follow.
    full: bool,
    route: Option<(SocketAddr, SocketAddr)>,
    /// Whether equal datagrams are given to the kernel together. Turned off where the kernel or its driver refuses.
    segmentation: bool,
}

/// What became of the datagrams of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub datagrams: u64,
    pub calls: u64,
    /// The socket was full, or the network unreachable: NACK repairs what matters.
    pub dropped: u64,
}

impl Batch {
    /// An empty batch; without `segmentation` each datagram is a call of its own.
    pub fn new(segmentation: bool) -> Self {
        Self {
            bytes: Vec::with_capacity(MAX_BATCH_BYTES),
            segment: 0,
            count: 0,
            full: false,
            route: None,
            segmentation,
        }
    }

    /// Adds one datagram, sending what was gathered first where it can't join.
    pub fn push(&mut self, sockets: &[MediaSocket], source: SocketAddr, destination: SocketAddr, datagram: &[u8], sent: &mut Sent) {
        let route = Some((source, destination));
        let limit = if self.segmentation { max_segments(sockets, source) } else { 1 };
        let joins = self.route == route
            && !self.full
            && self.count < limit
            && datagram.len() <= self.segment
            && self.bytes.len() + datagram.len() <= MAX_BATCH_BYTES;
        if !joins {
            self.flush(sockets, sent);
            self.route = route;
            self.segment = datagram.len();
        }
        self.full = datagram.len() < self.segment;
        self.bytes.extend_from_slice(datagram);
        self.count += 1;
    }

    /// Sends what was gathered.
    pub fn flush(&mut self, sockets: &[MediaSocket], sent: &mut Sent) {
        if let Some((source, destination)) = self.route.take()
            && self.count > 0
        {
            let count = self.count as u64;
            let socket = socket_for(sockets, source, destination);
            let mut refused = false;
            let result = socket.map_or(Err(io::ErrorKind::AddrNotAvailable.into()), |socket| {
                sent.calls += 1;
                socket.send(source.ip(), destination, &self.bytes, self.segment).or_else(|error| {
                    refused = error.kind() != io::ErrorKind::WouldBlock && self.count > 1;
                    if refused {
                        self.one_by_one(socket, source.ip(), destination, sent)
                    } else {
                        Err(error)
                    }
                })
            });
            // Some drivers refuse segmentation (EIO, EINVAL): then never again, see quinn-rs/quinn#1128.
            if refused && result.is_ok() && self.segmentation {
                self.segmentation = false;
                tracing::info!("this network driver refuses UDP segmentation; datagrams are sent one by one");
            }
            match result {
                Ok(()) => sent.datagrams += count,
                Err(error) => {
                    sent.dropped += count;
                    tracing::debug!(%error, count, "datagrams dropped");
                }
            }
        }
        self.bytes.clear();
        self.count = 0;
        self.full = false;
    }

    fn one_by_one(&self, socket: &MediaSocket, source: IpAddr, destination: SocketAddr, sent: &mut Sent) -> io::Result<()> {
        for datagram in self.bytes.chunks(self.segment) {
            sent.calls += 1;
            socket.send(source, destination, datagram, datagram.len())?;
        }
        Ok(())
    }
}

fn max_segments(sockets: &[MediaSocket], source: SocketAddr) -> usize {
    sockets
        .iter()
        .find(|socket| socket.local().is_ipv4() == source.is_ipv4())
        .map_or(1, MediaSocket::max_segments)
}

/// The socket bound to `source`, else any of its family.
fn socket_for(sockets: &[MediaSocket], source: SocketAddr, destination: SocketAddr) -> Option<&MediaSocket> {
    let family = || sockets.iter().filter(|socket| socket.local().is_ipv4() == destination.is_ipv4());
    family()
        .find(|socket| socket.local().ip() == source.ip())
        .or_else(|| family().next())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::super::socket::bind_all;
    use super::*;
    use crate::config::Listen;

    fn received(receiver: &UdpSocket) -> Vec<usize> {
        receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let mut buffer = [0; 4_096];
        std::iter::from_fn(|| receiver.recv(&mut buffer).ok()).collect()
    }

    /// A picture's datagrams: a small one, equal ones, a smaller last one; then one for somebody else.
    fn send_picture(segmentation: bool) -> (Vec<usize>, Sent) {
        let sockets = bind_all(&Listen::Loopback, 0).expect("sockets");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (source, to) = (sockets[0].local(), receiver.local_addr().expect("bound"));
        let mut batch = Batch::new(segmentation);
        let mut sent = Sent::default();
        for size in [60, 1_000, 1_000, 1_000, 700, 1_000] {
            batch.push(&sockets, source, to, &vec![7; size], &mut sent);
        }
        batch.push(&sockets, source, other.local_addr().expect("bound"), &[1; 1_000], &mut sent);
        batch.flush(&sockets, &mut sent);
        (received(&receiver), sent)
    }

    #[test]
    fn a_picture_leaves_in_few_calls_and_in_order() {
        let (sizes, sent) = send_picture(true);
        assert_eq!(sizes, [60, 1_000, 1_000, 1_000, 700, 1_000]);
        assert_eq!(
            sent,
            Sent {
                datagrams: 7,
                calls: 4,
                dropped: 0
            }
        );
    }

    #[test]
    fn without_segmentation_every_datagram_still_arrives() {
        let (sizes, sent) = send_picture(false);
        assert_eq!(sizes, [60, 1_000, 1_000, 1_000, 700, 1_000]);
        assert_eq!(
            sent,
            Sent {
                datagrams: 7,
                calls: 7,
                dropped: 0
            }
        );
    }

    #[test]
    fn an_unreachable_destination_is_counted_not_fatal() {
        let sockets = bind_all(&Listen::Loopback, 0).expect("sockets");
        let mut batch = Batch::new(true);
        let mut sent = Sent::default();
        batch.push(
            &sockets,
            sockets[0].local(),
            "192.0.2.1:9".parse().expect("an address"),
            &[0; 10],
            &mut sent,
        );
        batch.flush(&sockets, &mut sent);
        assert_eq!((sent.datagrams, sent.dropped), (0, 1));
    }
}
