//! The retained status of a device: a hint for readers, not a promise.

use serde::{Deserialize, Serialize};

/// What `peercam/v1/<device>/status` carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub online: bool,
    /// Changes at every start of the agent.
    pub boot: String,
    /// Rises with every status of one boot.
    pub seq: u64,
    /// Protocol version.
    pub version: u32,
    pub name: String,
    /// Software version.
    pub software: String,
    pub streams: Vec<StreamStatus>,
    /// Why the running configuration is not the one on disk, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
}

impl Status {
    /// The status that follows this one when the device goes.
    #[must_use]
    pub fn offline(&self) -> Self {
        Self {
            online: false,
            seq: self.seq + 1,
            ..self.clone()
        }
    }
}

/// One stream's part of [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    pub name: String,
    pub state: StreamState,
    /// A sentence for people, where the state needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    Starting,
    Live,
    /// The camera is gone or silent; it is being tried.
    Lost,
    /// Its stream cannot be shown in a browser.
    Unsupported,
}
