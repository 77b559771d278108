//! The file as it is written: one struct a table, one field a key. What is left out is `None`.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::advertise::Advertised;
use super::camera_value::{Argument, ControlSetting, Gop, Size, SourceKind, StreamName};
use super::interfaces::Pattern;
use super::url::{BrokerChoice, IceUrl, PageUrl};
use super::value::{DeviceName, HostName, LogFilter, PageAddress, Switch, Text, UnsignedMethod, UserName, Whole};
use super::{CameraFormat, EncoderChoice, Idle, Listen, Readers, TransportPolicy};

/// A path, and where it stands.
pub(super) type FilePath = Option<Spanned<Text<PathBuf>>>;

/// Names of network interfaces, and where they stand.
pub(super) type Patterns = Option<Spanned<Vec<Text<Pattern>>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub device: DeviceTable,
    pub camera: Option<Spanned<Vec<Spanned<CameraTable>>>>,
    pub broker: BrokerTable,
    pub network: NetworkTable,
    pub http: HttpTable,
    pub unsigned: UnsignedTable,
    pub limits: LimitsTable,
    pub log: LogTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [device]")]
pub(super) struct DeviceTable {
    pub name: Option<Text<DeviceName>>,
    pub state_dir: Option<Spanned<Text<PathBuf>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [[camera]]")]
pub(super) struct CameraTable {
    pub name: Option<Spanned<Text<StreamName>>>,
    pub source: Option<Text<SourceKind>>,
    pub device: FilePath,
    pub format: Option<Spanned<Text<CameraFormat>>>,
    pub path: FilePath,
    pub size: Option<Spanned<Text<Size>>>,
    pub fps: Option<Whole<1, 240>>,
    pub gop_secs: Option<Spanned<Gop>>,
    pub encoder: Option<Spanned<Text<EncoderChoice>>>,
    pub overlay: Option<Spanned<Switch>>,
    pub command: FilePath,
    pub rotation: Option<Spanned<Whole<0, 180>>>,
    pub hflip: Option<Spanned<Switch>>,
    pub vflip: Option<Spanned<Switch>>,
    pub extra: Option<Spanned<Vec<Spanned<Text<Argument>>>>>,
    pub controls: Option<Spanned<Vec<Text<ControlSetting>>>>,
    /// Below 150 kbit/s hardware encoders stall (raspberrypi/rpicam-apps#664).
    pub bitrate_kbps: Option<Whole<150, 50_000>>,
    pub low: Option<Spanned<Switch>>,
    pub low_kbps: Option<Spanned<Whole<150, 50_000>>>,
    pub idle: Option<Text<Idle>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [broker]")]
pub(super) struct BrokerTable {
    pub url: Option<Text<BrokerChoice>>,
    pub username: Option<Text<UserName>>,
    pub password_file: FilePath,
    pub ca_file: FilePath,
    pub client_cert_file: FilePath,
    pub client_key_file: FilePath,
    pub keep_alive_secs: Option<Whole<5, 3600>>,
    pub reconnect_max_secs: Option<Whole<1, 3600>>,
    pub page_url: Option<Text<PageUrl>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [network]")]
pub(super) struct NetworkTable {
    pub listen: Option<Listen>,
    pub interfaces: Patterns,
    pub exclude_interfaces: Patterns,
    pub udp_port: Option<Whole<0, 65_535>>,
    pub tcp_port: Option<Spanned<Whole<1, 65_535>>>,
    pub threads: Option<Spanned<Whole<1, 16>>>,
    pub advertise: Option<Spanned<Vec<Text<Advertised>>>>,
    pub transport_policy: Option<Spanned<Text<TransportPolicy>>>,
    pub ice_server: Vec<Spanned<IceServerTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section that begins with [[network.ice_server]]")]
pub(super) struct IceServerTable {
    pub urls: Spanned<Vec<Text<IceUrl>>>,
    pub username: Option<Spanned<Text<UserName>>>,
    pub credential_file: FilePath,
    pub secret_file: FilePath,
    pub ca_file: FilePath,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [http]")]
pub(super) struct HttpTable {
    pub listen: Option<Text<PageAddress>>,
    pub signaling: Option<Switch>,
    pub whep: Option<Switch>,
    pub hosts: Option<Vec<Text<HostName>>>,
    pub metrics: Option<Text<Readers>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [unsigned]")]
pub(super) struct UnsignedTable {
    pub methods: Vec<Text<UnsignedMethod>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [limits]")]
pub(super) struct LimitsTable {
    pub viewers: Option<Whole<1, 1000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section that begins with [log]")]
pub(super) struct LogTable {
    pub filter: Option<Text<LogFilter>>,
}
