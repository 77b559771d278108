//! What the benches share: figures that one run can compare, printed as plain tables.
#![allow(dead_code, reason = "each bench uses its own part of this")]

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds of a measurement; the median of them is what counts, so that a moment of other work on the machine does not.
const ROUNDS: usize = 15;

/// How long a round takes at least: long enough for the clock and the caches.
const ROUND: Duration = Duration::from_millis(20);

/// What one call of `work` takes, in nanoseconds.
pub fn nanos<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut calls = 1u32;
    loop {
        let took = time(calls, &mut work);
        if took >= ROUND {
            break;
        }
        calls = calls.saturating_mul(2);
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| time(calls, &mut work).as_nanos() as f64 / f64::from(calls))
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn time<T>(calls: u32, work: &mut impl FnMut() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..calls {
        black_box(work());
    }
    began.elapsed()
}

/// An access unit of `size` bytes in one slice, as a camera writes it.
pub fn access_unit(size: usize, key: bool) -> Vec<u8> {
    let mut unit = Vec::new();
    if key {
        for set in [&[0x67, 0x42, 0xe0, 0x1f, 0x8c][..], &[0x68, 0xce, 0x3c]] {
            unit.extend_from_slice(&[0, 0, 0, 1]);
            unit.extend_from_slice(set);
        }
    }
    unit.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }, 0x9a]);
    // Without a zero, so without a start code; otherwise as little to foresee as an encoder's output.
    let mut state = 1u32;
    unit.resize_with(size.max(unit.len()), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 1
    });
    unit
}

/// A heading, and what the figures beneath it mean.
pub fn heading(title: &str, meaning: &str) {
    println!("\n{title}\n{meaning}\n");
}
