//! The camera: plugged into the kernel's virtual USB hub, it answers requests on one thread and shows its film on another.

use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::descriptors::{Answer, Coding, Control, Mode, PAYLOAD};
use crate::film::Film;
use crate::usbip::{self, Command};

/// Where a socket becomes a USB device: `port fd device-id speed`.
const ATTACH: &str = "/sys/devices/platform/vhci_hcd.0/attach";
/// The hub's first high-speed port.
const PORT: u32 = 0;
/// Bus 1, device 1, as if from another machine.
const DEVICE_ID: u32 = 1 << 16 | 1;
const HIGH_SPEED: u32 = 3;
/// UVC's mark of a payload that went wrong.
const ERROR: u8 = 0x40;
/// The kernel frees a port some time after its device has gone.
const PORT_FREE: Duration = Duration::from_secs(30);

/// What is wrong with the camera.
#[derive(Default)]
pub struct Faults {
    /// It delivers nothing, and says nothing of it.
    pub stalled: bool,
    /// So many of the next pictures bear the mark of a transfer that went wrong.
    pub corrupt: u32,
    /// So many of the next pictures end in their middle, without a mark.
    pub half: u32,
}

/// A camera that can be plugged in and out.
pub struct Camera {
    film: Arc<Mutex<Film>>,
    faults: Arc<Mutex<Faults>>,
    mode: Mode,
    plugged: Option<Plugged>,
}

struct Plugged {
    link: Arc<Link>,
    threads: [JoinHandle<()>; 2],
}

/// The connection to the kernel, shared by both threads.
struct Link {
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    /// Written to under the lock only: a transfer leaves `waiting` and is answered in one step, else the
    /// kernel could hear that it could not be taken back before it hears what it gave, and would drop the device.
    socket: UnixStream,
    /// Bulk transfers that wait for data, as (sequence, length); the kernel queues a handful.
    waiting: VecDeque<(u32, usize)>,
    /// Rises whenever the host starts the stream anew.
    start: u64,
    gone: bool,
}

impl Camera {
    pub fn new(film: Film, mode: Mode) -> Self {
        Self {
            film: Arc::new(Mutex::new(film)),
            faults: Arc::default(),
            mode,
            plugged: None,
        }
    }

    /// What is wrong with it from now on.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it says of itself the next time that it is plugged in.
    pub fn become_one_of(&mut self, coding: Coding) {
        self.mode.coding = coding;
    }

    /// Plugs the camera in; it goes on with the film where it was.
    pub fn plug(&mut self) -> Result<(), String> {
        self.unplug();
        let what = |error: std::io::Error| format!("plugging in at {ATTACH}: {error}; is vhci_hcd loaded?");
        let (ours, theirs) = UnixStream::pair().map_err(what)?;
        let requests = ours.try_clone().map_err(what)?;
        let wish = format!("{PORT} {} {DEVICE_ID} {HIGH_SPEED}", theirs.as_raw_fd());
        let deadline = Instant::now() + PORT_FREE;
        while let Err(error) = std::fs::write(ATTACH, &wish) {
            if Instant::now() > deadline {
                return Err(what(error));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let shared = Shared {
            socket: ours,
            waiting: VecDeque::new(),
            start: 0,
            gone: false,
        };
        let link = Arc::new(Link {
            shared: Mutex::new(shared),
            changed: Condvar::new(),
        });
        let answering = {
            let (link, control) = (Arc::clone(&link), Control::new(self.mode));
            std::thread::spawn(move || link.answer(requests, control))
        };
        let showing = {
            let (link, film, faults) = (Arc::clone(&link), Arc::clone(&self.film), Arc::clone(&self.faults));
            let mode = self.mode;
            std::thread::spawn(move || link.show(&film, &faults, mode))
        };
        self.plugged = Some(Plugged {
            link,
            threads: [answering, showing],
        });
        Ok(())
    }

    /// Pulls the plug, without a word to the kernel.
    pub fn unplug(&mut self) {
        let Some(plugged) = self.plugged.take() else { return };
        plugged.link.end();
        for thread in plugged.threads {
            // A thread that panicked has told why; the camera is gone either way.
            let _ = thread.join();
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut shared = self.lock();
        shared.gone = true;
        // It fails only where the kernel hung up first.
        let _ = shared.socket.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    /// Answers the host until it hangs up or the plug is pulled.
    fn answer(&self, mut requests: UnixStream, mut control: Control) {
        while let Ok(command) = usbip::read(&mut requests) {
            let mut shared = self.lock();
            match command {
                Command::Bulk { sequence, length } => shared.waiting.push_back((sequence, length)),
                Command::Unlink { sequence, victim } => {
                    let before = shared.waiting.len();
                    shared.waiting.retain(|(waiting, _)| *waiting != victim);
                    let status = if shared.waiting.len() < before { usbip::TAKEN_BACK } else { 0 };
                    shared.send(&usbip::unlinked(sequence, status));
                }
                Command::Control {
                    sequence,
                    setup,
                    data,
                    length,
                } => {
                    let message = match control.request(setup, &data, length) {
                        Answer::Data(data) => usbip::gave(sequence, 0, &data),
                        Answer::Taken => usbip::took(sequence, data.len()),
                        Answer::Starts => {
                            shared.start += 1;
                            usbip::took(sequence, data.len())
                        }
                        Answer::Stall => usbip::gave(sequence, usbip::STALLED, &[]),
                    };
                    shared.send(&message);
                }
            }
            self.changed.notify_all();
        }
        self.end();
    }

    /// Shows the film, in step with the clock, whenever the host reads; without a reader it stands still.
    fn show(&self, film: &Mutex<Film>, faults: &Mutex<Faults>, mode: Mode) {
        let interval = Duration::from_secs(1) / mode.fps;
        let mut due = Instant::now();
        let mut frame_id = 0;
        while let Some(start) = self.reader() {
            // A picture that is late is not caught up with: a burst would run the reader out of buffers.
            due = (due + interval).max(Instant::now());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (half, corrupt) = {
                let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                if faults.stalled {
                    continue;
                }
                (take_one(&mut faults.half), take_one(&mut faults.corrupt))
            };
            let mut unit = film.lock().unwrap_or_else(PoisonError::into_inner).next_unit().to_vec();
            if half {
                unit.truncate(unit.len() / 2);
            }
            let mark = if corrupt { frame_id | ERROR } else { frame_id };
            self.send_picture(&unit, mark, start);
            frame_id ^= 1;
        }
    }

    /// Waits until the host reads; says which start of the stream that is, `None` when the plug is pulled.
    fn reader(&self) -> Option<u64> {
        let shared = self.lock();
        let shared = self
            .changed
            .wait_while(shared, |shared| !shared.gone && shared.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        (!shared.gone).then_some(shared.start)
    }

    /// Sends one picture in as many payloads as it takes; gives it up when the host starts the stream anew meanwhile.
    fn send_picture(&self, unit: &[u8], marks: u8, start: u64) {
        const HEADER: usize = 2;
        const END_OF_HEADER: u8 = 0x80;
        const END_OF_FRAME: u8 = 0x02;
        let mut rest = unit;
        while !rest.is_empty() {
            let shared = self.lock();
            let mut shared = self
                .changed
                .wait_while(shared, |shared| !shared.gone && shared.start == start && shared.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            if shared.gone || shared.start != start {
                return;
            }
            let Some((sequence, length)) = shared.waiting.pop_front() else {
                continue;
            };
            let (now, later) = rest.split_at(rest.len().min(length.min(PAYLOAD).saturating_sub(HEADER).max(1)));
            let end = if later.is_empty() { END_OF_FRAME } else { 0 };
            let payload = [&[2, END_OF_HEADER | marks | end], now].concat();
            shared.send(&usbip::gave(sequence, 0, &payload));
            rest = later;
        }
    }
}

fn take_one(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

impl Shared {
    /// A kernel that hung up is noticed by the reading thread; nothing is to be done here.
    fn send(&mut self, message: &[u8]) {
        let _ = self.socket.write_all(message);
    }
}
