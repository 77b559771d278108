//! The connection to the broker: made, made again, and left when its own address has gone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::{Event, EventLoop, MqttOptions, Packet, SubscribeReasonCode};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::backoff::Backoff;
use super::super::trouble;
use super::{Incoming, STABLE};
use crate::config::Broker;

/// How long after one address of the broker the next one is tried too (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The address of ours that the connection begins at. The kernel ends no connection whose address is taken away; it only waits.
#[derive(Clone, Default)]
pub struct Own(Arc<Mutex<Option<IpAddr>>>);

impl Own {
    /// Lets connections of `options` tell where they begin.
    pub fn of(options: &mut MqttOptions) -> Self {
        let own = Self::default();
        let theirs = own.clone();
        options.set_socket_connector(move |host, _| {
            let own = theirs.clone();
            async move {
                let stream = connect(host).await?;
                own.set(stream.local_addr().ok().map(|address| address.ip()));
                Ok::<_, io::Error>(stream)
            }
        });
        own
    }

    fn set(&self, address: Option<IpAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn get(&self) -> Option<IpAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How this machine's addresses are.
pub struct Addresses {
    /// Told of when they have changed.
    pub changed: watch::Receiver<()>,
    /// Whether one is among them.
    pub has: fn(IpAddr) -> bool,
}

/// To the first of the broker's addresses that answers.
async fn connect(host: String) -> io::Result<TcpStream> {
    let mut addresses = lookup_host(host).await?.collect::<Vec<SocketAddr>>().into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = addresses.next() {
            tries.spawn(TcpStream::connect(address));
        } else if tries.is_empty() {
            return Err(last);
        }
        tokio::select! {
            Some(tried) = tries.join_next() => match tried {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = tokio::time::sleep(STAGGER), if addresses.len() > 0 => {}
        }
    }
}

/// What the connection is watched over with.
pub struct Watched {
    pub settings: Broker,
    pub own: Own,
    pub addresses: Addresses,
    pub now: fn() -> Instant,
}

/// Polls the connection, and connects again after each failure with a fresh look-up of the broker's name.
pub(super) async fn poll(mut eventloop: EventLoop, events: mpsc::Sender<Incoming>, watched: Watched) {
    let Watched {
        settings,
        own,
        mut addresses,
        now,
    } = watched;
    let broker = settings.url.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut backoff = Backoff::new(settings.reconnect_max);
    let mut connected_at: Option<Instant> = None;
    let mut last_error = String::new();
    loop {
        let polled = tokio::select! {
            // First, so that what is said of the new address does not go into the connection of the old one.
            biased;
            () = gone(&own, &mut addresses) => {
                tracing::info!(%broker, "this device's address has changed; connecting to the broker anew");
                eventloop.clean();
                own.set(None);
                if connected_at.take().is_some() && events.send(Incoming::Lost).await.is_err() {
                    return;
                }
                continue;
            }
            polled = eventloop.poll() => polled,
        };
        let event = match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                tracing::info!(%broker, "connected to the broker");
                connected_at = Some(now());
                last_error.clear();
                Some(Incoming::Connected)
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = ack.return_codes.iter().any(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if refused {
                    tracing::warn!(%broker, codes = ?ack.return_codes, "the broker refuses a subscription; does its access list allow it?");
                }
                Some(Incoming::Subscribed)
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => Some(Incoming::Published(Box::new(publish))),
            Ok(Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_)) => None,
            Err(rumqttc::ConnectionError::RequestsDone) => return,
            Err(error) => {
                if connected_at.is_some_and(|at| now().saturating_duration_since(at) >= STABLE) {
                    backoff.reset();
                }
                // The same trouble is told once, not at each try.
                let error = trouble::sentence(&error, &settings);
                if connected_at.take().is_some() || error != last_error {
                    tracing::warn!(%broker, %error, "no connection to the broker; trying again");
                    last_error = error;
                }
                if events.send(Incoming::Lost).await.is_err() {
                    return;
                }
                let mut random = [0];
                let _ = aws_lc_rs::rand::fill(&mut random);
                // With another address the broker may be in reach again.
                tokio::select! {
                    () = tokio::time::sleep(backoff.pause(random[0])) => {}
                    Ok(()) = addresses.changed.changed() => backoff.reset(),
                }
                None
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// Until the connection's own address has gone.
async fn gone(own: &Own, addresses: &mut Addresses) {
    loop {
        if addresses.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if own.get().is_some_and(|own| !(addresses.has)(own)) {
            return;
        }
    }
}
