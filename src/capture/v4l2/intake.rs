//! What happens to H.264 between a camera's buffers and the hub.

use std::time::Instant;

use crate::media::conform::{Conformed, Conformer};
use crate::media::{AccessUnit, MediaTime};

/// What happens to buffers between the driver and the hub; knows no device, so that it can be tried without one.
#[derive(Default)]
pub(super) struct Intake {
    pub conformer: Conformer,
    sequence: Option<u32>,
    captured: Option<Instant>,
    pub lost: u64,
}

impl Intake {
    /// Takes one buffer. `None` for a unit that is not delivered: damaged, empty, or undecodable before the next key frame.
    pub fn take(&mut self, data: &[u8], sequence: u32, damaged: bool, captured: Instant) -> Result<Option<AccessUnit>, String> {
        let gap = self.sequence.map_or(0, |last| sequence.wrapping_sub(last).wrapping_sub(1));
        self.sequence = Some(sequence);
        // A sequence that goes back or stays is a driver that counts nothing: its numbers say nothing about losses.
        let gap = if gap > u32::MAX / 2 { 0 } else { gap };
        if gap > 0 || damaged {
            self.lost += u64::from(gap) + u64::from(damaged);
            tracing::debug!(sequence, gap, damaged, lost = self.lost, "pictures lost, waiting for a key frame");
            self.conformer.gap();
        }
        if damaged || data.is_empty() {
            return Ok(None);
        }
        let Some(Conformed { data, key }) = self.conformer.take(data).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let captured = self.captured.map_or(captured, |last| captured.max(last));
        self.captured = Some(captured);
        Ok(Some(AccessUnit {
            data: data.into(),
            // The supervisor gives the stream its time.
            time: MediaTime::default(),
            captured,
            key,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::annexb::nal_units;

    /// x264, 320x180 at 25 fps, High without B frames; parameter sets, then an IDR picture.
    const KEY: &[u8] = &[
        0, 0, 0, 1, 0x67, 0x64, 0x00, 0x0c, 0xac, 0xb2, 0x02, 0x83, 0x3f, 0x3e, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x06,
        0x41, 0xe2, 0x85, 0x49, 0, 0, 0, 1, 0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0, 0, 0, 1, 0x65, 0x88, 0x84, 0x11,
    ];
    const DELTA: &[u8] = &[0, 0, 0, 1, 0x41, 0x9a, 0x11, 0x22];

    /// What comes out for buffers of (data, sequence, damaged): `K`, `d`, or `-` for nothing.
    fn play(buffers: &[(&[u8], u32, bool)]) -> String {
        let mut intake = Intake::default();
        let start = Instant::now();
        let play = |(n, &(data, sequence, damaged)): (usize, &(&[u8], u32, bool))| match intake.take(
            data,
            sequence,
            damaged,
            start + Duration::from_millis(n as u64 * 40),
        ) {
            Ok(Some(unit)) => {
                assert!(nal_units(&unit.data).eq(nal_units(data)));
                if unit.key { 'K' } else { 'd' }
            }
            Ok(None) => '-',
            Err(error) => panic!("{error}"),
        };
        buffers.iter().enumerate().map(play).collect()
    }

    #[test]
    fn after_a_lost_or_damaged_buffer_nothing_is_delivered_up_to_the_next_key_frame() {
        assert_eq!(play(&[(DELTA, 0, false), (KEY, 1, false), (DELTA, 2, false)]), "-Kd");
        assert_eq!(
            play(&[
                (KEY, 0, false),
                (DELTA, 1, false),
                (DELTA, 3, false),
                (DELTA, 4, false),
                (KEY, 5, false),
                (DELTA, 6, false)
            ]),
            "Kd--Kd"
        );
        assert_eq!(
            play(&[(KEY, 0, false), (DELTA, 1, true), (DELTA, 2, false), (KEY, 3, false)]),
            "K--K"
        );
        assert_eq!(
            play(&[(KEY, 0, false), (DELTA, 1, false), (KEY, 4, false), (DELTA, 5, false)]),
            "KdKd"
        );
    }

    #[test]
    fn empty_buffers_and_drivers_that_do_not_count_are_no_loss() {
        assert_eq!(play(&[(KEY, 0, false), (b"", 1, false), (DELTA, 2, false)]), "K-d");
        assert_eq!(play(&[(KEY, 0, false), (DELTA, 0, false), (DELTA, 0, false)]), "Kdd");
        assert_eq!(play(&[(KEY, u32::MAX, false), (DELTA, 0, false), (DELTA, 1, false)]), "Kdd");
    }
}
