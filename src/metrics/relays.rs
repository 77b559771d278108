//! The STUN and TURN servers' figures.

use std::fmt;

use super::Snapshot;
use super::page::Page;
use crate::net::RelayFigures;

/// Writes them.
///
/// # Errors
/// As [`super::page::render`].
pub fn relays(snapshot: &Snapshot, page: &mut Page<'_>) -> fmt::Result {
    let servers = snapshot.driver.as_ref().map_or(&[][..], |driver| &driver.relays);
    let each = |value: fn(&RelayFigures) -> u64| {
        servers
            .iter()
            .map(move |(url, figures)| (vec![("server", url.as_str())], value(figures)))
    };
    let mappings = snapshot.driver.as_ref().map_or(&[][..], |driver| &driver.mappings);
    page.gauge(
        "peercam_stun_mapped",
        "Addresses of the device that the STUN server has told how it sees them.",
        mappings.iter().map(|(url, told)| (vec![("server", url.as_str())], *told)),
    )?;
    page.gauge(
        "peercam_relay_up",
        "Addresses that the TURN server lends the device now, one for each thread with viewers.",
        each(|figures| figures.up),
    )?;
    page.counter(
        "peercam_relay_allocations",
        "How often the TURN server has lent the device an address.",
        each(|figures| figures.allocations),
    )?;
    page.counter(
        "peercam_relay_failures",
        "Tries at the TURN server that failed, and addresses that were lost.",
        each(|figures| figures.failures),
    )?;
    page.counter(
        "peercam_relay_datagrams_sent",
        "Datagrams for viewers given to the TURN server.",
        each(|figures| figures.sent),
    )?;
    page.counter(
        "peercam_relay_datagrams_dropped",
        "Datagrams for viewers that found no way to the TURN server, or no room.",
        each(|figures| figures.dropped),
    )?;
    page.counter(
        "peercam_relay_datagrams_received",
        "Datagrams of viewers that came through the TURN server.",
        each(|figures| figures.received),
    )
}
