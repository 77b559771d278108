//! N headless viewers in one process: how fast they join, what they see, what is lost on the way. See `--help`.

mod args;
mod assembler;
mod broker;
mod control;
mod depacketize;
mod dialogue;
mod doors;
mod http;
mod join;
mod link;
mod moment;
mod network;
mod offset;
mod report;
mod run;
mod samples;
mod sockets;
mod tally;
mod thresholds;
mod video;
mod viewer;
#[cfg(test)]
mod viewer_tests;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::report::Report;

/// All thresholds met.
const MET: u8 = 0;
/// A threshold missed.
const MISSED: u8 = 1;
/// Nothing could be measured. clap ends with the same code when it does not understand its arguments.
const UNREACHABLE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would say so on standard error, and panic, when standard error is gone (`2>&1 | head`).
        .log_internal_errors(false)
        .init();
    str0m::crypto::from_feature_flags().install_process_default();
    let code = match measure(&args) {
        Ok(report) => print(&report, args.json),
        Err(error) => {
            // Nobody may be reading.
            let _ = writeln!(std::io::stderr(), "peercam-probe: {error:#}");
            UNREACHABLE
        }
    };
    ExitCode::from(code)
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run::run(args))
}

/// Prints the report; a reader that has gone away is no fault of the run.
fn print(report: &Report, json: bool) -> u8 {
    let text = if json {
        serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
    } else {
        report.to_string()
    };
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        tracing::debug!(%error, "printing the report");
    }
    if report.unreachable() {
        UNREACHABLE
    } else if report.missed.is_empty() {
        MET
    } else {
        MISSED
    }
}
