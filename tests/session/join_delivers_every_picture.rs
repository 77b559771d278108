use std::time::{Duration, SystemTime};

use super::pair::Pair;

#[test]
fn a_viewer_that_joins_gets_every_picture_in_order_with_its_capture_time() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    assert!(
        pair.elapsed() < Duration::from_millis(200),
        "connecting over 10 ms of round trip took {:?}",
        pair.elapsed()
    );
    let mut sent = Vec::new();
    let mut captured = Vec::new();
    for index in 0..90 {
        captured.push(Duration::from_secs(1_700_000_000) + pair.elapsed());
        sent.push(pair.send_picture(if index == 0 { 40_000 } else { 9_000 }));
        pair.run(Duration::from_millis(33));
    }
    pair.run(Duration::from_millis(100));

    assert_eq!(pair.pictures.len(), sent.len(), "every picture arrives");
    for ((picture, nal), captured) in pair.pictures.iter().zip(&sent).zip(&captured) {
        assert!(picture.data.ends_with(nal), "a picture arrives as it was sent");
        assert!(picture.contiguous, "nothing is missing before it");
        let stamp = picture
            .ext_vals
            .abs_capture_time
            .expect("the picture tells when it was captured")
            .capture_time;
        let stamp = stamp.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        assert!(
            stamp.abs_diff(*captured) < Duration::from_millis(1),
            "captured at {captured:?}, told {stamp:?}"
        );
        let delay = (picture.ext_vals.play_delay_min, picture.ext_vals.play_delay_max);
        assert!(
            matches!(delay, (Some(min), Some(max)) if min.numer() == 0 && max.numer() == 0),
            "realtime means no delay: {delay:?}"
        );
    }
}
