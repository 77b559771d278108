//! Cameras that only libcamera can run (Raspberry Pi's CSI cameras), through its program `rpicam-vid`.
//!
//! Its raw pictures go into an encoder of ours, which follows what viewers want. Its own H.264 cannot be steered while it runs.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

pub(super) mod controls;
pub mod listing;

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::child::{self, Program};
use super::encoded::RawSource;
use super::{CaptureError, Source};
use crate::config::Rpicam;
use crate::media::annexb::AccessUnits;
use crate::media::conform::{Conformed, Conformer};
use crate::media::{AccessUnit, Bitrate, EncoderTarget, MediaTime, RawFrame};

/// The program's names, the newer first.
const NAMES: [&str; 2] = ["rpicam-vid", "libcamera-vid"];
/// How long it may take to the first picture: it looks for cameras, loads their tuning, and measures light.
const START: Duration = Duration::from_secs(10);
/// A camera that delivers nothing for so long has stalled, and is started anew.
const SILENCE: Duration = Duration::from_secs(3);
/// Starting a program costs a small board much: one that fails at once is not started again before so long.
const LEAST_LIFE: Duration = Duration::from_secs(1);
/// How long one call waits for a picture.
const WAIT: Duration = Duration::from_secs(1);

/// The command line, but for the program's name.
fn arguments(camera: &Rpicam, bitrate: Bitrate) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |name: &str, value: String| all.extend([format!("--{name}"), value]);
    add("width", camera.size.0.to_string());
    add("height", camera.size.1.to_string());
    add("framerate", camera.fps.to_string());
    add("timeout", "0".into());
    if camera.rotation != 0 {
        add("rotation", camera.rotation.to_string());
    }
    if camera.own_h264 {
        let pictures = (f64::from(camera.fps.get()) * camera.encoding.gop.as_secs_f64()).round().max(1.0);
        add("codec", "h264".into());
        add("bitrate", bitrate.as_bps().to_string());
        add("intra", format!("{pictures:.0}"));
        all.push("--inline".into());
    } else {
        add("codec", "yuv420".into());
    }
    for (flag, wanted) in [("--hflip", camera.hflip), ("--vflip", camera.vflip)] {
        if wanted {
            all.push(flag.into());
        }
    }
    // Without a line for each picture on its standard error.
    all.extend(["--verbose=0", "--nopreview", "--flush", "--output", "-"].map(str::to_owned));
    all.extend(camera.extra.iter().cloned());
    all
}

fn start(camera: &Rpicam, bitrate: Bitrate) -> Result<(Program, ChildStdout), CaptureError> {
    let path: PathBuf = match &camera.command {
        Some(path) => path.clone(),
        None => child::find(&NAMES).ok_or_else(|| {
            CaptureError::Lost(
                "neither rpicam-vid nor libcamera-vid is in PATH; install it (on Raspberry Pi OS: `apt install rpicam-apps`), or \
                 write where it is as camera.command"
                    .into(),
            )
        })?,
    };
    let arguments = arguments(camera, bitrate);
    let started = Program::start(&path, &arguments)?;
    // Not for the log: without a camera it is started again and again. What comes of it is told.
    tracing::debug!(program = %path.display(), process = started.0.id(), arguments = arguments.join(" "), "camera program started");
    Ok(started)
}

/// Between the thread that reads the pipe and the camera's.
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    item: T,
    /// Why there will be no more.
    end: Option<String>,
    stop: bool,
}

impl<T> Shared<T> {
    fn new(item: T) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                item,
                end: None,
                stop: false,
            }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most `patience` for something that `take` finds; else `None`, also when there will be no more.
    fn wait<R>(&self, patience: Duration, mut take: impl FnMut(&mut T) -> Option<R>) -> Result<Option<R>, String> {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(found) = take(&mut state.item) {
                self.changed.notify_all();
                return Ok(Some(found));
            }
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self, why: String) {
        self.lock().end = Some(why);
        self.changed.notify_all();
    }
}

/// The program with the thread that reads its pipe.
struct Reading<T> {
    program: Program,
    shared: Arc<Shared<T>>,
    reader: Option<JoinHandle<()>>,
    /// When a picture came last, or it was started.
    heard: Instant,
    /// For how long none may come.
    patience: Duration,
}

impl<T: Send + 'static> Reading<T> {
    fn start(
        camera: &Rpicam,
        bitrate: Bitrate,
        item: T,
        read: impl FnOnce(ChildStdout, &Shared<T>) + Send + 'static,
    ) -> Result<Self, CaptureError> {
        let (program, stdout) = start(camera, bitrate)?;
        let shared = Shared::new(item);
        let theirs = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("camera pipe".into())
            .spawn(move || read(stdout, &theirs))
            .map_err(|error| CaptureError::Lost(format!("starting a thread for the camera's pipe: {error}")))?;
        Ok(Self {
            program,
            shared,
            reader: Some(reader),
            heard: Instant::now(),
            patience: START,
        })
    }

    /// Waits for what `take` finds; an error when there will be no more, or nothing has come for too long.
    fn wait<R>(&mut self, patience: Duration, take: impl FnMut(&mut T) -> Option<R>) -> Result<Option<R>, CaptureError> {
        match self.shared.wait(patience, take) {
            Ok(Some(found)) => {
                self.heard = Instant::now();
                self.patience = SILENCE;
                Ok(Some(found))
            }
            Ok(None) if self.heard.elapsed() >= self.patience => {
                let (seconds, said) = (self.patience.as_secs(), self.program.last_words());
                Err(CaptureError::Lost(format!(
                    "the camera program delivers no picture for {seconds} s; it is started anew{said}"
                )))
            }
            Ok(None) => Ok(None),
            Err(end) => {
                let failed = self.program.post_mortem(&end);
                if self.patience == START {
                    std::thread::sleep(LEAST_LIFE.saturating_sub(self.heard.elapsed()));
                }
                Err(failed)
            }
        }
    }
}

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        // Its pipe closes with it, so the reader ends.
        self.program.stop();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The newest picture, and how many came before it that nobody took.
#[derive(Default)]
struct Newest {
    i420: Option<Vec<u8>>,
    captured: Option<Instant>,
    spare: Option<Vec<u8>>,
    replaced: u64,
}

/// Raw pictures of `rpicam-vid`.
pub(super) struct RawRpicam {
    reading: Reading<Newest>,
    width: u32,
    height: u32,
    fps: f64,
    lost: u64,
}

impl RawRpicam {
    /// Starts the program.
    ///
    /// # Errors
    /// It is not there, or cannot be started.
    pub fn open(camera: &Rpicam, bitrate: Bitrate) -> Result<Self, CaptureError> {
        let (width, height) = (camera.size.0.get(), camera.size.1.get());
        let bytes = width as usize * height as usize * 3 / 2;
        let reading = Reading::start(camera, bitrate, Newest::default(), move |pipe, shared| {
            read_pictures(pipe, bytes, shared);
        })?;
        Ok(Self {
            reading,
            width,
            height,
            fps: camera.fps.get().into(),
            lost: 0,
        })
    }
}

/// The thread: one picture after the other, until the pipe is closed.
fn read_pictures(mut pipe: impl Read, bytes: usize, shared: &Shared<Newest>) {
    let mut i420 = vec![0; bytes];
    loop {
        match fill(&mut pipe, &mut i420) {
            Ok(count) if count == bytes => {}
            Ok(0) => return shared.end("ended".into()),
            Ok(count) => return shared.end(format!("ended in the middle of a picture ({count} of {bytes} bytes)")),
            Err(error) => return shared.end(format!("cannot be read ({error})")),
        }
        let mut state = shared.lock();
        if state.stop {
            return;
        }
        let next = state.item.spare.take();
        let older = state.item.i420.replace(i420);
        state.item.captured = Some(Instant::now());
        state.item.replaced += u64::from(older.is_some());
        drop(state);
        shared.changed.notify_all();
        i420 = older.or(next).unwrap_or_default();
        i420.resize(bytes, 0);
    }
}

/// Reads until the buffer is full or the pipe ends; how many bytes.
fn fill(pipe: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match pipe.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

impl RawSource for RawRpicam {
    fn next(&mut self, patience: Duration, frame: &mut RawFrame) -> Result<bool, CaptureError> {
        let old = &mut frame.i420;
        let found = self.reading.wait(patience, |newest| {
            let i420 = newest.i420.take()?;
            newest.spare = Some(std::mem::replace(old, i420));
            Some((newest.captured?, std::mem::take(&mut newest.replaced)))
        })?;
        let Some((captured, replaced)) = found else { return Ok(false) };
        self.lost += replaced;
        frame.width = self.width;
        frame.height = self.height;
        frame.captured = captured;
        Ok(true)
    }

    fn discard(&mut self) -> Result<(), CaptureError> {
        let emptied = self.reading.wait(Duration::ZERO, |newest| {
            newest.spare = Some(newest.i420.take()?);
            // What nobody wanted is not lost.
            newest.replaced = 0;
            Some(())
        });
        emptied.map(drop)
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    /// What the program was asked for: it does not say what the camera does.
    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }
}

/// The program's own H.264.
pub(super) struct H264Rpicam {
    reading: Reading<Option<(Vec<u8>, Instant)>>,
    conformer: Conformer,
    fps: f64,
}

impl H264Rpicam {
    /// Starts the program.
    ///
    /// # Errors
    /// It is not there, or cannot be started.
    pub fn open(camera: &Rpicam, bitrate: Bitrate) -> Result<Self, CaptureError> {
        Ok(Self {
            reading: Reading::start(camera, bitrate, None, read_units)?,
            conformer: Conformer::default(),
            fps: camera.fps.get().into(),
        })
    }
}

/// The thread: access units, until the pipe is closed. None is dropped, since each needs the one before: while one waits, so does the program.
fn read_units(mut pipe: ChildStdout, shared: &Shared<Option<(Vec<u8>, Instant)>>) {
    let mut splitter = AccessUnits::default();
    let mut bytes = vec![0; 256 * 1024];
    loop {
        let count = match pipe.read(&mut bytes) {
            Ok(0) => return shared.end("ended".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return shared.end(format!("cannot be read ({error})")),
        };
        let now = Instant::now();
        let mut units = Vec::new();
        splitter.push(&bytes[..count], |unit| units.push(unit.to_vec()));
        for unit in units {
            let mut state = shared.lock();
            while state.item.is_some() && !state.stop {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            state.item = Some((unit, now));
            drop(state);
            shared.changed.notify_all();
        }
    }
}

impl Source for H264Rpicam {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let found = self.reading.wait(WAIT, Option::take)?;
        let Some((unit, captured)) = found else { return Ok(None) };
        let conformed = self
            .conformer
            .take(&unit)
            .map_err(|error| CaptureError::Unsupported(format!("the camera program's H.264: {error}")))?;
        Ok(conformed.map(|Conformed { data, key }| AccessUnit {
            data: data.into(),
            // The supervisor gives the stream its time.
            time: MediaTime::default(),
            captured,
            key,
        }))
    }

    /// A running rpicam-vid takes no orders.
    fn apply(&mut self, _target: EncoderTarget) -> Result<(), CaptureError> {
        Ok(())
    }

    fn has_bitrate(&self) -> bool {
        false
    }

    fn forces_key_frames(&self) -> bool {
        false
    }

    /// As of raw pictures.
    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }
}
