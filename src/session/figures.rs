//! What a session counts, for whoever watches over the device.

use std::time::Duration;

use str0m::stats::{MediaEgressStats, PeerStats};

use crate::media::Bitrate;

/// Why a session ended, for counting. The sentence of [`super::Event::Closed`] is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The viewer said good-bye.
    ViewerLeft,
    /// The same viewer opened another session.
    Replaced,
    /// No network path was found in time.
    NeverConnected,
    /// Nothing was heard of the viewer, and too many others came.
    Displaced,
    /// The viewer was heard when every seat was taken.
    NoSeat,
    /// The network path was lost and did not come back in time.
    PathLost,
    /// The camera's stream is another one than the session was made for.
    StreamChanged,
    /// The device stops, or starts anew with another configuration.
    Shutdown,
    /// The viewer does not read its data channel.
    ChannelFull,
    /// The viewer sent what WebRTC forbids, or the stack failed.
    Failed,
}

impl Ending {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::ViewerLeft,
        Self::Replaced,
        Self::NeverConnected,
        Self::Displaced,
        Self::NoSeat,
        Self::PathLost,
        Self::StreamChanged,
        Self::Shutdown,
        Self::ChannelFull,
        Self::Failed,
    ];

    /// Its name as a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ViewerLeft => "viewer_left",
            Self::Replaced => "replaced",
            Self::NeverConnected => "never_connected",
            Self::Displaced => "displaced",
            Self::NoSeat => "no_seat",
            Self::PathLost => "path_lost",
            Self::StreamChanged => "stream_changed",
            Self::Shutdown => "shutdown",
            Self::ChannelFull => "channel_full",
            Self::Failed => "failed",
        }
    }
}

/// What one session has counted, and how its path is now. The stack tells most of it once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SessionFigures {
    pub counts: Counts,
    /// What congestion control believes the path carries.
    pub estimate: Option<Bitrate>,
    /// Round trip time of media, as transport-wide feedback tells it.
    pub rtt: Option<Duration>,
    /// Share of the packets of the last second that were lost, 0 to 1.
    pub loss: Option<f32>,
}

/// What only rises while a session lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// UDP payload sent, retransmissions included.
    pub sent_bytes: u64,
    /// RTP packets of video sent, retransmissions included.
    pub packets: u64,
    /// NACK messages received.
    pub nacks: u64,
    /// Picture Loss Indications received.
    pub plis: u64,
    /// Full Intra Requests received.
    pub firs: u64,
    /// Requests over the data channel that were refused because too many waited.
    pub busy: u64,
}

impl Counts {
    /// Adds what another session counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            sent_bytes,
            packets,
            nacks,
            plis,
            firs,
            busy,
        } = other;
        self.sent_bytes += sent_bytes;
        self.packets += packets;
        self.nacks += nacks;
        self.plis += plis;
        self.firs += firs;
        self.busy += busy;
    }
}

impl SessionFigures {
    pub(super) fn note_peer(&mut self, stats: &PeerStats) {
        self.counts.sent_bytes = stats.peer_bytes_tx;
        self.rtt = stats.rtt;
        self.loss = stats.egress_loss_fraction;
    }

    /// A session sends one stream, so its counts are the session's.
    pub(super) fn note_stream(&mut self, stats: &MediaEgressStats) {
        self.counts.packets = stats.packets;
        self.counts.nacks = stats.nacks;
        self.counts.plis = stats.plis;
        self.counts.firs = stats.firs;
    }
}
