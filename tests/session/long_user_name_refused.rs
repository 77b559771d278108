use std::time::{Duration, Instant};

use super::setup::{answer, browser, offer};

/// The stack can't write a STUN message with such a user name; it would take the driver and all its sessions down.
#[test]
fn an_ice_user_name_that_no_stun_message_holds_is_refused() {
    let now = Instant::now();
    let device = "192.0.2.10:5000".parse().expect("an address");
    let (_, sdp, _, viewer) = offer(now, browser());
    let ufrag = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .expect("an offer has one")
        .to_owned();
    let with = |length: usize| {
        let long = sdp.replace(&ufrag, &"x".repeat(length));
        format!(
            "{long}a=candidate:1 1 udp 2122260223 {} {} typ host\r\n",
            viewer.ip(),
            viewer.port()
        )
    };
    let Err(error) = answer(&with(200), now, device) else {
        panic!("200 characters were taken");
    };
    assert!(error.message.contains("ice-ufrag"), "{error}");
    let (mut session, _) = answer(&with(100), now, device).unwrap_or_else(|error| panic!("100 characters are taken: {error}"));
    let clock = peercam::session::WallClock {
        instant: now,
        wall: std::time::SystemTime::UNIX_EPOCH,
    };
    let mut outbox = peercam::session::Outbox::default();
    for step in 0..20 {
        let now = now + step * Duration::from_millis(50);
        session.handle(peercam::session::Input::Timeout, now, &clock, &mut outbox);
    }
    assert!(!outbox.datagrams.is_empty(), "the session looks for its viewer");
}
