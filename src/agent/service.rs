//! What systemd is told: that the agent runs, how it goes, and that no part of it is stuck. Without systemd: nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::metrics::{Health, Verdict};

/// A sign of life for systemd's watchdog comes this many times in the time that it waits for one.
const SIGNS: u32 = 3;

/// How often systemd is told how it goes, where it has no watchdog.
const EVERY: Duration = Duration::from_secs(20);

/// How often [`watch`] wants to be called.
pub fn every() -> Duration {
    sd_notify::watchdog_enabled().map_or(EVERY, |patience| patience / SIGNS)
}

/// The agent runs.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells how it goes; and that the agent is alive, unless a part of it is stuck: then systemd ends it and starts it again.
pub fn watch(health: &Health, viewers: u32) {
    let how = match health.status {
        Verdict::Ok => format!("well; {viewers} watching"),
        Verdict::Degraded | Verdict::Failing => health.reasons.join("; "),
    };
    tell(&[NotifyState::Status(&how)]);
    if health.stuck {
        tracing::error!(how, "a part of the agent is stuck; systemd's watchdog gets no sign of life");
    } else {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}
