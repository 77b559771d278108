//! The page, served from this binary.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use tokio::net::TcpListener;
use tokio::sync::watch;

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
    /// The broker as the page reaches it, `ws://` or `wss://`; absent if the device has none to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
}

/// Serves the page, and `beside` it what others have to say, on `address` until `stop` turns true; returns the bound address.
///
/// # Errors
/// The address is taken or not this machine's.
pub async fn serve(address: SocketAddr, page: PageConfig, beside: Router, mut stop: watch::Receiver<bool>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("serving the page on {address}: is the port taken? `http.listen` in the configuration names another"))?;
    let bound = listener.local_addr().context("reading the page's address")?;
    let app = Router::new().fallback(answer).with_state(Arc::new(page)).merge(beside);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the page's server ended");
        }
    });
    Ok(bound)
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
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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
