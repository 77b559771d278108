//! The ways to a device that need no broker: its own HTTP carrier, and WHEP. To a viewer both look like MQTT: messages go in, and
//! messages come out.

use hyper::Method;
use peercam::media::Quality;
use peercam::protocol::{
    Candidates, DeviceInfo, ErrorCode, HelloReply, Id, Limits, MAX_MESSAGE_BYTES, Message, Offer, OfferReply, Reply, RpcError,
    TransportPolicy, VERSION, params,
};
use tokio::sync::mpsc;

use crate::broker::Incoming;
use crate::http::Url;

const JSON: (&str, &str) = ("content-type", "application/json");
const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");

/// The code of an error that is not the device's: it did not answer. Nobody else uses positive ones.
pub const NO_ANSWER: i32 = 1;

/// Where what the device says goes.
pub struct Inbox {
    pub messages: mpsc::Sender<Incoming>,
    /// Of one viewer only: they all hear the same.
    pub statuses: Option<mpsc::Sender<Incoming>>,
}

impl Inbox {
    async fn put(&self, payload: impl Into<Vec<u8>>) {
        // Nobody reads any more: the viewer has ended.
        let _ = self.messages.send(incoming(payload)).await;
    }
}

fn incoming(payload: impl Into<Vec<u8>>) -> Incoming {
    Incoming {
        topic: String::new(),
        retained: false,
        payload: payload.into(),
    }
}

/// Carries one viewer's messages over HTTP until it says no more.
pub async fn by_http(base: Url, peer: String, mut outgoing: mpsc::Receiver<String>, inbox: Inbox) {
    let url = base.at(format!("{}/rpc/{peer}", base.path));
    let mut events = match url.at(format!("{}/events", url.path)).events().await {
        Ok(events) => events,
        // Without an answer to its hello the viewer says that nobody is there.
        Err(error) => return tracing::warn!(error = format!("{error:#}"), "no events"),
    };
    loop {
        tokio::select! {
            text = outgoing.recv() => match text {
                Some(text) => match url.request(Method::POST, &[JSON], text).await {
                    Ok(answer) if answer.body.is_empty() => {}
                    Ok(answer) if answer.status.is_success() => inbox.put(answer.body).await,
                    Ok(answer) => tracing::warn!(problem = answer.problem(), "the device refused a message"),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "a message to the device is lost"),
                },
                None => return,
            },
            Some((name, text)) = events.next() => match (name.as_str(), &inbox.statuses) {
                ("status", Some(statuses)) => drop(statuses.try_send(incoming(text))),
                ("message", _) => inbox.put(text).await,
                _ => {}
            },
        }
    }
}

/// What WHEP needs to know of a session between two requests.
#[derive(Default)]
struct Session {
    /// From the offer: ICE credentials and the first section's name.
    head: String,
    location: String,
    tag: String,
    answered: Option<Id>,
}

/// Carries one viewer's messages by WHEP until it says no more. There is no hello: the viewer's is answered here.
pub async fn by_whep(url: Url, mut outgoing: mpsc::Receiver<String>, inbox: Inbox) {
    let mut session = Session::default();
    while let Some(text) = outgoing.recv().await {
        let result = match Message::parse(text.as_bytes()) {
            Ok(Message::Request(request)) => {
                // What is asked again was answered, or its answer is on the way.
                if session.answered.as_ref() == Some(&request.id) {
                    continue;
                }
                let result = match request.method.as_str() {
                    "session.hello" => Ok(serde_json::json!(hello())),
                    _ => offer(&url, request.params, &mut session).await,
                };
                session.answered = Some(request.id.clone());
                let reply = Reply {
                    id: Some(request.id),
                    result,
                };
                inbox.put(Message::Reply(reply).to_json()).await;
                Ok(())
            }
            Ok(Message::Notification(note)) if note.method == "session.candidates" => candidates(&url, note.params, &session).await,
            Ok(Message::Notification(note)) if note.method == "session.close" => {
                let ended = url.at(session.location.clone()).request(Method::DELETE, &[], String::new()).await;
                ended.map(drop)
            }
            Ok(Message::Notification(_) | Message::Reply(_)) | Err(_) => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(error = format!("{error:#}"), "WHEP");
        }
    }
}

fn hello() -> HelloReply {
    HelloReply {
        version: VERSION,
        device: DeviceInfo {
            id: String::new(),
            name: String::new(),
            software: String::new(),
        },
        methods: Vec::new(),
        nonce: String::new(),
        clock_ms: 0,
        ice_servers: Vec::new(),
        ice_transport_policy: TransportPolicy::All,
        streams: Vec::new(),
        limits: Limits {
            viewers: 0,
            message_bytes: MAX_MESSAGE_BYTES,
        },
    }
}

async fn offer(url: &Url, value: serde_json::Value, session: &mut Session) -> Result<serde_json::Value, RpcError> {
    // WHEP knows HTTP's numbers and no reasons, so none is named.
    let refused = |sentence: String| RpcError {
        data: None,
        ..RpcError::new(ErrorCode::Unavailable, sentence)
    };
    let offer: Offer = params(value)?;
    let line = |name: &str| offer.sdp.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    session.head = ["a=ice-ufrag:", "a=ice-pwd:", "m=", "a=mid:"]
        .map(|name| format!("{}\r\n", line(name)))
        .concat();
    let path = match &offer.stream {
        Some(stream) => format!("{}/{stream}", url.path),
        None => url.path.clone(),
    };
    let answer = url.at(path).request(Method::POST, &[SDP], offer.sdp.clone()).await;
    let answer = answer.map_err(|error| RpcError {
        code: NO_ANSWER,
        message: format!("{error:#}"),
        data: None,
    })?;
    if answer.status != hyper::StatusCode::CREATED {
        return Err(refused(answer.problem()));
    }
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let location = header("location");
    // An absolute one would be of another server, which the probe does not follow.
    if !location.starts_with('/') {
        return Err(refused(format!(
            "the answer's Location is {location:?}, which does not begin with /"
        )));
    }
    (session.location, session.tag) = (location.clone(), header("etag"));
    let sdp = String::from_utf8_lossy(&answer.body).into_owned();
    // WHEP knows no rungs.
    let quality = Quality::High;
    Ok(serde_json::json!(OfferReply {
        session: location,
        sdp,
        quality
    }))
}

async fn candidates(url: &Url, value: serde_json::Value, session: &Session) -> anyhow::Result<()> {
    let told: Candidates = params(value)?;
    let lines = told
        .candidates
        .iter()
        .map(|candidate| format!("a={candidate}\r\n"))
        .collect::<String>();
    let end = if told.candidates.is_empty() {
        "a=end-of-candidates\r\n"
    } else {
        ""
    };
    let body = format!("{}{lines}{end}", session.head);
    let patch = [FRAGMENT, ("if-match", session.tag.as_str())];
    let answer = url.at(session.location.clone()).request(Method::PATCH, &patch, body).await?;
    anyhow::ensure!(answer.status == hyper::StatusCode::NO_CONTENT, "PATCH: {}", answer.problem());
    Ok(())
}
