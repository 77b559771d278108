//! How the agent is doing: `/healthz` for a yes or no with reasons, `/metrics` for figures. `docs/metrics.md` names them all.
//!
//! Nothing here is in the way of media. Each part counts for itself; a scrape asks for what they have counted.

mod health;
mod page;
mod process;
mod relays;
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

use crate::control::{Call, Dispatcher};
use crate::http;
use crate::hub::{self, Hub};
use crate::media::{KeyFrameCounts, Quality};
use crate::net::{self, Drivers};
use crate::protocol::{Status, StreamState};
use crate::signaling;

pub use health::{Health, Verdict};
use process::Process;
pub use routes::routes;

/// How long the drivers may take to answer: they answer in microseconds, or hang.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The pause before drivers are asked again of whom one had its queue full.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Figures of this age are told again, so that a flood of scrapes costs the driver next to nothing.
const REUSE: Duration = Duration::from_millis(200);

/// Asks the parts, and remembers what they said for a moment.
pub struct Monitor {
    parts: Parts,
    started: Instant,
    last: Mutex<Option<Arc<Snapshot>>>,
}

/// Everything that is told, at one moment.
#[derive(Debug)]
struct Snapshot {
    at: Instant,
    streams: Vec<Stream>,
    /// `None` when a driver does not answer.
    driver: Option<net::Figures>,
    commands_refused: u64,
    calls: BTreeMap<Call, u64>,
    broker: Option<signaling::Figures>,
    /// Each carrier that is open, by its name.
    carriers: Vec<(&'static str, signaling::Figures)>,
    server: Option<http::Figures>,
    /// Why the running configuration is not the one on disk, if it is not.
    config_error: Option<String>,
    max_viewers: u32,
    process: Process,
}

/// One rung of a camera.
#[derive(Debug)]
struct Stream {
    name: String,
    quality: Quality,
    state: StreamState,
    /// Why there is no picture, if the camera said so.
    trouble: Option<String>,
    /// How old the newest picture is.
    age: Option<Duration>,
    /// How long ago the camera's thread gave a sign of life: while it looks for a lost camera, and while it rests, it does so all the time.
    unseen: Duration,
    figures: hub::Figures,
    key_frames: KeyFrameCounts,
}

/// The parts that a [`Monitor`] asks.
pub struct Parts {
    /// Every rung of every camera, in the order of the configuration.
    pub hubs: Vec<Arc<Hub>>,
    pub drivers: Drivers,
    pub dispatcher: Arc<Dispatcher>,
    /// `None` for a device without a broker.
    pub broker: Option<Arc<signaling::Counters>>,
    /// Each carrier that is open, by its name.
    pub carriers: Vec<(&'static str, Arc<signaling::Counters>)>,
    /// `None` for a device that serves no HTTP.
    pub server: Option<http::Counters>,
    pub status: watch::Receiver<Status>,
    pub max_viewers: u32,
    pub now: fn() -> Instant,
}

impl Snapshot {
    /// What the cameras show; their other rungs are made of it.
    fn cameras(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| stream.quality == Quality::High)
    }
}

impl Monitor {
    /// A monitor of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            started: (parts.now)(),
            parts,
            last: Mutex::default(),
        }
    }

    /// How the agent is doing.
    pub async fn health(&self) -> Health {
        Health::of(&*self.snapshot().await)
    }

    async fn snapshot(&self) -> Arc<Snapshot> {
        // Held while the parts are asked: whoever comes meanwhile gets the same figures.
        let mut last = self.last.lock().await;
        if let Some(known) = last
            .as_ref()
            .filter(|known| (self.parts.now)().saturating_duration_since(known.at) < REUSE)
        {
            return Arc::clone(known);
        }
        let driver = self.ask_drivers().await;
        let at = (self.parts.now)();
        let snapshot = Arc::new(Snapshot {
            at,
            streams: self.streams(at),
            driver,
            commands_refused: self.parts.drivers.refused(),
            calls: self.parts.dispatcher.calls(),
            broker: self.parts.broker.as_ref().map(|counters| counters.figures()),
            carriers: self
                .parts
                .carriers
                .iter()
                .map(|(name, counters)| (*name, counters.figures()))
                .collect(),
            server: self.parts.server.as_ref().map(http::Counters::figures),
            config_error: self.parts.dispatcher.config_error(),
            max_viewers: self.parts.max_viewers,
            process: Process::read(last.as_ref().map(|known| &known.process)),
        });
        *last = Some(Arc::clone(&snapshot));
        snapshot
    }

    async fn ask_drivers(&self) -> Option<net::Figures> {
        let ask = async {
            loop {
                match self.parts.drivers.figures().await {
                    Err(error) if error.reason() == "busy" => tokio::time::sleep(ASK_AGAIN).await,
                    answer => return answer.ok(),
                }
            }
        };
        tokio::time::timeout(ANSWER_TIME, ask).await.ok().flatten()
    }

    fn streams(&self, at: Instant) -> Vec<Stream> {
        let status = self.parts.status.borrow();
        let state = |name: &str| {
            let stream = status.streams.iter().find(|stream| stream.name == name);
            stream.map_or(StreamState::Starting, |stream| stream.state)
        };
        self.parts
            .hubs
            .iter()
            .map(|hub| {
                let figures = hub.figures();
                Stream {
                    name: hub.name().to_owned(),
                    quality: hub.quality(),
                    state: state(hub.name()),
                    trouble: hub.trouble(),
                    age: figures.newest.map(|newest| at.saturating_duration_since(newest)),
                    unseen: at.saturating_duration_since(hub.target().alive().unwrap_or(self.started)),
                    figures,
                    key_frames: hub.target().key_frames(),
                }
            })
            .collect()
    }
}
