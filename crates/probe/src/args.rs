//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use peercam::media::Quality;

use crate::network::Weather;
use crate::thresholds::Thresholds;

const EXIT: &str = "Exit code: 0 if all thresholds are met, 1 if one is missed (the report says which), 2 if the broker or the \
device can't be reached or the command line is wrong. SIGINT and SIGTERM end the run early, with the report.

Example: peercam-probe --broker tcp://127.0.0.1:1883 --viewers 20 --join-spread-ms 4000 --max-first-key-p95-ms 150";

/// Headless viewers for a peercam device: joins over MQTT, HTTP or WHEP, receives over WebRTC, measures.
///
/// Prints, for every viewer and for all together: time to the first decodable key frame, frame rate, pictures lost, freezes,
/// latency from capture to the whole picture received, path and round trip. Nothing is decoded: a picture counts as shown when
/// it is whole and all pictures since its key frame were.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT, after_long_help = EXIT)]
#[command(group = clap::ArgGroup::new("door").required(true).args(["broker", "http", "whep"]))]
pub struct Args {
    /// Join by a broker at this URL: `tcp://`, `tls://`, `ws://` or `wss://`, then `HOST[:PORT][/PATH]`.
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Join by the device's own HTTP carrier: the URL of the page that it serves, `http://HOST[:PORT]`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["device", "username", "ca"])]
    pub http: Option<String>,
    /// Join by WHEP: `http://HOST[:PORT]/whep`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["device", "username", "ca"])]
    pub whep: Option<String>,
    /// The device's id; may be left out where the broker knows exactly one.
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// The stream's name; the device's first one if left out.
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// The stream's rung to begin with.
    #[arg(long, value_enum, default_value_t = QualityChoice::High, conflicts_with = "whep")]
    pub quality: QualityChoice,
    /// Go from one rung to the other so often, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(50..), conflicts_with = "whep")]
    pub change_quality_ms: Option<u32>,
    /// Viewers at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub viewers: u16,
    /// How long to watch after the last viewer has begun to join, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = some_seconds)]
    pub seconds: f64,
    /// Viewers join at random moments within this span, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub join_spread_ms: u32,
    /// The same seed gives the same join moments, and the same luck on an emulated network.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Count latency, late pictures and the percentage of whole ones only from so many seconds after a viewer's first key frame on:
    /// the pictures that a joiner catches up with are old, and come all at once.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = seconds)]
    pub settle_seconds: f64,
    /// Count a picture as late if it was whole more than so many milliseconds after its capture.
    #[arg(long, value_name = "MS", default_value_t = 250.0, value_parser = milliseconds)]
    pub late_ms: f64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Write the first viewer's stream: Annex B, 4-byte start codes, every NAL unit in order, from the first picture received.
    #[arg(long, value_name = "FILE.h264")]
    pub save: Option<PathBuf>,
    /// Which clock latency is measured with.
    #[arg(long, value_enum, default_value_t = ClockChoice::Auto)]
    pub clock: ClockChoice,
    /// Offer only this local address; may be given more than once. All of this machine's if left out; loopback ones only when
    /// the broker or the device's HTTP server is on loopback too.
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// Offer no transport-wide congestion control feedback, as viewers that know none.
    #[arg(long)]
    pub no_twcc: bool,
    /// Ask for a key frame (PLI) so often, whatever is seen: to test what a device takes from a viewer that means harm.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub pli_per_second: Option<u16>,
    /// How long to wait for the broker, in seconds.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = some_seconds)]
    pub connect_secs: f64,
    /// A PEM file of certificate authorities to trust besides the system's, for tls:// and wss://.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// MQTT user name.
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// A file that holds the MQTT password.
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub weather: Weather,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// A rung of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QualityChoice {
    /// What the camera is set to.
    High,
    /// Half its width and height, where there is such a rung.
    Low,
}

impl From<QualityChoice> for Quality {
    fn from(choice: QualityChoice) -> Self {
        match choice {
            QualityChoice::High => Self::High,
            QualityChoice::Low => Self::Low,
        }
    }
}

/// Which clock tells when a picture arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClockChoice {
    /// `local` for a device on this machine, else `device`.
    Auto,
    /// This machine's clock as it is: right on one machine, or where both clocks are kept by PTP or NTP.
    Local,
    /// This machine's clock, corrected by the offset measured with `session.clock`.
    Device,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0 * 7.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("a number of seconds from 0 to 604800 is wanted".to_owned()),
    }
}

/// Less is no time to measure anything in.
fn some_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0 * 7.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("a number of seconds from 0.1 to 604800 is wanted".to_owned()),
    }
}

/// Reads a time; also for thresholds, where a negative one or none would mean nothing.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(milliseconds) if (0.0..=86_400_000.0).contains(&milliseconds) => Ok(milliseconds),
        Ok(_) | Err(_) => Err("a number of milliseconds from 0 to 86400000 is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let read = |more: &[&str]| Args::try_parse_from([&["peercam-probe", "--http", "http://cam"][..], more].concat());
        for good in [
            &[][..],
            &["--seconds", "0.5"],
            &["--settle-seconds", "0"],
            &["--min-whole-percent", "100"],
            &["--min-fps", "29.5"],
        ] {
            assert!(read(good).is_ok(), "{good:?}");
        }
        for (option, value) in [
            ("--seconds", "0"),
            ("--seconds", "NaN"),
            ("--connect-secs", "0"),
            ("--min-whole-percent", "101"),
            ("--min-whole-percent", "NaN"),
            ("--min-fps", "NaN"),
            ("--min-fps", "-1"),
            ("--max-first-key-p95-ms", "NaN"),
            ("--max-hello-first-key-p95-ms", "inf"),
            ("--max-latency-p95-ms", "-1"),
            ("--max-latency-p99-ms", "x"),
        ] {
            let given = format!("{option}={value}");
            let error = read(&[given.as_str()]).expect_err(&given).to_string();
            assert!(error.contains("is wanted"), "{error}");
        }
    }
}
