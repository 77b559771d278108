//! A picture is cut into RTP payloads once, whoever watches. What that saves.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use common::{access_unit, heading, nanos};
use peercam::media::rtp;

fn main() {
    heading(
        "packetize: one picture for N viewers",
        "once: cut once, each viewer takes the shared payloads; each: cut again for every viewer. Microseconds a picture.",
    );
    println!(
        "{:>9} {:>8} {:>8} {:>12} {:>12} {:>8}",
        "bytes", "packets", "viewers", "once µs", "each µs", "ratio"
    );
    for (size, key) in [(2_000, false), (10_000, false), (100_000, true)] {
        let unit = access_unit(size, key);
        let packets = rtp::packetize(&unit).len();
        for viewers in [1, 10, 100] {
            let once = nanos(|| {
                let payloads: Arc<[Arc<[u8]>]> = rtp::packetize(black_box(&unit)).into();
                for _ in 0..viewers {
                    payloads.iter().for_each(|payload| drop(black_box(Arc::clone(payload))));
                }
            });
            let each = nanos(|| {
                for _ in 0..viewers {
                    drop(black_box(rtp::packetize(black_box(&unit))));
                }
            });
            println!(
                "{size:>9} {packets:>8} {viewers:>8} {:>12.2} {:>12.2} {:>8.2}",
                once / 1e3,
                each / 1e3,
                each / once
            );
        }
    }
}
