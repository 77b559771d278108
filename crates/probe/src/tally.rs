//! What one viewer saw: pictures shown, lost, left out; freezes; latency.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use crate::assembler::{Assembled, Frame};
use crate::moment::Moment;
use crate::samples::Samples;

/// Intervals that the usual distance of two pictures is the median of.
const INTERVALS: usize = 31;

/// Intervals after which that median is trusted.
const TRUSTED: usize = 8;

/// Whether the stream can go on being decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Something is missing: only a key frame helps.
    NeedsKeyFrame,
}

/// The running account of one viewer's video.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whole pictures that could be decoded: all pictures they refer to were there too.
    pub shown: u64,
    pub key_frames: u64,
    /// Pictures broken by packets that never came, or malformed.
    pub lost: u64,
    /// Whole pictures that could not be decoded, after a loss or before the first key frame.
    pub undecodable: u64,
    /// Pictures that the sender never sent, as jumps of the RTP timestamp tell.
    pub skipped: u64,
    pub malformed: u64,
    /// NAL units in whole pictures.
    pub nal_units: u64,
    pub lost_packets: u64,
    pub freezes: u64,
    pub frozen_ms: f64,
    /// When the first key frame was whole.
    pub first_key: Option<Moment>,
    /// Receive moment on the local clock minus abs-capture-time, in milliseconds, of the pictures since it has settled.
    pub delay_ms: Samples,
    /// Distance of pictures as they became decodable, in milliseconds.
    pub interval_ms: Samples,
    last_shown: Option<Moment>,
    last_ticks: Option<u64>,
    ready: Option<Moment>,
    distances: VecDeque<u64>,
    shown_intervals: VecDeque<f64>,
    undecided: Vec<u64>,
    decodable: bool,
    hole: bool,
    settle_ms: f64,
    settled_whole: u64,
    settled_lost: u64,
}

impl Tally {
    /// An account whose delays and percentage of whole pictures count from so long after the first key frame on.
    pub fn new(settle: Duration) -> Self {
        Self {
            settle_ms: settle.as_secs_f64() * 1e3,
            ..Self::default()
        }
    }

    /// Enters what the assembler found, and writes whole pictures to `save`.
    ///
    /// # Errors
    /// Writing failed.
    pub fn enter(&mut self, assembled: &Assembled, save: Option<&mut dyn Write>) -> std::io::Result<Verdict> {
        match assembled {
            Assembled::Hole { packets } => {
                self.lost_packets += packets;
                self.hole = true;
                self.decodable = false;
                Ok(Verdict::NeedsKeyFrame)
            }
            Assembled::Frame(frame) => self.frame(frame, save),
        }
    }

    /// Pictures of which every packet came, in percent of those that were sent since it has settled.
    pub fn whole_percent(&self) -> Option<f64> {
        let sent = self.settled_whole + self.settled_lost;
        (sent > 0).then(|| self.settled_whole as f64 * 100.0 / sent as f64)
    }

    /// Pictures a second that could be decoded, from the first key frame to `end`.
    pub fn fps(&self, end: Moment) -> Option<f64> {
        let elapsed = end.ms_since(self.first_key?);
        (elapsed > 0.0).then(|| self.shown as f64 * 1e3 / elapsed)
    }

    /// The usual distance of two pictures in 90 kHz ticks, once there are enough to tell.
    pub fn nominal_ticks(&self) -> Option<u64> {
        if self.distances.len() < TRUSTED {
            return None;
        }
        let mut sorted: Vec<u64> = self.distances.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// Counts a freeze that is still going on when the run ends.
    pub fn finish(&mut self, end: Moment) {
        if let Some(last) = self.last_shown {
            self.freeze(end.ms_since(last));
        }
        self.last_shown = None;
    }

    fn frame(&mut self, frame: &Frame, save: Option<&mut dyn Write>) -> std::io::Result<Verdict> {
        let Ok(units) = &frame.units else {
            self.malformed += 1;
            self.hole = true;
            self.decodable = false;
            return Ok(Verdict::NeedsKeyFrame);
        };
        if let Some(save) = save {
            save.write_all(&units.annexb)?;
        }
        self.nal_units += units.count as u64;
        if !units.is_picture() {
            return Ok(if self.decodable { Verdict::Fine } else { Verdict::NeedsKeyFrame });
        }
        let lost = self.lost;
        self.distance(frame.ticks);
        let lost = self.lost - lost;
        let ready = self.ready.map_or(frame.arrived, |before| before.max(frame.arrived));
        self.ready = Some(ready);
        if units.is_key() {
            self.decodable = true;
            self.key_frames += 1;
            self.first_key.get_or_insert(ready);
        }
        let settled = self.first_key.is_some_and(|first| ready.ms_since(first) >= self.settle_ms);
        if settled {
            self.settled_whole += 1;
            self.settled_lost += lost;
            if let Some(capture_ms) = frame.capture_ms {
                self.delay_ms.push(ready.unix_ms - capture_ms);
            }
        }
        if !self.decodable {
            self.undecodable += 1;
            return Ok(Verdict::NeedsKeyFrame);
        }
        self.shown += 1;
        if let Some(last) = self.last_shown.replace(ready) {
            let interval = ready.ms_since(last);
            self.freeze(interval);
            self.interval_ms.push(interval);
            bounded(&mut self.shown_intervals, interval);
        }
        Ok(Verdict::Fine)
    }

    /// A freeze as WebRTC's statistics define it (W3C webrtc-stats, `freezeCount`): longer than three times the mean distance of
    /// the last pictures, and longer than that mean and 150 ms.
    fn freeze(&mut self, interval_ms: f64) {
        if self.shown_intervals.is_empty() {
            return;
        }
        let mean = self.shown_intervals.iter().sum::<f64>() / self.shown_intervals.len() as f64;
        if interval_ms > (3.0 * mean).max(mean + 150.0) {
            self.freezes += 1;
            self.frozen_ms += interval_ms;
        }
    }

    /// Tells from the RTP timestamps how many pictures are missing between the last one and this: lost if packets are missing,
    /// else never sent.
    fn distance(&mut self, ticks: u64) {
        let hole = std::mem::take(&mut self.hole);
        let distance = self
            .last_ticks
            .replace(ticks)
            .and_then(|last| ticks.checked_sub(last))
            .filter(|distance| *distance > 0);
        let Some(distance) = distance else {
            self.lost += u64::from(hole);
            return;
        };
        if hole {
            self.lost += self.nominal_ticks().map_or(1, |nominal| missing(distance, nominal).max(1));
            return;
        }
        bounded(&mut self.distances, distance);
        match self.nominal_ticks() {
            Some(nominal) => {
                self.undecided.push(distance);
                self.skipped += self.undecided.drain(..).map(|distance| missing(distance, nominal)).sum::<u64>();
            }
            None => self.undecided.push(distance),
        }
    }
}

fn bounded<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == INTERVALS {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// Pictures that fit between two that are `distance` apart.
fn missing(distance: u64, nominal: u64) -> u64 {
    ((distance + nominal / 2) / nominal.max(1)).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::depacketize::{Malformed, NalUnits};

    const KEY: [&[u8]; 3] = [&[0x67, 1], &[0x68, 2], &[0x65, 0x88]];
    const DELTA: [&[u8]; 1] = [&[0x41, 0x9a]];

    fn frame(n: u64, start: Moment, units: Result<NalUnits, Malformed>) -> Assembled {
        Assembled::Frame(Frame {
            ticks: 1_000 + n * 3_000,
            units,
            capture_ms: Some(start.unix_ms + n as f64 * 100.0 / 3.0 - 20.0),
            arrived: start.plus_ms(n as f64 * 100.0 / 3.0),
        })
    }

    /// Enters pictures: `K`ey, `D`elta, `M`alformed, `H`ole instead of one, `.` one the sender left out.
    fn run(script: &str) -> (Tally, Moment, Vec<Verdict>) {
        let start = Moment::now();
        let mut tally = Tally::default();
        let mut verdicts = Vec::new();
        for (n, letter) in (0..).zip(script.chars()) {
            let assembled = match letter {
                'K' => frame(n, start, NalUnits::read(KEY)),
                'D' => frame(n, start, NalUnits::read(DELTA)),
                'M' => frame(n, start, Err(Malformed::Fragment)),
                'H' => Assembled::Hole { packets: 2 },
                _ => continue,
            };
            verdicts.push(tally.enter(&assembled, None).expect("nothing is written"));
        }
        (tally, start, verdicts)
    }

    #[test]
    fn pictures_are_accounted_for() {
        for (script, shown, lost, undecodable, skipped) in [
            ("KDDDDDDDDDDD", 12, 0, 0, 0),
            ("DDKDDDDDDDDD", 10, 0, 2, 0),
            ("KDDDDDDDDDD.D", 12, 0, 0, 1),
            ("KD.DDDDDDDDDD", 12, 0, 0, 1),
            ("KDDDDDDDDDD...D", 12, 0, 0, 3),
            ("KDDDDDDDDDDHDDKD", 13, 1, 2, 0),
            ("KDDDDDDDDDDH..DK", 12, 3, 1, 0),
            ("KDHKDDDDDDDDD", 12, 1, 0, 0),
            ("KDDDDDDDDDDMDKD", 13, 1, 1, 0),
            ("", 0, 0, 0, 0),
        ] {
            let (tally, ..) = run(script);
            assert_eq!(
                (tally.shown, tally.lost, tally.undecodable, tally.skipped),
                (shown, lost, undecodable, skipped),
                "{script}"
            );
        }
    }

    #[test]
    fn a_loss_asks_for_a_key_frame_until_one_comes() {
        use Verdict::{Fine, NeedsKeyFrame};
        assert_eq!(run("KDHDKD").2, [Fine, Fine, NeedsKeyFrame, NeedsKeyFrame, Fine, Fine]);
        assert_eq!(run("DK").2, [NeedsKeyFrame, Fine]);
        assert_eq!(run("KMK").2, [Fine, NeedsKeyFrame, Fine]);
    }

    #[test]
    fn a_freeze_is_a_gap_of_more_than_three_usual_distances_and_of_150_ms_more_than_one() {
        for (script, freezes) in [("KDDDDDDDDDD.....D", 1), ("KDDDDDDDDDD....D", 0), ("KDDDDDDDDDDDDDD", 0)] {
            let (tally, ..) = run(script);
            assert_eq!(tally.freezes, freezes, "{script}");
        }
        let (mut tally, start, _) = run("KDDDDDDDDDD");
        tally.finish(start.plus_ms(1_000.0));
        assert_eq!(tally.freezes, 1, "a stream that stops is frozen");
        assert!((tally.frozen_ms - 666.7).abs() < 1.0, "{}", tally.frozen_ms);
    }

    #[test]
    fn rate_and_delay_are_those_of_the_stream() {
        let (tally, start, _) = run(&format!("K{}", "D".repeat(299)));
        let fps = tally.fps(start.plus_ms(10_000.0)).expect("there was a key frame");
        assert!((fps - 30.0).abs() < 0.1, "{fps}");
        let delay = tally.delay_ms.summary().expect("every picture has its capture time");
        assert_eq!(delay.count, 300);
        assert!((delay.p50 - 20.0).abs() < 0.1 && (delay.max - 20.0).abs() < 0.1, "{delay:?}");
        assert_eq!(tally.nominal_ticks(), Some(3_000));
    }

    #[test]
    fn pictures_that_were_lost_count_against_those_that_are_whole() {
        assert_eq!(run("").0.whole_percent(), None);
        assert_eq!(run("KDDDDDDDDD").0.whole_percent(), Some(100.0));
        let (tally, ..) = run("KDDDDDDDDDDDDDDDDHDK");
        assert_eq!(tally.whole_percent(), Some(95.0), "what came after the loss was whole too");
    }

    #[test]
    fn delays_count_from_so_long_after_the_first_key_frame_on() {
        for (settle_ms, counted) in [(0, 60), (500, 45), (1_900, 3), (3_000, 0)] {
            let start = Moment::now();
            let mut tally = Tally::new(Duration::from_millis(settle_ms));
            for n in 0..60 {
                let units = if n == 0 { NalUnits::read(KEY) } else { NalUnits::read(DELTA) };
                tally.enter(&frame(n, start, units), None).expect("nothing is written");
            }
            assert_eq!(tally.whole_percent(), (counted > 0).then_some(100.0));
            let summary = tally.delay_ms.summary();
            assert_eq!(summary.map_or(0, |it| it.count), counted, "{settle_ms} ms");
            assert_eq!(tally.shown, 60, "all pictures are accounted for");
        }
    }

    #[test]
    fn what_is_saved_is_every_nal_unit_of_every_whole_picture() {
        let start = Moment::now();
        let mut saved = Vec::new();
        let mut tally = Tally::default();
        for (n, units) in [
            NalUnits::read(DELTA),
            NalUnits::read(KEY),
            Err(Malformed::Fragment),
            NalUnits::read(DELTA),
        ]
        .into_iter()
        .enumerate()
        {
            tally
                .enter(&frame(n as u64, start, units), Some(&mut saved))
                .expect("a vector takes everything");
        }
        let expected: Vec<u8> = [&DELTA[..], &KEY[..], &DELTA[..]]
            .concat()
            .into_iter()
            .flat_map(|unit| [&[0, 0, 0, 1], unit].concat())
            .collect();
        assert_eq!(saved, expected);
        assert_eq!(tally.nal_units, 5);
    }
}
