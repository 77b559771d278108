//! What makes this device itself: its DTLS certificate, kept between runs, and the id derived from it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use str0m::config::DtlsCert;

use crate::protocol::DeviceId;

const CERTIFICATE: &str = "dtls-certificate.der";
const KEY: &str = "dtls-key.der";
const LOCK: &str = "lock";

/// Who this device is.
pub struct Identity {
    /// Its name on the broker.
    pub device: DeviceId,
    /// What it shows to viewers.
    pub certificate: DtlsCert,
    /// Held as long as the device is this one: two of the same id would drive each other from the broker.
    pub lock: File,
}

/// Reads the identity from `state_dir`, or makes it at the first start.
///
/// A pair of files that is damaged, which no viewer could connect to, is set aside and made anew.
///
/// # Errors
/// The folder can't be written or read, or another agent uses it, with the folder named.
pub fn load_or_create(state_dir: &Path) -> anyhow::Result<Identity> {
    fs::create_dir_all(state_dir).with_context(|| {
        format!(
            "creating the state folder {}: `device.state_dir` in the configuration names another one",
            state_dir.display()
        )
    })?;
    let lock = lock(state_dir)?;
    let certificate = match read(state_dir)? {
        Some(certificate) => certificate,
        None => create(state_dir)?,
    };
    let hash = digest::digest(&digest::SHA256, &certificate.certificate);
    let id: String = hash.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    let device = DeviceId::parse(&id).context("making the device id")?;
    Ok(Identity { device, certificate, lock })
}

fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join(LOCK);
    let opened = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = opened.with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another peercam runs with the state folder {}: each device needs one of its own (`device.state_dir` in the configuration)",
            state_dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

fn read(state_dir: &Path) -> anyhow::Result<Option<DtlsCert>> {
    let file = |name: &str| {
        let path = state_dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    };
    let (certificate, private_key) = match (file(CERTIFICATE)?, file(KEY)?) {
        (Some(certificate), Some(private_key)) => (certificate, private_key),
        (None, None) => return Ok(None),
        (Some(_), None) | (None, Some(_)) => return set_aside(state_dir, "half of the identity is missing"),
    };
    if !belong_together(&certificate, &private_key) {
        return set_aside(state_dir, "the identity is damaged");
    }
    Ok(Some(DtlsCert { certificate, private_key }))
}

/// Whether both files can be read, and the certificate is the key's.
fn belong_together(certificate: &[u8], private_key: &[u8]) -> bool {
    let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, private_key) else {
        return false;
    };
    let public = key.public_key().as_ref();
    // The certificate holds the public key as it is: 65 bytes that stand nowhere by chance.
    ParsedCertificate::try_from(&CertificateDer::from(certificate)).is_ok()
        && certificate.windows(public.len()).any(|bytes| bytes == public)
}

/// Keeps what is there under another name, and says that this is another device from now on.
fn set_aside(state_dir: &Path, what: &str) -> anyhow::Result<Option<DtlsCert>> {
    for name in [CERTIFICATE, KEY] {
        let (from, to) = (state_dir.join(name), state_dir.join(format!("{name}.damaged")));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("renaming {}", from.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    tracing::error!(
        folder = %state_dir.display(),
        "{what}: the device gets a new id, so links and broker accounts with the old one end; what was there is kept as *.damaged"
    );
    Ok(None)
}

/// The key first: a power cut between the two leaves no certificate without its key.
fn create(state_dir: &Path) -> anyhow::Result<DtlsCert> {
    let provider = str0m::crypto::from_feature_flags();
    let certificate = provider
        .dtls_provider
        .generate_certificate()
        .context("making the DTLS certificate")?;
    write_atomically(state_dir, KEY, &certificate.private_key)?;
    write_atomically(state_dir, CERTIFICATE, &certificate.certificate)?;
    tracing::info!(folder = %state_dir.display(), "made this device's certificate");
    Ok(certificate)
}

fn write_atomically(state_dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (path, temporary) = (state_dir.join(name), state_dir.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(state_dir)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_identity_stays_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let Identity { device, certificate, .. } = load_or_create(folder.path()).expect("an identity");
        let second = load_or_create(folder.path()).expect("the same identity");
        assert_eq!(device, second.device);
        assert_eq!(certificate.private_key, second.certificate.private_key);
        let mode = fs::metadata(folder.path().join(KEY)).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_identity_is_set_aside_and_made_anew() {
        for (name, bytes) in [(KEY, &b""[..]), (KEY, &[7; 138]), (CERTIFICATE, &[7; 325]), (CERTIFICATE, b"")] {
            let folder = tempfile::tempdir().expect("a folder");
            let first = load_or_create(folder.path()).expect("an identity").device;
            fs::write(folder.path().join(name), bytes).expect("damaged");
            let second = load_or_create(folder.path()).expect("a new identity").device;
            assert_ne!(first, second, "{name} with {} bytes was taken", bytes.len());
            assert_eq!(fs::read(folder.path().join(format!("{name}.damaged"))).expect("kept"), bytes);
            assert_eq!(load_or_create(folder.path()).expect("the new one").device, second);
        }
    }

    #[test]
    fn another_devices_certificate_or_none_is_no_identity() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let first = load_or_create(one.path()).expect("an identity").device;
        drop(load_or_create(other.path()).expect("another identity"));
        fs::copy(other.path().join(CERTIFICATE), one.path().join(CERTIFICATE)).expect("mixed up");
        let second = load_or_create(one.path()).expect("a new identity").device;
        assert_ne!(first, second);
        fs::remove_file(one.path().join(KEY)).expect("lost");
        assert_ne!(load_or_create(one.path()).expect("a new identity").device, second);
    }

    #[test]
    fn a_state_folder_serves_one_agent_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = load_or_create(folder.path()).expect("an identity");
        let error = load_or_create(folder.path()).err().expect("the folder is in use").to_string();
        assert!(error.contains("another peercam") && error.contains("state_dir"), "{error}");
        drop(first);
        load_or_create(folder.path()).expect("the folder is free again");
    }
}
