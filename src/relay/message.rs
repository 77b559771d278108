//! TURN messages: what we ask, and what a server answers (RFC 8489, RFC 8656).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use stun_proto::auth::LongTermClientAuth;
use stun_types::attribute::{ErrorCode, XorMappedAddress};
use stun_types::message::{Message, MessageClass, MessageWrite as _, MessageWriteExt as _, MessageWriteVec, StunWriteError, TransactionId};
use stun_types::prelude::AttributeStaticType as _;
use turn_types::attribute::{ChannelNumber, Data, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND};

use super::Family;
use super::transaction::Ask;

/// What we ask an allocation to last; it is refreshed long before.
const LIFETIME: Duration = Duration::from_secs(600);

/// A request as it goes over the wire.
pub struct Written {
    pub id: TransactionId,
    pub bytes: Vec<u8>,
    /// Whether it proves who we are.
    pub signed: bool,
}

/// Writes a request, signed as far as the server has told how.
///
/// # Errors
/// The server's realm or nonce is longer than a message may have them.
pub fn write(ask: Ask, family: Family, auth: &mut LongTermClientAuth) -> Result<Written, StunWriteError> {
    let method = match ask {
        Ask::Allocate => ALLOCATE,
        Ask::Refresh | Ask::Free => REFRESH,
        Ask::Permission(_) => CREATE_PERMISSION,
        Ask::Channel(..) => CHANNEL_BIND,
    };
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let id = Message::from_bytes(message.data()).map_or(TransactionId::from(0), |message| message.transaction_id());
    match ask {
        Ask::Allocate => {
            message.add_attribute(&RequestedTransport::new(RequestedTransport::UDP))?;
            // Without it a server gives IPv4, and older ones do not know it.
            if family == Family::V6 {
                message.add_attribute(&RequestedAddressFamily::new(stun_types::AddressFamily::IPV6))?;
            }
            message.add_attribute(&lifetime(LIFETIME))?;
        }
        Ask::Refresh => message.add_attribute(&lifetime(LIFETIME))?,
        Ask::Free => message.add_attribute(&lifetime(Duration::ZERO))?,
        // The port means nothing here.
        Ask::Permission(ip) => message.add_attribute(&XorPeerAddress::new(SocketAddr::new(ip, 0), id))?,
        Ask::Channel(peer, number) => {
            message.add_attribute(&ChannelNumber::new(number))?;
            message.add_attribute(&XorPeerAddress::new(peer, id))?;
        }
    }
    let mut message = auth.sign_outgoing_message(message)?;
    let signed = message.has_attribute(stun_types::attribute::MessageIntegrity::TYPE)
        || message.has_attribute(stun_types::attribute::MessageIntegritySha256::TYPE);
    message.add_fingerprint()?;
    Ok(Written {
        id,
        bytes: message.finish(),
        signed,
    })
}

fn lifetime(duration: Duration) -> Lifetime {
    Lifetime::new(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX))
}

/// A Send indication with `payload` for `peer`; `None` if it is too long for one.
pub fn send_indication(peer: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    /// Of the other attributes, with room.
    const BESIDE: usize = 64;
    if payload.len() > usize::from(u16::MAX) - BESIDE {
        return None;
    }
    let mut message = Message::builder_indication(SEND, MessageWriteVec::new());
    let id = Message::from_bytes(message.data()).ok()?.transaction_id();
    message.add_attribute(&XorPeerAddress::new(peer, id)).ok()?;
    message.add_attribute(&Data::new(payload)).ok()?;
    Some(message.finish())
}

/// Gives `each` the sender and payload of a Data indication; `false` if `message` is none.
pub fn data_indication(message: &Message<'_>, each: impl FnOnce(SocketAddr, &[u8])) -> bool {
    if !message.has_class(MessageClass::Indication) || !message.has_method(DATA) {
        return false;
    }
    let peer = message
        .attribute::<XorPeerAddress>()
        .ok()
        .map(|peer| peer.addr(message.transaction_id()));
    if let (Some(peer), Ok(data)) = (peer, message.attribute::<Data<'_>>()) {
        each(peer, data.data());
    }
    true
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// With [`Ask::Allocate`], and without the addresses if the server forgot them.
    Done(Granted),
    Refused {
        code: u16,
        reason: String,
    },
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Granted {
    pub relayed: Option<SocketAddr>,
    /// Where the server sees us: a server-reflexive address.
    pub mapped: Option<SocketAddr>,
    pub lifetime: Option<Duration>,
}

impl Answer {
    /// `None` for what is no answer, or a broken one.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let id = message.transaction_id();
        if message.has_class(MessageClass::Error) {
            let error = message.attribute::<ErrorCode>().ok()?;
            return Some(Self::Refused {
                code: error.code(),
                reason: error.reason().chars().filter(|c| !c.is_control()).take(100).collect(),
            });
        }
        message.has_class(MessageClass::Success).then(|| {
            Self::Done(Granted {
                relayed: message.attribute::<XorRelayedAddress>().ok().map(|address| address.addr(id)),
                mapped: message.attribute::<XorMappedAddress>().ok().map(|address| address.addr(id)),
                lifetime: message
                    .attribute::<Lifetime>()
                    .ok()
                    .map(|lifetime| Duration::from_secs(lifetime.seconds().into())),
            })
        })
    }
}

/// Whether `ip` is one that a peer can have.
pub fn is_peer(ip: IpAddr, family: Family) -> bool {
    let right = match family {
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    };
    right && !ip.is_unspecified() && !ip.is_multicast()
}
