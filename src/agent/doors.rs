//! By which doors viewers reach this agent, and where what the drivers have to say goes out.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::control::Dispatcher;
use crate::http::{self, PageConfig};
use crate::net::{Command, Drivers, MAX_UNHEARD, Notice};
use crate::protocol::{Door, Envelope, Message, Status};
use crate::signaling::http::HttpCarrier;
use crate::signaling::whep::Whep;
use crate::signaling::{Counters, Guard, Loss, Outgoing};

/// The doors of the HTTP server that are open.
pub struct Doors {
    guard: Guard,
    http: Option<Arc<HttpCarrier>>,
    whep: Option<Arc<Whep>>,
    counters: Vec<(&'static str, Arc<Counters>)>,
}

impl Doors {
    pub fn new(config: &Config, dispatcher: &Arc<Dispatcher>, status: &watch::Sender<Status>, stop: &watch::Sender<bool>) -> Self {
        let guard = Guard::new(config.http.hosts.clone());
        let mut counters = Vec::new();
        let mut counted = |carrier| {
            let own = Arc::new(Counters::default());
            counters.push((carrier, Arc::clone(&own)));
            own
        };
        let open = |wanted: bool| config.http.listen.filter(|_| wanted);
        let http = open(config.http.signaling).map(|_| {
            HttpCarrier::new(
                Arc::clone(dispatcher),
                guard.clone(),
                counted("http"),
                status.subscribe(),
                stop.subscribe(),
                Instant::now,
            )
        });
        let whep = open(config.http.whep).map(|listen| {
            // On more than loopback the configuration's own warning says what that means.
            tracing::info!(%listen, "WHEP is open");
            // Twice what there can be at once: a notice of an end may come a moment after the next beginning.
            let most = 2 * (config.limits.viewers.get() as usize + MAX_UNHEARD);
            Whep::new(Arc::clone(dispatcher), most, counted("whep"), Instant::now)
        });
        Self {
            guard,
            http,
            whep,
            counters,
        }
    }

    /// What the carriers behind the open doors count, each with its name.
    pub fn counters(&self) -> Vec<(&'static str, Arc<Counters>)> {
        self.counters.clone()
    }

    /// Everything that the HTTP server answers, and `beside` it.
    pub fn routes(&self, config: &Config, device: String, beside: axum::Router) -> axum::Router {
        let page = PageConfig {
            device,
            broker: config.broker.url.as_ref().and(config.broker.page_url.clone()),
            http: self.http.is_some(),
        };
        // `peercam.json` tells where the broker is: not to a page whose name was made to mean this device.
        let guard = self.guard.clone();
        let only_our_names = middleware::from_fn(move |request: Request, next: Next| {
            let refused = guard.admit_host(request.headers()).err();
            async move {
                match refused {
                    Some(problem) => problem.respond(),
                    None => next.run(request).await,
                }
            }
        });
        let mut routes = http::page(page).merge(beside).layer(only_our_names);
        if let Some(http) = &self.http {
            routes = routes.merge(Arc::clone(http).routes());
        }
        if let Some(whep) = &self.whep {
            routes = routes.merge(Arc::clone(whep).routes());
        }
        routes.layer(middleware::from_fn(|request: Request, next: Next| async move {
            let mut response = match Guard::one_host(request.headers()) {
                Ok(()) => next.run(request).await,
                Err(problem) => problem.respond(),
            };
            // On every answer, also where the router itself refuses.
            response
                .headers_mut()
                .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }))
    }
}

/// Brings what the drivers have to say to where it belongs: requests to the dispatcher, the rest to the viewer, by the door that it
/// came in.
pub struct Speaker {
    pub mqtt: mpsc::Sender<Outgoing>,
    /// Told when this machine's addresses have changed.
    pub moved: watch::Sender<()>,
    /// What MQTT could not take.
    pub counters: Arc<Counters>,
    pub doors: Doors,
    pub dispatcher: Arc<Dispatcher>,
    pub drivers: Drivers,
}

impl Speaker {
    /// Until the drivers end.
    pub async fn run(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            let (peer, message) = match notice {
                Notice::Message {
                    session,
                    peer,
                    role,
                    message,
                } => {
                    self.dispatch(session, Envelope { peer, role, message });
                    continue;
                }
                Notice::Moved => {
                    // Without a broker nobody listens.
                    let _ = self.moved.send(());
                    continue;
                }
                Notice::Candidates { peer, candidates } => (peer, Message::notification("session.candidates", &candidates)),
                Notice::Closed { peer, close } => {
                    if let Some(whep) = &self.doors.whep {
                        whep.closed(&close.session);
                    }
                    (peer, Message::notification("session.close", &close))
                }
            };
            match peer.door() {
                // Full or without a broker: the viewer learns it from its connection.
                Door::Mqtt => {
                    if self.mqtt.try_send(Outgoing { peer, message }).is_err() {
                        self.counters.lose(Loss::Waiting);
                    }
                }
                Door::Http => {
                    if let Some(http) = &self.doors.http {
                        http.send(&peer, &message);
                    }
                }
                // WHEP has no way to tell; the connection says it.
                Door::Whep => {}
            }
        }
    }

    fn dispatch(&self, session: String, envelope: Envelope) {
        let (dispatcher, drivers) = (Arc::clone(&self.dispatcher), self.drivers.clone());
        tokio::spawn(async move {
            let peer = envelope.peer.clone();
            if let Some(reply) = dispatcher.handle(envelope, Instant::now()).await {
                let _ = drivers.send(Command::Message {
                    peer,
                    session,
                    message: Message::Reply(reply),
                });
            }
        });
    }
}
