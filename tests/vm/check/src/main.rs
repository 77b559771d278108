//! The agent's own code for V4L2 and hardware encoding, tried on real kernel devices in the virtual machine.
//!
//! ```text
//! vmcheck encode /dev/video0 nv12 640x360 shared   a camera's pictures through the encoder: order, stamps, controls, pixels, drain
//! vmcheck frames                                   pictures in memory through it, the newest winning
//! vmcheck stall                                    an encoder that takes pictures and gives nothing is noticed
//! vmcheck events /dev/video0                       a control that another program sets is told
//! ```
//!
//! Each prints what it found, and exits with 1 and a sentence where that is not as it should be.

mod encode;
mod frames;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use peercam::v4l2::{Device, Event, FourCc, Interest, Ready, Size, wait};

const USAGE: &str = "usage: vmcheck encode DEVICE nv12|yuyv|yuv420 WIDTHxHEIGHT shared|copied | frames | stall | events DEVICE";

/// A check that did not hold, in words.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["encode", device, format, size, memory] => encode_arguments(device, format, size, memory),
        ["frames"] => frames::run(),
        ["stall"] => frames::stall(),
        ["events", device] => events(Path::new(device)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("vmcheck: {why}");
            ExitCode::FAILURE
        }
    }
}

fn encode_arguments(device: &str, format: &str, size: &str, memory: &str) -> Outcome {
    let fourcc = match format {
        "nv12" => FourCc::NV12,
        "yuyv" => FourCc::YUYV,
        "yuv420" => FourCc::YUV420,
        _ => return Err(USAGE.to_owned()),
    };
    let (width, height) = size.split_once('x').ok_or(USAGE)?;
    let number = |text: &str| text.parse().map_err(|_| USAGE.to_owned());
    let size = Size {
        width: number(width)?,
        height: number(height)?,
    };
    let shared = match memory {
        "shared" => true,
        "copied" => false,
        _ => return Err(USAGE.to_owned()),
    };
    encode::run(Path::new(device), fourcc, size, shared)
}

/// Fails with words unless something holds.
fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Puts what was being done before an error.
fn during<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{doing}: {error}")
}

fn events(path: &Path) -> Outcome {
    const BRIGHTNESS: u32 = 0x0098_0900;
    let listener = Device::open(path).map_err(during("opening"))?;
    let other = Device::open(path).map_err(during("opening again"))?;
    let told = Interest {
        event: true,
        ..Interest::default()
    };
    listener
        .subscribe(Event::Control(BRIGHTNESS))
        .map_err(during("subscribing to a control"))?;
    listener
        .subscribe(Event::SourceChange)
        .map_err(during("subscribing to source changes"))?;
    let quiet = wait([(&listener, told)], Duration::from_millis(100)).map_err(during("waiting"))?;
    check(quiet == [Ready::Timeout], || format!("before anything happened: {quiet:?}"))?;
    let before = other.control_value(BRIGHTNESS).map_err(during("reading brightness"))?;
    other.set_control(BRIGHTNESS, before ^ 1).map_err(during("setting brightness"))?;
    let ready = wait([(&listener, told)], Duration::from_secs(10)).map_err(during("waiting"))?;
    check(ready == [Ready::Has(told)], || format!("after a control was set: {ready:?}"))?;
    let event = listener.next_event().map_err(during("dequeuing an event"))?;
    check(event == Some(Event::Control(BRIGHTNESS)), || format!("the event is {event:?}"))?;
    let none = listener.next_event().map_err(during("dequeuing no event"))?;
    check(none.is_none(), || format!("one more event: {none:?}"))?;
    println!("events: a control that another program set was told, once");
    Ok(())
}
