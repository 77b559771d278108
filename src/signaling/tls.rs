//! TLS to the broker.

use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Broker;
use crate::tls;

/// The TLS configuration that `[broker]` asks for: the system's roots unless `ca_file` names others, and a client
/// certificate where one is given.
///
/// # Errors
/// A file can't be read or holds no certificate: with the file named.
pub fn client_config(broker: &Broker) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = tls::client(broker.ca_file.as_deref(), "broker.ca_file")?;
    let config = match (&broker.client_cert_file, &broker.client_key_file) {
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the client key {}", key.display()))?;
            builder
                .with_client_auth_cert(tls::certificates(certificate)?, private)
                .context("using the client certificate")?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
