//! What a session wants done: datagrams to send, and what happened.

use std::net::SocketAddr;

use str0m::net::Protocol;

use super::Event;

/// What a session wants done.
#[derive(Default)]
pub struct Outbox {
    /// What has to leave.
    pub datagrams: Datagrams,
    /// What happened.
    pub events: Vec<Event>,
}

/// Datagrams in the order in which they have to leave, one behind the other in a single buffer: a picture is encrypted
/// straight into it, and the driver gives whole stretches of it to the kernel.
#[derive(Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many entries [`Datagrams::new_routes`] has seen.
    seen: usize,
    /// Lengths of what was appended to `bytes` and has no entry yet; empty between calls.
    lengths: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Entry {
    route: Route,
    length: usize,
}

/// What carries datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    /// A stream that the viewer has opened, with the length before each datagram (RFC 4571).
    Tcp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp | Protocol::SslTcp | Protocol::Tls => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// From which of our addresses to which of the viewer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub transport: Transport,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Route {
    /// Where it begins: at us.
    #[must_use]
    pub fn begin(&self) -> (Transport, SocketAddr) {
        (self.transport, self.source)
    }
}

/// Neighbouring datagrams that one call to the kernel can send: equal in size, but the last, which may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    pub route: Route,
    pub bytes: &'a [u8],
    /// Size of each datagram but the last, in bytes.
    pub segment: usize,
    pub count: usize,
}

impl Datagrams {
    /// Adds one datagram.
    pub fn push(&mut self, route: Route, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.entries.push(Entry {
            route,
            length: datagram.len(),
        });
    }

    /// Lets `write` append datagrams to the bytes and the length of each to the lengths; it returns where they go, if there are any.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>, &mut Vec<usize>) -> Option<Route>) {
        if let Some(route) = write(&mut self.bytes, &mut self.lengths) {
            self.entries.extend(self.lengths.drain(..).map(|length| Entry { route, length }));
        }
    }

    /// The bytes of all together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all, and keeps the memory unless a burst has made it large.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 1 << 20;
        self.bytes.clear();
        self.entries.clear();
        self.seen = 0;
        self.bytes.shrink_to(KEEP_BYTES);
        self.entries.shrink_to(KEEP_BYTES / 1_024);
    }

    /// Where those go that were added since the last call; the same route many times in a row is told once.
    pub fn new_routes(&mut self) -> impl Iterator<Item = Route> {
        let added = &self.entries[self.seen..];
        self.seen = self.entries.len();
        let mut last = None;
        added
            .iter()
            .map(|entry| entry.route)
            .filter(move |route| last.replace(*route) != Some(*route))
    }

    /// Each by itself.
    pub fn iter(&self) -> impl Iterator<Item = (Route, &[u8])> {
        self.runs(|_| 1).map(|run| (run.route, run.bytes))
    }

    /// All of them in as few runs as can be; `limit` says how many datagrams a run from a source may have.
    pub fn runs(&self, limit: impl Fn(SocketAddr) -> usize) -> impl Iterator<Item = Run<'_>> {
        let (mut entries, mut bytes) = (self.entries.as_slice(), self.bytes.as_slice());
        std::iter::from_fn(move || {
            let first = entries.first()?;
            let (mut count, mut size, mut last) = (1, first.length, first.length);
            let limit = limit(first.route.source);
            while let Some(next) = entries.get(count)
                && count < limit
                && next.route == first.route
                && last == first.length
                && next.length <= first.length
                && size + next.length <= MAX_RUN_BYTES
            {
                count += 1;
                size += next.length;
                last = next.length;
            }
            let (run, rest) = bytes.split_at(size);
            (entries, bytes) = (&entries[count..], rest);
            Some(Run {
                route: first.route,
                bytes: run,
                segment: first.length,
                count,
            })
        })
    }
}

/// The most that UDP segmentation takes in one call: what an IP packet can hold, less headers.
const MAX_RUN_BYTES: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route {
            transport: Transport::Udp,
            source: "192.0.2.1:5000".parse().expect("an address"),
            destination: SocketAddr::new("192.0.2.2".parse().expect("an address"), port),
        }
    }

    fn runs(sizes: &[(u16, usize)], limit: usize) -> Vec<(u16, usize, usize)> {
        let mut datagrams = Datagrams::default();
        for (port, size) in sizes {
            datagrams.push(route(*port), &vec![*port as u8; *size]);
        }
        datagrams
            .runs(|_| limit)
            .map(|run| {
                assert!(run.bytes.iter().all(|byte| *byte == run.route.destination.port() as u8));
                (run.route.destination.port(), run.segment, run.count)
            })
            .collect()
    }

    #[test]
    fn a_run_ends_with_a_smaller_datagram_and_before_a_larger_one() {
        let picture = [(1, 60), (1, 1_000), (1, 1_000), (1, 700), (1, 700), (1, 1_000)];
        assert_eq!(runs(&picture, 64), [(1, 60, 1), (1, 1_000, 3), (1, 700, 1), (1, 1_000, 1)]);
    }

    #[test]
    fn a_run_has_one_receiver_and_respects_both_limits() {
        assert_eq!(runs(&[(1, 9), (1, 9), (2, 9)], 64), [(1, 9, 2), (2, 9, 1)]);
        assert_eq!(runs(&[(1, 9); 5], 2), [(1, 9, 2), (1, 9, 2), (1, 9, 1)]);
        assert_eq!(runs(&[(1, 1_000); 66], 100), [(1, 1_000, 65), (1, 1_000, 1)]);
    }
}
