//! Values of a `[[camera]]`, as [`super::value`] has those of the other sections.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::value::FromText;
use super::{CameraFormat, EncoderChoice, Idle};
use crate::media::settings::ControlValue;

/// The time from one key frame to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gop(pub Duration);

impl<'de> Deserialize<'de> for Gop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GopVisitor;
        impl Visitor<'_> for GopVisitor {
            type Value = Gop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds from 0.1 to 60")
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Self::Value, E> {
                match u64::try_from(seconds) {
                    Ok(seconds @ 1..=60) => Ok(Gop(Duration::from_secs(seconds))),
                    _ => Err(E::invalid_value(Unexpected::Signed(seconds), &self)),
                }
            }

            fn visit_f64<E: Error>(self, seconds: f64) -> Result<Self::Value, E> {
                if (0.1..=60.0).contains(&seconds) {
                    return Ok(Gop(Duration::from_secs_f64(seconds)));
                }
                Err(E::invalid_value(Unexpected::Float(seconds), &self))
            }
        }
        deserializer.deserialize_f64(GopVisitor)
    }
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub NonZeroU32, pub NonZeroU32);

impl FromText for Size {
    const ALLOWED: &'static str = "width and height in pixels, such as \"1280x720\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('x')
            .and_then(|(width, height)| Some((width.parse::<NonZeroU32>().ok()?, height.parse::<NonZeroU32>().ok()?)));
        let Some((width, height)) = parsed else {
            return Err(format!("{text:?} is not a size; write {}", Self::ALLOWED));
        };
        let (w, h) = (width.get(), height.get());
        if w % 2 == 1 || h % 2 == 1 {
            let (w, h) = (w + w % 2, h + h % 2);
            return Err(format!(
                "{text:?} is odd, and H.264 stores colour at half the size; both numbers must be even, such as \"{w}x{h}\""
            ));
        }
        if !(32..=4096).contains(&w) || !(32..=4096).contains(&h) {
            return Err(format!("{text:?} is out of range; width and height are from 32 to 4096 pixels"));
        }
        Ok(Self(width, height))
    }
}

/// A stream's name.
#[derive(Debug)]
pub(super) struct StreamName(pub String);

impl FromText for StreamName {
    const ALLOWED: &'static str = "a name of 1 to 32 of the characters a-z 0-9 - _";

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("{text:?} cannot be a camera's name; write {}", Self::ALLOWED))
    }
}

/// A control and its value, as `v4l2-ctl --set-ctrl` takes them.
#[derive(Clone, Debug)]
pub(super) struct ControlSetting(pub String, pub ControlValue);

impl FromText for ControlSetting {
    const ALLOWED: &'static str = "a control and its value, such as \"brightness=140\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let Some((name, value)) = parts.filter(|(name, value)| !name.is_empty() && name.bytes().all(plain) && !value.is_empty()) else {
            return Err(format!("{text:?} cannot be read; write {}", Self::ALLOWED));
        };
        let value = match (value.parse(), value.parse()) {
            (Ok(number), _) => ControlValue::Number(number),
            (_, Ok(switch)) => ControlValue::Switch(switch),
            (Err(_), Err(_)) => ControlValue::Text(value.to_owned()),
        };
        Ok(Self(name.to_owned(), value))
    }
}

/// Which kind of camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SourceKind {
    #[default]
    V4l2,
    Rpicam,
    File,
    Pattern,
}

impl SourceKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::V4l2 => "v4l2",
            Self::Rpicam => "rpicam",
            Self::File => "file",
            Self::Pattern => "pattern",
        }
    }
}

impl FromText for SourceKind {
    const ALLOWED: &'static str = "\"v4l2\", \"rpicam\", \"file\" or \"pattern\"";

    fn from_text(text: &str) -> Result<Self, String> {
        [Self::V4l2, Self::Rpicam, Self::File, Self::Pattern]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{text:?} is not a kind of camera; write {}", Self::ALLOWED))
    }
}

impl FromText for Idle {
    const ALLOWED: &'static str = "\"rest\", \"close\" or \"run\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "rest" => Ok(Self::Rest),
            "close" => Ok(Self::Close),
            "run" => Ok(Self::Run),
            _ => Err(format!(
                "{text:?} is nothing that a camera can do while nobody watches; write {}",
                Self::ALLOWED
            )),
        }
    }
}

impl CameraFormat {
    const ALL: [Self; 6] = [Self::Auto, Self::H264, Self::Mjpeg, Self::Yuyv, Self::Nv12, Self::Yuv420];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::H264 => "h264",
            Self::Mjpeg => "mjpeg",
            Self::Yuyv => "yuyv",
            Self::Nv12 => "nv12",
            Self::Yuv420 => "yuv420",
        }
    }
}

impl FromText for CameraFormat {
    const ALLOWED: &'static str = "\"auto\", \"h264\", \"mjpeg\", \"yuyv\", \"nv12\" or \"yuv420\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("{text:?} is not a camera's format; write {}", Self::ALLOWED))
    }
}

impl FromText for EncoderChoice {
    const ALLOWED: &'static str = "\"auto\", \"m2m\" or \"software\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "m2m" => Ok(Self::M2m),
            "software" => Ok(Self::Software),
            _ => Err(format!("{text:?} is not an encoder; write {}", Self::ALLOWED)),
        }
    }
}

/// An argument of a program.
#[derive(Debug)]
pub(super) struct Argument(pub String);

impl FromText for Argument {
    const ALLOWED: &'static str = "an argument in quotes";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(format!("{text:?} cannot be an argument; write one such as \"--awb\""));
        }
        Ok(Self(text.to_owned()))
    }
}
