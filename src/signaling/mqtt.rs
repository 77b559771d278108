//! The MQTT carrier: one connection that comes back by itself.
//!
//! The connection's task only polls and waits; what comes in goes to [`run`], which answers. A broker that is away costs
//! running sessions nothing: they need it only to begin and to restart.

mod connection;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{
    AsyncClient, Broker as Target, ConnectProperties, IncomingPacketSizeLimit, LastWill, LastWillProperties, MqttOptions, Publish,
    PublishOptions, PublishProperties, RetainForwardRule, SubscribeFilterInput, TlsConfiguration, Transport,
};
use tokio::sync::{mpsc, watch};

pub use self::connection::Addresses;
use self::connection::{Own, Watched, poll};
use super::gate::{Decision, Gate};
use super::{Counters, Loss, Outgoing, Refusal, role_of, tls};
use crate::config::{Broker, BrokerScheme};
use crate::control::Dispatcher;
use crate::protocol::{DeviceId, Envelope, MAX_MESSAGE_BYTES, Message, PeerId, Reply, Status, Topics};

/// What the broker may send us in one packet: a message, its topic and its properties.
const MAX_PACKET_BYTES: u32 = MAX_MESSAGE_BYTES as u32 + 4_096;

/// What mosquitto sends beyond that, because it counts wrongly (eclipse-mosquitto/mosquitto#3503), with room. It is no reason to end the
/// connection for everybody.
const PACKET_TOLERANCE: u32 = 64;

/// Messages that may wait for the broker to take them.
const MAX_QUEUED: usize = 64;

/// Messages of peers that are read at once, and as many again may wait to be dealt with; what is more waits at the broker. Their
/// replies fit into the queue to the broker twice, and none is larger than [`MAX_PACKET_BYTES`].
const MAX_READ: usize = 16;

/// Messages that the broker has and has not acknowledged yet. It is only the status that is sent so. The client makes room for all
/// of them when it begins, and its default takes 15 MiB.
const MAX_UNACKNOWLEDGED: u16 = 16;

/// An answer that comes later is worthless: the viewer has asked again.
const EXPIRY_SECS: u32 = 15;

/// A connection that was up for this long was a good one: the next failure starts from the shortest pause.
const STABLE: Duration = Duration::from_secs(10);

/// The retained status is ours alone; whoever puts another in its place is contradicted, but not more often than this.
const CONTRADICT_EVERY: Duration = Duration::from_secs(1);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(800);

/// What the carrier works with.
pub struct Carrier {
    pub device: DeviceId,
    pub broker: Broker,
    pub dispatcher: Arc<Dispatcher>,
    /// Written here, read by whoever watches over the device.
    pub counters: Arc<Counters>,
    /// The retained status, published again at each change.
    pub status: watch::Receiver<Status>,
    /// Messages of the device's own accord.
    pub outgoing: mpsc::Receiver<Outgoing>,
    pub addresses: Addresses,
    /// Turns true when it is time to say goodbye.
    pub stop: watch::Receiver<bool>,
}

enum Incoming {
    Connected,
    Subscribed,
    Published(Box<Publish>),
    Lost,
}

/// What is said while there is no connection, such as a new address just when it has changed. What a viewer would not take any more is
/// forgotten.
#[derive(Default)]
struct Held(VecDeque<(Instant, Outgoing)>);

impl Held {
    /// Whether there was room without forgetting something else.
    fn keep(&mut self, outgoing: Outgoing, now: Instant) -> bool {
        self.0.push_back((now, outgoing));
        let fits = self.0.len() <= MAX_QUEUED;
        if !fits {
            self.0.pop_front();
        }
        fits
    }

    /// When the oldest is of no use any more.
    fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at + Duration::from_secs(EXPIRY_SECS.into()))
    }

    /// Forgets what is of no use any more; returns how many.
    fn expire(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.0.pop_front();
        }
        before - self.0.len()
    }

    /// All that is left.
    fn take(&mut self) -> impl Iterator<Item = Outgoing> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|(_, outgoing)| outgoing)
    }
}

/// Where and how a reply goes.
struct Answer {
    peer: PeerId,
    topic: String,
    correlation: Option<Bytes>,
    reply: Reply,
}

/// Runs the carrier until it is told to stop.
///
/// # Errors
/// The broker's address or certificates can't be used at all. A broker that is away is no error.
pub async fn run(carrier: Carrier, now: fn() -> Instant) -> anyhow::Result<()> {
    let Carrier {
        device,
        broker,
        dispatcher,
        counters,
        mut status,
        mut outgoing,
        addresses,
        mut stop,
    } = carrier;
    let topics = Topics::new(&device);
    let mut options = options(&device, &broker, &topics, &status.borrow())?;
    let own = Own::of(&mut options);
    let (client, eventloop) = AsyncClient::builder(options).capacity(MAX_QUEUED).build();
    let (sender, mut incoming) = mpsc::channel(MAX_READ);
    let watched = Watched {
        settings: broker,
        own,
        addresses,
        now,
    };
    let poll = tokio::spawn(poll(eventloop, sender, watched));
    let (answer, mut answers) = mpsc::channel::<Answer>(MAX_QUEUED);
    let mut inbox = Inbox {
        topics,
        client,
        dispatcher,
        answer,
        gate: Gate::new(Arc::clone(&counters)),
        contradicted: None,
        contradict: None,
        counters,
    };
    let mut connected = false;
    let mut held = Held::default();
    // Whoever reads "online" may ask at once, so it is said when requests can come. The client gives no order of its own: it
    // may send a publish before a subscription that was asked for earlier.
    let mut announced = false;

    loop {
        tokio::select! {
            event = incoming.recv() => match event {
                Some(Incoming::Connected) => {
                    connected = true;
                    inbox.counters.connect();
                    inbox.subscribe();
                    for outgoing in held.take() {
                        inbox.send(inbox.topics.to(&outgoing.peer), &outgoing.message, None);
                    }
                }
                Some(Incoming::Subscribed) => {
                    announced = true;
                    inbox.publish_status(&status.borrow_and_update());
                }
                Some(Incoming::Lost) => {
                    (connected, announced) = (false, false);
                    inbox.counters.disconnect();
                }
                Some(Incoming::Published(publish)) => inbox.receive(&publish, &status.borrow(), now()),
                None => anyhow::bail!("the MQTT connection's task ended"),
            },
            Some(answer) = answers.recv() => {
                inbox.gate.answered(&answer.peer, &answer.reply);
                if connected {
                    inbox.answer(answer);
                } else {
                    inbox.counters.lose(Loss::Disconnected);
                }
            }
            Some(outgoing) = outgoing.recv() => if connected {
                inbox.send(inbox.topics.to(&outgoing.peer), &outgoing.message, None);
            } else if !held.keep(outgoing, now()) {
                inbox.counters.lose(Loss::Disconnected);
            },
            Ok(()) = status.changed() => {
                let status = status.borrow_and_update();
                if announced {
                    inbox.publish_status(&status);
                }
            }
            () = tokio::time::sleep_until(held.deadline().unwrap_or_else(now).into()), if held.deadline().is_some() => {
                for _ in 0..held.expire(now()) {
                    inbox.counters.lose(Loss::Disconnected);
                }
            }
            () = tokio::time::sleep_until(inbox.contradict.unwrap_or_else(now).into()), if inbox.contradict.is_some() => {
                inbox.contradict = None;
                inbox.contradicted = Some(now());
                if announced {
                    inbox.publish_status(&status.borrow());
                }
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }

    // What the driver said last, then the status, then a clean goodbye, so that the broker does not publish the will.
    if connected {
        while let Ok(outgoing) = outgoing.try_recv() {
            inbox.send(inbox.topics.to(&outgoing.peer), &outgoing.message, None);
        }
        let farewell = status.borrow().offline();
        inbox.publish_status(&farewell);
        let _ = inbox.client.disconnect_with_timeout(GOODBYE).await;
        let drained = async { while incoming.recv().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, drained).await;
    }
    poll.abort();
    Ok(())
}

fn options(device: &DeviceId, broker: &Broker, topics: &Topics, status: &Status) -> anyhow::Result<MqttOptions> {
    let url = broker.url.as_ref().context("no broker is configured")?;
    let id = format!("peercam-{device}");
    let host = if url.host.contains(':') {
        format!("[{}]", url.host)
    } else {
        url.host.clone()
    };
    let tls = || tls::client_config(broker).map(TlsConfiguration::Rustls);
    let mut options = match url.scheme {
        BrokerScheme::Tcp => MqttOptions::new(id, Target::tcp(url.host.clone(), url.port)),
        BrokerScheme::Tls => {
            let mut options = MqttOptions::new(id, Target::tcp(url.host.clone(), url.port));
            options.set_transport(Transport::tls_with_config(tls()?));
            options
        }
        BrokerScheme::Ws => {
            let target = Target::websocket(format!("ws://{host}:{}{}", url.port, url.path)).context("reading broker.url")?;
            MqttOptions::new(id, target)
        }
        BrokerScheme::Wss => {
            let address = format!("wss://{host}:{}{}", url.port, url.path);
            MqttOptions::websocket_with_tls_config(id, address, tls()?).context("reading broker.url")?
        }
    };
    options
        .set_outgoing_inflight_upper_limit(MAX_UNACKNOWLEDGED)
        .set_read_batch_size(MAX_READ)
        .set_max_request_batch(MAX_QUEUED);
    options.set_keep_alive(u16::try_from(broker.keep_alive.as_secs()).unwrap_or(u16::MAX));
    options.set_connect_properties(ConnectProperties {
        max_packet_size: Some(MAX_PACKET_BYTES),
        ..ConnectProperties::default()
    });
    options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(MAX_PACKET_BYTES + PACKET_TOLERANCE));
    match (&broker.username, &broker.password) {
        (Some(username), Some(password)) => {
            options.set_credentials(username.clone(), password.reveal().to_owned());
        }
        (Some(username), None) => {
            options.set_username(username.clone());
        }
        (None, _) => {}
    }
    let message = serde_json::to_vec(&status.offline()).context("writing the last will")?;
    options.set_last_will(LastWill::new(
        topics.status(),
        message,
        QoS::AtLeastOnce,
        true,
        None::<LastWillProperties>,
    ));
    Ok(options)
}

/// Deals with what comes in, and sends what goes out.
struct Inbox {
    topics: Topics,
    client: AsyncClient,
    dispatcher: Arc<Dispatcher>,
    answer: mpsc::Sender<Answer>,
    gate: Gate,
    /// When the retained status was last put right.
    contradicted: Option<Instant>,
    /// When it is to be put right next.
    contradict: Option<Instant>,
    counters: Arc<Counters>,
}

impl Inbox {
    /// After each ConnAck: the broker may have forgotten us.
    fn subscribe(&self) {
        // What was retained for us is not meant for now; retained as published, a live one is known by its flag.
        // QoS 0, whatever it was sent with: at QoS 1 mosquitto (2.0.11) counts a message that is too large for us, and so is not sent
        // at all, as one that we have not acknowledged; after twenty of them it sends us nothing any more.
        let requests = SubscribeFilterInput::new(self.topics.from_all(), QoS::AtMostOnce)
            .preserve_retain(true)
            .retain_forward_rule(RetainForwardRule::Never);
        let own_status = SubscribeFilterInput::new(self.topics.status(), QoS::AtLeastOnce);
        if let Err(error) = self.client.try_subscribe_many([requests, own_status]) {
            tracing::warn!(%error, "subscribing failed; the next connection tries again");
        }
    }

    fn receive(&mut self, publish: &Publish, status: &Status, now: Instant) {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if topic == self.topics.status() {
            // Not the echo of what we said last: our own will, published late, or somebody's mischief.
            if serde_json::from_slice::<Status>(&publish.payload).ok().as_ref() != Some(status) {
                let earliest = self.contradicted.map_or(now, |at| at + CONTRADICT_EVERY);
                self.contradict = Some(earliest.max(now));
            }
            return;
        }
        self.counters.receive();
        let Some(peer) = self.topics.sender(topic) else {
            self.counters.refuse(Refusal::Topic);
            return;
        };
        if publish.retain {
            self.counters.refuse(Refusal::Retained);
            tracing::debug!(%peer, "a retained message was ignored");
            return;
        }
        let decision = self.gate.admit(&peer, &publish.payload, now);
        let properties = publish.properties.as_ref();
        let wanted = properties.and_then(|properties| properties.response_topic.clone());
        let topic = wanted
            .filter(|topic| self.topics.may_answer(&peer, topic))
            .unwrap_or_else(|| self.topics.to(&peer));
        let correlation = properties.and_then(|properties| properties.correlation_data.clone());
        let give = |reply: Reply| Answer {
            peer: peer.clone(),
            topic: topic.clone(),
            correlation: correlation.clone(),
            reply,
        };
        let message = match decision {
            Decision::Run(message) => message,
            Decision::Answer(reply) => return self.answer(give(*reply)),
            Decision::Running(_) | Decision::Ignore => return,
        };
        let (dispatcher, answers, role) = (Arc::clone(&self.dispatcher), self.answer.clone(), role_of(&peer));
        tokio::spawn(async move {
            let envelope = Envelope {
                peer: peer.clone(),
                role,
                message,
            };
            if let Some(reply) = dispatcher.handle(envelope, now).await {
                // Fails only when the carrier has ended.
                let _ = answers
                    .send(Answer {
                        peer,
                        topic,
                        correlation,
                        reply,
                    })
                    .await;
            }
        });
    }

    fn answer(&self, answer: Answer) {
        self.send(answer.topic, &Message::Reply(answer.reply), answer.correlation);
    }

    fn send(&self, topic: String, message: &Message, correlation: Option<Bytes>) {
        let properties = PublishProperties {
            message_expiry_interval: Some(EXPIRY_SECS),
            correlation_data: correlation,
            ..PublishProperties::default()
        };
        // QoS 0: a viewer asks again by itself, and the broker's acknowledgement would hold back its next message to us by
        // 40 ms wherever Nagle's algorithm meets delayed acknowledgements, as in a default mosquitto.
        let options = PublishOptions::new(QoS::AtMostOnce).properties(properties);
        if let Err(error) = self.client.try_publish(topic, message.to_json().into_bytes(), options) {
            self.counters.lose(Loss::Queue);
            tracing::warn!(%error, "a message to a viewer was dropped; it asks again by itself");
        } else {
            self.counters.send();
        }
    }

    fn publish_status(&self, status: &Status) {
        let Ok(json) = serde_json::to_vec(status) else { return };
        if let Err(error) = self
            .client
            .try_publish(self.topics.status(), json, PublishOptions::new(QoS::AtLeastOnce).retained())
        {
            self.counters.lose(Loss::Queue);
            tracing::warn!(%error, "the status could not be published; the next change tries again");
        } else {
            self.counters.send();
        }
    }
}
