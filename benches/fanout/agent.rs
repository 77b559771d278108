//! The real thing, as it is measured: mosquitto, the agent, and the headless viewers, each a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::process::Running;

/// An agent with a broker of its own.
pub struct Agent {
    pub process: Running,
    _mosquitto: Running,
    broker: String,
}

impl Agent {
    /// Starts both; `camera` are the lines beneath `[[camera]]`, and viewers are shared out among so many threads. Only IPv4 loopback, as
    /// the floor has it.
    pub fn start(folder: &Path, camera: &str, viewers: usize, threads: u32) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let broker = format!("tcp://127.0.0.1:{port}");
        let settings = folder.join("mosquitto.conf");
        std::fs::write(
            &settings,
            format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"),
        )?;
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mosquitto = Running::start(
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
                "device.state_dir = \"{}\"\nhttp.listen = \"off\"\nlimits.viewers = {viewers}\nnetwork.udp_port = 0\n\
                 network.threads = {threads}\nnetwork.listen = [\"127.0.0.1\"]\nbroker.url = \"{broker}\"\nlog.filter = \"error\"\n[[camera]]\n{camera}\n",
                folder.join("state").display(),
            ),
        )?;
        let process = Running::start(Command::new(env!("CARGO_BIN_EXE_peercam")).arg("run").arg("--config").arg(&config))?;
        Ok(Self {
            process,
            _mosquitto: mosquitto,
            broker,
        })
    }

    /// Lets `viewers` watch; [`Probe::report`] tells what they saw.
    pub fn watch(&self, viewers: usize, more: &[&str]) -> anyhow::Result<Probe> {
        let probe = Path::new(env!("CARGO_BIN_EXE_peercam")).with_file_name("peercam-probe");
        let process = Running::start(
            Command::new(probe)
                .args(["--broker", &self.broker, "--json", "--viewers", &viewers.to_string()])
                .args(more)
                .stdout(Stdio::piped()),
        )
        .context("starting peercam-probe; `./dev bench` makes it")?;
        Ok(Probe(process))
    }
}

/// Viewers that watch.
pub struct Probe(Running);

impl Probe {
    /// Waits until they have watched as long as they were to.
    pub fn report(mut self) -> anyhow::Result<Value> {
        let report: Value = serde_json::from_reader(self.0.output()).context("the probe's report")?;
        let missed = report["missed"].as_array().map_or(0, Vec::len);
        ensure!(missed == 0, "the probe missed: {}", report["missed"]);
        Ok(report)
    }
}

/// Twenty seconds that no encoder finds easy: 1280x720, 30 pictures a second, 2.5 Mbit/s, a key frame every 2 s.
pub fn film(folder: &Path) -> anyhow::Result<PathBuf> {
    let film = folder.join("film.h264");
    let source = "testsrc2=size=1280x720:rate=30,noise=alls=12:allf=t";
    let encoder = "-c:v libx264 -preset veryfast -profile:v baseline -bf 0 -g 60 -b:v 2500k -maxrate 2500k -bufsize 300k";
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", source, "-t", "20"])
        .args(encoder.split(' '))
        .args(["-x264-params", "scenecut=0:sliced-threads=0"])
        .arg(&film)
        .status()
        .context("running ffmpeg; `./dev bench` installs it")?;
    ensure!(made.success(), "ffmpeg failed");
    Ok(film)
}
