//! Reading what H.264 a viewer's offer can take, before the WebRTC stack sees it.
//!
//! The stack answers an offer without a common codec by rejecting the media line that carries the candidates, after which
//! nothing connects and nobody is told why. So the choice is made here, and a viewer without H.264 gets a sentence at once.

use crate::media::StreamFormat;

/// A payload type of the offer that can carry the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The `profile-level-id` to answer with: the offered profile, the stream's own level (RFC 6184, 8.2.2: the level may
    /// differ each way).
    pub profile_level_id: u32,
}

/// H.264 profiles that browsers know, each able to decode those named in [`Profile::decodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    High444Predictive,
}

impl Profile {
    /// Reads `profile_idc` and the constraint flags (RFC 6184, table 5).
    fn read([idc, flags, _]: [u8; 3]) -> Option<Self> {
        match (idc, flags) {
            (0x42, flags) if flags & 0x4f == 0x40 => Some(Self::ConstrainedBaseline),
            (0x4d, flags) if flags & 0x8f == 0x80 => Some(Self::ConstrainedBaseline),
            (0x42, flags) if flags & 0x4f == 0x00 => Some(Self::Baseline),
            (0x4d, flags) if flags & 0xaf == 0x00 => Some(Self::Main),
            (0x64, 0x0c) => Some(Self::ConstrainedHigh),
            (0x64, _) => Some(Self::High),
            (0xf4, 0x00) => Some(Self::High444Predictive),
            _ => None,
        }
    }

    /// Whether a decoder of this profile decodes a stream of `stream` (ITU-T H.264, A.2).
    fn decodes(self, stream: Self) -> bool {
        use Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, High444Predictive, Main};
        match self {
            ConstrainedBaseline => stream == ConstrainedBaseline,
            Baseline => matches!(stream, ConstrainedBaseline | Baseline),
            Main => matches!(stream, ConstrainedBaseline | Main),
            ConstrainedHigh => matches!(stream, ConstrainedBaseline | ConstrainedHigh),
            High => matches!(stream, ConstrainedBaseline | Main | ConstrainedHigh | High),
            High444Predictive => matches!(stream, ConstrainedBaseline | Main | ConstrainedHigh | High | High444Predictive),
        }
    }
}

/// Whether the viewer says when each packet arrived (transport-wide congestion control), from which the path is estimated.
pub fn reports_arrivals(sdp: &str) -> bool {
    sdp.lines()
        .any(|line| line.starts_with("a=extmap:") && line.contains("transport-wide-cc-extensions"))
}

/// Picks the offered H.264 payload type that suits the stream best: the same profile, else one whose decoder also decodes it.
///
/// # Errors
/// A sentence that says what the viewer offers and what the camera sends.
pub fn choose(sdp: &str, stream: StreamFormat) -> Result<Choice, String> {
    let offered = offered_h264(sdp);
    let sent = stream.profile_level_hex();
    if offered.is_empty() {
        return Err(
            "this browser offers no H.264 video, which is what the camera sends; use Chrome, Edge, Safari, or Firefox with its \
                    OpenH264 plugin switched on"
                .into(),
        );
    }
    let stream_profile = Profile::read(stream.profile_level_id);
    let candidates = offered.iter().filter_map(|&id| Some((Profile::read(id)?, id)));
    let best = stream_profile.and_then(|wanted| {
        candidates
            .filter(|(profile, _)| profile.decodes(wanted))
            .min_by_key(|(profile, _)| u8::from(*profile != wanted))
    });
    match best {
        Some((_, [idc, flags, _])) => Ok(Choice {
            profile_level_id: u32::from_be_bytes([0, idc, flags, stream.profile_level_id[2]]),
        }),
        None => {
            let offered: Vec<String> = offered
                .iter()
                .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect())
                .collect();
            Err(format!(
                "the camera sends H.264 with profile-level-id {sent}, and this browser decodes only {}; set the camera to Constrained \
                 Baseline, which every browser shows",
                offered.join(", ")
            ))
        }
    }
}

/// Whether a session that was agreed on for `agreed` may carry `now`: the same profile. The level may be another one in each direction
/// (`level-asymmetry-allowed=1`; RFC 6184, 8.2.2), and each key frame brings the parameter sets that tell it.
pub fn carries(agreed: StreamFormat, now: StreamFormat) -> bool {
    let profile = Profile::read(agreed.profile_level_id);
    profile.is_some() && profile == Profile::read(now.profile_level_id)
}

/// Whether who decodes a stream of `agreed` decodes `rung` too.
pub fn decodes(agreed: StreamFormat, rung: StreamFormat) -> bool {
    let profiles = Profile::read(agreed.profile_level_id).zip(Profile::read(rung.profile_level_id));
    profiles.is_some_and(|(agreed, rung)| agreed.decodes(rung))
}

/// How many candidates an offer holds.
pub fn candidates(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("a=candidate:")).count()
}

/// The `profile-level-id`s of every H.264 payload type with packetization-mode 1.
fn offered_h264(sdp: &str) -> Vec<[u8; 3]> {
    let h264: Vec<&str> = sdp
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("a=rtpmap:")?.split_once(' '))
        .filter(|(_, codec)| codec.to_ascii_uppercase().starts_with("H264/90000"))
        .map(|(payload_type, _)| payload_type)
        .collect();
    sdp.lines()
        .filter_map(|line| line.trim_end().strip_prefix("a=fmtp:")?.split_once(' '))
        .filter(|(payload_type, _)| h264.contains(payload_type))
        .filter_map(|(_, parameters)| {
            let value = |key: &str| {
                parameters
                    .split(';')
                    .filter_map(|pair| pair.trim().split_once('='))
                    .find(|(name, _)| *name == key)
                    .map(|(_, value)| value)
            };
            (value("packetization-mode") == Some("1")).then_some(())?;
            // Baseline, level 1: what RFC 6184 takes a missing id for.
            let id = u32::from_str_radix(value("profile-level-id").unwrap_or("42000a"), 16)
                .ok()?
                .to_be_bytes();
            (id[0] == 0).then_some([id[1], id[2], id[3]])
        })
        .collect()
}

/// The DTLS fingerprints of an offer, such as `sha-256 ab:cd`, each once: some write one a section, and some those of several hashes.
pub fn fingerprints(offer: &str) -> Vec<String> {
    let lines = offer.lines().filter_map(|line| line.trim().strip_prefix("a=fingerprint:"));
    let mut found: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether an answer has a video section that is not rejected and in which this device sends.
pub fn sends_video(answer: &str) -> bool {
    answer.split("\r\nm=").skip(1).any(|section| {
        let accepted = section.starts_with("video ") && !section.starts_with("video 0 ");
        accepted && section.lines().any(|line| line == "a=sendonly" || line == "a=sendrecv")
    })
}

/// The stack's answer as it is told to the viewer.
pub fn finish(answer: &str, stream: StreamFormat) -> String {
    declare_size(&place_candidates(answer), stream)
}

/// Moves the candidates to the first section that is not rejected. The stack writes them into the first one, which a viewer who
/// offers sound before the picture sees rejected, and ignores with all that is in it.
fn place_candidates(answer: &str) -> String {
    let is_candidate = |line: &str| line.starts_with("a=candidate:") || line == "a=end-of-candidates";
    let (mut lines, mut candidates) = (Vec::new(), Vec::new());
    let mut place = None;
    let (mut rejected, mut open) = (false, false);
    for line in answer.lines() {
        if line.starts_with("m=") {
            if open && place.is_none() {
                place = Some(lines.len());
            }
            rejected = line.split(' ').nth(1) == Some("0");
            open |= !rejected;
        }
        if rejected && is_candidate(line) {
            candidates.push(line);
        } else {
            lines.push(line);
        }
    }
    if open {
        let place = place.unwrap_or(lines.len());
        lines.splice(place..place, candidates);
    }
    lines.join("\r\n") + "\r\n"
}

/// Adds what the stream is to an answer's video section: its size (RFC 6236), which the stack doesn't write.
fn declare_size(answer: &str, stream: StreamFormat) -> String {
    let mut lines = Vec::new();
    let mut in_video = false;
    for line in answer.lines() {
        in_video = if line.starts_with("m=") {
            line.starts_with("m=video")
        } else {
            in_video
        };
        lines.push(line.to_owned());
        let payload_type = line.strip_prefix("a=rtpmap:").and_then(|rest| rest.split_once(' '));
        if let (true, Some((payload_type, codec))) = (in_video, payload_type)
            && codec.starts_with("H264/")
        {
            lines.push(format!("a=imageattr:{payload_type} send [x={},y={}]", stream.width, stream.height));
        }
    }
    lines.join("\r\n") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROMIUM: &str = "m=video 9 UDP/TLS/RTP/SAVPF 103 104 107 109 117\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:107 H264/90000\r\na=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f\r\n\
        a=rtpmap:109 H264/90000\r\na=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:117 H264/90000\r\na=fmtp:117 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f\r\n";

    fn stream(profile_level_id: [u8; 3]) -> StreamFormat {
        StreamFormat {
            width: 1280,
            height: 720,
            profile_level_id,
        }
    }

    #[test]
    fn the_same_profile_is_taken_with_the_streams_own_level() {
        assert_eq!(
            choose(CHROMIUM, stream([0x42, 0xc0, 0x28])),
            Ok(Choice {
                profile_level_id: 0x42_e0_28
            })
        );
        assert_eq!(
            choose(CHROMIUM, stream([0x4d, 0x00, 0x28])),
            Ok(Choice {
                profile_level_id: 0x4d_00_28
            })
        );
        assert_eq!(
            choose(CHROMIUM, stream([0x42, 0x00, 0x1f])),
            Ok(Choice {
                profile_level_id: 0x42_00_1f
            })
        );
    }

    #[test]
    fn another_level_is_carried_and_another_profile_is_not() {
        let baseline = stream([0x42, 0xe0, 0x1f]);
        for same in [[0x42, 0xe0, 0x28], [0x42, 0xc0, 0x1e], [0x42, 0xf0, 0x0b]] {
            assert!(carries(baseline, stream(same)), "{same:x?}");
        }
        for other in [[0x42, 0x00, 0x1f], [0x4d, 0x00, 0x1f], [0x64, 0x00, 0x1f], [0x7a, 0x00, 0x1f]] {
            assert!(!carries(baseline, stream(other)), "{other:x?}");
        }
        let unknown = stream([0x7a, 0x00, 0x1f]);
        assert!(!carries(unknown, unknown), "nobody could have agreed on it");
    }

    #[test]
    fn a_profile_that_no_offered_decoder_knows_is_refused_with_both_sides_named() {
        let error = choose(CHROMIUM, stream([0x64, 0x00, 0x28])).expect_err("High is not offered");
        assert!(
            error.contains("640028") && error.contains("42e01f") && error.contains("Constrained Baseline"),
            "{error}"
        );
        let with_high_444 = CHROMIUM.replace("4d001f", "f4001f");
        assert_eq!(
            choose(&with_high_444, stream([0x64, 0x00, 0x28])),
            Ok(Choice {
                profile_level_id: 0xf4_00_28
            })
        );
    }

    #[test]
    fn an_offer_without_h264_is_refused() {
        let error = choose(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n",
            stream([0x42, 0xe0, 0x1f]),
        )
        .expect_err("no H.264");
        assert!(error.contains("H.264"), "{error}");
        let mode_0_only = "a=rtpmap:107 H264/90000\r\na=fmtp:107 packetization-mode=0;profile-level-id=42e01f\r\n";
        choose(mode_0_only, stream([0x42, 0xe0, 0x1f])).expect_err("packetization-mode 1 is needed");
    }

    #[test]
    fn fingerprints_are_read_whatever_their_case_and_number() {
        let offer = "a=fingerprint:sha-256 AB:CD\r\na=fingerprint:sha-512 00:11\r\na=fingerprint:SHA-256 ab:cd\r\n";
        assert_eq!(fingerprints(offer), ["sha-256 ab:cd", "sha-512 00:11"]);
        assert!(fingerprints("v=0\r\n").is_empty());
    }

    #[test]
    fn candidates_stand_where_the_viewer_looks_for_them() {
        let candidate = "a=candidate:1 1 udp 1 192.0.2.1 8555 typ host\r\n";
        let [audio, video, data] = [
            "m=audio 0 X 0\r\na=mid:0\r\n",
            "m=video 9 X 96\r\na=mid:1\r\n",
            "m=application 9 X y\r\n",
        ];
        let answer = format!("v=0\r\n{audio}{candidate}{video}{data}");
        assert_eq!(place_candidates(&answer), format!("v=0\r\n{audio}{video}{candidate}{data}"));
        let usual = format!("v=0\r\n{video}{candidate}{data}");
        assert_eq!(place_candidates(&usual), usual);
    }

    #[test]
    fn the_answer_tells_the_size() {
        let answer = declare_size(
            "v=0\r\nm=video 9 X 96\r\na=rtpmap:96 H264/90000\r\na=mid:0\r\n",
            stream([0x42, 0xe0, 0x1f]),
        );
        assert!(
            answer.contains("a=rtpmap:96 H264/90000\r\na=imageattr:96 send [x=1280,y=720]\r\n"),
            "{answer}"
        );
    }
}
