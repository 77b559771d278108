use std::time::Duration;

use str0m::media::MediaKind;

use super::pair::Pair;
use super::setup::browser;

/// Players that were not written for this device ask for sound too, before or after the picture, and for no data channel.
#[test]
fn sound_that_is_offered_beside_the_picture_is_refused_and_the_picture_shown() {
    for wanted in [
        &[MediaKind::Video][..],
        &[MediaKind::Audio, MediaKind::Video],
        &[MediaKind::Video, MediaKind::Audio],
    ] {
        let mut pair = Pair::of(Duration::from_millis(5), browser().enable_opus(true, false), wanted, None);
        pair.run_until(Duration::from_secs(5), |pair| pair.device.is_connected());
        for index in 0..30 {
            pair.send_picture(if index == 0 { 40_000 } else { 9_000 });
            pair.run(Duration::from_millis(33));
        }
        pair.run(Duration::from_millis(100));
        assert_eq!(pair.pictures.len(), 30, "{wanted:?}: every picture arrives");
    }
}
