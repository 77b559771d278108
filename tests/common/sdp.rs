//! Offers as a browser writes them, for tests that need no picture.

use serde_json::{Value, json};

/// An offer of Chromium's kind: one video to receive, in H.264 and VP8, and a data channel.
pub fn offer() -> String {
    with_codecs(&[
        ("96", "VP8/90000", None),
        (
            "103",
            "H264/90000",
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
        ),
        (
            "109",
            "H264/90000",
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
        ),
        (
            "117",
            "H264/90000",
            Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f"),
        ),
    ])
}

/// The ports of the host candidates in a description.
pub fn candidate_ports(sdp: &str) -> std::collections::BTreeSet<u16> {
    let candidates = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    candidates
        .map(|line| {
            line.split(' ')
                .nth(5)
                .and_then(|port| port.parse().ok())
                .expect("a candidate has a port")
        })
        .collect()
}

/// The same of a browser without H.264.
pub fn offer_without_h264() -> String {
    with_codecs(&[("96", "VP8/90000", None), ("98", "VP9/90000", Some("profile-id=0"))])
}

/// As players for the web write it: sound before the picture, and no data channel.
pub fn offer_of_a_player() -> String {
    let whole = offer();
    let (session, sections) = whole.split_once("m=video").expect("a video section");
    let (video, _) = sections.split_once("m=application").expect("a data channel");
    let transport = video.lines().filter(|line| {
        ["c=", "a=ice", "a=fingerprint", "a=setup"]
            .iter()
            .any(|transport| line.starts_with(transport))
    });
    let transport: String = transport.map(|line| format!("{line}\r\n")).collect();
    format!(
        "{session}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{transport}a=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video{}",
        video.replace("a=mid:0", "a=mid:1")
    )
}

/// The parameters of `session.offer`, in answer to the reply of `hello`.
pub fn offer_params(hello: &Value, sdp: &str) -> Value {
    let clock_ms = hello["clock_ms"].as_u64().expect("hello tells the device's clock");
    json!({ "nonce": hello["nonce"], "expires_ms": clock_ms + 15_000, "sdp": sdp })
}

fn with_codecs(codecs: &[(&str, &str, Option<&str>)]) -> String {
    let types: Vec<&str> = codecs.iter().map(|(payload_type, ..)| *payload_type).collect();
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:Zq3x\r\na=ice-pwd:8Mh2pQ5rT7wYbC1dF4gJ6kLn\r\na=ice-options:trickle\r\n\
        a=fingerprint:sha-256 12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0:12:34:56:78:9A:BC:DE:F0\r\n\
        a=setup:actpass\r\n";
    let mut sdp = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        a=msid-semantic: WMS\r\n"
        .to_owned();
    sdp += &format!("m=video 9 UDP/TLS/RTP/SAVPF {}\r\n{transport}", types.join(" "));
    sdp += "a=rtcp:9 IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n";
    for (payload_type, codec, parameters) in codecs {
        sdp += &format!("a=rtpmap:{payload_type} {codec}\r\na=rtcp-fb:{payload_type} nack\r\na=rtcp-fb:{payload_type} nack pli\r\n");
        if let Some(parameters) = parameters {
            sdp += &format!("a=fmtp:{payload_type} {parameters}\r\n");
        }
    }
    sdp += &format!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}");
    sdp += "a=mid:1\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";
    sdp
}
