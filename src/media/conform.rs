//! Makes a camera's access units what WebRTC needs, and refuses streams that it cannot carry.

use super::StreamFormat;
use super::annexb::{Nal, NalKind, nal_units};
use super::sps::{Sps, SpsError};

/// Takes a stream's access units one by one: remembers parameter sets, gives key frames theirs, holds units back that cannot
/// be decoded (before the first key frame and after a gap), and notices what no browser can show.
#[derive(Debug, Default)]
pub struct Conformer {
    sps: Vec<Remembered>,
    pps: Vec<Remembered>,
    /// What the SPS of the newest key frame says.
    read: Option<Sps>,
    flowing: bool,
    waited: u32,
    bare_idr: u32,
}

/// The newest parameter set with its id.
#[derive(Debug)]
struct Remembered {
    id: u32,
    bytes: Vec<u8>,
}

/// One access unit as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conformed {
    /// Annex B with 4-byte start codes. Delimiters and filler are gone; all other NAL units are as they came, in their order.
    pub data: Vec<u8>,
    /// Whether decoding can start here.
    pub key: bool,
}

/// Why a stream cannot be shown in a browser.
#[derive(Debug, thiserror::Error)]
pub enum Unsuitable {
    /// It is not H.264 but its successor.
    #[error(
        "the stream is H.265 (HEVC), which browsers do not take over WebRTC; choose H.264 in the camera (ffmpeg: `-c:v libx264 -bf 0 -pix_fmt yuv420p`)"
    )]
    H265,
    /// It holds B slices.
    #[error(
        "the stream has B frames, which WebRTC cannot carry; turn B frames off in the camera (ffmpeg: `-bf 0`; or choose profile Baseline)"
    )]
    BFrames,
    /// Its samples are not 8 bit 4:2:0.
    #[error(
        "the stream is not 8 bit 4:2:0 (profile-level-id {0}), the only kind browsers show; choose profile Baseline, Main or High and a yuv420p picture"
    )]
    Samples(String),
    /// IDR pictures come, but never a parameter set.
    #[error(
        "the stream's key frames come without SPS and PPS; make the camera repeat them (V4L2: \"Repeat Sequence Header\"; x264: `repeat-headers=1`)"
    )]
    NoParameterSets,
    /// No IDR picture comes.
    #[error(
        "no key frame (IDR) in {0} pictures; set the camera's key frame interval to a few seconds (ffmpeg: `-g 60`) and turn intra refresh off"
    )]
    NoKeyFrame(u32),
    /// Its SPS cannot be read.
    #[error("{0}; choose profile Baseline, Main or High in the camera")]
    Sps(#[from] SpsError),
}

impl Conformer {
    /// Half a minute at 30 pictures a second: longer than the key frame interval of any camera that is meant for live pictures.
    pub const MAX_WAIT: u32 = 900;

    /// Parameter sets belong in front of an IDR picture; when this many came without, none will.
    const MAX_BARE_IDR: u32 = 3;

    /// A stream has a few parameter sets, each of some dozen bytes; more is rubbish that must not fill the memory.
    const MAX_SETS: usize = 32;
    const MAX_SET_BYTES: usize = 4096;

    /// Takes one access unit. `None` if it cannot be decoded by itself or by what came before, or holds no picture.
    ///
    /// # Errors
    /// The stream cannot be shown in a browser.
    pub fn take(&mut self, unit: &[u8]) -> Result<Option<Conformed>, Unsuitable> {
        let (mut idr, mut picture, mut has_sps, mut has_pps) = (false, false, false, false);
        for nal in nal_units(unit) {
            match nal.kind() {
                NalKind::Sps => has_sps |= remember(&mut self.sps, nal),
                NalKind::Pps => has_pps |= remember(&mut self.pps, nal),
                NalKind::IdrSlice | NalKind::Slice => {
                    picture = true;
                    idr |= nal.kind() == NalKind::IdrSlice;
                    if nal.slice_start().is_some_and(|slice| slice.is_b()) {
                        return Err(Unsuitable::BFrames);
                    }
                }
                NalKind::Other(_) if is_h265_parameter_set(nal) => return Err(Unsuitable::H265),
                NalKind::Sei | NalKind::Delimiter | NalKind::Filler | NalKind::Other(_) => {}
            }
        }
        if !picture {
            return Ok(None);
        }
        let key = idr && !self.sps.is_empty() && !self.pps.is_empty();
        if key {
            self.check(unit)?;
            self.flowing = true;
            self.waited = 0;
            self.bare_idr = 0;
        }
        if !self.flowing {
            self.waited += 1;
            self.bare_idr += u32::from(idr);
            if self.bare_idr >= Self::MAX_BARE_IDR {
                return Err(Unsuitable::NoParameterSets);
            }
            if self.waited >= Self::MAX_WAIT {
                return Err(Unsuitable::NoKeyFrame(self.waited));
            }
            return Ok(None);
        }
        let sps = self.sps.iter().filter(|_| key && !has_sps);
        let pps = self.pps.iter().filter(|_| key && !has_pps);
        let mut data = Vec::with_capacity(unit.len() + 64);
        // An SPS goes before every PPS: where the unit has a PPS of its own, that follows here.
        for set in sps.chain(pps) {
            append(&mut data, &set.bytes);
        }
        for nal in nal_units(unit).filter(|nal| !matches!(nal.kind(), NalKind::Delimiter | NalKind::Filler)) {
            append(&mut data, nal.bytes());
        }
        Ok(Some(Conformed { data, key }))
    }

    /// Units were lost: what follows cannot be decoded up to the next key frame, and is held back.
    pub fn gap(&mut self) {
        self.flowing = false;
        self.waited = 0;
        self.bare_idr = 0;
    }

    /// Whether units are being held back until a key frame comes.
    #[must_use]
    pub fn waits_for_key_frame(&self) -> bool {
        !self.flowing
    }

    /// What the stream's newest SPS says; `None` before the first key frame.
    #[must_use]
    pub fn sps(&self) -> Option<&Sps> {
        self.read.as_ref()
    }

    /// Reads the SPS that the key frame uses, in the unit itself or remembered.
    fn check(&mut self, unit: &[u8]) -> Result<(), Unsuitable> {
        let own = newest_sps(unit).map(|nal| nal.bytes());
        let Some(bytes) = own.or_else(|| self.sps.last().map(|set| set.bytes.as_slice())) else {
            return Ok(());
        };
        let sps = Sps::read(bytes)?;
        if !sps.browser_samples {
            return Err(Unsuitable::Samples(sps.format.profile_level_hex()));
        }
        self.read = Some(sps);
        Ok(())
    }
}

/// The format of a stream, read from a key frame's own SPS.
///
/// # Errors
/// The SPS cannot be read. `Ok(None)` if the unit has none.
pub fn format_of(key_frame: &[u8]) -> Result<Option<StreamFormat>, SpsError> {
    newest_sps(key_frame)
        .map(|nal| Sps::read(nal.bytes()).map(|sps| sps.format))
        .transpose()
}

/// Where a unit has several, those before the last are earlier ones that still stand, with ids of their own.
fn newest_sps(unit: &[u8]) -> Option<Nal<'_>> {
    nal_units(unit).filter(|nal| nal.kind() == NalKind::Sps).last()
}

/// Keeps the newest set of each id, the newest last. False if it is none that can be kept.
fn remember(sets: &mut Vec<Remembered>, nal: Nal<'_>) -> bool {
    let Some(id) = nal.parameter_set_id() else { return false };
    if nal.bytes().len() > Conformer::MAX_SET_BYTES {
        return false;
    }
    if sets.last().is_some_and(|last| last.id == id && last.bytes == nal.bytes()) {
        return true;
    }
    sets.retain(|set| set.id != id);
    if sets.len() == Conformer::MAX_SETS {
        sets.remove(0);
    }
    sets.push(Remembered {
        id,
        bytes: nal.bytes().to_vec(),
    });
    true
}

/// Whether this is the video parameter set of an H.265 stream (ITU-T H.265, 7.3.2.1), whose header reads as H.264's unused type 0.
fn is_h265_parameter_set(nal: Nal<'_>) -> bool {
    // Type 32 of layer 0, two bytes that say how many layers there are, and the 16 set bits that the standard reserves.
    matches!(nal.bytes(), [0x40, 0x01, _, _, 0xff, 0xff, ..])
}

fn append(data: &mut Vec<u8>, nal: &[u8]) {
    data.extend_from_slice(&[0, 0, 0, 1]);
    data.extend_from_slice(nal);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264, 320x180 at 25 fps, High without B frames.
    const SPS: &[u8] = &[
        0x67, 0x64, 0x00, 0x0c, 0xac, 0xb2, 0x02, 0x83, 0x3f, 0x3e, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x06, 0x41, 0xe2,
        0x85, 0x49,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0];
    const NEWER_PPS: &[u8] = &[0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xe0];
    const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x11];
    const P: &[u8] = &[0x41, 0x9a, 0x11, 0x22];
    const B: &[u8] = &[0x01, 0b1010_0000, 0x33];
    const AUD: &[u8] = &[0x09, 0xf0];
    const SEI: &[u8] = &[0x06, 0x01, 0x80];
    const FILLER: &[u8] = &[0x0c, 0xff, 0x80];

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for nal in nals {
            append(&mut bytes, nal);
        }
        bytes
    }

    fn sent(conformer: &mut Conformer, nals: &[&[u8]]) -> Option<(Vec<Vec<u8>>, bool)> {
        let sent = conformer.take(&unit(nals)).expect("a stream that browsers can show")?;
        Some((nal_units(&sent.data).map(|nal| nal.bytes().to_vec()).collect(), sent.key))
    }

    #[test]
    fn nothing_is_sent_before_the_first_key_frame_and_after_a_gap() {
        let mut conformer = Conformer::default();
        assert_eq!(sent(&mut conformer, &[P]), None);
        assert_eq!(
            sent(&mut conformer, &[IDR]),
            None,
            "an IDR picture without parameter sets can't be decoded"
        );
        assert!(conformer.waits_for_key_frame());
        assert_eq!(
            sent(&mut conformer, &[SPS, PPS, IDR]),
            Some((vec![SPS.to_vec(), PPS.to_vec(), IDR.to_vec()], true))
        );
        assert_eq!(sent(&mut conformer, &[P]), Some((vec![P.to_vec()], false)));
        assert_eq!(
            conformer.sps().map(|sps| (sps.format.width, sps.format.height, sps.fps)),
            Some((320, 180, Some(25.0)))
        );
        conformer.gap();
        assert_eq!(sent(&mut conformer, &[P]), None);
        assert!(sent(&mut conformer, &[IDR]).is_some());
        assert!(sent(&mut conformer, &[P]).is_some());
    }

    #[test]
    fn a_key_frame_gets_the_newest_parameter_sets_it_lacks_and_all_else_stays_in_order() {
        let mut conformer = Conformer::default();
        assert_eq!(
            sent(&mut conformer, &[SPS, PPS]),
            None,
            "parameter sets in a unit of their own are remembered"
        );
        assert_eq!(
            sent(&mut conformer, &[AUD, SEI, IDR, FILLER]),
            Some((vec![SPS.to_vec(), PPS.to_vec(), SEI.to_vec(), IDR.to_vec()], true))
        );
        assert_eq!(
            sent(&mut conformer, &[AUD, NEWER_PPS, P]),
            Some((vec![NEWER_PPS.to_vec(), P.to_vec()], false))
        );
        assert_eq!(
            sent(&mut conformer, &[IDR, IDR]),
            Some((vec![SPS.to_vec(), NEWER_PPS.to_vec(), IDR.to_vec(), IDR.to_vec()], true))
        );
        assert_eq!(
            sent(&mut conformer, &[PPS, IDR]),
            Some((vec![SPS.to_vec(), PPS.to_vec(), IDR.to_vec()], true))
        );
    }

    #[test]
    fn streams_that_no_browser_shows_are_refused_with_what_to_change() {
        let refused = |units: Vec<Vec<u8>>| {
            let mut conformer = Conformer::default();
            units
                .iter()
                .find_map(|unit| conformer.take(unit).err())
                .expect("the stream was taken")
                .to_string()
        };
        assert!(refused(vec![unit(&[SPS, PPS, IDR]), unit(&[B])]).contains("-bf 0"));
        // The beginning of what x265 writes.
        const VPS_H265: &[u8] = &[
            0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3c,
        ];
        const SLICE_H265: &[u8] = &[0x02, 0x01, 0xd0, 0x09, 0x7e];
        assert!(refused(vec![unit(&[VPS_H265, SLICE_H265])]).contains("H.265"));
        assert!(refused(vec![unit(&[IDR]); 3]).contains("repeat"));
        assert!(refused(vec![unit(&[SPS, PPS, P]); 900]).contains("key frame interval"));
        let mut high_422 = SPS.to_vec();
        high_422[1] = 122;
        // chroma_format_idc is the first code after the id: 010 (4:2:0) becomes 011 (4:2:2).
        high_422[4] = 0b1011_1100;
        assert!(refused(vec![unit(&[&high_422, PPS, IDR])]).contains("4:2:0"));
        assert!(refused(vec![unit(&[&SPS[..5], PPS, IDR])]).contains("SPS"));
    }

    #[test]
    fn an_endless_number_of_parameter_sets_fills_no_memory() {
        let mut conformer = Conformer::default();
        for n in 0..=255u8 {
            let _ = conformer.take(&unit(&[&[0x68, 0x00, 0x80 | n >> 1, n << 7 | 0x40, 0x80]]));
        }
        assert!(conformer.pps.len() <= Conformer::MAX_SETS && conformer.pps.len() > 1);
    }
}
