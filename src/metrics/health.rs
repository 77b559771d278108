//! Whether the agent does its job, and if not, why: in words.

use std::time::Duration;

use serde::Serialize;

use super::Snapshot;

/// A camera that was opened anew has shown a picture by then; one that is plugged in again too.
const SILENT: Duration = Duration::from_secs(10);

/// A call to a camera's driver takes a second or two at most. One that takes so long never returns.
const STUCK: Duration = Duration::from_secs(30);

/// What `/healthz` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub status: Verdict,
    /// A sentence each; none when all is well.
    pub reasons: Vec<String>,
    /// Whether a part is stuck, so that only a new process helps. A camera that is gone is none: the agent comes back from that by itself.
    #[serde(skip)]
    pub stuck: bool,
}

/// How it goes in one word; the later, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Somebody can watch, but not all is as it was set up.
    Degraded,
    /// Nobody can watch.
    Failing,
}

impl Health {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut health = Self {
            status: Verdict::Ok,
            reasons: Vec::new(),
            stuck: false,
        };
        if snapshot.driver.is_none() {
            health.stuck = true;
            health.note(Verdict::Failing, "the part that speaks to viewers does not answer".to_owned());
        }
        for stream in snapshot.cameras().filter(|stream| stream.unseen > STUCK) {
            health.stuck = true;
            let reason = format!("the camera `{}` does not answer its driver any more", stream.name);
            health.note(Verdict::Degraded, reason);
        }
        let silent: Vec<String> = snapshot.cameras().filter_map(silence).collect();
        let verdict = if silent.len() == snapshot.cameras().count() {
            Verdict::Failing
        } else {
            Verdict::Degraded
        };
        for reason in silent {
            health.note(verdict, reason);
        }
        if snapshot.broker.as_ref().is_some_and(|broker| !broker.connected) {
            let reason = "there is no connection to the broker: who watches goes on, who comes now does not find this device";
            health.note(Verdict::Degraded, reason.to_owned());
        }
        if let Some(error) = &snapshot.config_error {
            let reason = format!("the last good configuration is in force, not the one in the file: {error}");
            health.note(Verdict::Degraded, reason);
        }
        health
    }

    fn note(&mut self, verdict: Verdict, reason: String) {
        self.status = self.status.max(verdict);
        self.reasons.push(reason);
    }
}

/// Why a stream shows nothing, if it does not.
fn silence(stream: &super::Stream) -> Option<String> {
    let name = &stream.name;
    let what = match stream.age {
        Some(age) if age < SILENT => return None,
        Some(_) if stream.figures.resting && stream.trouble.is_none() => return None,
        Some(age) => format!("the camera `{name}` has shown no picture for {} s", age.as_secs()),
        None => format!("the camera `{name}` has not shown a picture yet"),
    };
    Some(match &stream.trouble {
        Some(trouble) => format!("{what}: {trouble}"),
        None => what,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::super::process::Process;
    use super::super::{Snapshot, Stream};
    use super::*;
    use crate::protocol::StreamState;
    use crate::{net, signaling};

    /// A device with one camera, well in every respect.
    pub fn well() -> Snapshot {
        Snapshot {
            at: Instant::now(),
            streams: vec![stream("porch", Some(40))],
            driver: Some(net::Figures::default()),
            commands_refused: 0,
            calls: BTreeMap::new(),
            broker: Some(signaling::Figures {
                connected: true,
                ..signaling::Figures::default()
            }),
            carriers: Vec::new(),
            server: None,
            config_error: None,
            max_viewers: 20,
            process: Process::default(),
        }
    }

    pub fn stream(name: &str, age_ms: Option<u64>) -> Stream {
        Stream {
            name: name.to_owned(),
            quality: crate::media::Quality::High,
            state: StreamState::Live,
            trouble: None,
            age: age_ms.map(Duration::from_millis),
            figures: crate::hub::Figures::default(),
            key_frames: crate::media::KeyFrameCounts::default(),
            unseen: Duration::from_millis(33),
        }
    }

    #[test]
    fn only_what_a_new_process_mends_counts_as_stuck() {
        type Change = fn(&mut Snapshot);
        let cases: [(Change, bool); 5] = [
            (|_| {}, false),
            (|device| device.driver = None, true),
            (|device| device.streams[0].unseen = Duration::from_secs(31), true),
            (|device| device.streams[0].unseen = Duration::from_secs(29), false),
            (|device| device.streams[0].age = Some(Duration::from_secs(86_400)), false),
        ];
        for (change, stuck) in cases {
            let mut device = well();
            change(&mut device);
            let health = Health::of(&device);
            assert_eq!(health.stuck, stuck, "{health:?}");
        }
    }

    #[test]
    fn a_device_that_is_well_says_so_without_words() {
        let json = serde_json::to_string(&Health::of(&well())).expect("JSON");
        assert_eq!(json, r#"{"status":"ok","reasons":[]}"#);
    }

    #[test]
    fn each_trouble_has_its_verdict_and_its_words() {
        type Change = fn(&mut Snapshot);
        let cases: [(Change, Verdict, &str); 8] = [
            (|device| device.driver = None, Verdict::Failing, "does not answer"),
            (
                |device| device.streams = vec![stream("porch", None)],
                Verdict::Failing,
                "not shown a picture yet",
            ),
            (
                |device| device.streams = vec![stream("porch", Some(10_000))],
                Verdict::Failing,
                "`porch` has shown no picture for 10 s",
            ),
            (
                |device| device.streams.push(stream("yard", Some(99_000))),
                Verdict::Degraded,
                "`yard` has shown no picture for 99 s",
            ),
            (|device| device.streams[0].age = Some(Duration::from_millis(9_999)), Verdict::Ok, ""),
            (
                |device| device.broker = Some(signaling::Figures::default()),
                Verdict::Degraded,
                "broker",
            ),
            (|device| device.broker = None, Verdict::Ok, ""),
            (|device| device.config_error = Some("line 7".into()), Verdict::Degraded, "line 7"),
        ];
        for (change, verdict, words) in cases {
            let mut device = well();
            change(&mut device);
            let health = Health::of(&device);
            assert_eq!(health.status, verdict, "{health:?}");
            assert_eq!(health.reasons.is_empty(), words.is_empty(), "{health:?}");
            assert!(health.reasons.iter().all(|reason| reason.contains(words)), "{health:?}");
        }
    }

    #[test]
    fn the_worst_counts_and_every_reason_is_told() {
        let mut device = well();
        device.driver = None;
        device.config_error = Some("line 7".into());
        device.streams[0].age = None;
        device.streams[0].trouble = Some("the cable is out".to_owned());
        let health = Health::of(&device);
        assert_eq!((health.status, health.reasons.len()), (Verdict::Failing, 3));
        assert!(health.reasons[1].ends_with("yet: the cable is out"), "{health:?}");
    }
}
