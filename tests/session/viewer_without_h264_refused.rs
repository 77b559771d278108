use std::sync::Arc;
use std::time::Instant;

use peercam::protocol::ErrorCode;
use str0m::RtcConfig;

use super::setup::{answer, offer};

#[test]
fn a_viewer_without_h264_is_told_so_at_once() {
    let now = Instant::now();
    let viewer = RtcConfig::new()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_vp8(true);
    let (_, sdp, ..) = offer(now, viewer);
    let error = answer(&sdp, now, "192.0.2.10:5000".parse().expect("an address"))
        .map(|_| ())
        .expect_err("VP8 is not what the camera sends");
    assert_eq!(error.code, ErrorCode::UnsupportedCodec.number());
    assert!(error.message.contains("H.264"), "{}", error.message);
}

#[test]
fn what_is_no_offer_is_refused_in_words() {
    for rubbish in [
        "",
        "hello",
        "v=0\r\n",
        "m=video 9 X 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f",
    ] {
        let error = answer(rubbish, Instant::now(), "192.0.2.10:5000".parse().expect("an address"))
            .map(|_| ())
            .expect_err("no offer");
        assert!(!error.message.is_empty());
    }
}
