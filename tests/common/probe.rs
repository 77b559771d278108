//! The probe: headless viewers that receive for real.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::device::PEERCAM;
use super::process::{Ended, Running};

/// A running probe.
pub struct Probe(Running);

impl Probe {
    /// Starts the probe for `device` at `broker`, with more arguments.
    pub fn start(broker: SocketAddr, device: &str, arguments: &[&str]) -> Self {
        let broker = format!("tcp://{broker}");
        let by_broker = ["--broker", &broker, "--device", device];
        Self::by(&[&by_broker[..], arguments].concat())
    }

    /// Starts the probe; the arguments say by which door it reaches the device.
    pub fn by(arguments: &[&str]) -> Self {
        let program = Path::new(PEERCAM).with_file_name("peercam-probe");
        assert!(
            program.exists(),
            "{} is not built; run `cargo build --workspace` first",
            program.display()
        );
        let mut command = Command::new(program);
        command.args(["--json", "--address", "127.0.0.1"]);
        Self(Running::start(command.args(arguments), "peercam-probe"))
    }

    /// Ends its run early, and reads its report.
    pub fn stop(self, limit: Duration) -> Value {
        self.0.signal("TERM");
        self.report(limit)
    }

    /// Waits for its end, with or without a report.
    pub fn end(self, limit: Duration) -> Ended {
        self.0.end_within(limit)
    }

    /// Waits for its end and reads its report.
    pub fn report(self, limit: Duration) -> Value {
        let ended = self.0.end_within(limit);
        serde_json::from_str(&ended.out).unwrap_or_else(|error| {
            panic!(
                "the probe ended with {} and no report ({error}): {}{}",
                ended.status, ended.out, ended.log
            )
        })
    }
}
