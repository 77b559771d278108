//! The cameras that libcamera knows on this machine: what `rpicam-vid --list-cameras` prints, read.

use std::io::Read as _;
use std::process::ChildStdout;
use std::sync::mpsc;
use std::time::Duration;

use super::NAMES;
use crate::capture::child::{self, Program};

/// How long the program may take: it starts libcamera, which looks at every sensor.
const PATIENCE: Duration = Duration::from_secs(10);
/// A few cameras with a dozen modes each are two or three kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What was found out.
#[derive(Clone, Debug, PartialEq)]
pub enum Listing {
    /// Neither `rpicam-vid` nor `libcamera-vid` is installed.
    NoProgram,
    /// The program failed; a sentence about it.
    Failed(String),
    Cameras(Vec<Listed>),
}

/// One camera.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// For `--camera`.
    pub number: u32,
    /// Such as `imx708_wide`.
    pub sensor: String,
    /// Size and kind of the sensor, as the program writes them; empty if it doesn't.
    pub about: String,
    /// Its place in the device tree, as the program writes it.
    pub place: String,
    /// Sizes with rates, each once, as the program lists them: the sensor's, which the board scales to any other.
    pub modes: Vec<String>,
}

/// Asks the program.
#[must_use]
pub fn list() -> Listing {
    let Some(path) = child::find(&NAMES) else {
        return Listing::NoProgram;
    };
    let (mut program, stdout) = match Program::start(&path, &["--list-cameras".into()]) {
        Ok(started) => started,
        Err(error) => return Listing::Failed(error.to_string()),
    };
    match read(stdout) {
        Some(text) => match parse(&text) {
            cameras if cameras.is_empty() && !says_none(&text) => Listing::Failed(
                program
                    .post_mortem("lists no cameras, and does not say that there are none")
                    .to_string(),
            ),
            cameras => Listing::Cameras(cameras),
        },
        None => {
            let (path, seconds, said) = (path.display(), PATIENCE.as_secs(), program.last_words());
            Listing::Failed(format!("{path} has not listed its cameras after {seconds} s{said}"))
        }
    }
}

/// All that the program prints; `None` when it has not ended in time. The thread ends with the program's side of the pipe.
fn read(stdout: ChildStdout) -> Option<String> {
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("camera list".into())
        .spawn(move || {
            let mut bytes = Vec::new();
            // A pipe that breaks has told what it had.
            let _ = stdout.take(MAX_BYTES).read_to_end(&mut bytes);
            // Nobody waits any more: it took too long.
            let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
        })
        .ok()?;
    receive.recv_timeout(PATIENCE).ok()
}

fn says_none(text: &str) -> bool {
    text.to_lowercase().contains("no cameras available")
}

/// Reads lines such as (rpicam-apps, `core/options.cpp`):
///
/// ```text
/// 0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)
///     Modes: 'SRGGB10_CSI2P' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]
///                              1640x1232 [41.85 fps - (0, 0)/3280x2464 crop]
/// ```
fn parse(text: &str) -> Vec<Listed> {
    let mut cameras: Vec<Listed> = Vec::new();
    // What comes from a program goes to a person's terminal.
    let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
    for line in text.lines() {
        if let Some(camera) = headline(line) {
            cameras.push(camera);
        } else if let (Some(camera), Some(mode)) = (cameras.last_mut(), mode(line))
            && !camera.modes.contains(&mode)
        {
            camera.modes.push(mode);
        }
    }
    cameras
}

fn headline(line: &str) -> Option<Listed> {
    let (number, rest) = line.split_once(" : ")?;
    let number = number.trim().parse().ok()?;
    let (rest, place) = match rest.trim().strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")) {
        Some((rest, place)) => (rest, place),
        None => (rest.trim(), ""),
    };
    let (sensor, about) = match rest.split_once(" [") {
        Some((sensor, about)) => (sensor, about.trim_end_matches(']')),
        None => (rest, ""),
    };
    Some(Listed {
        number,
        sensor: sensor.trim().into(),
        about: about.trim().into(),
        place: place.into(),
        modes: Vec::new(),
    })
}

/// `640x480 at 206.65 fps`.
fn mode(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" [")?;
    let size = before.split_whitespace().next_back()?;
    let (width, height) = size.split_once('x')?;
    let (_, _): (u32, u32) = (width.parse().ok()?, height.parse().ok()?);
    let (rate, _) = after.split_once(" fps")?;
    let rate: f64 = rate.trim().parse().ok()?;
    Some(format!("{size} at {rate} fps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Raspberry Pi's documentation shows it, and a second camera.
    const TWO: &str = "Available cameras\n-----------------\n\
        0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)\n    \
            Modes: 'SRGGB10_CSI2P' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]\n                             \
                                     1640x1232 [41.85 fps - (0, 0)/3280x2464 crop]\n           \
                   'SRGGB8' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]\n\n\
        1 : imx477 [4056x3040 12-bit RGGB] (/base/soc/i2c0mux/i2c@0/imx477@1a)\n    \
            Modes: 'SRGGB10_CSI2P' : 1332x990 [120.05 fps - (696, 528)/2664x1980 crop]\n";

    #[test]
    fn what_the_program_prints_is_read() {
        let cameras = parse(TWO);
        assert_eq!(cameras.len(), 2, "{cameras:?}");
        let first = Listed {
            number: 0,
            sensor: "imx219".into(),
            about: "3280x2464 10-bit RGGB".into(),
            place: "/base/soc/i2c0mux/i2c@1/imx219@10".into(),
            modes: vec!["640x480 at 206.65 fps".into(), "1640x1232 at 41.85 fps".into()],
        };
        assert_eq!(cameras[0], first);
        assert_eq!((cameras[1].number, &cameras[1].sensor[..]), (1, "imx477"));
    }

    #[test]
    fn what_it_does_not_print_is_left_out() {
        assert_eq!(parse("No cameras available!\n"), []);
        assert!(says_none("No cameras available!\n"));
        assert_eq!(parse("[0:01:02.3] INFO Camera : starting\n : x\n12345678901 : y [\n"), []);
        let bare = parse("0 : ov5647\n    Modes: none [x fps]\n");
        assert_eq!(
            (bare.len(), &bare[0].sensor[..], &bare[0].about[..], bare[0].modes.len()),
            (1, "ov5647", "", 0)
        );
        assert_eq!(parse("0 : \x1b[31mred\n")[0].sensor, "[31mred", "no colours for the terminal");
    }
}
