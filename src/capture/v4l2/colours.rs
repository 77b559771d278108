//! The colours that a camera saw are those that a viewer sees: from its bytes through our encoder and a decoder to RGB.

use std::time::Instant;

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal};
use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

use super::memory::unpack;
use crate::capture::mjpeg;
use crate::encode::{Colour, Settings, SoftwareEncoder};
use crate::media::annexb::{NalKind, nal_units};
use crate::media::{Bitrate, MediaTime, RawFrame};
use crate::v4l2::{self, Format, FourCc, PlaneFormat, Size};

const WIDTH: usize = 128;
const HEIGHT: usize = 64;
/// What is shown, from left to right: black, white, red, blue.
const BARS: [[f64; 3]; 4] = [[0.0, 0.0, 0.0], [255.0, 255.0, 255.0], [255.0, 0.0, 0.0], [0.0, 0.0, 255.0]];
/// Levels of 256 by which rounding and two codecs may be off.
const TOLERANCE: f64 = 4.0;

/// Parts of red and of blue in luma, and whether the numbers go from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    red: f64,
    blue: f64,
    full: bool,
}

impl Numbers {
    fn of(high: bool, full: bool) -> Self {
        let (red, blue) = if high { (0.2126, 0.0722) } else { (0.299, 0.114) };
        Self { red, blue, full }
    }

    /// As the stream's SPS says (ITU-T H.264, E.2.1).
    fn told_by(stream: &[u8]) -> Self {
        let sps = nal_units(stream).find(|nal| nal.kind() == NalKind::Sps).expect("an SPS");
        let sps = SeqParameterSet::from_bits(RefNal::new(sps.bytes(), &[], true).rbsp_bits()).expect("a good SPS");
        let signal = sps
            .vui_parameters
            .and_then(|vui| vui.video_signal_type)
            .expect("it tells its colours");
        let matrix = signal.colour_description.expect("and their matrix").matrix_coefficients;
        assert!([1, 5, 6].contains(&matrix), "matrix {matrix}");
        Self::of(matrix == 1, signal.video_full_range_flag)
    }

    fn spans(self) -> (f64, f64, f64) {
        if self.full { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) }
    }

    fn ycbcr(self, [r, g, b]: [f64; 3]) -> [u8; 3] {
        let (floor, luma, chroma) = self.spans();
        let y = self.red * r + (1.0 - self.red - self.blue) * g + self.blue * b;
        let (cb, cr) = ((b - y) / (2.0 - 2.0 * self.blue), (r - y) / (2.0 - 2.0 * self.red));
        [floor + y * luma / 255.0, 128.0 + cb * chroma / 255.0, 128.0 + cr * chroma / 255.0].map(|value| value.round() as u8)
    }

    fn rgb(self, [y, cb, cr]: [u8; 3]) -> [f64; 3] {
        let (floor, luma, chroma) = self.spans();
        let y = (f64::from(y) - floor) * 255.0 / luma;
        let [cb, cr] = [cb, cr].map(|value| (f64::from(value) - 128.0) * 255.0 / chroma);
        let (r, b) = (y + cr * (2.0 - 2.0 * self.red), y + cb * (2.0 - 2.0 * self.blue));
        [r, (y - self.red * r - self.blue * b) / (1.0 - self.red - self.blue), b].map(|value| value.clamp(0.0, 255.0))
    }
}

fn empty() -> RawFrame {
    RawFrame {
        i420: Vec::new(),
        width: WIDTH as u32,
        height: HEIGHT as u32,
        time: MediaTime::default(),
        captured: Instant::now(),
    }
}

/// What a viewer sees in the middle of each bar.
fn assert_shown(what: &str, frame: &RawFrame, colour: Colour) {
    let settings = Settings {
        width: frame.width,
        height: frame.height,
        fps: 30,
        bitrate: Bitrate::kbps(4_000),
        gop: 30,
        colour,
    };
    let mut encoder = SoftwareEncoder::new(settings).expect("an encoder");
    let stream = encoder.encode(frame).expect("encoded").expect("a picture");
    let numbers = Numbers::told_by(&stream);
    let mut decoder = Decoder::new().expect("a decoder");
    let picture = decoder.decode(&stream).expect("decoded").expect("a picture");
    let (luma, cb, cr) = picture.strides();
    for (n, wanted) in BARS.into_iter().enumerate() {
        let (x, y) = (WIDTH / BARS.len() * n + 16, HEIGHT / 2);
        let samples = [
            picture.y()[y * luma + x],
            picture.u()[y / 2 * cb + x / 2],
            picture.v()[y / 2 * cr + x / 2],
        ];
        let got = numbers.rgb(samples);
        let near = got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() <= TOLERANCE);
        assert!(
            near,
            "{what}: bar {n} is {got:.0?}, and was {wanted:.0?}; {samples:?} by {numbers:?}"
        );
    }
}

#[test]
fn jpeg_s_black_and_white_are_shown_as_such_and_its_colours_too() {
    // ffmpeg's colours, hstack and `scale=out_range=full:out_color_matrix=bt601`, as yuvj422p.
    let jpeg = include_bytes!("../../../fuzz/seeds/mjpeg/bars");
    let mut frame = empty();
    mjpeg::Decoder::default().decode(jpeg, &mut frame).expect("a picture");
    assert_shown("JPEG", &frame, Colour::Bt601);
}

#[test]
fn raw_pictures_are_shown_in_the_colours_that_the_driver_tells() {
    for (colour, numbers) in [
        (Colour::Bt709, Numbers::of(true, false)),
        (Colour::Bt709Full, Numbers::of(true, true)),
        (Colour::Bt601, Numbers::of(false, false)),
        (Colour::Bt601Full, Numbers::of(false, true)),
    ] {
        let row: Vec<u8> = (0..WIDTH / 2)
            .flat_map(|pair| {
                let [y, cb, cr] = numbers.ycbcr(BARS[pair * 2 * BARS.len() / WIDTH]);
                [y, cb, y, cr]
            })
            .collect();
        let size = Size {
            width: WIDTH as u32,
            height: HEIGHT as u32,
        };
        let plane = PlaneFormat {
            stride: row.len() as u32,
            bytes: (row.len() * HEIGHT) as u32,
        };
        let format = Format {
            planes: vec![plane],
            colour: v4l2::Colour::from(colour),
            ..Format::new(FourCc::YUYV, size)
        };
        let mut frame = empty();
        assert!(unpack(&format, &row.repeat(HEIGHT), &mut frame), "a picture");
        assert_shown(&format!("YUYV of {colour:?}"), &frame, Colour::told_by(format.colour));
    }
}
