//! MQTT topics, and the names in them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A device's id: 1 to 64 of `A-Z a-z 0-9 - _`, so that it needs no escaping in a topic or a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceId(String);

/// How a peer reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    Mqtt,
    Http,
    Whep,
}

/// A viewer's id: a name as in [`DeviceId`], and the door it came by.
///
/// A name means nothing at another door: a broker's access list binds MQTT's names to accounts, and nobody is to speak for one
/// of them by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerId {
    door: Door,
    name: String,
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

impl DeviceId {
    /// Reads an id; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }
}

impl PeerId {
    /// Reads the name of a peer that speaks MQTT; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::at(Door::Mqtt, text)
    }

    /// Reads the name of a peer at `door`; `None` if it is not one.
    #[must_use]
    pub fn at(door: Door, text: &str) -> Option<Self> {
        is_name(text).then(|| Self {
            door,
            name: text.to_owned(),
        })
    }

    /// Where its messages go.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PeerId {
    /// The name; with its door before it where that is not MQTT.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let door = match self.door {
            Door::Mqtt => "",
            Door::Http => "http/",
            Door::Whep => "whep/",
        };
        write!(f, "{door}{}", self.name)
    }
}

/// The topics of one device.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// The topics of `device`.
    #[must_use]
    pub fn new(device: &DeviceId) -> Self {
        Self {
            prefix: format!("peercam/v1/{device}"),
        }
    }

    /// Device → all, retained.
    #[must_use]
    pub fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Peer → device.
    #[must_use]
    pub fn from(&self, peer: &PeerId) -> String {
        format!("{}/from/{peer}", self.prefix)
    }

    /// The filter that catches every peer's messages.
    #[must_use]
    pub fn from_all(&self) -> String {
        format!("{}/from/+", self.prefix)
    }

    /// Device → peer.
    #[must_use]
    pub fn to(&self, peer: &PeerId) -> String {
        format!("{}/to/{peer}", self.prefix)
    }

    /// The sender of a message that came on `topic`; `None` if it is not one of [`Topics::from`].
    #[must_use]
    pub fn sender(&self, topic: &str) -> Option<PeerId> {
        topic.strip_prefix(&self.prefix)?.strip_prefix("/from/").and_then(PeerId::parse)
    }

    /// Whether `topic` is one where `peer` may be answered: its own topic or one beneath it. Nothing that nobody can publish to: a
    /// broker cuts off a device that tries a wildcard or a control character (MQTT 5, 1.5.4 and 4.7.1).
    #[must_use]
    pub fn may_answer(&self, peer: &PeerId, topic: &str) -> bool {
        topic.strip_prefix(&self.to(peer)).is_some_and(|rest| {
            rest.is_empty() || (rest.starts_with('/') && !rest.contains(|c: char| c.is_control() || matches!(c, '+' | '#')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_answered_only_beneath_its_own_topic() {
        let topics = Topics::new(&DeviceId::parse("cam").expect("a name"));
        let peer = topics.sender("peercam/v1/cam/from/tab1").expect("a sender");
        assert!(topics.may_answer(&peer, "peercam/v1/cam/to/tab1/replies"));
        for foreign in [
            "peercam/v1/cam/to/tab12",
            "peercam/v1/cam/status",
            "peercam/v1/other/to/tab1",
            "peercam/v1/cam/to/tab1/#",
            "peercam/v1/cam/to/tab1/\0",
        ] {
            assert!(!topics.may_answer(&peer, foreign), "{foreign}");
        }
        for foreign in [
            "peercam/v1/cam/from/",
            "peercam/v1/cam/from/a/b",
            "peercam/v1/cam/to/tab1",
            "peercam/v1/cam/from/a b",
        ] {
            assert_eq!(topics.sender(foreign), None, "{foreign}");
        }
    }
}
