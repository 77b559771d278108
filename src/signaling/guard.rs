//! Keeps pages of other origins away from the device's own HTTP interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::web::{Problem, text};

/// Suffixes that nobody can register on the internet: mDNS (RFC 6762), the home network (RFC 8375), private use (ICANN, 2024), this
/// machine (RFC 6761).
const PRIVATE_SUFFIXES: [&str; 4] = [".local", ".home.arpa", ".internal", ".localhost"];

/// Decides whether a request comes from the page that this device serves, or from no page at all.
///
/// A page of another origin can send requests to any address that its browser reaches, so an address in a home network keeps nobody
/// out. Three things do:
///
/// * Browsers say in `Origin` (and newer ones in `Sec-Fetch-Site`) which page sends a request. It has to be absent or equal to `Host`.
/// * Messages have to be `application/json`, which a browser sends to another origin only after asking by `OPTIONS`, and that is never
///   allowed.
/// * With DNS rebinding, the name of another page's own site comes to mean this device's address, and `Origin` equals `Host`. But
///   then `Host` is a name of the internet. Only addresses, names without a dot, names under suffixes that nobody can register, and
///   those named in `http.hosts` are answered.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    hosts: Vec<String>,
}

impl Guard {
    /// A guard that also answers to these names, written in lower case.
    #[must_use]
    pub fn new(hosts: Vec<String>) -> Self {
        Self { hosts }
    }

    /// Whether the request names at most one host: of two, a proxy before us may have judged by the other.
    ///
    /// # Errors
    /// 400 (RFC 9112, 3.2), with a sentence.
    pub fn one_host(headers: &HeaderMap) -> Result<(), Problem> {
        match headers.get_all(header::HOST).iter().nth(1) {
            Some(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "the request has more than one Host header")),
            None => Ok(()),
        }
    }

    /// Whether the request names this device, for what any page may link to.
    ///
    /// # Errors
    /// 421 (RFC 9110, 15.5.20), with a sentence.
    pub fn admit_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_ours(text(headers, header::HOST).unwrap_or_default()) {
            return Ok(());
        }
        let sentence = "the device does not know itself by this name; use its address, or add the name to http.hosts in its configuration";
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, sentence))
    }

    /// # Errors
    /// 403, and those of [`Guard::admit_host`].
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.admit_host(headers)?;
        let host = text(headers, header::HOST).unwrap_or_default();
        let foreign_origin = headers
            .get(header::ORIGIN)
            .is_some_and(|origin| !is_origin_of(origin.as_bytes(), host));
        let foreign_site = text(headers, header::HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| site == "cross-site" || site == "same-site");
        if foreign_origin || foreign_site {
            let sentence = "this is for the page that the device serves itself; pages of other origins use WHEP, where it is switched on";
            return Err(Problem::new(StatusCode::FORBIDDEN, sentence));
        }
        Ok(())
    }

    /// Whether `host` (a `Host` header: a name or an address, and perhaps a port) can only mean this device.
    fn is_ours(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<axum::http::uri::Authority>() else {
            return false;
        };
        // A name and a port (RFC 9110, 7.2), and nothing else that some other reader might take for the name.
        let port = authority.as_str().strip_prefix(authority.host());
        let is_port = |port: &str| {
            port.strip_prefix(':')
                .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if !port.is_some_and(|port| port.is_empty() || is_port(port)) {
            return false;
        }
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if let Some(bracketed) = name.strip_prefix('[') {
            return bracketed
                .strip_suffix(']')
                .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        }
        !name.is_empty()
            && (name.parse::<Ipv4Addr>().is_ok()
                || !name.contains('.')
                || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                || self.hosts.contains(&name))
    }
}

/// Whether an `Origin` header names this host and port. The scheme may differ: a proxy before us may speak https.
fn is_origin_of(origin: &[u8], host: &str) -> bool {
    let uri = std::str::from_utf8(origin).ok().and_then(|origin| origin.parse::<Uri>().ok());
    let Some(uri) = uri else { return false };
    let scheme = uri.scheme_str();
    (scheme == Some("http") || scheme == Some("https")) && uri.authority().is_some_and(|own| own.as_str().eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[(&'static str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, value.parse().expect("a header"));
        }
        let guard = Guard::new(vec!["cam.example.org".into()]);
        guard.admit(&headers).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn the_own_page_and_programs_are_admitted() {
        for lines in [
            &[("host", "192.168.1.20:8080")][..],
            &[("host", "[fd00::20]:8080"), ("origin", "http://[fd00::20]:8080")],
            &[
                ("host", "porch.local:8080"),
                ("origin", "http://porch.local:8080"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("host", "raspberrypi"), ("origin", "http://raspberrypi")],
            &[("host", "localhost:8080"), ("sec-fetch-site", "none")],
            &[("host", "cam.example.org"), ("origin", "https://Cam.example.org")],
        ] {
            assert_eq!(verdict(lines), 200, "{lines:?}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let mut headers = HeaderMap::new();
        assert!(Guard::one_host(&headers).is_ok(), "that none is named is another's business");
        for (name, fits) in [("localhost", true), ("evil.example", false)] {
            headers.append(header::HOST, name.parse().expect("a header"));
            let verdict = Guard::one_host(&headers).map_err(|problem| problem.status);
            assert_eq!(verdict, if fits { Ok(()) } else { Err(StatusCode::BAD_REQUEST) });
        }
    }

    #[test]
    fn pages_of_other_origins_are_not() {
        for lines in [
            &[("host", "192.168.1.20:8080"), ("origin", "https://evil.example")][..],
            &[("host", "192.168.1.20:8080"), ("origin", "http://192.168.1.20:8081")],
            &[("host", "192.168.1.20:8080"), ("origin", "null")],
            &[("host", "192.168.1.20:8080"), ("origin", "file://192.168.1.20:8080")],
            &[("host", "192.168.1.20:8080"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(verdict(lines), 403, "{lines:?}");
        }
    }

    #[test]
    fn a_name_that_was_rebound_to_this_device_is_not() {
        for host in [
            "evil.example:8080",
            "192.168.1.20.evil.example",
            "porch.local.evil.example",
            "local.example",
            "",
            "a b",
            "user@",
            "user@localhost",
            "localhost:8080.evil.example",
            "192.168.1.20:80@evil.example",
            "[fd00::r0]:8080",
            "[fd00::20",
            ".",
        ] {
            let origin = format!("http://{host}");
            assert_eq!(verdict(&[("host", host), ("origin", &origin)]), 421, "{host}");
        }
    }
}
