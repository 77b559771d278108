//! Child processes that never outlive their test.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::until;

/// A running program. Dropped, it is killed; in a test that fails, what it logged is shown.
pub struct Running {
    child: Child,
    name: String,
    out: Output,
    log: Output,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// How long it was waited for.
    pub took: Duration,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub log: String,
}

/// What a program writes, collected while it runs.
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = source.read(&mut bytes) {
                into.lock().expect("the collected output").extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("the collected output")).into_owned()
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading a program's output");
        }
        self.so_far()
    }
}

impl Running {
    /// Starts `command`; `name` is what a failing test calls it.
    pub fn start(command: &mut Command, name: &str) -> Self {
        Self::spawn(command.stdin(Stdio::null()), name)
    }

    /// Starts `command`, to which the test writes.
    pub fn hearing(command: &mut Command, name: &str) -> (Self, ChildStdin) {
        let mut running = Self::spawn(command.stdin(Stdio::piped()), name);
        let input = running.child.stdin.take().expect("a pipe");
        (running, input)
    }

    fn spawn(command: &mut Command, name: &str) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let out = Output::of(child.stdout.take().expect("a pipe"));
        let log = Output::of(child.stderr.take().expect("a pipe"));
        Self {
            child,
            name: name.to_owned(),
            out,
            log,
        }
    }

    /// What it wrote to standard error until now.
    pub fn log(&self) -> String {
        self.log.so_far()
    }

    /// What it wrote to standard output until now.
    pub fn output(&self) -> String {
        self.out.so_far()
    }

    /// Sends a signal such as `TERM`, to this process only.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {}", self.child.id()))
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "sending SIG{signal} to {}", self.name);
    }

    /// `kill -9`: no chance to say good-bye.
    pub fn kill(mut self) {
        self.child.kill().expect("killing a child");
        self.child.wait().expect("a killed child ends");
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("asking for a child's state").is_none()
    }

    /// Waits for its end.
    pub fn end_within(mut self, limit: Duration) -> Ended {
        let began = Instant::now();
        let status = until(&format!("{} ends", self.name), limit, || {
            self.child.try_wait().expect("asking for a child's state")
        });
        Ended {
            status,
            took: began.elapsed(),
            out: self.out.whole(),
            log: self.log.whole(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}{}", self.name, self.out.so_far(), self.log.so_far());
        }
    }
}
