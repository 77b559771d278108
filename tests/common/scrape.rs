//! Reads `/healthz` and `/metrics` as a monitoring system does, and takes nothing that the format forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::SOON;

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// `GET path`, with more header lines, each with its line end.
pub fn get(server: SocketAddr, path: &str, headers: &str) -> Option<Response> {
    let mut stream = TcpStream::connect_timeout(&server, SOON).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{headers}\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Response {
        status: head.split(' ').nth(1)?.parse().ok()?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// One reading of `/metrics`.
#[derive(Debug)]
pub struct Scrape {
    /// Name and type of each family.
    pub families: BTreeMap<String, String>,
    /// By name and labels as they stand in the text, such as `x_total{reason="y"}`.
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the metrics that `server` tells.
    pub fn of(server: SocketAddr) -> Self {
        let response = get(
            server,
            "/metrics",
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
        )
        .expect("the server answers");
        assert_eq!(response.status, 200, "{}", response.body);
        let kind = "content-type: application/openmetrics-text; version=1.0.0";
        assert!(response.head.contains(kind), "{}", response.head);
        Self::parse(&response.body).unwrap_or_else(|wrong| panic!("{wrong}\n{}", response.body))
    }

    /// The value of one sample, which must be there.
    pub fn value(&self, sample: &str) -> f64 {
        *self
            .samples
            .get(sample)
            .unwrap_or_else(|| panic!("no `{sample}` in {:#?}", self.samples))
    }

    /// The names under which samples of the families stand.
    pub fn names(&self) -> BTreeSet<String> {
        let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
        self.families.iter().map(|(name, kind)| format!("{name}{}", suffix(kind))).collect()
    }

    /// The values of a label, of all samples.
    pub fn label_values(&self, label: &str) -> BTreeSet<String> {
        let marker = format!("{label}=\"");
        let value = |sample: &String| Some(sample.split_once(&marker)?.1.split_once('"')?.0.to_owned());
        self.samples.keys().filter_map(value).collect()
    }

    /// Reads OpenMetrics 1.0 text of counters, gauges and histograms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scrape = Self {
            families: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let mut helped = BTreeSet::new();
        let mut family: Option<(String, String)> = None;
        let body = text
            .strip_suffix("# EOF\n")
            .ok_or("the text does not end with `# EOF` and a line end")?;
        for line in body.lines() {
            let wrong = |what: &str| Err(format!("{what}: {line}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
                if help.is_empty() || !helped.insert(name.to_owned()) {
                    return wrong("no help, or a second one");
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
                if !is_name(name) || !matches!(kind, "counter" | "gauge" | "histogram") || name.ends_with("_total") {
                    return wrong("a name or type that is none");
                }
                if scrape.families.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return wrong("a family that comes twice");
                }
                family = Some((name.to_owned(), kind.to_owned()));
            } else if line.starts_with('#') || line.is_empty() {
                return wrong("a line that is neither help, type nor sample");
            } else {
                let (sample, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
                let value: f64 = value.parse().map_err(|error| format!("{error}: {line}"))?;
                let (name, labels) = match sample.split_once('{') {
                    Some((name, labels)) => (
                        name,
                        Some(labels.strip_suffix('}').ok_or_else(|| format!("labels without end: {line}"))?),
                    ),
                    None => (sample, None),
                };
                let Some((family, kind)) = &family else {
                    return wrong("a sample before its type");
                };
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                if !suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(family.as_str())) {
                    return wrong("a sample that is not of the family above it");
                }
                if !value.is_finite() || (kind != "gauge" && value < 0.0) {
                    return wrong("a value that can't be");
                }
                if labels.is_some_and(|labels| !are_labels(labels)) {
                    return wrong("labels that are none");
                }
                if scrape.samples.insert(sample.to_owned(), value).is_some() {
                    return wrong("a sample that comes twice");
                }
            }
        }
        if helped != scrape.families.keys().cloned().collect() {
            return Err(format!("helps and types are not of the same families: {helped:?}"));
        }
        Ok(scrape)
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `name="value",name="value"`, with values that need no escapes: ours are names.
fn are_labels(labels: &str) -> bool {
    labels.split(',').all(|label| {
        label.split_once('=').is_some_and(|(name, value)| {
            let plain = |value: &str| !value.is_empty() && !value.contains(['"', '\\', '\n']);
            is_name(name) && value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).is_some_and(plain)
        })
    })
}
