//! A configuration that changes while the agent runs, and the last one that was good.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::load::{parse, read, read_bytes, state_dir_hint};
use super::{Config, ConfigError};

/// In the state folder.
const LAST_GOOD: &str = "last-good.toml";

/// What [`Watch::check_now`] found.
#[derive(Debug)]
pub enum Check {
    /// Nothing new.
    Unchanged,
    /// A good configuration that differs from the one in force; after [`Check::Bad`] also the one in force, written right again.
    Changed(Box<Config>),
    /// The file is bad; the configuration in force stays. Reported once for each new mistake.
    Bad(ConfigError),
}

/// Looks after one configuration file. It holds no clock: the caller polls it.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    current: Config,
    /// What `current` was read from, until it is kept.
    text: Option<String>,
    bad: Option<String>,
    /// What [`Watch::look`] saw last.
    seen: Option<Look>,
}

/// What the file says at one moment: a configuration, or what is wrong with it.
type Look = Result<Config, String>;

impl Watch {
    /// Watches `path`, from which `started` was read.
    #[must_use]
    pub fn new(path: PathBuf, started: &Started) -> Self {
        Self {
            path,
            current: started.config.clone(),
            text: started.text.clone(),
            bad: started.bad.as_ref().map(ToString::to_string),
            seen: None,
        }
    }

    /// The configuration that was read last runs: it is kept on disk as the last good one.
    pub fn keep(&mut self) {
        let Some(text) = self.text.take() else { return };
        let state_dir = &self.current.device.state_dir;
        if let Err(error) = save_last_good(state_dir, &text) {
            tracing::warn!(%error, state_dir = %state_dir.display(), "the last good configuration could not be kept");
        }
    }

    /// The last good configuration, for when the one that was read last is without a mistake and can't run all the same.
    #[must_use]
    pub fn fall_back(&self) -> Option<Config> {
        let text = load_last_good(&self.current.device.state_dir)?;
        parse(&text, &self.path).ok().filter(|config| *config != self.current)
    }

    /// The configuration that was read last without a mistake.
    #[must_use]
    pub fn current(&self) -> &Config {
        &self.current
    }

    /// What is wrong with the file now, if anything.
    #[must_use]
    pub fn bad(&self) -> Option<&str> {
        self.bad.as_deref()
    }

    /// Reads the file, and the secrets it names, and compares contents: a new time stamp alone is no change. What is new is taken at the second
    /// look that finds it: an editor that writes a file in pieces must not have half of it run.
    pub fn look(&mut self) -> Check {
        let read = self.read();
        let look = match &read {
            Ok((config, _)) => Ok(config.clone()),
            Err(error) => Err(error.to_string()),
        };
        if self.seen.as_ref() == Some(&look) {
            return self.take(read);
        }
        self.seen = Some(look);
        Check::Unchanged
    }

    /// As [`Watch::look`], for somebody who says that the file is ready.
    pub fn check_now(&mut self) -> Check {
        let read = self.read();
        self.take(read)
    }

    fn read(&self) -> Result<(Config, String), ConfigError> {
        let text = read(&self.path)?;
        if let Some(error) = emptied(&text, &self.path, &self.current.device.state_dir) {
            return Err(error);
        }
        parse(&text, &self.path).map(|config| (config, text))
    }

    fn take(&mut self, read: Result<(Config, String), ConfigError>) -> Check {
        match read {
            Ok((config, text)) => {
                let was_bad = self.bad.take().is_some();
                if config == self.current && !was_bad {
                    return Check::Unchanged;
                }
                self.text = Some(text);
                self.current = config.clone();
                Check::Changed(Box::new(config))
            }
            Err(error) => {
                let said = error.to_string();
                if self.bad.as_ref() == Some(&said) {
                    return Check::Unchanged;
                }
                self.bad = Some(said);
                Check::Bad(error)
            }
        }
    }
}

/// A file without a word where the last good one, kept in `state_dir`, had some: nobody means all of it to be as shipped, least of all another
/// identity. A full disk and a power cut leave such files.
fn emptied(text: &str, path: &Path, state_dir: &Path) -> Option<ConfigError> {
    let had_words = || load_last_good(state_dir).is_some_and(|text| !text.trim().is_empty());
    (text.trim().is_empty() && had_words()).then(|| ConfigError::Emptied { path: path.to_owned() })
}

/// A configuration to run with.
#[derive(Debug)]
pub struct Started {
    /// What to run.
    pub config: Config,
    /// What it was read from, unless it is the last good one already.
    pub text: Option<String>,
    /// Why this is the last good configuration and not what the file says.
    pub bad: Option<ConfigError>,
}

/// Reads the configuration at `path` for a run: where it is bad, the last good one serves.
///
/// # Errors
/// What is wrong with the file, when there is no last good configuration either.
pub fn start(path: &Path) -> Result<Started, ConfigError> {
    let (text, error) = match read(path) {
        Ok(text) => match emptied(&text, path, &state_dir_hint(&text)).map_or_else(|| parse(&text, path), Err) {
            Ok(config) => {
                let text = Some(text);
                return Ok(Started { config, text, bad: None });
            }
            Err(error) => (text, error),
        },
        // A comment in another encoding makes the file bad, but does not hide where state lives.
        Err(error) => (
            read_bytes(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned()),
            error,
        ),
    };
    let state_dir = state_dir_hint(&text);
    match load_last_good(&state_dir).map(|text| parse(&text, path)) {
        Some(Ok(config)) => Ok(Started {
            config,
            text: None,
            bad: Some(error),
        }),
        Some(Err(_)) | None => Err(error),
    }
}

/// Keeps a good configuration's text in `state_dir`, readable by its owner only. A power cut leaves the old or the new one, whole.
///
/// # Errors
/// The folder can't be made or written.
pub fn save_last_good(state_dir: &Path, text: &str) -> io::Result<()> {
    if load_last_good(state_dir).as_deref() == Some(text) {
        // SD cards wear out by writing.
        return Ok(());
    }
    fs::create_dir_all(state_dir)?;
    let temporary = state_dir.join(format!("{LAST_GOOD}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, state_dir.join(LAST_GOOD))?;
    fs::File::open(state_dir)?.sync_all()
}

/// The text that [`save_last_good`] kept, if there is one that can be read.
#[must_use]
pub fn load_last_good(state_dir: &Path) -> Option<String> {
    read(&state_dir.join(LAST_GOOD)).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().expect("a folder"),
            }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("peercam.toml")
        }

        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        /// What a start does whose configuration runs.
        fn run(&self) {
            let started = start(&self.file()).expect("good");
            Watch::new(self.file(), &started).keep();
        }

        fn write(&self, rest: &str) {
            let text = format!("device.state_dir = \"{}\"\n{rest}", self.state().display());
            fs::write(self.file(), text).expect("a file");
        }
    }

    #[test]
    fn a_new_mistake_is_told_once_and_the_good_configuration_stays_in_force() {
        let place = Place::new();
        place.write("limits.viewers = 3\n");
        let started = start(&place.file()).expect("good");
        let mut watch = Watch::new(place.file(), &started);
        assert!(matches!(watch.check_now(), Check::Unchanged));

        place.write("limits.viewers = 4\n");
        let Check::Changed(config) = watch.check_now() else {
            panic!("four viewers are a change")
        };
        assert_eq!(config.limits.viewers.get(), 4);

        place.write("limits.viewers = 0\n");
        let Check::Bad(error) = watch.check_now() else {
            panic!("no viewers are a mistake")
        };
        assert!(
            error
                .summary()
                .contains("peercam.toml:2:18: expected a whole number from 1 to 1000, found 0"),
            "{error}"
        );
        assert!(matches!(watch.check_now(), Check::Unchanged), "the same mistake is not told again");
        assert_eq!(watch.current().limits.viewers.get(), 4);

        place.write("limits.viewers = 4\n");
        assert!(matches!(watch.check_now(), Check::Changed(_)), "that the mistake is gone is told");
        assert!(watch.bad().is_none());
        assert!(matches!(watch.check_now(), Check::Unchanged));
    }

    #[test]
    fn what_is_new_is_taken_at_the_second_look_that_finds_it() {
        let place = Place::new();
        place.write("limits.viewers = 3\n");
        let mut watch = Watch::new(place.file(), &start(&place.file()).expect("good"));
        // As it is while an editor writes.
        for half in [
            "limits.viewers = 4\n",
            "limits.view",
            "limits.viewers = 4\n[log]\n",
            "limits.viewers = 4\nlog.filter = \"debug\"\n",
        ] {
            place.write(half);
            assert!(matches!(watch.look(), Check::Unchanged), "{half}");
        }
        let Check::Changed(config) = watch.look() else {
            panic!("it is written now")
        };
        assert_eq!((config.limits.viewers.get(), &config.log.filter[..]), (4, "debug"));
        assert!(matches!(watch.look(), Check::Unchanged), "it is taken once");

        place.write("limits.viewers = 0\n");
        assert!(matches!(watch.look(), Check::Unchanged));
        assert!(matches!(watch.look(), Check::Bad(_)));
        place.write("limits.viewers = 4\nlog.filter = \"debug\"\n");
        assert!(matches!(watch.look(), Check::Unchanged) && watch.bad().is_some());
        assert!(matches!(watch.look(), Check::Changed(_)) && watch.bad().is_none());
    }

    #[test]
    fn an_empty_file_takes_nothing_away() {
        let place = Place::new();
        place.write("limits.viewers = 3\n");
        let started = start(&place.file()).expect("good");
        let mut watch = Watch::new(place.file(), &started);
        watch.keep();
        fs::write(place.file(), "\n").expect("a file");
        let Check::Bad(error) = watch.check_now() else {
            panic!("nobody means that")
        };
        assert!(error.to_string().contains("is empty"), "{error}");
        assert_eq!(watch.current().limits.viewers.get(), 3);
    }

    #[test]
    fn a_password_that_changed_is_a_change() {
        let place = Place::new();
        let password = place.folder.path().join("pw");
        fs::write(&password, "one\n").expect("a password");
        place.write("[broker]\nusername = \"cam\"\npassword_file = \"pw\"\n");
        let mut watch = Watch::new(place.file(), &start(&place.file()).expect("good"));
        assert!(matches!(watch.check_now(), Check::Unchanged));
        fs::write(&password, "two\n").expect("a password");
        let Check::Changed(config) = watch.check_now() else {
            panic!("the password changed")
        };
        assert_eq!(config.broker.password.expect("a password").reveal(), "two");
    }

    #[test]
    fn a_start_with_a_bad_file_runs_the_last_good_one_and_says_why() {
        let place = Place::new();
        place.write("limits.viewers = 7\n");
        place.run();
        let mode = fs::metadata(place.state().join(LAST_GOOD)).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        for broken in ["limits.viewers = 0\n", "[limits\nviewers 3\n", "[brokr]\n"] {
            place.write(broken);
            let started = start(&place.file()).expect("the last good one");
            assert_eq!(started.config.limits.viewers.get(), 7);
            assert!(started.bad.is_some(), "{broken}");
            let mut watch = Watch::new(place.file(), &started);
            assert!(matches!(watch.check_now(), Check::Unchanged), "start-up told this mistake already");
        }
        let latin = [fs::read(place.file()).expect("a file"), b"# K\xfcche\n".to_vec()].concat();
        fs::write(place.file(), latin).expect("a file");
        assert!(
            start(&place.file()).expect("the last good one").bad.is_some(),
            "in another encoding"
        );

        place.write("[brokr]\n");
        fs::remove_dir_all(place.state()).expect("removed");
        let error = start(&place.file()).expect_err("nothing to fall back on");
        assert!(error.to_string().contains("did you mean `broker`?"), "{error}");
    }

    #[test]
    fn what_does_not_run_is_not_kept() {
        let place = Place::new();
        place.write("limits.viewers = 7\n");
        place.run();
        place.write("limits.viewers = 8\n");
        let mut watch = Watch::new(place.file(), &start(&place.file()).expect("good"));
        assert_eq!(watch.fall_back().map(|config| config.limits.viewers.get()), Some(7));
        place.write("limits.viewers = 9\n");
        assert!(matches!(watch.check_now(), Check::Changed(_)));
        let kept = || load_last_good(&place.state()).expect("kept");
        assert!(kept().contains("viewers = 7"), "{}", kept());
        watch.keep();
        assert!(kept().contains("viewers = 9") && watch.fall_back().is_none(), "{}", kept());
    }

    #[test]
    fn a_half_written_last_good_file_of_a_power_cut_does_no_harm() {
        let place = Place::new();
        fs::create_dir_all(place.state()).expect("a folder");
        fs::write(place.state().join(format!("{LAST_GOOD}.new")), "half").expect("a left-over");
        save_last_good(&place.state(), "[log]\n").expect("kept");
        assert_eq!(load_last_good(&place.state()).as_deref(), Some("[log]\n"));
    }
}
