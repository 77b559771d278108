//! A real coturn of the test's own.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::certificates::Certificates;
use super::process::Running;
use super::{SOON, free_port, until};

/// Who may use it.
pub const USER: &str = "device";
pub const PASSWORD: &str = "only-for-this-test";

/// A TURN server on loopback, by UDP, TCP and TLS.
pub struct Coturn {
    folder: TempDir,
    certificates: Certificates,
    address: SocketAddr,
    tls: SocketAddr,
    more: Vec<String>,
    process: Option<Running>,
}

impl Coturn {
    /// A server that runs.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server that runs, with more arguments.
    pub fn with(more: &[&str]) -> Self {
        let loopback = std::net::Ipv4Addr::LOCALHOST.into();
        Self::new(SocketAddr::new(loopback, free_port()), free_port(), more)
    }

    /// A server that runs on the usual ports of `ip`, TLS on 443; `ip` is an address of the place that this thread is at.
    pub fn on(ip: std::net::IpAddr) -> Self {
        Self::new(SocketAddr::new(ip, 3478), 443, &[])
    }

    fn new(address: SocketAddr, tls_port: u16, more: &[&str]) -> Self {
        let mut coturn = Self {
            folder: tempfile::tempdir().expect("a folder"),
            certificates: Certificates::new(),
            address,
            tls: SocketAddr::new(address.ip(), tls_port),
            more: more.iter().map(ToString::to_string).collect(),
            process: None,
        };
        coturn.run();
        coturn
    }

    /// Starts it, first or again, and waits until it listens.
    pub fn run(&mut self) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let mut command = Command::new("turnserver");
        command.args([
            "-n",
            "--listening-ip",
            &self.address.ip().to_string(),
            "--relay-ip",
            &self.address.ip().to_string(),
            "--allow-loopback-peers",
        ]);
        command.args([
            "--lt-cred-mech",
            "--user",
            &format!("{USER}:{PASSWORD}"),
            "--realm",
            "test",
            "--no-dtls",
            "--no-cli",
        ]);
        command.args([
            "--listening-port",
            &self.address.port().to_string(),
            "--tls-listening-port",
            &self.tls.port().to_string(),
        ]);
        command.arg("--cert").arg(self.certificates.file("server.pem"));
        command.arg("--pkey").arg(self.certificates.file("server.key"));
        command.args([
            "--userdb",
            &file("turndb"),
            "--pidfile",
            &file("pid"),
            "--log-file",
            "stdout",
            "--verbose",
        ]);
        let process = Running::start(command.args(&self.more), "turnserver (apt install coturn)");
        until("coturn listens", SOON, || {
            let listens = |address| TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok();
            (listens(&self.address) && listens(&self.tls)).then_some(())
        });
        self.process = Some(process);
    }

    /// What it logged since it was started.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("a running coturn").output()
    }

    /// Kills it: nobody is told.
    pub fn kill(&mut self) {
        self.process.take().expect("a running coturn").kill();
    }

    /// Where it listens by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL for a transport: `udp`, `tcp` or `tls`.
    pub fn url(&self, transport: &str) -> String {
        match transport {
            "tls" => format!("turns:{}", self.tls),
            other => format!("turn:{}?transport={other}", self.address),
        }
    }

    /// The lines of the configuration for it, with the password in a file beside the server's.
    pub fn config(&self, transports: &[&str], password: &str) -> String {
        format!(
            "{}username = \"{USER}\"\n",
            self.config_with(transports, "credential_file", password)
        )
    }

    /// The same for a server that shares a secret.
    pub fn config_with(&self, transports: &[&str], key: &str, secret: &str) -> String {
        let file = self.folder.path().join("secret");
        std::fs::write(&file, secret).expect("a file");
        let urls: Vec<String> = transports.iter().map(|transport| format!("{:?}", self.url(transport))).collect();
        format!(
            "[[network.ice_server]]\nurls = [{}]\n{key} = {file:?}\nca_file = {:?}\n",
            urls.join(", "),
            self.certificates.file("authority.pem")
        )
    }
}
