//! What viewers cost the agent, how late their pictures are, and how soon they see the first one: each beside a floor
//! measured in the same run.
//!
//! The agent, mosquitto and the headless viewers are processes of their own; what is told of the agent is its own alone.
//! Every row sends the same film: 1280x720, 30 pictures a second, 2.5 Mbit/s. `docs/performance.md` explains each number.
//!
//!     cargo bench --bench fanout -- [--viewers 1,10,50,100] [--seconds 10] [--threads 1] [--only fanout|join] [--json FILE]

mod agent;
mod fanout;
mod floor;
mod join;
mod machine;
mod process;

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/session/film.rs"]
mod film;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/session/pair.rs"]
mod pair;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/session/setup.rs"]
mod setup;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/session/wire.rs"]
mod wire;

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;

const FPS: f64 = 30.0;

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

fn bench(args: &[String]) -> anyhow::Result<()> {
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let counts: Vec<usize> = match option("--viewers") {
        Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => vec![1, 10, 50, 100],
    };
    let seconds = option("--seconds").map_or(Ok(10.0), |text| text.parse())?;
    let threads = option("--threads").map_or(Ok(1), |text| text.parse())?;
    let only = option("--only").map(String::as_str);
    if let Some(other) = only.filter(|only| !["fanout", "join"].contains(only)) {
        bail!("--only takes `fanout` or `join`, not `{other}`");
    }
    let folder = tempfile::tempdir()?;
    let machine = machine::describe();
    println!("{}", machine::line(&machine));
    let fanout = match only {
        Some("join") => Vec::new(),
        _ => fanout::bench(&agent::film(folder.path())?, folder.path(), &counts, seconds, threads)?,
    };
    let join = match only {
        Some("fanout") => Vec::new(),
        _ => join::bench(folder.path(), &counts)?,
    };
    if let Some(file) = option("--json") {
        let figures = json!({ "machine": machine, "fanout": fanout, "join": join });
        std::fs::write(file, serde_json::to_string_pretty(&figures)?).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}
