//! The configuration: one TOML file, parsed once into types that the inside trusts.

mod advertise;
mod camera_value;
mod cameras;
mod check;
mod error;
mod file;
mod interfaces;
mod load;
mod network;
mod resolve;
mod rpicam;
mod url;
mod value;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use crate::media::Bitrate;
use crate::media::settings::ControlValue;

pub use advertise::Advertised;
pub use check::check_report;
pub use error::{ConfigError, Invalid};
pub use interfaces::Interfaces;
use load::Environment;
pub use load::{MAX_BYTES, load, parse};
pub use network::MAX_RELAYS;
pub use watch::{Check, Started, Watch, load_last_good, save_last_good, start};

/// Everything `peercam.toml` says. `config/peercam.toml` documents every key; a test holds the two equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub device: Device,
    pub cameras: Vec<Camera>,
    pub broker: Broker,
    pub network: Network,
    pub http: Http,
    pub unsigned: Unsigned,
    pub limits: Limits,
    pub log: Log,
    /// What is allowed but may surprise, a sentence each: to be logged at start-up.
    pub warnings: Vec<String>,
}

/// `[device]`
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What people call it.
    pub name: String,
    /// Where the certificate and all state live; survives updates.
    pub state_dir: PathBuf,
}

/// `[[camera]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// The stream's name, by which a viewer picks it: 1 to 32 of `a-z 0-9 - _`.
    pub name: String,
    pub source: Source,
    /// What the encoder is asked for while no viewer wants less.
    pub bitrate: Bitrate,
    pub idle: Idle,
    /// What the encoder of the low rung is asked for; `None`: there is none.
    pub low: Option<Bitrate>,
    /// What is set on a V4L2 camera whenever it is opened, by control.
    pub controls: BTreeMap<String, ControlValue>,
}

/// What a camera does while nobody watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// It goes on.
    Run,
    /// Its encoder rests, where it is one of ours.
    #[default]
    Rest,
    /// Its device is closed.
    Close,
}

/// `camera.source` and the keys that belong to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A V4L2 camera. `device` is `None` for "the first one found"; without size or rate, the camera's own.
    V4l2 {
        device: Option<PathBuf>,
        format: CameraFormat,
        size: Option<(NonZeroU32, NonZeroU32)>,
        fps: Option<NonZeroU32>,
        encoding: Encoding,
    },
    /// A camera that only libcamera can run, through its program `rpicam-vid`.
    Rpicam(Rpicam),
    /// An Annex B file, replayed in real time and looped. Without `fps`, the file's own timing information or 30.
    File { path: PathBuf, fps: Option<NonZeroU32> },
    /// A moving test card, encoded in software.
    Pattern {
        size: (NonZeroU32, NonZeroU32),
        fps: NonZeroU32,
        gop: Duration,
    },
}

/// What becomes of pictures that come to us raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    pub encoder: EncoderChoice,
    /// From one key frame to the next.
    pub gop: Duration,
    /// Whether the camera's name and the local time are written into the picture.
    pub overlay: bool,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            encoder: EncoderChoice::default(),
            // What a joiner waits at most where key frames cannot be forced.
            gop: Duration::from_secs(2),
            overlay: false,
        }
    }
}

/// `camera.encoder`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// A hardware encoder where there is one, else software.
    #[default]
    Auto,
    M2m,
    Software,
}

/// What `rpicam-vid` is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Rpicam {
    /// The program; `None` for the one in `PATH`.
    pub command: Option<PathBuf>,
    /// Whether it encodes by itself, and cannot be steered.
    pub own_h264: bool,
    pub size: (NonZeroU32, NonZeroU32),
    pub fps: NonZeroU32,
    /// Degrees: 0 or 180.
    pub rotation: u32,
    pub hflip: bool,
    pub vflip: bool,
    /// More arguments, none of which is one of ours.
    pub extra: Vec<String>,
    pub encoding: Encoding,
}

/// `camera.format`: what a V4L2 camera is asked to deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CameraFormat {
    /// H.264 if it has that, else what an encoder takes.
    #[default]
    Auto,
    H264,
    Mjpeg,
    Yuyv,
    Nv12,
    Yuv420,
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    /// `tcp://`, `tls://`, `ws://` or `wss://`, host and port; `None` runs without a broker.
    pub url: Option<BrokerUrl>,
    pub username: Option<String>,
    /// Read from `password_file`, or from the systemd credential `broker-password`.
    pub password: Option<Secret>,
    /// PEM; replaces the system's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM, for brokers that ask for a client certificate.
    pub client_cert_file: Option<PathBuf>,
    /// PEM.
    pub client_key_file: Option<PathBuf>,
    pub keep_alive: Duration,
    /// The longest pause between two tries.
    pub reconnect_max: Duration,
    /// What the page is told to connect to, where that differs from `url`: `ws://` or `wss://`.
    pub page_url: Option<String>,
}

/// A broker's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    pub scheme: BrokerScheme,
    pub host: String,
    pub port: u16,
    /// WebSocket path, beginning with `/`.
    pub path: String,
}

/// How the broker is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerScheme {
    Tcp,
    Tls,
    Ws,
    Wss,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Which local addresses carry media.
    pub listen: Listen,
    /// The UDP port for viewers, the first of as many as there are `threads`; 0 lets the system choose.
    pub udp_port: u16,
    /// The TCP port where viewers may connect, the first of as many; `None`: nowhere.
    pub tcp_port: Option<NonZeroU16>,
    /// Threads among which viewers are shared out.
    pub threads: NonZeroU32,
    /// Whether the page may use direct paths or only a TURN relay.
    pub transport_policy: TransportPolicy,
    /// Where routers forward `udp_port` to this device.
    pub advertise: Vec<Advertised>,
    pub ice_servers: Vec<IceServer>,
}

/// `network.listen`: `"loopback"` (default), `"all"`, or a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    Loopback,
    /// Every address of these interfaces, whenever they come and go.
    All(Interfaces),
    Addresses(Vec<IpAddr>),
}

/// `network.transport_policy`, as WebRTC's `iceTransportPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportPolicy {
    All,
    Relay,
}

/// `[[network.ice_server]]`: a STUN or TURN server that pages are told of, and that the agent uses itself.
#[derive(Clone, Debug, PartialEq)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` URLs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    pub username: Option<String>,
    /// Read from `credential_file`.
    pub credential: Option<Secret>,
    /// Read from `secret_file`: what the server makes and checks passwords with.
    pub shared_secret: Option<Secret>,
    /// The TURN servers among the URLs, in their order, as the agent itself uses them.
    pub turn: Vec<TurnUrl>,
    /// Those that the agent asks how it looks from outside: STUN servers, and TURN servers over UDP, which are that too.
    pub stun: Vec<StunUrl>,
    /// For TLS, from the agent itself; `None`: whom the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// A TURN URL (RFC 7065), taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnUrl {
    /// As it was written.
    pub url: String,
    pub transport: TurnTransport,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// A server that answers STUN requests over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunUrl {
    /// As it was written.
    pub url: String,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// How the agent reaches a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnTransport {
    Udp,
    Tcp,
    Tls,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where the page is served; `None` serves none.
    pub listen: Option<SocketAddr>,
    /// Whether viewers may find the device by HTTP as they do by MQTT. Unless the file says it: without a broker,
    /// and on loopback where the page is told of none.
    pub signaling: bool,
    /// Whether WHEP is open.
    pub whep: bool,
    /// Names by which the page is reached that others could register, in lower case.
    pub hosts: Vec<String>,
    /// Who may read `/metrics` there.
    pub metrics: Readers,
}

/// `http.metrics`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Nobody: there is no such page.
    Nobody,
    /// Programs on this machine.
    Loopback,
    /// Everybody who reaches the page.
    Everybody,
}

/// `[unsigned]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsigned {
    /// Methods that peers may call who have proved nothing, beyond those for watching.
    pub methods: Vec<String>,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Viewers at once.
    pub viewers: NonZeroU32,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `tracing` filter, such as `info` or `peercam=debug`.
    pub filter: String,
}

/// A value that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself: for the wire only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests;
