//! What goes wrong at a hardware encoder.

use std::io;
use std::path::PathBuf;

use crate::media::conform::Unsuitable;

/// Why a hardware encoder does not work.
#[derive(Debug, thiserror::Error)]
pub enum M2mError {
    /// There is none, or none that takes the picture.
    #[error("no hardware encoder found that takes {0}; `peercam devices` lists what is there")]
    Missing(String),
    /// It does not do what was asked.
    #[error("{doing} {path}: {error}{help}")]
    Refused {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
        help: &'static str,
    },
    /// Its memory cannot be what a camera has filled: copying helps.
    #[error("{0} cannot use the camera's memory: {1}")]
    NotShared(PathBuf, io::Error),
    /// It takes pictures and gives nothing.
    #[error("{path} has encoded nothing for {seconds} s while pictures went in; it is opened anew")]
    Stalled { path: PathBuf, seconds: u64 },
    /// What it makes cannot be sent.
    #[error("{0}: {1}")]
    Unsuitable(PathBuf, Unsuitable),
}

/// The error of something done to an encoder, with what to do about it.
pub(super) fn refused(doing: &'static str, path: PathBuf, error: io::Error) -> M2mError {
    let help = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            "; add the user that peercam runs as to group `video`, or run it as the service does"
        }
        Some(rustix::io::Errno::BUSY) => "; another program uses it (`fuser -v DEVICE` as root names it)",
        Some(rustix::io::Errno::NOMEM) => {
            "; there is too little memory for devices: give the board more (`cma=` on its kernel's command line)"
        }
        _ => "",
    };
    M2mError::Refused { doing, path, error, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_helps() {
        let error = |errno: rustix::io::Errno| refused("opening the encoder", "/dev/video11".into(), errno.into()).to_string();
        assert!(error(rustix::io::Errno::NOMEM).contains("cma="));
        assert!(error(rustix::io::Errno::ACCESS).contains("group `video`"));
        assert!(error(rustix::io::Errno::BUSY).starts_with("opening the encoder /dev/video11: "));
    }
}
