//! The rungs of a camera: the same pictures, encoded more than once.

use serde::{Deserialize, Serialize};

/// Which of a camera's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// What the camera is set to.
    #[default]
    High,
    /// Half the width, half the height, and a bit rate for narrow paths.
    Low,
}

impl Quality {
    /// As it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }
}
