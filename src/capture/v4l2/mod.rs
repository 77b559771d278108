//! V4L2 cameras: those that deliver H.264, and those whose raw pictures a hardware encoder takes.

#[cfg(all(test, feature = "software-encoder"))]
mod colours;
pub(super) mod controls;
mod h264;
mod intake;
mod memory;
mod pictures;
mod raw;
mod trouble;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::encoded::start_encoder;
use super::{CaptureError, EncodedSource, Overlay, Source, Tap, devices};
use crate::config::{CameraFormat, EncoderChoice, Encoding};
use crate::encode::m2m::{self, FoundEncoder};
use crate::media::Bitrate;
use crate::v4l2::{Device, Format, FourCc, Queue, QueueKind, Size, nodes};
use h264::H264Camera;
use memory::MemoryCamera;
use raw::RawCamera;
use trouble::failed;

/// Enough for a driver to fill one while two wait and one is read; more would only make a stalled picture older.
const BUFFERS: u32 = 4;
/// One to be filled while another is read.
const LEAST_BUFFERS: u32 = 2;
/// How long one call waits for a picture.
const WAIT: Duration = Duration::from_secs(1);
/// A camera that delivers nothing for so long has stalled, and is opened anew.
const SILENCE: Duration = Duration::from_secs(3);
const FALLBACK_FPS: f64 = 30.0;
/// Raw formats that are taken, the cheapest for memory and encoder first.
pub(super) const RAW: [FourCc; 3] = [FourCc::NV12, FourCc::YUV420, FourCc::YUYV];

/// What is fetched into our own memory where no encoder takes it from the camera: raw formats, and pictures that are to be decoded.
const FETCHED: [FourCc; 4] = [FourCc::NV12, FourCc::YUV420, FourCc::YUYV, FourCc::MJPEG];

/// Drivers whose nodes look like cameras, but deliver only what a program feeds them or sets up through other nodes: parts of
/// image pipelines, which libcamera runs.
pub(super) const PIPELINES: [&str; 4] = ["bcm2835-isp", "pispbe", "rp1-cfe", "unicam"];

/// What a camera is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub format: CameraFormat,
    /// Pixels; `None` for the camera's own.
    pub size: Option<(NonZeroU32, NonZeroU32)>,
    /// Pictures a second; `None` for the camera's own.
    pub fps: Option<NonZeroU32>,
    pub bitrate: Bitrate,
    pub encoding: Encoding,
}

/// Opens the camera at `path`, or the first that can be used, those with H.264 before others, and starts it. `name` is for the overlay;
/// what comes raw is left in `tap` too.
///
/// # Errors
/// It is not there, not ours to open, busy, or nothing can be made of its formats; the message says what to do.
pub fn open(name: &str, path: Option<&Path>, wish: &Wish, tap: &Arc<Tap>) -> Result<Box<dyn Source>, CaptureError> {
    let (camera, plan) = match path {
        Some(path) => {
            let camera = Opened::open(path)?;
            let plan = plan(&camera.formats, wish, m2m::find).map_err(|why| camera.unusable(&why))?;
            (camera, plan)
        }
        None => find(wish)?,
    };
    match plan {
        Plan::H264 => {
            if wish.encoding.overlay {
                tracing::warn!(
                    camera = name,
                    "the camera encodes by itself, so camera.overlay writes nothing; choose another camera.format"
                );
            }
            Ok(Box::new(H264Camera::start(camera, wish)?))
        }
        Plan::Fetched(format) => {
            let raw = MemoryCamera::start(camera, format, wish)?;
            let wanted = raw.wanted(wish);
            let encoder = start_encoder(&wanted)?;
            let overlay = wish.encoding.overlay.then(|| Overlay::new(name));
            Ok(Box::new(EncodedSource::new(raw, encoder, overlay, Some(tap.feed(&wanted)))))
        }
        Plan::Raw(encoder, format) => Ok(Box::new(RawCamera::start(camera, &encoder, format, wish, tap)?)),
    }
}

/// A device that delivers pictures.
struct Opened {
    device: Device,
    kind: QueueKind,
    card: String,
    driver: String,
    formats: Vec<FourCc>,
}

/// What becomes of a camera's pictures.
#[derive(Clone, Debug, PartialEq)]
enum Plan {
    /// It encodes them itself.
    H264,
    /// This encoder does, from this format.
    Raw(FoundEncoder, FourCc),
    /// They are fetched into our memory, decoded where they are JPEG, and encoded from there.
    Fetched(FourCc),
}

impl Opened {
    fn open(path: &Path) -> Result<Self, CaptureError> {
        let fail = |error| failed(path, "opening", &error);
        let device = Device::open(path).map_err(fail)?;
        let capability = device.capability().map_err(fail)?;
        let Some(kind) = capability.camera() else {
            return Err(CaptureError::Unsupported(format!(
                "{} ({}) delivers no pictures; `peercam devices` lists the cameras",
                path.display(),
                capability.card
            )));
        };
        Ok(Self {
            formats: device.formats(kind),
            device,
            kind,
            card: capability.card,
            driver: capability.driver,
        })
    }

    fn unusable(&self, why: &str) -> CaptureError {
        CaptureError::Unsupported(format!("{} ({}) {why}", self.device.path().display(), self.card))
    }

    /// Sets the format, and the rate where one is wished for; gives back what it is now.
    fn set_up(&self, fourcc: FourCc, wish: &Wish) -> Result<Format, CaptureError> {
        let path = self.device.path().display();
        let fail = |error| failed(self.device.path(), &format!("setting {fourcc} on"), &error);
        let wanted = match wish.size {
            Some((width, height)) => Size {
                width: width.get(),
                height: height.get(),
            },
            None => self.device.format(self.kind).map_err(fail)?.size,
        };
        let got = self.device.set_format(self.kind, &Format::new(fourcc, wanted)).map_err(fail)?;
        if got.fourcc != fourcc {
            return Err(CaptureError::Lost(format!(
                "setting {fourcc} on {path}: the driver chose {} instead; does another program use it?",
                got.fourcc
            )));
        }
        if wish.size.is_some() && got.size != wanted {
            let offered: Vec<_> = self.device.sizes(fourcc).iter().map(ToString::to_string).collect();
            tracing::warn!(device = %path, %wanted, got = %got.size, offered = offered.join(" "), "the camera does not offer the size in camera.size");
        }
        if let Some(fps) = wish.fps {
            self.set_rate(fps.get());
        }
        Ok(got)
    }

    /// A rate that the camera doesn't have is no reason to show nothing.
    fn set_rate(&self, fps: u32) {
        let path = self.device.path().display();
        match self.device.set_rate(self.kind, fps) {
            Ok(Some(got)) if (got - f64::from(fps)).abs() < 0.5 => {}
            Ok(got) => {
                tracing::warn!(device = %path, wanted = fps, ?got, "the camera does not offer the rate in camera.fps");
            }
            Err(error) => {
                tracing::warn!(device = %path, wanted = fps, %error, "the camera's rate cannot be set");
            }
        }
    }

    /// Asks for the camera's buffers.
    fn buffers(device: &Arc<Device>, kind: QueueKind) -> Result<Queue, CaptureError> {
        let queue = Queue::mapped(Arc::clone(device), kind, BUFFERS).map_err(|error| failed(device.path(), "starting", &error))?;
        if queue.len() < LEAST_BUFFERS {
            return Err(CaptureError::Lost(format!(
                "starting {}: the driver gives {} buffers, at least {LEAST_BUFFERS} are needed",
                device.path().display(),
                queue.len()
            )));
        }
        Ok(queue)
    }

    /// Pictures a second.
    fn rate(&self) -> f64 {
        self.device.rate(self.kind).unwrap_or(FALLBACK_FPS)
    }
}

/// What is done with the pictures of a camera that offers these formats; if nothing, why, to follow the camera's name.
fn plan(formats: &[FourCc], wish: &Wish, find_encoder: impl Fn(&[FourCc]) -> Option<(FoundEncoder, FourCc)>) -> Result<Plan, String> {
    let offers = devices::format_names(formats);
    let wanted: &[FourCc] = match wish.format {
        CameraFormat::Auto if formats.contains(&FourCc::H264) => return Ok(Plan::H264),
        CameraFormat::H264 if formats.contains(&FourCc::H264) => return Ok(Plan::H264),
        CameraFormat::H264 => return Err(format!("offers no H.264, but {offers}; choose another camera.format, or \"auto\"")),
        CameraFormat::Auto => &FETCHED,
        CameraFormat::Mjpeg => &[FourCc::MJPEG],
        CameraFormat::Yuyv => &[FourCc::YUYV],
        CameraFormat::Nv12 => &[FourCc::NV12],
        CameraFormat::Yuv420 => &[FourCc::YUV420],
    };
    let both: Vec<FourCc> = wanted.iter().copied().filter(|format| formats.contains(format)).collect();
    let Some(first) = both.first() else {
        let wanted = devices::format_names(wanted);
        return Err(match wish.format {
            CameraFormat::Auto => {
                format!("offers no H.264 and nothing that it could be made of ({wanted}), but {offers}; choose another camera")
            }
            _ => format!("offers no {wanted}, but {offers}; choose another camera.format, or \"auto\""),
        });
    };
    let raw: Vec<FourCc> = both.iter().copied().filter(|format| RAW.contains(format)).collect();
    // An encoder that reads the camera's own memory sees no overlay.
    let direct = wish.encoding.encoder != EncoderChoice::Software && !wish.encoding.overlay && !raw.is_empty();
    if direct && let Some((encoder, format)) = find_encoder(&raw) {
        return Ok(Plan::Raw(encoder, format));
    }
    // Raw pictures of more than VGA come at a few a second over USB 2; JPEG is what such a camera does well.
    let fetched = if formats.contains(&FourCc::MJPEG) && both.contains(&FourCc::MJPEG) {
        FourCc::MJPEG
    } else {
        *first
    };
    Ok(Plan::Fetched(fetched))
}

/// The first camera that can be used: of all that there are, those with H.264 come first.
fn find(wish: &Wish) -> Result<(Opened, Plan), CaptureError> {
    let mut others = Vec::new();
    let mut raw = None;
    for path in nodes() {
        // A card has more nodes than pictures come from: those say nothing.
        let found = Opened::open(&path).and_then(|camera| {
            if PIPELINES.contains(&camera.driver.as_str()) {
                return Err(camera.unusable("is part of an image pipeline, not a camera by itself"));
            }
            let plan = plan(&camera.formats, wish, m2m::find).map_err(|why| camera.unusable(&why))?;
            Ok((camera, plan))
        });
        match found {
            Ok(found @ (_, Plan::H264)) => return Ok(found),
            Ok(found) => raw = raw.or(Some(found)),
            Err(error) => others.push(error.to_string()),
        }
    }
    raw.ok_or_else(|| {
        CaptureError::Lost(match others.as_slice() {
            [] => "no camera found: there is no /dev/video*; is it plugged in, and its driver loaded?".into(),
            others => format!("no camera found that can be used: {}", others.join("; ")),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(formats: &[FourCc]) -> FoundEncoder {
        FoundEncoder {
            path: "/dev/video11".into(),
            card: "encoder".into(),
            driver: "test".into(),
            input: QueueKind::OutputMulti,
            coded: QueueKind::CaptureMulti,
            formats: formats.to_vec(),
        }
    }

    #[test]
    fn a_camera_s_own_h264_comes_first_then_the_cheapest_raw_format_that_both_sides_know() {
        let takes = encoder(&[FourCc::YUYV, FourCc::YUV420]);
        let find = |wanted: &[FourCc]| {
            let format = wanted.iter().copied().find(|format| takes.formats.contains(format))?;
            Some((takes.clone(), format))
        };
        let plan = |formats: &[FourCc], format| super::plan(formats, &wish(format), find);
        let raw = |format| Ok(Plan::Raw(takes.clone(), format));
        let fetched = |format| Ok(Plan::Fetched(format));
        let all = [FourCc::YUYV, FourCc::NV12, FourCc::YUV420];
        assert_eq!(plan(&[FourCc::YUYV, FourCc::H264], CameraFormat::Auto), Ok(Plan::H264));
        assert_eq!(plan(&all, CameraFormat::Auto), raw(FourCc::YUV420));
        assert_eq!(plan(&[FourCc::YUYV, FourCc::H264], CameraFormat::Yuyv), raw(FourCc::YUYV));
        assert_eq!(plan(&[FourCc::YUYV, FourCc::MJPEG], CameraFormat::Auto), raw(FourCc::YUYV));
        assert_eq!(
            plan(&all, CameraFormat::Nv12),
            fetched(FourCc::NV12),
            "the encoder does not take it, software does"
        );
        assert_eq!(plan(&[FourCc::MJPEG], CameraFormat::Auto), fetched(FourCc::MJPEG));
        assert_eq!(plan(&[FourCc::YUYV, FourCc::MJPEG], CameraFormat::Mjpeg), fetched(FourCc::MJPEG));
        let refused = |formats: &[FourCc], wish| plan(formats, wish).expect_err("refused");
        assert!(refused(&[FourCc(*b"HEVC")], CameraFormat::Auto).starts_with("offers no H.264 and nothing"));
        assert!(refused(&all, CameraFormat::H264).contains("no H.264, but YUYV, NV12, YU12"));
        assert!(refused(&[FourCc::YUYV], CameraFormat::Nv12).contains("offers no NV12, but YUYV"));
        assert!(refused(&[FourCc(*b"RGGB")], CameraFormat::Auto).contains("but RGGB"));
    }

    #[test]
    fn without_a_hardware_encoder_or_with_an_overlay_pictures_are_fetched() {
        let takes = encoder(&[FourCc::YUYV]);
        let found = |_: &[FourCc]| Some((takes.clone(), FourCc::YUYV));
        let both = [FourCc::YUYV, FourCc::MJPEG];
        let mut software = wish(CameraFormat::Auto);
        software.encoding.encoder = EncoderChoice::Software;
        assert_eq!(super::plan(&both, &software, found), Ok(Plan::Fetched(FourCc::MJPEG)));
        assert_eq!(super::plan(&[FourCc::YUYV], &software, found), Ok(Plan::Fetched(FourCc::YUYV)));
        let mut overlay = wish(CameraFormat::Yuyv);
        overlay.encoding.overlay = true;
        assert_eq!(super::plan(&both, &overlay, found), Ok(Plan::Fetched(FourCc::YUYV)));
        assert_eq!(
            super::plan(&both, &wish(CameraFormat::Auto), |_| None),
            Ok(Plan::Fetched(FourCc::MJPEG))
        );
    }

    fn wish(format: CameraFormat) -> Wish {
        Wish {
            format,
            size: None,
            fps: None,
            bitrate: Bitrate::kbps(1000),
            encoding: Encoding {
                encoder: EncoderChoice::Auto,
                gop: Duration::from_secs(2),
                overlay: false,
            },
        }
    }

    #[test]
    fn errors_name_the_device_and_what_to_do() {
        let wish = wish(CameraFormat::Auto);
        let open = |path: &str| {
            open("camera", Some(Path::new(path)), &wish, &Tap::new(std::time::Instant::now()))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let missing = open("/dev/video-that-is-not-there");
        assert!(
            missing.contains("/dev/video-that-is-not-there") && missing.contains("plugged in"),
            "{missing}"
        );
        let null = open("/dev/null");
        assert!(null.contains("/dev/null") && null.contains("camera"), "{null}");
    }
}
