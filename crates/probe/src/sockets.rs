//! One viewer's UDP sockets: one for IPv4 and one for IPv6, with the kernel's arrival stamps.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::moment::Moment;

/// Messages read with one system call.
const BATCH: usize = 16;

/// One message can be many datagrams of the same size that the kernel has joined (GRO); together they stay below this.
const MESSAGE_BYTES: usize = 65_536;

/// Asked of the kernel, which may give less: a key frame's burst must not be lost because another viewer is being served.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Room for one batch, shared by all viewers: only one reads at a time.
#[derive(Clone)]
pub struct Buffers(Rc<RefCell<Vec<u8>>>);

impl Default for Buffers {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; BATCH * MESSAGE_BYTES])))
    }
}

/// A viewer's sockets.
pub struct Sockets {
    list: Vec<Socket>,
    buffers: Buffers,
}

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    port: u16,
}

impl Sockets {
    /// Sockets for every family that `addresses` has, on ports of the kernel's choice.
    ///
    /// # Errors
    /// No socket can be had; with many viewers mostly because of the limit on open files.
    pub fn bind(addresses: &[IpAddr], buffers: &Buffers) -> io::Result<Self> {
        let mut list = Vec::new();
        for (wanted, any) in [
            (addresses.iter().any(IpAddr::is_ipv4), IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            (addresses.iter().any(IpAddr::is_ipv6), IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        ] {
            if wanted {
                list.push(Socket::bind(any)?);
            }
        }
        Ok(Self {
            list,
            buffers: buffers.clone(),
        })
    }

    /// The addresses with their ports, as candidates want them.
    pub fn addresses(&self, addresses: &[IpAddr]) -> Vec<SocketAddr> {
        let port = |ip: &IpAddr| self.of(*ip).map(|socket| SocketAddr::new(*ip, socket.port));
        addresses.iter().filter_map(port).collect()
    }

    /// Sends one datagram. What the kernel does not take is lost, as on any network.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) {
        let Some(socket) = self.of(destination.ip()) else { return };
        let transmit = quinn_udp::Transmit {
            destination,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: (!source.ip().is_unspecified()).then(|| source.ip()),
        };
        let sent = socket.io.try_io(Interest::WRITABLE, || {
            socket.state.try_send(UdpSockRef::from(&socket.io), &transmit)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, %destination, "sending");
        }
    }

    /// Waits until there is something to read.
    pub async fn readable(&self) {
        // A socket that fails is reported by the read that follows.
        match &self.list[..] {
            [one] => drop(one.io.readable().await),
            [one, two] => tokio::select! { _ = one.io.readable() => {}, _ = two.io.readable() => {} },
            _ => std::future::pending().await,
        }
    }

    /// Reads one batch from each socket; `each` gets source, destination, bytes and arrival. Returns the count of datagrams.
    pub fn receive(&self, mut each: impl FnMut(SocketAddr, SocketAddr, &[u8], Moment)) -> usize {
        let mut buffers = self.buffers.0.borrow_mut();
        let mut count = 0;
        for socket in &self.list {
            let mut meta = [RecvMeta::default(); BATCH];
            let received = {
                let mut chunks = buffers.chunks_exact_mut(MESSAGE_BYTES);
                let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
                let read = || socket.state.recv(UdpSockRef::from(&socket.io), &mut slices, &mut meta);
                socket.io.try_io(Interest::READABLE, read)
            };
            let messages = match received {
                Ok(messages) => messages,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "receiving");
                    }
                    continue;
                }
            };
            let now = Moment::now();
            for (meta, message) in meta.iter().zip(buffers.chunks_exact(MESSAGE_BYTES)).take(messages) {
                let Some(local) = meta.dst_ip else { continue };
                let arrived = now.of_stamp(meta.timestamp);
                for bytes in message.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
                    count += 1;
                    each(meta.addr, SocketAddr::new(local, socket.port), bytes, arrived);
                }
            }
        }
        count
    }

    fn of(&self, ip: IpAddr) -> Option<&Socket> {
        self.list
            .iter()
            .find(|socket| socket.io.local_addr().is_ok_and(|local| local.is_ipv4() == ip.is_ipv4()))
    }
}

impl Socket {
    fn bind(any: IpAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((any, 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        if let Err(error) = state.set_recv_buffer_size(UdpSockRef::from(&socket), RECEIVE_BUFFER) {
            tracing::debug!(%error, "asking for a larger receive buffer");
        }
        socket.set_nonblocking(true)?;
        Ok(Self {
            port: socket.local_addr()?.port(),
            state,
            io: UdpSocket::from_std(socket)?,
        })
    }
}
