//! TLS to a server, with a crypto provider and roots that are named rather than found.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A TLS configuration that trusts the authorities in `ca_file`, else those that the system trusts; `key` is the configuration's key for
/// that file. Reads files, so it may take a moment.
///
/// # Errors
/// A file can't be read or holds no certificate: with the file named.
pub fn client(ca_file: Option<&Path>, key: &str) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let roots = match ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            anyhow::ensure!(!roots.is_empty(), "{} holds no CA certificate in PEM form", path.display());
            roots
        }
        None => system_roots(key)?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?;
    Ok(builder.with_root_certificates(roots))
}

/// The certificates (PEM) in a file.
///
/// # Errors
/// It can't be read: with the file named.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("reading certificates from {}", path.display()))
}

fn system_roots(key: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    anyhow::ensure!(
        !roots.is_empty(),
        "this system trusts no certificate authority; install the package ca-certificates, or set `{key}`"
    );
    Ok(roots)
}
