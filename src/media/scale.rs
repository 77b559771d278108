//! Half the width and half the height of a raw picture.

use super::RawFrame;

/// The width or height that half of `pixels` is: even, as 4:2:0 has to be.
#[must_use]
pub fn halved(pixels: u32) -> u32 {
    (pixels / 2) & !1
}

/// Puts a quarter of `from` into `to`, whose memory is used again: each pixel is the mean of four (a box filter). What does not fill
/// four pixels of 4:2:0 at the right and lower edge is left out.
pub fn halve(from: &RawFrame, to: &mut RawFrame) {
    to.width = halved(from.width);
    to.height = halved(from.height);
    to.time = from.time;
    to.captured = from.captured;
    let (width, height) = (from.width as usize, from.height as usize);
    let (w, h) = (to.width as usize, to.height as usize);
    to.i420.resize(w * h * 3 / 2, 0);
    let (luma, chroma) = to.i420.split_at_mut(w * h);
    let (cb, cr) = chroma.split_at_mut(w * h / 4);
    let mut from = from.i420.as_slice();
    for (to, to_width, from_width, from_height) in [
        (luma, w, width, height),
        (cb, w / 2, width / 2, height / 2),
        (cr, w / 2, width / 2, height / 2),
    ] {
        let (plane, rest) = from.split_at_checked(from_width * from_height).unwrap_or_default();
        halve_plane(plane, from_width, to, to_width);
        from = rest;
    }
}

fn halve_plane(from: &[u8], from_width: usize, to: &mut [u8], to_width: usize) {
    if to_width == 0 {
        return;
    }
    for (to, rows) in to.chunks_exact_mut(to_width).zip(from.chunks_exact(from_width * 2)) {
        let (upper, lower) = rows.split_at(from_width);
        for ((to, upper), lower) in to.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
            let sum = u16::from(upper[0]) + u16::from(upper[1]) + u16::from(lower[0]) + u16::from(lower[1]);
            *to = ((sum + 2) / 4) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::MediaTime;

    fn frame(width: u32, height: u32, i420: Vec<u8>) -> RawFrame {
        RawFrame {
            i420,
            width,
            height,
            time: MediaTime::from_ticks(90),
            captured: Instant::now(),
        }
    }

    #[test]
    fn each_pixel_is_the_mean_of_the_four_it_stands_for() {
        #[rustfmt::skip]
        let luma = [
            0, 4, 255, 255,  10, 10, 1, 2,
            8, 12, 255, 255, 10, 10, 3, 4,
            0, 0, 0, 1,      9, 9, 9, 9,
            0, 0, 1, 0,      9, 9, 9, 9,
        ];
        let (cb, cr) = ([20, 22, 100, 104, 24, 26, 96, 100], [50, 50, 60, 60, 50, 50, 60, 61]);
        let from = frame(8, 4, [&luma[..], &cb, &cr].concat());
        let mut to = frame(0, 0, vec![7; 100]);
        halve(&from, &mut to);
        assert_eq!((to.width, to.height, to.time, to.captured), (4, 2, from.time, from.captured));
        assert_eq!(to.i420, [6, 255, 10, 3, 0, 1, 9, 9, 23, 100, 50, 60]);
    }

    #[test]
    fn an_odd_half_loses_its_last_column_and_row_and_no_picture_makes_it_panic() {
        // 854x480 is 427x240 halved, and 426 is even.
        assert_eq!((halved(854), halved(480), halved(1), halved(0)), (426, 240, 0, 0));
        for (width, height) in [(854u32, 480u32), (6, 6), (2, 2), (4, 2), (0, 0)] {
            let from = frame(width, height, vec![77; (width * height * 3 / 2) as usize]);
            let mut to = frame(0, 0, Vec::new());
            halve(&from, &mut to);
            assert_eq!(to.i420.len() as u32, halved(width) * halved(height) * 3 / 2);
            assert!(to.i420.iter().all(|sample| *sample == 77), "{width}x{height}");
        }
        let mut to = frame(0, 0, Vec::new());
        halve(&frame(8, 4, vec![1; 5]), &mut to);
        assert_eq!(to.i420, [0; 12], "a picture that is shorter than it says");
    }
}
