//! `peercam`: the command line.

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peercam::{agent, capture, config, telemetry};

/// A camera agent: H.264 from a camera on this board to browsers anywhere, over WebRTC.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "/etc/peercam/peercam.toml")]
        config: PathBuf,
    },
    /// Check the configuration file and say what it means.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "/etc/peercam/peercam.toml")]
        config: PathBuf,
    },
    /// List the cameras and what they can do.
    Devices,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run(&config),
        Command::Check { config } => {
            let (report, good) = config::check_report(&config);
            print(format_args!("{report}\n"));
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Devices => {
            print(capture::devices::list());
            ExitCode::SUCCESS
        }
    }
}

fn run(path: &std::path::Path) -> ExitCode {
    let started = match config::start(path) {
        Ok(started) => started,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    telemetry::init(&started.config.log.filter);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(agent::run(path, started)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("peercam: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// To standard output. A reader that has seen enough (`| head`) is no reason to fail, as `println!` would.
fn print(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// To standard error, as [`print`].
fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
