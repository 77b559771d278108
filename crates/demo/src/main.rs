//! The agent with an MQTT broker inside: the product, tried on one machine with one command.

mod args;
mod broker;
mod qr;

use std::fmt::Display;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use peercam::agent::Agent;
use peercam::config::{self, BrokerUrl, CameraFormat, Config, Encoding, Interfaces, Listen, Source};
use peercam::protocol::{DeviceId, Status, StreamState};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Addresses, Args};
use crate::broker::Broker;

/// The agent's own drain takes at most this long; with the broker's farewell it leaves room within two seconds.
const STOP_LIMIT: Duration = Duration::from_millis(1500);
/// After this long without a picture somebody should be told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    // The broker warns of every page that is closed.
    peercam::telemetry::init("warn,mqtt5=error");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    let result = runtime.block_on(async {
        let stopped = stop_signal()?;
        tokio::pin!(stopped);
        let mut demo = tokio::select! {
            demo = Demo::start(args) => demo?,
            () = &mut stopped => return Ok(()),
        };
        let result = tokio::select! {
            () = &mut stopped => Ok(()),
            part = demo.agent.failed() => Err(anyhow!("{part} ended unexpectedly; PEERCAM_LOG=debug tells more")),
        };
        say("stopping");
        demo.stop().await;
        result
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Completes when somebody wants the demo to end: Ctrl-C, `kill`, or a closed terminal.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listening for signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Broker and agent, both running.
struct Demo {
    broker: Broker,
    agent: Agent,
}

impl Demo {
    /// Starts both, and says where to look once there is something to see.
    async fn start(args: Args) -> anyhow::Result<Self> {
        let addresses = Addresses::choose(&args)?;
        let state = args::state_dir(args.state.clone(), |name| std::env::var_os(name))?;
        std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
        let host = args::reachable(addresses.http.ip())?;
        let broker_host = args::reachable(addresses.ws.ip())?;

        let mut broker = Broker::start(addresses.mqtt, addresses.ws, broker::secret_path(&state)?).await?;
        let page_url = format!("ws://{}{}", SocketAddr::new(broker_host, broker.ws().port()), broker.path());
        let agent = Agent::start(config(&args, &addresses, &state, broker.mqtt(), page_url.clone())?).await?;
        let page = agent.page().ok_or_else(|| anyhow!("the agent serves no page"))?;
        let viewer = viewer_url(SocketAddr::new(host, page.port()), agent.device(), &page_url);

        if !addresses.local_only() {
            say("Everybody in this network who has the link below can watch: peercam has no passwords yet.");
        }
        let status = ready(&mut broker, agent.device()).await?;
        if let Some(file) = &args.file {
            // A camera may be plugged in later; a file that cannot be played now will not be.
            playable(file, &status)?;
        }
        say(qr::text(&viewer)?);
        // Whoever asked for the link may have gone with it (`| head -n1`).
        let _ = writeln!(std::io::stdout(), "viewer: {viewer}");
        for stream in &status.streams {
            if let Some(reason) = &stream.reason {
                say(format_args!("No picture yet: {reason}"));
            }
        }
        say("Ctrl-C stops it.");
        Ok(Self { broker, agent })
    }

    /// Ends both, the agent first so that it can say goodbye.
    async fn stop(self) {
        if tokio::time::timeout(STOP_LIMIT, self.agent.stop()).await.is_err() {
            tracing::warn!("the agent did not stop in time and is left behind");
        }
        self.broker.stop().await;
    }
}

/// Waits until the first picture is there, or the camera's trouble is known.
async fn ready(broker: &mut Broker, device: &DeviceId) -> anyhow::Result<Status> {
    let known = |status: &Status| status.online && status.streams.iter().all(|stream| stream.state != StreamState::Starting);
    match tokio::time::timeout(PATIENCE, broker.status(device, known)).await {
        Ok(status) => status,
        Err(_) => {
            say("still waiting for the camera's first picture");
            broker.status(device, known).await
        }
    }
}

/// # Errors
/// The camera that plays `file` shows nothing, with its reason.
fn playable(file: &Path, status: &Status) -> anyhow::Result<()> {
    match status.streams.iter().find_map(|stream| stream.reason.as_ref()) {
        Some(reason) => Err(anyhow!("--file {}: {reason}", file.display())),
        None => Ok(()),
    }
}

/// To standard error, where a reader that is gone is no reason to end, as it would be with `eprintln!`.
fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What the agent is to do: the product's defaults, and what the command line says.
fn config(args: &Args, addresses: &Addresses, state: &Path, mqtt: SocketAddr, page_url: String) -> anyhow::Result<Config> {
    let mut config = config::parse("[[camera]]\nsource = \"pattern\"\n", Path::new("the demo's own configuration"))?;
    "peercam demo".clone_into(&mut config.device.name);
    state.clone_into(&mut config.device.state_dir);
    for camera in &mut config.cameras {
        if let Some(device) = &args.camera {
            camera.source = Source::V4l2 {
                device: Some(device.clone()),
                format: CameraFormat::Auto,
                size: None,
                fps: None,
                encoding: Encoding::default(),
            };
        } else if let Some(path) = &args.file {
            camera.source = Source::File {
                path: path.clone(),
                fps: None,
            };
        }
    }
    // A broker on all addresses is reached by the agent over loopback.
    let broker = if mqtt.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        mqtt.ip()
    };
    let broker = format!("tcp://{}", SocketAddr::new(broker, mqtt.port()));
    config.broker.url = Some(BrokerUrl::parse(&broker).map_err(|error| anyhow!("{broker}: {error}"))?);
    config.broker.page_url = Some(page_url);
    // The page has a broker, under a path that nobody guesses; HTTP would be a second way in.
    config.http.signaling = false;
    config.network.listen = if addresses.local_only() {
        Listen::Loopback
    } else {
        Listen::All(Interfaces::default())
    };
    // Two demos, or a demo beside the product, do not meet.
    config.network.udp_port = 0;
    config.http.listen = Some(addresses.http);
    Ok(config)
}

/// The link that shows the camera: the page, and in the fragment, which no server sees, which device on which broker.
fn viewer_url(page: SocketAddr, device: &DeviceId, broker: &str) -> String {
    format!("http://{page}/#device={device}&broker={}", escape(broker))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_names_device_and_broker() {
        let device = DeviceId::parse("cam-1").expect("a name");
        let page = "[fd00::1]:8080".parse().expect("an address");
        assert_eq!(
            viewer_url(page, &device, "ws://[fd00::1]:9001/mqtt"),
            "http://[fd00::1]:8080/#device=cam-1&broker=ws%3A%2F%2F%5Bfd00%3A%3A1%5D%3A9001%2Fmqtt"
        );
    }
}
