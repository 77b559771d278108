//! The demo as its user meets it: a command that prints a link.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Ten times what an unhurried machine needs to encode a first picture.
const START_LIMIT: Duration = Duration::from_secs(30);
/// What is promised, and what a person with a finger on Ctrl-C bears.
const STOP_LIMIT: Duration = Duration::from_secs(2);

const DEMO: &str = env!("CARGO_BIN_EXE_peercam-demo");

/// The demo on ports that are free, with its state in `state`.
fn command(state: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(DEMO);
    command.args(["--http", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    command.args(more).arg("--state").arg(state);
    command
}

/// A running demo, killed when dropped.
struct Demo {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Demo {
    fn start(state: &Path, more: &[&str]) -> Self {
        Self::start_as(command(state, more))
    }

    fn start_as(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let stdout = BufReader::new(child.stdout.take().expect("its standard output"));
        let (sender, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The link, once it is printed.
    fn viewer(&self) -> String {
        let line = self.lines.recv_timeout(START_LIMIT).expect("the demo prints its link");
        line.strip_prefix("viewer: ").expect("the line is the link's").to_owned()
    }

    /// Asks it to stop, and returns its exit code, how long it took, and what else it printed.
    fn stop(mut self) -> (Option<i32>, Duration, Vec<String>) {
        let began = Instant::now();
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(asked.success());
        // The channel ends with the process.
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(5 * STOP_LIMIT) {
            rest.push(line);
        }
        let status = self.child.wait().expect("it ends");
        (status.code(), began.elapsed(), rest)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a plain HTTP request, as far as it comes until the server closes or `enough` bytes are there.
fn http(address: &str, request: &str, enough: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("the request goes out");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < enough {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: &str, path: &str) -> String {
    http(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
        usize::MAX,
    )
}

/// The status line that the broker answers a WebSocket handshake with.
fn handshake(address: &str, path: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    let answer = http(address, &request, 12);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Page address, device and broker of a link.
fn parts(viewer: &str) -> (String, String, String) {
    let rest = viewer.strip_prefix("http://").expect("an http link");
    let (page, fragment) = rest.split_once("/#device=").expect("the link names the device");
    let (device, broker) = fragment.split_once("&broker=").expect("the link names the broker");
    let broker = broker.replace("%3A", ":").replace("%2F", "/");
    (page.to_owned(), device.to_owned(), broker)
}

#[test]
fn one_line_leads_to_page_and_broker_and_it_ends_when_asked() {
    let state = tempfile::tempdir().expect("a directory");
    let demo = Demo::start(state.path(), &["--pattern"]);
    let viewer = demo.viewer();
    let (page, device, broker) = parts(&viewer);

    let index = get(&page, "/");
    assert!(
        index.starts_with("HTTP/1.1 200") && index.contains("<html"),
        "the page is served: {index}"
    );
    let told = get(&page, "/peercam.json");
    assert!(
        told.contains(&device) && told.contains(&broker),
        "a page without a fragment is told the same: {told}"
    );

    let (address, path) = broker
        .strip_prefix("ws://")
        .and_then(|rest| rest.split_once('/'))
        .expect("a WebSocket URL");
    assert!(handshake(address, &format!("/{path}")).contains("101"), "browsers reach the broker");
    assert!(
        handshake(address, "/mqtt").contains("404"),
        "a page that does not know the path is turned away"
    );

    let (code, took, rest) = demo.stop();
    assert_eq!(code, Some(0));
    assert!(took < STOP_LIMIT, "it took {took:?} to stop");
    assert!(!rest.iter().any(|line| line.starts_with("viewer:")), "one link, not more: {rest:?}");

    // An open page of the last run finds this one: same device, same path.
    let again = Demo::start(state.path(), &[]);
    let (_, same_device, next_broker) = parts(&again.viewer());
    assert_eq!(device, same_device);
    assert!(next_broker.ends_with(path), "{next_broker} ends with {path}");
}

#[test]
fn a_camera_that_is_not_there_is_said_and_the_link_printed_all_the_same() {
    let state = tempfile::tempdir().expect("a directory");
    let demo = Demo::start(state.path(), &["--camera", "/dev/no-such-camera"]);
    parts(&demo.viewer());
    let (code, ..) = demo.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn a_file_that_cannot_be_played_ends_it_with_the_reason() {
    let state = tempfile::tempdir().expect("a directory");
    for (file, word) in [
        ("/nonexistent/a.h264", "No such file"),
        (concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "Annex B"),
    ] {
        let ended = command(state.path(), &["--file", file]).output().expect("the demo runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(word) && said.contains(file) && !said.contains("panicked"), "{said}");
        assert!(ended.stdout.is_empty(), "a link to nothing");
    }
}

#[test]
fn messages_that_nobody_reads_end_nothing() {
    let state = tempfile::tempdir().expect("a directory");
    // Standard error is a pipe whose reader ends at once.
    let script = state.path().join("unheard");
    std::fs::write(&script, format!("#!/bin/bash\nexec {DEMO} \"$@\" 2> >(:)\n")).expect("a script");
    let mut bash = Command::new("bash");
    bash.arg(&script);
    bash.args(command(state.path(), &[]).get_args());
    let demo = Demo::start_as(bash);
    parts(&demo.viewer());
    let (code, ..) = demo.stop();
    assert_eq!(code, Some(0));
}
