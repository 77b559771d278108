//! HTTP/1.1 as far as a viewer needs it: one request on a connection of its own, and streams of events.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A device on the same network answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than any answer of the protocol, and any event.
const MAX_BYTES: usize = 2 * peercam::protocol::MAX_MESSAGE_BYTES;

/// An address to send requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it stands in the `Host` header.
    authority: String,
    host: String,
    port: u16,
    /// With its leading slash, and none at its end.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// A response that has been read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// What went wrong, in the device's words where it has some (RFC 9457).
    pub fn problem(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => format!("{}: {detail}", self.status.as_u16()),
            None => self.status.to_string(),
        }
    }
}

impl Url {
    /// Reads `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let rest = text
            .strip_prefix("http://")
            .with_context(|| format!("{text}: the probe speaks http:// only, as devices do"))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let uri: hyper::http::uri::Authority = authority
            .parse()
            .with_context(|| format!("{text}: {authority} is no host and port"))?;
        ensure!(
            !uri.host().is_empty() && !authority.contains('@'),
            "{text}: {authority} is no host and port"
        );
        let has_port = authority.rsplit_once(':').is_some_and(|(_, rest)| !rest.contains(']'));
        ensure!(!has_port || uri.port_u16().is_some(), "{text}: what follows the host is no port");
        ensure!(!path.contains(['?', '#']), "{text}: a path has neither ? nor #");
        Ok(Self {
            authority: authority.to_owned(),
            host: uri.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Another address of the same server: beneath this one, or where a `Location` header leads.
    pub fn at(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    /// Whether the server is on this machine's loopback.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// Nobody answers in time, or what answers is no HTTP server.
    pub async fn request(&self, method: Method, headers: &[(&'static str, &str)], body: String) -> anyhow::Result<Answer> {
        let exchange = async {
            let (head, mut incoming) = self.send(method, headers, body).await?;
            let mut body = Vec::new();
            while let Some(bytes) = next(&mut incoming).await? {
                ensure!(
                    body.len() + bytes.len() <= MAX_BYTES,
                    "the response is larger than {MAX_BYTES} bytes"
                );
                body.extend_from_slice(&bytes);
            }
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        let what = || format!("asking {self}");
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(what)?
            .with_context(what)
    }

    /// Opens a stream of events.
    ///
    /// # Errors
    /// As [`Url::request`], or it is refused.
    pub async fn events(&self) -> anyhow::Result<Events> {
        let what = || format!("listening to {self}");
        let opening = self.send(Method::GET, &[("accept", "text/event-stream")], String::new());
        let (head, body) = tokio::time::timeout(PATIENCE, opening)
            .await
            .with_context(what)?
            .with_context(what)?;
        if head.status != StatusCode::OK {
            bail!("{}: {}", what(), head.status);
        }
        Ok(Events { body, text: Vec::new() })
    }

    async fn send(
        &self,
        method: Method,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> anyhow::Result<(hyper::http::response::Parts, Incoming)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP");
            }
        });
        let path = if self.path.is_empty() { "/" } else { &self.path };
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(sender.send_request(request.body(body)?).await?.into_parts())
    }
}

async fn next(body: &mut Incoming) -> anyhow::Result<Option<bytes::Bytes>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            Some(frame) => {
                if let Ok(bytes) = frame?.into_data() {
                    return Ok(Some(bytes));
                }
            }
            None => return Ok(None),
        }
    }
}

/// Server-Sent Events (HTML, 9.2).
pub struct Events {
    body: Incoming,
    text: Vec<u8>,
}

impl Events {
    /// The next event: its name, and what it says. `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.text.drain(..end + 2).collect();
                if let Some(event) = read_event(&String::from_utf8_lossy(&event)) {
                    return Some(event);
                }
                continue;
            }
            if self.text.len() > MAX_BYTES {
                return None;
            }
            self.text.extend_from_slice(&next(&mut self.body).await.ok()??);
        }
    }
}

/// One event, or `None` for a comment.
fn read_event(text: &str) -> Option<(String, String)> {
    let value = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    Some((value("event").unwrap_or("message").to_owned(), value("data")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url = Url::parse("http://[::1]:8080/whep/").expect("a URL");
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("::1", 8_080, "/whep"));
        assert!(url.is_loopback());
        assert_eq!(Url::parse("http://cam.local").expect("a URL").port, 80);
        for wrong in [
            "cam.local",
            "https://cam.local",
            "http://",
            "http://me@cam",
            "http://cam:port",
            "http://cam/?a",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_have_a_name_and_comments_are_none() {
        let event = |name: &str, data: &str| Some((name.to_owned(), data.to_owned()));
        assert_eq!(read_event("event: status\ndata: {}\n\n"), event("status", "{}"));
        assert_eq!(read_event("data: x\n\n"), event("message", "x"));
        assert_eq!(read_event(":\n\n"), None);
    }
}
