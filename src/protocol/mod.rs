//! Wire types: what travels between a device and its viewers, whatever carries it.
//!
//! Every message is JSON-RPC 2.0. `docs/protocol.md` is the description for people who write their own viewer.

mod camera;
mod error;
mod jsonrpc;
mod session;
mod status;
mod topic;

pub use crate::media::Quality;

pub use camera::{CameraGet, CameraSet, CameraState};
pub use error::{ErrorCode, RpcError};
pub use jsonrpc::{Id, Message, Notification, Reply, Request, params};
pub use session::{
    Candidates, Clock, Close, DeviceInfo, Hello, HelloReply, IceServer, Limits, Offer, OfferReply, Playout, QualityInfo, QualityReply,
    SessionQuality, SessionStats, StreamInfo, SystemInfo, TransportPolicy,
};
pub use status::{Status, StreamState, StreamStatus};
pub use topic::{DeviceId, Door, PeerId, Topics};

/// The protocol's version: a device and a page that know the same number understand each other.
pub const VERSION: u32 = 1;

/// The largest message, in bytes of JSON, that a device reads from anybody.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Values in one message at most, counting those within others. Read, one takes up to 700 bytes, however few it has in the message.
/// An offer has ten, and 300 candidates in one message have about as many.
pub const MAX_MESSAGE_VALUES: usize = 1_024;

/// What a peer may do. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Watch.
    View,
    /// Steer the camera and what hangs on the device.
    Control,
    /// Invite, revoke, update.
    Admin,
}

/// A message together with who sent it and what they may do: what every carrier hands over, and the only thing that is dispatched.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who sent it.
    pub peer: PeerId,
    /// What they may do, as of this message.
    pub role: Role,
    /// What they said.
    pub message: Message,
}
