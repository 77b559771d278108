//! What goes wrong at a device, in words that help.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SILENCE;
use crate::capture::CaptureError;

/// The error of something done to a device, with what to do about it.
pub(super) fn failed(path: &Path, doing: &str, error: &io::Error) -> CaptureError {
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

/// An error, if a camera has delivered nothing usable for so long that it has stalled.
pub(super) fn silent_for(path: &Path, silence: Duration) -> Result<(), CaptureError> {
    if silence < SILENCE {
        return Ok(());
    }
    let (path, seconds) = (path.display(), SILENCE.as_secs());
    Err(CaptureError::Lost(format!(
        "{path} delivers no picture for {seconds} s; it is opened anew"
    )))
}

/// The error of a device that reports one without a reason, which it would do for ever.
pub(super) fn reports_error(path: &Path) -> CaptureError {
    CaptureError::Lost(format!("{} reports an error; it is opened anew", path.display()))
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
    use std::time::Instant;

    use super::*;

    #[test]
    fn errors_name_the_device_and_what_to_do() {
        let error = failed(
            Path::new("/dev/video0"),
            "opening",
            &io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()),
        );
        assert!(error.to_string().contains("group `video`"), "{error}");
    }

    #[test]
    fn a_camera_is_silent_only_after_a_while() {
        let after = |silence| silent_for(Path::new("/dev/video0"), silence).err().map(|error| error.to_string());
        assert_eq!(after(SILENCE - Duration::from_millis(1)), None);
        assert_eq!(
            after(SILENCE).as_deref(),
            Some("/dev/video0 delivers no picture for 3 s; it is opened anew")
        );
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
