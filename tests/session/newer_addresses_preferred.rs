use std::net::SocketAddr;
use std::time::Instant;

use peercam::session::{Event, Input, Outbox};

use super::setup::{answer, browser, clock, offer};

fn priority(candidate: &str) -> u32 {
    let word = candidate.split(' ').nth(3).expect("a priority");
    word.parse().expect("a number")
}

/// Else a browser does not check them before it is sure, after seconds, that the way by the old ones is gone.
#[test]
fn addresses_that_come_later_are_preferred_to_those_before() {
    let now = Instant::now();
    let (_, sdp, _, _) = offer(now, browser());
    let (mut session, sdp) = answer(&sdp, now, "192.0.2.10:5000".parse().expect("an address")).expect("an answer");
    let first = sdp.lines().find_map(|line| line.strip_prefix("a=candidate:")).expect("a candidate");
    let mut told = vec![priority(first)];
    let (clock, mut outbox) = (clock(now), Outbox::default());
    for address in ["192.0.2.11:5000", "[2001:db8::1]:5000", "192.0.2.12:5000"] {
        let address: SocketAddr = address.parse().expect("an address");
        session.handle(Input::AddressesAdded(&[address]), now, &clock, &mut outbox);
        for event in outbox.events.drain(..) {
            if let Event::Candidates(candidates) = event {
                told.extend(candidates.iter().map(|candidate| priority(candidate)));
            }
        }
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.is_sorted_by(|before, after| before < after), "{told:?}");
}
