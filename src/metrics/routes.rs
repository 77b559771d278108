//! The two addresses on the page's server.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::get;

use super::health::{Health, Verdict};
use super::{Monitor, page};
use crate::config::Readers;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What Prometheus read before OpenMetrics, and what browsers show.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Proxies say for whom they ask, or only that they do, in one of these or in one that begins with [`FORWARDED_ALSO`]; then the address of
/// the connection is that of the proxy.
const FORWARDED: [&str; 3] = ["forwarded", "via", "x-real-ip"];

const FORWARDED_ALSO: &str = "x-forwarded-";

#[derive(Clone)]
struct Shared {
    monitor: Arc<Monitor>,
    readers: Readers,
}

/// `/healthz` for everybody, `/metrics` for `readers`. The server has to tell the peers' addresses.
pub fn routes(monitor: Arc<Monitor>, readers: Readers) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(Shared { monitor, readers })
}

async fn healthz(State(shared): State<Shared>) -> Response<Body> {
    let health = Health::of(&*shared.monitor.snapshot().await);
    let status = match health.status {
        Verdict::Ok | Verdict::Degraded => StatusCode::OK,
        Verdict::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    let json = serde_json::to_vec(&health).unwrap_or_default();
    respond(status, "application/json", Body::from(json))
}

async fn metrics(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<SocketAddr>, headers: HeaderMap) -> Response<Body> {
    let refuse = |status, sentence: &'static str| respond(status, "text/plain; charset=utf-8", Body::from(sentence));
    match shared.readers {
        Readers::Nobody => {
            return refuse(
                StatusCode::NOT_FOUND,
                "Metrics are off; `http.metrics` in the configuration turns them on.\n",
            );
        }
        Readers::Loopback if !is_local(peer, &headers) => {
            let sentence = "Metrics are for programs on the device itself; `http.metrics = \"all\"` in its configuration opens them.\n";
            return refuse(StatusCode::FORBIDDEN, sentence);
        }
        Readers::Loopback | Readers::Everybody => {}
    }
    match page::render(shared.monitor.snapshot().await) {
        Ok(page) if wants_openmetrics(&headers) => respond(StatusCode::OK, OPENMETRICS, Body::from(page)),
        Ok(page) => respond(StatusCode::OK, TEXT, Body::from(page::older(&page))),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "The metrics could not be written.\n"),
    }
}

fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let passed_on = |name: &str| FORWARDED.contains(&name) || name.starts_with(FORWARDED_ALSO);
    peer.ip().to_canonical().is_loopback() && !headers.keys().any(|name| passed_on(name.as_str()))
}

fn wants_openmetrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text")))
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_does_not_make_its_clients_local() {
        let local: SocketAddr = "127.0.0.1:5".parse().expect("an address");
        let mut headers = HeaderMap::new();
        assert!(is_local(local, &headers));
        assert!(is_local("[::ffff:127.0.0.1]:5".parse().expect("an address"), &headers));
        assert!(is_local("[::1]:5".parse().expect("an address"), &headers));
        assert!(!is_local("192.168.1.2:5".parse().expect("an address"), &headers));
        headers.insert("x-request-id", HeaderValue::from_static("7"));
        assert!(is_local(local, &headers));
        for name in [
            "forwarded",
            "via",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ] {
            let mut headers = headers.clone();
            headers.insert(name, HeaderValue::from_static("127.0.0.1"));
            assert!(!is_local(local, &headers), "{name}");
        }
    }
}
