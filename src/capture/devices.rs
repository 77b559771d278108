//! The cameras of this machine, what they can do, and how to configure them: `peercam devices`.

use std::fmt;
use std::path::PathBuf;

use super::rpicam::listing::{self, Listed, Listing};
use super::v4l2::{PIPELINES, RAW};
use crate::encode::m2m::{self, FoundEncoder};
use crate::v4l2::{Device, FourCc, QueueKind, Rates, Size, control, nodes};

/// Every camera and hardware encoder that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices {
    /// V4L2's, but for parts of image pipelines.
    pub cameras: Vec<Found>,
    /// Whether there are such parts: the board has a connector for a CSI camera.
    pub pipelines: bool,
    /// Those that only libcamera runs.
    pub libcamera: Listing,
    pub encoders: Vec<FoundEncoder>,
}

/// One device node.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub path: PathBuf,
    /// A name of it that stays the same when cameras are plugged in another order.
    pub by_id: Option<PathBuf>,
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
    let all: Vec<Found> = nodes().into_iter().filter_map(look).collect();
    let (parts, cameras): (Vec<Found>, Vec<Found>) = all.into_iter().partition(|found| found.about.is_part_of_a_pipeline());
    Devices {
        cameras,
        pipelines: !parts.is_empty(),
        libcamera: listing::list(),
        encoders: m2m::find_all(),
    }
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
        Ok((device, capability)) => {
            let kind = capability.camera()?;
            About::Camera {
                card: capability.card,
                driver: capability.driver,
                bus: capability.bus,
                formats: formats(&device, kind),
                sets_bitrate: device.control(control::BITRATE).is_some(),
                forces_key_frames: device.control(control::FORCE_KEY_FRAME).is_some(),
            }
        }
    };
    Some(Found {
        by_id: by_id(&path),
        path,
        about,
    })
}

fn formats(device: &Device, kind: QueueKind) -> Vec<Format> {
    let format = |name| Format {
        name,
        sizes: device
            .sizes(name)
            .into_iter()
            .map(|size| (size, device.rates(name, size)))
            .collect(),
    };
    device.formats(kind).into_iter().map(format).collect()
}

/// udev's name of a node, by maker and serial number.
fn by_id(node: &PathBuf) -> Option<PathBuf> {
    let names = std::fs::read_dir("/dev/v4l/by-id").into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = names.map(|name| name.path()).collect();
    paths.sort();
    paths
        .into_iter()
        .find(|path| std::fs::canonicalize(path).is_ok_and(|target| target == *node))
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let csi: &[Listed] = match &self.libcamera {
            Listing::Cameras(cameras) => cameras,
            Listing::NoProgram | Listing::Failed(_) => &[],
        };
        if self.cameras.is_empty() && csi.is_empty() {
            writeln!(
                f,
                "no camera found; plug one in, or see whether its driver is loaded (there is no capture device under /dev/video*)"
            )?;
        }
        for camera in csi {
            self.show_csi(camera, f)?;
        }
        for found in &self.cameras {
            found.show(&self.encoders, f)?;
        }
        match &self.libcamera {
            Listing::NoProgram if self.pipelines => writeln!(
                f,
                "this board has a connector for CSI cameras; to see what hangs on it, install rpicam-apps (`apt install rpicam-apps`)"
            )?,
            Listing::Failed(why) => writeln!(f, "CSI cameras could not be listed: {why}")?,
            Listing::Cameras(cameras) if cameras.is_empty() && self.pipelines => writeln!(
                f,
                "no CSI camera found; is its ribbon cable in, with the contacts on the right side? (The board reads it at boot.)"
            )?,
            Listing::NoProgram | Listing::Cameras(_) => {}
        }
        for encoder in &self.encoders {
            let takes: Vec<_> = RAW.into_iter().filter(|format| encoder.formats.contains(format)).collect();
            writeln!(
                f,
                "{}: hardware encoder {} ({}), makes H.264 of {}",
                encoder.path.display(),
                encoder.card,
                encoder.driver,
                format_names(&takes)
            )?;
        }
        if self.cameras.is_empty() || !csi.is_empty() || self.cameras.iter().any(|found| found.about.usable_as(&self.encoders).is_some()) {
            return Ok(());
        }
        writeln!(
            f,
            "none of these can be used: none offers H.264, JPEG or one of {}; choose a camera that does",
            format_names(&RAW)
        )
    }
}

impl Devices {
    fn show_csi(&self, camera: &Listed, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listed {
            number,
            sensor,
            about,
            place,
            modes,
        } = camera;
        writeln!(f, "CSI camera {number}: {sensor} ({about}, {place})")?;
        match self.encoders.iter().find(|encoder| encoder.formats.contains(&FourCc::YUV420)) {
            Some(encoder) => writeln!(f, "  usable: rpicam-vid runs it, {} encodes its pictures", encoder.path.display())?,
            None => writeln!(
                f,
                "  usable: rpicam-vid runs it, and its pictures go through the processor (docs/cameras.md says what that costs)"
            )?,
        }
        if !modes.is_empty() {
            writeln!(f, "  {}", modes.join(", "))?;
        }
        writeln!(
            f,
            "  for peercam.toml:\n    [[camera]]\n    source = \"rpicam\"\n    size = \"1280x720\"\n    fps = 30"
        )?;
        if *number == 0 {
            return Ok(());
        }
        // Names of cameras are one each.
        writeln!(f, "    name = \"camera-{number}\"\n    extra = [\"--camera\", \"{number}\"]")
    }
}

/// How a camera's pictures become H.264.
#[derive(Clone, Debug, PartialEq)]
enum Usable {
    ItsOwn,
    /// By this encoder, from this format.
    By(PathBuf, FourCc),
    /// From this format, which is fetched, decoded or encoded by the processor.
    Fetched(FourCc),
}

impl About {
    fn is_part_of_a_pipeline(&self) -> bool {
        matches!(self, Self::Camera { driver, .. } if PIPELINES.contains(&driver.as_str()))
    }

    fn usable_as(&self, encoders: &[FoundEncoder]) -> Option<Usable> {
        let Self::Camera { formats, .. } = self else { return None };
        let offers = |name: FourCc| formats.iter().any(|format| format.name == name);
        if offers(FourCc::H264) {
            return Some(Usable::ItsOwn);
        }
        let by = encoders.iter().find_map(|encoder| {
            let format = RAW.into_iter().find(|format| offers(*format) && encoder.formats.contains(format))?;
            Some(Usable::By(encoder.path.clone(), format))
        });
        by.or_else(|| {
            let fetched = std::iter::once(FourCc::MJPEG).chain(RAW).find(|format| offers(*format))?;
            Some(Usable::Fetched(fetched))
        })
    }
}

impl Found {
    fn show(&self, encoders: &[FoundEncoder], f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
                writeln!(f, "{path}: {card} ({driver}, {bus})")?;
                (formats, (*sets_bitrate, *forces_key_frames))
            }
        };
        let usable = self.about.usable_as(encoders);
        match &usable {
            Some(Usable::ItsOwn) => writeln!(f, "  usable: it delivers H.264")?,
            Some(Usable::By(encoder, format)) => writeln!(f, "  usable: {} encodes its {format}", encoder.display())?,
            Some(Usable::Fetched(format)) => {
                writeln!(
                    f,
                    "  usable: its {format} goes through the processor (docs/cameras.md says what that costs)"
                )?;
            }
            None => writeln!(f, "  not usable: neither H.264 nor JPEG nor a raw format that peercam knows")?,
        }
        for format in formats {
            let sizes: Vec<_> = format.sizes.iter().map(|(size, rates)| format!("{size}{rates}")).collect();
            writeln!(f, "  {}: {}", format.name, sizes.join(", "))?;
        }
        if usable == Some(Usable::ItsOwn) {
            let word = |has| if has { "yes" } else { "no" };
            writeln!(
                f,
                "  bit rate can be set: {}; key frames on request: {}",
                word(controls.0),
                word(controls.1)
            )?;
        }
        let Some(usable) = usable else { return Ok(()) };
        let (name, format) = match usable {
            Usable::ItsOwn => (FourCc::H264, "h264"),
            Usable::By(_, name) | Usable::Fetched(name) => (name, config_name(name)),
        };
        writeln!(f, "  for peercam.toml:\n    [[camera]]\n    source = \"v4l2\"")?;
        let device = self.by_id.as_ref().unwrap_or(&self.path);
        writeln!(f, "    device = \"{}\"\n    format = \"{format}\"", device.display())?;
        match formats.iter().find(|format| format.name == name).and_then(best_size) {
            Some(size) => writeln!(f, "    size = \"{size}\""),
            None => Ok(()),
        }
    }
}

/// The letters of a format as `camera.format` writes them.
fn config_name(format: FourCc) -> &'static str {
    match format {
        FourCc::YUYV => "yuyv",
        FourCc::NV12 => "nv12",
        FourCc::YUV420 => "yuv420",
        FourCc::MJPEG => "mjpeg",
        _ => "auto",
    }
}

/// The largest size up to 1280x720, which every browser decodes with ease; else the smallest.
fn best_size(format: &Format) -> Option<Size> {
    let fits = |size: &Size| size.width <= 1280 && size.height <= 720;
    let sizes = || format.sizes.iter().map(|(size, _)| *size);
    sizes()
        .filter(fits)
        .max_by_key(|size| (size.width * size.height, size.width))
        .or_else(|| sizes().min())
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

    fn camera(name: FourCc) -> Found {
        let size = |width, height| Size { width, height };
        Found {
            path: "/dev/video0".into(),
            by_id: None,
            about: About::Camera {
                card: "HD Camera".into(),
                driver: "uvcvideo".into(),
                bus: "usb-0000:01:00.0-1.3".into(),
                formats: vec![Format {
                    name,
                    sizes: vec![
                        (size(640, 360), Rates(vec![15.0, 29.97])),
                        (size(1280, 720), Rates(vec![])),
                        (size(1920, 1080), Rates(vec![5.0])),
                    ],
                }],
                sets_bitrate: true,
                forces_key_frames: false,
            },
        }
    }

    fn show(cameras: Vec<Found>, encoders: Vec<FoundEncoder>) -> String {
        Devices {
            cameras,
            pipelines: false,
            libcamera: Listing::NoProgram,
            encoders,
        }
        .to_string()
    }

    fn encoder() -> FoundEncoder {
        FoundEncoder {
            path: "/dev/video11".into(),
            card: "bcm2835-codec-encode".into(),
            driver: "bcm2835-codec".into(),
            input: QueueKind::OutputMulti,
            coded: QueueKind::CaptureMulti,
            formats: vec![FourCc::YUYV, FourCc::YUV420],
        }
    }

    #[test]
    fn a_person_can_read_what_there_is() {
        let text = show(vec![camera(FourCc::H264)], vec![]);
        let expected = "/dev/video0: HD Camera (uvcvideo, usb-0000:01:00.0-1.3)\n  usable: it delivers H.264\n  H264: 640x360 at 15/29.97 fps, 1280x720, 1920x1080 at 5 fps\n  bit rate can be set: yes; key frames on request: no\n  for peercam.toml:\n    [[camera]]\n    source = \"v4l2\"\n    device = \"/dev/video0\"\n    format = \"h264\"\n    size = \"1280x720\"\n";
        assert_eq!(text, expected);
        assert!(show(vec![], vec![]).starts_with("no camera found"));
        let closed = Found {
            path: "/dev/video3".into(),
            by_id: None,
            about: About::Unreadable("permission denied".into()),
        };
        assert!(show(vec![closed], vec![]).contains("group `video`"));
    }

    #[test]
    fn a_raw_camera_is_usable_where_an_encoder_takes_its_format() {
        let text = show(vec![camera(FourCc::YUYV)], vec![encoder()]);
        assert!(
            text.contains("usable: /dev/video11 encodes its YUYV") && text.contains("format = \"yuyv\""),
            "{text}"
        );
        assert!(
            text.ends_with("/dev/video11: hardware encoder bcm2835-codec-encode (bcm2835-codec), makes H.264 of YU12, YUYV\n"),
            "{text}"
        );
        let alone = show(vec![camera(FourCc::YUYV)], vec![]);
        assert!(
            alone.contains("usable: its YUYV goes through the processor") && alone.contains("format = \"yuyv\""),
            "{alone}"
        );
        let jpeg = show(vec![camera(FourCc::MJPEG)], vec![encoder()]);
        assert!(
            jpeg.contains("usable: its MJPG goes through the processor") && jpeg.contains("format = \"mjpeg\""),
            "{jpeg}"
        );
        let useless = show(vec![camera(FourCc(*b"RGGB"))], vec![encoder()]);
        assert!(
            useless.contains("not usable") && useless.contains("none of these can be used"),
            "{useless}"
        );
        let plain = show(vec![], vec![encoder()]);
        assert!(plain.starts_with("no camera found") && plain.contains("/dev/video11"), "{plain}");
    }

    #[test]
    fn a_csi_camera_is_listed_with_its_lines_and_a_missing_one_with_what_to_do() {
        let camera = |number| Listed {
            number,
            sensor: "imx219".into(),
            about: "3280x2464 10-bit RGGB".into(),
            place: "/base/soc/i2c0mux/i2c@1/imx219@10".into(),
            modes: vec!["640x480 at 206.65 fps".into(), "1640x1232 at 41.85 fps".into()],
        };
        let show = |libcamera, encoders| {
            Devices {
                cameras: vec![],
                pipelines: true,
                libcamera,
                encoders,
            }
            .to_string()
        };
        let text = show(Listing::Cameras(vec![camera(0)]), vec![]);
        let expected = "CSI camera 0: imx219 (3280x2464 10-bit RGGB, /base/soc/i2c0mux/i2c@1/imx219@10)\n  usable: rpicam-vid runs it, and its pictures go through the processor (docs/cameras.md says what that costs)\n  640x480 at 206.65 fps, 1640x1232 at 41.85 fps\n  for peercam.toml:\n    [[camera]]\n    source = \"rpicam\"\n    size = \"1280x720\"\n    fps = 30\n";
        assert_eq!(text, expected);
        let second = show(Listing::Cameras(vec![camera(0), camera(1)]), vec![encoder()]);
        assert!(
            second.contains("/dev/video11 encodes its pictures") && second.contains("    extra = [\"--camera\", \"1\"]\n"),
            "{second}"
        );
        let none = show(Listing::Cameras(vec![]), vec![]);
        assert!(none.starts_with("no camera found") && none.contains("ribbon cable"), "{none}");
        let missing = show(Listing::NoProgram, vec![]);
        assert!(missing.contains("apt install rpicam-apps"), "{missing}");
        let failed = show(Listing::Failed("rpicam-vid ended (exit status: 255)".into()), vec![]);
        assert!(failed.contains("CSI cameras could not be listed: rpicam-vid ended"), "{failed}");
    }

    #[test]
    fn the_configuration_names_a_camera_by_what_stays() {
        let mut found = camera(FourCc::H264);
        found.by_id = Some("/dev/v4l/by-id/usb-HD_Camera-video-index0".into());
        let text = show(vec![found], vec![]);
        assert!(text.contains("device = \"/dev/v4l/by-id/usb-HD_Camera-video-index0\""), "{text}");
    }
}
