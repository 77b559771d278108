//! RTP packets, in any order, to whole access units, in order; and what was lost between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::depacketize::{Malformed, NalUnits, begins_picture};
use crate::moment::Moment;

/// How long a missing packet is waited for. A picture that is a second late is a freeze to anybody who watches, and several
/// NACKs have been answered by then on any usable path.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Packets kept while one is missing; about a second of 40 Mbit/s. A fuller buffer ends the wait at once.
const BUFFERED: usize = 4_096;

/// How long the packets before the very first one are waited for if that one begins no picture. They may only be out of order;
/// nobody asks for them again, as the receiver doesn't know that they exist.
const HEAD_PATIENCE: Duration = Duration::from_millis(50);

/// How far the very first packets may be out of order.
const FIRST_REORDER: u64 = 64;

/// One RTP packet of the video, its sequence number extended beyond 16 bits.
#[derive(Clone, Debug)]
pub struct Packet {
    pub seq: u64,
    /// Extended RTP timestamp, 90 kHz.
    pub ticks: u64,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    /// abs-capture-time, in milliseconds since 1970 on the sender's clock.
    pub capture_ms: Option<f64>,
    pub arrived: Moment,
}

/// What came out.
#[derive(Clone, Debug)]
pub enum Assembled {
    /// All packets of one access unit.
    Frame(Frame),
    /// A hole that was not filled within [`PATIENCE`].
    Hole {
        /// Packets that never came.
        packets: u64,
    },
}

/// One access unit of which no packet is missing.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Extended RTP timestamp, 90 kHz.
    pub ticks: u64,
    pub units: Result<NalUnits, Malformed>,
    pub capture_ms: Option<f64>,
    /// When the last of its packets came.
    pub arrived: Moment,
}

/// Puts packets in order and cuts them into access units at marker bits and changes of the timestamp.
#[derive(Debug, Default)]
pub struct Assembler {
    packets: BTreeMap<u64, Packet>,
    /// The first packet of the access unit being collected.
    start: Option<u64>,
    /// The first packet that has not been looked at.
    scan: u64,
    /// The access unit being collected lost its beginning; it ends in nothing.
    headless: bool,
    /// Which packet is missing, and since when it is waited for.
    hole: Option<(u64, Instant)>,
    /// Since when the beginning of the very first picture is waited for.
    head_since: Option<Instant>,
    /// What comes before the beginning is no longer waited for.
    begun: bool,
    late: u64,
}

impl Assembler {
    /// Takes one packet.
    pub fn push(&mut self, packet: Packet) {
        let seq = packet.seq;
        match self.start {
            None => (self.start, self.scan) = (Some(seq), seq),
            Some(start) if seq < start => {
                if self.begun || start - seq > FIRST_REORDER {
                    self.late += 1;
                    return;
                }
                (self.start, self.scan) = (Some(seq), seq);
            }
            Some(_) => {}
        }
        self.packets.entry(seq).or_insert(packet);
    }

    /// The next thing that is certain at `now`, if any. To be called until it returns `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Assembled> {
        let mut start = self.start?;
        let headless = |packet: &Packet| !packet.payload.is_empty() && !begins_picture(&packet.payload);
        if !self.begun && self.packets.get(&start).is_some_and(headless) {
            let since = *self.head_since.get_or_insert(now);
            if now.saturating_duration_since(since) < HEAD_PATIENCE {
                return None;
            }
            self.begun = true;
        }
        loop {
            let Some(packet) = self.packets.get(&self.scan) else {
                let Some((&next, after)) = self.packets.range(self.scan..).next() else {
                    self.hole = None;
                    return None;
                };
                // Of many holes each has been there since then: they are not waited for one after the other.
                let since = match self.hole {
                    Some((seq, since)) if seq == self.scan => since,
                    _ => after.arrived.mono.min(now),
                };
                self.hole = Some((self.scan, since));
                if now.saturating_duration_since(since) < PATIENCE && self.packets.len() < BUFFERED {
                    return None;
                }
                return Some(self.give_up(start, next));
            };
            let previous = self.packets.get(&start).map_or(packet.ticks, |first| first.ticks);
            let end = if packet.ticks != previous {
                self.scan
            } else {
                self.scan += 1;
                if !packet.marker {
                    continue;
                }
                self.scan
            };
            let rest = self.packets.split_off(&end);
            let unit = std::mem::replace(&mut self.packets, rest);
            (self.start, start) = (Some(end), end);
            if std::mem::take(&mut self.headless) {
                continue;
            }
            if let Some(frame) = frame(&unit) {
                self.begun = true;
                return Some(Assembled::Frame(frame));
            }
        }
    }

    /// When [`Assembler::poll`] has to be called again though no packet came.
    pub fn deadline(&self) -> Option<Instant> {
        let head = self.head_since.filter(|_| !self.begun).map(|since| since + HEAD_PATIENCE);
        self.hole.map(|(_, since)| since + PATIENCE).or(head)
    }

    /// Packets that came after they had been given up, or before the first picture.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn give_up(&mut self, start: u64, next: u64) -> Assembled {
        let lost = next - self.scan;
        let broken = self.packets.get(&start).map(|first| first.ticks);
        self.packets = self.packets.split_off(&next);
        self.headless = self
            .packets
            .get(&next)
            .is_none_or(|packet| Some(packet.ticks) == broken || !begins_picture(&packet.payload));
        (self.start, self.scan) = (Some(next), next);
        self.hole = None;
        self.begun = true;
        Assembled::Hole { packets: lost }
    }
}

/// `None` if the packets carry nothing but padding.
fn frame(unit: &BTreeMap<u64, Packet>) -> Option<Frame> {
    let (_, first) = unit.first_key_value()?;
    if unit.values().all(|packet| packet.payload.is_empty()) {
        return None;
    }
    Some(Frame {
        ticks: first.ticks,
        units: NalUnits::read(unit.values().map(|packet| &*packet.payload)),
        capture_ms: unit.values().find_map(|packet| packet.capture_ms),
        arrived: unit.values().fold(first.arrived, |latest, packet| latest.max(packet.arrived)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 3_000;

    /// Picture `n` in three packets with sequence numbers `3n`, `3n + 1`, `3n + 2`.
    fn packets(n: u64, arrived: Moment) -> [Packet; 3] {
        let payloads: [&[u8]; 3] = [&[0x5c, 0x81, 0x9a, n as u8], &[0x5c, 0x01, n as u8], &[0x5c, 0x41, n as u8]];
        std::array::from_fn(|part| Packet {
            seq: 3 * n + part as u64,
            ticks: n * FRAME,
            marker: part == 2,
            payload: payloads[part].into(),
            capture_ms: (part == 0).then_some(n as f64),
            arrived,
        })
    }

    /// A letter for each result: `F` (whole) or `X` (malformed) with the picture's number, `H` with the number of packets.
    fn drain(assembler: &mut Assembler, now: Moment) -> Vec<String> {
        std::iter::from_fn(|| assembler.poll(now.mono))
            .map(|assembled| match assembled {
                Assembled::Frame(frame) => {
                    let Ok(units) = frame.units else {
                        return format!("X{}", frame.ticks / FRAME);
                    };
                    assert_eq!(frame.capture_ms, Some((frame.ticks / FRAME) as f64));
                    assert_eq!(units.annexb.len(), 4 + 5);
                    format!("F{}", frame.ticks / FRAME)
                }
                Assembled::Hole { packets } => format!("H{packets}"),
            })
            .collect()
    }

    #[test]
    fn any_order_within_a_picture_and_between_pictures_gives_the_same_pictures() {
        let now = Moment::now();
        for order in [
            [0, 1, 2, 3, 4, 5],
            [1, 0, 2, 3, 4, 5],
            [2, 0, 1, 5, 4, 3],
            [1, 2, 0, 3, 5, 4],
            [0, 1, 3, 4, 5, 2],
            [0, 0, 1, 2, 5, 3],
        ] {
            let all: Vec<_> = [packets(5, now), packets(6, now)].concat();
            let mut assembler = Assembler::default();
            let mut seen = Vec::new();
            for place in order {
                assembler.push(all[place].clone());
                seen.extend(drain(&mut assembler, now));
            }
            if order.contains(&4) {
                assert_eq!(seen, ["F5", "F6"], "{order:?}");
            } else {
                assert_eq!(seen, ["F5"], "{order:?}");
            }
        }
    }

    #[test]
    fn a_packet_that_is_repaired_in_time_loses_nothing() {
        let now = Moment::now();
        let mut assembler = Assembler::default();
        let [a, b, c] = packets(1, now);
        [a, c].into_iter().chain(packets(2, now)).for_each(|packet| assembler.push(packet));
        assert!(drain(&mut assembler, now).is_empty());
        assert_eq!(assembler.deadline(), Some(now.mono + PATIENCE));
        assembler.push(b);
        assert_eq!(drain(&mut assembler, now.plus_ms(999.0)), ["F1", "F2"]);
        assert_eq!(assembler.deadline(), None);
    }

    #[test]
    fn a_hole_costs_its_own_picture_and_no_other() {
        let now = Moment::now();
        // Which sequence numbers are missing, and what comes out of pictures 1 to 4.
        for (missing, expected) in [
            (3..4, vec!["X1", "F2", "F3", "F4"]),
            (4..5, vec!["H1", "F2", "F3", "F4"]),
            (6..7, vec!["F1", "H1", "F3", "F4"]),
            (7..8, vec!["F1", "H1", "F3", "F4"]),
            (8..9, vec!["F1", "H1", "F3", "F4"]),
            (8..10, vec!["F1", "H2", "F4"]),
            (6..12, vec!["F1", "H6", "F4"]),
        ] {
            let mut assembler = Assembler::default();
            for packet in (1..=4)
                .flat_map(|n| packets(n, now))
                .filter(|packet| !missing.contains(&packet.seq))
            {
                assembler.push(packet);
            }
            let mut seen = drain(&mut assembler, now);
            if missing.start == 3 {
                assert_eq!(assembler.deadline(), Some(now.mono + HEAD_PATIENCE));
            }
            seen.extend(drain(&mut assembler, now.plus_ms(50.0)));
            seen.extend(drain(&mut assembler, now.plus_ms(1_000.0)));
            assert_eq!(seen, expected, "{missing:?}");
        }
    }

    #[test]
    fn a_packet_that_comes_after_its_turn_is_counted_and_left_out() {
        let now = Moment::now();
        let mut assembler = Assembler::default();
        packets(2, now).into_iter().for_each(|packet| assembler.push(packet));
        assert_eq!(drain(&mut assembler, now), ["F2"]);
        packets(1, now).into_iter().for_each(|packet| assembler.push(packet));
        assert!(drain(&mut assembler, now).is_empty());
        assert_eq!(assembler.late(), 3);
    }

    #[test]
    fn a_buffer_that_is_full_ends_the_wait() {
        let now = Moment::now();
        let mut assembler = Assembler::default();
        let all = (1..=2 + BUFFERED as u64 / 3)
            .flat_map(|n| packets(n, now))
            .filter(|packet| packet.seq != 7);
        all.for_each(|packet| assembler.push(packet));
        let seen = drain(&mut assembler, now);
        assert_eq!(&seen[..3], ["F1", "H1", "F3"]);
        assert!(assembler.packets.is_empty());
    }

    #[test]
    fn a_picture_without_marker_ends_where_the_timestamp_changes_and_padding_is_no_picture() {
        let now = Moment::now();
        let mut assembler = Assembler::default();
        let mut first = packets(1, now);
        first[2].marker = false;
        first.into_iter().for_each(|packet| assembler.push(packet));
        assert!(drain(&mut assembler, now).is_empty());
        let [a, b, c] = packets(2, now);
        for (seq, mut packet) in (6..).zip([a.clone(), a, b, c]) {
            if seq == 6 {
                packet = Packet {
                    payload: [].into(),
                    marker: true,
                    ..packet
                };
            }
            assembler.push(Packet { seq, ..packet });
        }
        assert_eq!(drain(&mut assembler, now), ["F1", "F2"]);
    }
}
