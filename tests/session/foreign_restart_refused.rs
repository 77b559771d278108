use std::time::{Duration, Instant};

use peercam::protocol::ErrorCode;
use peercam::session::Outbox;

use super::pair::Pair;
use super::setup::{browser, offer};

#[test]
fn a_restart_by_another_viewer_is_refused_and_the_session_goes_on() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    let (_, stranger, ..) = offer(Instant::now(), browser());
    let error = pair
        .device
        .restart(&stranger, pair.now, &mut Outbox::default())
        .expect_err("another DTLS fingerprint");
    assert_eq!(error.code, ErrorCode::Conflict.number());
    let nal = pair.send_picture(3_000);
    pair.run(Duration::from_millis(200));
    assert!(pair.pictures.iter().any(|picture| picture.data.ends_with(&nal)));
}
