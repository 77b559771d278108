//! JSON-RPC 2.0 messages (<https://www.jsonrpc.org/specification>), without batches.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorCode, MAX_MESSAGE_BYTES, MAX_MESSAGE_VALUES, RpcError};

/// A request's id, chosen by who asks; a string of at most 64 bytes, or a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    Number(u64),
    Text(String),
}

/// A call that wants a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub id: Id,
    pub method: String,
    pub params: Value,
}

/// A call that wants none.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub method: String,
    pub params: Value,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// `None` only where the request's id could not be read.
    pub id: Option<Id>,
    pub result: Result<Value, RpcError>,
}

/// Any JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Request(Request),
    Notification(Notification),
    Reply(Reply),
}

/// All members at once; which are there decides what it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    jsonrpc: Version,
    /// `Some(None)` is a null, which a reply may have and a call may not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    id: Option<Option<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<RpcError>,
}

#[derive(Serialize, Deserialize)]
enum Version {
    #[serde(rename = "2.0")]
    V2,
}

/// Reads a member that is there: null too is something.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Id>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Message {
    /// Reads one message of at most [`MAX_MESSAGE_BYTES`] and [`MAX_MESSAGE_VALUES`].
    ///
    /// # Errors
    /// A [`Reply`] that says what was wrong, ready to be sent back.
    pub fn parse(bytes: &[u8]) -> Result<Self, Box<Reply>> {
        let refuse = |code, sentence: String| {
            Box::new(Reply {
                id: None,
                result: Err(RpcError::new(code, sentence)),
            })
        };
        if bytes.len() > MAX_MESSAGE_BYTES {
            let sentence = format!("the message has {} bytes; at most {MAX_MESSAGE_BYTES} are read", bytes.len());
            return Err(refuse(ErrorCode::InvalidRequest, sentence));
        }
        if values(bytes) > MAX_MESSAGE_VALUES {
            let sentence = format!("the message has too many values; at most {MAX_MESSAGE_VALUES} are read");
            return Err(refuse(ErrorCode::InvalidRequest, sentence));
        }
        // Derived readers take an array for a struct, member by member.
        if bytes.trim_ascii_start().starts_with(b"[") && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
            let sentence = "a message is one JSON object; there are no batches, and members have names";
            return Err(refuse(ErrorCode::InvalidRequest, sentence.into()));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => refuse(ErrorCode::InvalidRequest, format!("not a JSON-RPC 2.0 message: {error}")),
            _ => refuse(ErrorCode::ParseError, format!("not JSON: {error}")),
        })?;
        if matches!(&wire.id, Some(Some(Id::Text(text))) if text.len() > 64) {
            return Err(refuse(ErrorCode::InvalidRequest, "an id has at most 64 bytes".into()));
        }
        match wire {
            Wire {
                id: Some(None),
                method: Some(_),
                ..
            } => Err(refuse(
                ErrorCode::InvalidRequest,
                "a request's id is a string or a whole number, not null; leave it out to want no reply".into(),
            )),
            Wire {
                id: Some(Some(id)),
                method: Some(method),
                params,
                result: None,
                error: None,
                ..
            } => Ok(Self::Request(Request {
                id,
                method,
                params: params.unwrap_or(Value::Null),
            })),
            Wire {
                id: None,
                method: Some(method),
                params,
                result: None,
                error: None,
                ..
            } => Ok(Self::Notification(Notification {
                method,
                params: params.unwrap_or(Value::Null),
            })),
            Wire {
                id,
                method: None,
                params: None,
                result: Some(result),
                error: None,
                ..
            } => Ok(Self::Reply(Reply {
                id: id.flatten(),
                result: Ok(result),
            })),
            Wire {
                id,
                method: None,
                params: None,
                result: None,
                error: Some(error),
                ..
            } => Ok(Self::Reply(Reply {
                id: id.flatten(),
                result: Err(error),
            })),
            Wire { .. } => Err(refuse(
                ErrorCode::InvalidRequest,
                "a message has a method, or a result, or an error; this one mixes them or has none".into(),
            )),
        }
    }

    /// The message as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut wire = Wire {
            jsonrpc: Version::V2,
            id: None,
            method: None,
            params: None,
            result: None,
            error: None,
        };
        match self {
            Self::Request(request) => {
                wire.id = Some(Some(request.id.clone()));
                wire.method = Some(request.method.clone());
                wire.params = Some(request.params.clone());
            }
            Self::Notification(notification) => {
                wire.method = Some(notification.method.clone());
                wire.params = Some(notification.params.clone());
            }
            Self::Reply(reply) => {
                wire.id = reply.id.clone().map(Some);
                match &reply.result {
                    Ok(result) => wire.result = Some(result.clone()),
                    Err(error) => wire.error = Some(error.clone()),
                }
            }
        }
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// A notification with typed parameters.
    #[must_use]
    pub fn notification(method: &str, params: &impl Serialize) -> Self {
        Self::Notification(Notification {
            method: method.to_owned(),
            params: serde_json::to_value(params).unwrap_or_default(),
        })
    }
}

/// How many values a JSON text has at most: each but the first follows one of `,`, `:`, `[` and `{`. Of what is no JSON, any number.
fn values(text: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b':' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// Reads a call's parameters into their type; a missing `params` counts as `{}`.
///
/// # Errors
/// [`ErrorCode::InvalidParams`], with serde's words on what is wrong; also for parameters by position, which no method here has.
pub fn params<T: DeserializeOwned>(value: Value) -> Result<T, RpcError> {
    if value.is_array() {
        return Err(RpcError::new(
            ErrorCode::InvalidParams,
            "wrong parameters: they have names here; send an object",
        ));
    }
    let value = if value.is_null() {
        Value::Object(serde_json::Map::new())
    } else {
        value
    };
    serde_json::from_value(value).map_err(|error| RpcError::new(ErrorCode::InvalidParams, format!("wrong parameters: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"session.hello","params":{"version":1}}"#,
            r#"{"jsonrpc":"2.0","method":"session.close","params":{"session":"a","reason":"left"}}"#,
            r#"{"jsonrpc":"2.0","id":"x","result":{"ok":true}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"not JSON"}}"#,
        ] {
            let message = Message::parse(text.as_bytes()).unwrap_or_else(|reply| panic!("{text} was refused: {reply:?}"));
            let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            assert_eq!(value(&message.to_json()), value(text));
        }
    }

    #[test]
    fn an_id_is_as_long_as_it_may_be_and_no_longer() {
        let call = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"system.info"}}"#, "i".repeat(id));
        assert!(matches!(Message::parse(call(64).as_bytes()), Ok(Message::Request(_))));
        let reply = Message::parse(call(65).as_bytes()).expect_err("an id of 65 bytes");
        let error = reply.result.expect_err("an error");
        assert_eq!((error.code, reply.id), (ErrorCode::InvalidRequest.number(), None));
    }

    #[test]
    fn a_message_that_would_be_much_larger_once_it_is_read_is_refused() {
        let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"session.candidates","params":{params}}}"#);
        let list = |piece: &str, times: usize| call(&format!("[{}0]", piece.repeat(times)));
        for text in [
            list("0,", 1_100),
            list("[],", 1_000),
            list(r#"{"":0},"#, 400),
            list("[", 1_100),
            list(r#""\"",[],"\\","#, 400),
        ] {
            let reply = Message::parse(text.as_bytes()).expect_err("too many values");
            let error = reply.result.expect_err("an error");
            assert_eq!(error.code, -32600, "{error}");
            assert!(error.message.contains("1024"), "{error}");
        }
        let candidates: Vec<String> = (0..300)
            .map(|_| r#""candidate:1 1 udp 1 [fd00::1]:2, {\"x\": [1,2,3]}""#.to_owned())
            .collect();
        for good in [
            call(&format!("[{}]", candidates.join(","))),
            call(&format!("{:?}", ",:[{\\\"".repeat(5_000))),
        ] {
            Message::parse(good.as_bytes()).unwrap_or_else(|reply| panic!("{reply:?}"));
        }
    }

    #[test]
    fn an_error_may_belong_to_no_request() {
        let text = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}"#;
        assert!(matches!(
            Message::parse(text),
            Ok(Message::Reply(Reply { id: None, result: Err(_) }))
        ));
    }

    #[test]
    fn parameters_have_names() {
        let hello = |value| params::<crate::protocol::Hello>(value);
        assert_eq!(hello(serde_json::json!({ "version": 1 })).expect("parameters").version, 1);
        let error = hello(serde_json::json!([1])).expect_err("by position");
        assert_eq!(error.code, ErrorCode::InvalidParams.number());
        assert!(error.message.contains("object"), "{error}");
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_standard_code() {
        let huge = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "x".repeat(MAX_MESSAGE_BYTES));
        for (text, code) in [
            ("", -32700),
            ("{", -32700),
            ("[]", -32600),
            ("[", -32700),
            (" [\"2.0\",1,\"m\",{},null,null]", -32600),
            ("7", -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, -32600),
            (r#"{"jsonrpc":"1.0","method":"m"}"#, -32600),
            (r#"{"jsonrpc":"2.0"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"m","extra":1}"#, -32600),
            (huge.as_str(), -32600),
        ] {
            let reply = Message::parse(text.as_bytes()).expect_err("this is no message");
            assert_eq!(reply.result.expect_err("an error").code, code, "{}", &text[..text.len().min(60)]);
        }
    }
}
