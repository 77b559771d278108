//! A V4L2 camera that delivers H.264, one access unit in a buffer.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CaptureError, Source, Timeline, devices};
use crate::media::conform::{Conformed, Conformer};
use crate::media::{AccessUnit, Bitrate, EncoderTarget};
use crate::v4l2::{BufferStamp, CaptureQueue, Device, FourCc, Ready, Size, control};

/// Enough for a driver to fill one while two wait and one is read; more would only make a stalled picture older.
const BUFFERS: u32 = 4;
/// How long one call waits for a picture.
const WAIT: Duration = Duration::from_secs(1);
/// A camera that delivers nothing for so long has stalled, and is opened anew.
const SILENCE: Duration = Duration::from_secs(3);
/// How often a camera that owes us a key frame is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Key frame interval that cameras are asked for: what a joiner waits at most where key frames cannot be forced.
const GOP: Duration = Duration::from_secs(2);
const FALLBACK_FPS: f64 = 30.0;

/// An open, streaming camera.
pub struct V4l2Camera {
    queue: CaptureQueue,
    device: Arc<Device>,
    intake: Intake,
    forces_key_frames: bool,
    /// When something usable came last.
    heard: Instant,
    asked: Option<Instant>,
}

/// What happens to buffers between the driver and the hub; knows no device, so that it can be tried without one.
#[derive(Default)]
struct Intake {
    conformer: Conformer,
    timeline: Timeline,
    sequence: Option<u32>,
    captured: Option<Instant>,
    lost: u64,
}

impl V4l2Camera {
    /// Opens `path`, or the first camera that offers H.264, sets it up and starts it.
    ///
    /// # Errors
    /// It is not there, not ours to open, busy, or offers no H.264; the message says what to do.
    pub fn open(
        path: Option<&Path>,
        size: Option<(NonZeroU32, NonZeroU32)>,
        fps: Option<NonZeroU32>,
        bitrate: Bitrate,
    ) -> Result<Self, CaptureError> {
        let device = match path {
            Some(path) => open_camera(path)?,
            None => find()?,
        };
        set_format(&device, size)?;
        if let Some(fps) = fps {
            set_rate(&device, fps.get());
        }
        set_up_encoder(&device, bitrate);
        let forces_key_frames = device.control(control::FORCE_KEY_FRAME).is_some();
        let device = Arc::new(device);
        let queue = CaptureQueue::start(Arc::clone(&device), BUFFERS).map_err(|error| failed(device.path(), "starting", &error))?;
        tracing::info!(device = %device.path().display(), forces_key_frames, "camera started");
        Ok(Self {
            queue,
            device,
            intake: Intake::default(),
            forces_key_frames,
            heard: Instant::now(),
            asked: None,
        })
    }

    /// Asks the camera for the key frame without which nothing goes on.
    fn ask_for_key_frame(&mut self, now: Instant) {
        let due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN);
        if self.forces_key_frames && due && self.intake.conformer.waits_for_key_frame() {
            self.asked = Some(now);
            if let Err(error) = self.device.set_control(control::FORCE_KEY_FRAME, 1) {
                tracing::warn!(device = %self.device.path().display(), %error, "camera refused to make a key frame");
            }
        }
    }

    fn lost(&self, doing: &str, error: &io::Error) -> CaptureError {
        failed(self.device.path(), doing, error)
    }
}

impl Source for V4l2Camera {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        let until = Instant::now() + WAIT;
        loop {
            let now = Instant::now();
            self.ask_for_key_frame(now);
            if now.saturating_duration_since(self.heard) >= SILENCE {
                let (path, seconds) = (self.device.path().display(), SILENCE.as_secs());
                return Err(CaptureError::Lost(format!(
                    "{path} delivers no picture for {seconds} s; it is opened anew"
                )));
            }
            let ready = self
                .queue
                .wait(until.saturating_duration_since(now))
                .map_err(|error| self.lost("waiting for a picture from", &error))?;
            if ready == Ready::Timeout {
                return Ok(None);
            }
            let intake = &mut self.intake;
            let taken = self.queue.dequeue(|filled| {
                let stamp = match filled.stamp {
                    BufferStamp::Monotonic(at) | BufferStamp::Dequeued(at) => at,
                };
                let usable = !filled.damaged && !filled.data.is_empty();
                (usable, intake.take(filled.data, filled.sequence, filled.damaged, stamp))
            });
            let taken = taken.map_err(|error| self.lost("reading", &error))?;
            match (taken, ready) {
                (Some((usable, unit)), _) => {
                    if usable {
                        self.heard = Instant::now();
                    }
                    let refused = |error: String| CaptureError::Unsupported(format!("{}: {error}", self.device.path().display()));
                    if let Some(unit) = unit.map_err(refused)? {
                        return Ok(Some(unit));
                    }
                }
                // An error without a reason would be reported for ever.
                (None, Ready::Error) => {
                    return Err(CaptureError::Lost(format!(
                        "{} reports an error; it is opened anew",
                        self.device.path().display()
                    )));
                }
                (None, Ready::Filled | Ready::Timeout) => {}
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    fn apply(&mut self, target: EncoderTarget) -> Result<(), CaptureError> {
        if let Some(bitrate) = target.bitrate {
            set_bitrate(&self.device, bitrate).map_err(|error| self.lost(&format!("setting bit rate {bitrate} on"), &error))?;
        }
        if target.keyframe && self.forces_key_frames {
            self.device
                .set_control(control::FORCE_KEY_FRAME, 1)
                .map_err(|error| self.lost("asking for a key frame from", &error))?;
        }
        Ok(())
    }

    fn forces_key_frames(&self) -> bool {
        self.forces_key_frames
    }

    fn skipped(&self) -> u64 {
        self.intake.lost
    }
}

impl Intake {
    /// Takes one buffer. `None` for a unit that is not delivered: damaged, empty, or undecodable before the next key frame.
    fn take(&mut self, data: &[u8], sequence: u32, damaged: bool, captured: Instant) -> Result<Option<AccessUnit>, String> {
        let gap = self.sequence.map_or(0, |last| sequence.wrapping_sub(last).wrapping_sub(1));
        self.sequence = Some(sequence);
        // A sequence that goes back or stays is a driver that counts nothing: its numbers say nothing about losses.
        let gap = if gap > u32::MAX / 2 { 0 } else { gap };
        if gap > 0 || damaged {
            self.lost += u64::from(gap) + u64::from(damaged);
            tracing::debug!(sequence, gap, damaged, lost = self.lost, "pictures lost, waiting for a key frame");
            self.conformer.gap();
        }
        if damaged || data.is_empty() {
            return Ok(None);
        }
        let Some(Conformed { data, key }) = self.conformer.take(data).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let captured = self.captured.map_or(captured, |last| captured.max(last));
        self.captured = Some(captured);
        Ok(Some(AccessUnit {
            data: data.into(),
            time: self.timeline.stamp(captured),
            captured,
            key,
        }))
    }
}

fn open_camera(path: &Path) -> Result<Device, CaptureError> {
    let device = Device::open(path).map_err(|error| failed(path, "opening", &error))?;
    let capability = device.capability().map_err(|error| failed(path, "opening", &error))?;
    if !capability.captures() {
        let planes = if capability.captures_multi_planar() {
            " in a way that peercam speaks (it has the multi-planar interface only)"
        } else {
            ""
        };
        return Err(CaptureError::Unsupported(format!(
            "{} ({}) delivers no pictures{planes}; `peercam devices` lists the cameras",
            path.display(),
            capability.card
        )));
    }
    let formats = device.formats();
    if !formats.contains(&FourCc::H264) {
        return Err(CaptureError::Unsupported(format!(
            "{} ({}) offers no H.264, but {}; choose a camera with an H.264 encoder",
            path.display(),
            capability.card,
            devices::format_names(&formats)
        )));
    }
    Ok(device)
}

/// The first camera that offers H.264.
fn find() -> Result<Device, CaptureError> {
    let mut others = Vec::new();
    for path in devices::nodes() {
        match open_camera(&path) {
            Ok(device) => return Ok(device),
            // A card has more nodes than pictures come from: those say nothing.
            Err(error) => others.push(error.to_string()),
        }
    }
    Err(CaptureError::Lost(match others.as_slice() {
        [] => "no camera found: there is no /dev/video*; is it plugged in, and its driver loaded?".into(),
        others => format!("no camera with H.264 found: {}", others.join("; ")),
    }))
}

fn set_format(device: &Device, size: Option<(NonZeroU32, NonZeroU32)>) -> Result<(), CaptureError> {
    let fail = |error| failed(device.path(), "setting H.264 on", &error);
    let wanted = match size {
        Some((width, height)) => Size {
            width: width.get(),
            height: height.get(),
        },
        None => device.format().map_err(fail)?.1,
    };
    let (format, got) = device.set_format(FourCc::H264, wanted).map_err(fail)?;
    if format != FourCc::H264 {
        return Err(CaptureError::Lost(format!(
            "setting H.264 on {}: the driver chose {format} instead; does another program use it?",
            device.path().display()
        )));
    }
    if size.is_some() && got != wanted {
        let offered: Vec<_> = device.sizes(FourCc::H264).iter().map(ToString::to_string).collect();
        tracing::warn!(device = %device.path().display(), %wanted, %got, offered = offered.join(" "), "the camera does not offer the size in camera.size");
    }
    Ok(())
}

/// A rate that the camera doesn't have is no reason to show nothing.
fn set_rate(device: &Device, fps: u32) {
    let path = device.path().display();
    match device.set_rate(fps) {
        Ok(Some(got)) if (got - f64::from(fps)).abs() < 0.5 => {}
        Ok(got) => {
            tracing::warn!(device = %path, wanted = fps, ?got, "the camera does not offer the rate in camera.fps");
        }
        Err(error) => {
            tracing::warn!(device = %path, wanted = fps, %error, "the camera's rate cannot be set");
        }
    }
}

/// Sets what WebRTC needs, where the camera has a control for it. What it lacks, the stream itself will show.
fn set_up_encoder(device: &Device, bitrate: Bitrate) {
    let pictures = (device.rate().unwrap_or(FALLBACK_FPS) * GOP.as_secs_f64()).round() as i64;
    let wanted = [
        (control::REPEAT_HEADERS, 1),
        (control::B_FRAMES, 0),
        (control::GOP_SIZE, pictures),
        (control::I_PERIOD, pictures),
    ];
    let set = |id: u32, value: i64| {
        let Some(found) = device.control(id) else { return };
        if let Err(error) = device.set_control(id, found.nearest(value)) {
            tracing::warn!(device = %device.path().display(), control = format!("{id:#x}"), value, %error, "the camera refused a setting");
        }
    };
    for (id, value) in wanted {
        set(id, value);
    }
    if let Ok(profile) = device.control_value(control::PROFILE)
        && !matches!(profile, 0 | 1 | 2 | 4)
    {
        const HIGH: i64 = 4;
        set(control::PROFILE, HIGH);
    }
    if let Err(error) = set_bitrate(device, bitrate) {
        tracing::warn!(device = %device.path().display(), %bitrate, %error, "the camera refused the bit rate");
    }
}

fn set_bitrate(device: &Device, bitrate: Bitrate) -> io::Result<()> {
    match device.control(control::BITRATE) {
        Some(found) => device.set_control(control::BITRATE, found.nearest(i64::try_from(bitrate.as_bps()).unwrap_or(i64::MAX))),
        None => Ok(()),
    }
}

/// The error of something done to a device, with what to do about it.
fn failed(path: &Path, doing: &str, error: &io::Error) -> CaptureError {
    let help = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            "; add the user that peercam runs as to group `video`, or run it as the service does".to_owned()
        }
        Some(rustix::io::Errno::NOENT) => "; is the camera plugged in? `peercam devices` lists what is there".to_owned(),
        Some(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => "; the camera is gone, it is used again when it is back".to_owned(),
        Some(rustix::io::Errno::BUSY) => busy(path),
        Some(rustix::io::Errno::IO) => "; the camera failed, it is opened anew".to_owned(),
        Some(rustix::io::Errno::NOTTY) => "; is that a camera?".to_owned(),
        _ => String::new(),
    };
    CaptureError::Lost(format!("{doing} {}: {error}{help}", path.display()))
}

fn busy(path: &Path) -> String {
    match holders(path).as_slice() {
        [] => "; another program uses it (`fuser -v DEVICE` as root names it)".to_owned(),
        programs => format!("; stop the program that uses it: {}", programs.join(", ")),
    }
}

/// Other programs that have the device open, as far as we may look.
fn holders(path: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let device = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut holders = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let open: Vec<PathBuf> = std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .collect();
        if open.contains(&device) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} (process {pid})", name.trim()));
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::annexb::nal_units;

    /// x264, 320x180 at 25 fps, High without B frames; parameter sets, then an IDR picture.
    const KEY: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x64, 0x00, 0x0c, 0xac, 0xb2, 0x02, 0x83, 0x3f, 0x3e, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x06,
        0x41, 0xe2, 0x85, 0x49, 0, 0, 0, 1, 0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0, 0, 0, 1, 0x65, 0x88, 0x84, 0x11,
    ];
    const DELTA: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 0x11, 0x22];

    /// What comes out for buffers of (data, sequence, damaged): `K`, `d`, or `-` for nothing.
    fn play(buffers: &[(&[u8], u32, bool)]) -> String {
        let mut intake = Intake::default();
        let start = Instant::now();
        let play = |(n, &(data, sequence, damaged)): (usize, &(&[u8], u32, bool))| match intake.take(
            data,
            sequence,
            damaged,
            start + Duration::from_millis(n as u64 * 40),
        ) {
            Ok(Some(unit)) => {
                assert!(nal_units(&unit.data).eq(nal_units(data)));
                if unit.key { 'K' } else { 'd' }
            }
            Ok(None) => '-',
            Err(error) => panic!("{error}"),
        };
        buffers.iter().enumerate().map(play).collect()
    }

    #[test]
    fn after_a_lost_or_damaged_buffer_nothing_is_delivered_up_to_the_next_key_frame() {
        assert_eq!(play(&[(DELTA, 0, false), (KEY, 1, false), (DELTA, 2, false)]), "-Kd");
        assert_eq!(
            play(&[
                (KEY, 0, false),
                (DELTA, 1, false),
                (DELTA, 3, false),
                (DELTA, 4, false),
                (KEY, 5, false),
                (DELTA, 6, false)
            ]),
            "Kd--Kd"
        );
        assert_eq!(
            play(&[(KEY, 0, false), (DELTA, 1, true), (DELTA, 2, false), (KEY, 3, false)]),
            "K--K"
        );
        assert_eq!(
            play(&[(KEY, 0, false), (DELTA, 1, false), (KEY, 4, false), (DELTA, 5, false)]),
            "KdKd"
        );
    }

    #[test]
    fn empty_buffers_and_drivers_that_do_not_count_are_no_loss() {
        assert_eq!(play(&[(KEY, 0, false), (b"", 1, false), (DELTA, 2, false)]), "K-d");
        assert_eq!(play(&[(KEY, 0, false), (DELTA, 0, false), (DELTA, 0, false)]), "Kdd");
        assert_eq!(play(&[(KEY, u32::MAX, false), (DELTA, 0, false), (DELTA, 1, false)]), "Kdd");
    }

    #[test]
    fn errors_name_the_device_and_what_to_do() {
        let bitrate = Bitrate::kbps(1000);
        let open = |path: &str| {
            V4l2Camera::open(Some(Path::new(path)), None, None, bitrate)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let missing = open("/dev/video-that-is-not-there");
        assert!(
            missing.contains("/dev/video-that-is-not-there") && missing.contains("plugged in"),
            "{missing}"
        );
        let null = open("/dev/null");
        assert!(null.contains("/dev/null") && null.contains("camera"), "{null}");
        let error = failed(
            Path::new("/dev/video0"),
            "opening",
            &io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()),
        );
        assert!(error.to_string().contains("group `video`"), "{error}");
    }

    #[test]
    fn the_program_that_holds_a_device_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let input = std::fs::File::open(file.path()).expect("opened");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(input)
            .spawn()
            .expect("sleep runs");
        let deadline = Instant::now() + Duration::from_secs(5);
        let expected = format!("sleep (process {})", child.id());
        let mut found = Vec::new();
        while !found.contains(&expected) && Instant::now() < deadline {
            found = holders(file.path());
        }
        child.kill().and_then(|()| child.wait()).expect("sleep ends");
        assert_eq!(found, [expected]);
    }
}
