//! The figures as OpenMetrics text. Every name is here once, and once in `docs/metrics.md`; a test holds the two equal.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Snapshot, Stream};
use crate::net::{Latency, Spread};
use crate::protocol::StreamState;
use crate::session::Ending;
use crate::signaling::{Loss, Refusal};

const STATES: [(StreamState, &str); 4] = [
    (StreamState::Starting, "starting"),
    (StreamState::Live, "live"),
    (StreamState::Lost, "lost"),
    (StreamState::Unsupported, "unsupported"),
];

/// The text for one scrape, in OpenMetrics 1.0.
///
/// # Errors
/// None that is known: memory takes what is written.
pub fn render(snapshot: Arc<Snapshot>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// The same in Prometheus' older text format, which knows no families: help and type of a counter stand under its samples' name.
pub fn older(page: &str) -> String {
    let is_counter = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: BTreeSet<String> = page.lines().filter_map(is_counter).collect();
    let rewrite = |line: &str| {
        let about = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|what| Some((what, line.strip_prefix(what)?.split_once(' ')?)));
        match about {
            Some((what, (name, rest))) if counters.contains(name) => format!("{what}{name}_total {rest}\n"),
            Some(_) | None => format!("{line}\n"),
        }
    };
    page.lines().filter(|line| *line != "# EOF").map(rewrite).collect()
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.device(&mut page)?;
        self.streams(&mut page)?;
        self.sessions(&mut page)?;
        self.network(&mut page)?;
        super::relays::relays(self, &mut page)?;
        self.broker(&mut page)?;
        self.carriers(&mut page)?;
        self.process(&mut page)
    }
}

impl Snapshot {
    fn device(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        page.gauge("peercam_build_info", "The running version.", [(vec![("version", version)], 1u64)])?;
        page.gauge(
            "peercam_config_error",
            "1 while the configuration file is bad and the last good one is in force.",
            one(u64::from(self.config_error.is_some())),
        )?;
        page.gauge(
            "peercam_driver_up",
            "Whether the part that speaks to viewers answered this scrape.",
            one(u64::from(self.driver.is_some())),
        )?;
        page.gauge(
            "peercam_viewers_limit",
            "Viewers that may watch at once.",
            one(u64::from(self.max_viewers)),
        )
    }

    fn streams(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |value: fn(&Stream) -> u64| self.streams.iter().map(move |stream| (labels(stream), value(stream)));
        let states = self.cameras().flat_map(|stream| {
            STATES.iter().map(|(state, name)| {
                let labels = vec![("stream", stream.name.as_str()), ("state", *name)];
                (labels, u64::from(stream.state == *state))
            })
        });
        page.gauge("peercam_camera_state", "1 for the state in which the camera is.", states)?;
        page.gauge(
            "peercam_camera_resting",
            "1 while no pictures are made because nobody watches.",
            each(|stream| u64::from(stream.figures.resting)),
        )?;
        let ages = self
            .cameras()
            .filter_map(|stream| Some((vec![("stream", stream.name.as_str())], stream.age?.as_secs_f64())));
        page.gauge("peercam_picture_age_seconds", "How long ago the newest picture came.", ages)?;
        page.counter(
            "peercam_pictures",
            "Pictures that came from the camera, or from the encoder of its low rung.",
            each(|stream| stream.figures.pictures),
        )?;
        page.counter(
            "peercam_key_frames",
            "Key frames among them.",
            each(|stream| stream.figures.key_frames),
        )?;
        page.counter(
            "peercam_picture_bytes",
            "Bytes of H.264 in them.",
            each(|stream| stream.figures.bytes),
        )?;
        page.counter(
            "peercam_camera_pictures_skipped",
            "Pictures lost or damaged between the camera and the agent.",
            each(|stream| stream.figures.skipped),
        )?;
        page.counter(
            "peercam_ring_pictures_evicted",
            "Pictures forgotten because a group of pictures was larger than the ring.",
            each(|stream| stream.figures.evicted),
        )?;
        page.counter(
            "peercam_key_frame_requests",
            "Wishes for a key frame.",
            each(|stream| stream.key_frames.requested),
        )?;
        page.counter(
            "peercam_key_frame_requests_forwarded",
            "Wishes that reached the encoder; the rest were coalesced.",
            each(|stream| stream.key_frames.forwarded),
        )?;
        page.counter(
            "peercam_viewer_pictures_dropped",
            "Pictures not sent to a viewer who was too slow, once for each viewer.",
            each(|stream| stream.figures.dropped),
        )?;
        page.counter(
            "peercam_viewer_overflows",
            "How often a viewer was too slow and was cleared up to the next key frame.",
            each(|stream| stream.figures.overflows),
        )
    }

    fn sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        let driver = self.driver.as_ref();
        let count = |value: fn(&crate::net::Figures) -> u64| driver.map(|driver| (Vec::new(), value(driver)));
        let viewers = driver
            .map_or(&[][..], |driver| &driver.viewers)
            .iter()
            .zip(&self.streams)
            .map(|(viewers, stream)| (labels(stream), *viewers));
        page.gauge("peercam_viewers", "Sessions now, those that still connect included.", viewers)?;
        let latencies = driver
            .map_or(&[][..], |driver| &driver.latencies)
            .iter()
            .zip(&self.streams)
            .map(|(latency, stream)| (labels(stream), latency));
        page.histogram(
            "peercam_picture_latency_seconds",
            "Time from a picture's capture to its last packet given to the system, once for each viewer.",
            latencies,
        )?;
        page.counter(
            "peercam_sessions_opened",
            "Sessions that began.",
            count(|driver| driver.counted.opened),
        )?;
        page.counter(
            "peercam_sessions_connected",
            "Sessions that found a network path.",
            count(|driver| driver.counted.connected),
        )?;
        page.counter(
            "peercam_sessions_restarted",
            "ICE restarts of sessions.",
            count(|driver| driver.counted.restarted),
        )?;
        let closed = driver.iter().flat_map(|driver| {
            let reasons = Ending::ALL.iter().zip(&driver.closed);
            reasons.map(|(ending, count)| (vec![("reason", ending.name())], *count))
        });
        page.counter("peercam_sessions_closed", "Sessions that ended, by reason.", closed)?;
        let calls = self
            .calls
            .iter()
            .map(|(call, count)| (vec![("method", call.method), ("result", call.result)], *count));
        page.counter("peercam_requests", "Requests and notifications, by method and result.", calls)?;
        page.counter(
            "peercam_channel_requests_refused",
            "Requests over a data channel refused because too many of that viewer waited.",
            count(|driver| driver.sessions.busy),
        )?;
        page.counter(
            "peercam_session_addresses_refused",
            "Addresses of a viewer not remembered because it had too many.",
            count(|driver| driver.counted.addresses_refused),
        )?;
        page.counter(
            "peercam_session_turns_cut",
            "How often a session had more to do than its turn allows, and went on in the next.",
            count(|driver| driver.counted.turns_cut),
        )?;
        page.counter(
            "peercam_video_packets_sent",
            "RTP packets, retransmissions included.",
            count(|driver| driver.sessions.packets),
        )?;
        page.counter(
            "peercam_viewer_bytes_sent",
            "Bytes sent to viewers in all, as UDP payload.",
            count(|driver| driver.sessions.sent_bytes),
        )?;
        page.counter(
            "peercam_nacks_received",
            "Messages that ask for lost packets.",
            count(|driver| driver.sessions.nacks),
        )?;
        page.counter(
            "peercam_plis_received",
            "Messages that tell of a lost picture.",
            count(|driver| driver.sessions.plis),
        )?;
        page.counter(
            "peercam_firs_received",
            "Messages that ask for a key frame.",
            count(|driver| driver.sessions.firs),
        )?;
        let estimate = driver.and_then(|driver| Spread::of(&driver.estimates));
        page.spread(
            "peercam_viewer_estimate_bytes_per_second",
            "What congestion control believes the viewers' paths carry.",
            estimate,
        )?;
        let rtt = driver.and_then(|driver| Spread::of(&driver.rtts));
        page.spread("peercam_viewer_rtt_seconds", "Round trip time to the viewers.", rtt)?;
        let loss = driver.and_then(|driver| Spread::of(&driver.losses));
        page.spread(
            "peercam_viewer_loss_ratio",
            "Share of the last second's packets that were lost.",
            loss,
        )
    }

    fn network(&self, page: &mut Page<'_>) -> fmt::Result {
        let driver = self.driver.as_ref();
        let count = |value: fn(&crate::net::Figures) -> u64| driver.map(|driver| (Vec::new(), value(driver)));
        page.counter(
            "peercam_datagrams_sent",
            "Datagrams given to the system.",
            count(|driver| driver.traffic.sent.datagrams),
        )?;
        page.counter(
            "peercam_send_calls",
            "System calls for them.",
            count(|driver| driver.traffic.sent.calls),
        )?;
        page.counter(
            "peercam_datagrams_dropped",
            "Datagrams not sent because the socket was full or the network unreachable.",
            count(|driver| driver.traffic.sent.dropped),
        )?;
        page.counter(
            "peercam_datagrams_received",
            "Datagrams that came.",
            count(|driver| driver.counted.datagrams),
        )?;
        page.counter(
            "peercam_receive_calls",
            "System calls for them.",
            count(|driver| driver.traffic.receive_calls),
        )?;
        page.counter(
            "peercam_tcp_connections",
            "Connections of viewers by TCP.",
            count(|driver| driver.traffic.ice_tcp.accepted),
        )?;
        page.counter(
            "peercam_tcp_connections_refused",
            "Of those, closed by this device: nobody proved to be a viewer, or there were too many.",
            count(|driver| driver.traffic.ice_tcp.refused),
        )?;
        page.counter(
            "peercam_tcp_datagrams_dropped",
            "Datagrams that found no TCP connection, or no room in its queue.",
            count(|driver| driver.traffic.ice_tcp.dropped),
        )?;
        page.counter(
            "peercam_datagrams_unclaimed",
            "Datagrams that belonged to no session.",
            count(|driver| driver.counted.unclaimed),
        )?;
        page.counter(
            "peercam_datagrams_overflowed",
            "Datagrams that found the receive buffer full.",
            self.process.datagrams_overflowed.map(|count| (Vec::new(), count)),
        )?;
        page.counter(
            "peercam_driver_busy_seconds",
            "Processor time of the threads that serve viewers.",
            driver.map(|driver| (Vec::new(), driver.traffic.busy.as_secs_f64())),
        )?;
        page.counter(
            "peercam_driver_commands_refused",
            "Commands to the driver refused because too many waited.",
            one(self.commands_refused),
        )?;
        page.counter(
            "peercam_driver_notices_dropped",
            "Notices of the driver dropped because too many waited.",
            count(|driver| driver.counted.notices_dropped),
        )
    }

    fn broker(&self, page: &mut Page<'_>) -> fmt::Result {
        let broker = self.broker.as_ref();
        let count = |value: fn(&crate::signaling::Figures) -> u64| broker.map(|broker| (Vec::new(), value(broker)));
        page.gauge(
            "peercam_broker_connected",
            "Whether the broker has let the device in; absent without a broker.",
            count(|broker| broker.connected.into()),
        )?;
        page.counter(
            "peercam_broker_connections",
            "How often it has.",
            count(|broker| broker.connections),
        )?;
        page.counter(
            "peercam_broker_failures",
            "Connections that broke, and tries that failed.",
            count(|broker| broker.failures),
        )
    }

    fn carriers(&self, page: &mut Page<'_>) -> fmt::Result {
        type Own = crate::signaling::Figures;
        let each = |value: fn(&Own) -> u64| {
            let own = self.carriers.iter();
            own.map(move |(carrier, own)| (vec![("carrier", *carrier)], value(own)))
        };
        page.counter("peercam_messages_received", "Messages of peers.", each(|own| own.received))?;
        page.counter("peercam_messages_sent", "Messages handed over to be sent.", each(|own| own.sent))?;
        let refused = self.carriers.iter().flat_map(|(carrier, own)| {
            let reasons = Refusal::ALL.iter().zip(&own.refused);
            reasons.map(|(refusal, count)| (vec![("carrier", *carrier), ("reason", refusal.name())], *count))
        });
        page.counter("peercam_messages_refused", "Messages of peers not carried out, by reason.", refused)?;
        let lost = self.carriers.iter().flat_map(|(carrier, own)| {
            let reasons = Loss::ALL.iter().zip(&own.lost);
            reasons.map(|(loss, count)| (vec![("carrier", *carrier), ("reason", loss.name())], *count))
        });
        page.counter("peercam_messages_dropped", "Messages to peers not sent, by reason.", lost)?;
        page.counter(
            "peercam_messages_unmetered",
            "Messages of peers beyond those whose pace can be remembered.",
            each(|own| own.unmetered),
        )?;
        let forgotten = self.carriers.iter().find(|(carrier, _)| *carrier == "whep");
        page.counter(
            "peercam_whep_sessions_forgotten",
            "Sessions of WHEP forgotten because too many were remembered.",
            forgotten.map(|(_, own)| (Vec::new(), own.forgotten)),
        )?;
        let server = self.server.as_ref();
        page.gauge(
            "peercam_http_connections",
            "HTTP connections now.",
            server.map(|server| (Vec::new(), server.open)),
        )?;
        page.counter(
            "peercam_http_connections_evicted",
            "HTTP connections ended because all places were taken.",
            server.map(|server| (Vec::new(), server.evicted)),
        )
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let process = &self.process;
        let known = |value: Option<u64>| value.map(|value| (Vec::new(), value));
        page.counter("process_cpu_seconds", "CPU time, user and system.", one(process.cpu_seconds))?;
        page.gauge("process_resident_memory_bytes", "Resident memory.", known(process.resident_bytes))?;
        page.gauge("process_open_fds", "Open file descriptors.", known(process.open_fds))?;
        page.gauge("process_max_fds", "File descriptors that may be open.", known(process.max_fds))?;
        page.gauge("process_threads", "Threads.", known(process.threads))?;
        let start = process.start_seconds.map(|start| (Vec::new(), start));
        page.gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", start)
    }
}

/// A metric's labels and its value.
pub(super) type Sample<'a, V> = (Vec<(&'static str, &'a str)>, V);

fn labels(stream: &Stream) -> Vec<(&'static str, &str)> {
    vec![("stream", stream.name.as_str()), ("quality", stream.quality.name())]
}

fn one<V>(value: V) -> Option<Sample<'static, V>> {
    Some((Vec::new(), value))
}

pub(super) struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// `name` is the family's: its samples end in `_total`.
    pub(super) fn counter<'s, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'s, V>>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            let exemplar: Option<&prometheus_client::metrics::exemplar::Exemplar<[(&str, &str); 0], u64>> = None;
            if labels.is_empty() {
                metric.encode_counter(&value, exemplar)?;
            } else {
                metric.encode_family(&labels)?.encode_counter(&value, exemplar)?;
            }
        }
        Ok(())
    }

    pub(super) fn gauge<'s, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'s, V>>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histogram<'s>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'s, &'s Latency>>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, latency) in samples {
            metric.encode_family(&labels)?.encode_histogram::<[(&str, &str); 0]>(
                latency.sum_seconds(),
                latency.count(),
                &latency.buckets(),
                None,
            )?;
        }
        Ok(())
    }

    /// Smallest, median and largest of the viewers; nothing without viewers. Nobody's own value is told with a name.
    fn spread(&mut self, name: &str, help: &str, spread: Option<Spread>) -> fmt::Result {
        let samples = spread.into_iter().flat_map(|Spread { min, median, max }| {
            [("min", min), ("median", median), ("max", max)].map(|(name, value)| (vec![("aggregate", name)], value))
        });
        self.gauge(name, help, samples)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::health::tests::{stream, well};
    use super::*;
    use crate::net::Figures;

    fn page(snapshot: Snapshot) -> String {
        render(Arc::new(snapshot)).expect("a page")
    }

    #[test]
    fn values_are_told_with_their_labels() {
        let mut device = well();
        device.streams.push(stream("yard", None));
        device.streams[1].state = StreamState::Lost;
        device.streams[1].figures.dropped = 7;
        let mut latency = Latency::default();
        latency.note(Duration::from_millis(4));
        latency.note(Duration::from_secs(2));
        device.driver = Some(Figures {
            latencies: vec![latency],
            viewers: vec![2, 0],
            rtts: vec![0.001, 0.25],
            ..Figures::default()
        });
        let page = page(device);
        for line in [
            "peercam_camera_state{stream=\"yard\",state=\"lost\"} 1",
            "peercam_camera_state{stream=\"yard\",state=\"live\"} 0",
            "peercam_camera_state{stream=\"porch\",state=\"live\"} 1",
            "peercam_viewer_pictures_dropped_total{stream=\"yard\",quality=\"high\"} 7",
            "peercam_viewers{stream=\"porch\",quality=\"high\"} 2",
            "peercam_viewer_rtt_seconds{aggregate=\"max\"} 0.25",
            "peercam_picture_latency_seconds_bucket{le=\"0.005\",stream=\"porch\",quality=\"high\"} 1",
            "peercam_picture_latency_seconds_bucket{le=\"+Inf\",stream=\"porch\",quality=\"high\"} 2",
            "peercam_picture_latency_seconds_count{stream=\"porch\",quality=\"high\"} 2",
            "peercam_picture_age_seconds{stream=\"porch\"} 0.04",
            "peercam_sessions_closed_total{reason=\"never_connected\"} 0",
            "peercam_driver_up 1",
        ] {
            assert!(page.lines().any(|told| told == line), "{line}\n{page}");
        }
        assert!(
            !page.contains("peercam_picture_age_seconds{stream=\"yard\"}"),
            "there is no picture yet"
        );
        assert!(!page.contains("peercam_viewer_loss_ratio{"), "nobody told of losses");
        assert!(page.ends_with("# EOF\n"));
        let older = older(&page);
        assert!(
            older.contains("# TYPE peercam_requests_total counter\n") && older.contains("# TYPE peercam_viewers gauge\n"),
            "{older}"
        );
        assert!(!older.contains("# EOF") && older.lines().count() + 1 == page.lines().count());
    }

    #[test]
    fn without_a_driver_and_a_broker_the_rest_is_told() {
        let mut device = well();
        (device.driver, device.broker) = (None, None);
        let page = page(device);
        assert!(
            page.contains("\npeercam_driver_up 0\n") && page.contains("\npeercam_camera_state{"),
            "{page}"
        );
        for absent in ["peercam_viewers{", "peercam_datagrams_sent_total", "\npeercam_broker_connected "] {
            assert!(!page.contains(absent), "{absent}\n{page}");
        }
    }
}
