//! The command line, and what it means for addresses.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Parser;

/// Shows a camera in a browser, with everything that takes in one process: agent, MQTT broker and page.
#[derive(Debug, Parser)]
#[command(name = "./dev demo", version)]
pub struct Args {
    /// Where the page is served. Not a loopback address: viewers of the local network are let in, without any password
    /// [default: 127.0.0.1:8080, or a free port if that is taken].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub http: Option<SocketAddr>,

    /// Where the broker listens for browsers (MQTT over WebSocket)
    /// [default: port 9001 on the page's address, or a free port if that is taken].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub ws: Option<SocketAddr>,

    /// Where the broker listens for the agent and other programs (MQTT over TCP)
    /// [default: 127.0.0.1:1883, or a free port if that is taken].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub mqtt: Option<SocketAddr>,

    /// A camera that delivers H.264, such as /dev/video0.
    #[arg(long, value_name = "DEV", group = "source")]
    pub camera: Option<PathBuf>,

    /// An H.264 file (Annex B), played in a loop.
    #[arg(long, value_name = "F.h264", group = "source")]
    pub file: Option<PathBuf>,

    /// A moving test card with a clock. This is the default.
    #[arg(long, group = "source")]
    pub pattern: bool,

    /// Where the device's identity is kept between runs [default: $XDG_STATE_HOME/peercam-demo or ~/.local/state/peercam-demo].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// Reads ADDRESS:PORT.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "it takes an IP address and a port, such as 127.0.0.1:8080, or 0.0.0.0:8080 for the whole network".to_owned())
}

/// Where everything listens. A port 0 lets the system choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The page.
    pub http: SocketAddr,
    /// MQTT over WebSocket.
    pub ws: SocketAddr,
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
}

impl Addresses {
    /// Follows the command line; an address that was not given and is taken becomes a free one.
    ///
    /// # Errors
    /// An address that was given cannot be had, with what to do about it.
    pub fn choose(args: &Args) -> anyhow::Result<Self> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let http = usable("--http", args.http, SocketAddr::new(loopback, 8080))?;
        Ok(Self {
            http,
            // A browser that may load the page has to reach the broker too.
            ws: usable("--ws", args.ws, SocketAddr::new(http.ip(), 9001))?,
            mqtt: usable("--mqtt", args.mqtt, SocketAddr::new(loopback, 1883))?,
        })
    }

    /// Whether the page is for this machine only.
    #[must_use]
    pub fn local_only(&self) -> bool {
        self.http.ip().is_loopback()
    }
}

/// The address that was given, else the default one, with port 0 where the default is taken.
fn usable(option: &str, given: Option<SocketAddr>, default: SocketAddr) -> anyhow::Result<SocketAddr> {
    let wanted = given.unwrap_or(default);
    match TcpListener::bind(wanted) {
        Ok(_) => Ok(wanted),
        Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => Ok(SocketAddr::new(wanted.ip(), 0)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("{option} {wanted} is taken by another program; give another port, or 0 for any free one")
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {option} {wanted}")),
    }
}

/// The directory for the device's identity.
///
/// # Errors
/// Neither `--state` nor a home directory says where.
pub fn state_dir(given: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    let named = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given
        .or_else(|| named("XDG_STATE_HOME").map(|dir| dir.join("peercam-demo")))
        .or_else(|| named("HOME").map(|dir| dir.join(".local/state/peercam-demo")))
        .ok_or_else(|| anyhow!("HOME is not set; say with --state DIR where the device's identity is to be kept"))
}

/// The address by which other machines reach a server that listens on `listen`: itself, unless that means "all".
///
/// # Errors
/// No network is up.
pub fn reachable(listen: IpAddr) -> anyhow::Result<IpAddr> {
    if !listen.is_unspecified() {
        return Ok(listen);
    }
    let interfaces = if_addrs::get_if_addrs().context("listing this machine's network addresses")?;
    interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .min_by_key(|interface| (is_virtual(&interface.name), interface.ip().is_ipv6()))
        .map(if_addrs::Interface::ip)
        .ok_or_else(|| anyhow!("this machine has no network address but loopback; connect it to a network, or leave --http out"))
}

/// Whether an interface leads to containers and virtual machines rather than to people.
fn is_virtual(name: &str) -> bool {
    ["docker", "br-", "veth", "virbr", "lxc", "cni"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Args {
        Args::try_parse_from([&["demo"], arguments].concat()).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    #[test]
    fn a_port_alone_is_refused_with_an_example() {
        let error = Args::try_parse_from(["demo", "--http", "8080"])
            .expect_err("no address")
            .to_string();
        assert!(error.contains("127.0.0.1:8080"), "{error}");
    }

    #[test]
    fn one_source_at_a_time() {
        Args::try_parse_from(["demo", "--pattern", "--file", "a.h264"]).expect_err("two sources");
    }

    #[test]
    fn a_taken_address_that_was_asked_for_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("its address").to_string();
        let error = Addresses::choose(&parse(&["--ws", &address]))
            .expect_err("the port is taken")
            .to_string();
        assert!(error.contains("--ws") && error.contains(&address), "{error}");
    }

    #[test]
    fn a_taken_default_gives_way_to_a_free_port() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("its address");
        let chosen = usable("--http", None, address).expect("a default gives way");
        assert_eq!(chosen, SocketAddr::new(address.ip(), 0));
    }

    #[test]
    fn the_broker_for_browsers_is_where_the_page_is() {
        let chosen = Addresses::choose(&parse(&["--http", "0.0.0.0:0", "--mqtt", "127.0.0.1:0"])).expect("free ports");
        assert!(chosen.ws.ip().is_unspecified(), "{chosen:?}");
        assert!(chosen.mqtt.ip().is_loopback() && !chosen.local_only(), "{chosen:?}");
    }

    #[test]
    fn state_lies_where_the_desktop_rules_say() {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/ada"));
        assert_eq!(
            state_dir(None, home).expect("a home"),
            PathBuf::from("/home/ada/.local/state/peercam-demo")
        );
        let xdg = |name: &str| (name == "XDG_STATE_HOME").then(|| OsString::from("/var/s"));
        assert_eq!(state_dir(None, xdg).expect("a state home"), PathBuf::from("/var/s/peercam-demo"));
        assert_eq!(state_dir(Some("/tmp/x".into()), xdg).expect("given"), PathBuf::from("/tmp/x"));
        state_dir(None, |_| None).expect_err("no place to keep anything");
    }
}
