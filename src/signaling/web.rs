//! What the carriers over HTTP share: reading a body within bounds, and saying what is wrong.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::BytesMut;
use tokio::sync::Semaphore;

use super::Refusal;
use crate::protocol::{ErrorCode, MAX_MESSAGE_BYTES, RpcError};

/// How long a body may take to arrive: 64 KiB over a slow phone network, with room.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A body up to this size is read whoever sends it: offers have a few KiB. For larger ones there are [`LARGE_BODIES`], or slow senders
/// would make the device hold 64 KiB for each connection.
const SMALL_BODY_BYTES: usize = 16 * 1024;

/// Bodies above [`SMALL_BODY_BYTES`] that are read at the same time; one of unknown length counts from where it has become as long.
static LARGE_BODIES: Semaphore = Semaphore::const_new(16);

/// An HTTP error with its sentence, told as a problem detail (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub sentence: String,
    /// When another try may succeed.
    pub retry_after_secs: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
            retry_after_secs: None,
        }
    }

    pub fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// What it is counted as: what a carrier refuses before it has read a message. The rest is the message's own result.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => Some(Refusal::Size),
            StatusCode::REQUEST_TIMEOUT => Some(Refusal::Slow),
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Some(Refusal::Foreign),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Some(Refusal::Unparsable),
            _ => None,
        }
    }

    pub fn respond(self) -> Response<Body> {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let json = serde_json::json!({ "title": title, "status": self.status.as_u16(), "detail": self.sentence });
        let mut response = respond(self.status, "application/problem+json", json.to_string());
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        response
    }
}

impl From<RpcError> for Problem {
    fn from(error: RpcError) -> Self {
        let (status, retry_after_secs) = match error.kind() {
            Some(ErrorCode::ParseError | ErrorCode::InvalidRequest | ErrorCode::InvalidParams) => (StatusCode::BAD_REQUEST, None),
            Some(ErrorCode::MethodNotFound) => (StatusCode::NOT_FOUND, None),
            Some(ErrorCode::Unauthorised) => (StatusCode::UNAUTHORIZED, None),
            Some(ErrorCode::Forbidden) => (StatusCode::FORBIDDEN, None),
            // A seat becomes free when somebody leaves.
            Some(ErrorCode::TooManyViewers) => (StatusCode::SERVICE_UNAVAILABLE, Some(10)),
            Some(ErrorCode::CameraUnavailable) => (StatusCode::CONFLICT, Some(5)),
            Some(ErrorCode::UnsupportedCodec) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            Some(ErrorCode::Conflict) => (StatusCode::NOT_FOUND, None),
            Some(ErrorCode::Busy | ErrorCode::Expired | ErrorCode::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
            None => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self {
            status,
            sentence: error.message,
            retry_after_secs,
        }
    }
}

/// A response that no cache keeps.
pub fn respond(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = empty(status);
    *response.body_mut() = body.into();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads a body of at most [`MAX_MESSAGE_BYTES`] that arrives in time.
///
/// # Errors
/// 400, 408 and 413, with a sentence.
pub async fn read_body(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let sentence = format!("the request has too many bytes; at most {MAX_MESSAGE_BYTES} are read");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    };
    let announced = text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_MESSAGE_BYTES as u64) {
        return Err(too_large());
    }
    let place = || {
        LARGE_BODIES.try_acquire().map_err(|_| {
            let sentence = format!("too many requests of more than {SMALL_BODY_BYTES} bytes are being read; try again in a second");
            // As RFC 9110, 15.5.14, has it for what is too large for now only.
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, sentence).retry_after(1)
        })
    };
    let mut held = match announced {
        Some(length) if length > SMALL_BODY_BYTES as u64 => Some(place()?),
        Some(_) | None => None,
    };
    let reading = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            // The connection broke, and nobody reads this.
            let frame = frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the request broke off"))?;
            let Ok(piece) = frame.into_data() else { continue };
            let length = bytes.len() + piece.len();
            if length > MAX_MESSAGE_BYTES {
                return Err(too_large());
            }
            if held.is_none() && length > SMALL_BODY_BYTES {
                held = Some(place()?);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    };
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
    tokio::time::timeout(BODY_TIME, reading).await.map_err(|_| late())?
}

/// Whether the body is said to be of this media type; parameters such as a character set don't matter.
///
/// # Errors
/// 415, with what is wanted.
pub fn must_be(headers: &HeaderMap, kind: &str) -> Result<(), Problem> {
    let given = text(headers, header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    if given.is_some_and(|given| given.trim().eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    let sentence = format!("the body has to be {kind}, and say so in Content-Type");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence))
}

/// A header as text; `None` if it is absent or not text.
pub fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A name for everybody behind an address: one of IPv6 has a whole /64 to choose from.
pub fn name_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}-{b:x}-{c:x}-{d:x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_small_body_of_unknown_length_needs_no_place_among_the_large_ones() {
        let read = |bytes: usize| read_body_of(Body::from(vec![b' '; bytes]));
        let places = LARGE_BODIES.try_acquire_many(16).expect("nobody else reads");
        assert_eq!(read(70).await, Ok(70));
        assert_eq!(read(SMALL_BODY_BYTES).await, Ok(SMALL_BODY_BYTES));
        assert_eq!(read(SMALL_BODY_BYTES + 1).await, Err((413, Some(1))));
        drop(places);
        assert_eq!(read(MAX_MESSAGE_BYTES).await, Ok(MAX_MESSAGE_BYTES));
        assert_eq!(read(MAX_MESSAGE_BYTES + 1).await, Err((413, None)), "another try would not help");
        assert_eq!(LARGE_BODIES.available_permits(), 16, "places are given back");
    }

    async fn read_body_of(body: Body) -> Result<usize, (u16, Option<u32>)> {
        let read = read_body(&HeaderMap::new(), body).await;
        read.map(|bytes| bytes.len())
            .map_err(|problem| (problem.status.as_u16(), problem.retry_after_secs))
    }
}
