//! From what the file writes to what the inside trusts: defaults, secrets, and what one key demands of another.

use std::fs;
use std::io::Read;
use std::num::NonZeroU32;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::error::{Fault, line_of};
use super::file::{BrokerTable, CameraTable, File, FilePath, HttpTable, IceServerTable, NetworkTable};
use super::url::BrokerChoice;
use super::value::{ControlSetting, Gop, Size, SourceKind, Switch, Text, Whole};
use super::{
    Broker, BrokerScheme, BrokerUrl, Camera, CameraFormat, Config, Device, EncoderChoice, Encoding, Environment, Http, IceServer, Idle,
    Limits, Listen, Log, Network, Readers, Rpicam, Secret, Source, TransportPolicy, Unsigned, rpicam,
};
use crate::media::Bitrate;

/// A password is a line; anything larger is the wrong file.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// Enough for a clear 720p30 picture; a phone's uplink and the Pi's encoder carry it with room to spare.
const DEFAULT_BITRATE: Bitrate = Bitrate::kbps(2_500);
/// Fixed, so that one rule in a firewall serves it; next to RTSP's 8554, which cameras already use.
const DEFAULT_UDP_PORT: u16 = 8555;
/// A dead link is noticed after one and a half of these.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Quick for one household; a fleet sets 60, so that its broker survives coming back.
const DEFAULT_RECONNECT_MAX: Duration = Duration::from_secs(4);

pub(super) struct Resolver<'a> {
    pub text: &'a str,
    /// The configuration file's folder.
    pub folder: &'a Path,
    pub environment: &'a Environment,
    warnings: Vec<String>,
}

impl<'a> Resolver<'a> {
    pub fn new(text: &'a str, folder: &'a Path, environment: &'a Environment) -> Self {
        Self {
            text,
            folder,
            environment,
            warnings: Vec::new(),
        }
    }

    pub fn resolve(mut self, file: File) -> Result<Config, Fault> {
        let device = Device {
            name: file.device.name.map_or_else(|| self.environment.device_name(), |Text(name)| name.0),
            state_dir: match file.device.state_dir {
                Some(path) => self.absolute(&path)?,
                None => self.environment.state_dir(),
            },
        };
        let cameras = self.cameras(file.camera)?;
        let broker = self.broker(file.broker)?;
        let network = self.network(file.network)?;
        let http = http(file.http, &broker);
        let mut config = Config {
            device,
            cameras,
            broker,
            network,
            http,
            unsigned: Unsigned {
                methods: file.unsigned.methods.into_iter().map(|Text(method)| method.0).collect(),
            },
            limits: Limits {
                viewers: file.limits.viewers.map_or(number(20), Whole::non_zero),
            },
            log: Log {
                filter: file.log.filter.map_or_else(|| "info".to_owned(), |Text(filter)| filter.0),
            },
            warnings: self.warnings,
        };
        let open = open_doors(&config);
        config.warnings.extend(open);
        Ok(config)
    }

    fn cameras(&self, tables: Option<Spanned<Vec<Spanned<CameraTable>>>>) -> Result<Vec<Camera>, Fault> {
        let Some(tables) = tables else {
            return Ok(vec![self.camera(CameraTable::default(), 0..0)?]);
        };
        if tables.get_ref().is_empty() {
            return Err(Fault::new(
                tables.span(),
                "the list is empty; leave the key out, or describe a camera with [[camera]]",
            ));
        }
        let mut cameras: Vec<(Camera, Range<usize>)> = Vec::new();
        for table in tables.into_inner() {
            let header = header(table.span(), self.text);
            let name_span = table.get_ref().name.as_ref().map_or(header.clone(), Spanned::span);
            let device_span = table.get_ref().device.as_ref().map_or(header.clone(), Spanned::span);
            let camera = self.camera(table.into_inner(), header.clone())?;
            for (other, other_span) in &cameras {
                let line = line_of(other_span.start, self.text);
                if other.name == camera.name {
                    let what = format!(
                        "two cameras are named `{}`, the other one at line {line}; give each its own `name`",
                        camera.name
                    );
                    return Err(Fault::new(name_span, what));
                }
                let (Source::V4l2 { device: a, .. }, Source::V4l2 { device: b, .. }) = (&other.source, &camera.source) else {
                    continue;
                };
                if a.is_none() || b.is_none() {
                    let what = format!("with two v4l2 cameras, the other one at line {line}, each needs its own `device`");
                    return Err(Fault::new(if b.is_none() { header } else { other_span.clone() }, what));
                }
                if a == b {
                    let what = format!("the camera at line {line} has this device already; a device serves one camera");
                    return Err(Fault::new(device_span, what));
                }
            }
            cameras.push((camera, header));
        }
        Ok(cameras.into_iter().map(|(camera, _)| camera).collect())
    }

    fn camera(&self, table: CameraTable, header: Range<usize>) -> Result<Camera, Fault> {
        let kind = table.source.as_ref().map_or_else(SourceKind::default, |Text(kind)| *kind);
        let foreign = |key: &str, span: Option<Range<usize>>, owner: &str| match span {
            Some(span) => Err(Fault::new(
                span,
                format!("`{key}` belongs to source = {owner}; this camera has source = \"{}\"", kind.name()),
            )),
            None => Ok(()),
        };
        let camera = matches!(kind, SourceKind::V4l2 | SourceKind::Rpicam);
        if kind != SourceKind::V4l2 {
            foreign("device", table.device.as_ref().map(Spanned::span), "\"v4l2\"")?;
            foreign("controls", table.controls.as_ref().map(Spanned::span), "\"v4l2\"")?;
        }
        if kind != SourceKind::Rpicam {
            foreign("command", table.command.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("rotation", table.rotation.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("hflip", table.hflip.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("vflip", table.vflip.as_ref().map(Spanned::span), "\"rpicam\"")?;
            foreign("extra", table.extra.as_ref().map(Spanned::span), "\"rpicam\"")?;
        }
        if !camera {
            foreign("format", table.format.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
            foreign("encoder", table.encoder.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
            foreign("overlay", table.overlay.as_ref().map(Spanned::span), "\"v4l2\" or \"rpicam\"")?;
        }
        if kind != SourceKind::File {
            foreign("path", table.path.as_ref().map(Spanned::span), "\"file\"")?;
        } else {
            let owners = "\"v4l2\", \"rpicam\" or \"pattern\"";
            foreign("gop_secs", table.gop_secs.as_ref().map(Spanned::span), owners)?;
            foreign("size", table.size.as_ref().map(Spanned::span), owners)?;
        }
        let gop = table.gop_secs.as_ref().map(|gop| {
            let Gop(gop) = *gop.get_ref();
            gop
        });
        let encoding = Encoding {
            encoder: table
                .encoder
                .as_ref()
                .map_or_else(EncoderChoice::default, |choice| choice.get_ref().0),
            gop: gop.unwrap_or(Encoding::default().gop),
            overlay: table.overlay.as_ref().is_some_and(|overlay| overlay.get_ref().0),
        };
        let format = table
            .format
            .as_ref()
            .map_or_else(CameraFormat::default, |format| format.get_ref().0);
        if let (Some(overlay), true, CameraFormat::H264) = (&table.overlay, encoding.overlay, format) {
            return Err(Fault::new(
                overlay.span(),
                "nothing can be written into pictures that come as H.264; choose another `format`, or leave `overlay` out",
            ));
        }
        let size = table.size.as_ref().map(|size| {
            let Text(Size(width, height)) = size.get_ref();
            (*width, *height)
        });
        let fps = table.fps.map(Whole::non_zero);
        let source = match kind {
            SourceKind::V4l2 => Source::V4l2 {
                device: match table.device {
                    Some(device) if !device.get_ref().0.is_absolute() => {
                        return Err(Fault::new(
                            device.span(),
                            "a device is written with its whole path, such as \"/dev/video0\"",
                        ));
                    }
                    device => device.map(|device| device.into_inner().0),
                },
                format,
                size,
                fps,
                encoding,
            },
            SourceKind::Rpicam => Source::Rpicam(Self::rpicam(&table, encoding)?),
            SourceKind::File => {
                let Some(path) = &table.path else {
                    return Err(Fault::new(header, "a camera of source = \"file\" needs the key `path`"));
                };
                Source::File {
                    path: self.readable(path)?,
                    fps,
                }
            }
            SourceKind::Pattern => Source::Pattern {
                size: size.unwrap_or((number(1280), number(720))),
                fps: fps.unwrap_or(number(30)),
                gop: gop.unwrap_or(Duration::from_secs(4)),
            },
        };
        Ok(Camera {
            name: table.name.map_or_else(|| "camera".to_owned(), |name| name.into_inner().0.0),
            source,
            bitrate: table.bitrate_kbps.map_or(DEFAULT_BITRATE, |rate| Bitrate::kbps(rate.get().into())),
            idle: table.idle.map_or_else(Idle::default, |Text(idle)| idle),
            controls: table
                .controls
                .map(Spanned::into_inner)
                .unwrap_or_default()
                .into_iter()
                .map(|Text(ControlSetting(name, value))| (name, value))
                .collect(),
        })
    }

    fn rpicam(table: &CameraTable, encoding: Encoding) -> Result<Rpicam, Fault> {
        let own_h264 = match table.format.as_ref().map(|format| (format.get_ref().0, format.span())) {
            None | Some((CameraFormat::Auto | CameraFormat::Yuv420, _)) => false,
            Some((CameraFormat::H264, _)) => true,
            Some((CameraFormat::Mjpeg | CameraFormat::Yuyv | CameraFormat::Nv12, span)) => {
                return Err(Fault::new(
                    span,
                    "a camera of source = \"rpicam\" has \"yuv420\" (for an encoder of ours) or \"h264\" (by rpicam-vid itself)",
                ));
            }
        };
        let size = match &table.size {
            Some(size) => {
                let Text(Size(width, height)) = size.get_ref();
                if !own_h264 && !width.get().is_multiple_of(64) {
                    let near = (width.get() / 64).max(1) * 64;
                    let what = format!(
                        "rpicam-vid fills up the rows of raw pictures whose width is no multiple of 64; choose one that is, such as {near}"
                    );
                    return Err(Fault::new(size.span(), what));
                }
                (*width, *height)
            }
            None => (number(1280), number(720)),
        };
        let rotation = match &table.rotation {
            Some(rotation) if ![0, 180].contains(&rotation.get_ref().get()) => {
                return Err(Fault::new(rotation.span(), "the camera can turn its picture by 0 or 180 degrees"));
            }
            Some(rotation) => rotation.get_ref().get(),
            None => 0,
        };
        let command = match &table.command {
            Some(command) if !command.get_ref().0.is_absolute() => {
                return Err(Fault::new(
                    command.span(),
                    "a program is written with its whole path, such as \"/usr/bin/rpicam-vid\"",
                ));
            }
            command => command.as_ref().map(|command| command.get_ref().0.clone()),
        };
        let on = |switch: &Option<Spanned<Switch>>| switch.as_ref().is_some_and(|switch| switch.get_ref().0);
        Ok(Rpicam {
            command,
            own_h264,
            size,
            fps: table.fps.as_ref().map_or(number(30), |fps| fps.non_zero()),
            rotation,
            hflip: on(&table.hflip),
            vflip: on(&table.vflip),
            extra: table
                .extra
                .as_ref()
                .map_or_else(|| Ok(Vec::new()), |extra| rpicam::extra(extra.get_ref()))?,
            encoding,
        })
    }

    fn broker(&mut self, table: BrokerTable) -> Result<Broker, Fault> {
        let local = BrokerUrl {
            scheme: BrokerScheme::Tcp,
            host: "127.0.0.1".to_owned(),
            port: BrokerScheme::Tcp.default_port(),
            path: "/".to_owned(),
        };
        let url = table.url.map_or(Some(local), |Text(BrokerChoice(url))| url);
        let username = table.username.map(|Text(name)| name.0);
        let password = match &table.password_file {
            Some(file) if username.is_none() => {
                return Err(Fault::new(
                    file.span(),
                    "a password without a user name; add `username` to [broker]",
                ));
            }
            Some(file) => Some(self.secret_file(file)?),
            None => self.credential("broker-password", username.is_some())?,
        };
        let cert = table.client_cert_file.as_ref();
        let key = table.client_key_file.as_ref();
        for (one, other, missing) in [(cert, key, "client_key_file"), (key, cert, "client_cert_file")] {
            if let (Some(one), None) = (one, other) {
                return Err(Fault::new(
                    one.span(),
                    format!("a client certificate and its key belong together; add `{missing}`"),
                ));
            }
        }
        for (name, file) in [("ca_file", &table.ca_file), ("client_cert_file", &table.client_cert_file)] {
            let Some(file) = file else { continue };
            if !url.as_ref().is_some_and(|url| url.scheme.is_encrypted()) {
                let line = line_of(file.span().start, self.text);
                self.warnings.push(format!(
                    "line {line}: broker.{name} is not used, because broker.url is neither tls:// nor wss://"
                ));
            }
        }
        let file = |path: &FilePath| path.as_ref().map(|path| self.readable(path)).transpose();
        let (ca_file, client_cert_file, client_key_file) =
            (file(&table.ca_file)?, file(&table.client_cert_file)?, file(&table.client_key_file)?);
        if let (Some(path), Some(written)) = (&client_key_file, &table.client_key_file) {
            self.warn_if_exposed(path, Some(written.span()));
        }
        Ok(Broker {
            url,
            username,
            password,
            ca_file,
            client_cert_file,
            client_key_file,
            keep_alive: table.keep_alive_secs.map_or(DEFAULT_KEEP_ALIVE, Whole::seconds),
            reconnect_max: table.reconnect_max_secs.map_or(DEFAULT_RECONNECT_MAX, Whole::seconds),
            page_url: table.page_url.map(|Text(url)| url.0),
        })
    }

    fn network(&mut self, table: NetworkTable) -> Result<Network, Fault> {
        let relays = table
            .ice_server
            .iter()
            .any(|server| server.get_ref().urls.get_ref().iter().any(|Text(url)| url.relays));
        let transport_policy = match table.transport_policy {
            Some(policy) if policy.get_ref().0 == TransportPolicy::Relay && !relays => {
                let what = "\"relay\" shows a picture only through a TURN server; add a [[network.ice_server]] with a turn: or turns: URL";
                return Err(Fault::new(policy.span(), what));
            }
            policy => policy.map_or(TransportPolicy::All, |policy| policy.into_inner().0),
        };
        let mut ice_servers = Vec::new();
        for server in table.ice_server {
            let header = header(server.span(), self.text);
            ice_servers.push(self.ice_server(server.into_inner(), header)?);
        }
        // The parser's bounds are those of a port.
        let udp_port = table
            .udp_port
            .and_then(|port| u16::try_from(port.get()).ok())
            .unwrap_or(DEFAULT_UDP_PORT);
        let threads = table.threads.as_ref().map_or(number(1), |threads| threads.get_ref().non_zero());
        if let Some(written) = &table.threads
            && u32::from(udp_port) + threads.get() > 65_536
        {
            let sentence = format!("each thread has a UDP port of its own, and there are not {threads} from {udp_port} on");
            return Err(Fault::new(written.span(), sentence));
        }
        Ok(Network {
            listen: table.listen.unwrap_or(Listen::Loopback),
            udp_port,
            threads,
            transport_policy,
            ice_servers,
        })
    }

    fn ice_server(&mut self, table: IceServerTable, header: Range<usize>) -> Result<IceServer, Fault> {
        if table.urls.get_ref().is_empty() {
            return Err(Fault::new(
                table.urls.span(),
                "the list is empty; write at least one URL such as \"stun:stun.example:3478\"",
            ));
        }
        let relays = table.urls.get_ref().iter().any(|Text(url)| url.relays);
        let credential = match (&table.credential_file, &table.username) {
            (Some(file), None) => {
                return Err(Fault::new(
                    file.span(),
                    "a credential without a user name; add `username` to this server",
                ));
            }
            (Some(file), Some(_)) => Some(self.secret_file(file)?),
            (None, Some(_)) if relays => self.credential("turn-credential", true)?,
            (None, _) => None,
        };
        if relays && credential.is_none() {
            let what = "a TURN server needs `username` and `credential_file`: browsers refuse it without";
            return Err(Fault::new(table.username.as_ref().map_or(header, Spanned::span), what));
        }
        Ok(IceServer {
            urls: table.urls.into_inner().into_iter().map(|Text(url)| url.url).collect(),
            username: table.username.map(|name| name.into_inner().0.0),
            credential,
        })
    }

    fn secret_file(&mut self, written: &Spanned<Text<PathBuf>>) -> Result<Secret, Fault> {
        let path = self.folder.join(&written.get_ref().0);
        let secret = read_secret(&path).map_err(|what| Fault::new(written.span(), what))?;
        self.warn_if_exposed(&path, Some(written.span()));
        Ok(secret)
    }

    /// A systemd credential (`LoadCredential=`), which only this service can read.
    fn credential(&mut self, name: &str, used: bool) -> Result<Option<Secret>, Fault> {
        let Some(path) = self.environment.credentials_dir.as_ref().map(|folder| folder.join(name)) else {
            return Ok(None);
        };
        if !path.exists() {
            return Ok(None);
        }
        if !used {
            self.warnings.push(format!(
                "the systemd credential `{name}` is not used, because there is no `username` beside it"
            ));
            return Ok(None);
        }
        // No line of the file speaks of it, so the first one has to do.
        read_secret(&path)
            .map(Some)
            .map_err(|what| Fault::new(0..0, format!("systemd credential `{name}`: {what}")))
    }

    fn warn_if_exposed(&mut self, path: &Path, written: Option<Range<usize>>) {
        let mode = fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o004 != 0 {
            let line = written.map_or(1, |span| line_of(span.start, self.text));
            let path = path.display();
            self.warnings.push(format!(
                "line {line}: every user of this machine can read {path}; run: chmod 600 {path}"
            ));
        }
    }

    fn readable(&self, written: &Spanned<Text<PathBuf>>) -> Result<PathBuf, Fault> {
        let path = self.folder.join(&written.get_ref().0);
        let refuse = |what: String| Err(Fault::new(written.span(), what));
        match fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => refuse(format!("{} is not a file", path.display())),
            Ok(_) => match fs::File::open(&path) {
                Ok(_) => Ok(path),
                Err(error) => refuse(cannot_read(&path, &error)),
            },
            Err(error) => refuse(cannot_read(&path, &error)),
        }
    }

    fn absolute(&self, written: &Spanned<Text<PathBuf>>) -> Result<PathBuf, Fault> {
        let path = &written.get_ref().0;
        if path.is_absolute() {
            return Ok(path.clone());
        }
        Err(Fault::new(
            written.span(),
            "this folder is written with its whole path, such as \"/var/lib/peercam\"",
        ))
    }
}

fn http(table: HttpTable, broker: &Broker) -> Http {
    let listen = table
        .listen
        .map_or_else(|| Some(([127, 0, 0, 1], 8080).into()), |Text(address)| address.0);
    // A broker may ask for passwords: HTTP must not become a way around them.
    let nobody_else = broker.page_url.is_none() && listen.is_some_and(|listen: std::net::SocketAddr| listen.ip().is_loopback());
    let signaling = broker.url.is_none() || nobody_else;
    Http {
        listen,
        signaling: table.signaling.map_or(signaling, |Switch(on)| on),
        whep: table.whep.is_some_and(|Switch(on)| on),
        hosts: table.hosts.unwrap_or_default().into_iter().map(|Text(name)| name.0).collect(),
        metrics: table.metrics.map_or(Readers::Loopback, |Text(readers)| readers),
    }
}

/// What lets others in, said aloud.
fn open_doors(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let listens = match &config.network.listen {
        Listen::Loopback => None,
        Listen::All => Some("\"all\"".to_owned()),
        Listen::Addresses(addresses) if addresses.iter().all(std::net::IpAddr::is_loopback) => None,
        Listen::Addresses(addresses) => Some(format!("{addresses:?}")),
    };
    if let Some(listens) = listens {
        warnings.push(format!(
            "network.listen = {listens} without viewer authentication: everybody on your network who reaches the broker can watch"
        ));
    }
    if let Some(listen) = config.http.listen.filter(|listen| !listen.ip().is_loopback()) {
        let watch = if config.http.signaling {
            ", who can watch, without a broker and without a password"
        } else {
            ""
        };
        let metrics = match config.http.metrics {
            Readers::Everybody => "; with http.metrics = \"all\" they also read when somebody watches",
            Readers::Loopback | Readers::Nobody => "",
        };
        warnings.push(format!(
            "http.listen = \"{listen}\": the page is served unencrypted to everybody who reaches this address{watch}{metrics}"
        ));
        if config.http.whep {
            warnings.push(format!(
                "http.whep = true on {listen}: everybody who reaches this address can watch, and so can any web page that one of them has open"
            ));
        }
    }
    if !config.unsigned.methods.is_empty() {
        warnings.push(format!(
            "unsigned.methods = {:?}: everybody who can watch can do this too, without a password",
            config.unsigned.methods
        ));
    }
    if let Some(url) = &config.broker.url {
        let local = url.host == "localhost" || url.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !url.scheme.is_encrypted() && !local {
            warnings.push(format!(
                "broker.url = \"{url}\" is not encrypted: others on the way can read the signaling and the password"
            ));
        }
    }
    warnings
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    // Asked before opening: to open a named pipe would wait for a writer.
    let meta = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| cannot_read(path, &error))?;
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| cannot_read(path, &error))?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("{shown} is larger than 64 KiB; a password is one line"));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(format!("{shown} is empty; write the password into it, on one line"));
    }
    if secret.contains(['\n', '\0']) {
        return Err(format!("{shown} holds more than one line; a password is one line"));
    }
    Ok(Secret::new(secret.to_owned()))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file {shown}; a path without a leading / starts at this file's folder"),
        std::io::ErrorKind::PermissionDenied => format!("no permission to read {shown}; let the user that runs peercam read it"),
        std::io::ErrorKind::InvalidData => format!("{shown} is not text (UTF-8)"),
        _ => format!("cannot read {shown}: {error}"),
    }
}

/// The first line of a section: a caret under all of it would say nothing.
fn header(span: Range<usize>, text: &str) -> Range<usize> {
    let end = text
        .get(span.clone())
        .and_then(|part| part.find('\n'))
        .map_or(span.end, |end| span.start + end);
    span.start..end
}

const fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a constant above zero")
}
