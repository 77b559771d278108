//! RTP payloads of H.264 (RFC 6184, packetization-mode 1), made once and shared by every viewer.

use std::sync::Arc;

use super::annexb::{self, NalKind};

/// The largest RTP payload in bytes.
///
/// RTP header and extensions (about 40), RTX (2), the SRTP tag (16), a TURN indication (36 + 4), UDP and IPv6 (48) then fit a
/// path of 1,280 bytes, the least that IPv6 promises (RFC 8200, 5).
pub const MAX_PAYLOAD: usize = 1_080;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const NRI_MASK: u8 = 0x60;
const TYPE_MASK: u8 = 0x1f;
const START: u8 = 0x80;
const END: u8 = 0x40;

/// Cuts one Annex B access unit into RTP payloads of at most [`MAX_PAYLOAD`] bytes, in order.
///
/// Small NAL units in a row (SPS, PPS, SEI) share a STAP-A; a large one becomes FU-A fragments of equal size but for the
/// last, because the kernel's UDP segmentation wants equal datagrams. AUD and filler are left out: they carry no picture.
/// So are the types that H.264 leaves unspecified: RTP has other meanings for them (RFC 6184, table 1), so a receiver would
/// take their bytes for fragments of something else.
#[must_use]
pub fn packetize(access_unit: &[u8]) -> Vec<Arc<[u8]>> {
    let mut payloads = Vec::with_capacity(access_unit.len() / MAX_PAYLOAD + 2);
    let mut small: Vec<&[u8]> = Vec::new();
    for nal in annexb::nal_units(access_unit) {
        let bytes = nal.bytes();
        match nal.kind() {
            NalKind::Delimiter | NalKind::Filler | NalKind::Other(0 | 24..) => {}
            NalKind::Sps | NalKind::Pps | NalKind::Sei if bytes.len() <= MAX_PAYLOAD => {
                if !fits_stap(&small, bytes) {
                    flush(&mut small, &mut payloads);
                }
                small.push(bytes);
            }
            NalKind::Sps | NalKind::Pps | NalKind::Sei | NalKind::Slice | NalKind::IdrSlice | NalKind::Other(_) => {
                flush(&mut small, &mut payloads);
                if bytes.len() <= MAX_PAYLOAD {
                    payloads.push(Arc::from(bytes));
                } else {
                    fragment(bytes, &mut payloads);
                }
            }
        }
    }
    flush(&mut small, &mut payloads);
    payloads
}

fn fits_stap(gathered: &[&[u8]], nal: &[u8]) -> bool {
    let size: usize = gathered.iter().map(|nal| nal.len() + 2).sum();
    1 + size + nal.len() + 2 <= MAX_PAYLOAD
}

/// Sends what was gathered: alone as it is, together as one STAP-A (RFC 6184, 5.7.1).
fn flush(gathered: &mut Vec<&[u8]>, payloads: &mut Vec<Arc<[u8]>>) {
    match gathered.as_slice() {
        [] => {}
        [nal] => payloads.push(Arc::from(*nal)),
        nals => {
            let importance = nals.iter().map(|nal| nal[0] & NRI_MASK).max().unwrap_or(0);
            let mut payload = vec![importance | STAP_A];
            for nal in nals {
                payload.extend_from_slice(&(nal.len() as u16).to_be_bytes());
                payload.extend_from_slice(nal);
            }
            payloads.push(payload.into());
        }
    }
    gathered.clear();
}

/// FU-A (RFC 6184, 5.8).
fn fragment(nal: &[u8], payloads: &mut Vec<Arc<[u8]>>) {
    let (header, body) = (nal[0], &nal[1..]);
    let pieces = body.len().div_ceil(MAX_PAYLOAD - 2);
    let size = body.len().div_ceil(pieces);
    let last = body.len().div_ceil(size) - 1;
    for (index, piece) in body.chunks(size).enumerate() {
        let start = if index == 0 { START } else { 0 };
        let end = if index == last { END } else { 0 };
        let mut payload = Vec::with_capacity(piece.len() + 2);
        payload.push((header & !TYPE_MASK) | FU_A);
        payload.push(start | end | (header & TYPE_MASK));
        payload.extend_from_slice(piece);
        payloads.push(payload.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Puts the NAL units back together, as a receiver does.
    fn depacketize(payloads: &[Arc<[u8]>]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for payload in payloads {
            match payload[0] & TYPE_MASK {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while let [high, low, tail @ ..] = rest {
                        let size = usize::from(u16::from_be_bytes([*high, *low]));
                        nals.push(tail[..size].to_vec());
                        rest = &tail[size..];
                    }
                }
                FU_A if payload[1] & START != 0 => {
                    let mut nal = vec![(payload[0] & NRI_MASK) | (payload[1] & TYPE_MASK)];
                    nal.extend_from_slice(&payload[2..]);
                    nals.push(nal);
                }
                FU_A => nals.last_mut().expect("a start came before").extend_from_slice(&payload[2..]),
                _ => nals.push(payload.to_vec()),
            }
        }
        nals
    }

    fn nal(kind: u8, size: usize) -> Vec<u8> {
        // Bytes 3.. keep start codes out, as emulation prevention does in a real stream.
        let mut nal = vec![NRI_MASK | kind];
        nal.extend((0..size).map(|index| 3 + (index % 250) as u8));
        nal
    }

    #[test]
    fn parameter_sets_travel_together_and_fragments_are_equal_but_for_the_last() {
        let unit: Vec<u8> = [nal(7, 20), nal(8, 4), nal(5, 40_000)]
            .iter()
            .flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat())
            .collect();
        let payloads = packetize(&unit);
        assert_eq!(payloads[0][0] & TYPE_MASK, STAP_A);
        let fragments = &payloads[1..];
        assert!(
            fragments[..fragments.len() - 1]
                .iter()
                .all(|piece| piece.len() == fragments[0].len())
        );
        assert!(fragments.last().expect("fragments").len() <= fragments[0].len());
    }

    proptest! {
        #[test]
        fn a_receiver_gets_back_every_nal_unit(sizes in prop::collection::vec((prop::sample::select(vec![1u8, 5, 6, 7, 8]), 0usize..6_000), 1..12)) {
            let nals: Vec<Vec<u8>> = sizes.iter().map(|&(kind, size)| nal(kind, size)).collect();
            let unit: Vec<u8> = nals.iter().flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat()).collect();
            let payloads = packetize(&unit);
            prop_assert!(payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
            prop_assert_eq!(depacketize(&payloads), nals);
        }
    }
}
