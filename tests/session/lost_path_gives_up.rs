use std::time::Duration;

use peercam::session::{Ending, Event};

use super::pair::Pair;

fn closed(pair: &Pair) -> Option<String> {
    pair.events.iter().find_map(|event| match event {
        Event::Closed(reason) => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn a_viewer_whose_path_is_lost_is_given_up_in_the_end() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    pair.cut();
    pair.run_until(Duration::from_secs(60), |pair| pair.device.is_closed());
    let reason = closed(&pair).expect("a reason");
    assert!(reason.contains("lost"), "{reason}");
    assert_eq!(pair.device.ending(), Some(Ending::PathLost));
}

#[test]
fn a_viewer_that_restarts_and_is_never_heard_again_is_given_up_too() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    // As a browser writes it that hides its addresses: the device has nobody to check.
    let hidden = |sdp: &str| -> String { sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=candidate")).collect() };
    pair.restart_with(hidden).expect("the viewer's own restart is accepted");
    pair.cut();
    pair.run_until(Duration::from_secs(60), |pair| pair.device.is_closed());
    assert_eq!(pair.device.ending(), Some(Ending::PathLost));
}

#[test]
fn a_viewer_that_never_comes_is_given_up_after_15_seconds() {
    let mut pair = Pair::new(Duration::from_millis(5));
    pair.cut();
    pair.run_until(Duration::from_secs(16), |pair| pair.device.is_closed());
    let reason = closed(&pair).expect("a reason");
    assert!(reason.contains("no network path"), "{reason}");
    assert_eq!(pair.device.ending(), Some(Ending::NeverConnected));
}
