//! A program that delivers pictures on its standard output: started, listened to, and stopped.
#![expect(clippy::disallowed_methods, reason = "stopping has a deadline")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::CaptureError;

/// How long a program may take to end by itself.
const STOP: Duration = Duration::from_millis(800);
/// How often it is looked at meanwhile.
const STOP_CHECK: Duration = Duration::from_millis(10);
/// What it said last is kept: so many lines, of so many bytes.
const LINES: usize = 20;
const LINE_BYTES: u64 = 500;
/// A pipe of the default size (64 KiB) would wake both sides twenty times a picture.
const PIPE_BYTES: usize = 1024 * 1024;

/// A running program. Dropped, it is stopped; if the agent is killed, the kernel stops it.
pub(super) struct Program {
    name: String,
    child: Child,
    said: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
    stopped: bool,
}

impl Program {
    /// Starts the program; its standard output is what is given back beside it.
    ///
    /// # Errors
    /// It cannot be started; the message says what to do.
    pub fn start(path: &Path, arguments: &[String]) -> Result<(Self, ChildStdout), CaptureError> {
        let name = path.display().to_string();
        // The kernel ends it when this thread ends, however that comes about (PR_SET_PDEATHSIG): a program that is silent just then would
        // never find its pipe closed, and hold the camera. setpriv is util-linux's, and so on every board.
        let runs = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        let mut command = match find(&["setpriv"]) {
            // Of a program that is not there the system says so itself.
            Some(setpriv) if runs => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", "--"]).arg(path);
                command
            }
            Some(_) | None => Command::new(path),
        };
        // A group of its own: whatever it starts is stopped with it, and a Ctrl-C meant for the agent leaves its end to us.
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|error| {
            CaptureError::Lost(format!(
                "starting {name}: {error}; is it installed (on Raspberry Pi OS: `apt install rpicam-apps`), and may peercam run it?"
            ))
        })?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let mut program = Self {
            name,
            child,
            said: Arc::default(),
            listener: None,
            stopped: false,
        };
        let (Some(stdout), Some(stderr)) = pipes else {
            return Err(CaptureError::Lost(format!("{}: it has no pipes", program.name)));
        };
        // Smaller where the system's limit is reached: pictures flow all the same.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let said = Arc::clone(&program.said);
        program.listener = std::thread::Builder::new()
            .name("camera log".into())
            .spawn(move || listen(stderr, &said))
            .map_err(|error| CaptureError::Lost(format!("starting a thread for {}: {error}", program.name)))
            .map(Some)?;
        Ok((program, stdout))
    }

    /// Stops it, and says why it had to be: how it ended, with its own last words.
    pub fn post_mortem(&mut self, what: &str) -> CaptureError {
        // It has closed its output: it ends by itself, and its status tells more than the one that a signal leaves.
        let until = Instant::now() + STOP;
        let mut status = None;
        while status.is_none() && Instant::now() < until {
            status = self.child.try_wait().ok().flatten();
            std::thread::sleep(STOP_CHECK);
        }
        self.stop();
        let how = status.map(|status| format!(" ({status})")).unwrap_or_default();
        CaptureError::Lost(format!("{} {what}{how}{}", self.name, self.last_words()))
    }

    /// What it complained of: lines that say ERROR, else its last, but for those that libcamera marks as no complaint.
    pub fn last_words(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let errors: Vec<&str> = said.iter().map(String::as_str).filter(|line| line.contains("ERROR")).collect();
        let lines = if errors.is_empty() {
            said.iter().map(String::as_str).filter(|line| !line.contains(" INFO ")).collect()
        } else {
            errors
        };
        let last = &lines[lines.len().saturating_sub(3)..];
        if last.is_empty() {
            "; it did not say why".into()
        } else {
            format!("; it said: {}", last.join(" / "))
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, after a while SIGKILL: no zombie stays.
    pub fn stop(&mut self) {
        // Later its number may be another's.
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let signal = |signal| {
            if let Some(group) = group {
                // Gone already is as good.
                let _ = kill_process_group(group, signal);
            }
        };
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if !ended(&mut self.child) {
            signal(Signal::TERM);
            let until = Instant::now() + STOP;
            while !ended(&mut self.child) {
                if Instant::now() >= until {
                    tracing::warn!(program = self.name, "it does not end when asked to; it is killed");
                    break;
                }
                std::thread::sleep(STOP_CHECK);
            }
        }
        // Also what it has left behind: that would keep the camera, and the pipes.
        signal(Signal::KILL);
        if let Err(error) = self.child.wait() {
            tracing::warn!(program = self.name, %error, "waiting for its end");
        }
        if let Some(listener) = self.listener.take() {
            // With the group its end of the pipe is gone.
            let _ = listener.join();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads what it says until it ends, keeps the last of it.
fn listen(stderr: ChildStderr, said: &Mutex<VecDeque<String>>) {
    let mut lines = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match lines.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        tracing::debug!(line, "camera program");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LINES {
            said.pop_front();
        }
        said.push_back(line.to_owned());
    }
}

/// The first of these programs that `PATH` has.
pub(super) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file())
}
