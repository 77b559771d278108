//! The composition root: builds the parts, wires their channels, supervises them, drains them.
#![expect(clippy::disallowed_methods, reason = "the composition root gives the parts their clock")]

mod cameras;
pub mod doors;
mod service;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::doors::{Doors, Speaker};
use crate::config::{self, Config, TransportPolicy};
use crate::control::{Announcement, Dispatcher};
use crate::hub::Stream;
use crate::net::{self, Drivers};
use crate::protocol::{self, DeviceId, DeviceInfo, Status, StreamState, StreamStatus};
use crate::signaling::{Counters, mqtt};
use crate::{http, identity, memory, metrics};

/// Notices of the drivers, and messages to viewers, that may wait.
const MAX_WAITING: usize = 256;

/// How often the configuration file is looked at.
const CONFIG_EVERY: Duration = Duration::from_secs(1);

/// What stopping may take in all is two seconds; the last of the parts gets what is left of this.
const STOP_TIME: Duration = Duration::from_millis(1_800);

/// A running agent.
pub struct Agent {
    device: DeviceId,
    page: Option<SocketAddr>,
    dispatcher: Arc<Dispatcher>,
    drivers: Drivers,
    monitor: Arc<metrics::Monitor>,
    status: watch::Sender<Status>,
    stop: watch::Sender<bool>,
    stop_cameras: Arc<AtomicBool>,
    /// Each part holds a sender; it says its name when it ends.
    ended: mpsc::Receiver<&'static str>,
    carrier: Option<tokio::task::JoinHandle<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
    notices: tokio::task::JoinHandle<()>,
    /// Keeps other agents out of the state folder.
    _lock: std::fs::File,
}

/// Says that a part has ended, however it ended.
struct Part(&'static str, mpsc::Sender<&'static str>);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.1.try_send(self.0);
    }
}

impl Agent {
    /// Starts every part. Needs a tokio runtime.
    ///
    /// # Errors
    /// A port is taken, the state folder can't be written, or TLS files can't be read. A camera or a broker that is away is
    /// no error: they are tried until they come.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let started = Instant::now();
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let identity = identity::load_or_create(&config.device.state_dir)?;
        let device = DeviceInfo {
            id: identity.device.to_string(),
            name: config.device.name.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (stop, stopped) = watch::channel(false);
        // What can fail comes before what has to be stopped: a port is let go by itself, the drivers' threads would not end.
        let server = match config.http.listen {
            Some(address) => Some(http::Server::bind(address, config.limits.viewers.get() as usize).await?),
            None => None,
        };
        let streams: Vec<Stream> = config
            .cameras
            .iter()
            .map(|camera| Stream::new(&camera.name, camera.low.is_some()))
            .collect();
        let (notice_sender, notice_receiver) = mpsc::channel(MAX_WAITING);
        let (ended_sender, ended) = mpsc::channel(16);
        let context = net::Context {
            network: config.network.clone(),
            certificate: identity.certificate,
            streams: streams
                .iter()
                .zip(&config.cameras)
                .map(|(stream, camera)| net::Offered {
                    stream: stream.clone(),
                    bitrate: camera.bitrate,
                    low_bitrate: camera.low.unwrap_or(camera.bitrate),
                })
                .collect(),
            max_viewers: config.limits.viewers.get(),
            notices: notice_sender,
        };
        let (drivers, threads) = net::spawn(context)?;
        for thread in threads {
            watch_thread("driver", thread, &ended_sender)?;
        }
        let announcement = announcement(&config, device.clone());
        let dispatcher = Arc::new(Dispatcher::new(announcement, streams.clone(), drivers.clone(), started)?);
        let (status, status_receiver) = watch::channel(first_status(&config, &device)?);
        let counters = Arc::new(Counters::default());
        let doors = Doors::new(&config, &dispatcher, &status, &stop);
        let broker = config.broker.url.is_some().then(|| Arc::clone(&counters));
        let mqtt = broker.iter().map(|counters| ("mqtt", Arc::clone(counters)));
        let parts = metrics::Parts {
            hubs: streams.iter().flat_map(Stream::rungs).cloned().collect(),
            drivers: drivers.clone(),
            dispatcher: Arc::clone(&dispatcher),
            carriers: mqtt.chain(doors.counters()).collect(),
            broker,
            server: server.as_ref().map(http::Server::counters),
            status: status_receiver.clone(),
            max_viewers: config.limits.viewers.get(),
            now: Instant::now,
        };
        let monitor = Arc::new(metrics::Monitor::new(parts));
        let stop_cameras = Arc::new(AtomicBool::new(false));
        for (camera, stream) in config.cameras.iter().zip(streams) {
            cameras::start(
                camera.clone(),
                stream,
                drivers.clone(),
                status.clone(),
                Arc::clone(&stop_cameras),
                &ended_sender,
            )?;
        }
        let page = server.as_ref().map(http::Server::address);
        let server = server.map(|server| {
            let beside = metrics::routes(Arc::clone(&monitor), config.http.metrics);
            let app = doors.routes(&config, device.id.clone(), beside);
            let (part, stopped) = (Part("the HTTP server", ended_sender.clone()), stopped.clone());
            tokio::spawn(async move {
                let _part = part;
                server.run(app, stopped).await;
            })
        });
        let (moved, moved_receiver) = watch::channel(());
        let (outgoing, outgoing_receiver) = mpsc::channel(MAX_WAITING);
        let speaker = Speaker {
            mqtt: outgoing,
            moved,
            counters: Arc::clone(&counters),
            doors,
            dispatcher: Arc::clone(&dispatcher),
            drivers: drivers.clone(),
        };
        let notices = tokio::spawn(speaker.run(notice_receiver));
        let carrier = config.broker.url.is_some().then(|| {
            let carrier = mqtt::Carrier {
                device: identity.device.clone(),
                broker: config.broker.clone(),
                dispatcher: Arc::clone(&dispatcher),
                counters,
                status: status_receiver,
                outgoing: outgoing_receiver,
                addresses: mqtt::Addresses {
                    changed: moved_receiver,
                    has: net::is_ours,
                },
                stop: stopped,
            };
            let part = Part("the MQTT carrier", ended_sender.clone());
            tokio::spawn(async move {
                let _part = part;
                if let Err(error) = mqtt::run(carrier, Instant::now).await {
                    tracing::error!(error = format!("{error:#}"), "signaling over MQTT ended");
                }
            })
        });
        tokio::spawn(memory::give_back_until(stop.subscribe()));
        tracing::info!(device = %identity.device, version = device.software, "peercam runs");
        Ok(Self {
            device: identity.device,
            page,
            dispatcher,
            drivers,
            monitor,
            status,
            stop,
            stop_cameras,
            ended,
            carrier,
            server,
            notices,
            _lock: identity.lock,
        })
    }

    /// This device's id.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Where the page is served.
    #[must_use]
    pub fn page(&self) -> Option<SocketAddr> {
        self.page
    }

    /// How the cameras are doing; each change is told.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Says everywhere why the running configuration is not the one on disk; `None` when it is.
    pub fn set_config_error(&self, error: Option<String>) {
        self.dispatcher.set_config_error(error.clone());
        self.status.send_modify(|status| {
            status.config_error = error;
            status.seq += 1;
        });
    }

    /// Waits until a part has ended that should not have; returns its name.
    pub async fn failed(&mut self) -> &'static str {
        self.ended.recv().await.unwrap_or("the agent")
    }

    /// Tells viewers and broker good-bye and ends, within two seconds.
    pub async fn stop(self) {
        self.stop_because("the device is shutting down; it comes back by itself when it restarts")
            .await;
    }

    async fn stop_because(mut self, reason: &str) {
        let deadline = tokio::time::Instant::now() + STOP_TIME;
        self.stop_cameras.store(true, Ordering::Relaxed);
        self.drivers.shut_down(reason);
        // The drivers' end closes the notices, and with them the messages to viewers.
        let _ = tokio::time::timeout_at(deadline, &mut self.notices).await;
        let _ = self.stop.send(true);
        if let Some(carrier) = &mut self.carrier {
            let _ = tokio::time::timeout_at(deadline, carrier).await;
        }
        if let Some(server) = &mut self.server {
            let _ = tokio::time::timeout_at(deadline, server).await;
        }
        let cameras = async { while self.ended.recv().await.is_some() {} };
        let _ = tokio::time::timeout_at(deadline, cameras).await;
    }
}

/// Runs the agent with the configuration at `path` until it is told to stop, following the file's changes.
///
/// # Errors
/// It can't start at all, or a part of it failed: whoever started the process has to start it again.
pub async fn run(path: &Path, started: config::Started) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut reload = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let mut every = tokio::time::interval(CONFIG_EVERY);
    let mut watch = config::Watch::new(path.to_owned(), &started);
    let (mut agent, mut running) = first_agent(started, &mut watch).await?;
    service::ready();
    let mut signs = tokio::time::interval(service::every());
    loop {
        let check = tokio::select! {
            _ = signs.tick() => {
                service::watch(&agent.monitor.health().await, agent.drivers.viewers());
                continue;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            part = agent.failed() => {
                agent.stop().await;
                anyhow::bail!("{part} ended unexpectedly");
            }
            _ = reload.recv() => watch.check_now(),
            _ = every.tick() => watch.look(),
        };
        match check {
            config::Check::Unchanged => {}
            config::Check::Bad(error) => {
                tracing::error!("the configuration is bad, the last good one stays in force:\n{error}");
                agent.set_config_error(Some(error.summary()));
            }
            config::Check::Changed(config) if *config == running => {
                tracing::info!("the configuration is good, and the one that runs");
                agent.set_config_error(None);
            }
            config::Check::Changed(config) => {
                tracing::info!("the configuration has changed; starting anew with it");
                agent.stop_because("the device starts anew with another configuration").await;
                agent = match Agent::start((*config).clone()).await {
                    Ok(agent) => {
                        watch.keep();
                        running = *config;
                        agent
                    }
                    Err(error) => {
                        let sentence = format!("{error:#}");
                        tracing::error!(error = sentence, "the new configuration can't run, going back to the last one");
                        let agent = Agent::start(running.clone()).await?;
                        agent.set_config_error(Some(sentence));
                        agent
                    }
                };
            }
        }
    }
    tracing::info!("stopping");
    service::stopping();
    agent.stop().await;
    Ok(())
}

/// Runs what was read, or the last good configuration where that can't run; with the configuration in force.
async fn first_agent(started: config::Started, watch: &mut config::Watch) -> anyhow::Result<(Agent, Config)> {
    let error = match Agent::start(started.config.clone()).await {
        Ok(agent) => {
            watch.keep();
            if let Some(error) = started.bad {
                tracing::error!("the configuration is bad, running the last good one:\n{error}");
                agent.set_config_error(Some(error.summary()));
            }
            return Ok((agent, started.config));
        }
        Err(error) => error,
    };
    let Some(last_good) = watch.fall_back() else { return Err(error) };
    let sentence = format!("{error:#}");
    tracing::error!(error = sentence, "the configuration can't run, running the last good one");
    // What stood in the way may be in the way of both.
    let agent = Agent::start(last_good.clone()).await.map_err(|_| error)?;
    agent.set_config_error(Some(sentence));
    Ok((agent, last_good))
}

fn announcement(config: &Config, device: DeviceInfo) -> Announcement {
    Announcement {
        device,
        ice_servers: ice_servers(config.network.ice_servers.clone()),
        transport_policy: match config.network.transport_policy {
            TransportPolicy::All => protocol::TransportPolicy::All,
            TransportPolicy::Relay => protocol::TransportPolicy::Relay,
        },
        max_viewers: config.limits.viewers.get(),
        unsigned: config.unsigned.methods.clone(),
    }
}

fn ice_servers(servers: Vec<config::IceServer>) -> Box<dyn Fn() -> Vec<protocol::IceServer> + Send + Sync> {
    Box::new(move || {
        let of = |server: &config::IceServer| {
            let minted = net::credentials(server).map(|credentials| credentials.mint(SystemTime::now()));
            let (username, credential) = minted.map(|minted| (minted.username, minted.password)).unzip();
            protocol::IceServer {
                urls: server.urls.clone(),
                username,
                credential,
            }
        };
        servers.iter().map(of).collect()
    })
}

fn first_status(config: &Config, device: &DeviceInfo) -> anyhow::Result<Status> {
    let mut boot = [0; 8];
    aws_lc_rs::rand::fill(&mut boot).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let starting = |name: &String| StreamStatus {
        name: name.clone(),
        state: StreamState::Starting,
        reason: None,
    };
    Ok(Status {
        online: true,
        boot: boot.iter().map(|byte| format!("{byte:02x}")).collect(),
        seq: 0,
        version: protocol::VERSION,
        name: device.name.clone(),
        software: device.software.clone(),
        streams: config.cameras.iter().map(|camera| starting(&camera.name)).collect(),
        config_error: None,
    })
}

/// Notices the end of a thread that is not ours to change.
fn watch_thread(name: &'static str, thread: std::thread::JoinHandle<()>, ended: &mpsc::Sender<&'static str>) -> anyhow::Result<()> {
    let part = Part(name, ended.clone());
    std::thread::Builder::new()
        .name(format!("{name} watch"))
        .spawn(move || {
            let _part = part;
            let _ = thread.join();
        })
        .with_context(|| format!("watching the {name} thread"))?;
    Ok(())
}
