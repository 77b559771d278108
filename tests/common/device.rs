//! The agent under test: its own program, with a folder of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::broker::Broker;
use super::http::Events;
use super::peer::Peer;
use super::process::Running;
use super::{SOON, free_port, until};

/// The agent's program.
pub const PEERCAM: &str = env!("CARGO_BIN_EXE_peercam");

/// What the tests set in the configuration.
pub struct Settings {
    pub name: &'static str,
    pub viewers: u32,
    pub size: &'static str,
    pub fps: u32,
    pub bitrate_kbps: u32,
    /// As in `broker.url`; set by [`Device::new`].
    pub broker: String,
    /// As in `http.listen`; set by [`Device::by_http`].
    pub http: String,
    /// More lines of the configuration, such as `http.whep = true`.
    pub more: &'static str,
}

impl Default for Settings {
    /// A small picture, so that the encoder leaves the machine to the test; a long distance of key frames, so that no viewer gets
    /// one by chance.
    fn default() -> Self {
        Self {
            name: "porch",
            viewers: 20,
            size: "320x240",
            fps: 15,
            bitrate_kbps: 500,
            broker: String::new(),
            http: "off".into(),
            more: "",
        }
    }
}

/// A device: one folder with configuration and state, and the agent that runs with it.
pub struct Device {
    folder: TempDir,
    pub settings: Settings,
    process: Option<Running>,
    id: Option<String>,
}

impl Device {
    /// A device that will connect to `broker`. It does not run yet.
    pub fn new(broker: &Broker) -> Self {
        Self::with(Settings {
            broker: broker.url(),
            ..Settings::default()
        })
    }

    /// A device with `settings`. It does not run yet.
    pub fn with(settings: Settings) -> Self {
        let device = Self {
            folder: tempfile::tempdir().expect("a folder"),
            settings,
            process: None,
            id: None,
        };
        device.configure(&device.config());
        device
    }

    /// A device that is online and has shown its first picture.
    pub fn online(broker: &Broker) -> Self {
        let mut device = Self::new(broker);
        device.start();
        device.live(broker);
        device
    }

    /// A device without a broker that serves HTTP and has shown its first picture, and its address.
    pub fn by_http(settings: Settings) -> (Self, SocketAddr) {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut device = Self::with(Settings {
            broker: "off".into(),
            http: address.to_string(),
            ..settings
        });
        device.start();
        until("the device serves HTTP", SOON, || TcpStream::connect(address).ok());
        let mut events = Events::open(address, "watcher");
        events.find("the device shows a live picture", |name, status| {
            name == "status" && status["streams"][0]["state"] == "live"
        });
        (device, address)
    }

    /// The configuration as text.
    pub fn config(&self) -> String {
        let Settings {
            name,
            viewers,
            size,
            fps,
            bitrate_kbps,
            broker,
            http,
            more,
        } = &self.settings;
        format!(
            "device.name = \"{name}\"\ndevice.state_dir = \"{}\"\nhttp.listen = \"{http}\"\nlimits.viewers = {viewers}\n\
             network.udp_port = 0\nbroker.url = \"{broker}\"\nbroker.keep_alive_secs = 5\n{more}\n\
             [[camera]]\nname = \"card\"\nsource = \"pattern\"\nsize = \"{size}\"\nfps = {fps}\ngop_secs = 4\nbitrate_kbps = {bitrate_kbps}\n",
            self.folder.path().join("state").display()
        )
    }

    /// Puts another configuration in place, whole at once, as an editor does it.
    pub fn configure(&self, text: &str) {
        let temporary = self.folder.path().join("new.toml");
        fs::write(&temporary, text).expect("a file");
        fs::rename(temporary, self.config_file()).expect("a file");
    }

    /// The configuration with a film in the camera's place.
    pub fn playing(&self, film: &[u8], config: &str) -> String {
        let path = self.file("film.h264");
        fs::write(&path, film).expect("a file");
        let source = format!("source = \"file\"\npath = \"{}\"", path.display());
        config
            .replace("source = \"pattern\"", &source)
            .lines()
            .filter(|line| !line.starts_with("size") && !line.starts_with("gop_secs"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("peercam.toml")
    }

    /// A file in the device's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the agent, first or again.
    pub fn start(&mut self) {
        let mut command = Command::new(PEERCAM);
        command.arg("run").arg("--config").arg(self.config_file());
        self.start_as(&mut command);
    }

    /// Starts the agent by a command of the test's own.
    pub fn start_as(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "the agent runs already");
        self.process = Some(Running::start(command.env_remove("PEERCAM_LOG"), "peercam run"));
    }

    /// Waits at `broker` for a status that says that the picture is live, learns the device's id from it and returns it.
    pub fn live(&mut self, broker: &Broker) -> Value {
        let mut watcher = Peer::watcher(broker.address);
        let (id, status) = watcher.status("the device is online with a live picture", SOON, |status| {
            status["online"] == true && status["streams"][0]["state"] == "live"
        });
        self.id = Some(id);
        status
    }

    /// The device's id, once it was [`Device::live`].
    pub fn id(&self) -> &str {
        self.id.as_deref().expect("a device that was online")
    }

    /// A viewer's connection to the broker, ready to call.
    pub fn peer(&self, broker: SocketAddr, name: &str) -> Peer {
        Peer::join(broker, self.id(), name)
    }

    /// The running agent.
    pub fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("a running agent")
    }

    /// Waits until a viewer is connected and has its seat; returns its session's id.
    pub fn seated(&mut self) -> String {
        until("a viewer is connected", SOON, || {
            let log = self.process().log();
            let (_, after) = log.split_once("viewer connected session=")?;
            after.split_whitespace().next().map(str::to_owned)
        })
    }

    /// The running agent, to be ended by the test.
    pub fn take_process(&mut self) -> Running {
        self.process.take().expect("a running agent")
    }
}
