//! What comes in by HTTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use peercam::agent::doors::{Doors, Speaker};
use peercam::http::Server;
use peercam::hub::Stream;
use peercam::metrics::{self, Monitor, Parts};
use peercam::signaling::{Counters, Guard};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;

use super::device::{Device, ID};

/// A name of the internet by which the device is reached.
const OWN_NAME: &str = "cam.example.org";

/// What no answer takes, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that says nothing for so long has said all.
const SILENCE: Duration = Duration::from_millis(3);

/// One connection's bytes, to everything that the page's server answers.
pub fn http(bytes: &[u8]) {
    let answer = converse(bytes, End::HangUp);
    // A connection that says too little gets no answer.
    if let Some(mut response) = Response::read(&answer) {
        // An answer to HEAD tells of a body that does not come; what follows it answers the next request.
        if bytes.trim_ascii_start().starts_with(b"HEAD ") {
            response.body.clear();
        }
        response.check();
    }
}

/// WHEP: an offer, or the body of a PATCH behind its header lines and an empty line. The session that it is about is ended after it.
pub fn whep(bytes: &[u8]) {
    restarts(bytes);
}

/// Whether a seed of [`whep`] restarts ICE.
pub fn restarts(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let is_offer = text.starts_with("v=0");
    let opened = request(
        "POST",
        "/whep",
        "Content-Type: application/sdp\r\n",
        if is_offer { text } else { super::OFFER },
    );
    if opened.status != 201 {
        assert!(is_offer, "a good offer is refused: {opened:?}");
        opened.check();
        return false;
    }
    let location = opened.header("location").expect("a session has an address").to_owned();
    let tag = opened.header("etag").expect("a session has a tag").to_owned();
    assert!(location.starts_with("/whep/camera/") && tag.starts_with('"') && tag.ends_with('"') && tag.len() > 4);
    let answer = std::str::from_utf8(&opened.body).expect("SDP is text");
    assert!(
        answer.starts_with("v=0\r\n") && answer.contains("\r\na=end-of-candidates\r\n"),
        "{answer}"
    );
    let patch = |headers: &str, body: &str| {
        let headers = format!("Content-Type: application/trickle-ice-sdpfrag\r\n{headers}");
        request("PATCH", &location, &headers, body)
    };
    let trickle = |tag: &str| patch(&format!("If-Match: {tag}\r\n"), "a=mid:0\r\n").status;
    let mut now = tag.clone();
    if !is_offer {
        let (head, body) = text.split_once("\n\n").unwrap_or(("", text));
        // Lines that a client could send; what is no header is target `http`'s.
        let is_header = |line: &&str| {
            line.split_once(": ")
                .is_some_and(|(name, value)| is_token(name) && !value.contains('\r'))
        };
        let own = |line: &&str| {
            !["content-", "transfer-", "connection", "upgrade", "expect"]
                .iter()
                .any(|name| starts_with(line, name))
        };
        let lines = head.lines().filter(is_header).filter(own).take(32);
        let headers = lines.fold(String::new(), |text, line| text + &line.replace("ETAG", &tag) + "\r\n");
        let patched = patch(&headers, body);
        patched.check();
        match patched.status {
            200 => {
                now = patched.header("etag").expect("a restart gives a new tag").to_owned();
                assert_ne!(now, tag, "ICE was restarted under the same tag");
                let fragment = std::str::from_utf8(&patched.body).expect("a fragment is text");
                for part in ["a=ice-ufrag:", "a=ice-pwd:", "a=end-of-candidates\r\n"] {
                    assert!(fragment.contains(part), "{part} is not in {fragment:?}");
                }
                assert_eq!(trickle(&tag), 412, "the tag of an earlier ICE session is taken");
            }
            204 => {}
            _ => assert!((400..500).contains(&patched.status) || patched.status == 503, "{patched:?}"),
        }
        let named = headers.lines().any(|line| starts_with(line, "if-match:"));
        assert!(named || patched.status >= 400, "a change without If-Match");
    }
    assert_eq!(trickle(&now), 204, "the session is not as it was said to be");
    assert_eq!(request("DELETE", &location, "", "").status, 200);
    assert_eq!(trickle(&now), 404, "the session lives on");
    now != tag
}

/// The headers by which a page of another origin is known, a line each: `Host`, `Origin`, `Sec-Fetch-Site`.
pub fn guard(bytes: &[u8]) {
    let guard = Guard::new(vec![OWN_NAME.to_owned()]);
    let mut headers = HeaderMap::new();
    for (name, line) in ["host", "origin", "sec-fetch-site"]
        .into_iter()
        .zip(bytes.split(|byte| *byte == b'\n'))
    {
        match HeaderValue::from_bytes(line) {
            Ok(value) if !line.is_empty() => drop(headers.insert(HeaderName::from_static(name), value)),
            Ok(_) | Err(_) => {}
        }
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").unwrap_or_default();
    if guard.admit_host(&headers).is_ok() {
        assert!(is_ours(host), "{host:?} is taken for this device");
    }
    // Whoever owns a site of the internet may choose every name beneath it.
    for end in [".evil.example", ".evil.example:8080", ".evil.example."] {
        let Ok(value) = HeaderValue::from_str(&format!("{host}{end}")) else {
            continue;
        };
        let rebound = HeaderMap::from_iter([(HeaderName::from_static("host"), value)]);
        let refused = guard
            .admit_host(&rebound)
            .expect_err("a site of the internet is taken for this device");
        assert_eq!(refused.status.as_u16(), 421);
        assert!(!refused.sentence.is_empty());
    }
    if guard.admit(&headers).is_ok() {
        assert!(is_ours(host), "{host:?} is taken for this device");
        assert!(
            !matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")),
            "a page of another site"
        );
        if let Some(origin) = headers.get("origin") {
            let origin = std::str::from_utf8(origin.as_bytes()).unwrap_or_default().to_ascii_lowercase();
            let own = host.to_ascii_lowercase();
            let told = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            let same = told.is_some_and(|told| {
                told.strip_prefix(&own)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
            });
            assert!(same, "a page of {origin:?} speaks for {host:?}");
        }
    }
}

/// What `Host` has to be, read otherwise than the guard does (RFC 9110, 7.2).
fn is_ours(host: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(digits));
    }
    let name = match host.split_once(':') {
        Some((name, port)) if digits(port) => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let private = [".local", ".home.arpa", ".internal", ".localhost"]
        .iter()
        .any(|end| name.ends_with(end));
    let known = name == OWN_NAME || private || !name.contains('.') || name.parse::<Ipv4Addr>().is_ok();
    known && !name.is_empty() && !name.contains(['@', '/', '?', '#', '\\', ' '])
}

fn starts_with(line: &str, name: &str) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

const EVENTS: &[u8] = b"content-type: text/event-stream";

/// How a client ends a connection.
enum End {
    /// As soon as something was answered, or nothing.
    HangUp,
    /// The server does, as it was asked to.
    Wait,
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    let answer = converse(text.as_bytes(), End::Wait);
    Response::read(&answer).unwrap_or_else(|| panic!("no answer to {method} {path} with {headers:?}"))
}

/// What the server says to these bytes, from an address of their own: each address has its own pace.
fn converse(bytes: &[u8], end: End) -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let [_, b, c, d] = (NEXT.fetch_add(1, Ordering::Relaxed) % 0xff_fff0 + 8).to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from(([127, b, c, d], 0));
    socket.bind(&from.into()).expect("an address of loopback");
    // The fuzzer's clock sends signals. On Linux the next call goes on with the connection that one interrupted.
    loop {
        match socket.connect(&server().into()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            connected => break connected.expect("the server listens"),
        }
    }
    let mut stream = TcpStream::from(socket);
    // A server that has read enough closes; what is written after that is lost, and that is its right.
    let _ = stream.write_all(bytes);
    let mut waits = matches!(end, End::HangUp);
    let _ = stream.set_read_timeout(Some(if waits { SILENCE } else { PATIENCE }));
    let (mut answer, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        let read = stream.read(&mut buffer);
        if waits {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(PATIENCE));
        }
        match read {
            Ok(0) => return answer,
            Ok(count) => {
                let known = answer.len().saturating_sub(EVENTS.len());
                answer.extend_from_slice(&buffer[..count]);
                // A stream of events has no end: who sends no more may listen on.
                if answer[known..].windows(EVENTS.len()).any(|window| window == EVENTS) {
                    return answer;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(waits, "the server neither answers nor hangs up"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return answer,
        }
        waits = false;
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// The first response in `bytes`; its body may be cut off.
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default();
        let status = status.strip_prefix("HTTP/1.1 ").or_else(|| status.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|status| status.get(..3)?.parse().ok()).expect("a status line");
        let header = |line: &str| {
            line.split_once(':')
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(header).collect();
        let mut response = Self {
            status,
            headers,
            body: Vec::new(),
        };
        let length = response
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(usize::MAX);
        response.body = bytes[end + 4..].iter().copied().take(length).collect();
        Some(response)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// What is true of every answer.
    fn check(&self) {
        let busy = self.status == 503 && (self.header("retry-after").is_some() || self.header("content-type") == Some("application/json"));
        assert!((100..500).contains(&self.status) || busy, "the server failed: {self:?}");
        let whole = self.header("content-length") == Some(self.body.len().to_string().as_str());
        if self.header("content-type") == Some("application/problem+json") && whole && !self.body.is_empty() {
            let problem: Value = serde_json::from_slice(&self.body).expect("a problem is JSON");
            assert_eq!(problem["status"], self.status);
            assert!(
                problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
                "a problem without a sentence"
            );
        }
        if self.header("content-type").is_some() {
            assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        }
    }
}

/// The page's server with every door open, in a thread of its own.
fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let (sender, address) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(serve(sender));
        });
        address.recv().expect("the server starts")
    })
}

async fn serve(started: mpsc::Sender<SocketAddr>) {
    let text = format!("broker.url = \"off\"\n[http]\nwhep = true\nmetrics = \"loopback\"\nhosts = [\"{OWN_NAME}\"]\n");
    let device = Device::start(&text);
    let server = Server::bind(SocketAddr::from((IpAddr::from(Ipv4Addr::LOCALHOST), 0)), 64)
        .await
        .expect("a port");
    let (stop, stopped) = watch::channel(false);
    let doors = Doors::new(&device.config, &device.dispatcher, &device.status, &stop);
    let counters = Arc::new(Counters::default());
    let monitor = Monitor::new(Parts {
        hubs: device.streams.iter().flat_map(Stream::rungs).cloned().collect(),
        drivers: device.drivers.clone(),
        dispatcher: Arc::clone(&device.dispatcher),
        broker: None,
        carriers: doors.counters(),
        server: Some(server.counters()),
        status: device.status.subscribe(),
        max_viewers: device.config.limits.viewers.get(),
        now: Instant::now,
    });
    let beside = metrics::routes(Arc::new(monitor), device.config.http.metrics);
    let app = doors.routes(&device.config, ID.to_owned(), beside);
    let (outgoing, _) = tokio::sync::mpsc::channel(1);
    let (moved, _) = watch::channel(());
    let speaker = Speaker {
        moved,
        mqtt: outgoing,
        counters,
        doors,
        dispatcher: device.dispatcher,
        drivers: device.drivers,
    };
    tokio::spawn(speaker.run(device.notices));
    started.send(server.address()).expect("somebody waits for the address");
    server.run(app, stopped).await;
}
