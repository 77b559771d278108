//! What requests do. A method has one definition and one implementation, whichever carrier brought it.

mod camera;
mod nonce;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use self::nonce::Nonces;
use crate::hub::{Hub, Stream};
use crate::media::settings::Change;
use crate::net::{Command, Drivers};
use crate::protocol::{
    CameraGet, CameraSet, Candidates, Close, DeviceInfo, Envelope, ErrorCode, Hello, HelloReply, IceServer, Limits, MAX_MESSAGE_BYTES,
    Message, Offer, PeerId, QualityInfo, Reply, Request, Role, RpcError, SessionQuality, StreamInfo, SystemInfo, TransportPolicy, VERSION,
    params,
};

/// Everything a peer can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Hello,
    Offer,
    Candidates,
    Close,
    Quality,
    /// Answered by the session itself, which alone knows when the request came.
    Clock,
    KeyFrame,
    Get,
    Set,
    Info,
}

impl Method {
    const ALL: [(Self, &'static str, Role); 10] = [
        (Self::Hello, "session.hello", Role::View),
        (Self::Offer, "session.offer", Role::View),
        (Self::Candidates, "session.candidates", Role::View),
        (Self::Close, "session.close", Role::View),
        (Self::Quality, "session.quality", Role::View),
        (Self::Clock, "session.clock", Role::View),
        (Self::KeyFrame, "camera.keyframe", Role::View),
        (Self::Get, "camera.get", Role::View),
        (Self::Set, "camera.set", Role::Control),
        (Self::Info, "system.info", Role::View),
    ];
}

/// What the device tells its viewers in `hello`.
pub struct Announcement {
    pub device: DeviceInfo,
    /// The servers for a viewer who asks now: some passwords are made for each.
    pub ice_servers: Box<dyn Fn() -> Vec<IceServer> + Send + Sync>,
    pub transport_policy: TransportPolicy,
    pub max_viewers: u32,
    /// Methods of role control that peers may call who have proved nothing: `unsigned.methods`.
    pub unsigned: Vec<String>,
}

/// Carries requests out.
pub struct Dispatcher {
    announcement: Announcement,
    streams: Vec<Stream>,
    drivers: Drivers,
    nonces: Nonces,
    started: Instant,
    config_error: Mutex<Option<String>>,
    calls: Mutex<BTreeMap<Call, u64>>,
}

/// A method and what came of it: `ok`, or the error's name. Methods that nobody knows are all `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub method: &'static str,
    pub result: &'static str,
}

impl Dispatcher {
    /// A dispatcher for a device that started at `started`.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(announcement: Announcement, streams: Vec<Stream>, drivers: Drivers, started: Instant) -> anyhow::Result<Self> {
        let nonces = Nonces::new(started)?;
        Ok(Self {
            announcement,
            streams,
            drivers,
            nonces,
            started,
            config_error: Mutex::default(),
            calls: Mutex::new(known_calls()),
        })
    }

    /// Why the running configuration is not the one on disk, if it is not.
    pub fn set_config_error(&self, error: Option<String>) {
        *self.config_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Why the running configuration is not the one on disk, if it is not.
    #[must_use]
    pub fn config_error(&self) -> Option<String> {
        self.config_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of the device's streams, the first one first.
    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(Stream::name)
    }

    /// How often each method was called, whichever carrier brought it, by what came of it.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries one message out; a request gets a reply.
    pub async fn handle(&self, envelope: Envelope, now: Instant) -> Option<Reply> {
        let Envelope { peer, role, message } = envelope;
        match message {
            Message::Request(Request { id, method, params }) => {
                let result = self.call(&method, params, &peer, role, now).await;
                Some(Reply { id: Some(id), result })
            }
            Message::Notification(notification) => {
                if let Err(error) = self.call(&notification.method, notification.params, &peer, role, now).await {
                    tracing::debug!(%peer, method = notification.method, %error, "notification refused");
                }
                None
            }
            // This device asks its viewers nothing.
            Message::Reply(_) => None,
        }
    }

    /// Carries one request out, for a carrier that speaks no JSON-RPC.
    ///
    /// # Errors
    /// As the method's own reply; [`ErrorCode::MethodNotFound`] and [`ErrorCode::Forbidden`].
    pub async fn call(&self, method: &str, value: Value, peer: &PeerId, role: Role, now: Instant) -> Result<Value, RpcError> {
        let result = self.carry_out(method, value, peer, role, now).await;
        let call = Call {
            method: method_name(method),
            result: result.as_ref().map_or_else(RpcError::reason, |_| "ok"),
        };
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        result
    }

    async fn carry_out(&self, method: &str, value: Value, peer: &PeerId, role: Role, now: Instant) -> Result<Value, RpcError> {
        let Some((method, name, needed)) = Method::ALL.into_iter().find(|(_, name, _)| *name == method) else {
            let sentence = format!("this device knows no method `{}`", method.chars().take(64).collect::<String>());
            return Err(RpcError::new(ErrorCode::MethodNotFound, sentence));
        };
        let unsigned = needed < Role::Admin && self.announcement.unsigned.iter().any(|method| method == name);
        if role < needed && !unsigned {
            let sentence = format!(
                "your role does not include this; the owner of the device can allow it for everybody with methods = [\"{name}\"] below \
                 [unsigned] in its configuration"
            );
            return Err(RpcError::new(ErrorCode::Forbidden, sentence));
        }
        match method {
            Method::Hello => self.hello(params(value)?, peer, now),
            Method::Offer => self.offer(params(value)?, peer, role, now).await,
            Method::Candidates => {
                let candidates: Candidates = params(value)?;
                self.drivers.send(Command::Candidates {
                    peer: peer.clone(),
                    candidates,
                })?;
                done()
            }
            Method::Close => {
                let close: Close = params(value)?;
                self.drivers.send(Command::Close { peer: peer.clone(), close })?;
                done()
            }
            Method::Quality => self.quality(params(value)?, peer).await,
            Method::Clock => Err(RpcError::new(
                ErrorCode::Unavailable,
                "the clock can be asked for over the data channel only",
            )),
            Method::KeyFrame => {
                self.drivers.send(Command::KeyFrame { peer: peer.clone() })?;
                done()
            }
            Method::Get => {
                let get: CameraGet = params(value)?;
                camera::set(self.stream(get.stream.as_deref())?, Change::default()).await
            }
            Method::Set => {
                let set: CameraSet = params(value)?;
                let change = set.change().map_err(|sentence| RpcError::new(ErrorCode::InvalidParams, sentence))?;
                camera::set(self.stream(set.stream.as_deref())?, change).await
            }
            Method::Info => self.info(now),
        }
    }

    fn hello(&self, hello: Hello, peer: &PeerId, now: Instant) -> Result<Value, RpcError> {
        if hello.version < VERSION {
            let sentence = format!(
                "this device speaks protocol version {VERSION}, the viewer only {}; load the page anew",
                hello.version
            );
            return Err(RpcError::new(ErrorCode::InvalidParams, sentence));
        }
        // The offer follows within milliseconds. Asked for now, the key frame is there when the connection is.
        if let Some(stream) = self.streams.first() {
            stream.high.target().request_key_frame();
        }
        let announcement = &self.announcement;
        result(&HelloReply {
            version: VERSION,
            device: announcement.device.clone(),
            methods: Method::ALL.iter().map(|(_, name, _)| (*name).to_owned()).collect(),
            nonce: self.nonces.make(peer, now),
            clock_ms: self.clock_ms(now),
            ice_servers: (announcement.ice_servers)(),
            ice_transport_policy: announcement.transport_policy,
            streams: self.streams.iter().map(stream_info).collect(),
            limits: Limits {
                viewers: announcement.max_viewers,
                message_bytes: MAX_MESSAGE_BYTES,
            },
        })
    }

    async fn offer(&self, offer: Offer, peer: &PeerId, role: Role, now: Instant) -> Result<Value, RpcError> {
        let expired = |sentence: &str| {
            RpcError::new(ErrorCode::Expired, sentence)
                .with("nonce", self.nonces.make(peer, now).into())
                .with("clock_ms", self.clock_ms(now).into())
        };
        if !self.nonces.is_good(&offer.nonce, peer, now) {
            return Err(expired("the nonce is not of this boot, or too old; offer again with the new one"));
        }
        if self.clock_ms(now) > offer.expires_ms {
            return Err(expired("the offer came too late; offer again"));
        }
        let (reply, answer) = oneshot::channel();
        self.drivers.send(Command::Offer {
            peer: peer.clone(),
            role,
            offer,
            reply,
        })?;
        answered(answer).await
    }

    async fn quality(&self, wish: SessionQuality, peer: &PeerId) -> Result<Value, RpcError> {
        let (reply, answer) = oneshot::channel();
        self.drivers.send(Command::Quality {
            peer: peer.clone(),
            wish,
            reply,
        })?;
        answered(answer).await
    }

    fn info(&self, now: Instant) -> Result<Value, RpcError> {
        result(&SystemInfo {
            device: self.announcement.device.clone(),
            uptime_secs: now.saturating_duration_since(self.started).as_secs(),
            viewers: self.drivers.viewers(),
            config_error: self.config_error(),
        })
    }

    /// The camera's own rung of the stream of that name, or of the first.
    fn stream(&self, name: Option<&str>) -> Result<&Arc<Hub>, RpcError> {
        let found = match name {
            Some(name) => self.streams.iter().find(|stream| stream.name() == name),
            None => self.streams.first(),
        };
        found.map(|stream| &stream.high).ok_or_else(|| {
            let names: Vec<_> = self.streams().collect();
            RpcError::new(
                ErrorCode::InvalidParams,
                format!("there is no such stream; this device has: {}", names.join(", ")),
            )
        })
    }

    fn clock_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

fn method_name(method: &str) -> &'static str {
    Method::ALL
        .iter()
        .find(|(_, name, _)| *name == method)
        .map_or("unknown", |(_, name, _)| name)
}

/// Counters that begin at zero: a rate can't be told of one that begins with its first event. Offers are what people watch.
fn known_calls() -> BTreeMap<Call, u64> {
    let fine = Method::ALL.iter().map(|(_, method, _)| Call { method, result: "ok" });
    let refused = ErrorCode::names().map(|result| Call {
        method: method_name("session.offer"),
        result,
    });
    fine.chain(refused).map(|call| (call, 0)).collect()
}

fn stream_info(stream: &Stream) -> StreamInfo {
    let format = stream.high.format();
    let quality = |hub: &Arc<Hub>| {
        let (width, height) = hub.size()?;
        Some(QualityInfo {
            quality: hub.quality(),
            width,
            height,
        })
    };
    StreamInfo {
        name: stream.name().to_owned(),
        width: format.map(|format| format.width),
        height: format.map(|format| format.height),
        profile_level_id: format.map(|format| format.profile_level_hex()),
        qualities: stream.rungs().filter_map(quality).collect(),
    }
}

/// What the driver says.
async fn answered<T: Serialize>(answer: oneshot::Receiver<Result<T, RpcError>>) -> Result<Value, RpcError> {
    let answer = answer
        .await
        .map_err(|_| RpcError::new(ErrorCode::Unavailable, "the device is shutting down"))?;
    result(&answer?)
}

fn result(value: &impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(|error| RpcError::new(ErrorCode::Unavailable, format!("the reply can't be written: {error}")))
}

fn done() -> Result<Value, RpcError> {
    Ok(Value::Object(serde_json::Map::new()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_configuration_knows_which_methods_can_be_allowed_to_everybody() {
        for (_, name, role) in Method::ALL {
            let allowed = crate::config::parse(&format!("unsigned.methods = [\"{name}\"]\n"), Path::new("peercam.toml")).is_ok();
            assert_eq!(allowed, role == Role::Control, "{name}");
        }
    }
}
