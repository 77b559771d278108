//! Name and local time, written into raw pictures.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::font;
use crate::media::RawFrame;

const BLACK: u8 = 16;
const WHITE: u8 = 235;
/// Neutral chroma.
const NEUTRAL: u8 = 128;
/// A picture is so many lines of text high: readable on a phone, and out of the way.
const LINES: usize = 28;
/// Dots from line to line: a glyph, and a margin above and below.
const LINE: usize = font::HEIGHT + 4;

/// A line in the picture's upper left corner: white on a black bar, so that it can be read before anything.
pub struct Overlay {
    name: String,
    zone: fn() -> TimeZone,
    /// The second that `text` tells.
    second: Option<u64>,
    text: String,
}

impl Overlay {
    /// An overlay with this name and the time in the system's time zone.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            // Asked for anew, since a zone can be changed while we run; the library keeps it for minutes.
            zone: TimeZone::system,
            second: None,
            text: String::new(),
        }
    }

    /// Writes name and the time `wall` into a picture; one that is too small for it stays as it is.
    pub fn draw(&mut self, frame: &mut RawFrame, wall: SystemTime) {
        let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = format!("{}  {}", self.name, local(second, (self.zone)()));
        }
        let (width, height) = (frame.width as usize, frame.height as usize);
        if width < 2 || frame.i420.len() < width * height * 3 / 2 {
            return;
        }
        let cell = font::WIDTH + 1;
        // Whole dots, as large as the height asks for and the width allows.
        let fits = width / ((self.text.chars().count() + 1) * cell);
        let scale = (height / (LINES * LINE)).max(1).min(fits.max(1));
        let bar = (
            ((self.text.chars().count() + 1) * cell * scale).min(width) & !1,
            (LINE * scale + 1) & !1,
        );
        if bar.1 > height {
            return;
        }
        fill(&mut frame.i420, width, (0, 0), bar, BLACK);
        let quarter = (width / 2) * (height / 2);
        let (_, chroma) = frame.i420.split_at_mut(width * height);
        for plane in chroma.chunks_mut(quarter).take(2) {
            fill(plane, width / 2, (0, 0), (bar.0 / 2, bar.1 / 2), NEUTRAL);
        }
        for (at, character) in self.text.chars().take((bar.0 / scale).saturating_sub(cell / 2) / cell).enumerate() {
            let left = (cell / 2 + at * cell) * scale;
            for (row, bits) in font::glyph(character).into_iter().enumerate() {
                for column in (0..font::WIDTH).filter(|column| bits >> (font::WIDTH - 1 - column) & 1 == 1) {
                    let corner = (left + column * scale, (2 + row) * scale);
                    fill(&mut frame.i420, width, corner, (scale, scale), WHITE);
                }
            }
        }
    }
}

/// Date, time and zone, such as `2026-11-22 18:03:00 CET`.
fn local(unix_seconds: u64, zone: TimeZone) -> String {
    let Some(stamp) = i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
    else {
        return String::new();
    };
    stamp.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn fill(plane: &mut [u8], stride: usize, (left, top): (usize, usize), (width, height): (usize, usize), value: u8) {
    for row in plane.chunks_mut(stride).skip(top).take(height) {
        let right = (left + width).min(row.len());
        if let Some(part) = row.get_mut(left..right) {
            part.fill(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::media::MediaTime;

    fn frame(width: u32, height: u32, luma: u8) -> RawFrame {
        let mut i420 = vec![200; (width * height * 3 / 2) as usize];
        i420[..(width * height) as usize].fill(luma);
        RawFrame {
            i420,
            width,
            height,
            time: MediaTime::default(),
            captured: Instant::now(),
        }
    }

    fn overlay() -> Overlay {
        Overlay {
            zone: || TimeZone::fixed(jiff::tz::offset(1)),
            ..Overlay::new("front-door")
        }
    }

    /// What a picture says in its upper left corner, read dot by dot against the font.
    fn read(frame: &RawFrame) -> String {
        let width = frame.width as usize;
        let mut text = String::new();
        // The bar is without colour, also where all around it is as dark.
        let cb = &frame.i420[width * frame.height as usize..];
        let rows = cb.chunks(width / 2).take_while(|row| row[0] == NEUTRAL).count();
        let scale = rows * 2 / LINE;
        if scale == 0 {
            return text;
        }
        let known = "abcdefghijklmnopqrstuvwxyz0123456789-:+ ";
        let cell = font::WIDTH + 1;
        for at in 0.. {
            let left = (cell / 2 + at * cell) * scale;
            if left + font::WIDTH * scale > width {
                break;
            }
            let mut rows = [0u8; font::HEIGHT];
            for (row, bits) in rows.iter_mut().enumerate() {
                for column in 0..font::WIDTH {
                    let dot = frame.i420[((2 + row) * scale + scale / 2) * width + left + column * scale + scale / 2];
                    *bits = *bits << 1 | u8::from(dot == WHITE);
                }
            }
            let Some(letter) = known.chars().find(|known| font::glyph(*known) == rows) else {
                break;
            };
            text.push(letter);
        }
        text.trim_end().to_owned()
    }

    #[test]
    fn name_and_local_time_can_be_read_at_every_size_and_on_any_background() {
        let wall = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        for (width, height) in [(320, 240), (640, 480), (854, 480), (1280, 720), (1920, 1080)] {
            for luma in [16, 90, 235] {
                let mut picture = frame(width, height, luma);
                overlay().draw(&mut picture, wall);
                assert_eq!(read(&picture), "front-door  2025-11-24 17:00:00 +01", "{width}x{height} on {luma}");
                let below = (height / 10 * width) as usize;
                assert!(
                    picture.i420[below..(width * height) as usize].iter().all(|sample| *sample == luma),
                    "the picture below is not touched"
                );
            }
        }
    }

    #[test]
    fn summer_and_winter_are_those_of_the_zone() {
        let berlin = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        assert_eq!(local(1_764_000_000, berlin.clone()), "2025-11-24 17:00:00 CET");
        assert_eq!(local(1_750_000_000, berlin), "2025-06-15 17:06:40 CEST");
    }

    #[test]
    fn pictures_too_small_or_broken_are_left_alone() {
        for (width, height, bytes) in [(2, 2, 6), (32, 32, 1536), (640, 2, 1920), (640, 480, 7), (0, 0, 0)] {
            let mut picture = frame(2, 2, 90);
            (picture.width, picture.height) = (width, height);
            picture.i420 = vec![90; bytes];
            overlay().draw(&mut picture, UNIX_EPOCH);
            assert_eq!(picture.i420.len(), bytes);
        }
    }
}
