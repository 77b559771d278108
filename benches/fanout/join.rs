//! How long it takes from `session.hello` to the first decodable key frame, for viewers that come at random moments.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::agent::Agent;
use super::pair::Pair;

/// Joins of each row, at least.
const JOINS: usize = 60;

/// A key frame every four seconds: nobody waits for it, since a joiner's is asked for.
const CAMERA: &str = "source = \"pattern\"\ngop_secs = 4";

pub fn bench(folder: &Path, counts: &[usize]) -> anyhow::Result<Vec<Value>> {
    println!("\njoin: hello to first decodable key frame, viewers that come at random moments, a key frame every 4 s, software encoder\n");
    println!(
        "{:<20} {:>7} {:>7} {:>9} {:>9} {:>9}",
        "row", "viewers", "joins", "p50 ms", "p95 ms", "worst ms"
    );
    let mut rows = vec![show("floor", 1, floor())];
    for &viewers in counts {
        rows.push(show("agent", viewers, agent(folder, viewers)?));
    }
    Ok(rows)
}

fn show(what: &str, viewers: usize, mut joins: Vec<f64>) -> Value {
    joins.sort_by(f64::total_cmp);
    let rank = |share: f64| joins[((joins.len() as f64 * share).ceil() as usize).clamp(1, joins.len()) - 1];
    let (p50, p95, worst) = (rank(0.5), rank(0.95), rank(1.0));
    println!("{what:<20} {viewers:>7} {:>7} {p50:>9.1} {p95:>9.1} {worst:>9.1}", joins.len());
    json!({ "row": what, "viewers": viewers, "joins": joins.len(), "hello_to_key_ms": { "p50": p50, "p95": p95, "worst": worst } })
}

/// The same handshakes (ICE, DTLS, SCTP) by both ends in one process, over a network without delay: milliseconds of
/// processor time. No broker, no sockets, no camera.
fn floor() -> Vec<f64> {
    (0..JOINS)
        .map(|_| {
            let began = Instant::now();
            let pair = Pair::connected(Duration::ZERO);
            let taken = began.elapsed().as_secs_f64() * 1e3;
            drop(pair);
            taken
        })
        .collect()
}

fn agent(folder: &Path, viewers: usize) -> anyhow::Result<Vec<f64>> {
    let agent = Agent::start(folder, CAMERA, viewers, 1)?;
    std::thread::sleep(Duration::from_secs(1));
    let mut joins = Vec::new();
    while joins.len() < JOINS {
        // One alone comes at another moment of the group of pictures each time, because the rounds are no multiple of it.
        let spread = if viewers == 1 { "1" } else { "4000" };
        let report = agent.watch(viewers, &["--seconds", "1.3", "--join-spread-ms", spread])?.report()?;
        let each = report["per_viewer"].as_array().context("the probe's viewers")?;
        let before = joins.len();
        joins.extend(each.iter().filter_map(|viewer| viewer["hello_to_key_ms"].as_f64()));
        ensure!(joins.len() == before + viewers, "not every viewer got a picture: {report}");
    }
    Ok(joins)
}
