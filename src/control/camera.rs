//! `camera.get` and `camera.set`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::result;
use crate::hub::Hub;
use crate::media::settings::{Change, Order, SetError};
use crate::protocol::{CameraState, ErrorCode, RpcError};

/// A camera opened with another size takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the camera's thread carry `change` out; tells how it is set then.
pub(super) async fn set(hub: &Arc<Hub>, change: Change) -> Result<Value, RpcError> {
    let (reply, answer) = oneshot::channel();
    let order = Order::new(change, move |result| {
        // Whoever asked may have given up.
        let _ = reply.send(result);
    });
    hub.target()
        .order(order)
        .map_err(|_| RpcError::new(ErrorCode::Busy, "the camera has too much to do; try again in a second"))?;
    let away = |sentence: String| RpcError::new(ErrorCode::Unavailable, sentence);
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .map_err(|_| away(format!("the camera did not answer within {} s", PATIENCE.as_secs())))?
        .map_err(|_| away("the device is shutting down".into()))?;
    match answer {
        Ok(settings) => result(&CameraState::new(hub.name(), settings)),
        Err(SetError::Impossible(sentence)) => Err(RpcError::new(ErrorCode::InvalidParams, sentence)),
        Err(SetError::Away(sentence)) => Err(away(sentence)),
    }
}
