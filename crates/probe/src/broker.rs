//! One MQTT connection for all viewers: what the device says is routed to them by topic.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::{AsyncClient, Broker as Address, Event, EventLoop, MqttOptions, Packet, PublishOptions, PublishProperties, QoS};
use rumqttc::{SubscribeFilter, TlsConfiguration, Transport};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::{mpsc, watch};

/// Messages that wait for one reader. A viewer gets a handful in its life; a full queue is dropped, and counted.
pub const INBOX: usize = 64;

/// A request that the broker could not deliver in this time is of no use any more.
const EXPIRY_SECS: u32 = 15;

/// Larger than any message of the protocol, with its topic and properties.
const PACKET_BYTES: u32 = 2 * peercam::protocol::MAX_MESSAGE_BYTES as u32;

/// The distance of two tries to get the broker back.
const RECONNECT: Duration = Duration::from_millis(500);

/// Some brokers take no more filters in one packet.
const FILTERS_A_PACKET: usize = 8;

/// A message as its reader gets it.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub topic: String,
    pub retained: bool,
    pub payload: Vec<u8>,
}

/// How the connection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Down(String),
    /// Connected; this many filters of this connection have been granted.
    Up {
        granted: usize,
    },
}

type Routes = Rc<RefCell<HashMap<String, mpsc::Sender<Incoming>>>>;

/// The connection. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    client: AsyncClient,
    routes: Routes,
    /// What this connection has been asked to subscribe to.
    requested: Rc<RefCell<HashSet<String>>>,
    link: watch::Receiver<Link>,
}

/// Where and how to connect.
pub struct Options<'a> {
    pub url: &'a str,
    pub client_id: String,
    pub ca: Option<&'a Path>,
    pub username: Option<&'a str>,
    pub password_file: Option<&'a Path>,
    /// Requests of all viewers together that may wait for the broker.
    pub queue: usize,
}

/// A broker's URL, read.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    pub websocket: bool,
    pub host: String,
    pub port: u16,
    /// With its leading slash; MQTT over WebSocket is usually at `/mqtt`.
    pub path: String,
}

impl Url {
    /// Reads `tcp://`, `tls://`, `ws://` and `wss://` (and their other names `mqtt`, `ssl`, `mqtts`).
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .with_context(|| format!("{text}: a broker's URL begins with tcp://, tls://, ws:// or wss://"))?;
        let (tls, websocket, port) = match scheme {
            "tcp" | "mqtt" => (false, false, 1_883),
            "tls" | "ssl" | "mqtts" => (true, false, 8_883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            other => bail!("{text}: {other}:// is not known; use tcp://, tls://, ws:// or wss://"),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            bail!("{text}: give the user with --username and the password with --password-file, not in the URL");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, digits)) if !digits.contains(']') => {
                (host, digits.parse().with_context(|| format!("{text}: {digits} is not a port"))?)
            }
            Some(_) | None => (authority, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            bail!("{text}: the host is missing");
        }
        Ok(Self {
            tls,
            websocket,
            host: host.to_owned(),
            port,
            path: if path.is_empty() { "/mqtt".to_owned() } else { path.to_owned() },
        })
    }

    /// Whether the broker is on this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl Broker {
    /// Prepares the connection; [`Connection::run`] makes it.
    ///
    /// # Errors
    /// The URL, the certificates or the password can't be read.
    pub fn new(options: &Options<'_>) -> anyhow::Result<(Self, Connection)> {
        let url = Url::parse(options.url)?;
        let id = options.client_id.clone();
        let mut mqtt = match (url.websocket, url.tls) {
            (false, _) => MqttOptions::new(id, Address::tcp(url.host.clone(), url.port)),
            (true, false) => MqttOptions::new(id, Address::websocket(url.websocket_url("ws"))?),
            (true, true) => MqttOptions::websocket_with_tls_config(id, url.websocket_url("wss"), tls(options.ca)?)?,
        };
        if url.tls && !url.websocket {
            mqtt.set_transport(Transport::tls_with_config(tls(options.ca)?));
        }
        let mut network = mqtt.network_options();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        mqtt.set_keep_alive(15).set_max_packet_size(Some(PACKET_BYTES));
        if let Some(user) = options.username {
            let password = match options.password_file {
                Some(file) => {
                    std::fs::read_to_string(file).with_context(|| format!("reading the MQTT password from {}", file.display()))?
                }
                None => String::new(),
            };
            mqtt.set_credentials(user.to_owned(), password.trim_end_matches(['\r', '\n']).to_owned());
        }
        let (client, events) = AsyncClient::builder(mqtt).capacity(options.queue).try_build()?;
        let (report, link) = watch::channel(Link::Down("not connected yet".to_owned()));
        let broker = Self {
            client,
            routes: Routes::default(),
            requested: Rc::default(),
            link,
        };
        let connection = Connection {
            broker: broker.clone(),
            dropped: Cell::new(0),
            events,
            report,
        };
        Ok((broker, connection))
    }

    /// Hands everything that comes on `topic`, which may hold wildcards, to the receiver; see [`Broker::subscribe`].
    pub fn route(&self, topic: String) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(INBOX);
        self.routes.borrow_mut().insert(topic, sender);
        receiver
    }

    /// Subscribes to the routes that were added while connected; a new connection does it by itself.
    ///
    /// # Errors
    /// The queue to the broker is full.
    pub fn subscribe(&self) -> anyhow::Result<()> {
        if matches!(&*self.link.borrow(), Link::Down(_)) {
            return Ok(());
        }
        let mut requested = self.requested.borrow_mut();
        let routes = self.routes.borrow();
        let topics: Vec<&String> = routes.keys().filter(|topic| !requested.contains(*topic)).collect();
        for topics in topics.chunks(FILTERS_A_PACKET) {
            let filters = topics.iter().map(|topic| SubscribeFilter::new((*topic).clone(), QoS::AtLeastOnce));
            self.client
                .try_subscribe_many(filters)
                .context("subscribing: the queue to the broker is full")?;
            requested.extend(topics.iter().map(|topic| (*topic).clone()));
        }
        Ok(())
    }

    /// Waits until the connection is up and `filters` are granted.
    ///
    /// # Errors
    /// It is not within `limit`; says why.
    pub async fn ready(&self, filters: usize, limit: Duration) -> anyhow::Result<()> {
        let mut link = self.link.clone();
        let ready = link.wait_for(|link| matches!(link, Link::Up { granted } if *granted >= filters));
        match tokio::time::timeout(limit, ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => match &*self.link.borrow() {
                Link::Down(reason) => bail!("no connection to the broker within {} s: {reason}", limit.as_secs_f64()),
                Link::Up { granted } => bail!("the broker granted {granted} of {filters} subscriptions; does its access list allow them?"),
            },
        }
    }

    /// Queues a message for the device.
    ///
    /// # Errors
    /// The queue is full: the broker has been away for too long.
    pub fn publish(&self, topic: &str, text: String) -> anyhow::Result<()> {
        let properties = PublishProperties {
            message_expiry_interval: Some(EXPIRY_SECS),
            ..PublishProperties::default()
        };
        // As the page does: requests are asked again, and QoS 0 spares the wait for acknowledgements.
        let options = PublishOptions::new(QoS::AtMostOnce).properties(properties);
        self.client
            .try_publish(topic, text, options)
            .context("the queue to the broker is full")
    }

    /// Sends what is queued, then ends the connection; [`Connection::run`] returns.
    pub async fn disconnect(&self, limit: Duration) {
        if let Err(error) = self.client.disconnect_with_timeout(limit).await {
            tracing::debug!(%error, "ending the MQTT connection");
        }
    }
}

impl Url {
    fn websocket_url(&self, scheme: &str) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("{scheme}://{host}:{}{}", self.port, self.path)
    }
}

/// The connection's own task.
pub struct Connection {
    broker: Broker,
    /// Messages that found their reader's queue full.
    dropped: Cell<u64>,
    events: EventLoop,
    report: watch::Sender<Link>,
}

impl Connection {
    /// Keeps the connection, and makes it again when it breaks, until [`Broker::disconnect`].
    pub async fn run(mut self) {
        let mut granted = 0;
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    granted = 0;
                    self.broker.requested.borrow_mut().clear();
                    self.report.send_replace(Link::Up { granted });
                    if let Err(error) = self.broker.subscribe() {
                        tracing::warn!(%error, "after connecting");
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let good = |code: &&rumqttc::SubscribeReasonCode| matches!(code, rumqttc::SubscribeReasonCode::Success(_));
                    granted += ack.return_codes.iter().filter(good).count();
                    self.report.send_replace(Link::Up { granted });
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.deliver(publish),
                Ok(_) => {}
                Err(rumqttc::ConnectionError::RequestsDone) => return,
                Err(error) => {
                    tracing::debug!(%error, "MQTT");
                    self.report.send_replace(Link::Down(error.to_string()));
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }

    fn deliver(&self, publish: rumqttc::Publish) {
        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
        let routes = self.broker.routes.borrow();
        let route = routes
            .get(&topic)
            .or_else(|| routes.iter().find(|(filter, _)| matches(filter, &topic)).map(|(_, route)| route));
        let Some(route) = route else { return };
        let incoming = Incoming {
            topic,
            retained: publish.retain,
            payload: publish.payload.to_vec(),
        };
        if let Err(mpsc::error::TrySendError::Full(lost)) = route.try_send(incoming) {
            let dropped = self.dropped.get() + 1;
            self.dropped.set(dropped);
            // Whoever floods a topic must not fill the log too.
            if dropped.is_power_of_two() {
                tracing::warn!(
                    topic = lost.topic,
                    dropped,
                    "messages come faster than they are read; some were dropped"
                );
            }
        }
    }
}

/// Whether `topic` is caught by `filter` (MQTT 5, 4.7; `+` only, which is all that is used here).
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    filter
        .split('/')
        .all(|wanted| levels.next().is_some_and(|level| wanted == "+" || wanted == level))
        && levels.next().is_none()
}

/// rustls with the system's certificate authorities and those in `ca`.
fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConfiguration> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca {
        let reading = || format!("reading certificate authorities from {}", file.display());
        for certificate in CertificateDer::pem_file_iter(file).with_context(reading)? {
            roots.add(certificate.with_context(reading)?).with_context(reading)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_urls_are_read_with_their_usual_ports() {
        for (text, tls, websocket, host, port, path) in [
            ("tcp://127.0.0.1:1883", false, false, "127.0.0.1", 1_883, "/mqtt"),
            ("mqtt://broker", false, false, "broker", 1_883, "/mqtt"),
            ("tls://broker.example", true, false, "broker.example", 8_883, "/mqtt"),
            ("ws://[::1]:9001", false, true, "::1", 9_001, "/mqtt"),
            ("ws://[::1]", false, true, "::1", 80, "/mqtt"),
            ("wss://b:8884/live", true, true, "b", 8_884, "/live"),
        ] {
            let expected = Url {
                tls,
                websocket,
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            };
            assert_eq!(Url::parse(text).expect(text), expected);
        }
        assert_eq!(
            Url::parse("ws://[::1]:9001").expect("a URL").websocket_url("ws"),
            "ws://[::1]:9001/mqtt"
        );
        for wrong in [
            "127.0.0.1:1883",
            "http://b",
            "tcp://",
            "tcp://b:port",
            "tcp://me:secret@b",
            "tcp://:1883",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong} is no broker's URL");
        }
    }

    #[test]
    fn one_level_wildcards_match_one_level() {
        for (filter, topic, caught) in [
            ("peercam/v1/+/status", "peercam/v1/cam/status", true),
            ("peercam/v1/+/status", "peercam/v1/cam/state", false),
            ("peercam/v1/+/status", "peercam/v1/cam/status/more", false),
            ("peercam/v1/+/status", "peercam/v1/cam", false),
        ] {
            assert_eq!(matches(filter, topic), caught, "{topic}");
        }
    }
}
