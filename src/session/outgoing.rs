//! What leaves for the viewer: pictures, and at what pace.

use std::sync::Arc;
use std::time::Duration;

use str0m::rtp::{AbsCaptureTime, ExtensionValues, RtpBurst};
use str0m::stats::PeerStats;

use super::ladder::{CONGESTION_LOSS, CONGESTION_SECS, Second, is_too_little};
use super::{Event, Outbox, Route, Session, WallClock};
use crate::media::{AccessUnit, Bitrate, MediaTime, Quality};
use crate::protocol::{Message, Playout, SessionStats};

/// How fast pictures are sent to a viewer who has to catch up with the newest one. A whole group of pictures at once would
/// overrun the receiver's socket; at this rate 4 s of video take about half a second.
const CATCH_UP: Bitrate = Bitrate::kbps(20_000);

impl Session {
    pub(super) fn picture(&mut self, unit: &AccessUnit, payloads: &[Arc<[u8]>], backlog: u64, clock: &WallClock, outbox: &mut Outbox) {
        let Some((mid, pt)) = self.media else { return };
        let at_once = str0m::media::MediaTime::from_90khz(0);
        let delay = match self.playout {
            Playout::Realtime => Some(at_once),
            Playout::Smooth => None,
        };
        let captured = AbsCaptureTime {
            capture_time: clock.at(unit.captured),
            clock_offset: None,
        };
        // A rung that is joined may begin with a picture that the other one has shown already.
        let after = self.last_time.map_or(0, |last| last.ticks() + 1);
        let time = unit.time.max(MediaTime::from_ticks(after));
        self.last_time = Some(time);
        let burst = RtpBurst {
            pt,
            seq_no: self.seq_no.into(),
            time: time.rtp(),
            wallclock: unit.captured,
            ext_vals: ExtensionValues {
                abs_capture_time: Some(captured),
                play_delay_min: delay,
                play_delay_max: delay,
                ..ExtensionValues::default()
            },
            nackable: true,
            payloads,
        };
        self.seq_no += payloads.len() as u64;
        if self.narrow {
            if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
                stream.write_burst(burst);
            }
        } else {
            self.send_now(Some(burst), outbox);
        }
        if backlog > 0 {
            let bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
            self.ready_at = self.now + Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / CATCH_UP.as_bps());
        }
    }

    /// Sends a picture and what the viewer has asked for again, past the stack's pacer. What can't leave now the pacer sends.
    pub(super) fn send_now(&mut self, picture: Option<RtpBurst<'_>>, outbox: &mut Outbox) {
        let Some((mid, _)) = self.media else { return };
        let mut api = self.rtc.direct_api();
        outbox.datagrams.append(|bytes, lengths| {
            let path = api.send_rtp_now(self.now, mid, None, picture, bytes, lengths)?;
            let route = Route {
                transport: path.proto.into(),
                source: path.source,
                destination: path.destination,
            };
            let before = self.path.replace(route);
            if before.is_none_or(|before| before.begin() != route.begin()) && std::mem::take(&mut self.cut) {
                outbox.events.push(Event::KeyFrameWanted);
            }
            Some(route)
        });
    }

    /// Pictures leave at once, unless the path is known to be too narrow for them: then the stack spreads their packets, and
    /// what it can't send in time is dropped up to a key frame. An estimate alone is no such knowledge: on a busy machine it
    /// falls with the jitter of its timers while every packet arrives.
    pub(super) fn pace(&mut self) {
        let Some((mid, _)) = self.media else { return };
        let sent = Bitrate::bps(self.sent_rate);
        let too_little = self
            .figures
            .estimate
            .is_some_and(|estimate| is_too_little(estimate, sent, self.target));
        self.narrow = too_little && self.lossy_secs >= CONGESTION_SECS;
        let wanted = self.target.as_bps() * 3 / 2;
        let told = if self.asks { wanted } else { wanted - wanted / 100 };
        let desired = str0m::bwe::Bitrate::bps(told);
        self.rtc.bwe().set_bitrate(str0m::bwe::Bitrate::ZERO, desired);
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            stream.set_unpaced(!self.narrow);
        }
    }

    pub(super) fn note_stats(&mut self, stats: &PeerStats, outbox: &mut Outbox) {
        let (sent, at) = self
            .sent_before
            .replace((stats.peer_bytes_tx, stats.timestamp))
            .unwrap_or((0, stats.timestamp));
        let elapsed = stats.timestamp.saturating_duration_since(at).as_millis() as u64;
        let bits = stats.peer_bytes_tx.saturating_sub(sent) * 8_000;
        self.sent_rate = bits.checked_div(elapsed).unwrap_or(self.sent_rate);
        let lossy = stats.egress_loss_fraction.is_some_and(|loss| loss >= CONGESTION_LOSS);
        self.lossy_secs = if lossy { self.lossy_secs.saturating_add(1) } else { 0 };
        self.ask();
        self.pace();
        let second = Second {
            estimate: self.figures.estimate,
            sent: Bitrate::bps(self.sent_rate),
            loss: stats.egress_loss_fraction.unwrap_or(0.0),
            rtt: stats.rtt,
            dropped: self.dropped > std::mem::replace(&mut self.dropped_before, self.dropped),
        };
        if self.ladder.step(&second, self.quality, self.high, self.now) {
            outbox.events.push(Event::Carries(self.ladder.carries()));
        }
        self.tell_stats();
    }

    /// Makes the stack probe every other second while the estimate is below what the encoder could send. By itself it does so only
    /// for an application that sends much less than it might, and our encoder takes what the path gives: a path that widens again
    /// would be found out at 8 % a second. A rise of what is wanted is probed for, unless the path is congested.
    fn ask(&mut self) {
        let enough = self.figures.estimate.is_some_and(|estimate| estimate >= self.target);
        self.asks = enough || !self.asks;
    }

    fn tell_stats(&mut self) {
        let stats = SessionStats {
            estimate_bps: self.figures.estimate.map(Bitrate::as_bps),
            target_bps: self.target.as_bps(),
            dropped: self.dropped,
            quality: self.quality,
            limited: self.quality == Quality::Low && self.ladder.carries() == Quality::Low,
        };
        // Only a hint: a full channel shows at the next message that matters.
        let _ = self.say(&Message::notification("session.stats", &stats));
    }
}

/// Whether a datagram of a viewer is RTCP (RFC 5761, 4, beside RFC 7983).
pub(super) fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 192..=223, ..])
}
