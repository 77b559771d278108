//! The parts of a device that answer, as they ship; only its camera is not there, though it says what it would show.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use peercam::config::{self, Config};
use peercam::control::{Announcement, Dispatcher};
use peercam::hub::Stream;
use peercam::media::Bitrate;
use peercam::net::{self, Drivers, Notice};
use peercam::protocol::{DeviceInfo, IceServer, Status, StreamState, StreamStatus, TransportPolicy, VERSION};
use tokio::sync::{mpsc, watch};

/// More than any input can open before the device is asked again.
const VIEWERS: u32 = 1_000;

pub struct Device {
    pub config: Config,
    pub streams: Vec<Stream>,
    pub drivers: Drivers,
    pub dispatcher: Arc<Dispatcher>,
    pub status: watch::Sender<Status>,
    pub notices: mpsc::Receiver<Notice>,
}

impl Device {
    /// Its name is [`ID`]; `text` is what its configuration says beside its limits and its media's address.
    pub fn start(text: &str) -> Self {
        let text = format!("limits.viewers = {VIEWERS}\nnetwork.udp_port = 0\n{text}");
        let config = config::parse(&text, Path::new("/nonexistent/peercam.toml")).expect("the configuration is good");
        let stream = Stream::new("camera", true);
        stream.high.set_format(super::FORMAT, true);
        stream.low().expect("a low rung").offer(Some((320, 180)));
        let offered = net::Offered {
            stream: stream.clone(),
            bitrate: Bitrate::kbps(2_500),
            low_bitrate: Bitrate::kbps(500),
        };
        let streams = vec![stream];
        let (notice, notices) = mpsc::channel(256);
        let context = net::Context {
            network: config.network.clone(),
            certificate: super::certificate().clone(),
            streams: vec![offered],
            max_viewers: VIEWERS,
            notices: notice,
        };
        let (drivers, _threads) = net::spawn(context).expect("a UDP port on loopback");
        let info = DeviceInfo {
            id: ID.to_owned(),
            name: "Porch".to_owned(),
            software: "0".to_owned(),
        };
        let announcement = Announcement {
            unsigned: Vec::new(),
            device: info.clone(),
            ice_servers: Box::new(|| {
                vec![IceServer {
                    urls: vec!["turn:turn.example:3478?transport=udp".to_owned()],
                    username: Some("a\"b".to_owned()),
                    credential: Some("c\\d".to_owned()),
                }]
            }),
            transport_policy: TransportPolicy::All,
            max_viewers: VIEWERS,
        };
        let dispatcher = Dispatcher::new(announcement, streams.clone(), drivers.clone(), Instant::now()).expect("random numbers");
        let live = StreamStatus {
            name: "camera".to_owned(),
            state: StreamState::Live,
            reason: None,
        };
        let (status, _) = watch::channel(Status {
            online: true,
            boot: "0123456789abcdef".to_owned(),
            seq: 0,
            version: VERSION,
            name: info.name,
            software: info.software,
            streams: vec![live],
            config_error: None,
        });
        Self {
            config,
            streams,
            drivers,
            dispatcher: Arc::new(dispatcher),
            status,
            notices,
        }
    }
}

/// A device's id.
pub const ID: &str = "front-door";
