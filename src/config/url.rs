//! URLs of brokers and of STUN and TURN servers.

use std::fmt;
use std::net::Ipv6Addr;

use super::value::FromText;
use super::{BrokerScheme, BrokerUrl, StunUrl, TurnTransport, TurnUrl};

/// Far longer than any broker's; HTTP clients stop at 65,534 for the whole URL.
const MAX_PATH: usize = 1_024;

/// What is wrong with `text`, or, wherever there is an @ in it, a sentence that repeats none of it: a password may stand before it.
fn without_secrets(text: &str, sentence: String, key: &str) -> String {
    if text.contains('@') {
        return format!("a user name and password do not belong in the URL; write them as username and {key}");
    }
    sentence
}

impl BrokerScheme {
    /// As a URL writes it, without `://`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port where a URL names none (IANA: mqtt, secure-mqtt, http, https).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Tls | Self::Wss => true,
            Self::Tcp | Self::Ws => false,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "tcp" | "mqtt" => Some(Self::Tcp),
            "tls" | "mqtts" => Some(Self::Tls),
            "ws" => Some(Self::Ws),
            "wss" => Some(Self::Wss),
            _ => None,
        }
    }
}

impl BrokerUrl {
    /// Reads `SCHEME://HOST[:PORT][/PATH]`; `mqtt` and `mqtts` are other words for `tcp` and `tls`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is allowed. It never repeats a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|sentence| without_secrets(text, sentence, "password_file"))
    }

    fn read(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{text:?} has no scheme; write {}", <Self as FromText>::ALLOWED));
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let Some(scheme) = BrokerScheme::from_name(scheme) else {
            return Err(format!(
                "{scheme:?} is not a way to reach a broker; write tcp, tls, ws or wss before ://"
            ));
        };
        // RFC 3986, 3.3 and 3.4. The MQTT client refuses most others too, but only when it is to connect.
        if path.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,;=:@%/?".contains(c)) {
            return Err(format!(
                "the path of {text:?} holds a space or another character that no URL has; write it as % and two hexadecimal digits"
            ));
        }
        if path.len() > MAX_PATH {
            return Err(format!("the URL's path has {} characters; at most {MAX_PATH} are read", path.len()));
        }
        let (host, port) = host_and_port(authority).map_err(|what| format!("{text:?}: {what}"))?;
        let web = matches!(scheme, BrokerScheme::Ws | BrokerScheme::Wss);
        if !web && !matches!(path, "" | "/") {
            return Err(format!("{text:?} has a path; only ws:// and wss:// URLs have one"));
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port: port.unwrap_or_else(|| scheme.default_port()),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path } = self;
        let scheme = scheme.name();
        let path = if path == "/" { "" } else { path };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}{path}")
        } else {
            write!(f, "{scheme}://{host}:{port}{path}")
        }
    }
}

impl FromText for BrokerUrl {
    const ALLOWED: &'static str = "tcp://, tls://, ws:// or wss:// with host and port, such as \"tcp://127.0.0.1:1883\"";

    fn from_text(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

/// `broker.url`: a URL, or `None` for `"off"`.
#[derive(Debug)]
pub(super) struct BrokerChoice(pub Option<BrokerUrl>);

impl FromText for BrokerChoice {
    const ALLOWED: &'static str = "a broker's URL such as \"tcp://127.0.0.1:1883\", or \"off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        BrokerUrl::parse(text).map(|url| Self(Some(url)))
    }
}

/// `broker.page_url`: what a browser can open.
#[derive(Debug)]
pub(super) struct PageUrl(pub String);

impl FromText for PageUrl {
    const ALLOWED: &'static str = "the broker's WebSocket URL, such as \"ws://192.168.1.10:9001\" or \"wss://broker.example:443/mqtt\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match BrokerUrl::parse(text)?.scheme {
            BrokerScheme::Ws | BrokerScheme::Wss => Ok(Self(text.to_owned())),
            BrokerScheme::Tcp | BrokerScheme::Tls => Err(format!("a browser speaks WebSocket only; write {}", Self::ALLOWED)),
        }
    }
}

/// One URL of an ICE server (RFC 7064, RFC 7065).
#[derive(Debug)]
pub(super) struct IceUrl {
    pub url: String,
    /// Whether it relays, and so needs credentials.
    pub relays: bool,
    /// As the agent itself uses it; `None` where it can't: STUN, and TURN over DTLS.
    pub turn: Option<TurnUrl>,
    /// As the agent asks it how this device looks from outside; `None` where it isn't reached by plain UDP.
    pub stun: Option<StunUrl>,
}

impl FromText for IceUrl {
    const ALLOWED: &'static str =
        "stun:HOST:PORT, turn:HOST:PORT or turns:HOST:PORT, a turn URL also with ?transport=udp or ?transport=tcp";

    fn from_text(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|sentence| without_secrets(text, sentence, "credential_file"))
    }
}

impl IceUrl {
    fn read(text: &str) -> Result<Self, String> {
        let refuse = |what: &str| Err(format!("{text:?} {what}; write {}", <Self as FromText>::ALLOWED));
        let Some((scheme, rest)) = text.split_once(':') else {
            return refuse("has no scheme");
        };
        let relays = match scheme {
            "stun" | "stuns" => false,
            "turn" | "turns" => true,
            _ => return refuse("is not a STUN or TURN server"),
        };
        if rest.starts_with("//") {
            return refuse("has slashes, which such URLs don't have");
        }
        let (authority, query) = rest
            .split_once('?')
            .map_or((rest, None), |(authority, query)| (authority, Some(query)));
        match query {
            None => {}
            Some("transport=udp" | "transport=tcp") if relays => {}
            Some(_) => return refuse("has something else after its ?"),
        }
        // RFC 7065, 3.1: the transports and ports where a URL names none.
        let turn = match (scheme, query) {
            ("turn", None | Some("transport=udp")) => Some((TurnTransport::Udp, 3478)),
            ("turn", _) => Some((TurnTransport::Tcp, 3478)),
            ("turns", None | Some("transport=tcp")) => Some((TurnTransport::Tls, 5349)),
            _ => None,
        };
        let answers_stun = matches!((scheme, query), ("stun", _) | ("turn", None | Some("transport=udp")));
        match host_and_port(authority) {
            Ok((host, port)) => Ok(Self {
                url: text.to_owned(),
                relays,
                stun: answers_stun.then(|| StunUrl {
                    url: text.to_owned(),
                    host: host.to_owned(),
                    port: port.unwrap_or(3478),
                }),
                turn: turn.map(|(transport, usual_port)| TurnUrl {
                    url: text.to_owned(),
                    transport,
                    host: host.to_owned(),
                    port: port.unwrap_or(usual_port),
                }),
            }),
            Err(what) => refuse(&format!("is wrong: {what}")),
        }
    }
}

/// Takes `HOST[:PORT]` apart; an IPv6 address stands in brackets and loses them.
fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| format!("{host:?} in brackets is not an IPv6 address"))?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or("a : and the port follow the IPv6 address")?),
        };
        (host, port)
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address is written in brackets, such as [fd00::1]:1883".to_owned());
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if host.len() > 253 || !host.bytes().all(plain) {
        return Err(format!("{host:?} is not a host name or address"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port @ 1..) => Some(port),
            Ok(0) | Err(_) => return Err(format!("{port:?} is not a port; a port is a number from 1 to 65535")),
        },
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_url_is_taken_apart_and_written_back() {
        for (text, scheme, host, port, path, written) in [
            (
                "tcp://127.0.0.1:1883",
                BrokerScheme::Tcp,
                "127.0.0.1",
                1883,
                "/",
                "tcp://127.0.0.1:1883",
            ),
            (
                "mqtts://b.example",
                BrokerScheme::Tls,
                "b.example",
                8883,
                "/",
                "tls://b.example:8883",
            ),
            (
                "ws://[fd00::1]:9001/mqtt",
                BrokerScheme::Ws,
                "fd00::1",
                9001,
                "/mqtt",
                "ws://[fd00::1]:9001/mqtt",
            ),
            ("wss://b.example/", BrokerScheme::Wss, "b.example", 443, "/", "wss://b.example:443"),
        ] {
            let url = BrokerUrl::parse(text).expect(text);
            assert_eq!(
                (url.scheme, url.host.as_str(), url.port, url.path.as_str()),
                (scheme, host, port, path),
                "{text}"
            );
            assert_eq!(url.to_string(), written);
            assert_eq!(BrokerUrl::parse(written), Ok(url));
        }
    }

    #[test]
    fn what_is_not_a_broker_url_is_refused_with_what_is_allowed() {
        for (text, says) in [
            ("localhost:1883", "has no scheme"),
            ("http://b.example", "write tcp, tls, ws or wss"),
            ("tcp://", "host is missing"),
            ("tcp://b:0", "from 1 to 65535"),
            ("tcp://b:99999", "from 1 to 65535"),
            ("tcp://b:1883/topic", "only ws:// and wss://"),
            ("tcp://fd00::1:1883", "in brackets"),
            ("tcp://[fd00::1", "not closed"),
            ("tcp://b c", "not a host name"),
            ("ws://b/a b", "a space"),
            ("ws://b/<topic>", "% and two"),
            ("wss://b/türe", "% and two"),
        ] {
            let error = BrokerUrl::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        for text in [
            "tcp://me:hunter2@b",
            "ws://me:hunter2/3@b",
            "me:hunter2@b:1883",
            "hunter2@tcp://b",
            "tcp//me:hunter2@b",
        ] {
            let error = BrokerUrl::parse(text).expect_err(text);
            assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
        }
        let long = format!("ws://b/{}", "a".repeat(70_000));
        assert!(BrokerUrl::parse(&long).expect_err("a long path").contains("at most 1024"));
    }

    #[test]
    fn ice_urls_are_those_of_the_rfcs() {
        for (text, relays) in [
            ("stun:stun.example", false),
            ("turn:t.example:3478?transport=udp", true),
            ("turns:[fd00::1]:5349", true),
        ] {
            assert_eq!(IceUrl::from_text(text).expect(text).relays, relays, "{text}");
        }
        for (text, transport, host, port) in [
            ("turn:t.example", TurnTransport::Udp, "t.example", 3478),
            ("turn:[fd00::1]:9?transport=tcp", TurnTransport::Tcp, "fd00::1", 9),
            ("turns:t.example:443?transport=tcp", TurnTransport::Tls, "t.example", 443),
            ("turns:t.example", TurnTransport::Tls, "t.example", 5349),
        ] {
            let turn = IceUrl::from_text(text).expect(text).turn.expect(text);
            assert_eq!((turn.transport, turn.host.as_str(), turn.port), (transport, host, port), "{text}");
        }
        for text in ["stun:t.example", "turns:t.example?transport=udp"] {
            assert_eq!(IceUrl::from_text(text).expect(text).turn, None, "{text}");
        }
        for (text, port) in [
            ("stun:t.example", Some(3478)),
            ("turn:t.example:9", Some(9)),
            ("turn:t.example?transport=tcp", None),
            ("turns:t.example", None),
            ("stuns:t.example", None),
        ] {
            assert_eq!(IceUrl::from_text(text).expect(text).stun.map(|stun| stun.port), port, "{text}");
        }
        for text in [
            "turn://t.example",
            "t.example",
            "http:t",
            "turn:",
            "turn:t?transport=sctp",
            "stun:s?transport=udp",
        ] {
            let error = IceUrl::from_text(text).expect_err(text);
            assert!(error.contains("write stun:HOST:PORT"), "{text}: {error}");
        }
        for text in ["turn:me:hunter2@t", "me:hunter2@t", "turn://me:hunter2@t"] {
            let error = IceUrl::from_text(text).expect_err(text);
            assert!(error.contains("credential_file") && !error.contains("hunter2"), "{error}");
        }
    }
}
