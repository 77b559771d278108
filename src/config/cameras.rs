//! `[[camera]]`: defaults, and what one key demands of another.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::camera_value::{ControlSetting, Gop, Size, SourceKind};
use super::error::{Fault, line_of};
use super::file::CameraTable;
use super::resolve::{Resolver, header, number};
use super::value::{Switch, Text, Whole};
use super::{Camera, CameraFormat, EncoderChoice, Encoding, Idle, Rpicam, Source, rpicam};
use crate::media::Bitrate;

/// Enough for a clear 720p30 picture; a phone's uplink and the Pi's encoder carry it with room to spare.
const DEFAULT_BITRATE: Bitrate = Bitrate::kbps(2_500);
/// Of the high rung's bit rate, the low one's: it has a quarter of the pixels, and small pictures compress less well.
const LOW_SHARE: u64 = 5;
const LEAST_LOW: Bitrate = Bitrate::kbps(150);

impl Resolver<'_> {
    pub(super) fn cameras(&self, tables: Option<Spanned<Vec<Spanned<CameraTable>>>>) -> Result<Vec<Camera>, Fault> {
        let Some(tables) = tables else {
            return Ok(vec![self.camera(CameraTable::default(), 0..0)?]);
        };
        if tables.get_ref().is_empty() {
            return Err(Fault::new(
                tables.span(),
                "the list is empty; leave the key out, or describe a camera with [[camera]]",
            ));
        }
        let mut cameras: Vec<(Camera, Range<usize>)> = Vec::new();
        for table in tables.into_inner() {
            let header = header(table.span(), self.text);
            let name_span = table.get_ref().name.as_ref().map_or(header.clone(), Spanned::span);
            let device_span = table.get_ref().device.as_ref().map_or(header.clone(), Spanned::span);
            let camera = self.camera(table.into_inner(), header.clone())?;
            for (other, other_span) in &cameras {
                let line = line_of(other_span.start, self.text);
                if other.name == camera.name {
                    let what = format!(
                        "two cameras are named `{}`, the other one at line {line}; give each its own `name`",
                        camera.name
                    );
                    return Err(Fault::new(name_span, what));
                }
                let (Source::V4l2 { device: a, .. }, Source::V4l2 { device: b, .. }) = (&other.source, &camera.source) else {
                    continue;
                };
                if a.is_none() || b.is_none() {
                    let what = format!("with two v4l2 cameras, the other one at line {line}, each needs its own `device`");
                    return Err(Fault::new(if b.is_none() { header } else { other_span.clone() }, what));
                }
                if a == b {
                    let what = format!("the camera at line {line} has this device already; a device serves one camera");
                    return Err(Fault::new(device_span, what));
                }
            }
            cameras.push((camera, header));
        }
        Ok(cameras.into_iter().map(|(camera, _)| camera).collect())
    }

    fn camera(&self, table: CameraTable, header: Range<usize>) -> Result<Camera, Fault> {
        let kind = table.source.as_ref().map_or_else(SourceKind::default, |Text(kind)| *kind);
        let foreign = |key: &str, span: Option<Range<usize>>, owner: &str| match span {
            Some(span) => Err(Fault::new(
                span,
                format!("`{key}` belongs to source = {owner}; this camera has source = \"{}\"", kind.name()),
            )),
            None => Ok(()),
        };
        let camera = matches!(kind, SourceKind::V4l2 | SourceKind::Rpicam);
        if kind != SourceKind::V4l2 {
            foreign("device", table.device.as_ref().map(Spanned::span), "\"v4l2\"")?;
            foreign("controls", table.controls.as_ref().map(Spanned::span), "\"v4l2\"")?;
        }
        if kind != SourceKind::Rpicam {
            foreign("command", table.command.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("rotation", table.rotation.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("hflip", table.hflip.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("vflip", table.vflip.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("extra", table.extra.as_ref().map(Spanned::span), "\"rpicam\"")?;
        }
        if !camera {
            foreign("format", table.format.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
            foreign("encoder", table.encoder.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
            foreign("overlay", table.overlay.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
        }
        if kind != SourceKind::File {
            foreign("path", table.path.as_ref().map(Spanned::span), "\"file\"")?;
        } else {
            let owners = "\"v4l2\", \"rpicam\" or \"pattern\"";
            foreign("gop_secs", table.gop_secs.as_ref().map(Spanned::span), owners)?;
            foreign("size", table.size.as_ref().map(Spanned::span), owners)?;
            foreign("low", table.low.as_ref().map(Spanned::span), owners)?;
            foreign("low_kbps", table.low_kbps.as_ref().map(Spanned::span), owners)?;
        }
        let gop = table.gop_secs.as_ref().map(|gop| {
            let Gop(gop) = *gop.get_ref();
            gop
        });
        let encoding = Encoding {
            encoder: table
                .encoder
                .as_ref()
                .map_or_else(EncoderChoice::default, |choice| choice.get_ref().0),
            gop: gop.unwrap_or(Encoding::default().gop),
            overlay: table.overlay.as_ref().is_some_and(|overlay| overlay.get_ref().0),
        };
        let format = table
            .format
            .as_ref()
            .map_or_else(CameraFormat::default, |format| format.get_ref().0);
        if let (Some(overlay), true, CameraFormat::H264) = (&table.overlay, encoding.overlay, format) {
            return Err(Fault::new(
                overlay.span(),
                "nothing can be written into pictures that come as H.264; choose another `format`, or leave `overlay` out",
            ));
        }
        let size = table.size.as_ref().map(|size| {
            let Text(Size(width, height)) = size.get_ref();
            (*width, *height)
        });
        let fps = table.fps.map(Whole::non_zero);
        let bitrate = table.bitrate_kbps.map_or(DEFAULT_BITRATE, |rate| Bitrate::kbps(rate.get().into()));
        let low = Self::low(&table, bitrate)?;
        let source = match kind {
            SourceKind::V4l2 => Source::V4l2 {
                device: match table.device {
                    Some(device) if !device.get_ref().0.is_absolute() => {
                        return Err(Fault::new(
                            device.span(),
                            "a device is written with its whole path, such as \"/dev/video0\"",
                        ));
                    }
                    device => device.map(|device| device.into_inner().0),
                },
                format,
                size,
                fps,
                encoding,
            },
            SourceKind::Rpicam => Source::Rpicam(Self::rpicam(&table, encoding)?),
            SourceKind::File => {
                let Some(path) = &table.path else {
                    return Err(Fault::new(header, "a camera of source = \"file\" needs the key `path`"));
                };
                Source::File {
                    // A recording that is missing costs its own camera the picture, and nothing else.
                    path: self.folder.join(&path.get_ref().0),
                    fps,
                }
            }
            SourceKind::Pattern => Source::Pattern {
                size: size.unwrap_or((number(1280), number(720))),
                fps: fps.unwrap_or(number(30)),
                gop: gop.unwrap_or(Duration::from_secs(4)),
            },
        };
        Ok(Camera {
            name: table.name.map_or_else(|| "camera".to_owned(), |name| name.into_inner().0.0),
            source,
            bitrate,
            idle: table.idle.map_or_else(Idle::default, |Text(idle)| idle),
            low: low.filter(|_| kind != SourceKind::File),
            controls: table
                .controls
                .map(Spanned::into_inner)
                .unwrap_or_default()
                .into_iter()
                .map(|Text(ControlSetting(name, value))| (name, value))
                .collect(),
        })
    }

    /// The bit rate of the low rung, if there is to be one.
    fn low(table: &CameraTable, high: Bitrate) -> Result<Option<Bitrate>, Fault> {
        let on = table.low.as_ref().is_none_or(|low| low.get_ref().0);
        match &table.low_kbps {
            Some(rate) if !on => Err(Fault::new(rate.span(), "low = false leaves no low rung; leave one of the two out")),
            Some(rate) => match Bitrate::kbps(rate.get_ref().get().into()) {
                low if low < high => Ok(Some(low)),
                _ => {
                    let what = format!(
                        "the low rung is for narrow paths: less than `bitrate_kbps`, which is {}",
                        high.as_bps() / 1000
                    );
                    Err(Fault::new(rate.span(), what))
                }
            },
            None => Ok(on.then(|| Bitrate::bps(high.as_bps() / LOW_SHARE).max(LEAST_LOW))),
        }
    }

    fn rpicam(table: &CameraTable, encoding: Encoding) -> Result<Rpicam, Fault> {
        let own_h264 = match table.format.as_ref().map(|format| (format.get_ref().0, format.span())) {
            None | Some((CameraFormat::Auto | CameraFormat::Yuv420, _)) => false,
            Some((CameraFormat::H264, _)) => true,
            Some((CameraFormat::Mjpeg | CameraFormat::Yuyv | CameraFormat::Nv12, span)) => {
                return Err(Fault::new(
                    span,
                    "a camera of source = \"rpicam\" has \"yuv420\" (for an encoder of ours) or \"h264\" (by rpicam-vid itself)",
                ));
            }
        };
        let size = match &table.size {
            Some(size) => {
                let Text(Size(width, height)) = size.get_ref();
                if !own_h264 && !width.get().is_multiple_of(64) {
                    let near = (width.get() / 64).max(1) * 64;
                    let what = format!(
                        "rpicam-vid fills up the rows of raw pictures whose width is no multiple of 64; choose one that is, such as {near}"
                    );
                    return Err(Fault::new(size.span(), what));
                }
                (*width, *height)
            }
            None => (number(1280), number(720)),
        };
        let rotation = match &table.rotation {
            Some(rotation) if ![0, 180].contains(&rotation.get_ref().get()) => {
                return Err(Fault::new(rotation.span(), "the camera can turn its picture by 0 or 180 degrees"));
            }
            Some(rotation) => rotation.get_ref().get(),
            None => 0,
        };
        let command = match &table.command {
            Some(command) if !command.get_ref().0.is_absolute() => {
                return Err(Fault::new(
                    command.span(),
                    "a program is written with its whole path, such as \"/usr/bin/rpicam-vid\"",
                ));
            }
            command => command.as_ref().map(|command| command.get_ref().0.clone()),
        };
        let on = |switch: &Option<Spanned<Switch>>| switch.as_ref().is_some_and(|switch| switch.get_ref().0);
        Ok(Rpicam {
            command,
            own_h264,
            size,
            fps: table.fps.as_ref().map_or(number(30), |fps| fps.non_zero()),
            rotation,
            hflip: on(&table.hflip),
            vflip: on(&table.vflip),
            extra: table
                .extra
                .as_ref()
                .map_or_else(|| Ok(Vec::new()), |extra| rpicam::extra(extra.get_ref()))?,
            encoding,
        })
    }
}
