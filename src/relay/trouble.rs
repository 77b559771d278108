//! What stands in the way at a TURN server, in words.

use std::time::Duration;

/// Why there is no allocation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The way to it could not be opened, or broke.
    #[error("{0}")]
    Closed(String),
    #[error("it does not answer; is the address right, and does a firewall let it through?")]
    Silent,
    #[error("it does not take our name and password; compare them with the server's")]
    Credentials,
    #[error("it gives this user no more allocations (486); raise the server's quota, or wait until old ones have ended")]
    Quota,
    #[error("it has no port left (508); widen the server's port range")]
    Capacity,
    #[error("it does not relay to addresses of this kind (440)")]
    Family,
    #[error("it does not relay over UDP (442)")]
    Transport,
    #[error("it does not serve us (403)")]
    Forbidden,
    /// It was restarted, or took the allocation back.
    #[error("it has forgotten us, and is asked anew")]
    Forgotten,
    #[error("it speaks no TURN; is this the right port?")]
    Garbled,
    #[error("it cannot be used: {0}")]
    Unfit(String),
    #[error("it refused with {code} {reason}")]
    Other { code: u16, reason: String },
}

impl Trouble {
    /// What an error code says (RFC 8656, 19; RFC 8489, 14.8).
    pub(super) fn refused(code: u16, reason: String) -> Self {
        match code {
            401 | 441 => Self::Credentials,
            403 => Self::Forbidden,
            440 | 443 => Self::Family,
            442 => Self::Transport,
            486 => Self::Quota,
            508 => Self::Capacity,
            _ => Self::Other { code, reason },
        }
    }

    /// How long it is no use to try again: until somebody has changed a setting, or something has had time to end.
    pub(super) fn least_pause(&self) -> Duration {
        match self {
            Self::Closed(_) | Self::Silent | Self::Forgotten => Duration::ZERO,
            Self::Other { .. } | Self::Capacity | Self::Garbled => Duration::from_secs(5),
            Self::Quota | Self::Credentials | Self::Forbidden | Self::Transport | Self::Unfit(_) => Duration::from_secs(15),
            Self::Family => Duration::from_secs(300),
        }
    }
}
