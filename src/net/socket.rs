//! The UDP sockets that carry all media: one port, IPv4 and IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Instant, SystemTime};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;
use crate::session::{Transport, WallClock};

/// A key frame of 100 viewers leaves in one go; the kernel may grant less.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// Expedited enough for interactive video and still dropped first: AF41 (RFC 8837, table 1), in the upper six bits.
const TRAFFIC_CLASS: u32 = 0x22 << 2;

/// The largest datagram that any WebRTC peer sends, with room.
const DATAGRAM_BYTES: usize = 2_048;

/// One bound socket.
pub struct MediaSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// What the kernel said when the socket was bound. The crate's own figure falls to 1 for ever after one refusal, whatever it was about.
    max_segments: usize,
}

/// One datagram as it came.
pub struct Datagram<'a> {
    pub transport: Transport,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: &'a [u8],
    /// When the kernel had it, on the monotonic clock.
    pub arrived: Instant,
}

impl MediaSocket {
    /// Binds UDP `port` on `ip`; port 0 lets the system choose.
    fn bind(ip: IpAddr, port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address((ip, port).into()), Type::DGRAM, Some(Protocol::UDP))?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_traffic_class(&socket, ip);
        let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        socket.bind(&SocketAddr::new(ip, port).into())?;
        let socket: UdpSocket = socket.into();
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        let max_segments = state.max_gso_segments();
        Ok(Self {
            socket,
            state,
            local,
            max_segments,
        })
    }

    /// The bound address; its IP may be unspecified.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// For polling.
    pub fn inner(&self) -> &UdpSocket {
        &self.socket
    }

    /// How many datagrams one call may send.
    pub fn max_segments(&self) -> usize {
        self.max_segments
    }

    /// Sends `bytes` as datagrams of `segment` bytes each but for the last, from `source`.
    pub fn send(&self, source: IpAddr, destination: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: bytes,
            segment_size: (segment < bytes.len()).then_some(segment),
            src_ip: (!source.is_unspecified()).then_some(source),
        };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    /// Receives what is there, at most one batch; `Ok(0)` when nothing is.
    pub fn receive(&self, buffers: &mut ReceiveBuffers, clock: &WallClock, mut each: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        let mut slices: Vec<io::IoSliceMut<'_>> = buffers
            .bytes
            .chunks_mut(DATAGRAM_BYTES * buffers.gro)
            .map(io::IoSliceMut::new)
            .collect();
        let count = match self.state.recv((&self.socket).into(), &mut slices, &mut buffers.meta) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            // An earlier datagram was refused by its receiver (ICMP); the socket itself is well.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted) => return Ok(1),
            Err(error) => return Err(error),
        };
        for (slice, meta) in slices.iter().zip(&buffers.meta).take(count) {
            let destination = SocketAddr::new(meta.dst_ip.unwrap_or(self.local.ip()), self.local.port());
            let arrived = arrival(meta, clock);
            for bytes in slice[..meta.len].chunks(meta.stride.max(1)) {
                each(Datagram {
                    transport: Transport::Udp,
                    source: meta.addr,
                    destination,
                    bytes,
                    arrived,
                });
            }
        }
        Ok(count)
    }
}

/// Marks what leaves by a socket of this address's family as live video.
pub fn set_traffic_class(socket: &Socket, ip: IpAddr) {
    let _ = match ip {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS),
        IpAddr::V6(_) => socket.set_tclass_v6(TRAFFIC_CLASS),
    };
}

/// The kernel's stamp on the monotonic clock; now where it has none.
fn arrival(meta: &RecvMeta, clock: &WallClock) -> Instant {
    let stamp = meta.timestamp.map(|since_1970| SystemTime::UNIX_EPOCH + since_1970);
    match stamp.and_then(|stamp| clock.wall.duration_since(stamp).ok()) {
        Some(age) => clock.instant.checked_sub(age).unwrap_or(clock.instant),
        None => clock.instant,
    }
}

/// Where received datagrams are put.
pub struct ReceiveBuffers {
    bytes: Vec<u8>,
    meta: Vec<RecvMeta>,
    gro: usize,
}

impl ReceiveBuffers {
    /// Buffers that suit every one of `sockets`.
    pub fn new(sockets: &[MediaSocket]) -> Self {
        let gro = sockets.iter().map(|socket| socket.state.gro_segments()).max().unwrap_or(1);
        Self {
            bytes: vec![0; DATAGRAM_BYTES * gro * BATCH_SIZE],
            meta: vec![RecvMeta::default(); BATCH_SIZE],
            gro,
        }
    }
}

/// Binds the sockets that `listen` names, all on one port. IPv6 is left out where the kernel has none.
///
/// # Errors
/// The port is taken, or an address is not this machine's: with the address named.
pub fn bind_all(listen: &Listen, port: u16) -> anyhow::Result<Vec<MediaSocket>> {
    let wanted: Vec<IpAddr> = match listen {
        Listen::Loopback => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Listen::All(_) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Listen::Addresses(addresses) => addresses.clone(),
    };
    let optional_v6 = !matches!(listen, Listen::Addresses(_));
    let mut sockets: Vec<MediaSocket> = Vec::new();
    for ip in wanted {
        // All share the port that the first one got.
        let port = sockets.first().map_or(port, |socket| socket.local.port());
        match MediaSocket::bind(ip, port) {
            Ok(socket) => sockets.push(socket),
            Err(error) if optional_v6 && ip.is_ipv6() => tracing::info!(%ip, %error, "no IPv6 here; going on without"),
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!(
                    "binding UDP port {port} on {ip}: is another peercam running, or is this no address of this machine? \
                     `network.udp_port` and `network.listen` in the configuration say otherwise"
                )));
            }
        }
    }
    anyhow::ensure!(!sockets.is_empty(), "`network.listen` names no address");
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn clock() -> WallClock {
        #[expect(clippy::disallowed_methods, reason = "a test of real sockets needs the real clock")]
        WallClock {
            instant: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// What arrives at `socket` within a second, up to `count` datagrams.
    fn collect(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut buffer = [0; 4_096];
        (0..count)
            .map_while(|_| socket.recv(&mut buffer).ok().map(|size| buffer[..size].to_vec()))
            .collect()
    }

    #[test]
    fn a_segmented_send_arrives_as_single_datagrams_with_source_and_arrival_time() {
        let sockets = bind_all(&Listen::Loopback, 0).expect("two sockets");
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let bytes: Vec<u8> = (0..2_500).map(|index| (index / 1_000) as u8).collect();
        let source = sockets[0].local();
        sockets[0]
            .send(source.ip(), receiver.local_addr().expect("bound"), &bytes, 1_000)
            .expect("sent");
        let got = collect(&receiver, 3);
        assert_eq!(got, [vec![0; 1_000], vec![1; 1_000], vec![2; 500]]);

        receiver.send_to(b"hello", source).expect("sent");
        let mut buffers = ReceiveBuffers::new(&sockets);
        let deadline = clock().instant + Duration::from_secs(2);
        let mut heard = None;
        while heard.is_none() && clock().instant < deadline {
            let now = clock();
            let _ = sockets[0].receive(&mut buffers, &now, |datagram| {
                heard = Some((
                    datagram.bytes.to_vec(),
                    datagram.destination,
                    now.instant.duration_since(datagram.arrived),
                ));
            });
        }
        let (bytes, destination, age) = heard.expect("the datagram arrived");
        assert_eq!((bytes.as_slice(), destination), (b"hello".as_slice(), source));
        assert!(age < Duration::from_secs(2), "arrived {age:?} ago");
    }
}
