//! A V4L2 camera's controls, by the names that people use for them.

use crate::media::settings::{Control, ControlKind, ControlValue};
use crate::v4l2::{Described, Device, Kind};

/// All that the camera lets be set, with what is set now.
pub(in crate::capture) fn list(device: &Device) -> Vec<Control> {
    device.controls().into_iter().map(|described| control(device, described)).collect()
}

/// Sets one.
///
/// # Errors
/// There is none of that name, it does not take the value, or the driver refused; a sentence.
pub(in crate::capture) fn set(device: &Device, name: &str, value: &ControlValue) -> Result<(), String> {
    let all = device.controls();
    let Some(described) = all.iter().find(|described| slug(&described.name) == name) else {
        let names: Vec<_> = all.iter().map(|described| slug(&described.name)).collect();
        return Err(match names.as_slice() {
            [] => format!("this camera has no controls, so no `{name}`"),
            names => format!("this camera has no control `{name}`, but {}", names.join(", ")),
        });
    };
    let id = described.id;
    let number = control(device, described.clone()).number(value)?;
    device.set_control(id, number).map_err(|error| {
        let help = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::BUSY) => "; it can't change while the camera runs",
            Some(rustix::io::Errno::ACCESS) => "; another control has to allow it first, such as one that ends with `auto`",
            _ => "",
        };
        format!("the driver refused `{name}`: {error}{help}")
    })
}

fn control(device: &Device, described: Described) -> Control {
    let kind = match described.kind {
        Kind::Integer => ControlKind::Integer,
        Kind::Boolean => ControlKind::Boolean,
        Kind::Menu => ControlKind::Menu,
        Kind::Button => ControlKind::Button,
    };
    let ranges = kind == ControlKind::Integer;
    let values = kind != ControlKind::Button;
    Control {
        name: slug(&described.name),
        kind,
        // A control that can only be written has none.
        value: values.then(|| device.control_value(described.id).ok()).flatten(),
        default: values.then_some(described.default),
        minimum: ranges.then_some(described.minimum),
        maximum: ranges.then_some(described.maximum),
        step: ranges.then_some(described.step),
        menu: described.entries.into_iter().collect(),
        read_only: described.read_only,
    }
}

/// As `v4l2-ctl` makes it: letters and digits in lower case, and one `_` for all between them.
fn slug(name: &str) -> String {
    let words: Vec<_> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        assert_eq!(slug("Exposure Time, Absolute"), "exposure_time_absolute");
        assert_eq!(slug("White Balance, Auto & Preset"), "white_balance_auto_preset");
        assert_eq!(slug("Brightness"), "brightness");
    }
}
