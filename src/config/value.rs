//! Values as the file writes them. Each type knows what it allows, and says so when it is given something else.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Interfaces, Listen, Readers, TransportPolicy};

/// Something that is written as a string.
pub(super) trait FromText: Sized {
    /// Completes the sentence "expected …".
    const ALLOWED: &'static str;

    /// Reads it; the error is a whole sentence that says what is allowed.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A string that has been read as a `T`.
#[derive(Debug)]
pub(super) struct Text<T>(pub T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<T>(PhantomData<T>);
        impl<T: FromText> Visitor<'_> for TextVisitor<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::ALLOWED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_text(text).map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    pub fn get(self) -> u32 {
        self.0
    }

    /// For bounds that leave zero out.
    pub fn non_zero(self) -> NonZeroU32 {
        const { assert!(MIN > 0) };
        NonZeroU32::new(self.0).unwrap_or(NonZeroU32::MIN)
    }

    pub fn seconds(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor<const MIN: u32, const MAX: u32>;
        impl<const MIN: u32, const MAX: u32> Visitor<'_> for WholeVisitor<MIN, MAX> {
            type Value = Whole<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                u32::try_from(number)
                    .ok()
                    .filter(|number| (MIN..=MAX).contains(number))
                    .map(Whole)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_u32(WholeVisitor)
    }
}

/// What people call a device.
#[derive(Debug)]
pub(super) struct DeviceName(pub String);

impl FromText for DeviceName {
    const ALLOWED: &'static str = "a name of 1 to 64 characters";

    fn from_text(text: &str) -> Result<Self, String> {
        let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text;
        fits.then(|| Self(text.to_owned())).ok_or_else(|| {
            format!(
                "{text:?} cannot be a name; write {} without control characters or spaces at its ends",
                Self::ALLOWED
            )
        })
    }
}

/// A method that peers who have proved nothing may be allowed to call.
#[derive(Debug)]
pub(super) struct UnsignedMethod(pub String);

impl FromText for UnsignedMethod {
    const ALLOWED: &'static str = "\"camera.set\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let known = text == "camera.set";
        known
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("{text:?} cannot be allowed to everybody; what can is {}", Self::ALLOWED))
    }
}

impl FromText for PathBuf {
    const ALLOWED: &'static str = "a path in quotes";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the path is empty; write one, or put a # before the line".to_owned());
        }
        Ok(Self::from(text))
    }
}

/// A user name: any text but an empty one.
#[derive(Debug)]
pub(super) struct UserName(pub String);

impl FromText for UserName {
    const ALLOWED: &'static str = "a user name in quotes";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the user name is empty; write one, or put a # before the line".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromText for TransportPolicy {
    const ALLOWED: &'static str = "\"all\" or \"relay\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "relay" => Ok(Self::Relay),
            _ => Err(format!("{text:?} is not a transport policy; write {}", Self::ALLOWED)),
        }
    }
}

impl FromText for Readers {
    const ALLOWED: &'static str = "\"loopback\", \"all\" or \"off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Nobody),
            "loopback" => Ok(Self::Loopback),
            "all" => Ok(Self::Everybody),
            _ => Err(format!("{text:?} says nobody who may read the metrics; write {}", Self::ALLOWED)),
        }
    }
}

/// Where the page is served; `None` for `"off"`.
#[derive(Debug)]
pub(super) struct PageAddress(pub Option<SocketAddr>);

impl FromText for PageAddress {
    const ALLOWED: &'static str = "an address with a port, such as \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\", or \"off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| format!("{text:?} is not an address with a port; write {}", Self::ALLOWED))
    }
}

/// On or off.
#[derive(Debug)]
pub(super) struct Switch(pub bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor;
        impl Visitor<'_> for SwitchVisitor {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, without quotation marks")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
                Ok(Switch(on))
            }
        }
        deserializer.deserialize_bool(SwitchVisitor)
    }
}

/// A name in the DNS, without a port.
#[derive(Debug)]
pub(super) struct HostName(pub String);

impl FromText for HostName {
    const ALLOWED: &'static str = "a host name without scheme and port, such as \"cam.example.org\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(format!("{text:?} is not a host name; write {}", Self::ALLOWED))
    }
}

/// A `tracing` filter.
#[derive(Debug)]
pub(super) struct LogFilter(pub String);

impl FromText for LogFilter {
    const ALLOWED: &'static str =
        "a level (\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\") or a filter such as \"info,peercam=debug\"";

    fn from_text(text: &str) -> Result<Self, String> {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let refuse = |what: String| Err(format!("{what}; write {}", Self::ALLOWED));
        // The filter's own parser takes a bare word for a module's name, so a mistyped level would pass and silence everything.
        for directive in text.split(',').map(str::trim) {
            let level = directive
                .rsplit_once('=')
                .map_or(directive, |(_, level)| level)
                .to_ascii_lowercase();
            let known = LEVELS.contains(&level.as_str()) || directive.starts_with("peercam");
            if !known && !directive.contains("::") {
                return refuse(format!("{directive:?} is not a level"));
            }
        }
        match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => refuse(format!("{text:?} is not a filter ({error})")),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListenVisitor;
        impl<'de> Visitor<'de> for ListenVisitor {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"loopback\", \"all\" or a list of addresses such as [\"192.168.1.20\", \"fd00::20\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "loopback" => Ok(Listen::Loopback),
                    "all" => Ok(Listen::All(Interfaces::default())),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut addresses: Vec<IpAddr> = Vec::new();
                while let Some(Text(address)) = list.next_element()? {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                if addresses.is_empty() {
                    return Err(A::Error::custom(
                        "the list is empty; write at least one address, or \"loopback\" or \"all\"",
                    ));
                }
                Ok(Listen::Addresses(addresses))
            }
        }
        deserializer.deserialize_any(ListenVisitor)
    }
}

impl FromText for IpAddr {
    const ALLOWED: &'static str = "an IPv4 or IPv6 address of this machine, such as \"192.168.1.20\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.parse::<Self>() {
            Ok(address) if address.is_unspecified() => Err(format!("{text:?} stands for every address; write listen = \"all\" instead")),
            Ok(address) if address.is_multicast() => Err(format!("{text:?} is a multicast address; write {}", Self::ALLOWED)),
            Ok(address) => Ok(address),
            Err(_) => Err(format!("{text:?} is not an address; write {}", Self::ALLOWED)),
        }
    }
}
