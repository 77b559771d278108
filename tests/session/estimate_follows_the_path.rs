use std::time::Duration;

use super::sweep::{Outcome, Scenario, Stretch};

const PATH: u64 = 4_000_000;
const NARROW: u64 = 1_000_000;

/// From here to there, in seconds, it is narrow in [`dip`].
const FROM: u32 = 15;
const TO: u32 = 35;
const END: u32 = 60;

/// Until then the estimate may look for its place.
const SETTLED: u32 = 5;

/// Longer than this, and a viewer notices that the picture stands still.
const FREEZE: Duration = Duration::from_millis(500);

const SEEDS: [u64; 2] = [1, 2];

fn steady(loss: f64) -> Vec<Stretch> {
    vec![Stretch { at: 0, rate: PATH, loss }]
}

fn dip(loss: f64) -> Vec<Stretch> {
    let parts = [(0, PATH), (FROM, NARROW), (TO, PATH)];
    parts.map(|(at, rate)| Stretch { at, rate, loss }).into()
}

fn watch(rtt: u64, path: &[Stretch], seed: u64) -> Outcome {
    let scenario = Scenario {
        rtt,
        path,
        secs: END,
        seed,
    };
    scenario.run()
}

/// Key frames that come by themselves in so many seconds.
fn regular(secs: u32) -> u32 {
    secs.div_ceil(4)
}

#[test]
fn estimate_is_below_a_narrow_path_within_3_s_and_back_within_6_s_at_20_ms() {
    down_and_up(20);
}

#[test]
fn estimate_is_below_a_narrow_path_within_3_s_and_back_within_6_s_at_100_ms() {
    down_and_up(100);
}

fn down_and_up(rtt: u64) {
    for seed in SEEDS {
        let outcome = watch(rtt, &dip(0.0), seed);
        let down = outcome.until(FROM, |estimate| estimate < NARROW);
        assert!(
            down.is_some_and(|down| down <= Duration::from_secs(3)),
            "the path narrowed, and the estimate fell below it after {down:?} (seed {seed})"
        );
        let up = outcome.until(TO, |estimate| estimate >= PATH * 8 / 10);
        assert!(
            up.is_some_and(|up| up <= Duration::from_secs(6)),
            "the path widened again, and the estimate was at 80 % of it after {up:?} (seed {seed})"
        );
        let (before, after) = (outcome.freeze(1, FROM), outcome.freeze(TO + 1, END));
        assert!(
            before.max(after) <= FREEZE,
            "a wide path froze for {before:?}, then for {after:?} (seed {seed})"
        );
    }
}

#[test]
fn random_loss_leaves_the_picture_its_rate_at_20_ms() {
    loss_without_queueing(20);
}

#[test]
fn random_loss_leaves_the_picture_its_rate_at_100_ms() {
    loss_without_queueing(100);
}

/// 3 % lost at random, either way.
fn loss_without_queueing(rtt: u64) {
    for seed in SEEDS {
        let outcome = watch(rtt, &steady(0.03), seed);
        let used = outcome.used(SETTLED, END);
        assert!(
            used >= PATH * 6 / 10,
            "{} kbit/s of {} are used where 3 % are lost at random (seed {seed})",
            used / 1_000,
            PATH / 1_000
        );
        let freeze = outcome.freeze(1, END);
        assert!(
            freeze <= FREEZE,
            "the picture stood still for {freeze:?} where 3 % are lost at random (seed {seed})"
        );
        // What is lost is sent again in time, so nobody has to ask for a key frame.
        let key_frames: u32 = outcome.between(SETTLED, END).iter().map(|second| second.key_frames).sum();
        assert!(
            key_frames <= regular(END - SETTLED) + 1,
            "{key_frames} key frames in {} s where {} come by themselves: lost packets came too late (seed {seed})",
            END - SETTLED,
            regular(END - SETTLED)
        );
    }
}

/// The table of `docs/performance.md`: `cargo test --test session -- --ignored --nocapture table_of_the_estimate`.
#[test]
#[ignore = "prints, and asserts nothing"]
fn table_of_the_estimate() {
    for (name, rtt, path) in [
        ("4, then 1, then 4 Mbit/s, 20 ms", 20, dip(0.0)),
        ("4, then 1, then 4 Mbit/s, 100 ms", 100, dip(0.0)),
        ("4, then 1, then 4 Mbit/s, 300 ms", 300, dip(0.0)),
        ("3 % lost, 20 ms", 20, steady(0.03)),
        ("3 % lost, 100 ms", 100, steady(0.03)),
        ("3 % lost, 300 ms", 300, steady(0.03)),
        ("10 % lost, 20 ms", 20, steady(0.1)),
        ("10 % lost, 100 ms", 100, steady(0.1)),
        ("10 % lost, 300 ms", 300, steady(0.1)),
        ("4, then 1, then 4 Mbit/s, 3 % lost, 20 ms", 20, dip(0.03)),
        ("4, then 1, then 4 Mbit/s, 3 % lost, 100 ms", 100, dip(0.03)),
    ] {
        let outcomes: Vec<_> = (1..=8).map(|seed| watch(rtt, &path, seed)).collect();
        outcomes[0].print(name, 5);
        summary(&outcomes);
    }
}

/// Of the same with several seeds: worst and mean.
fn summary(outcomes: &[Outcome]) {
    let mean = |figure: &dyn Fn(&Outcome) -> u64| outcomes.iter().map(figure).sum::<u64>() / outcomes.len() as u64 / 1_000;
    let worst = |figure: &dyn Fn(&Outcome) -> Duration| outcomes.iter().map(figure).max().unwrap_or_default();
    let late = Duration::from_secs((END - TO).into());
    println!(
        "{} seeds: used {} kbit/s in {SETTLED} to {FROM} s, {} in {} to {TO} s, {} in {} to {END} s; goodput {}, {}, {}; below {NARROW} bit/s after {:?} at worst, \
         at 80 % again after {:?}; longest freeze {:?}, {:?} in the 5 s from {FROM} s on, {:?} after; most key frames from {} s on: {:?}",
        outcomes.len(),
        mean(&|outcome| outcome.used(SETTLED, FROM)),
        mean(&|outcome| outcome.used(FROM + 5, TO)),
        FROM + 5,
        mean(&|outcome| outcome.used(TO + 6, END)),
        TO + 6,
        mean(&|outcome| outcome.goodput(SETTLED, FROM)),
        mean(&|outcome| outcome.goodput(FROM + 5, TO)),
        mean(&|outcome| outcome.goodput(TO + 6, END)),
        worst(&|outcome| outcome.until(FROM, |estimate| estimate < NARROW).unwrap_or(late)),
        worst(&|outcome| outcome.until(TO, |estimate| estimate >= PATH * 8 / 10).unwrap_or(late)),
        worst(&|outcome| outcome.freeze(SETTLED, FROM)),
        worst(&|outcome| outcome.freeze(FROM, FROM + 5)),
        worst(&|outcome| outcome.freeze(FROM + 5, END)),
        TO,
        outcomes
            .iter()
            .map(|outcome| outcome.between(TO, END).iter().map(|second| second.key_frames).sum::<u32>())
            .max(),
    );
}
