//! A real mosquitto of the test's own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::Running;
use super::{SOON, free_port, until};

/// Where Debian puts it; elsewhere it is looked for in the search path.
const DEBIAN: &str = "/usr/sbin/mosquitto";

/// The usual port of MQTT over WebSocket.
pub const WEBSOCKET: u16 = 9001;

/// A broker without accounts. What it retains dies with it.
pub struct Broker {
    folder: TempDir,
    pub address: SocketAddr,
    process: Option<Running>,
}

impl Broker {
    /// A broker on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let mut broker = Self::at(SocketAddr::from(([127, 0, 0, 1], free_port())));
        broker.run();
        broker
    }

    /// A broker on the usual ports of `ip`, which is an address of the place that this thread is at; pages come by [`WEBSOCKET`].
    pub fn on(ip: std::net::IpAddr) -> Self {
        let mut broker = Self::at(SocketAddr::new(ip, 1883));
        broker.configure(&format!("listener {WEBSOCKET} {ip}\nprotocol websockets\n"));
        broker.run();
        broker
    }

    /// A broker that will listen at `address`, but does not run yet.
    pub fn at(address: SocketAddr) -> Self {
        // Without a limit on what waits for a slow client: a burst is meant to reach the agent.
        let config = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nuser root\nmax_queued_messages 0\n",
            address.port(),
            address.ip()
        );
        Self::with(address, &config)
    }

    /// A broker with a configuration of the test's own, in which a listener is at `address`. It does not run yet.
    pub fn with(address: SocketAddr, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("mosquitto.conf"), config).expect("a file");
        Self {
            folder,
            address,
            process: None,
        }
    }

    /// Adds to the configuration of one that does not run yet.
    fn configure(&self, more: &str) {
        let file = self.folder.path().join("mosquitto.conf");
        let config = fs::read_to_string(&file).expect("the configuration");
        fs::write(&file, config + more).expect("a file");
    }

    /// What it logged since it was started.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("a running broker").log()
    }

    /// Lets it read its accounts and access list again.
    pub fn reload(&self) {
        self.process.as_ref().expect("a running broker").signal("HUP");
    }

    /// Starts it, first or again, and waits until it listens.
    pub fn run(&mut self) {
        let program = if Path::new(DEBIAN).exists() { DEBIAN } else { "mosquitto" };
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let mut start = || Running::start(&mut command, "mosquitto (apt install mosquitto)");
        let mut process = start();
        until("mosquitto listens", SOON, || {
            // A child that another test has just started may hold the free port's socket until it is its own program.
            if !process.is_alive() && process.log().contains("Address already in use") {
                process = start();
            }
            assert!(
                process.is_alive() || process.log().contains("Address already in use"),
                "mosquitto ended at once: {}",
                process.log()
            );
            (process.log().contains(" running") && TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()).then_some(())
        });
        self.process = Some(process);
    }

    /// Kills it: connections break without a word.
    pub fn kill(&mut self) {
        self.process.take().expect("a running broker").kill();
    }

    /// Stops it in its tracks: connections stay and nothing moves any more.
    pub fn freeze(&self) {
        self.process.as_ref().expect("a running broker").signal("STOP");
    }

    /// As the configuration names it.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }
}
