//! Sends datagrams so that a picture leaves in one call to the kernel.

use std::io;
use std::net::SocketAddr;

use super::driver::is_plausible;
use super::socket::MediaSocket;
use crate::session::{Datagrams, Run};

/// Refusals in a row, without a segmented send between them that worked, after which it is the kernel that refuses, and not one path.
const REFUSALS: u32 = 8;

/// How many calls later segmentation is tried again: another network card may have taken over.
const TRY_AGAIN: u32 = 10_000;

/// How datagrams are given to the kernel.
///
/// Some drivers refuse segmentation (EIO, EINVAL; quinn-rs/quinn#1128). So does every driver for a path that is narrower than the datagrams,
/// and for an address that has gone: what one viewer's path refuses must cost the others nothing.
pub struct Batch {
    /// Whether equal datagrams may be given to it together.
    segmentation: bool,
    refusals: u32,
    /// Calls until segmentation is tried again; zero: it is used.
    pause: u32,
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
        Self {
            segmentation,
            refusals: 0,
            pause: 0,
        }
    }

    /// Sends all of `datagrams`, in order, but for those that `divert` takes.
    pub fn send_others(
        &mut self,
        sockets: &[MediaSocket],
        datagrams: &Datagrams,
        sent: &mut Sent,
        mut divert: impl FnMut(&Run<'_>) -> bool,
    ) {
        let segmentation = self.segmentation && self.pause == 0;
        let limit = |source| if segmentation { max_segments(sockets, source) } else { 1 };
        for run in datagrams.runs(limit) {
            if divert(&run) {
                continue;
            }
            self.pause = self.pause.saturating_sub(1);
            self.send_run(sockets, &run, sent);
        }
    }

    fn send_run(&mut self, sockets: &[MediaSocket], run: &Run<'_>, sent: &mut Sent) {
        let socket = socket_for(sockets, run.route.source, run.route.destination);
        // A candidate can name what nothing can be sent to.
        let Some(socket) = socket.filter(|_| is_plausible(run.route.destination)) else {
            sent.dropped += run.count as u64;
            return;
        };
        sent.calls += 1;
        match socket.send(run.route.source.ip(), run.route.destination, run.bytes, run.segment) {
            Ok(()) => {
                sent.datagrams += run.count as u64;
                if run.count > 1 {
                    self.refusals = 0;
                }
            }
            Err(error) if run.count > 1 && error.kind() != io::ErrorKind::WouldBlock => {
                if one_by_one(socket, run, sent) {
                    self.note_refusal();
                }
            }
            Err(error) => {
                sent.dropped += run.count as u64;
                tracing::debug!(%error, run.count, "datagrams dropped");
            }
        }
    }

    fn note_refusal(&mut self) {
        self.refusals += 1;
        if self.refusals == REFUSALS {
            tracing::info!("this network driver refuses UDP segmentation; datagrams are sent one by one");
        }
        if self.refusals >= REFUSALS {
            self.pause = TRY_AGAIN;
        }
    }
}

/// Sends one datagram from one of our addresses.
///
/// # Errors
/// What the system says; also where no socket is of that family.
pub fn send_to(sockets: &[MediaSocket], source: SocketAddr, destination: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let socket = socket_for(sockets, source, destination).ok_or(io::ErrorKind::AddrNotAvailable)?;
    socket.send(source.ip(), destination, bytes, bytes.len())
}

/// Whether all were sent.
fn one_by_one(socket: &MediaSocket, run: &Run<'_>, sent: &mut Sent) -> bool {
    let mut all = true;
    for datagram in run.bytes.chunks(run.segment) {
        sent.calls += 1;
        match socket.send(run.route.source.ip(), run.route.destination, datagram, datagram.len()) {
            Ok(()) => sent.datagrams += 1,
            Err(error) => {
                all = false;
                sent.dropped += 1;
                tracing::debug!(%error, "datagram dropped");
            }
        }
    }
    all
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
    use crate::config::{Interfaces, Listen};
    use crate::session::{Route, Transport};

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
            datagrams.push(
                Route {
                    transport: Transport::Udp,
                    source,
                    destination: to,
                },
                &vec![7; size],
            );
        }
        let destination = other.local_addr().expect("bound");
        datagrams.push(
            Route {
                transport: Transport::Udp,
                source,
                destination,
            },
            &[1; 1_000],
        );
        let mut sent = Sent::default();
        Batch::new(segmentation).send_others(&sockets, &datagrams, &mut sent, |_| false);
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

    /// Sends two equal datagrams from `source` to `destination`; how many calls that took.
    fn send_two(batch: &mut Batch, sockets: &[MediaSocket], source: SocketAddr, destination: SocketAddr) -> Sent {
        let mut datagrams = Datagrams::default();
        for _ in 0..2 {
            datagrams.push(
                Route {
                    transport: Transport::Udp,
                    source,
                    destination,
                },
                &[7; 1_000],
            );
        }
        let mut sent = Sent::default();
        batch.send_others(sockets, &datagrams, &mut sent, |_| false);
        sent
    }

    #[test]
    fn what_one_path_refuses_costs_the_others_nothing() {
        let sockets = bind_all(&Listen::Loopback, 0).expect("sockets");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (source, good) = (sockets[0].local(), receiver.local_addr().expect("bound"));
        let mut batch = Batch::new(true);
        let nowhere = SocketAddr::new(good.ip(), 0);
        // An address that has gone, as sockets bound to all addresses have it; and nothing to send to.
        let gone = SocketAddr::from(([192, 0, 2, 77], source.port()));
        let all = bind_all(&Listen::All(Interfaces::default()), 0).expect("sockets");
        for _ in 0..50 {
            assert_eq!(send_two(&mut batch, &sockets, source, nowhere).datagrams, 0);
            assert_eq!(send_two(&mut batch, &all, gone, good).datagrams, 0);
        }
        let sent = send_two(&mut batch, &sockets, source, good);
        assert_eq!((sent.datagrams, sent.calls), (2, 1), "the good path has its pictures in one call");
        assert_eq!(
            send_two(&mut batch, &all, all[0].local(), good).calls,
            1,
            "also by the sockets that were refused"
        );
    }

    #[test]
    fn a_driver_that_refuses_segmentation_is_asked_again_later() {
        let mut batch = Batch::new(true);
        (0..REFUSALS - 1).for_each(|_| batch.note_refusal());
        assert_eq!(batch.pause, 0, "a few refusals may be a path's");
        batch.note_refusal();
        let sockets = bind_all(&Listen::Loopback, 0).expect("sockets");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (source, to) = (sockets[0].local(), receiver.local_addr().expect("bound"));
        let calls: Vec<u64> = (0..=TRY_AGAIN / 2)
            .map(|_| send_two(&mut batch, &sockets, source, to).calls)
            .collect();
        assert!(calls[..calls.len() - 1].iter().all(|calls| *calls == 2));
        assert_eq!(calls.last(), Some(&1));
    }

    #[test]
    fn an_unreachable_destination_is_counted_not_fatal() {
        let sockets = bind_all(&Listen::Loopback, 0).expect("sockets");
        let mut datagrams = Datagrams::default();
        let route = Route {
            transport: Transport::Udp,
            source: sockets[0].local(),
            destination: "192.0.2.1:9".parse().expect("an address"),
        };
        datagrams.push(route, &[0; 10]);
        let mut sent = Sent::default();
        Batch::new(true).send_others(&sockets, &datagrams, &mut sent, |_| false);
        assert_eq!((sent.datagrams, sent.dropped), (0, 1));
    }
}
