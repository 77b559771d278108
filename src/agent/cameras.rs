//! The cameras' threads, and what their changes mean to viewers and to the status.
#![expect(clippy::disallowed_methods, reason = "the composition root gives the parts their clock")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::Part;
use crate::capture::{self, CameraState, CaptureEvent, Tap};
use crate::config;
use crate::hub::{Hub, Stream};
use crate::media::Quality;
use crate::net::Drivers;
use crate::protocol::{Status, StreamState, StreamStatus};

/// Starts the thread of one camera, and that of its low rung.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(
    camera: config::Camera,
    stream: Stream,
    drivers: Drivers,
    status: watch::Sender<Status>,
    stop: Arc<AtomicBool>,
    ended: &mpsc::Sender<&'static str>,
) -> anyhow::Result<()> {
    let tap = Tap::new(Instant::now());
    if let (Some(bitrate), Some(low)) = (camera.low, stream.low().cloned()) {
        let part = Part("the thread of a low rung", ended.clone());
        let (camera, tap, drivers, stop) = (camera.clone(), Arc::clone(&tap), drivers.clone(), Arc::clone(&stop));
        spawn(format!("low {}", camera.name), move || {
            let _part = part;
            capture::run_low(&camera, bitrate, &tap, low.target(), &stop, &mut |event| match event {
                CaptureEvent::State(CameraState::Starting) => {}
                CaptureEvent::State(state) => {
                    tracing::info!(camera = camera.name, "low rung: {state}");
                    follow_rung(&low, &drivers, &state);
                }
                event => note(&low, event),
            });
        })?;
    }
    let part = Part("the camera's thread", ended.clone());
    spawn(format!("camera {}", camera.name), move || {
        let _part = part;
        capture::run(&camera, &tap, stream.high.target(), &stop, &mut |event| match event {
            CaptureEvent::Bitrate(bitrate) => {
                tracing::info!(camera = camera.name, %bitrate, "somebody has set the bit rate");
                if drivers.target_changed(&camera.name, bitrate).is_err() {
                    tracing::warn!("viewers were not told of the bit rate");
                }
            }
            CaptureEvent::State(state) => {
                tracing::info!(camera = camera.name, "camera: {state}");
                follow(&stream, &drivers, &state);
                let stream = stream_status(&camera.name, state);
                status.send_modify(|status| {
                    if let Some(known) = status.streams.iter_mut().find(|known| known.name == stream.name) {
                        *known = stream;
                    }
                    status.seq += 1;
                });
            }
            event => note(&stream.high, event),
        });
    })
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let name = name.chars().take(15).collect();
    std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .context("starting a camera's thread")?;
    Ok(())
}

/// What concerns the pictures of one rung alone.
fn note(hub: &Hub, event: CaptureEvent) {
    match event {
        CaptureEvent::Unit(unit) => hub.publish(unit, Instant::now()),
        CaptureEvent::Skipped(pictures) => hub.note_skipped(pictures),
        CaptureEvent::Resting(resting) => {
            let camera = hub.name();
            match hub.quality() {
                Quality::High if resting => tracing::info!(camera, "nobody watches; the encoder rests"),
                Quality::High => tracing::info!(camera, "somebody watches; the encoder runs"),
                Quality::Low if resting => tracing::debug!(camera, "nobody watches the low rung; its encoder rests"),
                Quality::Low => tracing::debug!(camera, "somebody watches the low rung; its encoder runs"),
            }
            hub.rest(resting);
        }
        CaptureEvent::Bitrate(_) | CaptureEvent::State(_) => {}
    }
}

/// What a change of the camera means to its viewers.
fn follow(stream: &Stream, drivers: &Drivers, state: &CameraState) {
    match state {
        CameraState::Starting => {}
        CameraState::Live { low, .. } => {
            if let Some(rung) = stream.low() {
                let changed = rung.size() != *low;
                rung.offer(*low);
                if changed {
                    tell(drivers, stream.name());
                }
            }
            follow_rung(&stream.high, drivers, state);
        }
        CameraState::Lost { reason } | CameraState::Unsupported { reason } => {
            for rung in stream.rungs() {
                rung.camera_away(reason);
            }
        }
    }
}

/// What a change of one encoder means to those who watch what it makes.
fn follow_rung(hub: &Hub, drivers: &Drivers, state: &CameraState) {
    match state {
        CameraState::Starting => {}
        CameraState::Live {
            format, forces_key_frames, ..
        } => {
            // Who was moved from a rung that failed waits for it.
            let changed = hub.format().is_some_and(|known| known != *format) || hub.trouble().is_some();
            hub.set_format(*format, *forces_key_frames);
            if changed {
                tell(drivers, hub.name());
            }
        }
        CameraState::Lost { reason } | CameraState::Unsupported { reason } => {
            hub.camera_away(reason);
            tell(drivers, hub.name());
        }
    }
}

fn tell(drivers: &Drivers, stream: &str) {
    if drivers.format_changed(stream).is_err() {
        tracing::warn!("viewers were not told that the stream changed");
    }
}

fn stream_status(name: &str, state: CameraState) -> StreamStatus {
    let (state, reason) = match state {
        CameraState::Starting => (StreamState::Starting, None),
        CameraState::Live { .. } => (StreamState::Live, None),
        CameraState::Lost { reason } => (StreamState::Lost, Some(reason)),
        CameraState::Unsupported { reason } => (StreamState::Unsupported, Some(reason)),
    };
    StreamStatus {
        name: name.to_owned(),
        state,
        reason,
    }
}
