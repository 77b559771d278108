//! What systemd is told.

mod common;

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use common::SOON;
use common::broker::Broker;
use common::device::{Device, PEERCAM};

/// systemd's end.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { socket, folder }
    }

    /// Waits until the agent has said `wanted`; returns everything it said until then.
    fn hear(&self, wanted: &str) -> Vec<String> {
        let (end, mut heard) = (Instant::now() + SOON, Vec::new());
        let mut buffer = [0; 4_096];
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a time limit");
            let Ok(size) = self.socket.recv(&mut buffer) else { break };
            heard.extend(String::from_utf8_lossy(&buffer[..size]).lines().map(str::to_owned));
            if heard.iter().any(|line| line.starts_with(wanted)) {
                return heard;
            }
        }
        panic!("{wanted} was not said: {heard:?}");
    }
}

#[test]
fn systemd_hears_that_it_runs_how_it_goes_that_it_lives_and_that_it_ends() {
    let (broker, manager) = (Broker::start(), Manager::new());
    let mut device = Device::new(&broker);
    let mut command = Command::new(PEERCAM);
    command.arg("run").arg("--config").arg(device.config_file());
    command.env("NOTIFY_SOCKET", manager.folder.path().join("notify"));
    command.env("WATCHDOG_USEC", "900000").env_remove("WATCHDOG_PID");
    device.start_as(&mut command);
    let first = manager.hear("WATCHDOG=1");
    assert_eq!(first[0], "READY=1", "{first:?}");
    device.live(&broker);
    manager.hear("STATUS=well; 0 watching");
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    // Who is still sends nothing: the real systemd would now start it again.
    device.process().signal("STOP");
    let mut buffer = [0; 4_096];
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(1_500)))
        .expect("a time limit");
    while manager.socket.recv(&mut buffer).is_ok() {}
    device.process().signal("CONT");
    manager.hear("WATCHDOG=1");
    device.process().signal("TERM");
    manager.hear("STOPPING=1");
    assert!(device.take_process().end_within(SOON).status.success());
}

#[test]
fn without_systemd_nothing_is_different() {
    let broker = Broker::start();
    let mut device = Device::new(&broker);
    let mut command = Command::new(PEERCAM);
    command.arg("run").arg("--config").arg(device.config_file());
    command.env("NOTIFY_SOCKET", "/nonexistent/notify");
    device.start_as(&mut command);
    device.live(&broker);
}
