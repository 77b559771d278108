//! The keys of a camera that `rpicam-vid` runs.

use std::ops::Range;

use toml::Spanned;

use super::camera_value::Argument;
use super::error::Fault;
use super::value::Text;

/// Options of rpicam-vid that are ours, with their short forms: what is given twice, it refuses or takes either.
const OURS: [(&str, Option<char>, &str); 22] = [
    ("width", None, "camera.size"),
    ("height", None, "camera.size"),
    ("framerate", None, "camera.fps"),
    ("rotation", None, "camera.rotation"),
    ("hflip", None, "camera.hflip"),
    ("vflip", None, "camera.vflip"),
    ("bitrate", Some('b'), "camera.bitrate_kbps"),
    ("intra", Some('g'), "camera.gop_secs"),
    ("codec", None, "camera.format"),
    ("output", Some('o'), ""),
    ("timeout", Some('t'), ""),
    ("frames", None, ""),
    ("nopreview", Some('n'), ""),
    ("preview", Some('p'), ""),
    ("fullscreen", Some('f'), ""),
    ("inline", None, ""),
    ("flush", None, ""),
    ("verbose", Some('v'), ""),
    ("config", Some('c'), ""),
    ("listen", Some('l'), ""),
    ("split", None, ""),
    ("segment", None, ""),
];
/// Options that make it do something else than deliver pictures.
const OTHERS: [&str; 8] = [
    "help",
    "version",
    "list-cameras",
    "circular",
    "keypress",
    "signal",
    "initial",
    "save-pts",
];

/// The arguments of `camera.extra`, none of which may be one of ours.
pub(super) fn extra(written: &[Spanned<Text<Argument>>]) -> Result<Vec<String>, Fault> {
    let mut arguments = Vec::new();
    for spanned in written {
        let Text(Argument(argument)) = spanned.get_ref();
        check(argument, spanned.span())?;
        arguments.push(argument.clone());
    }
    Ok(arguments)
}

fn check(argument: &str, span: Range<usize>) -> Result<(), Fault> {
    if let Some(long) = argument.strip_prefix("--") {
        // rpicam-vid takes any beginning of an option's name for the whole.
        let name = long.split('=').next().unwrap_or(long);
        let ours = OURS.iter().find(|(ours, _, _)| !name.is_empty() && ours.starts_with(name));
        if let Some((ours, _, key)) = ours {
            return Err(taken(argument, &format!("--{ours}"), key, span));
        }
        if name.is_empty() || OTHERS.iter().any(|other| other.starts_with(name)) {
            return Err(Fault::new(
                span,
                format!("{argument:?} makes rpicam-vid do something else than deliver pictures"),
            ));
        }
        return Ok(());
    }
    let Some(short) = argument.strip_prefix('-').and_then(|rest| rest.chars().next()) else {
        return Ok(());
    };
    // A negative number is a value.
    if short.is_ascii_digit() || short == '.' {
        return Ok(());
    }
    match OURS.iter().find(|(_, ours, _)| *ours == Some(short)) {
        Some((ours, _, key)) => Err(taken(argument, &format!("--{ours}"), key, span)),
        None => Err(Fault::new(
            span,
            format!("{argument:?}: write options of rpicam-vid in their long form, such as \"--awb\""),
        )),
    }
}

fn taken(argument: &str, option: &str, key: &str, span: Range<usize>) -> Fault {
    let what = if key.is_empty() {
        format!("{argument:?}: peercam sets {option} itself")
    } else {
        format!("{argument:?}: {option} is set by {key}; write that")
    };
    Fault::new(span, what)
}
