//! All drivers of an agent, seen as one.
//!
//! Where one core is not enough, viewers are shared out among several drivers; no session is ever shared. A viewer's name says which
//! driver serves it, so that what it sends later finds its session without a table that could go stale.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::thread::JoinHandle;

use str0m::config::DtlsCert;
use tokio::sync::{mpsc, oneshot};

use super::driver::{self, Relaying, Sockets};
use super::figures::Figures;
use super::handle::{Command, DriverHandle, Notice, Order};
use super::ice_tcp::IceTcp;
use super::sessions::{MAX_UNHEARD, Offered, Seats, Shared};
use super::socket::bind_all;
use crate::config::{Network, TransportPolicy};
use crate::media::Bitrate;
use crate::protocol::{ErrorCode, PeerId, RpcError};

/// What the drivers are given.
pub struct Context {
    pub network: Network,
    pub certificate: DtlsCert,
    /// Every stream that viewers may ask for; the first is the default.
    pub streams: Vec<Offered>,
    /// The most viewers at once.
    pub max_viewers: u32,
    pub notices: mpsc::Sender<Notice>,
}

/// Hands each driver what concerns it.
#[derive(Clone)]
pub struct Drivers {
    handles: Arc<[DriverHandle]>,
    /// With keys of its own, so that nobody can choose names that all fall to one driver.
    hasher: RandomState,
}

/// Binds the sockets and starts a driver's thread for each of `network.threads`.
///
/// # Errors
/// A socket can't be bound, or the system gives no thread: then none is left running.
pub fn spawn(context: Context) -> anyhow::Result<(Drivers, Vec<JoinHandle<()>>)> {
    let network = &context.network;
    let count = usize::try_from(network.threads.get()).unwrap_or(1);
    // All are bound before the first thread starts: what fails leaves nothing behind.
    let ports = std::iter::successors(Some(network.udp_port), |port| match port {
        0 => Some(0),
        port => port.checked_add(1),
    });
    let sockets = ports
        .take(count)
        .zip(0..)
        .map(|(port, index)| bind(network, port, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shared = Shared {
        certificate: context.certificate,
        streams: context.streams,
        seats: Seats::new(context.max_viewers),
        max_unheard: MAX_UNHEARD.div_ceil(count),
        notices: context.notices,
    };
    let relaying = Relaying {
        ice_servers: network.ice_servers.clone(),
        listen: network.listen.clone(),
        advertise: network.advertise.clone(),
        policy: network.transport_policy,
    };
    let (mut handles, mut threads) = (Vec::new(), Vec::new());
    for (index, sockets) in sockets.into_iter().enumerate() {
        match driver::spawn(index, sockets, shared.clone(), relaying.clone()) {
            Ok((handle, thread)) => {
                handles.push(handle);
                threads.push(thread);
            }
            Err(error) => {
                Drivers::new(handles).shut_down("the device could not start");
                return Err(error);
            }
        }
    }
    Ok((Drivers::new(handles), threads))
}

/// The sockets of driver number `index`, whose UDP port is this one.
fn bind(network: &Network, port: u16, index: u16) -> anyhow::Result<Sockets> {
    let udp = bind_all(&network.listen, port)?;
    // Where all has to go through a relay, nobody is told of another way.
    let first = network.tcp_port.filter(|_| network.transport_policy == TransportPolicy::All);
    let tcp_port = first.and_then(|first| first.get().checked_add(index));
    Ok(Sockets {
        tcp: IceTcp::bind(&udp, tcp_port)?,
        udp,
        tcp_port,
    })
}

impl Drivers {
    fn new(handles: Vec<DriverHandle>) -> Self {
        Self {
            handles: handles.into(),
            hasher: RandomState::new(),
        }
    }

    /// Hands a command to the viewer's driver; never waits.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] when too many wait already, or too much, [`ErrorCode::Unavailable`] when the driver has ended.
    pub fn send(&self, command: Command) -> Result<(), RpcError> {
        self.of(command.peer())?.send(Order::Viewer(command))
    }

    /// Tells all that a stream's format changed, or that one of its rungs came or went: sessions whose SDP is no longer true have to be
    /// made anew.
    ///
    /// # Errors
    /// As [`Drivers::send`]; the others are told all the same.
    pub fn format_changed(&self, stream: &str) -> Result<(), RpcError> {
        self.tell_all(|| Order::FormatChanged { stream: stream.to_owned() })
    }

    /// Tells all that the encoder of a stream's high rung is asked for another bit rate.
    ///
    /// # Errors
    /// As [`Drivers::send`]; the others are told all the same.
    pub fn target_changed(&self, stream: &str, bitrate: Bitrate) -> Result<(), RpcError> {
        self.tell_all(|| Order::TargetChanged {
            stream: stream.to_owned(),
            bitrate,
        })
    }

    /// Closes all sessions with this reason, and ends the threads.
    pub fn shut_down(&self, reason: &str) {
        // One that has ended already is what was wanted.
        let _ = self.tell_all(|| Order::Shutdown { reason: reason.to_owned() });
    }

    /// What all have counted.
    ///
    /// # Errors
    /// As [`Drivers::send`].
    pub async fn figures(&self) -> Result<Figures, RpcError> {
        let mut answers = Vec::new();
        for handle in self.handles.iter() {
            let (reply, answer) = oneshot::channel();
            handle.send(Order::Figures { reply })?;
            answers.push(answer);
        }
        let mut sum = Figures::default();
        for answer in answers {
            sum.add(answer.await.map_err(|_| ended())?);
        }
        Ok(sum)
    }

    /// Viewers at this moment.
    #[must_use]
    pub fn viewers(&self) -> u32 {
        self.handles.iter().map(DriverHandle::viewers).sum()
    }

    /// Commands that were refused because too many waited.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.handles.iter().map(DriverHandle::refused).sum()
    }

    fn of(&self, peer: &PeerId) -> Result<&DriverHandle, RpcError> {
        let place = self.hasher.hash_one(peer) % self.handles.len().max(1) as u64;
        usize::try_from(place)
            .ok()
            .and_then(|place| self.handles.get(place))
            .ok_or_else(ended)
    }

    fn tell_all(&self, order: impl Fn() -> Order) -> Result<(), RpcError> {
        self.handles.iter().map(|handle| handle.send(order())).fold(Ok(()), Result::and)
    }
}

fn ended() -> RpcError {
    RpcError::new(ErrorCode::Unavailable, "the device is shutting down")
}
