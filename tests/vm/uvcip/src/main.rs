//! A UVC camera made of software, given to the kernel over USB/IP, and the judge of what came of its pictures.
//!
//! ```text
//! uvcip camera FILM 640x360 25                commands on stdin, a line each; ends with stdin
//! uvcip compare FILM.h264 SAVED.h264 250 [N]  are these pieces of the film, equal and in order, one of 250 pictures or more?
//!                                             with N, from the first parameter sets after byte N of SAVED on
//! ```
//!
//! The film is Annex B; one whose name ends in `.mjpeg` is JPEG pictures, and the camera one of Motion JPEG.
//!
//! The camera's commands: `plug`, `unplug`; `stall` and `go`; `corrupt N` marks the next N pictures as damaged, `half N` cuts them in
//! their middle; `h264` and `h265` are what it says of itself when it is plugged in next.

mod camera;
mod descriptors;
mod film;
mod usbip;

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use camera::Camera;
use descriptors::{Coding, Mode};
use film::Film;

const USAGE: &str = "usage: uvcip camera FILM WIDTHxHEIGHT FPS | uvcip compare FILM SAVED PICTURES [FROM-BYTE]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["camera", film, size, fps] => run_camera(film, size, fps),
        ["compare", film, saved, pictures] => compare(film, saved, pictures, "0"),
        ["compare", film, saved, pictures, from] => compare(film, saved, pictures, from),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("uvcip: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run_camera(film: &str, size: &str, fps: &str) -> Result<(), String> {
    let (width, height) = size.split_once('x').ok_or(USAGE)?;
    let mode = Mode {
        width: number(width)?,
        height: number(height)?,
        fps: number(fps)?,
        coding: if film.ends_with(".mjpeg") { Coding::Mjpeg } else { Coding::H264 },
    };
    let path = Path::new(film);
    let film = match mode.coding {
        Coding::Mjpeg => Film::read_jpeg(path)?,
        Coding::H264 | Coding::H265 => Film::read(path)?,
    };
    let mut camera = Camera::new(film, mode);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("reading commands: {error}"))?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["plug"] => camera.plug()?,
            ["unplug"] => camera.unplug(),
            ["stall"] => camera.faults().stalled = true,
            ["go"] => camera.faults().stalled = false,
            ["corrupt", pictures] => camera.faults().corrupt = number(pictures)?,
            ["half", pictures] => camera.faults().half = number(pictures)?,
            ["h264"] => camera.become_one_of(Coding::H264),
            ["h265"] => camera.become_one_of(Coding::H265),
            _ => return Err(format!("'{line}' is no command; see the top of main.rs")),
        }
        println!("{}", line.trim());
    }
    camera.unplug();
    Ok(())
}

fn compare(film: &str, saved: &str, pictures: &str, from: &str) -> Result<(), String> {
    let (wanted, from): (usize, usize) = (number(pictures)?, number(from)?);
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("reading {path}: {error}"));
    let runs = film::compare(&read(film)?, film::from_parameters(&read(saved)?, from))?;
    for run in &runs {
        println!(
            "{} NAL units of {} pictures, equal and in order, from NAL unit {} of the film",
            run.units, run.pictures, run.first
        );
    }
    let longest = runs.iter().map(|run| run.pictures).max().unwrap_or(0);
    if longest < wanted {
        return Err(format!("{longest} pictures are in one piece, {wanted} are wanted"));
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is no number; {USAGE}"))
}
