//! The HTTP carrier: lets a page that the device serves itself work without a broker.
//!
//! `POST /rpc/<peer>` carries one message and brings the reply back, `GET /rpc/<peer>/events` is a stream of Server-Sent Events: the
//! device's status, and what it says of its own accord. Messages, admission and roles are those of MQTT.
//!
//! A page of another origin can do nothing here: see [`Guard`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{get, post};
use hyper::body::Frame;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::gate::{Decision, Gate};
use super::guard::Guard;
use super::web::{Problem, empty, must_be, read_body, respond};
use super::{Counters, Loss, role_of};
use crate::control::Dispatcher;
use crate::protocol::{Door, Envelope, Id, Message, PeerId, Reply, Status};

/// Messages that may wait for a viewer to read them. One that does not is cut off; it comes back and learns the status anew.
const MAX_WAITING: usize = 64;

/// Events that are on their way into the socket.
const MAX_SENDING: usize = 4;

/// A comment goes out this often, so that neither side nor a proxy between takes a quiet stream for a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long the repetition of a request waits for the reply to the first.
const REPEAT_TIME: Duration = Duration::from_secs(10);

/// The carrier.
pub struct HttpCarrier {
    dispatcher: Arc<Dispatcher>,
    guard: Guard,
    gate: Mutex<Gate>,
    counters: Arc<Counters>,
    /// Rings at every reply.
    answered: Notify,
    streams: Mutex<Streams>,
    status: watch::Receiver<Status>,
    stop: watch::Receiver<bool>,
    now: fn() -> Instant,
}

/// Who listens: each peer once. There are no more than connections, which the server bounds.
#[derive(Default)]
struct Streams {
    next: u64,
    open: HashMap<PeerId, (u64, mpsc::Sender<String>)>,
}

impl HttpCarrier {
    /// A carrier that tells `status`, and ends its streams when `stop` turns true.
    #[must_use]
    pub fn new(
        dispatcher: Arc<Dispatcher>,
        guard: Guard,
        counters: Arc<Counters>,
        status: watch::Receiver<Status>,
        stop: watch::Receiver<bool>,
        now: fn() -> Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            dispatcher,
            guard,
            gate: Mutex::new(Gate::new(Arc::clone(&counters))),
            counters,
            answered: Notify::new(),
            streams: Mutex::default(),
            status,
            stop,
            now,
        })
    }

    /// The paths that it answers.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/rpc/{peer}", post(message))
            .route("/rpc/{peer}/events", get(events))
            .with_state(self)
    }

    /// Says something to a viewer. One who does not listen learns it from the connection.
    pub fn send(&self, peer: &PeerId, message: &Message) {
        let mut streams = self.streams();
        let Some((_, stream)) = streams.open.get(peer) else {
            return self.counters.lose(Loss::Disconnected);
        };
        if stream.try_send(event("message", &message.to_json())).is_err() {
            // It does not read, or is gone: without the sender its stream ends.
            streams.open.remove(peer);
            self.counters.lose(Loss::Unread);
        } else {
            self.counters.send();
        }
    }

    async fn receive(self: Arc<Self>, peer: PeerId, request: Request) -> Result<Response<Body>, Problem> {
        self.counters.receive();
        let bytes = match self.read(request).await {
            Ok(bytes) => bytes,
            Err(problem) => {
                problem.refusal().into_iter().for_each(|refusal| self.counters.refuse(refusal));
                return Err(problem);
            }
        };
        let now = (self.now)();
        let decision = self.gate().admit(&peer, &bytes, now);
        match decision {
            Decision::Run(message) => Ok(match self.run(peer, message, now).await {
                Some(reply) => told(reply),
                None => empty(StatusCode::NO_CONTENT),
            }),
            Decision::Answer(reply) => Ok(told(*reply)),
            Decision::Running(id) => self.reply_to(&peer, &id).await.map(told),
            Decision::Ignore => {
                let sentence = "too many messages in a row; go on in a second";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, sentence).retry_after(1))
            }
        }
    }

    async fn read(&self, request: Request) -> Result<Bytes, Problem> {
        self.guard.admit(request.headers())?;
        must_be(request.headers(), "application/json")?;
        let (parts, body) = request.into_parts();
        read_body(&parts.headers, body).await
    }

    /// Carries a message out, also when the viewer has hung up meanwhile: it was admitted, and its reply has to be remembered.
    async fn run(self: Arc<Self>, peer: PeerId, message: Message, now: Instant) -> Option<Reply> {
        let role = role_of(&peer);
        let work = tokio::spawn(async move {
            let envelope = Envelope {
                peer: peer.clone(),
                role,
                message,
            };
            let reply = self.dispatcher.handle(envelope, now).await?;
            self.gate().answered(&peer, &reply);
            self.answered.notify_waiters();
            Some(reply)
        });
        work.await.ok().flatten()
    }

    async fn reply_to(&self, peer: &PeerId, id: &Id) -> Result<Reply, Problem> {
        let look = async {
            loop {
                let mut rung = std::pin::pin!(self.answered.notified());
                rung.as_mut().enable();
                if let Some(reply) = self.gate().reply(peer, id) {
                    return reply;
                }
                rung.await;
            }
        };
        tokio::time::timeout(REPEAT_TIME, look).await.map_err(|_| {
            let sentence = "the same request runs already, and takes long; ask again under its id";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence).retry_after(1)
        })
    }

    /// Opens the stream of `peer`; one that it had before ends.
    fn listen(self: Arc<Self>, peer: PeerId) -> mpsc::Receiver<Bytes> {
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let (out, body) = mpsc::channel(MAX_SENDING);
        let serial = {
            let mut streams = self.streams();
            streams.next += 1;
            let serial = streams.next;
            streams.open.insert(peer.clone(), (serial, sender));
            serial
        };
        tokio::spawn(async move {
            tell(messages, self.status.clone(), self.stop.clone(), out).await;
            let mut streams = self.streams();
            if streams.open.get(&peer).is_some_and(|(known, _)| *known == serial) {
                streams.open.remove(&peer);
            }
        });
        body
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes one stream until the viewer is gone, its place is taken, or the device stops.
async fn tell(
    mut messages: mpsc::Receiver<String>,
    mut status: watch::Receiver<Status>,
    mut stop: watch::Receiver<bool>,
    out: mpsc::Sender<Bytes>,
) {
    let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    status.mark_changed();
    loop {
        let text = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => message,
                None => return,
            },
            Ok(()) = status.changed() => event("status", &json(&status.borrow_and_update())),
            _ = keep_alive.tick() => ":\n\n".to_owned(),
            () = out.closed() => return,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        if out.send(text.into()).await.is_err() {
            return;
        }
    }
    // What the driver said last, then that it is over: as over MQTT.
    while let Ok(message) = messages.try_recv() {
        if out.send(message.into()).await.is_err() {
            return;
        }
    }
    let offline = status.borrow().offline();
    let _ = out.send(event("status", &json(&offline)).into()).await;
}

fn json(status: &Status) -> String {
    serde_json::to_string(status).unwrap_or_default()
}

/// One event (HTML, 9.2.5). JSON of ours has no line breaks.
fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// A reply is 200 whatever it says; what could not even be read as a message is 400.
fn told(reply: Reply) -> Response<Body> {
    let status = match reply.id {
        Some(_) => StatusCode::OK,
        None => StatusCode::BAD_REQUEST,
    };
    respond(status, "application/json", Message::Reply(reply).to_json())
}

fn peer_of(name: &str) -> Result<PeerId, Problem> {
    PeerId::at(Door::Http, name).ok_or_else(|| {
        let sentence = "a peer's name is 1 to 64 of the characters A-Z a-z 0-9 - _";
        Problem::new(StatusCode::NOT_FOUND, sentence)
    })
}

async fn message(State(carrier): State<Arc<HttpCarrier>>, Path(peer): Path<String>, request: Request) -> Response<Body> {
    match peer_of(&peer) {
        Ok(peer) => carrier.receive(peer, request).await.unwrap_or_else(Problem::respond),
        Err(problem) => problem.respond(),
    }
}

async fn events(State(carrier): State<Arc<HttpCarrier>>, Path(peer): Path<String>, request: Request) -> Response<Body> {
    let admitted = carrier.guard.admit(request.headers());
    match admitted.and_then(|()| peer_of(&peer)) {
        Ok(peer) => {
            let body = Body::new(Events(carrier.listen(peer)));
            let mut response = respond(StatusCode::OK, "text/event-stream", body);
            // nginx would collect events until its buffer is full.
            let unbuffered = header::HeaderName::from_static("x-accel-buffering");
            response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
            response
        }
        Err(problem) => problem.respond(),
    }
}

/// A stream's body.
struct Events(mpsc::Receiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
