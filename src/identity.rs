//! What makes this device itself: its DTLS certificate, kept between runs, and the id derived from it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use aws_lc_rs::digest;
use str0m::config::DtlsCert;

use crate::protocol::DeviceId;

const CERTIFICATE: &str = "dtls-certificate.der";
const KEY: &str = "dtls-key.der";

/// Who this device is.
pub struct Identity {
    /// Its name on the broker.
    pub device: DeviceId,
    /// What it shows to viewers.
    pub certificate: DtlsCert,
}

/// Reads the identity from `state_dir`, or makes it at the first start.
///
/// # Errors
/// The folder can't be written or read, with the folder named.
pub fn load_or_create(state_dir: &Path) -> anyhow::Result<Identity> {
    fs::create_dir_all(state_dir).with_context(|| {
        format!(
            "creating the state folder {}: `device.state_dir` in the configuration names another one",
            state_dir.display()
        )
    })?;
    let certificate = match read(state_dir)? {
        Some(certificate) => certificate,
        None => create(state_dir)?,
    };
    let hash = digest::digest(&digest::SHA256, &certificate.certificate);
    let id: String = hash.as_ref().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    let device = DeviceId::parse(&id).context("making the device id")?;
    Ok(Identity { device, certificate })
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
    Ok(match (file(CERTIFICATE)?, file(KEY)?) {
        (Some(certificate), Some(private_key)) => Some(DtlsCert { certificate, private_key }),
        _ => None,
    })
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
        let first = load_or_create(folder.path()).expect("an identity");
        let second = load_or_create(folder.path()).expect("the same identity");
        assert_eq!(first.device, second.device);
        assert_eq!(first.certificate.private_key, second.certificate.private_key);
        let mode = fs::metadata(folder.path().join(KEY)).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
