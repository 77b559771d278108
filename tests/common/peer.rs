//! An MQTT 5 client of the test's own, and JSON-RPC over it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{Client, Event, IncomingPacketSizeLimit, MqttOptions, Packet, PublishOptions, PublishProperties};
use serde_json::{Value, json};

use super::SOON;

/// Messages that may wait to be sent, and to be looked at.
const QUEUED: usize = 20_000;

/// One message that came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub topic: String,
    pub retained: bool,
    pub correlation: Option<Bytes>,
    /// `Null` where it is not JSON.
    pub message: Value,
}

enum Note {
    Connected,
    Subscribed,
    Heard(Heard),
}

/// A client with what it has heard and nobody has looked at yet.
pub struct Peer {
    client: Client,
    notes: Receiver<Note>,
    waiting: VecDeque<Heard>,
    device: String,
    name: String,
    next_id: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect_now();
    }
}

impl Peer {
    /// The viewer `name` of `device`: it hears what is sent to it, and beneath.
    pub fn join(broker: SocketAddr, device: &str, name: &str) -> Self {
        let mut peer = Self::connect(broker, device, name);
        peer.subscribe(&format!("peercam/v1/{device}/to/{name}/#"));
        peer
    }

    /// Hears every device's status.
    pub fn watcher(broker: SocketAddr) -> Self {
        let mut peer = Self::connect(broker, "none", "watcher");
        peer.subscribe("peercam/v1/+/status");
        peer
    }

    /// As [`Peer::join`], with an account (name and password) at the broker, and with `name` for a client id, as pages do.
    pub fn log_in(broker: SocketAddr, device: &str, name: &str, account: (&str, &str)) -> Self {
        let mut options = MqttOptions::new(name, (broker.ip().to_string(), broker.port()));
        options.set_credentials(account.0, account.1.to_owned());
        let mut peer = Self::connect_with(options, device, name);
        peer.subscribe(&format!("peercam/v1/{device}/to/{name}/#"));
        peer
    }

    fn connect(broker: SocketAddr, device: &str, name: &str) -> Self {
        let options = MqttOptions::new(String::new(), (broker.ip().to_string(), broker.port()));
        Self::connect_with(options, device, name)
    }

    fn connect_with(mut options: MqttOptions, device: &str, name: &str) -> Self {
        options.set_keep_alive(60);
        options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(1 << 20));
        let (client, mut connection) = Client::builder(options).capacity(QUEUED).build();
        let (sender, notes) = sync_channel(QUEUED);
        std::thread::spawn(move || {
            for event in connection.iter() {
                let note = match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => Note::Connected,
                    Ok(Event::Incoming(Packet::SubAck(_))) => Note::Subscribed,
                    Ok(Event::Incoming(Packet::Publish(publish))) => Note::Heard(Heard {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        retained: publish.retain,
                        correlation: publish.properties.and_then(|properties| properties.correlation_data),
                        message: serde_json::from_slice(&publish.payload).unwrap_or_default(),
                    }),
                    Ok(_) => continue,
                    // The broker is gone, or the test has let go.
                    Err(_) => return,
                };
                if sender.send(note).is_err() {
                    return;
                }
            }
        });
        let mut peer = Self {
            client,
            notes,
            waiting: VecDeque::new(),
            device: device.to_owned(),
            name: name.to_owned(),
            next_id: 1,
        };
        peer.note("the broker takes the connection", |note| matches!(note, Note::Connected));
        peer
    }

    /// Subscribes, and waits until the broker has said yes.
    pub fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).expect("queueing a subscription");
        self.note("the broker grants the subscription", |note| matches!(note, Note::Subscribed));
    }

    fn note(&mut self, what: &str, wanted: impl Fn(&Note) -> bool) {
        loop {
            let note = self.notes.recv_timeout(SOON).unwrap_or_else(|error| panic!("{what}: {error}"));
            if wanted(&note) {
                return;
            }
            if let Note::Heard(heard) = note {
                self.waiting.push_back(heard);
            }
        }
    }

    /// The first message that `wanted` takes, of those not looked at yet; the others stay. `None` after `limit`.
    pub fn hear<T>(&mut self, limit: Duration, mut wanted: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        let mut looked = 0;
        loop {
            while let Some(heard) = self.waiting.get(looked) {
                if let Some(found) = wanted(heard) {
                    self.waiting.remove(looked);
                    return Some(found);
                }
                looked += 1;
            }
            match self.notes.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Note::Heard(heard)) => self.waiting.push_back(heard),
                Ok(Note::Connected | Note::Subscribed) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the connection of {} to the broker broke", self.name),
            }
        }
    }

    /// The next status that is as `wanted`, with the id of the device that sent it; those before it are forgotten.
    pub fn status(&mut self, what: &str, limit: Duration, mut wanted: impl FnMut(&Value) -> bool) -> (String, Value) {
        let mut last = Value::Null;
        let found = self.hear(limit, |heard| {
            let device = heard.topic.strip_prefix("peercam/v1/")?.strip_suffix("/status")?;
            last = heard.message.clone();
            wanted(&heard.message).then(|| (device.to_owned(), heard.message.clone()))
        });
        self.waiting.clear();
        found.unwrap_or_else(|| panic!("{what}: waited {limit:?} in vain; the last status: {last}"))
    }

    /// Publishes `payload` on any topic.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, options: PublishOptions) {
        self.client.publish(topic, payload.into(), options).expect("queueing a message");
    }

    /// The topic on which this peer speaks to the device.
    pub fn request_topic(&self) -> String {
        format!("peercam/v1/{}/from/{}", self.device, self.name)
    }

    /// The topic on which this peer is spoken to.
    pub fn to_topic(&self) -> String {
        format!("peercam/v1/{}/to/{}", self.device, self.name)
    }

    /// Sends bytes to the device.
    pub fn send(&self, payload: impl Into<Vec<u8>>) {
        self.publish(&self.request_topic(), payload, PublishOptions::at_least_once());
    }

    /// Sends a request that names where its reply is wanted.
    pub fn send_with_response_topic(&self, payload: &Value, topic: &str, correlation: &'static [u8]) {
        let properties = PublishProperties {
            response_topic: Some(topic.to_owned()),
            correlation_data: Some(Bytes::from_static(correlation)),
            ..PublishProperties::default()
        };
        self.publish(
            &self.request_topic(),
            payload.to_string(),
            PublishOptions::at_least_once().properties(properties),
        );
    }

    /// The reply to request `id`, if it comes in time.
    pub fn reply(&mut self, id: &Value, limit: Duration) -> Option<Heard> {
        self.hear(limit, |heard| {
            (heard.message.get("method").is_none() && heard.message["id"] == *id).then(|| heard.clone())
        })
    }

    /// Calls a method and waits for its result or error.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        self.call_within(method, params, SOON)
            .unwrap_or_else(|| panic!("{method} of {}: no reply within {SOON:?}", self.name))
    }

    /// Calls a method; `None` if there is no reply in time.
    pub fn call_within(&mut self, method: &str, params: &Value, limit: Duration) -> Option<Result<Value, Value>> {
        let id = Value::from(self.next_id);
        self.next_id += 1;
        self.send(request(&id, method, params).to_string());
        let mut message = self.reply(&id, limit)?.message;
        Some(match message.get_mut("error") {
            Some(error) => Err(error.take()),
            None => Ok(message["result"].take()),
        })
    }

    /// `session.hello`, which always succeeds.
    pub fn hello(&mut self) -> Value {
        self.call("session.hello", &json!({ "version": 1 })).expect("hello is answered")
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str, params: &Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string());
    }

    /// The parameters of the next notification `method` from the device.
    pub fn notification(&mut self, method: &str, limit: Duration) -> Option<Value> {
        self.hear(limit, |heard| {
            (heard.message["method"] == method).then(|| heard.message["params"].clone())
        })
    }
}

/// A request as JSON.
pub fn request(id: &Value, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}
