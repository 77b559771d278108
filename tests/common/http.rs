//! An HTTP client of the test's own: what is sent is what is written here, byte for byte.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::SOON;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A connection that has been opened.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, SOON).expect("the device takes the connection");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    stream
}

/// Sends one request on a connection of its own; `Host` is the address unless `headers` has one.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    // A server that refuses does not read all of it.
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    read(&mut BufReader::new(stream), method == "HEAD")
}

/// Reads one response whose body ends with the connection, or with its length.
pub fn read(reader: &mut impl BufRead, head_only: bool) -> Answer {
    let (status, headers) = read_head(reader);
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok());
    let mut body = Vec::new();
    match length {
        _ if head_only => {}
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).expect("a whole body");
        }
        None => drop(reader.read_to_end(&mut body)),
    }
    Answer {
        status,
        headers,
        body: String::from_utf8(body).expect("text"),
    }
}

fn read_head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line of the head in time");
        line.trim_end().to_owned()
    };
    let first = line();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP response: {first:?}"));
    let mut headers = Vec::new();
    loop {
        let next = line();
        match next.split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return (status, headers),
        }
    }
}

/// Calls a method over HTTP; the result or the error.
pub fn call(address: SocketAddr, peer: &str, id: u64, method: &str, params: &Value) -> Result<Value, Value> {
    let request_body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    let answer = request(
        address,
        "POST",
        &format!("/rpc/{peer}"),
        &[("Content-Type", "application/json")],
        &request_body,
    );
    assert_eq!(answer.status, 200, "{method}: {answer:?}");
    let mut message = answer.json();
    assert_eq!(message["id"], id, "{message}");
    match message.get_mut("error") {
        Some(error) => Err(error.take()),
        None => Ok(message["result"].take()),
    }
}

/// A stream of Server-Sent Events.
pub struct Events {
    reader: BufReader<TcpStream>,
}

impl Events {
    /// Opens the stream of `peer`.
    pub fn open(address: SocketAddr, peer: &str) -> Self {
        let mut stream = connect(address);
        let head = format!("GET /rpc/{peer}/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader);
        assert_eq!(status, 200, "{headers:?}");
        let kind = headers
            .iter()
            .find(|(name, _)| name == "content-type")
            .map(|(_, value)| value.as_str());
        assert_eq!(kind, Some("text/event-stream"));
        Self { reader }
    }

    /// The next event: its name and what it says. `None` when the stream ends, or says nothing for so long.
    pub fn next_within(&mut self, limit: Duration) -> Option<(String, Value)> {
        self.reader.get_ref().set_read_timeout(Some(limit)).expect("a time limit");
        let mut name = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // Sizes of chunks and comments lie between.
            if let Some(found) = line.strip_prefix("event: ") {
                found.trim_end().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    /// What the first event says that `wanted` takes; those before it are forgotten.
    pub fn find(&mut self, what: &str, mut wanted: impl FnMut(&str, &Value) -> bool) -> Value {
        loop {
            let (name, value) = self.next_within(SOON).unwrap_or_else(|| panic!("{what}: the stream has ended"));
            if wanted(&name, &value) {
                return value;
            }
        }
    }
}
