//! Draws the test card: a static background once, then only what changes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::font;
use super::stamp::{self, Stamp};
use crate::media::{MediaTime, RawFrame};

const BLACK: u8 = 16;
const WHITE: u8 = 235;
const GREY: u8 = 60;
/// Neutral chroma.
const NEUTRAL: u8 = 128;
/// How long the block in the lane takes from one side to the other.
const SWEEP_MS: u64 = 4_000;
/// 75 % colour bars (ITU-R BT.709, limited range): Y, Cb, Cr.
const BARS: [[u8; 3]; 7] = [
    [180, 128, 128],
    [168, 44, 136],
    [145, 147, 44],
    [133, 63, 52],
    [63, 193, 204],
    [51, 109, 212],
    [28, 212, 120],
];

/// The card. From the top, in fifteenths of the height: title and date (2), wall clock to the millisecond, UTC (4), number of
/// the picture (2), colour bars (2), a white block that runs from left to right in four seconds (2), rest (1), and the stamp (2).
#[derive(Debug)]
pub struct Card {
    frame: RawFrame,
    clock: Line,
    date: Line,
    counter: Line,
    stamp: Option<[[bool; stamp::COLUMNS]; stamp::ROWS]>,
    block: usize,
}

/// A line of text that is drawn again only where it changes.
#[derive(Debug)]
struct Line {
    x: usize,
    y: usize,
    scale: usize,
    shown: Vec<char>,
}

impl Card {
    /// A card of `width` by `height` pixels, both even and at least 160 by 120, with `name` as its title.
    #[must_use]
    pub fn new(width: u32, height: u32, name: &str, now: Instant) -> Self {
        let (w, h) = (width as usize, height as usize);
        let mut i420 = vec![NEUTRAL; w * h * 3 / 2];
        i420[..w * h].fill(GREY);
        let frame = RawFrame {
            i420,
            width,
            height,
            time: MediaTime::default(),
            captured: now,
        };
        let unit = h / stamp::HEIGHT_IN_CELLS;
        let small = (unit / 10).max(1);
        let line = |y, scale| Line {
            x: w / 40,
            y,
            scale,
            shown: Vec::new(),
        };
        let clock = (w / (12 * (font::WIDTH + 1) + 6)).min(4 * unit / 9).max(1);
        let mut card = Self {
            frame,
            clock: line(2 * unit + unit / 4, clock),
            date: line(unit + unit / 4, small),
            counter: line(6 * unit + unit / 4, (unit / 6).max(1)),
            stamp: None,
            block: 0,
        };
        let mut title = line(unit / 4, small);
        title.write(&mut card.frame, &format!("PEERCAM TEST CARD  {name}  {width}X{height}"));
        for (n, bar) in BARS.iter().enumerate() {
            let (left, right) = ((n * w / BARS.len()) & !1, ((n + 1) * w / BARS.len()) & !1);
            fill(&mut card.frame, left, (8 * unit) & !1, right - left, (2 * unit) & !1, *bar);
        }
        card.lane(0, w, BLACK);
        card
    }

    /// Draws the picture of the moment `wall` (and `captured`, the same on the monotonic clock), number `number`.
    pub fn draw(&mut self, number: u64, wall: SystemTime, captured: Instant, time: MediaTime) -> &RawFrame {
        let unix_ms = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64;
        self.frame.captured = captured;
        self.frame.time = time;
        let (year, month, day) = civil(unix_ms / 86_400_000);
        let seconds = unix_ms / 1000 % 86_400;
        let clock = format!(
            "{:02}:{:02}:{:02}.{:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            unix_ms % 1000
        );
        self.clock.write(&mut self.frame, &clock);
        self.date.write(&mut self.frame, &format!("{year:04}-{month:02}-{day:02} UTC"));
        self.counter.write(&mut self.frame, &format!("PICTURE {number:08}"));
        self.sweep(unix_ms);
        self.write_stamp(Stamp {
            unix_ms,
            frame: number as u16,
        });
        &self.frame
    }

    fn write_stamp(&mut self, stamp: Stamp) {
        let cells = stamp.cells();
        let (width, height) = (self.frame.width as usize, self.frame.height as usize);
        for (row, column) in (0..stamp::ROWS).flat_map(|row| (0..stamp::COLUMNS).map(move |column| (row, column))) {
            let on = cells[row][column];
            if self.stamp.is_none_or(|shown| shown[row][column] != on) {
                let (x, y, w, h) = stamp::cell_area(row, column, width, height);
                fill_luma(&mut self.frame, x, y, w, h, if on { WHITE } else { BLACK });
            }
        }
        self.stamp = Some(cells);
    }

    /// Moves the block: only the strips that it left and entered are drawn.
    fn sweep(&mut self, unix_ms: u64) {
        let width = self.frame.width as usize;
        let size = width / 16;
        let x = (unix_ms % SWEEP_MS) as usize * (width - size) / SWEEP_MS as usize;
        self.lane(self.block, self.block + size, BLACK);
        self.lane(x, x + size, WHITE);
        self.block = x;
    }

    fn lane(&mut self, left: usize, right: usize, luma: u8) {
        let unit = self.frame.height as usize / stamp::HEIGHT_IN_CELLS;
        fill_luma(&mut self.frame, left, 10 * unit + unit / 4, right - left, 2 * unit - unit / 2, luma);
    }
}

impl Line {
    fn write(&mut self, frame: &mut RawFrame, text: &str) {
        let cell = (font::WIDTH + 1) * self.scale;
        let fits = (frame.width as usize - self.x) / cell;
        for (at, character) in text.chars().take(fits).enumerate() {
            if self.shown.get(at) == Some(&character) {
                continue;
            }
            let x = self.x + at * cell;
            for (row, bits) in font::glyph(character).into_iter().enumerate() {
                for column in 0..font::WIDTH {
                    let on = bits >> (font::WIDTH - 1 - column) & 1 == 1;
                    let (x, y) = (x + column * self.scale, self.y + row * self.scale);
                    fill_luma(frame, x, y, self.scale, self.scale, if on { WHITE } else { GREY });
                }
            }
        }
        self.shown = text.chars().collect();
    }
}

fn fill_luma(frame: &mut RawFrame, x: usize, y: usize, width: usize, height: usize, luma: u8) {
    let stride = frame.width as usize;
    for row in y..(y + height).min(frame.height as usize) {
        frame.i420[row * stride + x..][..width].fill(luma);
    }
}

/// Fills an area whose edges are even.
fn fill(frame: &mut RawFrame, x: usize, y: usize, width: usize, height: usize, [luma, cb, cr]: [u8; 3]) {
    fill_luma(frame, x, y, width, height, luma);
    let (w, h) = (frame.width as usize, frame.height as usize);
    for (plane, sample) in [cb, cr].into_iter().enumerate() {
        let plane = w * h + plane * (w / 2) * (h / 2);
        for row in y / 2..(y + height) / 2 {
            frame.i420[plane + row * (w / 2) + x / 2..][..width / 2].fill(sample);
        }
    }
}

/// Year, month and day of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_tells_the_moment_and_number_of_every_picture_at_any_size() {
        for (width, height) in [(160, 120), (320, 180), (640, 360), (1280, 720), (1920, 1080), (854, 480)] {
            let mut card = Card::new(width, height, "front", Instant::now());
            for n in 0..50u64 {
                let unix_ms = 1_764_000_000_123 + n * 33;
                let wall = UNIX_EPOCH + Duration::from_millis(unix_ms);
                let frame = card.draw(65_520 + n, wall, Instant::now(), MediaTime::default());
                let read = Stamp::read(&frame.i420, width as usize, height as usize);
                let frame = (65_520 + n) as u16;
                assert_eq!(read, Some(Stamp { unix_ms, frame }), "{width}x{height}, picture {n}");
            }
        }
    }

    #[test]
    fn drawing_only_what_changes_gives_the_same_picture_as_drawing_all() {
        let at = |n: u64| UNIX_EPOCH + Duration::from_millis(1_764_000_000_000 + n * 333);
        let mut kept = Card::new(640, 360, "front", Instant::now());
        for n in 0..40 {
            kept.draw(n, at(n), Instant::now(), MediaTime::default());
        }
        let mut fresh = Card::new(640, 360, "front", Instant::now());
        let fresh = fresh.draw(39, at(39), Instant::now(), MediaTime::default());
        assert!(
            kept.frame.i420 == fresh.i420,
            "something of an earlier picture was left on the card"
        );
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }
}
