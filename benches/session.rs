//! What one viewer costs: from a picture to encrypted datagrams, with everything a live session has to do meanwhile.

mod common;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/session/film.rs"]
mod film;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/session/pair.rs"]
mod pair;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/session/setup.rs"]
mod setup;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/session/wire.rs"]
mod wire;

use std::time::Duration;

use common::{access_unit, heading, nanos};
use pair::Pair;
use peercam::media::rtp;

/// Virtual seconds that are measured.
const SECONDS: u32 = 20;

fn main() {
    heading(
        "session: pictures to datagrams for one viewer, 30 pictures a second, in virtual time",
        "RTP, SRTP (AES-GCM), retransmission cache, pacing, and the viewer's feedback on all of it; no sockets. cut: packetizing, which all \
         viewers share. viewers/core: what one core could serve if there were no kernel.",
    );
    println!(
        "{:>9} {:>9} {:>9} {:>11} {:>8} {:>8} {:>13}",
        "bytes", "kbit/s", "packets", "µs/picture", "ns/pkt", "cut ns", "viewers/core"
    );
    for size in [1_000, 10_000, 30_000] {
        let (nanos_a_packet, packets) = measure(size);
        let unit = access_unit(size, false);
        let cut = nanos(|| rtp::packetize(&unit)) / rtp::packetize(&unit).len() as f64;
        let picture = nanos_a_packet * packets;
        println!(
            "{size:>9} {:>9} {packets:>9.1} {:>11.1} {nanos_a_packet:>8.0} {cut:>8.0} {:>13.0}",
            size * 30 * 8 / 1_000,
            picture / 1e3,
            1e9 / 30.0 / picture
        );
    }
}

/// Nanoseconds of the device's time for each datagram, and datagrams for each picture.
fn measure(size: usize) -> (f64, f64) {
    let mut pair = Pair::connected(Duration::from_millis(5));
    // The path's estimate has to grow to what is sent.
    play(&mut pair, 5 * 30, size);
    let (began, before, seen) = (pair.busy, pair.datagrams, pair.pictures.len());
    let pictures = SECONDS * 30;
    play(&mut pair, pictures, size);
    pair.run(Duration::from_millis(500));
    let arrived = pair.pictures.len() - seen;
    assert!(
        arrived >= pictures as usize * 95 / 100,
        "only {arrived} of {pictures} pictures arrived"
    );
    let datagrams = (pair.datagrams - before) as f64;
    ((pair.busy - began).as_nanos() as f64 / datagrams, datagrams / f64::from(pictures))
}

fn play(pair: &mut Pair, pictures: u32, size: usize) {
    for _ in 0..pictures {
        pair.send_picture(size);
        pair.run(Duration::from_secs(1) / 30);
        pair.events.clear();
    }
}
