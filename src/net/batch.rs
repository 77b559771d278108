//! Sends datagrams so that a picture leaves in one call to the kernel.

use std::io;
use std::net::SocketAddr;

use super::socket::MediaSocket;
use crate::session::{Datagrams, Run};

/// How datagrams are given to the kernel.
pub struct Batch {
    /// Whether equal datagrams are given to it together. Turned off where the kernel or its driver refuses.
    segmentation: bool,
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub datagrams: u64,
    pub calls: u64,
    /// The socket was full, or the network unreachable: NACK repairs what matters.
    pub dropped: u64,
}

impl Batch {
    /// Without `segmentation` each datagram is a call of its own.
    pub fn new(segmentation: bool) -> Self {
        Self { segmentation }
    }

    /// Sends all of `datagrams`, in order.
    pub fn send(&mut self, sockets: &[MediaSocket], datagrams: &Datagrams, sent: &mut Sent) {
        let segmentation = self.segmentation;
        let limit = |source| if segmentation { max_segments(sockets, source) } else { 1 };
        for run in datagrams.runs(limit) {
            self.send_run(sockets, &run, sent);
        }
    }

    fn send_run(&mut self, sockets: &[MediaSocket], run: &Run<'_>, sent: &mut Sent) {
        let count = run.count as u64;
        let mut refused = false;
        let result = socket_for(sockets, run.route.source, run.route.destination)
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            .and_then(|socket| {
                sent.calls += 1;
                let result = socket.send(run.route.source.ip(), run.route.destination, run.bytes, run.segment);
                refused = run.count > 1 && result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
                if refused { one_by_one(socket, run, sent) } else { result }
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
}

fn one_by_one(socket: &MediaSocket, run: &Run<'_>, sent: &mut Sent) -> io::Result<()> {
    for datagram in run.bytes.chunks(run.segment) {
        sent.calls += 1;
        socket.send(run.route.source.ip(), run.route.destination, datagram, datagram.len())?;
    }
    Ok(())
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
    use crate::session::Route;

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
        let mut datagrams = Datagrams::default();
        for size in [60, 1_000, 1_000, 1_000, 700, 1_000] {
            datagrams.push(Route { source, destination: to }, &vec![7; size]);
        }
        let destination = other.local_addr().expect("bound");
        datagrams.push(Route { source, destination }, &[1; 1_000]);
        let mut sent = Sent::default();
        Batch::new(segmentation).send(&sockets, &datagrams, &mut sent);
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
        let mut datagrams = Datagrams::default();
        let route = Route {
            source: sockets[0].local(),
            destination: "192.0.2.1:9".parse().expect("an address"),
        };
        datagrams.push(route, &[0; 10]);
        let mut sent = Sent::default();
        Batch::new(true).send(&sockets, &datagrams, &mut sent);
        assert_eq!((sent.datagrams, sent.dropped), (0, 1));
    }
}
