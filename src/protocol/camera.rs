//! Parameters and results of the `camera.*` methods.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::media::settings::{Change, Control, ControlValue, Settings};
use crate::media::{Bitrate, settings};

/// `camera.get`: how a camera is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraGet {
    /// The stream's name; the first one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

/// `camera.set`: changes what is given. Viewers go on watching.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraSet {
    /// The stream's name; the first one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Pixels, even, 32 to 4096; together with `height`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Pictures a second, 1 to 240; the nearest whole number is asked for, so that what [`CameraState::fps`] tells can be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// 150,000 to 50,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_bps: Option<u64>,
    /// By the names in [`CameraState::controls`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub controls: BTreeMap<String, ControlValue>,
}

impl CameraSet {
    /// What it wants of the camera.
    ///
    /// # Errors
    /// A value that no camera has; a sentence that says what is allowed.
    pub fn change(&self) -> Result<Change, String> {
        const MOST_CONTROLS: usize = 64;
        let side = |pixels: u32| {
            let good = (32..=4096).contains(&pixels) && pixels.is_multiple_of(2);
            NonZeroU32::new(pixels)
                .filter(|_| good)
                .ok_or_else(|| format!("width and height are even numbers from 32 to 4096, not {pixels}"))
        };
        let size = match (self.width, self.height) {
            (Some(width), Some(height)) => Some((side(width)?, side(height)?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err("width and height belong together".into()),
        };
        let rate = |fps: f64| {
            (1..=240)
                .find(|whole| (f64::from(*whole) - fps).abs() <= 0.5)
                .and_then(NonZeroU32::new)
                .ok_or_else(|| format!("fps is a number from 1 to 240, not {fps}"))
        };
        let bits = |bps: u64| {
            if (150_000..=50_000_000).contains(&bps) {
                Ok(Bitrate::bps(bps))
            } else {
                Err(format!("bitrate_bps is a whole number from 150000 to 50000000, not {bps}"))
            }
        };
        if self.controls.len() > MOST_CONTROLS {
            return Err(format!("at most {MOST_CONTROLS} controls can be set at once"));
        }
        Ok(Change {
            size,
            fps: self.fps.map(rate).transpose()?,
            bitrate: self.bitrate_bps.map(bits).transpose()?,
            controls: self.controls.clone(),
        })
    }
}

/// The result of both: how the camera really is set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraState {
    pub stream: String,
    /// Pixels; absent before the first picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Pictures a second; absent where the camera does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// What the encoder is asked for.
    pub bitrate_bps: u64,
    /// What else the camera lets be set, by name.
    pub controls: BTreeMap<String, Control>,
}

impl CameraState {
    /// What is said of `stream`.
    #[must_use]
    pub fn new(stream: &str, settings: settings::Settings) -> Self {
        let Settings {
            size,
            fps,
            bitrate,
            controls,
        } = settings;
        Self {
            stream: stream.to_owned(),
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            fps,
            bitrate_bps: bitrate.as_bps(),
            controls: controls.into_iter().map(|control| (control.name.clone(), control)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_camera_has_is_refused_in_words() {
        let refused = |json: &str| {
            serde_json::from_str::<CameraSet>(json)
                .expect("JSON")
                .change()
                .expect_err("refused")
        };
        assert_eq!(refused(r#"{"width": 640}"#), "width and height belong together");
        assert!(refused(r#"{"width": 641, "height": 360}"#).contains("even numbers from 32 to 4096, not 641"));
        assert!(refused(r#"{"fps": 0}"#).contains("1 to 240, not 0"));
        assert!(refused(r#"{"fps": 1e300}"#).contains("1 to 240, not 1"));
        assert!(refused(r#"{"bitrate_bps": 1000}"#).contains("150000 to 50000000, not 1000"));
        assert!(serde_json::from_str::<CameraSet>(r#"{"zoom": 1}"#).is_err());
    }

    #[test]
    fn controls_are_numbers_switches_or_texts() {
        let json =
            r#"{"stream": "door", "fps": 15, "controls": {"brightness": 128, "horizontal_flip": true, "auto_exposure": "Manual Mode"}}"#;
        let change = serde_json::from_str::<CameraSet>(json).expect("JSON").change().expect("good");
        assert_eq!(
            (change.size, change.fps.map(NonZeroU32::get), change.bitrate),
            (None, Some(15), None)
        );
        let rate = |fps: &str| {
            let set: CameraSet = serde_json::from_str(&format!("{{\"fps\": {fps}}}")).expect("JSON");
            set.change().expect("good").fps.map(NonZeroU32::get)
        };
        assert_eq!(["29.97", "30.0", "240.4"].map(rate), [Some(30), Some(30), Some(240)]);
        assert_eq!(change.controls["brightness"], ControlValue::Number(128));
        assert_eq!(change.controls["horizontal_flip"], ControlValue::Switch(true));
        assert_eq!(change.controls["auto_exposure"], ControlValue::Text("Manual Mode".into()));
    }
}
