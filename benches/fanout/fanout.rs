//! What viewers cost, and how late their pictures are.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::FPS;
use super::agent::Agent;
use super::process::{Rates, Running, Usage};

/// From the last join until figures are taken: estimates have settled, memory has been touched.
const SETTLE: Duration = Duration::from_secs(4);
/// Viewers join within this.
const JOIN_SPREAD: Duration = Duration::from_secs(2);

/// One line of the table.
struct Row {
    what: &'static str,
    viewers: usize,
    /// Of the serving process alone.
    usage: Rates,
    /// From capture to the last packet of the picture at its viewer, in milliseconds: p50, p99.
    latency: (f64, f64),
    lost: u64,
}

pub fn bench(film: &Path, folder: &Path, counts: &[usize], seconds: f64, threads: u32) -> anyhow::Result<Vec<Value>> {
    println!("\nfan-out: what the serving process costs, in per cent of one core, and how late the pictures are\n");
    println!(
        "{:<20} {:>7} {:>8} {:>9} {:>8} {:>8} {:>10} {:>17} {:>6}",
        "row", "viewers", "CPU %", "a viewer", "x floor", "RSS MiB", "switches/s", "latency p50 / p99", "lost"
    );
    let camera = format!("source = \"file\"\npath = \"{}\"\nfps = {FPS}", film.display());
    let mut rows = Vec::new();
    for &viewers in counts {
        let floor = floor(film, viewers, seconds)?;
        let of_floor = floor.usage.cpu;
        rows.push(show(&floor, of_floor));
        for (what, more) in [("agent without TWCC", &["--no-twcc"][..]), ("agent", &[])] {
            let agent = Agent::start(folder, &camera, viewers, threads)?;
            rows.push(show(&watched(what, &agent, viewers, seconds, more)?, of_floor));
        }
    }
    Ok(rows)
}

fn show(row: &Row, floor: f64) -> Value {
    let (p50, p99) = row.latency;
    let (per_viewer, times_floor) = (row.usage.cpu / row.viewers as f64, row.usage.cpu / floor);
    println!(
        "{:<20} {:>7} {:>8.2} {per_viewer:>9.4} {times_floor:>8.2} {:>8.1} {:>10.0} {:>17} {:>6}",
        row.what,
        row.viewers,
        row.usage.cpu,
        row.usage.rss_mib,
        row.usage.switches,
        format!("{p50:.2} / {p99:.2} ms"),
        row.lost
    );
    json!({
        "row": row.what,
        "viewers": row.viewers,
        "cpu_percent": row.usage.cpu,
        "times_floor": times_floor,
        "rss_mib": row.usage.rss_mib,
        "context_switches_per_second": row.usage.switches,
        "latency_ms": { "p50": p50, "p99": p99 },
        "frames_lost": row.lost,
    })
}

fn floor(film: &Path, viewers: usize, seconds: f64) -> anyhow::Result<Row> {
    let this = std::env::current_exe()?;
    let watched = (JOIN_SPREAD + SETTLE).as_secs_f64() + seconds + 1.0;
    let mut sink = Running::start(
        Command::new(&this)
            .args(["sink", &viewers.to_string(), &watched.to_string()])
            .stdout(Stdio::piped()),
    )?;
    let mut said = BufReader::new(sink.output()).lines();
    let mut floor = Running::start(Command::new(&this).arg("floor").arg(film).stdin(Stdio::piped()))?;
    let mut addresses = floor.input();
    for line in said.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        writeln!(addresses, "{line}")?;
    }
    drop(addresses);
    let usage = usage(&floor, seconds)?;
    let last = said.next().context("the sink said nothing")??;
    let figures: Vec<f64> = last.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [packets, p50, p99] = figures[..] else {
        bail!("the sink said {last}")
    };
    ensure!(packets > 0.0, "nothing arrived");
    Ok(Row {
        what: "floor",
        viewers,
        usage,
        latency: (p50, p99),
        lost: 0,
    })
}

fn watched(what: &'static str, agent: &Agent, viewers: usize, seconds: f64, more: &[&str]) -> anyhow::Result<Row> {
    std::thread::sleep(Duration::from_secs(1));
    let duration = (SETTLE.as_secs_f64() + seconds + 1.0).to_string();
    let spread = JOIN_SPREAD.as_millis().to_string();
    let settled = (SETTLE.as_secs() - 1).to_string();
    let mut options = vec!["--seconds", &duration, "--join-spread-ms", &spread, "--settle-seconds", &settled];
    options.extend(more);
    let probe = agent.watch(viewers, &options)?;
    let usage = usage(&agent.process, seconds)?;
    let report = probe.report()?;
    let latency = &report["latency_ms"];
    Ok(Row {
        what,
        viewers,
        usage,
        latency: latency["p50"]
            .as_f64()
            .zip(latency["p99"].as_f64())
            .context("the probe measured no latency")?,
        lost: report["frames_lost"].as_u64().unwrap_or(0),
    })
}

/// Waits until all have joined and settled, then looks at `process` for `seconds`.
fn usage(process: &Running, seconds: f64) -> anyhow::Result<Rates> {
    std::thread::sleep(JOIN_SPREAD + SETTLE);
    let before = Usage::of(process)?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Usage::of(process)?.since(&before)
}
