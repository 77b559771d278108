//! Reading: bytes to text, text to tables, tables to types.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::error::{ConfigError, Fault};
use super::file::File;
use super::resolve::Resolver;

/// The largest configuration file, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Where state lives when neither the file nor systemd says so.
const STATE_DIR: &str = "/var/lib/peercam";

/// Reads the configuration at `path`.
///
/// # Errors
/// The file can't be read, or says something that is not allowed: then with line, column and what is allowed.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&read(path)?, path)
}

/// Reads a configuration's text. `origin` is its file: errors name it, and relative paths start at its folder.
///
/// # Errors
/// As [`load`]; files that the text names, such as `password_file`, are read too.
pub fn parse(text: &str, origin: &Path) -> Result<Config, ConfigError> {
    parse_in(text, origin, &Environment::of_process())
}

pub(super) fn parse_in(text: &str, origin: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let folder = origin.parent().unwrap_or(Path::new(""));
    tables(text)
        .and_then(|file| Resolver::new(text, folder, environment).resolve(file))
        .map_err(|fault| fault.at(origin, text))
}

fn tables(text: &str) -> Result<File, Fault> {
    let document = DeTable::parse(text).map_err(|error| Fault::from_toml(&error, text))?;
    // Serde takes a list for a section and would then complain about what is inside it.
    for (key, value) in document.get_ref() {
        let name = key.get_ref();
        if matches!(value.get_ref(), DeValue::Array(_)) && matches!(&**name, "device" | "broker" | "network" | "http" | "limits" | "log") {
            let what = format!("there is one section of this kind, so its name stands in single brackets: [{name}]");
            return Err(Fault::new(key.span(), what));
        }
    }
    File::deserialize(toml::Deserializer::from(document)).map_err(|error| Fault::from_serde(&error, text))
}

/// The text of the file at `path`, at most [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(read_bytes(path)?).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}

/// What the file at `path` holds, text or not, at most [`MAX_BYTES`].
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let kind = fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() {
        // A pipe would hold us up until somebody writes into it.
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file")));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// `device.state_dir` as far as a text says so, however wrong the rest of it is.
pub(super) fn state_dir_hint(text: &str) -> PathBuf {
    let (document, _) = DeTable::parse_recoverable(text);
    document
        .get_ref()
        .get("device")
        .and_then(|device| device.get_ref().get("state_dir"))
        .and_then(|value| value.get_ref().as_str())
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| Environment::of_process().state_dir())
}

/// What the machine and systemd say, where the file says nothing.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub host_name: Option<String>,
    /// `StateDirectory=` of the unit.
    pub state_directory: Option<PathBuf>,
    /// `LoadCredential=` of the unit.
    pub credentials_dir: Option<PathBuf>,
}

impl Environment {
    pub fn of_process() -> Self {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            host_name: fs::read_to_string("/proc/sys/kernel/hostname").ok(),
            state_directory: folder("STATE_DIRECTORY"),
            credentials_dir: folder("CREDENTIALS_DIRECTORY"),
        }
    }

    /// The host's name without its domain; `peercam` where it has none of its own.
    pub fn device_name(&self) -> String {
        let name = self
            .host_name
            .as_deref()
            .unwrap_or_default()
            .trim()
            .split('.')
            .next()
            .unwrap_or_default();
        let usable = !matches!(name, "" | "localhost" | "(none)") && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
        if usable { name.to_owned() } else { "peercam".to_owned() }
    }

    pub fn state_dir(&self) -> PathBuf {
        // systemd writes several folders with colons between them; ours is the first.
        let first = self
            .state_directory
            .as_deref()
            .and_then(Path::to_str)
            .and_then(|paths| paths.split(':').next());
        PathBuf::from(first.unwrap_or(STATE_DIR))
    }
}
