//! Why there is no connection to the broker, in words that say what to do.

use std::error::Error;
use std::io::{self, ErrorKind};

use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
use rustls::{AlertDescription, CertificateError};

use crate::config::{Broker, BrokerScheme};

/// A sentence for people about `error`, which ended or prevented the connection to `broker`.
#[must_use]
pub fn sentence(error: &ConnectionError, broker: &Broker) -> String {
    if let Some(tls) = tls_error(error) {
        return about_tls(tls, broker);
    }
    match error {
        ConnectionError::ConnectionRefused(code) | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            about_refusal(*code, broker)
        }
        ConnectionError::Timeout(_) => "the broker does not answer in time; is broker.url right, and is a firewall between?".into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker has fallen silent".into(),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => {
            let reason = reason_string.clone().unwrap_or_else(|| format!("{reason_code:?}"));
            format!("the broker sent us away: {reason}")
        }
        ConnectionError::MqttState(StateError::Deserialization(unread)) if io_error(error).is_none() => {
            format!("what answers does not speak MQTT 5 ({unread}); is the scheme of broker.url the one of this port?")
        }
        ConnectionError::Websocket(error) if io_error(error).is_none() => {
            format!("what answers at broker.url is no WebSocket listener of a broker ({error}); are its port and path right?")
        }
        ConnectionError::ResponseValidation(error) => {
            format!("what answers at broker.url speaks WebSocket but not MQTT ({error}); are its port and path right?")
        }
        _ => match io_error(error) {
            Some(io) => about_io(io, broker),
            None => error.to_string(),
        },
    }
}

fn about_refusal(code: ConnectReturnCode, broker: &Broker) -> String {
    match (code, &broker.username) {
        (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized, Some(_)) => {
            "the broker refuses us: wrong user name or password; look at broker.username and broker.password_file".into()
        }
        (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized, None) => {
            "the broker wants to know who we are: set broker.username and broker.password_file".into()
        }
        (ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion, _) => {
            "the broker does not speak MQTT 5; use one that does, such as mosquitto 1.6 or newer".into()
        }
        (code, _) => format!("the broker refuses us: {code:?}"),
    }
}

fn about_tls(error: &rustls::Error, broker: &Broker) -> String {
    let trust = || match &broker.ca_file {
        Some(file) => format!(
            "the broker's certificate is not trusted: no authority in {} (broker.ca_file) has signed it",
            file.display()
        ),
        None => "the broker's certificate is not trusted: set broker.ca_file to the certificate of the authority that signed it".into(),
    };
    match error {
        // A signature that fails is what an authority of the same name with another key looks like.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => trust(),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the broker's certificate has expired; if it has not, this machine's clock is wrong".into()
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the broker's certificate is not valid yet; most likely this machine's clock is wrong".into()
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            let host = broker.url.as_ref().map(|url| url.host.as_str()).unwrap_or_default();
            format!("the broker's certificate is not for {host}; write into broker.url a name or address that the certificate holds")
        }
        rustls::Error::InvalidCertificate(other) => format!("the broker's certificate can't be used: {other}"),
        rustls::Error::AlertReceived(alert) if broker.client_cert_file.is_some() => {
            format!("the broker ends the TLS handshake ({alert:?}); does it trust broker.client_cert_file?")
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "the broker asks for a client certificate: set broker.client_cert_file and broker.client_key_file".into()
        }
        rustls::Error::InvalidMessage(_) => {
            "the broker does not speak TLS at this port; is the scheme or the port of broker.url wrong?".into()
        }
        other => format!("no TLS connection to the broker: {other}"),
    }
}

fn about_io(error: &io::Error, broker: &Broker) -> String {
    let scheme = broker.url.as_ref().map(|url| url.scheme);
    match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there; does the broker run, and is the port of broker.url right?".into(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => match scheme {
            Some(BrokerScheme::Tls | BrokerScheme::Wss) => {
                "the broker closed the connection; if it never says more than that, it may ask for a client certificate, or not speak TLS at \
                 this port"
                    .into()
            }
            Some(BrokerScheme::Tcp | BrokerScheme::Ws) | None => {
                "the broker closed the connection; if it never says more than that, is the scheme of broker.url the one of this port?".into()
            }
        },
        _ => error.to_string(),
    }
}

/// The first error of this kind in the chain of causes.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

/// An error and its causes, outermost first; also those that `source` passes over: what an [`io::Error`] wraps, and what kept
/// the MQTT client from reading a packet.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        if let Some(StateError::Deserialization(unread)) = error.downcast_ref() {
            return Some(unread);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_however_deep_it_lies() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let deep = io::Error::other(io::Error::new(ErrorKind::InvalidData, tls.clone()));
        assert_eq!(tls_error(&ConnectionError::Io(deep)), Some(&tls));
        let state = ConnectionError::MqttState(StateError::Io(io::Error::new(ErrorKind::InvalidData, tls.clone())));
        assert_eq!(tls_error(&state), Some(&tls));
        let plain = ConnectionError::Io(ErrorKind::ConnectionRefused.into());
        assert_eq!(io_error(&plain).map(io::Error::kind), Some(ErrorKind::ConnectionRefused));
        assert_eq!(tls_error(&plain), None);
    }
}
