//! Processes that are measured, by what Linux tells of them in `/proc` (proc(5)).

use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::time::Instant;

use anyhow::{Context, ensure};

/// A child that does not outlive the bench.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// Its standard output, which has to be a pipe.
    pub fn output(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("a pipe")
    }

    /// Its standard input, which has to be a pipe.
    pub fn input(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("a pipe")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process had used by a moment.
pub struct Usage {
    at: Instant,
    nanos: u64,
    switches: u64,
    rss_kib: u64,
}

/// What it used in between.
pub struct Rates {
    /// Per cent of one core.
    pub cpu: f64,
    /// Context switches a second, voluntary or not.
    pub switches: f64,
    /// Resident memory at the end, in MiB.
    pub rss_mib: f64,
}

impl Usage {
    pub fn of(process: &Running) -> anyhow::Result<Self> {
        let folder = format!("/proc/{}", process.0.id());
        let (mut nanos, mut switches) = (0, 0);
        for task in std::fs::read_dir(format!("{folder}/task"))? {
            let task = task?.path();
            // Time on a processor in nanoseconds comes first; `stat` has it in hundredths of a second only.
            let scheduled = std::fs::read_to_string(task.join("schedstat"))?;
            nanos += scheduled.split(' ').next().context("schedstat")?.parse::<u64>()?;
            let status = std::fs::read_to_string(task.join("status"))?;
            switches += status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .filter_map(number)
                .sum::<u64>();
        }
        let status = std::fs::read_to_string(format!("{folder}/status"))?;
        let rss_kib = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .and_then(number)
            .context("VmRSS")?;
        Ok(Self {
            at: Instant::now(),
            nanos,
            switches,
            rss_kib,
        })
    }

    pub fn since(&self, before: &Self) -> anyhow::Result<Rates> {
        let seconds = (self.at - before.at).as_secs_f64();
        ensure!(seconds > 0.0, "no time has passed");
        Ok(Rates {
            cpu: 100.0 * (self.nanos - before.nanos) as f64 / 1e9 / seconds,
            switches: (self.switches - before.switches) as f64 / seconds,
            rss_mib: self.rss_kib as f64 / 1_024.0,
        })
    }
}

fn number(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}
