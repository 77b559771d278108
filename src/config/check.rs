//! What `peercam check` says: in plain words, what will run.

use std::path::Path;

use super::{CameraFormat, Config, EncoderChoice, Encoding, IceServer, Listen, Readers, Source, TransportPolicy, load};

/// Checks the configuration at `path`: the text to print, and whether the agent would start with it.
#[must_use]
pub fn check_report(path: &Path) -> (String, bool) {
    match load(path) {
        Ok(config) => (format!("{} is good.\n\n{}", path.display(), describe(&config)), true),
        Err(error) => (
            format!("{error}\n\nThe configuration is not good. An agent that runs keeps the last good one.\n"),
            false,
        ),
    }
}

fn describe(config: &Config) -> String {
    let mut lines = vec![(
        "device",
        format!("{}, state in {}", config.device.name, config.device.state_dir.display()),
    )];
    for camera in &config.cameras {
        lines.push(("camera", format!("{}: {}", camera.name, source(camera))));
    }
    let broker = &config.broker;
    lines.push((
        "broker",
        match &broker.url {
            None => "off; viewers cannot find this device over MQTT".to_owned(),
            Some(url) => {
                let who = match (&broker.username, &broker.password) {
                    (None, _) => "without a user name".to_owned(),
                    (Some(name), None) => format!("as {name}, without a password"),
                    (Some(name), Some(_)) => format!("as {name}, with a password"),
                };
                let retry = broker.reconnect_max.as_secs();
                format!("{url}, {who}; when it is gone, a try every {retry} s at the latest")
            }
        },
    ));
    let network = &config.network;
    let port = match (network.udp_port, network.threads.get()) {
        (0, 1) => "a UDP port of the system's choice".to_owned(),
        (0, threads) => format!("{threads} UDP ports of the system's choice"),
        (port, 1) => format!("UDP port {port}"),
        (port, threads) => format!("UDP ports {port} to {}", u32::from(port) + threads - 1),
    };
    let listen = match &network.listen {
        Listen::Loopback => format!("{port} on loopback: only browsers on this machine, until network.listen says otherwise"),
        Listen::All(interfaces) => format!("{port} on {interfaces}"),
        Listen::Addresses(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{port} on {}", addresses.join(", "))
        }
    };
    lines.push(("media", listen));
    if let Some(port) = network.tcp_port {
        let ports = match network.threads.get() {
            1 => format!("TCP port {port}"),
            threads => format!("TCP ports {port} to {}", u32::from(port.get()) + threads - 1),
        };
        lines.push(("without UDP", format!("{ports}, where a viewer's network lets no UDP through")));
    }
    if !network.advertise.is_empty() {
        let outside = network
            .advertise
            .iter()
            .filter_map(|address| address.for_thread(0, network.udp_port));
        let outside: Vec<String> = outside.map(|address| address.to_string()).collect();
        lines.push(("forwarded", format!("by a router, from UDP {}", outside.join(", "))));
    }
    for server in &network.ice_servers {
        lines.push(("ICE server", ice_server(server, &network.listen)));
    }
    match network.transport_policy {
        TransportPolicy::All => {}
        TransportPolicy::Relay => lines.push(("path", "through the TURN server only".to_owned())),
    }
    lines.push((
        "page",
        match config.http.listen {
            None => "off".to_owned(),
            Some(listen) => match broker.url.as_ref().and(broker.page_url.as_ref()) {
                Some(url) => format!("http://{listen}/, which connects to the broker at {url}"),
                None if config.http.signaling => format!("http://{listen}/, which speaks to this device by HTTP"),
                None => format!("http://{listen}/; neither broker.page_url nor http.signaling lets it find this device, so the link must"),
            },
        },
    ));
    if let (Some(listen), true) = (config.http.listen, config.http.whep) {
        lines.push(("WHEP", format!("http://{listen}/whep, for players of others, without a password")));
    }
    if config.http.listen.is_some() {
        let readers = match config.http.metrics {
            Readers::Nobody => "off",
            Readers::Loopback => "/metrics beside the page, for programs on this machine",
            Readers::Everybody => "/metrics beside the page, for everybody who reaches it",
        };
        lines.push(("metrics", readers.to_owned()));
    }
    lines.push(("viewers", format!("at most {}", config.limits.viewers)));
    lines.push(("log", config.log.filter.clone()));

    let mut text: String = lines.iter().map(|(what, how)| format!("  {what:<11}{how}\n")).collect();
    for warning in &config.warnings {
        text.push_str(&format!("\nWarning: {warning}.\n"));
    }
    text
}

fn ice_server(server: &IceServer, listen: &Listen) -> String {
    let urls = server.urls.join(", ");
    let who = match (&server.shared_secret, &server.username) {
        (Some(_), _) => ", with a password for each viewer",
        (None, Some(name)) => &format!(", as {name}"),
        (None, None) => "",
    };
    let used = match (server.turn.is_empty(), listen) {
        (true, _) => "for viewers",
        (false, Listen::Loopback) => "for viewers; for this device only where it is on this machine, until network.listen says otherwise",
        (false, Listen::All(_) | Listen::Addresses(_)) => "for viewers and this device",
    };
    format!("{urls}{who}, {used}")
}

fn source(camera: &super::Camera) -> String {
    let at = |size: Option<_>, fps: Option<std::num::NonZeroU32>| {
        let size = size.map(|(width, height)| format!(", {width}x{height}")).unwrap_or_default();
        let fps = fps.map(|fps| format!(", {fps} pictures a second")).unwrap_or_default();
        format!("{size}{fps}")
    };
    let bitrate = camera.bitrate;
    match &camera.source {
        Source::V4l2 {
            device,
            format,
            size,
            fps,
            encoding,
        } => {
            let device = device
                .as_ref()
                .map_or("the first camera found".into(), |device| device.display().to_string());
            let format = match format {
                CameraFormat::Auto => String::new(),
                format => format!(", {}", format.name()),
            };
            format!("{device}{format}{}, {bitrate}{}", at(*size, *fps), encoded(encoding))
        }
        Source::Rpicam(rpicam) => {
            let command = rpicam
                .command
                .as_ref()
                .map_or("rpicam-vid".into(), |command| command.display().to_string());
            let how = if rpicam.own_h264 {
                ", its own H.264".to_owned()
            } else {
                encoded(&rpicam.encoding)
            };
            format!("{command}{}, {bitrate}{how}", at(Some(rpicam.size), Some(rpicam.fps)))
        }
        Source::File { path, fps } => {
            let missing = match std::fs::metadata(path) {
                Ok(_) => String::new(),
                Err(error) => format!(" (no picture until it is there: {error})"),
            };
            format!("the file {}, again and again{}{missing}", path.display(), at(None, *fps))
        }
        Source::Pattern { size, fps, gop } => {
            let gop = gop.as_secs_f32();
            format!("a test card{}, a key frame every {gop} s, {bitrate}", at(Some(*size), Some(*fps)))
        }
    }
}

fn encoded(encoding: &Encoding) -> String {
    let encoder = match encoding.encoder {
        EncoderChoice::Auto => "",
        EncoderChoice::M2m => ", by a hardware encoder",
        EncoderChoice::Software => ", encoded in software",
    };
    let overlay = if encoding.overlay {
        ", with name and time in the picture"
    } else {
        ""
    };
    format!("{encoder}{overlay}")
}
