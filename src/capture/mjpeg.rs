//! Motion JPEG: a camera's JPEG pictures to planar 4:2:0.

use std::panic::{AssertUnwindSafe, catch_unwind};

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::media::RawFrame;

/// The largest picture that is decoded, in pixels each way.
pub const MAX_SIDE: u32 = 4096;

/// What is said of a picture on which the decoding library panics.
pub const PANICKED: &str = "the decoder failed on it";

/// Width and height that a JPEG's headers promise.
#[must_use]
pub fn size(jpeg: &[u8]) -> Option<(u32, u32)> {
    Headers::read(jpeg).ok().map(|headers| (headers.width, headers.height))
}

/// Why a picture could not be decoded: it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MjpegError {
    /// The camera's transfer broke off.
    #[error("the picture ends before its end")]
    Truncated,
    /// It is no JPEG, or a kind that no camera makes.
    #[error("not a camera's JPEG: {0}")]
    Unknown(&'static str),
    /// Its data are damaged.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Decodes pictures; keeps its memory from one to the next.
#[derive(Default)]
pub struct Decoder {
    /// The picture with Huffman tables, where it came without.
    whole: Vec<u8>,
    /// Y, Cb, Cr of each pixel.
    pixels: Vec<u8>,
}

/// What a JPEG's headers say.
struct Headers {
    width: u32,
    height: u32,
    components: u8,
    has_tables: bool,
    /// Where the scan's header begins.
    scan: usize,
    /// Behind the end of the image.
    end: usize,
}

impl Decoder {
    /// Decodes one picture of baseline JPEG into `frame`: planes, width and height (an odd last column or row is left out).
    ///
    /// JPEG's full range becomes the limited range of video. Whatever stands behind the picture's end is ignored, as cameras pad
    /// their buffers; tables that it lacks, as in AVI files and from many cameras, are the standard ones (ITU-T T.81, K.3).
    ///
    /// # Errors
    /// It is incomplete, damaged, or no JPEG of a camera. `frame` is then not to be used.
    pub fn decode(&mut self, jpeg: &[u8], frame: &mut RawFrame) -> Result<(), MjpegError> {
        let headers = Headers::read(jpeg)?;
        let jpeg = &jpeg[..headers.end];
        let jpeg = if headers.has_tables {
            jpeg
        } else {
            self.whole.clear();
            self.whole.extend_from_slice(&jpeg[..headers.scan]);
            self.whole.extend_from_slice(&STANDARD_TABLES);
            self.whole.extend_from_slice(&jpeg[headers.scan..]);
            &self.whole
        };
        let (space, samples) = match headers.components {
            1 => (ColorSpace::Luma, 1),
            _ => (ColorSpace::YCbCr, 3),
        };
        let (width, height) = (headers.width as usize, headers.height as usize);
        self.pixels.resize(width * height * samples, 0);
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(MAX_SIDE as usize)
            .set_max_height(MAX_SIDE as usize)
            .jpeg_set_out_colorspace(space);
        let pixels = &mut self.pixels;
        // A damaged picture is everyday life on a USB bus: it must not end the agent, whatever the library makes of it.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            JpegDecoder::new_with_options(ZCursor::new(jpeg), options).decode_into(pixels)
        }));
        match decoded {
            Ok(result) => result.map_err(|error| MjpegError::Damaged(error.to_string()))?,
            Err(_) => return Err(MjpegError::Damaged(PANICKED.into())),
        }
        frame.width = headers.width & !1;
        frame.height = headers.height & !1;
        let (w, h) = (frame.width as usize, frame.height as usize);
        frame.i420.clear();
        frame.i420.resize(w * h * 3 / 2, 128);
        let (luma, chroma) = frame.i420.split_at_mut(w * h);
        if samples == 1 {
            for (to, from) in luma.chunks_exact_mut(w).zip(self.pixels.chunks_exact(width)) {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = LUMA[usize::from(*from)];
                }
            }
            return Ok(());
        }
        let (cb, cr) = chroma.split_at_mut(w * h / 4);
        let rows = self.pixels.chunks_exact(width * 3);
        for (to, from) in luma.chunks_exact_mut(w).zip(rows) {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(3)) {
                *to = LUMA[usize::from(from[0])];
            }
        }
        let pairs = self.pixels.chunks_exact(width * 3 * 2);
        for ((cb, cr), rows) in cb.chunks_exact_mut(w / 2).zip(cr.chunks_exact_mut(w / 2)).zip(pairs) {
            let (upper, lower) = rows.split_at(width * 3);
            let fours = upper.chunks_exact(6).zip(lower.chunks_exact(6));
            for ((cb, cr), (upper, lower)) in cb.iter_mut().zip(cr).zip(fours) {
                let mean = |at: usize| {
                    let sum: u16 = [upper[at], upper[at + 3], lower[at], lower[at + 3]].map(u16::from).iter().sum();
                    usize::from((sum + 2) / 4)
                };
                *cb = CHROMA[mean(1)];
                *cr = CHROMA[mean(2)];
            }
        }
        Ok(())
    }
}

impl Headers {
    fn read(jpeg: &[u8]) -> Result<Self, MjpegError> {
        if !jpeg.starts_with(&[0xff, 0xd8]) {
            return Err(MjpegError::Unknown("it does not begin as one"));
        }
        let (mut at, mut size, mut has_tables) = (2, None, false);
        loop {
            let [0xff, marker, high, low, ..] = jpeg.get(at..).unwrap_or_default() else {
                return Err(match jpeg.get(at) {
                    Some(0xff) | None => MjpegError::Truncated,
                    Some(_) => MjpegError::Unknown("rubbish between its headers"),
                });
            };
            // Bytes to fill up with (T.81, B.1.1.2).
            if *marker == 0xff {
                at += 1;
                continue;
            }
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let segment = jpeg.get(at + 4..at + 2 + length.max(2)).ok_or(MjpegError::Truncated)?;
            match *marker {
                0xc0 | 0xc1 => {
                    let [8, h1, h0, w1, w0, components, ..] = segment else {
                        return Err(MjpegError::Unknown("its samples have no 8 bits"));
                    };
                    size = Some((
                        u16::from_be_bytes([*w1, *w0]).into(),
                        u16::from_be_bytes([*h1, *h0]).into(),
                        *components,
                    ));
                }
                0xc4 => has_tables = true,
                0xc2 | 0xc3 | 0xc5..=0xcf => return Err(MjpegError::Unknown("it is not baseline JPEG")),
                0xda => break,
                0xd0..=0xd9 => return Err(MjpegError::Unknown("it has no scan")),
                _ => {}
            }
            at += 2 + length.max(2);
        }
        let Some((width, height, components @ (1 | 3))) = size else {
            return Err(MjpegError::Unknown("it is neither grey nor YCbCr"));
        };
        if !(2..=MAX_SIDE).contains(&width) || !(2..=MAX_SIDE).contains(&height) {
            return Err(MjpegError::Unknown("its size is none of a camera's"));
        }
        let data = &jpeg[at..];
        let end = data.windows(2).position(|pair| pair == [0xff, 0xd9]).ok_or(MjpegError::Truncated)?;
        Ok(Self {
            width,
            height,
            components,
            has_tables,
            scan: at,
            end: at + end + 2,
        })
    }
}

/// Full range to limited range (JFIF to ITU-R BT.601).
static LUMA: [u8; 256] = limited(219, 16);
static CHROMA: [u8; 256] = chroma();

const fn limited(span: u32, floor: u32) -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = ((at as u32 * span + 127) / 255 + floor) as u8;
        at += 1;
    }
    table
}

/// Around 128, which stays what it is.
const fn chroma() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = (128 * 255 + (at as i32 - 128) * 224 + 127).div_euclid(255) as u8;
        at += 1;
    }
    table
}

/// The Huffman tables of ITU-T T.81, K.3.3, as one DHT segment.
#[rustfmt::skip]
const STANDARD_TABLES: [u8; 420] = [
    0xff, 0xc4, 0x01, 0xa2, 0x00, 0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x01, 0x00, 0x03, 0x01, 0x01, 0x01, 0x01,
    0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
    0x0a, 0x0b, 0x10, 0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7d, 0x01,
    0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81,
    0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17,
    0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46,
    0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
    0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7,
    0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9,
    0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9,
    0xfa, 0x11, 0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77, 0x00, 0x01,
    0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14,
    0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25,
    0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46,
    0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a,
    0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6,
    0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8,
    0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::media::MediaTime;

    /// `ffmpeg -f lavfi -i testsrc2=size=160x120`, as `yuvj422p` and `yuvj420p`, with the standard tables.
    const YUV422: &[u8] = include_bytes!("../../fuzz/seeds/mjpeg/yuv422");
    const YUV420: &[u8] = include_bytes!("../../fuzz/seeds/mjpeg/yuv420");
    /// The same without its Huffman tables and with the header of an AVI file's picture.
    const AVI1: &[u8] = include_bytes!("../../fuzz/seeds/mjpeg/avi1");

    fn frame() -> RawFrame {
        RawFrame {
            i420: Vec::new(),
            width: 0,
            height: 0,
            time: MediaTime::default(),
            captured: Instant::now(),
        }
    }

    fn decode(jpeg: &[u8]) -> Result<RawFrame, MjpegError> {
        let mut frame = frame();
        Decoder::default().decode(jpeg, &mut frame).map(|()| frame)
    }

    /// Mean Y, Cb and Cr of an area of 8 by 8 pixels.
    fn colour(frame: &RawFrame, x: usize, y: usize) -> [i32; 3] {
        let (w, h) = (frame.width as usize, frame.height as usize);
        let mean = |plane: &[u8], stride: usize, x: usize, y: usize, side: usize| {
            let rows = (y..y + side).flat_map(|row| &plane[row * stride + x..][..side]);
            rows.map(|sample| i32::from(*sample)).sum::<i32>() / (side * side) as i32
        };
        let (luma, chroma) = frame.i420.split_at(w * h);
        let (cb, cr) = chroma.split_at(w * h / 4);
        [
            mean(luma, w, x, y, 8),
            mean(cb, w / 2, x / 2, y / 2, 4),
            mean(cr, w / 2, x / 2, y / 2, 4),
        ]
    }

    #[test]
    fn both_kinds_of_subsampling_give_the_same_picture_in_the_range_of_video() {
        let (a, b) = (decode(YUV422).expect("4:2:2"), decode(YUV420).expect("4:2:0"));
        assert_eq!((a.width, a.height, a.i420.len()), (160, 120, 160 * 120 * 3 / 2));
        assert_eq!((b.width, b.height, b.i420.len()), (160, 120, 160 * 120 * 3 / 2));
        let far = a.i420.iter().zip(&b.i420).filter(|(a, b)| a.abs_diff(**b) > 24).count();
        assert!(far < a.i420.len() / 20, "{far} samples of {} differ", a.i420.len());
        assert!(a.i420[..160 * 120].iter().all(|luma| (16..=235).contains(luma)), "limited range");
        assert_eq!((LUMA[0], LUMA[255], CHROMA[0], CHROMA[128], CHROMA[255]), (16, 235, 16, 128, 240));
    }

    #[test]
    fn colours_are_in_their_places() {
        // A picture of a left red and a right blue half: BT.601 in limited range.
        let frame = decode(include_bytes!("../../fuzz/seeds/mjpeg/red-blue")).expect("a picture");
        let near = |got: [i32; 3], wanted: [i32; 3]| got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() <= 4);
        assert!(near(colour(&frame, 8, 16), [81, 90, 240]), "{:?}", colour(&frame, 8, 16));
        assert!(near(colour(&frame, 40, 16), [41, 240, 110]), "{:?}", colour(&frame, 40, 16));
    }

    #[test]
    fn a_picture_without_huffman_tables_is_decoded_with_the_standard_ones() {
        assert!(!Headers::read(AVI1).expect("headers").has_tables);
        assert_eq!(decode(AVI1).expect("a picture").i420, decode(YUV422).expect("a picture").i420);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_refused_and_padding_is_ignored() {
        for end in (0..YUV422.len() - 1).step_by(97).chain([YUV422.len() - 1]) {
            assert!(decode(&YUV422[..end]).is_err(), "{end} bytes of {}", YUV422.len());
        }
        let padded = [YUV422, &[0; 1000], &[0xff, 0xd8, 0xff]].concat();
        assert_eq!(decode(&padded).expect("a picture").i420, decode(YUV422).expect("a picture").i420);
        let half = [&YUV422[..YUV422.len() / 2], &[0xff, 0xd9]].concat();
        // A scan that ends early, with an end mark: refused or shown in part, but never a panic.
        let _ = decode(&half);
        assert_eq!(decode(b"").err(), Some(MjpegError::Unknown("it does not begin as one")));
    }
}
