//! A film: access units of Annex B, or JPEG pictures, for the camera to show; NAL units to compare by.

use std::ops::Range;
use std::path::Path;

const SLICE: u8 = 1;
const KEY_SLICE: u8 = 5;
const PARAMETERS: u8 = 7;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// A film whose access units each begin with a delimiter, or of JPEG pictures one after the other; looped for ever.
pub struct Film {
    bytes: Vec<u8>,
    units: Vec<Range<usize>>,
    next: usize,
}

impl Film {
    /// Reads a film.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
        let starts: Vec<usize> = nal_units(&bytes)
            .iter()
            .filter(|unit| bytes[unit.start] & 31 == DELIMITER)
            .map(|unit| start_code(&bytes, unit.start))
            .collect();
        if starts.is_empty() {
            return Err(format!("{} has no access unit delimiters", path.display()));
        }
        let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
        let units = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
        Ok(Self { bytes, units, next: 0 })
    }

    /// Reads JPEG pictures that follow each other, as `ffmpeg -f mjpeg` writes them.
    pub fn read_jpeg(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
        let units = jpegs(&bytes);
        if units.is_empty() {
            return Err(format!("{} has no JPEG picture", path.display()));
        }
        Ok(Self { bytes, units, next: 0 })
    }

    /// The next access unit, start codes and all.
    pub fn next_unit(&mut self) -> &[u8] {
        let unit = self.units[self.next].clone();
        self.next = (self.next + 1) % self.units.len();
        &self.bytes[unit]
    }
}

/// A part of a saved stream that the film has in one piece.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of its first NAL unit in the film.
    pub first: usize,
    pub units: usize,
    pub pictures: usize,
}

/// Takes `saved` apart into runs of the looped `film`, NAL unit by NAL unit; delimiters, filler and start codes don't count.
///
/// # Errors
/// A NAL unit is not the film's, or a run does not begin with parameter sets, so that it cannot be decoded.
pub fn compare(film: &[u8], saved: &[u8]) -> Result<Vec<Run>, String> {
    let (film, saved) = (compared_units(film), compared_units(saved));
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(unit) = saved.get(at) {
        let kind = unit[0] & 31;
        let equal_from = |first: usize| {
            let looped = film.iter().cycle().skip(first);
            saved[at..].iter().zip(looped).take_while(|(saved, shown)| saved == shown).count()
        };
        let (units, first) = (0..film.len()).map(|first| (equal_from(first), first)).max().unwrap_or_default();
        let place = format!("NAL unit {at} of {} ({} bytes, type {kind})", saved.len(), unit.len());
        if units == 0 {
            return Err(format!("{place} is not in the film"));
        }
        if kind != PARAMETERS {
            return Err(format!(
                "{place} is NAL unit {first} of the film: it does not go on from the one before, nor begin with parameter sets"
            ));
        }
        let run = &saved[at..at + units];
        let pictures = run.iter().filter(|unit| begins_picture(unit)).count();
        runs.push(Run { first, units, pictures });
        at += units;
    }
    Ok(runs)
}

/// What follows the first parameter sets that begin at byte `from` or later; everything, if `from` is 0.
pub fn from_parameters(saved: &[u8], from: usize) -> &[u8] {
    if from == 0 {
        return saved;
    }
    let tail = saved.get(from..).unwrap_or_default();
    let first = nal_units(tail).into_iter().find(|unit| tail[unit.start] & 31 == PARAMETERS);
    first.map_or(&[], |unit| &tail[start_code(tail, unit.start)..])
}

fn compared_units(bytes: &[u8]) -> Vec<&[u8]> {
    nal_units(bytes)
        .into_iter()
        .map(|unit| &bytes[unit])
        .filter(|unit| !matches!(unit[0] & 31, DELIMITER | FILLER))
        .collect()
}

/// Whether a slice is its picture's first: `first_mb_in_slice` is 0, one set bit in Exp-Golomb.
fn begins_picture(unit: &[u8]) -> bool {
    matches!(unit[0] & 31, SLICE | KEY_SLICE) && unit.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// Every NAL unit that is not empty, without start codes and trailing zero bytes.
fn nal_units(bytes: &[u8]) -> Vec<Range<usize>> {
    let starts: Vec<usize> = bytes
        .windows(3)
        .enumerate()
        .filter(|(_, three)| *three == [0, 0, 1])
        .map(|(at, _)| at + 3)
        .collect();
    let ends = starts.iter().skip(1).map(|next| next - 3).chain([bytes.len()]);
    starts
        .iter()
        .copied()
        .zip(ends)
        .filter_map(|(start, end)| {
            let last = bytes[start..end].iter().rposition(|byte| *byte != 0)?;
            Some(start..start + last + 1)
        })
        .collect()
}

/// From each start of an image to the end that follows it: inside, 0xff is followed by a marker or by a zero that is left out.
fn jpegs(bytes: &[u8]) -> Vec<Range<usize>> {
    let at = |marker: u8| {
        bytes
            .windows(2)
            .enumerate()
            .filter(move |(_, two)| **two == [0xff, marker])
            .map(|(at, _)| at)
    };
    at(0xd8).zip(at(0xd9)).map(|(start, end)| start..end + 2).collect()
}

/// Where the start code before the NAL unit at `unit` begins.
fn start_code(bytes: &[u8], unit: usize) -> usize {
    let three = unit - 3;
    if three > 0 && bytes[three - 1] == 0 { three - 1 } else { three }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameter sets, two key slices, then two pictures of one slice each.
    const FILM: &[u8] = b"\0\0\0\x01\x09\x10\0\0\0\x01\x67\x42\0\0\0\x01\x68\xce\0\0\x01\x65\x88\x01\0\0\x01\x65\x48\x02\
                          \0\0\0\x01\x09\x30\0\0\x01\x41\x9a\x03\0\0\0\x01\x09\x30\0\0\x01\x41\x9a\x04";

    #[test]
    fn jpeg_pictures_are_told_apart() {
        let film = b"\xff\xd8\xff\xdaone\xff\x00\xff\xd9\xff\xd8two\xff\xd9\xff\xd8brok";
        assert_eq!(jpegs(film), [0..11, 11..18]);
    }

    #[test]
    fn a_stream_that_joined_late_and_looped_is_found_whatever_its_start_codes() {
        let saved = b"\0\0\x01\x67\x42\0\0\x01\x68\xce\0\0\0\x01\x65\x88\x01\0\0\0\x01\x0c\xff\x80\0\0\0\x01\x65\x48\x02\
                      \0\0\x01\x41\x9a\x03\0\0\x01\x41\x9a\x04\0\0\x01\x67\x42";
        let run = Run {
            first: 0,
            units: 7,
            pictures: 3,
        };
        assert_eq!(compare(FILM, saved), Ok(vec![run]));
        assert_eq!(compare(FILM, b""), Ok(vec![]));
    }

    #[test]
    fn what_is_before_the_next_parameter_sets_can_be_left_out() {
        assert_eq!(from_parameters(FILM, 0), FILM);
        assert_eq!(from_parameters(FILM, 1), &FILM[6..]);
        assert_eq!(from_parameters(FILM, 11), b"");
        assert_eq!(from_parameters(FILM, 10_000), b"");
    }

    #[test]
    fn a_gap_ends_a_run_and_the_next_one_begins_with_parameter_sets() {
        let key = b"\0\0\x01\x67\x42\0\0\x01\x68\xce\0\0\x01\x65\x88\x01\0\0\x01\x65\x48\x02";
        let runs = compare(FILM, &[&key[..], key].concat()).expect("two runs");
        assert_eq!(
            runs.iter().map(|run| (run.first, run.units, run.pictures)).collect::<Vec<_>>(),
            [(0, 4, 1); 2]
        );
        let missing = compare(FILM, &[key, &b"\0\0\x01\x41\x9a\x04"[..]].concat()).expect_err("a picture is missing");
        assert!(
            missing.starts_with("NAL unit 4 of 5") && missing.contains("unit 5 of the film"),
            "{missing}"
        );
        let changed = compare(FILM, b"\0\0\x01\x67\x42\0\0\x01\x68\xcf").expect_err("changed");
        assert!(changed.contains("not in the film"), "{changed}");
    }
}
