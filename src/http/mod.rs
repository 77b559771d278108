//! The page, served from this binary, and the HTTP server beneath it and everything else that is reached by HTTP.

mod server;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};

pub use server::{Counters, Figures, Server};

/// One file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// What the page asks for when its address does not say it: `peercam.json`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PageConfig {
    /// The device's id.
    pub device: String,
    /// The broker as the page reaches it, `ws://` or `wss://`. Absent if there is none to tell: then the page speaks to the device by
    /// HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Whether it may do that; told only where it may not.
    #[serde(skip_serializing_if = "std::clone::Clone::clone")]
    pub http: bool,
}

/// The page's files, and `peercam.json`.
pub fn page(config: PageConfig) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(config))
}

async fn answer(State(page): State<Arc<PageConfig>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    if path == "peercam.json" {
        let json = serde_json::to_vec(&*page).unwrap_or_default();
        return respond(StatusCode::OK, "application/json", "no-store", Body::from(json));
    }
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return respond(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "no-store",
            Body::from("There is no such page.\n"),
        );
    };
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == ASSETS_TAG.as_bytes())
    {
        return respond(StatusCode::NOT_MODIFIED, asset.kind, "no-cache", Body::empty());
    }
    respond(StatusCode::OK, asset.kind, "no-cache", Body::from(asset.bytes))
}

fn respond(status: StatusCode, kind: &'static str, cache: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::ETAG, HeaderValue::from_static(ASSETS_TAG));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The page speaks to a broker anywhere, and runs nothing but itself.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; media-src 'self' blob: mediastream:; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    );
    response
}
