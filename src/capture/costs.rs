//! What is done to a picture on its way to the viewers, in processor time: a measurement, not a check.
//!
//! `cargo test --release --lib -- --ignored --nocapture what_a_picture_costs`

use std::process::Command;
use std::time::{Instant, SystemTime};

use super::mjpeg::Decoder;
use super::overlay::Overlay;
use crate::encode::{Colour, Settings, SoftwareEncoder};
use crate::media::scale::halve;
use crate::media::{Bitrate, MediaTime, RawFrame};

const PICTURES: usize = 60;

/// Moving pictures with a camera's noise.
fn film(size: &str, arguments: &[&str]) -> Vec<u8> {
    let source = format!("testsrc2=size={size}:rate=30,noise=alls=8:allf=t");
    let pictures = PICTURES.to_string();
    Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "lavfi", "-i", &source, "-frames:v", &pictures])
        .args(arguments)
        .arg("-")
        .output()
        .expect("ffmpeg runs")
        .stdout
}

/// Half of the times are below the first figure, nine tenths below the second: milliseconds.
fn time(mut each: impl FnMut(usize)) -> (f64, f64) {
    let mut times: Vec<f64> = (0..PICTURES)
        .map(|n| {
            let began = Instant::now();
            each(n);
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[PICTURES / 2], times[PICTURES * 9 / 10])
}

#[test]
#[ignore = "a measurement; ffmpeg makes the pictures"]
fn what_a_picture_costs() {
    println!("{:<10} {:<34} {:>8} {:>8} {:>10}", "size", "", "p50 ms", "p90 ms", "x copying");
    for (width, height, kbps) in [(640u32, 360u32, 1_000), (1280, 720, 2_500), (1920, 1080, 5_000)] {
        let size = format!("{width}x{height}");
        let raw = film(&size, &["-pix_fmt", "yuv420p", "-f", "rawvideo"]);
        let frames: Vec<RawFrame> = raw
            .chunks_exact((width * height * 3 / 2) as usize)
            .zip(0..)
            .map(|(i420, n)| RawFrame {
                i420: i420.to_vec(),
                width,
                height,
                time: MediaTime::from_ticks(n * 3_000),
                captured: Instant::now(),
            })
            .collect();
        assert_eq!(frames.len(), PICTURES, "ffmpeg made them");
        let mut to = frames[0].clone();
        let copying = time(|n| to.i420.clone_from(&frames[n].i420));
        let tell = |what: &str, (p50, p90): (f64, f64)| {
            println!("{size:<10} {what:<34} {p50:>8.2} {p90:>8.2} {:>10.1}", p50 / copying.0);
        };
        tell("copying it", copying);
        tell("halving it for the low rung", time(|n| halve(&frames[n], &mut to)));
        let (mut overlay, mut shown) = (Overlay::new("front door"), frames.clone());
        tell("name and time", time(|n| overlay.draw(&mut shown[n], SystemTime::now())));
        for format in ["yuvj422p", "yuvj420p"] {
            let film = film(&size, &["-huffman", "default", "-pix_fmt", format, "-q:v", "5", "-f", "mjpeg"]);
            let ends: Vec<usize> = film
                .windows(2)
                .enumerate()
                .filter(|(_, two)| **two == [0xff, 0xd9])
                .map(|(at, _)| at + 2)
                .collect();
            let starts = [0].into_iter().chain(ends.iter().copied());
            let jpegs: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &film[start..*end]).collect();
            let mut decoder = Decoder::default();
            let what = format!("decoding JPEG, {format}, {} kB", film.len() / PICTURES / 1000);
            tell(&what, time(|n| decoder.decode(jpegs[n], &mut to).expect("a picture")));
        }
        let settings = Settings {
            width,
            height,
            fps: 30,
            bitrate: Bitrate::kbps(kbps),
            gop: 60,
            colour: Colour::Bt601,
        };
        let mut encoder = SoftwareEncoder::new(settings).expect("an encoder");
        let what = format!("encoding in software, {kbps} kbit/s");
        tell(&what, time(|n| drop(encoder.encode(&frames[n]).expect("encoded"))));
    }
}
