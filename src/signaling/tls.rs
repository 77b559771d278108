//! TLS to the broker, with a provider and roots that are named rather than found.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Broker;

/// The TLS configuration that `[broker]` asks for: the system's roots unless `ca_file` names others, and a client
/// certificate where one is given.
///
/// # Errors
/// A file can't be read or holds no certificate: with the file named.
pub fn client_config(broker: &Broker) -> anyhow::Result<Arc<ClientConfig>> {
    let roots = match &broker.ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            anyhow::ensure!(!roots.is_empty(), "{} holds no CA certificate in PEM form", path.display());
            roots
        }
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?
        .with_root_certificates(roots);
    let config = match (&broker.client_cert_file, &broker.client_key_file) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the client key {}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, private)
                .context("using the client certificate")?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("reading certificates from {}", path.display()))
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    anyhow::ensure!(
        !roots.is_empty(),
        "this system trusts no certificate authority; install the package ca-certificates, or set `broker.ca_file`"
    );
    Ok(roots)
}
