//! Parameters and results of the `session.*` and `system.*` methods.

use serde::{Deserialize, Serialize};

use crate::media::Quality;

/// `session.hello`: the first word of a viewer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The highest protocol version the viewer speaks.
    pub version: u32,
}

/// The reply to [`Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version both speak.
    pub version: u32,
    pub device: DeviceInfo,
    /// Every method this device understands.
    pub methods: Vec<String>,
    /// To be given back in [`Offer::nonce`].
    pub nonce: String,
    /// The device's own clock, in milliseconds since it started; [`Offer::expires_ms`] is read against it.
    pub clock_ms: u64,
    pub ice_servers: Vec<IceServer>,
    pub ice_transport_policy: TransportPolicy,
    pub streams: Vec<StreamInfo>,
    pub limits: Limits,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    pub id: String,
    pub name: String,
    /// Software version.
    pub software: String,
}

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// `RTCConfiguration.iceTransportPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportPolicy {
    All,
    Relay,
}

/// A stream a viewer can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    pub name: String,
    /// Pixels; absent while the camera has not shown a picture yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// As in SDP, such as `42e01f`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_level_id: Option<String>,
    /// The rungs that it can be had in now, the high one first.
    #[serde(default)]
    pub qualities: Vec<QualityInfo>,
}

/// A rung of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityInfo {
    pub quality: Quality,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// What the device bears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Viewers at once.
    pub viewers: u32,
    /// The largest message in bytes.
    pub message_bytes: usize,
}

/// `session.offer`: a new session, or, with `session`, an ICE restart of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// From [`HelloReply::nonce`].
    pub nonce: String,
    /// The device's clock after which the offer is worthless, in milliseconds as in [`HelloReply::clock_ms`].
    pub expires_ms: u64,
    pub sdp: String,
    /// The session to restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The stream's name; the first one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(default)]
    pub playout: Playout,
    /// The rung to begin with.
    #[serde(default)]
    pub quality: Quality,
}

/// What a viewer prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Playout {
    /// Shown at once: playout-delay 0.
    #[default]
    Realtime,
    /// With the browser's own jitter buffer.
    Smooth,
}

/// The reply to [`Offer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferReply {
    pub session: String,
    pub sdp: String,
    /// What the viewer is shown; not always what was wished for.
    #[serde(default)]
    pub quality: Quality,
}

/// `session.quality`: another rung of the stream that a session shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionQuality {
    pub session: String,
    pub quality: Quality,
}

/// The reply to [`SessionQuality`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityReply {
    /// What the viewer is shown from its next key frame on; not always what was wished for.
    pub quality: Quality,
}

/// `session.candidates`, both ways: trickled ICE candidates. An empty list ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    pub session: String,
    /// `candidate:…` lines (RFC 8839, 5.1), without `a=`. All belong to the one bundled transport.
    pub candidates: Vec<String>,
}

/// `session.close`, both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Close {
    pub session: String,
    /// A sentence for people.
    pub reason: String,
}

/// The result of `session.clock` over the data channel, from which a viewer learns how far the clocks are apart
/// (NTP's four stamps, RFC 5905: the viewer has the other two).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// When the request came, on the clock of abs-capture-time: milliseconds since 1970, with fractions.
    pub received_ms: f64,
    /// When the reply went.
    pub sent_ms: f64,
}

/// `session.stats`, device → viewer over the data channel, once a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStats {
    /// What congestion control believes the path carries, in bits a second; absent until the first estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_bps: Option<u64>,
    /// What the encoder is asked for, in bits a second.
    pub target_bps: u64,
    /// Pictures that were dropped for this viewer because its path was full.
    pub dropped: u64,
    /// The rung that the viewer is shown.
    #[serde(default)]
    pub quality: Quality,
    /// It is the low one because the path carries no more.
    #[serde(default)]
    pub limited: bool,
}

/// The result of `system.info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    pub device: DeviceInfo,
    /// Seconds since the agent started.
    pub uptime_secs: u64,
    pub viewers: u32,
    /// Why the running configuration is not the one on disk, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
}
