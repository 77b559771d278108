//! The viewer page in a real Chromium, at the place of the network that the test's thread is at.

use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command};
use std::time::Duration;

use serde_json::{Value, json};

use super::broker::{Broker, WEBSOCKET};
use super::process::Running;
use super::until;

/// Beyond the time that a command itself may take: Chromium starts in a second or two where nothing else runs.
const START: Duration = Duration::from_secs(30);

/// A window with the page in it. Dropped, the browser is closed.
pub struct Page {
    /// Dropped first: the end of its input ends the browser.
    commands: Option<ChildStdin>,
    process: Option<Running>,
    answered: usize,
}

impl Page {
    /// Opens the page, which looks for the device at `broker`.
    pub fn open(broker: &Broker, device: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/visit.mjs");
        let url = format!("ws://{}:{WEBSOCKET}", broker.address.ip());
        let fragment = format!("device={device}&broker={}&stats=1", url.replace(':', "%3A").replace('/', "%2F"));
        let (process, commands) = Running::hearing(
            Command::new("node").arg(script).arg(fragment),
            "the page (./dev test installs what it takes)",
        );
        Self {
            commands: Some(commands),
            process: Some(process),
            answered: 0,
        }
    }

    /// Waits until the page shows a moving picture.
    pub fn plays(&mut self, within: Duration) {
        self.ask("plays", &[json!(within.as_millis() as u64)], within);
    }

    /// A row of the page's statistics; they are read once a second.
    pub fn stat(&mut self, label: &str) -> String {
        self.ask("stat", &[json!(label)], Duration::ZERO)
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What the page says; nothing while the picture speaks for itself.
    pub fn words(&mut self) -> String {
        self.ask("words", &[], Duration::ZERO).as_str().expect("words").to_owned()
    }

    /// The device's id for the session.
    pub fn session(&mut self) -> String {
        self.ask("session", &[], Duration::ZERO).as_str().expect("an id").to_owned()
    }

    /// How many frames the newest connection has decoded.
    pub fn frames(&mut self) -> u64 {
        self.ask("counters", &[], Duration::ZERO)["framesDecoded"]
            .as_u64()
            .expect("a number")
    }

    /// How long the newest connection took, from its making to its first packets.
    pub fn connecting(&mut self) -> Duration {
        let millis = self.ask("connecting", &[], Duration::ZERO);
        Duration::from_secs_f64(millis.as_f64().expect("a number") / 1_000.0)
    }

    /// What the newest connection has told the device of the browser's addresses so far: the address and the type of each candidate.
    pub fn candidates(&mut self) -> Vec<(String, String)> {
        let lines = self.ask("candidates", &[], Duration::ZERO);
        let lines = lines.as_array().expect("a list").iter().filter_map(Value::as_str);
        let read = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            Some((words.get(4)?.to_string(), words.get(7)?.to_string()))
        };
        lines.map(|line| read(line).expect("a candidate")).collect()
    }

    /// From now on, [`longest_gap`](Self::longest_gap) knows.
    pub fn watch_gaps(&mut self) {
        self.ask("watchGaps", &[], Duration::ZERO);
    }

    /// The longest time without a new picture since the last call; one that lasts counts.
    pub fn longest_gap(&mut self) -> Duration {
        let gap = self.ask("longestGap", &[], Duration::ZERO);
        Duration::from_secs_f64(gap.as_f64().expect("a number") / 1_000.0)
    }

    /// A request over the data channel, whose answer may get lost.
    pub fn try_rpc(&mut self, method: &str) -> Option<Value> {
        self.try_ask("rpc", &[json!(method)], Duration::ZERO).ok()
    }

    /// Keeps a picture of the page for people.
    pub fn screenshot(&mut self, name: &str) {
        self.ask("screenshot", &[json!(name)], Duration::ZERO);
    }

    fn ask(&mut self, method: &str, arguments: &[Value], within: Duration) -> Value {
        self.try_ask(method, arguments, within)
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_ask(&mut self, method: &str, arguments: &[Value], within: Duration) -> Result<Value, String> {
        let mut line = vec![json!(method)];
        line.extend_from_slice(arguments);
        let commands = self.commands.as_mut().expect("an open page");
        writeln!(commands, "{}", Value::from(line)).expect("the page hears");
        let (process, number) = (self.process.as_mut().expect("an open page"), self.answered);
        let answer = until(&format!("the page answers {method}"), START + within, || {
            assert!(process.is_alive(), "the browser ended: {}", process.log());
            let output = process.output();
            let whole = output.rfind('\n').map_or("", |end| &output[..end]);
            whole.lines().nth(number).map(str::to_owned)
        });
        self.answered += 1;
        let answer: Value = serde_json::from_str(&answer).expect("an answer of visit.mjs");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["value"].clone()),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(process) = self.process.take().filter(|_| !std::thread::panicking()) {
            process.end_within(START);
        }
    }
}
