//! What lies on the device's own disk, damaged by a power cut or written by hand, and the addresses in it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use axum::http::Uri;
use peercam::config::{self, BrokerScheme, BrokerUrl, Check, Watch};
use peercam::identity;
use tempfile::TempDir;

/// In memory where the system has such a place: a disk would wear out, and is slow to say that it has written.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .expect("a folder")
}

/// The device's certificate behind two bytes of length, and its key.
pub fn identity(bytes: &[u8]) {
    is_kept(bytes);
}

/// Whether a seed of [`identity`] is one that the device goes on with.
pub fn is_kept(bytes: &[u8]) -> bool {
    let [high, low, rest @ ..] = bytes else { return false };
    let size = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (certificate, key) = rest.split_at(size);
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("dtls-certificate.der"), certificate).expect("a file");
    fs::write(file("dtls-key.der"), key).expect("a file");
    let first = identity::load_or_create(folder.path()).expect("a damaged identity is replaced");
    let taken = first.certificate.certificate == certificate && first.certificate.private_key == key;
    let kept = fs::read(file("dtls-certificate.der.damaged")).ok();
    assert!(taken || kept.as_deref() == Some(certificate), "a damaged identity was thrown away");
    super::accept_as(&first.certificate, super::OFFER, Instant::now()).expect("a device with this identity takes viewers");
    let device = first.device.clone();
    drop(first);
    let second = identity::load_or_create(folder.path()).expect("the same identity").device;
    assert_eq!(device, second, "the device's id changes with each start");
    taken
}

/// What stands between the file and the last good one in [`start`]'s input.
const BETWEEN: &[u8] = b"\n%%%\n";

/// `peercam.toml` at a start, and the last good one that an earlier run has kept.
pub fn start(bytes: &[u8]) {
    let at = bytes.windows(BETWEEN.len()).position(|window| window == BETWEEN);
    let (file, kept) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + BETWEEN.len()..]));
    let folder = folder();
    let (path, state) = (folder.path().join("peercam.toml"), folder.path().join("state"));
    let with_state = |rest: &[u8]| [format!("device.state_dir = \"{}\"\n", state.display()).as_bytes(), rest].concat();
    let read = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        config::parse(text, &path).ok()
    };
    let (file, kept) = (with_state(file), with_state(kept));
    let good = read(&file);
    let last_good = read(&kept);
    // A file that says it in yet another way would have us write elsewhere.
    if good.as_ref().is_some_and(|config| config.device.state_dir != state) {
        return;
    }
    fs::create_dir(&state).expect("a folder");
    fs::write(&path, &file).expect("a file");
    fs::write(state.join("last-good.toml"), &kept).expect("a file");
    let on_disk = || fs::read(state.join("last-good.toml")).expect("a file");
    match config::start(&path) {
        Ok(started) if started.bad.is_none() => {
            assert_eq!(Some(&started.config), good.as_ref(), "something else runs than what the file says");
            assert!(on_disk() == kept, "a configuration was kept before it ran");
            let mut watch = Watch::new(path, &started);
            watch.keep();
            assert!(on_disk() == file, "a good configuration was not kept");
            assert!(matches!(watch.check_now(), Check::Unchanged), "nothing has changed");
        }
        Ok(started) => {
            assert!(good.is_none(), "a good file was not taken: {:?}", started.bad);
            assert_eq!(
                Some(&started.config),
                last_good.as_ref(),
                "something else runs than the last good configuration"
            );
            assert!(on_disk() == kept, "the last good configuration was overwritten by a bad one");
            let mut watch = Watch::new(path, &started);
            watch.keep();
            assert!(on_disk() == kept, "what was not read from the file was kept");
            assert!(matches!(watch.check_now(), Check::Unchanged), "the same mistake was told twice");
        }
        Err(error) => {
            assert!(good.is_none(), "a good file was refused: {error}");
            assert!(last_good.is_none(), "there is a good configuration, and it does not run: {error}");
        }
    }
}

/// A broker's URL, as somebody writes it.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match BrokerUrl::parse(text) {
        Ok(url) => {
            let written = url.to_string();
            assert_eq!(
                BrokerUrl::parse(&written).as_ref(),
                Ok(&url),
                "{written:?} is not what it was made of"
            );
            assert!(!url.host.is_empty() && url.port > 0);
            match url.scheme {
                BrokerScheme::Tcp | BrokerScheme::Tls => assert_eq!(url.path, "/"),
                // What the MQTT client reads. It would say no when the agent runs, and `peercam check` had said yes.
                BrokerScheme::Ws | BrokerScheme::Wss => assert!(written.parse::<Uri>().is_ok(), "{written:?} was accepted"),
            }
        }
        Err(sentence) => {
            assert!(!sentence.is_empty());
            assert!(!tells_secret(text, &sentence), "a password is told: {sentence}");
        }
    }
    let Some(quoted) = (!text.contains(|c: char| c == '\'' || c.is_control())).then(|| format!("'{text}'")) else {
        return;
    };
    let file = |text: &str| config::parse(text, Path::new("/nonexistent/peercam.toml"));
    assert_eq!(
        file(&format!("[broker]\nurl = {quoted}\n")).is_ok(),
        text == "off" || BrokerUrl::parse(text).is_ok(),
        "the file and the parser disagree about {quoted}"
    );
    for ours in [
        format!("[broker]\npage_url = {quoted}\n"),
        format!("[[network.ice_server]]\nurls = [{quoted}]\n"),
    ] {
        if let Err(error) = file(&ours) {
            assert!(error.to_string().contains("peercam.toml:"), "{error}");
            assert!(!tells_secret(text, &error.to_string()), "a password is told: {error}");
        }
    }
}

/// Whether a sentence repeats what stands before an @: it may be a password. A short one stands in any sentence.
fn tells_secret(text: &str, sentence: &str) -> bool {
    let before = text.rfind('@').map(|at| text[..at].rsplit([':', '/']).next().unwrap_or_default());
    let Some(secret) = before.filter(|secret| secret.len() >= 12 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())) else {
        return false;
    };
    // Where it stands in the URL a second time, it is told for that.
    text.matches(secret).count() == 1 && sentence.contains(secret)
}
