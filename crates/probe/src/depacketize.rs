//! RTP payloads back to NAL units (RFC 6184, packetization-mode 1), bit by bit as they were sent.

/// The NAL units of one access unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NalUnits {
    /// Annex B, every NAL unit behind a 4-byte start code, in order.
    pub annexb: Vec<u8>,
    /// How many.
    pub count: usize,
    /// Bit n is set if one of them has `nal_unit_type` n.
    types: u32,
}

/// Why payloads are no H.264 of packetization-mode 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A STAP-A whose sizes do not add up.
    Aggregate,
    /// A FU-A that does not continue what came before, or that never ends.
    Fragment,
    /// A payload of type 0 or 25 to 31, but for FU-A: none of them belongs to packetization-mode 1.
    Type(u8),
}

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

impl NalUnits {
    /// Puts the payloads of one access unit, in order, together again. Empty payloads (padding) say nothing.
    ///
    /// # Errors
    /// The first thing that is not as RFC 6184 says.
    pub fn read<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Malformed> {
        let mut units = Self::default();
        let mut fragment: Option<u8> = None;
        for payload in payloads {
            let Some((&head, rest)) = payload.split_first() else { continue };
            let kind = head & 0x1f;
            if kind != FU_A && fragment.is_some() {
                return Err(Malformed::Fragment);
            }
            match kind {
                1..STAP_A => units.push(&[head], rest),
                STAP_A => units.aggregate(rest)?,
                FU_A => {
                    let (&fu, data) = rest.split_first().ok_or(Malformed::Fragment)?;
                    let header = (head & 0xe0) | (fu & 0x1f);
                    let (starts, ends) = (fu & 0x80 != 0, fu & 0x40 != 0);
                    match fragment {
                        None if starts => units.push(&[header], data),
                        Some(open) if !starts && open == header => units.annexb.extend_from_slice(data),
                        _ => return Err(Malformed::Fragment),
                    }
                    fragment = (!ends).then_some(header);
                }
                other => return Err(Malformed::Type(other)),
            }
        }
        if fragment.is_some() {
            return Err(Malformed::Fragment);
        }
        Ok(units)
    }

    /// Whether a decoder can begin here: SPS, PPS and an IDR picture are all there.
    pub fn is_key(&self) -> bool {
        [SPS, PPS, IDR_SLICE].iter().all(|kind| self.has(*kind))
    }

    /// Whether there is a coded picture at all.
    pub fn is_picture(&self) -> bool {
        self.has(SLICE) || self.has(IDR_SLICE)
    }

    fn has(&self, kind: u8) -> bool {
        self.types & (1 << kind) != 0
    }

    fn push(&mut self, head: &[u8], rest: &[u8]) {
        self.annexb.extend_from_slice(&START_CODE);
        self.annexb.extend_from_slice(head);
        self.annexb.extend_from_slice(rest);
        self.count += 1;
        self.types |= head.first().map_or(0, |head| 1 << (head & 0x1f));
    }

    fn aggregate(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        while let Some((size, after)) = rest.split_first_chunk::<2>() {
            let size = usize::from(u16::from_be_bytes(*size));
            let (unit, after) = after.split_at_checked(size).ok_or(Malformed::Aggregate)?;
            let (head, body) = unit.split_at_checked(1).ok_or(Malformed::Aggregate)?;
            self.push(head, body);
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(Malformed::Aggregate) }
    }
}

/// Whether an access unit can begin with this payload: anything before the first slice, or a slice with `first_mb_in_slice` 0
/// (its ue(v) is a single 1 bit).
pub fn begins_picture(payload: &[u8]) -> bool {
    let first_slice = |kind: u8, slice: Option<&u8>| match kind & 0x1f {
        SLICE | IDR_SLICE => slice.is_some_and(|byte| byte & 0x80 != 0),
        2..=4 => false,
        _ => true,
    };
    match payload {
        [head, fu, rest @ ..] if head & 0x1f == FU_A => fu & 0x80 != 0 && first_slice(*fu, rest.first()),
        [head, _, _, kind, rest @ ..] if head & 0x1f == STAP_A => first_slice(*kind, rest.first()),
        [head, rest @ ..] => first_slice(*head, rest.first()),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [&[u8]; 3] = [
        // STAP-A: SPS (4 bytes), PPS (3 bytes)
        &[0x78, 0, 4, 0x67, 1, 2, 3, 0, 3, 0x68, 4, 5],
        // FU-A: IDR with nal_ref_idc 3, beginning and end
        &[0x7c, 0x85, 0x88, 6, 7],
        &[0x7c, 0x45, 8, 0, 0],
    ];

    #[test]
    fn a_key_frame_comes_back_bit_by_bit_behind_four_byte_start_codes() {
        let units = NalUnits::read(KEY).expect("this is packetization-mode 1");
        let expected = [
            &[0, 0, 0, 1, 0x67, 1, 2, 3][..],
            &[0, 0, 0, 1, 0x68, 4, 5],
            &[0, 0, 0, 1, 0x65, 0x88, 6, 7, 8, 0, 0],
        ]
        .concat();
        assert_eq!(units.annexb, expected);
        assert_eq!(units.count, 3);
        assert!(units.is_key() && units.is_picture());
    }

    #[test]
    fn only_parameter_sets_with_an_idr_picture_make_a_key_frame() {
        for (payloads, key, picture) in [
            (vec![KEY[1], KEY[2]], false, true),
            (vec![KEY[0]], false, false),
            (vec![&[0x41, 0x9a][..]], false, true),
            (vec![&[][..]], false, false),
        ] {
            let units = NalUnits::read(payloads).expect("this is packetization-mode 1");
            assert_eq!((units.is_key(), units.is_picture()), (key, picture));
        }
    }

    #[test]
    fn what_rfc_6184_does_not_allow_is_refused() {
        for (payloads, reason) in [
            (vec![KEY[1]], Malformed::Fragment),
            (vec![KEY[2]], Malformed::Fragment),
            (vec![KEY[1], KEY[0]], Malformed::Fragment),
            (vec![KEY[1], KEY[1]], Malformed::Fragment),
            (vec![KEY[1], &[0x7c, 0x41, 8]], Malformed::Fragment),
            (vec![&[0x7c]], Malformed::Fragment),
            (vec![&[0x78, 0, 9, 0x67]], Malformed::Aggregate),
            (vec![&[0x78, 0, 0]], Malformed::Aggregate),
            (vec![&[0x78, 0, 1, 0x67, 5]], Malformed::Aggregate),
            (vec![&[0x79, 1, 2]], Malformed::Type(25)),
            (vec![&[0x60]], Malformed::Type(0)),
        ] {
            assert_eq!(NalUnits::read(payloads.clone()), Err(reason), "{payloads:x?}");
        }
    }

    #[test]
    fn the_first_packet_of_a_picture_is_recognised() {
        for (payload, begins) in [
            (KEY[0], true),
            (KEY[1], true),
            (KEY[2], false),
            (&[0x41, 0x9a], true),
            (&[0x41, 0x5a], false),
            (&[0x5c, 0x81, 0x40], false),
            (&[0x09, 0x10], true),
            (&[0x06, 0x05], true),
            (&[0x41], false),
            (&[], false),
        ] {
            assert_eq!(begins_picture(payload), begins, "{payload:x?}");
        }
    }
}
