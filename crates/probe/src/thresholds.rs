//! What a run has to reach.

use clap::Args;

use crate::args::milliseconds;
use crate::network::percent;
use crate::report::{Report, ViewerReport};
use crate::samples::Summary;

/// Limits; one that is not given is not checked, but for `max_failed`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Thresholds")]
pub struct Thresholds {
    /// Viewers that may fail: refused, never a picture, or closed before the end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_failed: usize,
    /// From sending the offer to the first whole key frame, p95 over all viewers, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub max_first_key_p95_ms: Option<f64>,
    /// The same from sending hello.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub max_hello_first_key_p95_ms: Option<f64>,
    /// Pictures a second, for every viewer.
    #[arg(long, value_name = "FPS", value_parser = rate)]
    pub min_fps: Option<f64>,
    /// Pictures shown, for every viewer.
    #[arg(long, value_name = "N")]
    pub min_frames: Option<u64>,
    /// Pictures lost on the way or undecodable after a loss, for every viewer.
    #[arg(long, value_name = "N")]
    pub max_lost_frames: Option<u64>,
    /// Pictures the device left out (jumps of the RTP timestamp without a lost packet), for every viewer.
    #[arg(long, value_name = "N")]
    pub max_skipped_frames: Option<u64>,
    /// Pictures of which every packet came, in percent of those that were sent (from --settle-seconds on), for every viewer.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub min_whole_percent: Option<f64>,
    /// Pictures that were late (--late-ms), for every viewer.
    #[arg(long, value_name = "N")]
    pub max_late_frames: Option<u64>,
    /// Freezes, for every viewer.
    #[arg(long, value_name = "N")]
    pub max_freezes: Option<u64>,
    /// From capture to the whole picture received, p95 over all pictures of all viewers, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub max_latency_p95_ms: Option<f64>,
    /// The same, p99.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub max_latency_p99_ms: Option<f64>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fps) if (0.0..=1_000.0).contains(&fps) => Ok(fps),
        Ok(_) | Err(_) => Err("a number of pictures a second from 0 to 1000 is wanted".to_owned()),
    }
}

impl Thresholds {
    /// A sentence for each limit that is missed. Something that could not be measured misses its limit.
    pub fn missed(&self, report: &Report) -> Vec<String> {
        let mut missed = Vec::new();
        let failed: Vec<_> = report.per_viewer.iter().filter(|viewer| viewer.failed.is_some()).collect();
        if failed.len() > self.max_failed {
            let first = failed.first().and_then(|viewer| viewer.failed.as_deref()).unwrap_or_default();
            missed.push(format!(
                "{} of {} viewers failed, {} may; the first: {first}",
                failed.len(),
                report.per_viewer.len(),
                self.max_failed
            ));
        }
        let p95 = |it: Summary| it.p95;
        let percentiles = [
            (
                "offer to first key frame: p95",
                report.offer_to_key_ms.map(p95),
                self.max_first_key_p95_ms,
            ),
            (
                "hello to first key frame: p95",
                report.hello_to_key_ms.map(p95),
                self.max_hello_first_key_p95_ms,
            ),
            ("latency: p95", report.latency_ms.map(p95), self.max_latency_p95_ms),
            ("latency: p99", report.latency_ms.map(|it| it.p99), self.max_latency_p99_ms),
        ];
        for (what, value, limit) in percentiles {
            match (value, limit) {
                (Some(value), Some(limit)) if value > limit => missed.push(format!("{what} is {value:.1} ms, at most {limit} ms wanted")),
                (None, Some(limit)) => missed.push(format!("{what} was not measured, at most {limit} ms wanted")),
                (Some(_) | None, _) => {}
            }
        }
        for viewer in &report.per_viewer {
            let name = viewer.viewer;
            match (viewer.fps, self.min_fps) {
                (Some(fps), Some(limit)) if fps < limit => {
                    missed.push(format!("viewer {name}: {fps:.2} pictures a second, at least {limit} wanted"));
                }
                (None, Some(limit)) => missed.push(format!(
                    "viewer {name}: pictures a second were not measured, since none was shown; at least {limit} wanted"
                )),
                (Some(_) | None, _) => {}
            }
            if let Some(limit) = self.min_frames
                && viewer.frames_shown < limit
            {
                missed.push(format!(
                    "viewer {name}: {} pictures shown, at least {limit} wanted",
                    viewer.frames_shown
                ));
            }
            match (viewer.whole_percent, self.min_whole_percent) {
                (Some(percent), Some(limit)) if percent < limit => {
                    missed.push(format!(
                        "viewer {name}: {percent:.2} % of the pictures came whole, at least {limit} % wanted"
                    ));
                }
                (None, Some(limit)) => missed.push(format!(
                    "viewer {name}: how many pictures came whole was not measured, at least {limit} % wanted; does it watch for longer \
                     than --settle-seconds?"
                )),
                (Some(_) | None, _) => {}
            }
            if self.max_late_frames.is_some() && viewer.latency_ms.is_none() {
                missed.push(format!("viewer {name}: whether pictures were late was not measured"));
            }
            type Count = fn(&ViewerReport) -> u64;
            let counts: [(&str, Count, Option<u64>); 4] = [
                (
                    "pictures lost or undecodable",
                    |it| it.frames_lost + it.frames_undecodable,
                    self.max_lost_frames,
                ),
                ("pictures left out by the device", |it| it.frames_skipped, self.max_skipped_frames),
                ("late pictures", |it| it.frames_late, self.max_late_frames),
                ("freezes", |it| it.freezes, self.max_freezes),
            ];
            for (what, count, limit) in counts {
                if limit.is_some() && viewer.fps.is_none() {
                    missed.push(format!("viewer {name}: {what} were not counted, since no picture was shown"));
                }
                if let Some(limit) = limit.filter(|limit| count(viewer) > *limit) {
                    missed.push(format!("viewer {name}: {} {what}, at most {limit} wanted", count(viewer)));
                }
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Samples;

    fn report() -> Report {
        let summary = |value| {
            let mut samples = Samples::default();
            samples.push(value);
            samples.summary()
        };
        Report {
            offer_to_key_ms: summary(120.0),
            hello_to_key_ms: summary(140.0),
            latency_ms: summary(40.0),
            per_viewer: vec![ViewerReport {
                fps: Some(29.9),
                frames_shown: 299,
                frames_lost: 1,
                frames_undecodable: 2,
                frames_skipped: 4,
                frames_late: 5,
                whole_percent: Some(99.6),
                latency_ms: summary(40.0),
                freezes: 1,
                ..ViewerReport::default()
            }],
            ..Report::default()
        }
    }

    /// Sets one limit.
    type Set = fn(&mut Thresholds, f64);

    #[test]
    fn each_limit_is_met_at_its_value_and_missed_beyond_it() {
        let upper: [(Set, f64); 8] = [
            (|it, limit| it.max_first_key_p95_ms = Some(limit), 120.0),
            (|it, limit| it.max_hello_first_key_p95_ms = Some(limit), 140.0),
            (|it, limit| it.max_latency_p95_ms = Some(limit), 40.0),
            (|it, limit| it.max_latency_p99_ms = Some(limit), 40.0),
            (|it, limit| it.max_late_frames = Some(limit as u64), 5.0),
            (|it, limit| it.max_lost_frames = Some(limit as u64), 3.0),
            (|it, limit| it.max_skipped_frames = Some(limit as u64), 4.0),
            (|it, limit| it.max_freezes = Some(limit as u64), 1.0),
        ];
        let lower: [(Set, f64); 3] = [
            (|it, limit| it.min_fps = Some(limit), 29.9),
            (|it, limit| it.min_whole_percent = Some(limit), 99.6),
            (|it, limit| it.min_frames = Some(limit as u64), 299.0),
        ];
        for ((set, value), beyond) in upper.into_iter().map(|it| (it, -1.0)).chain(lower.into_iter().map(|it| (it, 1.0))) {
            for (limit, misses) in [(value, 0), (value + beyond, 1)] {
                let mut thresholds = Thresholds::default();
                set(&mut thresholds, limit);
                let missed = thresholds.missed(&report());
                assert_eq!(missed.len(), misses, "limit {limit}: {missed:?}");
            }
        }
    }

    #[test]
    fn what_was_not_measured_is_missed_and_a_viewer_that_fails_is_told() {
        let thresholds = Thresholds {
            max_latency_p95_ms: Some(50.0),
            min_fps: Some(1.0),
            ..Thresholds::default()
        };
        let mut report = report();
        report.latency_ms = None;
        report.per_viewer[0].fps = None;
        report.per_viewer[0].failed = Some("the device refused: busy".to_owned());
        let missed = thresholds.missed(&report);
        assert_eq!(missed.len(), 3, "{missed:?}");
        assert!(missed[0].contains("the device refused: busy"), "{missed:?}");
        report.per_viewer[0].whole_percent = None;
        let counted = Thresholds {
            max_failed: 1,
            min_fps: Some(1.0),
            min_whole_percent: Some(1.0),
            max_freezes: Some(100),
            ..Thresholds::default()
        };
        let missed = counted.missed(&report);
        assert_eq!(missed.len(), 3, "{missed:?}");
        assert!(missed.iter().all(|it| it.contains(" not ") && !it.contains("0.00")), "{missed:?}");
        assert_eq!(
            Thresholds {
                max_failed: 1,
                ..Thresholds::default()
            }
            .missed(&report),
            Vec::<String>::new()
        );
    }
}
