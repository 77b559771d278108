//! The HTTP server: one port, a bounded number of connections, and no patience for those that say nothing.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// Connections beside those that listen for events: a browser opens six to load the page.
const SPARE_CONNECTIONS: usize = 128;

/// The time for a request's head to arrive, and for a connection to be silent between two requests.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// A browser's head has 1 KiB; one with a bearer token several.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Lines in a head.
const MAX_HEADERS: usize = 64;

/// What is read ahead of, and written behind, one connection: a whole head.
const MAX_BUFFERED: usize = MAX_HEAD_BYTES;

/// What was sent has to be taken by the other side in this time, else the kernel gives the connection up.
const SEND_TIME_MS: u32 = 20_000;

/// How long the pause is after the system had no descriptor for a new connection.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// What requests in progress get when the server stops.
const STOP_TIME: Duration = Duration::from_millis(500);

/// A bound port that is not served yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections: Arc<Connections>,
}

/// What the server counts, for whoever watches over the device.
#[derive(Clone)]
pub struct Counters(Arc<Connections>);

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections now.
    pub open: u64,
    /// Connections whose place was given to another.
    pub evicted: u64,
}

impl Counters {
    /// What was counted so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let open = self.0.open();
        Figures {
            open: open.places.len() as u64,
            evicted: open.evicted,
        }
    }
}

impl Server {
    /// Takes the port, to serve so many listeners for events at once and what else they need.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub async fn bind(address: SocketAddr, listeners: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("serving the page on {address}: is the port taken? `http.listen` in the configuration names another")
        })?;
        let address = listener.local_addr().context("reading the page's address")?;
        let connections = Arc::new(Connections::new(listeners + SPARE_CONNECTIONS));
        Ok(Self {
            listener,
            address,
            connections,
        })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters(Arc::clone(&self.connections))
    }

    /// Serves `app` until `stop` turns true.
    pub async fn run(self, app: Router, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        // Each connection ends gracefully by itself.
        let stopping = stop.clone();
        let mut stopped = std::pin::pin!(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        });
        let mut told = false;
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let place = Connections::enter(&self.connections, from.ip());
                        tasks.spawn(connection(stream, from, app.clone(), place, stopping.clone()));
                        told = false;
                    }
                    Err(error) => {
                        if is_lasting(&error) {
                            if !told {
                                tracing::warn!(%error, "the system has no room for a new HTTP connection; trying again");
                                told = true;
                            }
                            tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
                        }
                    }
                },
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = stopped.as_mut() => break,
            }
        }
        drop(self.listener);
        let ended = async { while tasks.join_next().await.is_some() {} };
        // What remains is cut off with the set.
        let _ = tokio::time::timeout(STOP_TIME, ended).await;
    }
}

/// Whether it is about this machine and not about the one connection that was to be accepted.
fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection until it ends, its place is given away, or the server stops.
async fn connection(stream: TcpStream, from: SocketAddr, app: Router, place: Place, mut stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, SEND_TIME_MS);
    let Place {
        evicted,
        answering,
        _leave,
    } = place;
    let service = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        let answer = hyper::service::Service::call(&service, request.map(Body::new));
        let answering = Arc::clone(&answering);
        // Not before there is an answer: a body that never ends keeps no place.
        async move {
            answer
                .await
                .map(|answer: Response<Body>| answer.map(|body| Answer::begin(body, &answering))) as Result<_, Infallible>
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFERED)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut evicted = std::pin::pin!(evicted);
    let mut stopped = std::pin::pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut stopping = false;
    loop {
        tokio::select! {
            // A client that breaks off or says nothing is no trouble of ours.
            _ = served.as_mut() => return,
            _ = evicted.as_mut() => return,
            () = stopped.as_mut(), if !stopping => {
                served.as_mut().graceful_shutdown();
                stopping = true;
            }
        }
    }
}

/// Who is connected. When all places are taken, the neighbourhood that holds most idle connections gives up its oldest one; only where every
/// connection is being answered, such as by events, does one of those go. So one that takes all places loses its own, and everybody else
/// goes on: who has many addresses can open many connections, but keeps a request on none of them for longer than it takes to answer.
struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    evicted: u64,
    /// Oldest first.
    places: BTreeMap<u64, Held>,
}

/// A connection, as the others see it.
struct Held {
    neighbourhood: IpAddr,
    answering: Arc<AtomicUsize>,
    /// Dropped to end it.
    _evict: oneshot::Sender<()>,
}

/// A connection's place.
struct Place {
    /// Resolves when the place is given to another.
    evicted: oneshot::Receiver<()>,
    /// Requests on it whose answers are not all sent.
    answering: Arc<AtomicUsize>,
    _leave: Leave,
}

/// Makes the place free when the connection has ended, however it ended.
struct Leave {
    number: u64,
    connections: Arc<Connections>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.connections.open().places.remove(&self.number);
    }
}

impl Connections {
    fn new(most: usize) -> Self {
        Self {
            most,
            open: Mutex::default(),
        }
    }

    fn enter(this: &Arc<Self>, from: IpAddr) -> Place {
        let mut open = this.open();
        while open.places.len() >= this.most {
            let Some(oldest) = open.oldest_of_the_greediest() else { break };
            // Dropping the sender is the message.
            open.places.remove(&oldest);
            open.evicted += 1;
        }
        let number = open.next;
        open.next += 1;
        let (evict, evicted) = oneshot::channel();
        let answering = Arc::new(AtomicUsize::new(0));
        let held = Held {
            neighbourhood: neighbourhood(from),
            answering: Arc::clone(&answering),
            _evict: evict,
        };
        open.places.insert(number, held);
        Place {
            evicted,
            answering,
            _leave: Leave {
                number,
                connections: Arc::clone(this),
            },
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn oldest_of_the_greediest(&self) -> Option<u64> {
        let oldest_of = |idle: bool| {
            let mut held: HashMap<IpAddr, (usize, u64)> = HashMap::new();
            for (number, place) in &self.places {
                if !idle || place.answering.load(Ordering::Relaxed) == 0 {
                    held.entry(place.neighbourhood).or_insert((0, *number)).0 += 1;
                }
            }
            let greediest = held.into_values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
            greediest.map(|(_, oldest)| oldest)
        };
        oldest_of(true).or_else(|| oldest_of(false))
    }
}

/// An IPv4 address; of an IPv6 address the network, since one host has as many addresses in it as it likes.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

/// An answer's body, which counts as being answered until the last byte is handed over.
struct Answer {
    body: Body,
    answering: Arc<AtomicUsize>,
}

impl Answer {
    fn begin(body: Body, answering: &Arc<AtomicUsize>) -> Self {
        answering.fetch_add(1, Ordering::Relaxed);
        Self {
            body,
            answering: Arc::clone(answering),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stays(place: &mut Place) -> bool {
        place.evicted.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[test]
    fn who_listens_stays_when_many_others_come() {
        let connections = Arc::new(Connections::new(8));
        let alice = IpAddr::from([192, 0, 2, 1]);
        let mut events = Connections::enter(&connections, alice);
        let answer = Answer::begin(Body::empty(), &events.answering);
        let mut idle = Connections::enter(&connections, alice);
        let others: Vec<Place> = (0..100)
            .map(|host| Connections::enter(&connections, [198, 51, 100, host].into()))
            .collect();
        assert!(stays(&mut events), "what is being answered stays");
        assert!(!stays(&mut idle), "who holds two gives up the idle one");
        drop(answer);
        let _more: Vec<Place> = (0..8)
            .map(|host| Connections::enter(&connections, [203, 0, 113, host].into()))
            .collect();
        assert!(!stays(&mut events), "when it is answered it is like any other");
        drop(others);
    }

    #[test]
    fn a_network_of_one_host_counts_as_one() {
        let connections = Arc::new(Connections::new(8));
        let mut good: Vec<Place> = (1..=3)
            .map(|host| Connections::enter(&connections, [192, 0, 2, host].into()))
            .collect();
        let host = |number: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]);
        let bad: Vec<Place> = (0..100).map(|number| Connections::enter(&connections, host(number))).collect();
        assert!(good.iter_mut().all(stays));
        assert_eq!(
            neighbourhood("::ffff:192.0.2.1".parse().expect("an address")),
            IpAddr::from([192, 0, 2, 1])
        );
        drop(bad);
    }

    #[test]
    fn who_takes_all_places_loses_its_own() {
        let connections = Arc::new(Connections::new(4));
        let [alice, mallory] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let mut good = Connections::enter(&connections, alice);
        let mut bad: Vec<Place> = (0..100).map(|_| Connections::enter(&connections, mallory)).collect();
        assert!(
            good.evicted
                .try_recv()
                .is_err_and(|error| error == oneshot::error::TryRecvError::Empty),
            "alice stays"
        );
        let gone = bad
            .iter_mut()
            .map(|place| place.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed))
            .collect::<Vec<_>>();
        assert!(
            gone[..97].iter().all(|gone| *gone) && gone[97..].iter().all(|gone| !gone),
            "all but the newest three"
        );
        let told = Counters(Arc::clone(&connections)).figures();
        assert_eq!(told, Figures { open: 4, evicted: 97 });
        drop((good, bad));
        assert!(connections.open().places.is_empty(), "who leaves makes room");
    }
}
