//! The WebRTC stack (str0m), set up for one job: sending one H.264 stream with a data channel beside it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::rtp::Extension;
use str0m::{Candidate, Rtc, RtcConfig};

use super::offer::Choice;
use super::seam::{Reflexive, Relayed, Setup};
use crate::media::Bitrate;

/// How long a sent packet can be asked for again. A retransmission that comes later than this has missed its picture.
const RTX_AGE: Duration = Duration::from_secs(1);

/// Packets kept for retransmission: [`RTX_AGE`] of 2.5 Mbit/s, with room for a key frame.
const RTX_PACKETS: usize = 512;

/// Share of the sent bytes that may be retransmissions before they are dropped: beyond it they feed the congestion.
const RTX_SHARE: f32 = 0.25;

/// Characters of a viewer's ICE user name fragment. Browsers have 4 to 8. RFC 8839 allows 256, but the stack panics when it and its
/// own, which has 16, do not fit into the 128 bytes that it has for a STUN user name.
const MAX_UFRAG: usize = 100;

/// A new stack that sends H.264 as chosen, and estimates the path from `start_bitrate` on if there is one.
pub fn build(certificate: &DtlsCert, choice: Choice, start_bitrate: Option<Bitrate>, now: Instant) -> Rtc {
    let mut config = RtcConfig::new()
        .set_crypto_provider(std::sync::Arc::new(str0m::crypto::from_feature_flags()))
        .set_dtls_cert(certificate.clone())
        .set_rtp_mode(true)
        .clear_codecs()
        .set_stats_interval(Some(Duration::from_secs(1)))
        .enable_bwe(start_bitrate.map(|bitrate| str0m::bwe::Bitrate::bps(bitrate.as_bps())))
        // There is a picture to send thirty times a second: nothing has to keep the path open beside it.
        .set_automatic_padding(false)
        .set_extension(10, Extension::PlayoutDelay)
        .set_extension(11, Extension::AbsoluteCaptureTime);
    config
        .codec_config()
        .add_h264(96.into(), Some(97.into()), true, choice.profile_level_id);
    // On a LAN the first check is answered in a millisecond; a lost one need not cost the default quarter of a second.
    config.set_initial_stun_rto(Duration::from_millis(100));
    config.build(now)
}

/// Accepts an offer and returns the answer's SDP.
///
/// # Errors
/// A sentence that says what is wrong with the offer.
pub fn accept(rtc: &mut Rtc, sdp: &str, locals: &[Candidate]) -> Result<String, String> {
    let mut ufrags = sdp.lines().filter_map(|line| line.trim().strip_prefix("a=ice-ufrag:"));
    if let Some(long) = ufrags.find(|ufrag| ufrag.len() > MAX_UFRAG) {
        return Err(format!(
            "the offer's ice-ufrag has {} characters; at most {MAX_UFRAG} are taken",
            long.len()
        ));
    }
    // What the parser says is for its makers, and holds addresses of this process.
    let offer = SdpOffer::from_sdp_string(sdp).map_err(|_| "the offer is not SDP")?;
    for candidate in locals {
        rtc.add_local_candidate(candidate.clone());
    }
    let answer = rtc
        .sdp_api()
        .accept_offer(offer)
        .map_err(|error| format!("the offer can't be answered: {error}"))?;
    Ok(answer.to_sdp_string())
}

impl Setup<'_> {
    /// What the viewer is told of at once.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let preferences = self.locals.iter().enumerate().map(|(index, address)| {
            let before = self.locals[..index]
                .iter()
                .filter(|other| other.is_ipv4() == address.is_ipv4())
                .count();
            // In turns, IPv6 first (RFC 8421).
            FIRST_HOST.saturating_sub(2 * before as u16 + u16::from(address.is_ipv4()))
        });
        let hosts = self.locals.iter().copied().zip(preferences);
        let hosts = hosts.flat_map(|(address, preference)| self::hosts(address, self.tcp_port, preference));
        let reflexive = self.reflexive.iter().copied().filter_map(reflexive);
        let relayed = self.relayed.iter().copied().filter_map(relayed);
        hosts.chain(reflexive).chain(relayed).collect()
    }
}

/// How the first of this device's own addresses is preferred. Those that it gets later are above it, each one higher than the one before:
/// browsers check no way that they would not prefer to the one that they use, until they notice, after 2.5 s, that nothing comes over that.
pub const FIRST_HOST: u16 = 1 << 15;

/// The candidates for an address of this device itself: by UDP, and where viewers may connect to a port by TCP.
pub fn hosts(address: SocketAddr, tcp_port: Option<u16>, preference: u16) -> impl Iterator<Item = Candidate> {
    let passive = tcp_port.and_then(|port| {
        let address = SocketAddr::new(address.ip(), port);
        // Below every way by UDP that is no relay's; for one that waits to be connected to, 4 stands in front of 13 bits (RFC 6544, 4.2).
        let among_ours = preference.saturating_sub(FIRST_HOST - (1 << 12)).min((1 << 13) - 1);
        from_text("host", "tcp", 90, (4 << 13) | among_ours, address, " tcptype passive")
    });
    from_text("host", "udp", 126, preference, address, "").into_iter().chain(passive)
}

/// The candidate for an address that a STUN server sees. Its base is not told to viewers.
pub fn reflexive(reflexive: Reflexive) -> Option<Candidate> {
    Candidate::server_reflexive(reflexive.address, reflexive.base, "udp").ok()
}

/// The candidate for an address at a TURN server, if it is one that a viewer can use.
pub fn relayed(Relayed { address, preference }: Relayed) -> Option<Candidate> {
    // Which address of ours is related to it is nobody's business (RFC 8839, 5.1).
    let related = if address.is_ipv4() {
        " raddr 0.0.0.0 rport 0"
    } else {
        " raddr :: rport 0"
    };
    // The stack's own type preference; RFC 8445, 5.1.2.1, allows 0 to 126.
    from_text("relay", "udp", 2, preference, address, related)
}

/// The stack takes a priority from text alone. There is one component only.
fn from_text(kind: &str, transport: &str, of_kind: u32, preference: u16, address: SocketAddr, more: &str) -> Option<Candidate> {
    let priority = of_kind << 24 | u32::from(preference) << 8 | 255;
    let (ip, port) = (address.ip(), address.port());
    let line = format!("candidate:{kind}{transport}{preference} 1 {transport} {priority} {ip} {port} typ {kind}{more}");
    Candidate::from_sdp_string(&line).ok()
}

/// Bounds the retransmission cache of the stream that is sent on `mid`.
pub fn bound_rtx(rtc: &mut Rtc, mid: str0m::media::Mid) {
    if let Some(stream) = rtc.direct_api().stream_tx_by_mid(mid, None) {
        stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, Some(RTX_SHARE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_tcp_viewers_connect_to_us_and_only_where_udp_does_not_work() {
        let address: SocketAddr = "192.0.2.1:8555".parse().expect("an address");
        let lines = |preference| -> Vec<Candidate> { hosts(address, Some(8_556), preference).collect() };
        assert_eq!(hosts(address, None, FIRST_HOST).count(), 1);
        let [udp, tcp] = &lines(FIRST_HOST)[..] else {
            panic!("two candidates")
        };
        let line = tcp.to_sdp_string();
        assert!(
            line.contains(" tcp ") && line.contains("192.0.2.1 8556 typ host tcptype passive"),
            "{line}"
        );
        assert!(udp.to_sdp_string().contains(" udp ") && udp.prio() > tcp.prio());
        let outside = reflexive(Reflexive {
            address: "203.0.113.1:1".parse().expect("an address"),
            base: address,
        });
        assert!(
            outside.expect("a candidate").prio() > tcp.prio(),
            "a way by UDP through a router too is better"
        );
        let relay = relayed(Relayed {
            address: "203.0.113.1:2".parse().expect("an address"),
            preference: u16::MAX,
        });
        assert!(relay.expect("a candidate").prio() < tcp.prio(), "but no relay is needed");
        assert!(
            lines(FIRST_HOST + 1)[1].prio() > tcp.prio(),
            "an address that is newer is preferred"
        );
    }
}
