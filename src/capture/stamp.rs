//! The machine-readable stamp on the test card: when a picture was made, and which one it is.
//!
//! It fills the bottom 2/15 of the picture, over its whole width: 2 rows of 40 cells, black or white, without gaps.
//! In a picture of `W` by `H` pixels, cell (`row`, `column`) covers
//!
//! ```text
//! x from  column * W / 40        to  (column + 1) * W / 40          column 0..39, left to right
//! y from  (13 + row) * H / 15    to  (14 + row) * H / 15            row 0 (upper), 1 (lower)
//! ```
//!
//! (divisions rounded down; 1280x720: cells of 32x48 pixels from y = 624). Columns 0 to 3 are for calibration: white, black,
//! white, black in the upper row, and black, white, black, white in the lower. A reader takes the mean luma of the middle half
//! of each cell, in both directions, and the threshold halfway between the mean of the four white and that of the four black
//! calibration cells; if those are less than 48 of 255 apart, or not alternating, there is no stamp.
//!
//! The other 36 cells of each row are bits, white is 1: 72 bits, the upper row first, left to right, most significant first:
//!
//! | bits | what |
//! | --- | --- |
//! | 0..48 | capture time, milliseconds since 1970-01-01 UTC |
//! | 48..64 | number of the picture since the source was started, modulo 65,536 |
//! | 64..72 | CRC-8 (polynomial 0x07, initial value 0, not reflected) of the eight bytes before |

/// Cells in a row.
pub const COLUMNS: usize = 40;
/// Rows of cells.
pub const ROWS: usize = 2;
/// The picture is this many cells high.
pub const HEIGHT_IN_CELLS: usize = 15;
const CALIBRATION: usize = 4;
const BITS: usize = 72;
/// White and black must differ by this much of 255 for a stamp to be read.
const MIN_CONTRAST: f64 = 48.0;

/// What the stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC; its low 48 bits are written.
    pub unix_ms: u64,
    /// The number of the picture, modulo 65,536.
    pub frame: u16,
}

impl Stamp {
    /// The cells, row by row: whether each is white.
    #[must_use]
    pub fn cells(&self) -> [[bool; COLUMNS]; ROWS] {
        let mut bytes = [0; BITS / 8];
        bytes[..6].copy_from_slice(&self.unix_ms.to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&self.frame.to_be_bytes());
        bytes[8] = crc8(&bytes[..8]);
        let mut cells = [[false; COLUMNS]; ROWS];
        for (row, cells) in cells.iter_mut().enumerate() {
            for (column, cell) in cells.iter_mut().enumerate() {
                *cell = match column.checked_sub(CALIBRATION) {
                    None => (row + column) % 2 == 0,
                    Some(column) => {
                        let bit = row * (COLUMNS - CALIBRATION) + column;
                        bytes[bit / 8] >> (7 - bit % 8) & 1 == 1
                    }
                };
            }
        }
        cells
    }

    /// Reads the stamp off a picture's luma, rows of `width` bytes without padding. `None` if there is none that can be trusted.
    #[must_use]
    pub fn read(luma: &[u8], width: usize, height: usize) -> Option<Self> {
        if width < 2 * COLUMNS || height < 4 * HEIGHT_IN_CELLS || luma.len() < width * height {
            return None;
        }
        let mut means = [[0.0; COLUMNS]; ROWS];
        for (row, means) in means.iter_mut().enumerate() {
            for (column, mean) in means.iter_mut().enumerate() {
                *mean = middle_mean(luma, width, cell_area(row, column, width, height));
            }
        }
        let calibration = (0..ROWS).flat_map(|row| (0..CALIBRATION).map(move |column| (row, column)));
        let (white, black): (Vec<_>, Vec<_>) = calibration.partition(|(row, column)| (row + column) % 2 == 0);
        let mean = |cells: &[(usize, usize)]| cells.iter().map(|&(row, column)| means[row][column]).sum::<f64>() / cells.len() as f64;
        let threshold = f64::midpoint(mean(&white), mean(&black));
        let alternating = white.iter().all(|&(row, column)| means[row][column] > threshold)
            && black.iter().all(|&(row, column)| means[row][column] < threshold);
        if mean(&white) - mean(&black) < MIN_CONTRAST || !alternating {
            return None;
        }
        let mut bytes = [0; BITS / 8];
        let bits = means.iter().flat_map(|row| &row[CALIBRATION..]);
        for (bit, _) in bits.enumerate().filter(|(_, mean)| **mean > threshold) {
            bytes[bit / 8] |= 0x80 >> (bit % 8);
        }
        if crc8(&bytes[..8]) != bytes[8] {
            return None;
        }
        let unix_ms = bytes[..6].iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        Some(Self {
            unix_ms,
            frame: u16::from_be_bytes([bytes[6], bytes[7]]),
        })
    }
}

/// The pixels of one cell: x, y, width, height.
#[must_use]
pub fn cell_area(row: usize, column: usize, width: usize, height: usize) -> (usize, usize, usize, usize) {
    let first_row = HEIGHT_IN_CELLS - ROWS;
    let (left, right) = (column * width / COLUMNS, (column + 1) * width / COLUMNS);
    let (top, bottom) = (
        (first_row + row) * height / HEIGHT_IN_CELLS,
        (first_row + row + 1) * height / HEIGHT_IN_CELLS,
    );
    (left, top, right - left, bottom - top)
}

fn middle_mean(luma: &[u8], stride: usize, (x, y, width, height): (usize, usize, usize, usize)) -> f64 {
    let columns = x + width / 4..(x + width - width / 4);
    let rows = y + height / 4..(y + height - height / 4);
    let count = columns.len() * rows.len();
    let sum: u64 = rows
        .map(|row| {
            luma[row * stride..][columns.clone()]
                .iter()
                .map(|&sample| u64::from(sample))
                .sum::<u64>()
        })
        .sum();
    sum as f64 / count as f64
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(stamp: Stamp, width: usize, height: usize, white: u8, black: u8) -> Vec<u8> {
        let mut luma = vec![90; width * height];
        for (row, cells) in stamp.cells().iter().enumerate() {
            for (column, &on) in cells.iter().enumerate() {
                let (x, y, w, h) = cell_area(row, column, width, height);
                for line in y..y + h {
                    luma[line * width + x..][..w].fill(if on { white } else { black });
                }
            }
        }
        luma
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(crc8(b"123456789"), 0xf4);
        let cells = Stamp {
            unix_ms: 0x8000_0000_0001,
            frame: 0x8001,
        }
        .cells();
        assert_eq!(cells[0][..5], [true, false, true, false, true]);
        assert_eq!(cells[1][..4], [false, true, false, true]);
        // Bit 47, the last of the time, is in the lower row; bits 48 and 63 are the first and last of the number.
        let lower: Vec<_> = (0..28).filter(|&bit| cells[1][4 + bit]).collect();
        assert_eq!(lower, [47 - 36, 48 - 36, 63 - 36]);
        assert_eq!(cell_area(1, 39, 1280, 720), (1248, 672, 32, 48));
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_read_at_any_size_and_contrast_and_nothing_else_is(
            unix_ms in 0u64..1 << 48, frame: u16, width in 80usize..900, height in 60usize..500, black in 0u8..100, contrast in 60u8..150,
            flipped in 0usize..72,
        ) {
            let stamp = Stamp { unix_ms, frame };
            let luma = draw(stamp, width, height, black + contrast, black);
            prop_assert_eq!(Stamp::read(&luma, width, height), Some(stamp));
            let mut wrong = luma.clone();
            let (x, y, w, h) = cell_area(flipped / 36, 4 + flipped % 36, width, height);
            let other = if luma[(y + h / 2) * width + x + w / 2] == black { black + contrast } else { black };
            for line in y..y + h {
                wrong[line * width + x..][..w].fill(other);
            }
            prop_assert_eq!(Stamp::read(&wrong, width, height), None);
            prop_assert_eq!(Stamp::read(&vec![black; width * height], width, height), None);
        }
    }
}
