//! A camera whose pictures are fetched into our own memory: to be decoded (MJPEG), written into (overlay), or encoded in software.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pictures::Pictures;
use super::trouble::reports_error;
use super::{Opened, Wish, failed};
use crate::capture::CaptureError;
use crate::capture::encoded::{RawSource, Wanted};
use crate::capture::mjpeg::Decoder;
use crate::encode::Colour;
use crate::media::RawFrame;
use crate::v4l2::{Device, Format, FourCc, Interest, Ready, Taken, wait};

/// An open, streaming camera.
pub(super) struct MemoryCamera {
    pictures: Pictures,
    format: Format,
    fps: f64,
    decoder: Decoder,
}

impl MemoryCamera {
    /// Sets a camera up and starts it.
    ///
    /// # Errors
    /// It is busy, gone, or failed; the message says what to do.
    pub fn start(camera: Opened, fourcc: FourCc, wish: &Wish) -> Result<Self, CaptureError> {
        let format = camera.set_up(fourcc, wish)?;
        if whole(&format) == 0 {
            return Err(camera.unusable(&format!(
                "keeps its {fourcc} in a way that peercam does not know; choose another camera.format"
            )));
        }
        let fps = camera.rate();
        let kind = camera.kind;
        let device = Arc::new(camera.device);
        let fail = |error| failed(device.path(), "starting", &error);
        let mut queue = Opened::buffers(&device, kind)?;
        queue.start().map_err(fail)?;
        let (path, size) = (device.path().display(), format.size);
        tracing::info!(device = %path, card = camera.card, format = %fourcc, %size, fps, "camera started");
        Ok(Self {
            pictures: Pictures::new(queue, device, whole(&format)),
            format,
            fps,
            decoder: Decoder::default(),
        })
    }

    /// What an encoder of its pictures is asked for.
    pub fn wanted(&self, wish: &Wish) -> Wanted {
        Wanted {
            encoder: wish.encoding.encoder,
            width: self.format.size.width & !1,
            height: self.format.size.height & !1,
            fps: self.fps,
            bitrate: wish.bitrate,
            gop: wish.encoding.gop,
            colour: match self.format.fourcc {
                // The decoder makes it so (JFIF), whatever the driver tells of the compressed picture.
                FourCc::MJPEG => Colour::Bt601,
                _ => Colour::told_by(self.format.colour),
            },
        }
    }

    /// Puts a picture into `frame`; `false` for one that is damaged.
    fn read(&mut self, taken: &Taken, frame: &mut RawFrame) -> bool {
        let data = self.pictures.data(taken);
        let (width, height) = (self.format.size.width & !1, self.format.size.height & !1);
        frame.captured = taken.stamp.instant();
        if self.format.fourcc == FourCc::MJPEG {
            let data = data.get(..taken.bytes()).unwrap_or(data);
            return match self.decoder.decode(data, frame) {
                Ok(()) if (frame.width, frame.height) == (width, height) => true,
                Ok(()) => {
                    tracing::debug!(frame.width, frame.height, "a picture of another size");
                    false
                }
                Err(error) => {
                    tracing::debug!(%error, bytes = taken.bytes(), "a picture could not be decoded");
                    false
                }
            };
        }
        frame.width = width;
        frame.height = height;
        unpack(&self.format, data, frame)
    }
}

impl RawSource for MemoryCamera {
    fn next(&mut self, patience: Duration, frame: &mut RawFrame) -> Result<bool, CaptureError> {
        let until = Instant::now() + patience;
        loop {
            self.pictures.receive()?;
            if let Some(taken) = self.pictures.take() {
                let good = self.read(&taken, frame);
                self.pictures.give_back(taken.index)?;
                if good {
                    return Ok(true);
                }
                self.pictures.lose();
            }
            self.pictures.complain_of_silence()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let ready = wait([(self.pictures.device(), Interest::FILLED)], left);
            let [ready] = ready.map_err(|error| self.pictures.failed("waiting for a picture from", &error))?;
            match ready {
                Ready::Has(_) => {}
                Ready::Timeout => return Ok(false),
                Ready::Error | Ready::Gone => return Err(reports_error(self.pictures.device().path())),
            }
        }
    }

    fn discard(&mut self) -> Result<(), CaptureError> {
        self.pictures.discard()?;
        self.pictures.complain_of_silence()
    }

    fn lost(&self) -> u64 {
        self.pictures.lost()
    }

    fn device(&self) -> Option<&Device> {
        Some(self.pictures.device())
    }

    fn fps(&self) -> Option<f64> {
        Some(self.fps)
    }
}

/// The least bytes of a picture.
fn whole(format: &Format) -> usize {
    if format.fourcc == FourCc::MJPEG {
        return 1;
    }
    crate::encode::m2m::picture_bytes(format)
}

/// Takes a raw picture into planar 4:2:0; `false` if it is shorter than its format says, or of a layout that is not known here.
pub(super) fn unpack(format: &Format, data: &[u8], frame: &mut RawFrame) -> bool {
    let (w, h) = (frame.width as usize, frame.height as usize);
    let Some(stride) = format.planes.first().map(|plane| plane.stride as usize) else {
        return false;
    };
    let needed = whole(format);
    let row = if format.fourcc == FourCc::YUYV { w * 2 } else { w };
    if w == 0 || h == 0 || stride < row || needed == 0 || data.len() < needed {
        return false;
    }
    let tall = format.size.height as usize;
    frame.i420.resize(w * h * 3 / 2, 128);
    let (luma, chroma) = frame.i420.split_at_mut(w * h);
    let (cb, cr) = chroma.split_at_mut(w * h / 4);
    let (cb, cr) = (cb.chunks_exact_mut(w / 2), cr.chunks_exact_mut(w / 2));
    match format.fourcc {
        FourCc::YUYV => {
            for (to, from) in luma.chunks_exact_mut(w).zip(data.chunks(stride)) {
                for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                    *to = from[0];
                }
            }
            for ((cb, cr), rows) in cb.zip(cr).zip(data.chunks(stride * 2)) {
                let (upper, lower) = rows.split_at(stride.min(rows.len()));
                let fours = upper.chunks_exact(4).zip(lower.chunks_exact(4));
                for ((cb, cr), (upper, lower)) in cb.iter_mut().zip(cr).zip(fours) {
                    *cb = upper[1].midpoint(lower[1]);
                    *cr = upper[3].midpoint(lower[3]);
                }
            }
        }
        FourCc::NV12 => {
            copy_rows(luma, w, data, stride);
            for ((cb, cr), row) in cb.zip(cr).zip(data.get(stride * tall..).unwrap_or_default().chunks(stride)) {
                for ((cb, cr), pair) in cb.iter_mut().zip(cr).zip(row.chunks_exact(2)) {
                    *cb = pair[0];
                    *cr = pair[1];
                }
            }
        }
        FourCc::YUV420 => {
            copy_rows(luma, w, data, stride);
            let quarter = stride * tall / 4;
            let chroma = data.get(stride * tall..).unwrap_or_default();
            for (to, from) in cb.zip(chroma.chunks(stride / 2)) {
                to.copy_from_slice(&from[..w / 2]);
            }
            for (to, from) in cr.zip(chroma.get(quarter..).unwrap_or_default().chunks(stride / 2)) {
                to.copy_from_slice(&from[..w / 2]);
            }
        }
        _ => return false,
    }
    true
}

fn copy_rows(to: &mut [u8], width: usize, from: &[u8], stride: usize) {
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks(stride)) {
        to.copy_from_slice(&from[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::MediaTime;
    use crate::v4l2::{PlaneFormat, Size};

    fn unpacked(fourcc: FourCc, stride: u32, data: &[u8]) -> Option<Vec<u8>> {
        let mut format = Format::new(fourcc, Size { width: 4, height: 2 });
        format.planes = vec![PlaneFormat {
            stride,
            bytes: data.len() as u32,
        }];
        let mut frame = RawFrame {
            i420: Vec::new(),
            width: 4,
            height: 2,
            time: MediaTime::default(),
            captured: Instant::now(),
        };
        unpack(&format, data, &mut frame).then_some(frame.i420)
    }

    #[test]
    fn every_raw_format_gives_the_same_picture_also_with_padded_rows() {
        // Y 1..=8, Cb 20 21, Cr 30 31; 9 is padding.
        let planar = [1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 30, 31];
        assert_eq!(unpacked(FourCc::YUV420, 4, &planar).as_deref(), Some(&planar[..]));
        let nv12 = [1, 2, 3, 4, 9, 9, 5, 6, 7, 8, 9, 9, 20, 30, 21, 31, 9, 9];
        assert_eq!(unpacked(FourCc::NV12, 6, &nv12).as_deref(), Some(&planar[..]));
        let yuyv = [1, 19, 2, 29, 3, 21, 4, 31, 9, 9, 5, 21, 6, 31, 7, 21, 8, 31, 9, 9];
        assert_eq!(unpacked(FourCc::YUYV, 10, &yuyv).as_deref(), Some(&planar[..]));
    }

    #[test]
    fn a_picture_that_is_too_short_is_refused() {
        assert_eq!(unpacked(FourCc::YUV420, 4, &[0; 11]), None);
        assert_eq!(unpacked(FourCc::YUYV, 8, &[0; 15]), None);
        assert_eq!(unpacked(FourCc(*b"RGGB"), 4, &[0; 100]), None);
    }
}
