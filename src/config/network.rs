//! `[network]`: which addresses carry pictures, by which port, and the servers that help.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use toml::Spanned;

use super::error::{Fault, line_of};
use super::file::{IceServerTable, NetworkTable, Patterns};
use super::resolve::{Resolver, header, number};
use super::value::{Text, Whole};
use super::{Advertised, IceServer, Interfaces, Listen, Network, TransportPolicy};

/// Fixed, so that one rule in a firewall serves it; next to RTSP's 8554, which cameras already use.
const DEFAULT_UDP_PORT: u16 = 8555;

/// TURN URLs that the device itself uses: a viewer gets a candidate of each.
pub const MAX_RELAYS: usize = 8;

/// Each is a candidate more that every browser checks.
const MAX_ADVERTISED: usize = 8;

impl Resolver<'_> {
    pub(super) fn network(&mut self, table: NetworkTable) -> Result<Network, Fault> {
        let relays = table
            .ice_server
            .iter()
            .any(|server| server.get_ref().urls.get_ref().iter().any(|Text(url)| url.turn.is_some()));
        let transport_policy = match table.transport_policy {
            Some(policy) if policy.get_ref().0 == TransportPolicy::Relay && !relays => {
                let what = "\"relay\" shows a picture only through a TURN server; add a [[network.ice_server]] with a turn: or turns: URL (not turns:…?transport=udp)";
                return Err(Fault::new(policy.span(), what));
            }
            policy => policy.map_or(TransportPolicy::All, |policy| policy.into_inner().0),
        };
        let turns = table.ice_server.iter().flat_map(|server| server.get_ref().urls.get_ref());
        let turns = turns.filter(|Text(url)| url.turn.is_some()).count();
        if turns > MAX_RELAYS {
            self.warnings.push(format!(
                "there are {turns} URLs of TURN servers; viewers are told of all, this device itself uses the first {MAX_RELAYS}"
            ));
        }
        let listen = self.listen(table.listen, table.interfaces, table.exclude_interfaces)?;
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
        let tcp_port = self.tcp_port(table.tcp_port, threads, transport_policy)?;
        let advertise = self.advertise(table.advertise, (udp_port, threads), &listen, transport_policy)?;
        Ok(Network {
            listen,
            udp_port,
            tcp_port,
            threads,
            transport_policy,
            advertise,
            ice_servers,
        })
    }

    fn tcp_port(
        &mut self,
        written: Option<Spanned<Whole<1, 65_535>>>,
        threads: NonZeroU32,
        policy: TransportPolicy,
    ) -> Result<Option<NonZeroU16>, Fault> {
        let Some(written) = written else { return Ok(None) };
        let port = written.get_ref().get();
        if port + threads.get() > 65_536 {
            let sentence = format!("each thread has a TCP port of its own, and there are not {threads} from {port} on");
            return Err(Fault::new(written.span(), sentence));
        }
        if policy == TransportPolicy::Relay {
            let line = line_of(written.span().start, self.text);
            self.warnings.push(format!(
                "line {line}: network.tcp_port is not used, because network.transport_policy is \"relay\""
            ));
        }
        Ok(u16::try_from(port).ok().and_then(NonZeroU16::new))
    }

    /// `ports`: the UDP ports inside, the first and how many.
    fn advertise(
        &mut self,
        written: Option<Spanned<Vec<Text<Advertised>>>>,
        ports: (u16, NonZeroU32),
        listen: &Listen,
        policy: TransportPolicy,
    ) -> Result<Vec<Advertised>, Fault> {
        let Some(written) = written else { return Ok(Vec::new()) };
        let span = written.span();
        let addresses: Vec<Advertised> = written.into_inner().into_iter().map(|Text(address)| address).collect();
        let (port, threads) = ports;
        let last = usize::try_from(threads.get() - 1).unwrap_or_default();
        let trouble = if addresses.is_empty() {
            Some("the list is empty; write an address, or put a # before the line".to_owned())
        } else if addresses.len() > MAX_ADVERTISED {
            Some(format!("at most {MAX_ADVERTISED} addresses can be told to every viewer"))
        } else if port == 0 {
            Some("a router forwards to a port that stays the same; write one for `udp_port`, or leave it out for 8555".to_owned())
        } else if addresses.iter().any(|address| address.for_thread(last, port).is_none()) {
            Some(format!(
                "each thread has a port of its own outside too, and there are not {threads} from this one on"
            ))
        } else {
            None
        };
        if let Some(what) = trouble {
            return Err(Fault::new(span, what));
        }
        let unused = match (listen, policy) {
            (Listen::Loopback, _) => Some("network.listen is \"loopback\", where no router leads"),
            (_, TransportPolicy::Relay) => Some("network.transport_policy is \"relay\""),
            (Listen::All(_) | Listen::Addresses(_), TransportPolicy::All) => None,
        };
        if let Some(why) = unused {
            let line = line_of(span.start, self.text);
            self.warnings
                .push(format!("line {line}: network.advertise is not used, because {why}"));
        }
        Ok(addresses)
    }

    fn listen(&mut self, listen: Option<Listen>, only: Patterns, except: Patterns) -> Result<Listen, Fault> {
        let listen = listen.unwrap_or(Listen::Loopback);
        if let Some(list) = only.as_ref().filter(|list| list.get_ref().is_empty()) {
            return Err(Fault::new(
                list.span(),
                "the list is empty; name an interface, or put a # before the line for all of them",
            ));
        }
        if !matches!(listen, Listen::All(_)) {
            for (key, list) in [("interfaces", &only), ("exclude_interfaces", &except)] {
                let Some(list) = list else { continue };
                let line = line_of(list.span().start, self.text);
                self.warnings.push(format!(
                    "line {line}: network.{key} is not used, because network.listen is not \"all\""
                ));
            }
            return Ok(listen);
        }
        let names = |list: Patterns| list.map(|list| list.into_inner().into_iter().map(|Text(name)| name).collect());
        Ok(Listen::All(Interfaces::new(names(only), names(except))))
    }

    fn ice_server(&mut self, table: IceServerTable, header: Range<usize>) -> Result<IceServer, Fault> {
        if table.urls.get_ref().is_empty() {
            return Err(Fault::new(
                table.urls.span(),
                "the list is empty; write at least one URL such as \"stun:stun.example:3478\"",
            ));
        }
        let relays = table.urls.get_ref().iter().any(|Text(url)| url.relays);
        let shared_secret = match (&table.secret_file, &table.credential_file) {
            (Some(file), Some(_)) => {
                let what = "a server has either a secret or a password; take `secret_file` or `credential_file` away";
                return Err(Fault::new(file.span(), what));
            }
            (Some(file), None) => Some(self.secret_file(file)?),
            (None, _) => None,
        };
        let credential = match (&table.credential_file, &table.username) {
            _ if shared_secret.is_some() => None,
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
        if relays && credential.is_none() && shared_secret.is_none() {
            let what = "a TURN server needs `username` and `credential_file`, or `secret_file`: browsers refuse it without";
            return Err(Fault::new(table.username.as_ref().map_or(header, Spanned::span), what));
        }
        let ca_file = table.ca_file.map(|file| self.readable(&file)).transpose()?;
        let urls = table.urls.into_inner();
        Ok(IceServer {
            turn: urls.iter().filter_map(|Text(url)| url.turn.clone()).collect(),
            stun: urls.iter().filter_map(|Text(url)| url.stun.clone()).collect(),
            urls: urls.into_iter().map(|Text(url)| url.url).collect(),
            username: table.username.map(|name| name.into_inner().0.0),
            credential,
            shared_secret,
            ca_file,
        })
    }
}
