//! WHEP (draft-ietf-wish-whep): the standard door for players that nobody here wrote.
//!
//! `POST /whep` or `/whep/<stream>` with an offer opens a session, `PATCH` and `DELETE` at the address in its `Location` change
//! and end it. Inside these are the same requests as every other carrier's. There is no signature and no password: who may watch is
//! decided in `role_of` below.

mod fragment;
mod sessions;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use serde_json::json;

use self::fragment::Fragment;
use self::sessions::{Sessions, Watching};
use super::pace::{Pace, Verdict};
use super::web::{Problem, empty, must_be, name_of, read_body, respond, text};
use super::{Counters, Refusal};
use crate::control::Dispatcher;
use crate::protocol::{
    Candidates, Close, Door, ErrorCode, HelloReply, IceServer, Offer, OfferReply, PeerId, Playout, Quality, Role, RpcError, VERSION,
};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// How long an offer may lie between its arrival and the driver. It lies there for microseconds.
const OFFER_LIFE_MS: u64 = 15_000;

/// The door, with what it has to remember of its sessions.
pub struct Whep {
    dispatcher: Arc<Dispatcher>,
    sessions: Sessions,
    pace: Mutex<Pace>,
    counters: Arc<Counters>,
    now: fn() -> Instant,
}

/// What a viewer at this door may do. This is where a bearer token will be looked at (RFC 6750; the draft, 4.9.1); until then
/// everybody may watch, and nothing more.
///
/// # Errors
/// None yet; 401 then.
fn role_of(_headers: &HeaderMap) -> Result<Role, Problem> {
    Ok(Role::View)
}

impl Whep {
    /// A door that remembers at most `most` sessions.
    #[must_use]
    pub fn new(dispatcher: Arc<Dispatcher>, most: usize, counters: Arc<Counters>, now: fn() -> Instant) -> Arc<Self> {
        Arc::new(Self {
            dispatcher,
            sessions: Sessions::new(most),
            pace: Mutex::default(),
            counters,
            now,
        })
    }

    /// The paths that it answers.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/whep", any(serve))
            .route("/whep/{*rest}", any(serve))
            .with_state(self)
    }

    /// The driver has ended a session.
    pub fn closed(&self, session: &str) {
        self.sessions.remove(session);
    }

    /// The endpoint: where sessions begin.
    async fn endpoint(&self, stream: Option<&str>, request: Request, from: IpAddr) -> Result<Response<Body>, Problem> {
        match *request.method() {
            Method::OPTIONS => Ok(allow(empty(StatusCode::OK), "OPTIONS, GET, HEAD, POST")),
            Method::GET | Method::HEAD if stream.is_some_and(|name| self.dispatcher.streams().all(|known| known != name)) => {
                Err(self.no_such_stream())
            }
            Method::GET => Ok(empty(StatusCode::NO_CONTENT)),
            // By this a player knows a WHEP address (the draft, 4.2).
            Method::HEAD => Ok(respond(StatusCode::OK, SDP, Body::empty())),
            Method::POST => self.open(stream, request, from).await,
            _ => Ok(not_allowed("OPTIONS, GET, HEAD, POST")),
        }
    }

    /// A session: what has been begun.
    async fn session(&self, id: &str, request: Request, from: IpAddr) -> Result<Response<Body>, Problem> {
        const METHODS: &str = "OPTIONS, GET, HEAD, PATCH, DELETE";
        let method = request.method().clone();
        if method == Method::OPTIONS {
            return Ok(allow(empty(StatusCode::OK), METHODS));
        }
        let session = self.sessions.get(id).ok_or_else(|| {
            let sentence = "there is no such session, or it is over; open a new one";
            Problem::new(StatusCode::NOT_FOUND, sentence)
        })?;
        match method {
            Method::GET | Method::HEAD => Ok(empty(StatusCode::NO_CONTENT)),
            Method::PATCH => self.patch(id, &session, request, from).await,
            Method::DELETE => {
                let role = role_of(request.headers())?;
                self.admit(from)?;
                let close = Close {
                    session: id.to_owned(),
                    reason: "the viewer left".into(),
                };
                let peer = session.lock().await.peer.clone();
                self.call("session.close", json!(close), &peer, role).await?;
                self.sessions.remove(id);
                Ok(empty(StatusCode::OK))
            }
            _ => Ok(not_allowed(METHODS)),
        }
    }

    async fn open(&self, stream: Option<&str>, request: Request, from: IpAddr) -> Result<Response<Body>, Problem> {
        let role = role_of(request.headers())?;
        self.admit(from)?;
        must_be(request.headers(), SDP)?;
        must_accept(request.headers(), SDP)?;
        let offer = body_text(request).await?;
        if !offer.starts_with("v=0") || !offer.contains("\nm=") {
            let sentence = "the body is no SDP offer: one begins with v=0 and has a media section";
            return Err(Problem::new(StatusCode::BAD_REQUEST, sentence));
        }
        if !offer.contains("\nm=video") {
            let sentence = "the offer has no video section; the device sends a picture, and no sound";
            return Err(Problem::new(StatusCode::BAD_REQUEST, sentence));
        }
        let credentials = match fragment::credentials(&offer) {
            Ok(Some(credentials)) => credentials,
            Ok(None) => return Err(Problem::new(StatusCode::BAD_REQUEST, "the offer has no ice-ufrag and ice-pwd")),
            Err(sentence) => return Err(Problem::new(StatusCode::BAD_REQUEST, sentence)),
        };
        let peer = new_peer()?;
        let hello = self.hello(&peer, role).await?;
        let Some(stream) = (match stream {
            Some(name) => hello.streams.iter().find(|known| known.name == name),
            None => hello.streams.first(),
        }) else {
            return Err(self.no_such_stream());
        };
        let kept = fragment::without_candidates(&offer);
        let reply = self.offer(&hello, offer, &stream.name, None, &peer, role).await?;
        let tag = tag_of(&reply.sdp);
        let mut response = respond(StatusCode::CREATED, SDP, fragment::complete(&reply.sdp));
        let headers = response.headers_mut();
        put(headers, header::LOCATION, &format!("/whep/{}/{}", stream.name, reply.session));
        put(headers, header::ETAG, &tag);
        put(headers, HeaderName::from_static("accept-patch"), FRAGMENT);
        for link in hello.ice_servers.iter().flat_map(links) {
            match HeaderValue::from_str(&link) {
                Ok(link) => drop(headers.append(header::LINK, link)),
                Err(_) => {
                    tracing::warn!("a user name or credential of an ice_server can't be told in an HTTP header; WHEP viewers get none");
                }
            }
        }
        let watching = Watching {
            peer,
            stream: stream.name.clone(),
            offer: kept,
            credentials,
            tag,
        };
        self.counters.forget(self.sessions.insert(reply.session, watching));
        Ok(response)
    }

    async fn patch(
        &self,
        id: &str,
        session: &tokio::sync::Mutex<Watching>,
        request: Request,
        from: IpAddr,
    ) -> Result<Response<Body>, Problem> {
        let role = role_of(request.headers())?;
        self.admit(from)?;
        must_be(request.headers(), FRAGMENT)?;
        let wanted = text(request.headers(), header::IF_MATCH).map(str::to_owned);
        let body = body_text(request).await?;
        let fragment = Fragment::parse(&body).map_err(|sentence| Problem::new(StatusCode::BAD_REQUEST, sentence))?;
        let Some(wanted) = wanted else {
            let sentence = "the request needs If-Match: the session's ETag, or * to restart ICE";
            return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, sentence));
        };
        // One change of a session at a time: two restarts that overlap would leave us with the credentials of the wrong one.
        let mut session = session.lock().await;
        if !matches_tag(&wanted, &session.tag) {
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, why_no_match(&wanted)));
        }
        let restart = fragment.credentials.filter(|credentials| *credentials != session.credentials);
        let answer = match restart {
            Some(credentials) => {
                let hello = self.hello(&session.peer, role).await?;
                let offer = fragment::restarted(&session.offer, &credentials);
                let reply = self.offer(&hello, offer, &session.stream, Some(id), &session.peer, role).await;
                let reply = reply.map_err(|problem| match problem.status {
                    // The fragment was read; it is the session that can't do this.
                    StatusCode::BAD_REQUEST => Problem {
                        status: StatusCode::UNPROCESSABLE_ENTITY,
                        ..problem
                    },
                    _ => problem,
                })?;
                session.credentials = credentials;
                session.tag = tag_of(&reply.sdp);
                Some(reply.sdp)
            }
            None => None,
        };
        if !fragment.candidates.is_empty() {
            let candidates = Candidates {
                session: id.to_owned(),
                candidates: fragment.candidates,
            };
            self.call("session.candidates", json!(candidates), &session.peer, role).await?;
        }
        Ok(match answer {
            Some(answer) => {
                let mut response = respond(StatusCode::OK, FRAGMENT, fragment::of_answer(&answer));
                put(response.headers_mut(), header::ETAG, &session.tag);
                response
            }
            None => empty(StatusCode::NO_CONTENT),
        })
    }

    /// Each request that costs something passes here: an address that asks without end is held back, the others are not.
    fn admit(&self, from: IpAddr) -> Result<(), Problem> {
        let Some(name) = PeerId::at(Door::Whep, &name_of(from)) else {
            return Ok(());
        };
        self.counters.receive();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match pace.admit(&name, (self.now)()) {
            Verdict::Take => {
                if pace.is_full() {
                    self.counters.take_unmetered();
                }
                Ok(())
            }
            Verdict::Refuse | Verdict::Ignore => {
                self.counters.refuse(Refusal::Pace);
                let sentence = "too many requests came from your address; ask again in a second";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, sentence).retry_after(1))
            }
        }
    }

    async fn hello(&self, peer: &PeerId, role: Role) -> Result<HelloReply, Problem> {
        read(self.call("session.hello", json!({ "version": VERSION }), peer, role).await?)
    }

    async fn offer(
        &self,
        hello: &HelloReply,
        sdp: String,
        stream: &str,
        session: Option<&str>,
        peer: &PeerId,
        role: Role,
    ) -> Result<OfferReply, Problem> {
        let offer = Offer {
            nonce: hello.nonce.clone(),
            expires_ms: hello.clock_ms + OFFER_LIFE_MS,
            sdp,
            session: session.map(str::to_owned),
            stream: Some(stream.to_owned()),
            playout: Playout::Realtime,
            quality: Quality::High,
        };
        read(self.call("session.offer", json!(offer), peer, role).await?)
    }

    async fn call(&self, method: &str, params: serde_json::Value, peer: &PeerId, role: Role) -> Result<serde_json::Value, Problem> {
        let result = self.dispatcher.call(method, params, peer, role, (self.now)()).await;
        Ok(result.map_err(for_players)?)
    }

    fn no_such_stream(&self) -> Problem {
        let names: Vec<&str> = self.dispatcher.streams().collect();
        let sentence = format!("there is no such stream; this device has: {}", names.join(", "));
        Problem::new(StatusCode::NOT_FOUND, sentence)
    }
}

async fn serve(State(whep): State<Arc<Whep>>, ConnectInfo(from): ConnectInfo<SocketAddr>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(2).filter(|segment| !segment.is_empty()).collect();
    let result = match segments[..] {
        [] => whep.endpoint(None, request, from.ip()).await,
        [stream] => whep.endpoint(Some(stream), request, from.ip()).await,
        [_, session] => whep.session(session, request, from.ip()).await,
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "WHEP is at /whep and /whep/<stream>")),
    };
    let refusal = result.as_ref().err().and_then(Problem::refusal);
    refusal.into_iter().for_each(|refusal| whep.counters.refuse(refusal));
    open_to_all(result.unwrap_or_else(Problem::respond))
}

/// Players live on other sites. There are no cookies here that another site could misuse.
fn open_to_all(mut response: Response<Body>) -> Response<Body> {
    let told = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, GET, HEAD, POST, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match"),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "Location, ETag, Link, Accept-Patch, Accept-Post, Allow, Retry-After",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    for (name, value) in told {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn allow(mut response: Response<Body>, methods: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    headers.insert(HeaderName::from_static("accept-post"), HeaderValue::from_static(SDP));
    headers.insert(HeaderName::from_static("accept-patch"), HeaderValue::from_static(FRAGMENT));
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let sentence = format!("this address knows {methods}");
    allow(Problem::new(StatusCode::METHOD_NOT_ALLOWED, sentence).respond(), methods)
}

/// Puts a header whose value is ours, and so has no character that a header can't have.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The answer goes out as SDP whatever is accepted; who accepts none of it is told.
fn must_accept(headers: &HeaderMap, kind: &str) -> Result<(), Problem> {
    let accepted = text(headers, header::ACCEPT).unwrap_or("*/*");
    let fits = accepted.split(',').any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range == "*/*" || range == "application/*" || range.eq_ignore_ascii_case(kind)
    });
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        format!("the answer is {kind}, which Accept leaves out"),
    ))
}

async fn body_text(request: Request) -> Result<String, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts.headers, body).await?;
    String::from_utf8(bytes.into()).map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body is not text (UTF-8)"))
}

/// RFC 9110, 13.1.1: `*`, or a list with the strong tag in it.
fn matches_tag(wanted: &str, tag: &str) -> bool {
    wanted
        .split(',')
        .map(str::trim)
        .any(|wanted| wanted == "*" || wanted == "\"*\"" || wanted == tag)
}

/// What is wrong with an `If-Match` that does not match.
fn why_no_match(wanted: &str) -> &'static str {
    let wanted = wanted.trim();
    if wanted.starts_with("W/") {
        "If-Match has a weak ETag, which never matches; send the ETag as the device gave it, in its quotes"
    } else if !wanted.starts_with('"') {
        "If-Match has no ETag: one stands in quotes; send it as the device gave it"
    } else {
        "If-Match has not the ETag that this session has now; each ICE restart gives it a new one"
    }
}

/// The same error without what only a browser's user can do.
fn for_players(error: RpcError) -> RpcError {
    if error.kind() != Some(ErrorCode::UnsupportedCodec) {
        return error;
    }
    let (what, _) = error.message.split_once("; use Chrome").unwrap_or((&error.message, ""));
    let message = what.replace("this browser", "this player");
    RpcError { message, ..error }
}

/// An ICE session is known by our user name fragment, which is random and new at each restart.
fn tag_of(answer: &str) -> String {
    let credentials = fragment::credentials(answer).ok().flatten();
    format!("\"{}\"", credentials.map(|credentials| credentials.ufrag).unwrap_or_default())
}

/// `Link` headers for an ICE server, as WHIP has them (RFC 9725, 4.6).
fn links(server: &IceServer) -> Vec<String> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let link = |url: &String| {
        let mut link = format!("<{url}>; rel=\"ice-server\"");
        if let Some(username) = &server.username {
            link += &format!("; username={}", quoted(username));
        }
        if let Some(credential) = &server.credential {
            link += &format!("; credential={}; credential-type=\"password\"", quoted(credential));
        }
        link
    };
    server.urls.iter().map(link).collect()
}

/// A new viewer at this door. What others need to speak for it is its session's address, which only it is told.
fn new_peer() -> Result<PeerId, Problem> {
    let mut bytes = [0; 16];
    let name = aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .map(|()| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    name.and_then(|name| PeerId::at(Door::Whep, &name))
        .ok_or_else(|| RpcError::new(ErrorCode::Unavailable, "the system gives no random numbers").into())
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        let sentence = format!("the device's own reply can't be read: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_matches_itself_or_anything() {
        for wanted in ["*", "\"*\"", "\"abc\"", "\"x\", \"abc\""] {
            assert!(matches_tag(wanted, "\"abc\""), "{wanted}");
        }
        for wanted in ["", "abc", "W/\"abc\"", "\"x\""] {
            assert!(!matches_tag(wanted, "\"abc\""), "{wanted}");
        }
    }

    #[test]
    fn an_entity_tag_that_does_not_match_is_told_why() {
        for (wanted, word) in [("abc", "quotes"), ("W/\"abc\"", "weak"), ("\"x\"", "restart"), ("", "quotes")] {
            assert!(why_no_match(wanted).contains(word), "{wanted}");
        }
    }

    #[test]
    fn ice_servers_are_told_as_links() {
        let server = IceServer {
            urls: vec!["turn:t.example:3478?transport=udp".into(), "stun:s.example".into()],
            username: Some("a\"b".into()),
            credential: Some("c\\d".into()),
        };
        let told = links(&server);
        assert_eq!(
            told[0],
            r#"<turn:t.example:3478?transport=udp>; rel="ice-server"; username="a\"b"; credential="c\\d"; credential-type="password""#
        );
        assert!(told[1].starts_with("<stun:s.example>; rel=\"ice-server\""), "{}", told[1]);
    }
}
