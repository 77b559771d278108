//! A program in the place of `rpicam-vid`: tests/rpicam-vid-stand-in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A stand-in of the test's own at `program`. What it shall do stands in files beside it (tests/rpicam-vid-stand-in).
pub fn stand_in(program: PathBuf) -> PathBuf {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rpicam-vid-stand-in");
    fs::copy(original, &program).expect("the stand-in is copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
    program
}
