//! The cameras of this machine and what they can do: `peercam devices`.

use std::fmt;
use std::path::PathBuf;

use crate::v4l2::{Device, FourCc, Rates, Size, control};

/// Every V4L2 capture device that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices(pub Vec<Found>);

/// One device node.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub path: PathBuf,
    pub about: About,
}

/// What a node tells.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// It cannot be looked at; why.
    Unreadable(String),
    Camera {
        card: String,
        driver: String,
        bus: String,
        formats: Vec<Format>,
        /// Whether the bit rate can be set while it runs.
        sets_bitrate: bool,
        /// Whether a key frame comes when asked for.
        forces_key_frames: bool,
    },
}

/// A pixel format with its sizes and their rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    pub name: FourCc,
    pub sizes: Vec<(Size, Rates)>,
}

/// Looks at every device node; opens each for a moment.
#[must_use]
pub fn list() -> Devices {
    Devices(nodes().into_iter().filter_map(look).collect())
}

/// `/dev/video*`, by number.
pub(super) fn nodes() -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("video")?.parse::<u32>().ok();
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<_> = entries
        .filter_map(|entry| number(&entry.path()).map(|number| (number, entry.path())))
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

pub(super) fn format_names(formats: &[FourCc]) -> String {
    match formats {
        [] => "no format at all".to_owned(),
        formats => formats.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// `None` for a node that delivers no pictures: metadata, codecs, outputs.
fn look(path: PathBuf) -> Option<Found> {
    let read = Device::open(&path).and_then(|device| device.capability().map(|capability| (device, capability)));
    let about = match read {
        Err(error) => About::Unreadable(error.to_string()),
        Ok((_, capability)) if !capability.captures() && !capability.captures_multi_planar() => return None,
        Ok((device, capability)) => About::Camera {
            card: capability.card,
            driver: capability.driver,
            bus: capability.bus,
            formats: device.formats().into_iter().map(|name| format(&device, name)).collect(),
            sets_bitrate: device.control(control::BITRATE).is_some(),
            forces_key_frames: device.control(control::FORCE_KEY_FRAME).is_some(),
        },
    };
    Some(Found { path, about })
}

fn format(device: &Device, name: FourCc) -> Format {
    let sizes = device
        .sizes(name)
        .into_iter()
        .map(|size| (size, device.rates(name, size)))
        .collect();
    Format { name, sizes }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(
                f,
                "no camera found; plug one in, or see whether its driver is loaded (there is no capture device under /dev/video*)"
            );
        }
        for found in &self.0 {
            found.fmt(f)?;
        }
        if self.0.iter().any(|found| found.about.offers_h264()) {
            return Ok(());
        }
        writeln!(
            f,
            "none of these offers H.264; peercam needs a camera with an H.264 encoder of its own"
        )
    }
}

impl About {
    fn offers_h264(&self) -> bool {
        match self {
            Self::Unreadable(_) => false,
            Self::Camera { formats, .. } => formats.iter().any(|format| format.name == FourCc::H264),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let (formats, controls) = match &self.about {
            About::Unreadable(reason) => return writeln!(f, "{path}: cannot be opened: {reason} (is this user in group `video`?)"),
            About::Camera {
                card,
                driver,
                bus,
                formats,
                sets_bitrate,
                forces_key_frames,
            } => {
                let usable = if self.about.offers_h264() {
                    "usable: it delivers H.264"
                } else {
                    "not usable: no H.264"
                };
                writeln!(f, "{path}: {card} ({driver}, {bus})\n  {usable}")?;
                (formats, (*sets_bitrate, *forces_key_frames))
            }
        };
        for format in formats {
            let sizes: Vec<_> = format.sizes.iter().map(|(size, rates)| format!("{size}{rates}")).collect();
            writeln!(f, "  {}: {}", format.name, sizes.join(", "))?;
        }
        if self.about.offers_h264() {
            let word = |has| if has { "yes" } else { "no" };
            writeln!(
                f,
                "  bit rate can be set: {}; key frames on request: {}",
                word(controls.0),
                word(controls.1)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            rates => {
                let rates: Vec<_> = rates.iter().map(|rate| format!("{}", (rate * 100.0).round() / 100.0)).collect();
                write!(f, " at {} fps", rates.join("/"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(name: &[u8; 4]) -> Found {
        let size = |width, height| Size { width, height };
        Found {
            path: "/dev/video0".into(),
            about: About::Camera {
                card: "HD Camera".into(),
                driver: "uvcvideo".into(),
                bus: "usb-0000:01:00.0-1.3".into(),
                formats: vec![Format {
                    name: FourCc(*name),
                    sizes: vec![(size(640, 360), Rates(vec![15.0, 29.97])), (size(1280, 720), Rates(vec![]))],
                }],
                sets_bitrate: true,
                forces_key_frames: false,
            },
        }
    }

    #[test]
    fn a_person_can_read_what_there_is() {
        let text = Devices(vec![camera(b"H264")]).to_string();
        let expected = "/dev/video0: HD Camera (uvcvideo, usb-0000:01:00.0-1.3)\n  usable: it delivers H.264\n  H264: 640x360 at 15/29.97 fps, 1280x720\n  bit rate can be set: yes; key frames on request: no\n";
        assert_eq!(text, expected);
        assert!(Devices(vec![]).to_string().starts_with("no camera found"));
        assert!(Devices(vec![camera(b"YUYV")]).to_string().contains("none of these offers H.264"));
        let closed = Found {
            path: "/dev/video3".into(),
            about: About::Unreadable("permission denied".into()),
        };
        assert!(Devices(vec![closed]).to_string().contains("group `video`"));
    }
}
