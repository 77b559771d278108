//! The cameras' threads, and what their changes mean to viewers and to the status.
#![expect(clippy::disallowed_methods, reason = "the composition root gives the parts their clock")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::Part;
use crate::capture::{self, CameraState, CaptureEvent};
use crate::config;
use crate::hub::Hub;
use crate::net::Drivers;
use crate::protocol::{Status, StreamState, StreamStatus};

/// Starts the thread of one camera.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(
    camera: config::Camera,
    hub: Arc<Hub>,
    drivers: Drivers,
    status: watch::Sender<Status>,
    stop: Arc<AtomicBool>,
    ended: &mpsc::Sender<&'static str>,
) -> anyhow::Result<()> {
    let part = Part("the camera's thread", ended.clone());
    std::thread::Builder::new()
        .name(format!("camera {}", camera.name).chars().take(15).collect())
        .spawn(move || {
            let _part = part;
            capture::run(&camera, hub.target(), &stop, &mut |event| match event {
                CaptureEvent::Unit(unit) => hub.publish(unit, Instant::now()),
                CaptureEvent::Skipped(pictures) => hub.note_skipped(pictures),
                CaptureEvent::Resting(resting) => {
                    tracing::info!(camera = camera.name, resting, "nobody watches, or somebody does again");
                    hub.rest(resting);
                }
                CaptureEvent::Bitrate(bitrate) => {
                    tracing::info!(camera = camera.name, %bitrate, "somebody has set the bit rate");
                    if drivers.target_changed(&camera.name, bitrate).is_err() {
                        tracing::warn!("viewers were not told of the bit rate");
                    }
                }
                CaptureEvent::State(state) => {
                    tracing::info!(camera = camera.name, ?state, "camera");
                    follow(&hub, &drivers, &state);
                    let stream = stream_status(&camera.name, state);
                    status.send_modify(|status| {
                        if let Some(known) = status.streams.iter_mut().find(|known| known.name == stream.name) {
                            *known = stream;
                        }
                        status.seq += 1;
                    });
                }
            });
        })
        .context("starting the camera's thread")?;
    Ok(())
}

/// What a change of the camera means to its viewers.
fn follow(hub: &Hub, drivers: &Drivers, state: &CameraState) {
    match state {
        CameraState::Starting => {}
        CameraState::Live { format, forces_key_frames } => {
            let changed = hub.format().is_some_and(|known| known != *format);
            hub.set_format(*format, *forces_key_frames);
            if changed && drivers.format_changed(hub.name()).is_err() {
                tracing::warn!("viewers were not told that the stream changed");
            }
        }
        CameraState::Lost { reason } | CameraState::Unsupported { reason } => hub.camera_away(reason),
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
