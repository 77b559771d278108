//! Who we are to a TURN server.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;

/// How a TURN server is told who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// As agreed with the server's owner.
    Static { username: String, password: String },
    /// Made from a secret that the server knows too, good for `lifetime` (draft-uberti-behave-turn-rest; coturn's `static-auth-secret`).
    Shared { secret: String, name: String, lifetime: Duration },
}

/// What goes into the messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    pub username: String,
    pub password: String,
}

impl Credentials {
    /// User name and password, as of now. `wall` has to be right where they are made from a secret.
    #[must_use]
    pub fn mint(&self, wall: SystemTime) -> Minted {
        match self {
            Self::Static { username, password } => Minted {
                username: username.clone(),
                password: password.clone(),
            },
            Self::Shared { secret, name, lifetime } => {
                let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let username = format!("{}:{name}", (since + *lifetime).as_secs());
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
                let tag = hmac::sign(&key, username.as_bytes());
                Minted {
                    password: base64::engine::general_purpose::STANDARD.encode(tag),
                    username,
                }
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Static { .. } => "Static",
            Self::Shared { .. } => "Shared",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_makes_what_coturn_expects() {
        let credentials = Credentials::Shared {
            secret: "north".into(),
            name: "peercam".into(),
            lifetime: Duration::from_secs(3600),
        };
        let minted = credentials.mint(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(minted.username, "1700003600:peercam");
        // printf %s 1700003600:peercam | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(minted.password, "xGTTRgy8MwjpcZe5M6jgDjCif9M=");
        assert_eq!(format!("{credentials:?}"), "Shared", "no secret in a log");
    }
}
