//! Errors a peer can act on.

use serde::{Deserialize, Serialize};

/// Stable codes: JSON-RPC's own, and ours from -32000 downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    ParseError,
    InvalidRequest,
    MethodNotFound,
    InvalidParams,
    Unauthorised,
    Forbidden,
    Busy,
    TooManyViewers,
    CameraUnavailable,
    UnsupportedCodec,
    Expired,
    Conflict,
    Unavailable,
}

impl ErrorCode {
    const ALL: [(Self, i32, &'static str); 13] = [
        (Self::ParseError, -32700, "parse_error"),
        (Self::InvalidRequest, -32600, "invalid_request"),
        (Self::MethodNotFound, -32601, "method_not_found"),
        (Self::InvalidParams, -32602, "invalid_params"),
        (Self::Unauthorised, -32000, "unauthorised"),
        (Self::Forbidden, -32001, "forbidden"),
        (Self::Busy, -32002, "busy"),
        (Self::TooManyViewers, -32003, "too_many_viewers"),
        (Self::CameraUnavailable, -32004, "camera_unavailable"),
        (Self::UnsupportedCodec, -32005, "unsupported_codec"),
        (Self::Expired, -32006, "expired"),
        (Self::Conflict, -32007, "conflict"),
        (Self::Unavailable, -32008, "unavailable"),
    ];

    /// Every code's name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(.., name)| *name)
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::ALL
            .iter()
            .find(|(code, ..)| *code == self)
            .map_or(-32603, |(_, number, _)| *number)
    }

    /// The name on the wire, in `data.reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(code, ..)| *code == self)
            .map_or("internal", |(.., name)| name)
    }
}

/// Bytes of an error's sentence at most. Some repeat what was sent, and are kept and sent themselves.
const MAX_SENTENCE_BYTES: usize = 500;

/// A JSON-RPC error object: a code for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// One of [`ErrorCode::number`].
    pub code: i32,
    /// What went wrong and what helps.
    pub message: String,
    /// `reason` names the code; some errors add fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl RpcError {
    /// An error with its sentence, which is cut off where it is too long.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_SENTENCE_BYTES {
            let whole = (0..=MAX_SENTENCE_BYTES).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(whole.unwrap_or(0));
            message.push('…');
            message.shrink_to_fit();
        }
        Self {
            code: code.number(),
            message,
            data: Some(serde_json::json!({ "reason": code.name() })),
        }
    }

    /// Which of ours it is; `None` for a number that is none.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorCode> {
        ErrorCode::ALL
            .iter()
            .find(|(_, number, _)| *number == self.code)
            .map(|(code, ..)| *code)
    }

    /// The name of its code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        ErrorCode::ALL
            .iter()
            .find(|(_, number, _)| *number == self.code)
            .map_or("internal", |(.., name)| name)
    }

    /// Adds a field to `data`.
    #[must_use]
    pub fn with(mut self, key: &str, value: serde_json::Value) -> Self {
        if let Some(data) = self.data.as_mut().and_then(serde_json::Value::as_object_mut) {
            data.insert(key.to_owned(), value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_repeats_what_was_sent_is_cut_off_between_characters() {
        for piece in ["x", "é", "🎥"] {
            let error = RpcError::new(ErrorCode::InvalidParams, format!("a{}", piece.repeat(20_000)));
            assert!(
                error.message.len() <= MAX_SENTENCE_BYTES + 3 && error.message.ends_with('…'),
                "{piece}"
            );
            assert!(error.message.starts_with(&format!("a{piece}{piece}")), "{piece}");
        }
        assert_eq!(RpcError::new(ErrorCode::Busy, "ask again").message, "ask again");
    }
}
