//! What of `rpicam-vid`'s pictures can be set by name. Each is an option of its command line, so the program is started anew for it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::config::Rpicam;
use crate::media::settings::{Control, ControlKind, ControlValue};

/// An option that makes the picture another one, by the name that it has (rpicam-apps, `core/options.cpp`).
struct Knob {
    option: &'static str,
    takes: Takes,
}

#[derive(Clone, Copy)]
enum Takes {
    /// In hundredths: controls are whole numbers.
    Hundredths { minimum: i64, maximum: i64, default: i64 },
    /// Microseconds; 0 is for the camera to choose.
    Micros { maximum: i64 },
    /// One of these, the first without being told.
    Entry(&'static [&'static str]),
}

/// A factor, of which 100 leaves the picture as it is.
const FACTOR: Takes = Takes::Hundredths {
    minimum: 0,
    maximum: 1_600,
    default: 100,
};

const KNOBS: [Knob; 10] = [
    Knob {
        option: "brightness",
        takes: Takes::Hundredths {
            minimum: -100,
            maximum: 100,
            default: 0,
        },
    },
    Knob {
        option: "contrast",
        takes: FACTOR,
    },
    Knob {
        option: "saturation",
        takes: FACTOR,
    },
    Knob {
        option: "sharpness",
        takes: FACTOR,
    },
    // Stops.
    Knob {
        option: "ev",
        takes: Takes::Hundredths {
            minimum: -1_000,
            maximum: 1_000,
            default: 0,
        },
    },
    // 0 is for the camera to choose.
    Knob {
        option: "gain",
        takes: Takes::Hundredths {
            minimum: 0,
            maximum: 6_400,
            default: 0,
        },
    },
    Knob {
        option: "shutter",
        takes: Takes::Micros { maximum: 100_000_000 },
    },
    Knob {
        option: "exposure",
        takes: Takes::Entry(&["normal", "sport"]),
    },
    Knob {
        option: "metering",
        takes: Takes::Entry(&["centre", "spot", "average"]),
    },
    Knob {
        option: "awb",
        takes: Takes::Entry(&["auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"]),
    },
];

/// All that can be set, with what is set now.
pub(in crate::capture) fn list(camera: &Rpicam) -> Vec<Control> {
    let flips = [("horizontal_flip", camera.hflip), ("vertical_flip", camera.vflip)];
    let mut all: Vec<_> = flips.into_iter().map(|(name, on)| switch(name, on)).collect();
    let degrees = [0, 180].map(|degrees: i64| (degrees, degrees.to_string()));
    all.push(menu("rotation", Some(camera.rotation.into()), BTreeMap::from(degrees)));
    all.extend(KNOBS.iter().map(|knob| knob.control(&camera.extra)));
    all
}

/// Sets one.
///
/// # Errors
/// There is none of that name, or it does not take the value; a sentence.
pub(in crate::capture) fn set(camera: &mut Rpicam, name: &str, value: &ControlValue) -> Result<(), String> {
    let all = list(camera);
    let Some(control) = all.iter().find(|control| control.name == name) else {
        let names: Vec<_> = all.iter().map(|control| control.name.as_str()).collect();
        return Err(format!("this camera has no control `{name}`, but {}", names.join(", ")));
    };
    let number = control.number(value)?;
    match name {
        "horizontal_flip" => camera.hflip = number != 0,
        "vertical_flip" => camera.vflip = number != 0,
        "rotation" => camera.rotation = if number == 0 { 0 } else { 180 },
        _ => {
            if let Some(knob) = KNOBS.iter().find(|knob| knob.option == name) {
                knob.set(&mut camera.extra, number);
            }
        }
    }
    Ok(())
}

impl Knob {
    fn control(&self, arguments: &[String]) -> Control {
        let written = find(arguments, self.option).map(|(_, value)| value);
        let (default, minimum, maximum) = match self.takes {
            Takes::Entry(entries) => {
                let numbered = (0..).zip(entries.iter().map(|entry| (*entry).to_owned()));
                let value = written.map_or(Some(0), |value| self.number(value));
                return menu(self.option, value, numbered.collect());
            }
            Takes::Hundredths { minimum, maximum, default } => (default, minimum, maximum),
            Takes::Micros { maximum } => (0, 0, maximum),
        };
        Control {
            name: self.option.to_owned(),
            kind: ControlKind::Integer,
            value: written.map_or(Some(default), |value| self.number(value)),
            default: Some(default),
            minimum: Some(minimum),
            maximum: Some(maximum),
            step: Some(1),
            menu: BTreeMap::new(),
            read_only: false,
        }
    }

    /// What is written on the command line, if it is understood: somebody may have written more than can be set here.
    fn number(&self, value: &str) -> Option<i64> {
        match self.takes {
            Takes::Hundredths { .. } => value.parse::<f64>().ok().map(|number| (number * 100.0).round() as i64),
            Takes::Micros { .. } => value.parse().ok(),
            Takes::Entry(entries) => (0..).zip(entries).find(|(_, entry)| **entry == value).map(|(number, _)| number),
        }
    }

    /// In place of what is written. The default is not written: other cameras may have another one.
    fn set(&self, arguments: &mut Vec<String>, number: i64) {
        if let Some((range, _)) = find(arguments, self.option) {
            arguments.drain(range);
        }
        let value = match self.takes {
            Takes::Hundredths { default, .. } if number == default => return,
            Takes::Micros { .. } | Takes::Entry(_) if number == 0 => return,
            Takes::Hundredths { .. } => format!("{:.2}", number as f64 / 100.0),
            Takes::Micros { .. } => number.to_string(),
            Takes::Entry(entries) => match usize::try_from(number).ok().and_then(|number| entries.get(number)) {
                Some(entry) => (*entry).to_owned(),
                None => return,
            },
        };
        // In one piece: a negative number by itself would be taken for an option.
        arguments.push(format!("--{}={value}", self.option));
    }
}

/// Where an option and its value stand. rpicam-vid takes any beginning of an option's name for the whole.
fn find<'a>(arguments: &'a [String], option: &str) -> Option<(Range<usize>, &'a str)> {
    arguments.iter().enumerate().find_map(|(at, argument)| {
        let long = argument.strip_prefix("--")?;
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || !option.starts_with(name) {
            return None;
        }
        match value {
            Some(value) => Some((at..at + 1, value)),
            None => arguments.get(at + 1).map(|value| (at..at + 2, value.as_str())),
        }
    })
}

fn switch(name: &str, on: bool) -> Control {
    Control {
        name: name.to_owned(),
        kind: ControlKind::Boolean,
        value: Some(on.into()),
        default: Some(0),
        minimum: None,
        maximum: None,
        step: None,
        menu: BTreeMap::new(),
        read_only: false,
    }
}

fn menu(name: &str, value: Option<i64>, menu: BTreeMap<i64, String>) -> Control {
    Control {
        kind: ControlKind::Menu,
        value,
        menu,
        ..switch(name, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn knob(option: &str) -> &'static Knob {
        KNOBS.iter().find(|knob| knob.option == option).expect("there is one")
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_is_written_and_the_default_of_both() {
        let mut extra = arguments("--bright 0.2 --awb=cloudy --awbgains 1,2 --shutter 10ms");
        let value = |extra: &[String], option: &str| knob(option).control(extra).value;
        assert_eq!((value(&extra, "brightness"), value(&extra, "awb")), (Some(20), Some(6)));
        assert_eq!(
            (value(&extra, "contrast"), value(&extra, "shutter")),
            (Some(100), None),
            "not written, not understood"
        );
        knob("brightness").set(&mut extra, -5);
        knob("awb").set(&mut extra, 5);
        knob("shutter").set(&mut extra, 20_000);
        assert_eq!(extra, arguments("--awbgains 1,2 --brightness=-0.05 --awb=daylight --shutter=20000"));
        for (option, default) in [("brightness", 0), ("awb", 0), ("shutter", 0), ("contrast", 100)] {
            knob(option).set(&mut extra, default);
            assert_eq!(value(&extra, option), Some(default));
        }
        assert_eq!(extra, arguments("--awbgains 1,2"));
    }
}
