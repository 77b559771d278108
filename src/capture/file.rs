//! An Annex B file, replayed in real time and looped.
#![expect(clippy::disallowed_methods, reason = "the camera's thread reads the clock")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::pacer::Pacer;
use super::{CaptureError, Source, Timeline};
use crate::media::annexb::AccessUnits;
use crate::media::conform::{Conformed, Conformer};
use crate::media::{AccessUnit, EncoderTarget};

/// The rate of a file that carries no timing information.
const DEFAULT_FPS: f64 = 30.0;
/// How much of the file is read at a time; what is in memory is this and one access unit.
const READ_BYTES: usize = 64 * 1024;
/// How far a key frame is looked for: a longer piece of a file without one is no stream that is meant to be watched.
const LOOK_AHEAD_BYTES: usize = 64 * 1024 * 1024;

/// A recorded stream. It is read as it is played, so its length does not matter; time goes on over the loop.
pub struct FileReplay {
    path: PathBuf,
    file: File,
    splitter: AccessUnits,
    conformer: Conformer,
    /// Access units of the piece that was read last.
    ready: VecDeque<Conformed>,
    /// Access units since the beginning of the file: a whole round without one must not turn in circles.
    round: u64,
    pacer: Pacer,
    timeline: Timeline,
}

impl FileReplay {
    /// Opens `path`; without `fps` the file's own timing information counts, else 30 pictures a second.
    ///
    /// # Errors
    /// The file cannot be read, is not H.264 in Annex B format, or holds a stream that no browser shows.
    pub fn open(path: &Path, fps: Option<NonZeroU32>) -> Result<Self, CaptureError> {
        // A pipe would hold the camera's thread up until somebody writes into it, and can't be played again.
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Err(CaptureError::Unsupported(format!("{}: this is no regular file", path.display())));
        }
        let file = File::open(path).map_err(|error| lost(path, &error))?;
        let now = Instant::now();
        let mut replay = Self {
            path: path.to_owned(),
            file,
            splitter: AccessUnits::default(),
            conformer: Conformer::default(),
            ready: VecDeque::new(),
            round: 0,
            pacer: Pacer::new(now, DEFAULT_FPS),
            timeline: Timeline::default(),
        };
        replay.fill()?;
        let own = replay.conformer.sps().and_then(|sps| sps.fps);
        let fps = fps.map(|fps| f64::from(fps.get())).or(own).unwrap_or(DEFAULT_FPS);
        replay.pacer = Pacer::new(Instant::now(), fps);
        Ok(replay)
    }

    /// Reads until there is an access unit to play, from the beginning again at the end.
    fn fill(&mut self) -> Result<(), CaptureError> {
        if !self.ready.is_empty() {
            return Ok(());
        }
        let mut piece = vec![0; READ_BYTES];
        let mut searched = 0;
        while self.ready.is_empty() {
            let length = self.file.read(&mut piece).map_err(|error| lost(&self.path, &error))?;
            if self.round == 0 && searched == 0 && is_transport_stream(&piece[..length]) {
                return Err(self.no_annex_b("this is an MPEG transport stream"));
            }
            let mut refused = None;
            let (conformer, ready) = (&mut self.conformer, &mut self.ready);
            let take = |unit: &[u8]| match conformer.take(unit) {
                Ok(unit) => ready.extend(unit),
                Err(error) => refused = Some(error),
            };
            if length > 0 {
                self.splitter.push(&piece[..length], take);
            } else {
                self.splitter.finish(take);
            }
            if let Some(error) = refused {
                return Err(CaptureError::Unsupported(format!("{}: {error}", self.path.display())));
            }
            self.round += self.ready.len() as u64;
            searched += length;
            if searched > LOOK_AHEAD_BYTES {
                return Err(self.no_annex_b("no H.264 key frame found"));
            }
            if length == 0 {
                self.start_over()?;
            }
        }
        Ok(())
    }

    fn no_annex_b(&self, what: &str) -> CaptureError {
        let path = self.path.display();
        CaptureError::Unsupported(format!(
            "{path}: {what}; peercam plays raw H.264 in Annex B format (ffmpeg -i VIDEO -an -c:v libx264 -bf 0 -pix_fmt yuv420p FILE.h264)"
        ))
    }

    fn start_over(&mut self) -> Result<(), CaptureError> {
        if self.round == 0 {
            return Err(self.no_annex_b("no H.264 key frame found"));
        }
        self.round = 0;
        self.file.rewind().map_err(|error| lost(&self.path, &error))?;
        // What comes first in the file may need pictures before it.
        self.conformer.gap();
        Ok(())
    }
}

impl Source for FileReplay {
    fn next(&mut self) -> Result<Option<AccessUnit>, CaptureError> {
        self.fill()?;
        self.pacer.wait();
        let captured = Instant::now();
        Ok(self.ready.pop_front().map(|unit| AccessUnit {
            data: unit.data.into(),
            time: self.timeline.stamp(captured),
            captured,
            key: unit.key,
        }))
    }

    fn apply(&mut self, _: EncoderTarget) -> Result<(), CaptureError> {
        Ok(())
    }

    fn has_bitrate(&self) -> bool {
        false
    }

    fn forces_key_frames(&self) -> bool {
        false
    }
}

/// Whether a file begins as an MPEG transport stream (ITU-T H.222.0): packets of 188 bytes, each behind a sync byte. H.264 in
/// it is full of start codes, but cut into pieces.
fn is_transport_stream(beginning: &[u8]) -> bool {
    (0..4).all(|packet| beginning.get(packet * 188) == Some(&0x47))
}

fn lost(path: &Path, error: &io::Error) -> CaptureError {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "; is the path right?",
        io::ErrorKind::PermissionDenied => "; may the user that peercam runs as read it?",
        _ => "",
    };
    CaptureError::Lost(format!("reading {}: {error}{help}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::media::annexb::{NalKind, nal_units};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    /// A stream of `count` pictures with a key frame at each tenth, whose slices carry their number.
    #[cfg(feature = "software-encoder")]
    fn encoded(count: u32) -> Vec<u8> {
        use crate::capture::card::Card;
        use crate::encode::{Settings, SoftwareEncoder};
        use crate::media::{Bitrate, MediaTime};
        let settings = Settings {
            width: 320,
            height: 180,
            fps: 100,
            bitrate: Bitrate::kbps(300),
            gop: 10,
            colour: crate::encode::Colour::Bt709,
        };
        let mut encoder = SoftwareEncoder::new(settings).expect("an encoder");
        let mut card = Card::new(320, 180, "file", Instant::now());
        let wall = |n| std::time::UNIX_EPOCH + Duration::from_millis(n * 10);
        (0..u64::from(count))
            .flat_map(|n| {
                let frame = card.draw(n, wall(n), Instant::now(), MediaTime::from_ticks(n * 900));
                encoder.encode(frame).expect("encoded").expect("not skipped")
            })
            .collect()
    }

    #[cfg(feature = "software-encoder")]
    #[test]
    fn a_file_plays_in_real_time_bit_exact_and_time_goes_on_over_the_loop() {
        let bytes = encoded(25);
        let path = file(&bytes);
        let mut replay = FileReplay::open(path.path(), NonZeroU32::new(100)).expect("a good file");
        let mut sent = Vec::new();
        AccessUnits::default().push(&[&bytes[..], &[0, 0, 0, 1, 0x09, 0xf0]].concat(), |unit| sent.push(unit.to_vec()));
        assert_eq!(sent.len(), 25);
        let begin = Instant::now();
        let mut last = None;
        for n in 0..60 {
            let unit = replay.next().expect("the file plays").expect("a picture each time");
            assert!(nal_units(&unit.data).eq(nal_units(&sent[n % 25])), "picture {n} is not the file's");
            assert_eq!(unit.key, n % 25 % 10 == 0, "picture {n}");
            assert!(last < Some(unit.time), "time went back at picture {n}");
            last = Some(unit.time);
        }
        assert!(
            begin.elapsed() >= Duration::from_millis(580),
            "60 pictures at 100 a second took {:?}",
            begin.elapsed()
        );
    }

    #[cfg(feature = "software-encoder")]
    #[test]
    fn playing_begins_at_a_key_frame() {
        let bytes = encoded(12);
        let third = nal_units(&bytes)
            .nth(3)
            .map(|nal| nal.bytes().as_ptr() as usize - bytes.as_ptr() as usize - 4)
            .expect("a second picture");
        let sets: Vec<u8> = nal_units(&bytes)
            .take(2)
            .flat_map(|nal| [&[0, 0, 0, 1], nal.bytes()].concat())
            .collect();
        let path = file(&[&sets, &bytes[third..]].concat());
        let unit = FileReplay::open(path.path(), NonZeroU32::new(100))
            .expect("a good file")
            .next()
            .expect("it plays")
            .expect("a picture");
        assert!(unit.key && nal_units(&unit.data).any(|nal| nal.kind() == NalKind::IdrSlice));
    }

    #[test]
    fn a_file_that_is_missing_or_no_h264_is_refused_in_words() {
        let error = FileReplay::open(Path::new("/nonexistent/video.h264"), None).err();
        assert!(
            matches!(&error, Some(CaptureError::Lost(text)) if text.contains("/nonexistent/video.h264")),
            "{error:?}"
        );
        // A transport stream whose packets hold H.264: start codes, and something else in between.
        let mut packet = [0xff; 188];
        packet[..4].copy_from_slice(&[0x47, 0x41, 0x00, 0x10]);
        packet[20..30].copy_from_slice(&[0, 0, 0, 1, 0x65, 0x88, 0x84, 0, 0, 1]);
        let transport_stream = packet.repeat(100);
        for bytes in [
            &b""[..],
            &b"\x00\x00\x00\x18ftypmp42 this is an mp4 file"[..],
            &[0x55; 200_000],
            &transport_stream,
        ] {
            let path = file(bytes);
            let error = FileReplay::open(path.path(), None).err();
            assert!(
                matches!(&error, Some(CaptureError::Unsupported(text)) if text.contains("Annex B")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_pipe_is_refused_and_waits_for_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe.h264");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .is_ok_and(|status| status.success())
        );
        let error = FileReplay::open(&pipe, None).err();
        assert!(
            matches!(&error, Some(CaptureError::Unsupported(text)) if text.contains("no regular file")),
            "{error:?}"
        );
    }
}
