//! Fan-out: what viewers cost the agent, beside the floor measured in the same run, and how late the pictures are.
//!
//! The agent, mosquitto and the headless viewers are processes of their own; the figures are the agent's alone. Every row
//! sends the same film: 1280x720, 30 pictures a second, 2.5 Mbit/s, a key frame every 2 s.
//!
//!     cargo bench --bench fanout -- [--viewers 1,10,50,100] [--seconds 10] [--json FILE]

mod floor;
mod process;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use process::{Running, Usage};
use serde_json::{Value, json};

const FPS: f64 = 30.0;
/// From the last join until figures are taken: estimates have settled, memory has been touched.
const SETTLE: Duration = Duration::from_secs(3);
/// Viewers join within this.
const JOIN_SPREAD: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("floor") => floor::serve(Path::new(args.get(1).context("no film")?), FPS),
        Some("sink") => floor::sink(
            args.get(1).context("no count")?.parse()?,
            args.get(2).context("no seconds")?.parse()?,
        ),
        _ => bench(&args),
    }
}

/// One line of the table.
struct Row {
    what: &'static str,
    viewers: usize,
    /// Of one core, by the serving process, in per cent.
    cpu: f64,
    rss_mib: f64,
    switches: f64,
    /// From capture to the last packet of the picture at its viewer, in milliseconds.
    latency: (f64, f64),
    /// From the offer to the first decodable key frame, in milliseconds.
    join: Option<(f64, f64)>,
    lost: u64,
}

fn bench(args: &[String]) -> anyhow::Result<()> {
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let counts: Vec<usize> = match option("--viewers") {
        Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => vec![1, 10, 50, 100],
    };
    let seconds = option("--seconds").map_or(Ok(10.0), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let film = film(folder.path())?;
    let mut rows = Vec::new();
    println!("fan-out: 1280x720, 30 pictures a second, 2.5 Mbit/s; CPU of one core, by the serving process alone\n");
    println!(
        "{:<20} {:>7} {:>8} {:>9} {:>8} {:>8} {:>10} {:>15} {:>15} {:>6}",
        "row", "viewers", "CPU %", "a viewer", "x floor", "RSS MiB", "switches/s", "latency p50/p99", "join p50/p95", "lost"
    );
    for &viewers in &counts {
        let floor = floor_row(&film, viewers, seconds)?;
        let per_viewer = floor.cpu;
        print(&floor, per_viewer);
        rows.push(floor);
        for (what, more) in [("agent without TWCC", &["--no-twcc"][..]), ("agent", &[])] {
            let row = agent_row(what, &film, folder.path(), viewers, seconds, more)?;
            print(&row, per_viewer);
            rows.push(row);
        }
    }
    if let Some(file) = option("--json") {
        let rows: Vec<Value> = rows.iter().map(as_json).collect();
        std::fs::write(file, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

fn print(row: &Row, floor: f64) {
    let pair = |(a, b): (f64, f64)| format!("{a:.2} / {b:.2} ms");
    println!(
        "{:<20} {:>7} {:>8.2} {:>9.4} {:>8.2} {:>8.1} {:>10.0} {:>15} {:>15} {:>6}",
        row.what,
        row.viewers,
        row.cpu,
        row.cpu / row.viewers as f64,
        row.cpu / floor,
        row.rss_mib,
        row.switches,
        pair(row.latency),
        row.join.map_or_else(String::new, |(a, b)| format!("{a:.0} / {b:.0} ms")),
        row.lost
    );
}

fn as_json(row: &Row) -> Value {
    json!({
        "row": row.what,
        "viewers": row.viewers,
        "cpu_percent": row.cpu,
        "rss_mib": row.rss_mib,
        "context_switches_per_second": row.switches,
        "latency_ms": { "p50": row.latency.0, "p99": row.latency.1 },
        "offer_to_key_ms": row.join.map(|(p50, p95)| json!({ "p50": p50, "p95": p95 })),
        "frames_lost": row.lost,
    })
}

/// Twenty seconds that no encoder finds easy.
fn film(folder: &Path) -> anyhow::Result<PathBuf> {
    let film = folder.join("film.h264");
    let made = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=1280x720:rate=30,noise=alls=12:allf=t",
            "-t",
            "20",
        ])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-profile:v",
            "baseline",
            "-bf",
            "0",
            "-g",
            "60",
        ])
        .args([
            "-b:v",
            "2500k",
            "-maxrate",
            "2500k",
            "-bufsize",
            "300k",
            "-x264-params",
            "scenecut=0:sliced-threads=0",
        ])
        .arg(&film)
        .status()
        .context("running ffmpeg; `./dev bench` installs it")?;
    ensure!(made.success(), "ffmpeg failed");
    Ok(film)
}

fn floor_row(film: &Path, viewers: usize, seconds: f64) -> anyhow::Result<Row> {
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
        cpu: usage.cpu,
        rss_mib: usage.rss_mib,
        switches: usage.switches,
        latency: (p50, p99),
        join: None,
        lost: 0,
    })
}

fn agent_row(what: &'static str, film: &Path, folder: &Path, viewers: usize, seconds: f64, more: &[&str]) -> anyhow::Result<Row> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let broker = format!("tcp://127.0.0.1:{port}");
    let settings = folder.join("mosquitto.conf");
    std::fs::write(&settings, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))?;
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let _mosquitto = Running::start(
        Command::new("mosquitto")
            .env("PATH", path)
            .arg("-c")
            .arg(&settings)
            .stderr(Stdio::null()),
    )?;
    let config = folder.join("peercam.toml");
    std::fs::write(
        &config,
        format!(
            "device.state_dir = \"{}\"\nhttp.listen = \"off\"\nlimits.viewers = {viewers}\nnetwork.udp_port = 0\nbroker.url = \"{broker}\"\n\
             log.filter = \"warn\"\n[[camera]]\nsource = \"file\"\npath = \"{}\"\nfps = {FPS}\n",
            folder.join("state").display(),
            film.display()
        ),
    )?;
    let agent = Running::start(Command::new(env!("CARGO_BIN_EXE_peercam")).arg("run").arg("--config").arg(&config))?;
    // The key frame comes every two seconds; joins are measured by another bench, on a source that forces them.
    std::thread::sleep(Duration::from_secs(1));
    let watched = SETTLE.as_secs_f64() + seconds + 1.0;
    let mut probe = Running::start(
        Command::new(Path::new(env!("CARGO_BIN_EXE_peercam")).with_file_name("peercam-probe"))
            .args(["--broker", &broker, "--json", "--viewers", &viewers.to_string()])
            .args([
                "--seconds",
                &watched.to_string(),
                "--join-spread-ms",
                &JOIN_SPREAD.as_millis().to_string(),
            ])
            .args(more)
            .stdout(Stdio::piped()),
    )
    .context("starting peercam-probe; `cargo build --release -p peercam-probe` makes it")?;
    let report = probe.output();
    let usage = usage(&agent, seconds)?;
    let report: Value = serde_json::from_reader(report).context("the probe's report")?;
    let missed = report["missed"].as_array().map_or(0, Vec::len);
    ensure!(missed == 0, "the probe missed: {}", report["missed"]);
    let pair = |of: &str, a: &str, b: &str| Some((report[of][a].as_f64()?, report[of][b].as_f64()?));
    Ok(Row {
        what,
        viewers,
        cpu: usage.cpu,
        rss_mib: usage.rss_mib,
        switches: usage.switches,
        latency: pair("latency_ms", "p50", "p99").context("the probe measured no latency")?,
        join: pair("offer_to_key_ms", "p50", "p95"),
        lost: report["frames_lost"].as_u64().unwrap_or(0),
    })
}

/// Waits until all have joined and settled, then looks at `process` for `seconds`.
fn usage(process: &Running, seconds: f64) -> anyhow::Result<process::Rates> {
    std::thread::sleep(JOIN_SPREAD + SETTLE);
    let before = Usage::of(process)?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    Usage::of(process)?.since(&before)
}
