//! An Annex B film: its access units for the camera to show, its NAL units to compare by.

use std::ops::Range;
use std::path::Path;

const SLICE: u8 = 1;
const KEY_SLICE: u8 = 5;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// A film whose access units each begin with a delimiter, looped for ever.
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

    /// The next access unit, start codes and all.
    pub fn next_unit(&mut self) -> &[u8] {
        let unit = self.units[self.next].clone();
        self.next = (self.next + 1) % self.units.len();
        &self.bytes[unit]
    }
}

/// A saved stream's place in the film.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of its first NAL unit.
    pub first: usize,
    pub units: usize,
    pub pictures: usize,
    pub film_units: usize,
}

/// Finds `saved` in the looped `film`, NAL unit by NAL unit; delimiters, filler and start codes don't count.
pub fn compare(film: &[u8], saved: &[u8]) -> Result<Run, String> {
    let (film, saved) = (compared_units(film), compared_units(saved));
    if film.is_empty() || saved.is_empty() {
        return Err(format!("{} NAL units in the film, {} saved", film.len(), saved.len()));
    }
    let equal_from = |first: usize| {
        let looped = film.iter().cycle().skip(first);
        saved.iter().zip(looped).take_while(|(saved, shown)| saved == shown).count()
    };
    let (equal, first) = (0..film.len()).map(|first| (equal_from(first), first)).max().unwrap_or_default();
    if equal < saved.len() {
        let wrong = saved[equal];
        let place = film.iter().position(|unit| *unit == wrong);
        return Err(format!(
            "{equal} of {} NAL units are equal and in order; the next ({} bytes, type {}) is {}",
            saved.len(),
            wrong.len(),
            wrong[0] & 31,
            place.map_or("not in the film".to_owned(), |place| {
                format!("NAL unit {place} of the film where {} was due", (first + equal) % film.len())
            }),
        ));
    }
    let pictures = saved.iter().filter(|unit| begins_picture(unit)).count();
    Ok(Run {
        first,
        units: saved.len(),
        pictures,
        film_units: film.len(),
    })
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
    fn a_stream_that_joined_late_and_looped_is_found_whatever_its_start_codes() {
        let saved =
            b"\0\0\x01\x41\x9a\x04\0\0\x01\x67\x42\0\0\x01\x68\xce\0\0\0\x01\x65\x88\x01\0\0\0\x01\x0c\xff\x80\0\0\0\x01\x65\x48\x02";
        let run = compare(FILM, saved).expect("found");
        assert_eq!(
            run,
            Run {
                first: 5,
                units: 5,
                pictures: 2,
                film_units: 6
            }
        );
    }

    #[test]
    fn a_missing_a_doubled_and_a_changed_unit_are_told() {
        let missing = b"\0\0\x01\x67\x42\0\0\x01\x68\xce\0\0\x01\x65\x88\x01\0\0\x01\x41\x9a\x03";
        let why = compare(FILM, missing).expect_err("a slice is missing");
        assert!(
            why.starts_with("3 of 4") && why.contains("unit 4 of the film where 3 was due"),
            "{why}"
        );
        let doubled = b"\0\0\x01\x41\x9a\x03\0\0\x01\x41\x9a\x03";
        assert!(compare(FILM, doubled).is_err());
        let changed = b"\0\0\x01\x67\x42\0\0\x01\x68\xcf";
        assert!(compare(FILM, changed).expect_err("changed").contains("not in the film"));
        assert!(compare(FILM, b"").is_err());
    }
}
