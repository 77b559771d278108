//! What a hardware encoder is told through its controls.

use std::io;

use super::M2mSettings;
use crate::media::Bitrate;
use crate::v4l2::{Device, Size, control};

/// The Pi's encoder stalls below about 100 kbit/s (raspberrypi/rpicam-apps#664).
const LEAST_BITRATE: Bitrate = Bitrate::kbps(150);
/// The Pi's driver.
const PI: &str = "bcm2835-codec";

/// Sets what WebRTC needs, where the encoder has a control for it. What it lacks, the stream itself will show.
pub(super) fn set_up(device: &Device, driver: &str, size: Size, settings: &M2mSettings) {
    let pictures = (settings.fps * settings.gop.as_secs_f64()).round().max(1.0) as i64;
    let set = |id: u32, value: i64| {
        let Some(found) = device.control(id) else { return };
        if let Err(error) = device.set_control(id, found.nearest(value)) {
            tracing::warn!(encoder = %device.path().display(), control = format!("{id:#x}"), value, %error, "the encoder refused a setting");
        }
    };
    // After some 20,000 pictures with repeated headers the Pi's encoder has no place for more of them, and takes pictures but gives
    // none back (raspberrypi/linux#4520); the conformer repeats them anyway.
    set(control::REPEAT_HEADERS, i64::from(driver != PI));
    set(control::B_FRAMES, 0);
    set(control::GOP_SIZE, pictures);
    set(control::I_PERIOD, pictures);
    let menu = |id: u32, entries: &[u32]| {
        if let Some(entry) = entries.iter().find(|entry| device.offers(id, **entry)) {
            set(id, i64::from(*entry));
        }
    };
    menu(control::HEADER_MODE, &[1]);
    menu(control::SLICE_MODE, &[0]);
    // Constrained Baseline is what every browser takes; then Baseline, Main, High.
    menu(control::PROFILE, &[1, 0, 2, 4]);
    let levels: Vec<u32> = (level(size, settings.fps)..=HIGHEST_LEVEL).collect();
    menu(control::LEVEL, &levels);
    if let Err(error) = set_bitrate(device, settings.bitrate) {
        tracing::warn!(encoder = %device.path().display(), bitrate = %settings.bitrate, %error, "the encoder refused the bit rate");
    }
}

/// Sets the bit rate, where the encoder has a control for it.
pub(super) fn set_bitrate(device: &Device, bitrate: Bitrate) -> io::Result<()> {
    match device.control(control::BITRATE) {
        Some(found) => {
            let bits = i64::try_from(bitrate.max(LEAST_BITRATE).as_bps()).unwrap_or(i64::MAX);
            device.set_control(control::BITRATE, found.nearest(bits))
        }
        None => Ok(()),
    }
}

/// The kernel's menu entry of level 5.1.
const HIGHEST_LEVEL: u32 = 15;

/// The kernel's menu entry of the lowest level from 3.1 on that such pictures fit (ITU-T H.264, table A-1); 3.1 is what WebRTC
/// promises everybody takes.
fn level(size: Size, fps: f64) -> u32 {
    /// Entry; macroblocks of a picture; macroblocks a second.
    const LEVELS: [(u32, u32, u32); 6] = [
        (9, 3_600, 108_000),
        (10, 5_120, 216_000),
        (11, 8_192, 245_760),
        (13, 8_704, 522_240),
        (14, 22_080, 589_824),
        (HIGHEST_LEVEL, 36_864, 983_040),
    ];
    let picture = size.width.div_ceil(16) * size.height.div_ceil(16);
    let second = f64::from(picture) * fps;
    let fits = LEVELS
        .iter()
        .find(|(_, most, a_second)| picture <= *most && second <= f64::from(*a_second));
    fits.map_or(HIGHEST_LEVEL, |(entry, _, _)| *entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_lowest_that_the_pictures_fit_but_never_below_that_of_webrtc() {
        let level = |width, height, fps| super::level(Size { width, height }, fps);
        assert_eq!(level(640, 360, 30.0), 9);
        assert_eq!(level(1280, 720, 30.0), 9);
        assert_eq!(level(1280, 720, 60.0), 10);
        assert_eq!(level(1920, 1080, 30.0), 11);
        assert_eq!(level(1920, 1080, 60.0), 13);
        assert_eq!(level(3840, 2160, 30.0), HIGHEST_LEVEL);
        assert_eq!(level(3840, 2160, 240.0), HIGHEST_LEVEL, "more than any level has");
    }
}
