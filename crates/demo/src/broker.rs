//! The MQTT broker inside the demo. The agent and the page speak to it over sockets, as they would to any other.

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use mqtt5::broker::config::{StorageConfig, WebSocketConfig};
use mqtt5::broker::events::{BrokerEventHandler, RetainedSetEvent};
use mqtt5::broker::{BrokerConfig, BrokerShutdownHandle, MqttBroker};
use peercam::protocol::{DeviceId, Status, Topics};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Twice the largest message of the protocol: room for topic and properties, none for abuse.
const MAX_PACKET_BYTES: usize = 128 * 1024;
/// Agent, page tabs and a few tools of a curious person.
const MAX_CLIENTS: usize = 64;
/// One status per device; more than a demo ever has.
const MAX_RETAINED: usize = 64;
/// How long clients get to take their leave at the end.
const FAREWELL: Duration = Duration::from_millis(300);

/// A running broker.
pub struct Broker {
    mqtt: SocketAddr,
    ws: SocketAddr,
    path: String,
    statuses: watch::Receiver<Vec<(String, Status)>>,
    shutdown: BrokerShutdownHandle,
    task: JoinHandle<()>,
}

impl Broker {
    /// Listens on both addresses; browsers have to know the `path`.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn start(mqtt: SocketAddr, ws: SocketAddr, path: String) -> anyhow::Result<Self> {
        let (sender, statuses) = watch::channel(Vec::new());
        let mut config = BrokerConfig::new()
            .with_bind_address(mqtt)
            .with_websocket(WebSocketConfig::new().with_bind_address(ws).with_path(path.clone()))
            .with_max_clients(MAX_CLIENTS)
            .with_max_packet_size(MAX_PACKET_BYTES)
            .with_max_retained_messages(MAX_RETAINED)
            .with_max_retained_message_size(MAX_PACKET_BYTES)
            .with_maximum_qos(1)
            .with_storage(StorageConfig::new().with_persistence(false))
            .with_sys_topics_enabled(false);
        config.event_handler = Some(Arc::new(StatusWatch(sender)));

        let mut broker = MqttBroker::with_config(config)
            .await
            .with_context(|| format!("starting the demo's MQTT broker on {mqtt}"))?;
        let mqtt = broker
            .local_addr()
            .ok_or_else(|| anyhow!("the MQTT broker cannot listen on {mqtt}"))?;
        let ws = broker
            .ws_local_addr()
            .ok_or_else(|| anyhow!("the MQTT broker cannot listen for browsers on {ws}"))?;
        let shutdown = broker.shutdown_handle();
        let task = tokio::spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "the demo's MQTT broker has ended");
            }
        });
        Ok(Self {
            mqtt,
            ws,
            path,
            statuses,
            shutdown,
            task,
        })
    }

    /// Where it listens for programs.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where it listens for browsers.
    #[must_use]
    pub fn ws(&self) -> SocketAddr {
        self.ws
    }

    /// The path of its WebSocket, with the leading `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Waits until `device` has published a status of which `enough` is true.
    pub async fn status(&mut self, device: &DeviceId, enough: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
        let topic = Topics::new(device).status();
        let find = |statuses: &Vec<(String, Status)>| {
            statuses
                .iter()
                .find(|(of, status)| *of == topic && enough(status))
                .map(|(_, status)| status.clone())
        };
        let statuses = self.statuses.wait_for(|statuses| find(statuses).is_some()).await;
        let statuses = statuses.context("the demo's MQTT broker has ended")?;
        find(&statuses).ok_or_else(|| anyhow!("the status changed while it was read"))
    }

    /// Tells its clients goodbye and ends.
    pub async fn stop(mut self) {
        self.shutdown.shutdown();
        if tokio::time::timeout(FAREWELL, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Keeps the newest status of every device.
struct StatusWatch(watch::Sender<Vec<(String, Status)>>);

impl BrokerEventHandler for StatusWatch {
    fn on_retained_set<'a>(&'a self, event: RetainedSetEvent) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if let Ok(status) = serde_json::from_slice::<Status>(&event.payload) {
            self.0.send_modify(|statuses| {
                statuses.retain(|(topic, _)| *topic != *event.topic);
                // The broker refuses to retain more than this, so nothing beyond it is a device's status.
                if statuses.len() < MAX_RETAINED {
                    statuses.push((event.topic.to_string(), status));
                }
            });
        }
        Box::pin(std::future::ready(()))
    }
}

/// The WebSocket's path with a secret in it, kept in `state` so that an open page finds the next run too.
///
/// A browser lets any web page open a WebSocket to this machine, and the demo has no password: what keeps other pages
/// away from the camera is that they cannot guess the path.
///
/// # Errors
/// The secret cannot be read, made or written.
pub fn secret_path(state: &Path) -> anyhow::Result<String> {
    let file = state.join("broker-path");
    if let Ok(path) = fs::read_to_string(&file)
        && is_secret_path(&path)
    {
        return Ok(path);
    }
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("reading /dev/urandom")?;
    let path = format!("/mqtt-{:032x}", u128::from_ne_bytes(bytes));
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut opened| opened.write_all(path.as_bytes()))
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(path)
}

/// Whether `path` is one that [`secret_path`] made.
fn is_secret_path(path: &str) -> bool {
    path.strip_prefix("/mqtt-")
        .is_some_and(|secret| secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_secret_and_outlives_a_run() {
        let state = tempfile::tempdir().expect("a directory");
        let path = secret_path(state.path()).expect("a path");
        assert!(is_secret_path(&path), "{path}");
        assert_eq!(secret_path(state.path()).expect("the same path"), path);
        fs::write(state.path().join("broker-path"), "/mqtt").expect("a damaged file");
        assert!(
            is_secret_path(&secret_path(state.path()).expect("a new path")),
            "a damaged file is replaced"
        );
        let other = tempfile::tempdir().expect("a directory");
        assert_ne!(secret_path(other.path()).expect("another path"), path);
    }
}
