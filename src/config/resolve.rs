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
use super::file::{BrokerTable, File, FilePath, HttpTable};
use super::url::BrokerChoice;
use super::value::{Switch, Text, Whole};
use super::{Broker, BrokerScheme, BrokerUrl, Config, Device, Environment, Http, Limits, Listen, Log, Readers, Secret, Unsigned};

/// A password is a line; anything larger is the wrong file.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// A dead link is noticed after one and a half of these.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Quick for one household; a fleet sets 60, so that its broker survives coming back.
const DEFAULT_RECONNECT_MAX: Duration = Duration::from_secs(4);

pub(super) struct Resolver<'a> {
    pub text: &'a str,
    /// The configuration file's folder.
    pub folder: &'a Path,
    pub environment: &'a Environment,
    pub(super) warnings: Vec<String>,
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

    pub(super) fn secret_file(&mut self, written: &Spanned<Text<PathBuf>>) -> Result<Secret, Fault> {
        let path = self.folder.join(&written.get_ref().0);
        let secret = read_secret(&path).map_err(|what| Fault::new(written.span(), what))?;
        self.warn_if_exposed(&path, Some(written.span()));
        Ok(secret)
    }

    /// A systemd credential (`LoadCredential=`), which only this service can read.
    pub(super) fn credential(&mut self, name: &str, used: bool) -> Result<Option<Secret>, Fault> {
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

    pub(super) fn readable(&self, written: &Spanned<Text<PathBuf>>) -> Result<PathBuf, Fault> {
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
        Listen::All(_) => Some("\"all\"".to_owned()),
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
pub(super) fn header(span: Range<usize>, text: &str) -> Range<usize> {
    let end = text
        .get(span.clone())
        .and_then(|part| part.find('\n'))
        .map_or(span.end, |end| span.start + end);
    span.start..end
}

/// A constant that is not zero.
pub(super) const fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a constant above zero")
}
