//! How a viewer and a device come together: offers, answers, certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peercam::media::{Bitrate, Quality};
use peercam::protocol::{PeerId, Playout, Role, RpcError};
use peercam::session::{Session, Setup, WallClock};
use str0m::config::DtlsCert;
use str0m::media::{Direction, MediaKind};
use str0m::{Candidate, Rtc, RtcConfig};

use super::film;

/// A viewer's offer of a picture and a data channel, and the viewer that made it.
pub fn offer(now: Instant, viewer: RtcConfig) -> (Rtc, String, str0m::change::SdpPendingOffer, SocketAddr) {
    offer_of(now, viewer, &[MediaKind::Video], Some("control"))
}

/// The same for whatever is wanted, in this order.
pub fn offer_of(
    now: Instant,
    viewer: RtcConfig,
    wanted: &[MediaKind],
    channel: Option<&str>,
) -> (Rtc, String, str0m::change::SdpPendingOffer, SocketAddr) {
    let address: SocketAddr = "192.0.2.20:4000".parse().expect("an address");
    let mut viewer = viewer.build(now);
    viewer.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
    let mut change = viewer.sdp_api();
    for kind in wanted {
        change.add_media(*kind, Direction::RecvOnly, None, None, None);
    }
    if let Some(label) = channel {
        change.add_channel(label.into());
    }
    let (offer, pending) = change.apply().expect("an offer");
    (viewer, offer.to_sdp_string(), pending, address)
}

/// A viewer as browsers are: H.264, and the extensions that the device uses.
pub fn browser() -> RtcConfig {
    RtcConfig::new()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_h264(true)
        .set_extension(10, str0m::rtp::Extension::PlayoutDelay)
        .set_extension(11, str0m::rtp::Extension::AbsoluteCaptureTime)
}

/// Who watches.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The device's page.
    Browser,
    /// A player without data channel that knows no transport-wide feedback: to it the device neither probes nor pads.
    Player,
}

/// A viewer that gives no transport-wide feedback.
pub fn player() -> RtcConfig {
    browser()
        .clear_extension_map()
        .set_extension(9, str0m::rtp::Extension::RtpMid)
        .set_extension(10, str0m::rtp::Extension::PlayoutDelay)
        .set_extension(11, str0m::rtp::Extension::AbsoluteCaptureTime)
}

/// A device's answer to `sdp`.
pub fn answer(sdp: &str, now: Instant, device_address: SocketAddr) -> Result<(Session, String), RpcError> {
    answer_as("0123456789abcdef", &certificate(), sdp, now, device_address)
}

/// The same of a session and a certificate that the test chooses.
pub fn answer_as(
    id: &str,
    certificate: &DtlsCert,
    sdp: &str,
    now: Instant,
    device_address: SocketAddr,
) -> Result<(Session, String), RpcError> {
    let setup = Setup {
        id,
        peer: PeerId::parse("viewer").expect("a name"),
        role: Role::View,
        certificate,
        format: film::FORMAT,
        bitrate: Bitrate::kbps(2_500),
        high: Bitrate::kbps(2_500),
        quality: Quality::High,
        playout: Playout::Realtime,
        reflexive: &[],
        relayed: &[],
        locals: &[device_address],
        tcp_port: None,
    };
    Session::accept(setup, sdp, now)
}

/// A device's certificate.
pub fn certificate() -> DtlsCert {
    str0m::crypto::from_feature_flags()
        .dtls_provider
        .generate_certificate()
        .expect("a certificate")
}

/// The wall clock shows a round number at `start`.
pub fn clock(start: Instant) -> WallClock {
    WallClock {
        instant: start,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}
