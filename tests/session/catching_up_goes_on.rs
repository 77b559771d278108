use std::time::Duration;

use super::pair::Pair;

#[test]
fn a_viewer_that_catches_up_is_ready_again_when_its_timer_has_run_even_ahead_of_the_clock() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    pair.send_picture_of(20_000, 9);
    assert!(!pair.device.is_ready(pair.now), "20,000 bytes take 8 ms at 20 Mbit/s");
    pair.run(Duration::from_micros(7_900));
    assert!(!pair.device.is_ready(pair.now), "not yet");
    pair.run_ahead(pair.now + Duration::from_micros(300));
    assert!(
        pair.device.is_ready(pair.now),
        "the timer was spent, so nothing else would wake the session in time"
    );
}
