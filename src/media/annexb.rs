//! Annex B byte streams (ITU-T H.264, annex B): finding NAL units and whole access units.

/// The kinds of NAL unit that a camera's stream is made of (ITU-T H.264, table 7-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// A slice of a picture that needs earlier ones (types 1 to 4; 2 to 4 are data partitions).
    Slice,
    /// A slice of an IDR picture: decoding can start here (type 5).
    IdrSlice,
    /// Supplemental enhancement information (type 6).
    Sei,
    /// Sequence parameter set (type 7).
    Sps,
    /// Picture parameter set (type 8).
    Pps,
    /// Access unit delimiter (type 9).
    Delimiter,
    /// Filler data (type 12).
    Filler,
    /// Anything else, with its type.
    Other(u8),
}

/// One NAL unit: its header byte and what follows, without start code and trailing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nal<'a>(&'a [u8]);

/// The beginning of a slice header (ITU-T H.264, 7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceStart {
    /// The macroblock where the slice begins; 0 begins a picture.
    pub first_mb: u32,
    /// 0 P, 1 B, 2 I, 3 SP, 4 SI.
    pub slice_type: u32,
}

impl SliceStart {
    /// Whether it is a B slice, that is one which may need later pictures.
    #[must_use]
    pub fn is_b(&self) -> bool {
        self.slice_type == 1
    }
}

impl<'a> Nal<'a> {
    /// Wraps one NAL unit without its start code; `None` if it is empty.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// Header byte and payload.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> NalKind {
        kind(self.0[0])
    }

    /// The first two fields of a slice's header; `None` if this is no slice that begins with one, or it is cut short.
    #[must_use]
    pub fn slice_start(&self) -> Option<SliceStart> {
        // Data partitions B and C (3, 4) begin with a slice id instead.
        if !matches!(self.0[0] & 0x1f, 1 | 2 | 5) {
            return None;
        }
        // Two Exp-Golomb codes of 32 bits each take at most 16 bytes and a few emulation prevention bytes.
        let rbsp = unescape(&self.0[1..], 24);
        let mut bits = Bits { bytes: &rbsp, at: 0 };
        let first_mb = bits.unsigned_exp_golomb()?;
        let slice_type = bits.unsigned_exp_golomb()? % 5;
        Some(SliceStart { first_mb, slice_type })
    }

    /// `pic_parameter_set_id` or `seq_parameter_set_id`: by which later parameter sets replace earlier ones.
    pub(super) fn parameter_set_id(&self) -> Option<u32> {
        // An SPS has profile, constraint flags and level in front of its id.
        let skip = if self.kind() == NalKind::Sps { 4 } else { 1 };
        let rbsp = unescape(self.0.get(skip..)?, 8);
        Bits { bytes: &rbsp, at: 0 }.unsigned_exp_golomb()
    }
}

fn kind(header: u8) -> NalKind {
    match header & 0x1f {
        1..=4 => NalKind::Slice,
        5 => NalKind::IdrSlice,
        6 => NalKind::Sei,
        7 => NalKind::Sps,
        8 => NalKind::Pps,
        9 => NalKind::Delimiter,
        12 => NalKind::Filler,
        other => NalKind::Other(other),
    }
}

/// The NAL units of `data`, in order, without copying. Bytes before the first start code and zeros after a unit are passed over.
#[must_use]
pub fn nal_units(data: &[u8]) -> NalUnits<'_> {
    let begin = find_start_code(data, 0).map_or(data.len(), |at| at + 3);
    NalUnits { data, at: begin }
}

/// Iterator over the NAL units of an Annex B byte string.
#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Nal<'a>;

    fn next(&mut self) -> Option<Nal<'a>> {
        while self.at < self.data.len() {
            let end = find_start_code(self.data, self.at).unwrap_or(self.data.len());
            let bytes = without_trailing_zeros(&self.data[self.at..end]);
            self.at = end + 3;
            if let Some(nal) = Nal::new(bytes) {
                return Some(nal);
            }
        }
        None
    }
}

/// Cuts a byte stream, in whatever pieces it comes, into access units.
///
/// A new one begins with a slice whose `first_mb_in_slice` is 0, or with the delimiter, parameter set, SEI or other unit
/// before it that cannot follow the last slice of a picture (ITU-T H.264, 7.4.1.2.3); so pictures of several slices stay whole.
/// Tolerates 3- and 4-byte start codes, zeros between units, and rubbish before the first start code.
#[derive(Debug, Default)]
pub struct AccessUnits {
    /// The access unit being collected; begins with a start code once `started`.
    buffer: Vec<u8>,
    /// Where the search for the next start code goes on.
    scan: usize,
    started: bool,
    has_slice: bool,
    /// The unit being collected is over the limit: its bytes are not kept.
    skipping: bool,
    dropped: u64,
}

impl AccessUnits {
    /// The most bytes one access unit may have: above what any level allows for a picture that makes sense to send live.
    /// A longer one is dropped and counted, so that a stream without start codes cannot fill the memory.
    pub const MAX_BYTES: usize = 8 * 1024 * 1024;

    /// How much is taken in at once, so that the buffer stays bounded whatever the caller hands over.
    const STEP: usize = 256 * 1024;

    /// Takes the next bytes of the stream; calls `unit` with each access unit that they complete, start code first.
    ///
    /// The last access unit is only known to be complete when the next begins, or by [`AccessUnits::finish`].
    pub fn push(&mut self, bytes: &[u8], mut unit: impl FnMut(&[u8])) {
        for piece in bytes.chunks(Self::STEP) {
            self.buffer.extend_from_slice(piece);
            self.cut(&mut unit);
        }
    }

    /// Ends the stream: calls `unit` with what was being collected, if it holds a picture, and starts over.
    pub fn finish(&mut self, mut unit: impl FnMut(&[u8])) {
        let end = self.buffer.len();
        self.emit(end, &mut unit);
        *self = Self {
            dropped: self.dropped,
            ..Self::default()
        };
    }

    /// How many access units were dropped for being longer than [`AccessUnits::MAX_BYTES`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn cut(&mut self, unit: &mut impl FnMut(&[u8])) {
        let mut begin = 0;
        loop {
            let Some(at) = find_start_code(&self.buffer, self.scan) else {
                // The last two bytes may be the beginning of a start code.
                self.scan = self.scan.max(self.buffer.len().saturating_sub(2));
                break;
            };
            // A start code tells nothing before the header and the first byte of the slice header are here.
            let (Some(&header), Some(&next)) = (self.buffer.get(at + 3), self.buffer.get(at + 4)) else {
                self.scan = at;
                break;
            };
            self.scan = at + 3;
            let is_slice = matches!(header & 0x1f, 1..=5);
            let begins = !self.started || (self.has_slice && begins_access_unit(header, next));
            if begins {
                if self.started {
                    self.emit_from(begin, at, unit);
                }
                self.started = true;
                self.has_slice = false;
                self.skipping = false;
                begin = if at > begin && self.buffer[at - 1] == 0 { at - 1 } else { at };
            }
            self.has_slice |= is_slice;
        }
        self.forget(begin);
        if !self.started {
            // Rubbish before the first start code: keep what may be the zeros of one.
            self.forget(self.scan.saturating_sub(1));
        } else if self.buffer.len() > Self::MAX_BYTES + 4 {
            self.skipping = true;
        }
        if self.skipping {
            self.forget(self.scan.saturating_sub(1));
        }
    }

    fn forget(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.scan -= bytes;
    }

    fn emit(&mut self, end: usize, unit: &mut impl FnMut(&[u8])) {
        self.emit_from(0, end, unit);
    }

    fn emit_from(&mut self, begin: usize, end: usize, unit: &mut impl FnMut(&[u8])) {
        let bytes = without_trailing_zeros(&self.buffer[begin..end]);
        if self.skipping || bytes.len() > Self::MAX_BYTES {
            self.dropped += 1;
        } else if self.started && self.has_slice {
            unit(bytes);
        }
    }
}

/// Whether a NAL unit that comes after a slice begins the next access unit (ITU-T H.264, 7.4.1.2.3).
fn begins_access_unit(header: u8, next: u8) -> bool {
    match header & 0x1f {
        // `first_mb_in_slice` is Exp-Golomb coded: 0 is the single bit 1.
        1 | 2 | 5 => next & 0x80 != 0,
        6..=9 | 14..=18 => true,
        _ => false,
    }
}

/// The position of the next `00 00 01` at or after `from`.
fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + 2 < data.len() {
        // The third byte tells how far to go: most bytes are above 1 and can't be part of a start code.
        if data[at + 2] > 1 {
            at += 3;
        } else if data[at + 2] == 1 {
            if data[at] == 0 && data[at + 1] == 0 {
                return Some(at);
            }
            at += 3;
        } else {
            at += 1;
        }
    }
    None
}

fn without_trailing_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Takes the emulation prevention bytes out of the first `limit` bytes (ITU-T H.264, 7.4.1).
fn unescape(bytes: &[u8], limit: usize) -> Vec<u8> {
    let mut plain = Vec::with_capacity(limit);
    let mut zeros = 0;
    for &byte in bytes.iter().take(limit) {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    plain
}

/// A reader of the few bits that this project reads by itself.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u32::from(bit))
    }

    /// ue(v), ITU-T H.264, 9.1.
    fn unsigned_exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut value = 1u64;
        for _ in 0..zeros {
            value = value << 1 | u64::from(self.bit()?);
        }
        u32::try_from(value - 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(stream: &[u8], chunks: &[usize]) -> Vec<Vec<u8>> {
        let mut units = Vec::new();
        let mut splitter = AccessUnits::default();
        let mut rest = stream;
        for &size in chunks {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            splitter.push(piece, |unit| units.push(unit.to_vec()));
            rest = after;
        }
        splitter.push(rest, |unit| units.push(unit.to_vec()));
        splitter.finish(|unit| units.push(unit.to_vec()));
        units
    }

    fn stream(nals: &[(&[u8], bool)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (nal, long) in nals {
            bytes.extend_from_slice(if *long { &[0, 0, 0, 1] } else { &[0, 0, 1] });
            bytes.extend_from_slice(nal);
        }
        bytes
    }

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0x99];
    const PPS: &[u8] = &[0x68, 0xce, 0x38];
    const IDR: &[u8] = &[0x65, 0x88, 0x84];
    const IDR_SECOND_SLICE: &[u8] = &[0x65, 0x40, 0x84];
    const P: &[u8] = &[0x41, 0x9a, 0x11];
    const P_SECOND_SLICE: &[u8] = &[0x41, 0x5a, 0x22];
    const AUD: &[u8] = &[0x09, 0xf0];
    const SEI: &[u8] = &[0x06, 0x01, 0x80];

    #[test]
    fn nal_units_are_found_behind_short_and_long_start_codes_and_without_trailing_zeros() {
        let bytes = [
            0xaa, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0, 0, 1, 0x65, 0x80, 0, 0, 0,
        ];
        let found: Vec<_> = nal_units(&bytes).map(|nal| nal.bytes().to_vec()).collect();
        assert_eq!(found, [vec![0x67, 1, 2], vec![0x68, 3], vec![0x65, 0x80]]);
        assert_eq!(nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).count(), 0);
        assert_eq!(nal_units(&[1, 2, 3, 4]).count(), 0);
    }

    #[test]
    fn pictures_of_several_slices_stay_whole_and_what_precedes_a_picture_goes_with_it() {
        let first = [
            (AUD, true),
            (SPS, true),
            (PPS, false),
            (SEI, false),
            (IDR, false),
            (IDR_SECOND_SLICE, false),
        ];
        let second = [(P, true), (P_SECOND_SLICE, false)];
        let third = [(AUD, true), (P, false)];
        let fourth = [(SEI, false), (P, true)];
        let all = [&first[..], &second, &third, &fourth].concat();
        let units = split(&stream(&all), &[]);
        assert_eq!(units, [stream(&first), stream(&second), stream(&third), stream(&fourth)]);
    }

    #[test]
    fn a_slice_header_tells_where_the_slice_begins_and_of_which_type_it_is() {
        let start = |bytes| Nal::new(bytes).and_then(|nal| nal.slice_start());
        // first_mb 0 (bit 1), slice_type 7, I (bits 0001000).
        assert_eq!(
            start(&[0x65, 0b1000_1000]),
            Some(SliceStart {
                first_mb: 0,
                slice_type: 2
            })
        );
        // slice_type 1 is 010: a B slice.
        assert!(start(&[0x01, 0b1010_0000]).is_some_and(|slice| slice.is_b()));
        // first_mb 3,600 (0xe10): 11 zeros, then 0xe11 in 12 bits, then slice_type 0.
        assert_eq!(
            start(&[0x41, 0, 0b0001_1100, 0b0010_0011]),
            Some(SliceStart {
                first_mb: 3600,
                slice_type: 0
            })
        );
        assert_eq!(start(&[0x41]), None);
        assert_eq!(start(&[0x41, 0, 0, 0, 0, 0]), None);
        assert_eq!(start(SPS), None);
    }

    #[test]
    fn an_access_unit_over_the_limit_is_dropped_and_the_next_one_is_not() {
        let mut bytes = stream(&[(IDR, true)]);
        bytes.resize(AccessUnits::MAX_BYTES + 1_000_000, 0x55);
        bytes.extend(stream(&[(P, true), (P, true)]));
        let mut splitter = AccessUnits::default();
        let mut units = Vec::new();
        splitter.push(&bytes, |unit| units.push(unit.to_vec()));
        assert!(splitter.buffer.capacity() <= 2 * AccessUnits::MAX_BYTES + AccessUnits::STEP);
        splitter.finish(|unit| units.push(unit.to_vec()));
        assert_eq!(units, vec![stream(&[(P, true)]); 2]);
        assert_eq!(splitter.dropped(), 1);
    }

    #[test]
    fn a_stream_without_start_codes_fills_no_memory() {
        let mut splitter = AccessUnits::default();
        for _ in 0..100 {
            splitter.push(&[0x55; 500_000], |_| panic!("there is no access unit in this stream"));
        }
        assert!(splitter.buffer.len() < 8);
    }

    /// A NAL unit with a payload in which no start code can be found, as an encoder would escape it.
    fn nal() -> impl Strategy<Value = Vec<u8>> {
        let header = prop_oneof![4 => Just(0x41u8), 2 => Just(0x65), 1 => Just(0x67), 1 => Just(0x68), 1 => Just(0x06), 1 => Just(0x09), 1 => Just(0x0c), 1 => Just(0x0a)];
        (
            header,
            proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(3), any::<u8>()], 0..30),
        )
            .prop_map(|(header, payload)| {
                let mut nal = vec![header];
                let mut zeros = 0;
                for byte in payload {
                    if zeros >= 2 && byte <= 3 {
                        nal.push(3);
                        zeros = 0;
                    }
                    zeros = if byte == 0 { zeros + 1 } else { 0 };
                    nal.push(byte);
                }
                nal.push(0x80);
                nal
            })
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_access_units(
            nals in proptest::collection::vec((nal(), any::<bool>(), 0usize..3), 0..30),
            rubbish in proptest::collection::vec(2u8.., 0..5),
            chunks in proptest::collection::vec(0usize..20, 0..60),
        ) {
            let mut bytes = rubbish;
            for (nal, long, zeros) in &nals {
                bytes.extend_from_slice(if *long { &[0, 0, 0, 1] } else { &[0, 0, 1] });
                bytes.extend_from_slice(nal);
                bytes.extend(std::iter::repeat_n(0, *zeros));
            }
            let whole = split(&bytes, &[]);
            prop_assert_eq!(&split(&bytes, &chunks), &whole);
            let ones = vec![1; bytes.len()];
            prop_assert_eq!(&split(&bytes, &ones), &whole);
            // Nothing is lost between the first slice's unit and the end: every slice is in exactly one access unit.
            let is_slice = |nal: &[u8]| matches!(nal[0] & 0x1f, 1..=5);
            let sent: Vec<_> = nals.iter().map(|(nal, _, _)| nal.clone()).filter(|nal| is_slice(nal)).collect();
            let got: Vec<_> = whole.iter().flat_map(|unit| nal_units(unit).map(|nal| nal.bytes().to_vec()).collect::<Vec<_>>()).filter(|nal| is_slice(nal)).collect();
            prop_assert_eq!(got, sent);
            // And each begins with its only slice of macroblock 0, if any slice of it does.
            for unit in &whole {
                let firsts = nal_units(unit).filter(|nal| is_slice(nal.bytes())).skip(1).filter(|nal| nal.bytes()[1] & 0x80 != 0).count();
                prop_assert_eq!(firsts, 0);
            }
        }

        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..400), chunks in proptest::collection::vec(0usize..9, 0..99)) {
            for nal in nal_units(&bytes) {
                let _ = (nal.kind(), nal.slice_start(), nal.parameter_set_id());
            }
            prop_assert_eq!(split(&bytes, &chunks), split(&bytes, &[]));
        }
    }
}
