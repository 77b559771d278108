//! What a run measured, for programs (JSON) and for people (a table).

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::args::ClockChoice;
use crate::dialogue::Failure;
use crate::moment::Moment;
use crate::network::Weather;
use crate::offset::Estimate;
use crate::samples::{Samples, Summary};
use crate::viewer::{Milestones, Viewer};

/// The probe's own lag (p95) beyond which what it measured is rather its own.
const TOO_SLOW_MS: f64 = 20.0;

/// One run. Times are in milliseconds, `frames_*` are pictures.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub device: String,
    pub viewers: usize,
    /// How long the whole run took.
    pub seconds: f64,
    /// Thresholds that were missed; empty if all is well.
    pub missed: Vec<String>,
    pub offer_to_key_ms: Option<Summary>,
    pub hello_to_key_ms: Option<Summary>,
    pub latency_ms: Option<Summary>,
    pub fps: Option<Summary>,
    pub frames_shown: u64,
    pub frames_lost: u64,
    pub frames_undecodable: u64,
    pub frames_skipped: u64,
    pub frames_late: u64,
    /// Pictures of which every packet came, in percent of those that were sent since the viewer had settled, over viewers.
    pub whole_percent: Option<Summary>,
    pub freezes: u64,
    pub datagram_bytes: u64,
    /// The network that was emulated, if one was.
    pub network: Option<Weather>,
    /// From the kernel's arrival stamp to this program's attention: large values mean that the probe itself is too slow.
    pub probe_lag_ms: Option<Summary>,
    /// The device's statuses during the run, as it sent them, with the milliseconds since the run began.
    pub statuses: Vec<(f64, serde_json::Value)>,
    pub save_error: Option<String>,
    pub per_viewer: Vec<ViewerReport>,
}

/// One viewer of a run.
#[derive(Debug, Default, Serialize)]
pub struct ViewerReport {
    pub viewer: usize,
    pub peer: String,
    /// Why it did not reach the end of the run with a picture, in the device's own words where it has some.
    pub failed: Option<String>,
    pub hello_reply_ms: Option<f64>,
    pub answer_ms: Option<f64>,
    pub connected_ms: Option<f64>,
    pub offer_to_key_ms: Option<f64>,
    pub hello_to_key_ms: Option<f64>,
    pub fps: Option<f64>,
    pub frames_shown: u64,
    pub key_frames: u64,
    pub frames_lost: u64,
    pub frames_undecodable: u64,
    pub frames_skipped: u64,
    pub frames_malformed: u64,
    /// Whole so long after capture that they count as late.
    pub frames_late: u64,
    pub whole_percent: Option<f64>,
    pub nal_units: u64,
    pub freezes: u64,
    pub frozen_ms: f64,
    pub latency_ms: Option<Summary>,
    /// Which clock `latency_ms` was measured with: `local`, or `device` for ours corrected by `clock_offset`.
    pub latency_clock: Option<&'static str>,
    /// The device's capture clock minus ours, by `session.clock`.
    pub clock_offset: Option<Estimate>,
    pub interval_ms: Option<Summary>,
    pub datagram_bytes: u64,
    pub video_bytes: u64,
    pub packets: u64,
    pub packets_lost: u64,
    pub packets_late: u64,
    pub nacks: u64,
    pub plis: u64,
    pub jitter_ms: Option<f64>,
    pub rtt_ms: Option<f64>,
    /// Local address, the device's address, and what kind of candidate that is.
    pub path: Option<String>,
    /// Whether the device was heard at all.
    #[serde(skip)]
    pub answered: bool,
    pub control_open_ms: Option<f64>,
    pub control_round_trip_ms: Option<Summary>,
    pub control_error: Option<String>,
    /// The rungs that the device has granted while the session ran.
    pub qualities: Vec<peercam::media::Quality>,
    /// The device's own last statistics of this session.
    pub session_stats: Option<peercam::protocol::SessionStats>,
}

/// What one viewer hands in: its report, and its delays to be pooled with the others'.
pub struct Account {
    pub report: ViewerReport,
    pub latency_ms: Samples,
}

/// How viewers are read at the end of their run.
pub struct Reading<'a> {
    /// This machine's addresses.
    pub own: &'a [IpAddr],
    pub clock: ClockChoice,
    /// From capture to the whole picture; what takes longer is late.
    pub late_ms: f64,
    /// Whether the device answers a hello at this door; by WHEP it does not.
    pub has_hello: bool,
    pub end: Moment,
}

impl Account {
    /// Reads a viewer.
    pub fn of(index: usize, peer: String, viewer: &Viewer, reading: &Reading<'_>) -> Self {
        let Reading {
            own,
            clock,
            late_ms,
            has_hello,
            end,
        } = *reading;
        let tally = &viewer.video.tally;
        let at = viewer.milestones;
        let end = at.ended.unwrap_or(end);
        let between = |from: Option<Moment>, to: Option<Moment>| Some(to?.ms_since(from?));
        let offset = viewer.control.offset.estimate();
        let local = match clock {
            ClockChoice::Auto => viewer.is_local(own),
            ClockChoice::Local => true,
            ClockChoice::Device => false,
        };
        let (clock, shift) = match offset {
            _ if local => (Some("local"), 0.0),
            Some(estimate) => (Some("device"), estimate.offset_ms),
            None => (None, 0.0),
        };
        let mut latency_ms = Samples::default();
        if clock.is_some() {
            latency_ms.absorb(&tally.delay_ms, shift);
        }
        let latency = latency_ms.summary();
        let ingress = viewer.ingress.as_ref();
        let failed = match &viewer.failure {
            Some(failure) => Some(failure.to_string()),
            None => tally.first_key.is_none().then(|| missing(at).to_owned()),
        };
        let report = ViewerReport {
            viewer: index,
            peer,
            failed,
            hello_reply_ms: between(at.hello, at.hello_reply).filter(|_| has_hello),
            answer_ms: between(at.offer, at.answer),
            connected_ms: between(at.offer, at.connected),
            offer_to_key_ms: between(at.offer, tally.first_key),
            hello_to_key_ms: between(at.hello, tally.first_key),
            fps: tally.fps(end),
            frames_shown: tally.shown,
            key_frames: tally.key_frames,
            frames_lost: tally.lost,
            frames_undecodable: tally.undecodable,
            frames_skipped: tally.skipped,
            frames_malformed: tally.malformed,
            frames_late: latency_ms.above(late_ms),
            whole_percent: tally.whole_percent(),
            nal_units: tally.nal_units,
            freezes: tally.freezes,
            frozen_ms: tally.frozen_ms,
            latency_ms: latency,
            latency_clock: latency.and(clock),
            clock_offset: offset,
            interval_ms: tally.interval_ms.summary(),
            datagram_bytes: viewer.datagram_bytes,
            video_bytes: viewer.video.bytes,
            packets: viewer.video.packets,
            packets_lost: tally.lost_packets,
            packets_late: viewer.video.late_packets(),
            nacks: ingress.map_or(0, |stats| stats.nacks),
            plis: viewer.video.plis,
            jitter_ms: ingress.map(|stats| f64::from(stats.jitter) / 90.0),
            rtt_ms: viewer
                .pair
                .as_ref()
                .and_then(|pair| pair.current_round_trip_time)
                .map(|rtt| rtt.as_secs_f64() * 1e3),
            path: viewer.pair.as_ref().map(|pair| {
                let kind = viewer.remote_kind(pair.remote.addr);
                format!("{} to {} ({kind})", pair.local.addr, pair.remote.addr)
            }),
            answered: if has_hello {
                at.hello_reply.is_some()
            } else {
                at.answer.is_some() || matches!(viewer.failure, Some(Failure::Refused(_)))
            },
            control_open_ms: between(at.offer, viewer.control.open),
            control_round_trip_ms: viewer.control.round_trip_ms.summary(),
            control_error: viewer.control.error.clone(),
            qualities: viewer.control.granted.clone(),
            session_stats: viewer.control.stats.clone(),
        };
        Self { report, latency_ms }
    }
}

impl Report {
    /// All viewers together; thresholds are not looked at yet.
    pub fn of(device: String, seconds: f64, lag_ms: &Samples, accounts: Vec<Account>) -> Self {
        let mut latency_ms = Samples::default();
        accounts.iter().for_each(|account| latency_ms.absorb(&account.latency_ms, 0.0));
        let per_viewer: Vec<ViewerReport> = accounts.into_iter().map(|account| account.report).collect();
        let over = |value: fn(&ViewerReport) -> Option<f64>| {
            let mut samples = Samples::default();
            per_viewer.iter().filter_map(value).for_each(|value| samples.push(value));
            samples.summary()
        };
        let sum = |value: fn(&ViewerReport) -> u64| per_viewer.iter().map(value).sum();
        Self {
            device,
            viewers: per_viewer.len(),
            seconds,
            missed: Vec::new(),
            offer_to_key_ms: over(|it| it.offer_to_key_ms),
            hello_to_key_ms: over(|it| it.hello_to_key_ms),
            latency_ms: latency_ms.summary(),
            fps: over(|it| it.fps),
            frames_shown: sum(|it| it.frames_shown),
            frames_lost: sum(|it| it.frames_lost),
            frames_undecodable: sum(|it| it.frames_undecodable),
            frames_skipped: sum(|it| it.frames_skipped),
            frames_late: sum(|it| it.frames_late),
            whole_percent: over(|it| it.whole_percent),
            freezes: sum(|it| it.freezes),
            datagram_bytes: sum(|it| it.datagram_bytes),
            probe_lag_ms: lag_ms.summary(),
            network: None,
            statuses: Vec::new(),
            save_error: None,
            per_viewer,
        }
    }

    /// Whether the device answered none of the viewers.
    pub fn unreachable(&self) -> bool {
        self.per_viewer.iter().all(|viewer| !viewer.answered)
    }
}

/// A number with one decimal, or a dash.
fn one(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let viewers = if self.viewers == 1 { "viewer" } else { "viewers" };
        writeln!(f, "device {}, {} {viewers}, {:.1} s", self.device, self.viewers, self.seconds)?;
        writeln!(f)?;
        let columns = [
            "viewer", "key ms", "fps", "shown", "lost", "undec", "skip", "late", "frz", "lat p50", "lat p95", "kbit/s", "nack", "pli",
            "rtt ms",
        ];
        let widths = [6, 8, 7, 7, 5, 5, 5, 5, 4, 8, 8, 8, 5, 4, 7];
        let row = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (cell, width) in cells.iter().zip(widths) {
                write!(f, "{cell:>width$} ")?;
            }
            writeln!(f)
        };
        row(f, &columns.map(str::to_owned))?;
        for it in &self.per_viewer {
            let watched_ms = it.fps.map(|fps| it.frames_shown as f64 * 1e3 / fps);
            let cells = [
                it.viewer.to_string(),
                one(it.offer_to_key_ms),
                one(it.fps),
                it.frames_shown.to_string(),
                it.frames_lost.to_string(),
                it.frames_undecodable.to_string(),
                it.frames_skipped.to_string(),
                it.frames_late.to_string(),
                it.freezes.to_string(),
                one(it.latency_ms.map(|it| it.p50)),
                one(it.latency_ms.map(|it| it.p95)),
                watched_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.0}", it.datagram_bytes as f64 * 8.0 / ms)),
                it.nacks.to_string(),
                it.plis.to_string(),
                one(it.rtt_ms),
            ];
            row(f, &cells)?;
        }
        writeln!(f)?;
        let lines = [
            ("offer to first key frame, ms", self.offer_to_key_ms),
            ("hello to first key frame, ms", self.hello_to_key_ms),
            ("capture to whole picture, ms", self.latency_ms),
            ("pictures a second", self.fps),
            ("pictures whole, %", self.whole_percent),
            ("the probe's own lag, ms", self.probe_lag_ms),
        ];
        for (what, summary) in lines {
            match summary {
                Some(it) => writeln!(
                    f,
                    "{what:<30} p50 {:>7.1}  p95 {:>7.1}  p99 {:>7.1}  max {:>7.1}  min {:>7.1}",
                    it.p50, it.p95, it.p99, it.max, it.min
                )?,
                None => writeln!(f, "{what:<30} not measured")?,
            }
        }
        if let Some(lag) = self.probe_lag_ms.filter(|lag| lag.p95 > TOO_SLOW_MS) {
            writeln!(
                f,
                "CAREFUL: this machine is too busy to measure on: datagrams waited up to {:.0} ms (p95) for the probe",
                lag.p95
            )?;
        }
        if let Some(network) = &self.network {
            writeln!(f, "{:<30} {network}", "emulated network")?;
        }
        // Who was refused has neither.
        let measured = self.per_viewer.iter().find(|viewer| viewer.latency_clock.is_some());
        let connected = || self.per_viewer.iter().find(|viewer| viewer.path.is_some());
        if let Some(first) = measured.or_else(connected).or(self.per_viewer.first()) {
            let clock = match (first.latency_clock, first.clock_offset) {
                (Some("local"), _) => "this machine's own".to_owned(),
                (Some(_), Some(it)) => format!(
                    "this machine's, corrected by {:.2} ms (error at most {:.2} ms)",
                    it.offset_ms, it.error_ms
                ),
                (None, _) | (Some(_), None) => "none: no capture times, or no clock exchange".to_owned(),
            };
            let whose = if self.viewers > 1 {
                format!(" (viewer {})", first.viewer)
            } else {
                String::new()
            };
            writeln!(f, "{:<30} {clock}{whose}", "clock for latency")?;
            writeln!(f, "{:<30} {}{whose}", "path", first.path.as_deref().unwrap_or("-"))?;
        }
        for it in &self.per_viewer {
            if let Some(reason) = &it.failed {
                writeln!(f, "viewer {} failed: {reason}", it.viewer)?;
            }
            if let Some(error) = &it.control_error {
                writeln!(f, "viewer {}, data channel: {error}", it.viewer)?;
            }
        }
        if let Some(error) = &self.save_error {
            writeln!(f, "saving failed: {error}")?;
        }
        for missed in &self.missed {
            writeln!(f, "MISSED {missed}")?;
        }
        if self.missed.is_empty() {
            writeln!(f, "all thresholds met")?;
        }
        Ok(())
    }
}

/// What a viewer without a picture was still waiting for at the end of the run.
fn missing(at: Milestones) -> &'static str {
    if at.hello_reply.is_none() {
        "no reply from the device: is its id right, and is it running?"
    } else if at.answer.is_none() {
        "the device did not answer the offer"
    } else if at.connected.is_none() {
        "no connection: is UDP blocked between here and the device?"
    } else {
        "no decodable key frame came"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewer(number: usize, clock: Option<&'static str>) -> ViewerReport {
        ViewerReport {
            viewer: number,
            latency_clock: clock,
            path: clock.map(|_| format!("path-{number}")),
            answered: true,
            ..ViewerReport::default()
        }
    }

    #[test]
    fn the_clock_is_that_of_a_viewer_who_measured() {
        let report = Report {
            viewers: 2,
            per_viewer: vec![viewer(0, None), viewer(1, Some("local"))],
            ..Report::default()
        };
        let text = report.to_string();
        assert!(text.contains("this machine's own (viewer 1)") && text.contains("path-1"), "{text}");
        assert!(text.contains("2 viewers") && !report.unreachable(), "{text}");
        let lone = Report {
            viewers: 1,
            per_viewer: vec![viewer(0, Some("local"))],
            ..Report::default()
        };
        assert!(lone.to_string().contains("1 viewer,"), "{lone}");
    }
}
