//! Logs: to standard error, one line an event, fields rather than sentences.

use tracing_subscriber::EnvFilter;

/// Starts logging with `filter`; the environment variable `PEERCAM_LOG` overrides it. Later calls change nothing.
pub fn init(filter: &str) {
    let filter = std::env::var("PEERCAM_LOG").unwrap_or_else(|_| filter.to_owned());
    // What the WebRTC stack warns of is mostly what somebody sent us, at a rate of their choice.
    const QUIET: &str = "str0m=error,is=error,dimpl=error,sctp_proto=error";
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    // Under systemd the journal has its own stamps and no colours.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say so on standard error, and panic, when standard error is gone (`2>&1 | head`).
        .log_internal_errors(false)
        .with_ansi(false);
    let _ = if journal {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
}
