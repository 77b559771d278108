use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::io::DATAGRAM_MAX_PACKET_SIZE;
use crate::packet::Vp8Patch;
use crate::rtp_::{MediaTime, RtpHeader, SeqNo};

use super::RtpPacket;
use super::rtx_cache_buf::EvictingBuffer;

const RTX_CACHE_SIZE_QUANTIZER: usize = 25;
const RTX_CACHE_QUANTIZE_SLOTS: usize = DATAGRAM_MAX_PACKET_SIZE / RTX_CACHE_SIZE_QUANTIZER;

#[derive(Debug)]
pub(crate) struct RtxCache {
    // Data, new additions here probably need to be cleared in [`clear`].
    packet_by_seq_no: EvictingBuffer<SentPacket>,

    // Technically we want [Option<SeqNo>; X] to indicate the absence of
    // a SeqNo. However We can half the storage space by using the sentinel
    // values SeqNo::MAX to indicate None
    seq_no_by_quantized_size: [SeqNo; RTX_CACHE_QUANTIZE_SLOTS],
}

/// What is kept of a sent packet.
#[derive(Debug)]
pub(crate) struct SentPacket {
    pub seq_no: SeqNo,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    /// The rest, which the packets of a burst have in common.
    pub common: Arc<SentCommon>,
}

/// What the packets of a burst have in common.
#[derive(Debug)]
pub(crate) struct SentCommon {
    /// Its sequence number and marker are not used.
    pub header: RtpHeader,
    pub time: MediaTime,
    pub vp8_patch: Option<Vp8Patch>,
    /// When the packet was enqueued.
    pub timestamp: Instant,
}

// It is never changed once it is made; `ExtensionValues` holds values of the application's own types.
impl RefUnwindSafe for SentCommon {}

impl SentPacket {
    fn new(packet: RtpPacket) -> Self {
        SentPacket {
            seq_no: packet.seq_no,
            marker: packet.header.marker,
            payload: packet.payload,
            common: Arc::new(SentCommon {
                header: packet.header,
                time: packet.time,
                vp8_patch: packet.vp8_patch,
                timestamp: packet.timestamp,
            }),
        }
    }

    /// The packet as it was sent.
    pub fn restore(&self) -> RtpPacket {
        let mut header = self.common.header.clone();
        header.sequence_number = *self.seq_no as u16;
        header.marker = self.marker;
        RtpPacket {
            seq_no: self.seq_no,
            time: self.common.time,
            header,
            payload: self.payload.clone(),
            vp8_patch: self.common.vp8_patch.clone(),
            nackable: true,
            timestamp: self.common.timestamp,
            last_sender_info: None,
        }
    }
}

impl RtxCache {
    pub fn new(max_packet_count: usize, max_packet_age: Duration) -> Self {
        Self {
            packet_by_seq_no: EvictingBuffer::new(10, max_packet_age, max_packet_count),
            seq_no_by_quantized_size: [SeqNo::MAX; RTX_CACHE_QUANTIZE_SLOTS],
        }
    }

    pub fn cache_sent_packet(&mut self, packet: RtpPacket, now: Instant) {
        assert!(packet.nackable);
        self.cache_sent(SentPacket::new(packet), now);
        self.remove_old_packets(now);
    }

    /// Cache packets that were sent together.
    pub fn cache_sent_burst(&mut self, packets: impl Iterator<Item = SentPacket>, now: Instant) {
        for packet in packets {
            self.cache_sent(packet, now);
        }
        self.remove_old_packets(now);
    }

    fn cache_sent(&mut self, packet: SentPacket, now: Instant) {
        let seq_no = packet.seq_no;
        let quantized_size = packet.payload.len() / RTX_CACHE_SIZE_QUANTIZER;
        self.packet_by_seq_no.push(*seq_no, now, packet);
        self.seq_no_by_quantized_size[quantized_size] = seq_no;
    }

    pub fn last_cached_seq_no(&self) -> Option<SeqNo> {
        Some(self.packet_by_seq_no.last_position()?.into())
    }

    pub fn get_cached_packet_by_seq_no(&self, seq_no: SeqNo) -> Option<&SentPacket> {
        self.packet_by_seq_no.get(*seq_no)
    }

    pub fn get_cached_packet_smaller_than(&self, max_size: usize) -> Option<&SentPacket> {
        let quantized_size = max_size / RTX_CACHE_SIZE_QUANTIZER;

        let seq_no = self.seq_no_by_quantized_size[..quantized_size]
            .iter()
            .rev()
            .filter(|seq_no| !seq_no.is_max())
            .find(|seq_no| self.packet_by_seq_no.contains(***seq_no))?;

        self.get_cached_packet_by_seq_no(*seq_no)
    }

    fn remove_old_packets(&mut self, now: Instant) {
        self.packet_by_seq_no.maybe_evict(now);
    }

    pub(crate) fn last_packet(&self) -> Option<&[u8]> {
        let packet = self.packet_by_seq_no.last()?;
        Some(packet.payload.as_ref())
    }

    pub(crate) fn clear(&mut self) {
        self.packet_by_seq_no.clear();
        self.seq_no_by_quantized_size = [SeqNo::MAX; RTX_CACHE_QUANTIZE_SLOTS];
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn after(now: Instant, millis: u64) -> Instant {
        now + Duration::from_millis(millis)
    }

    fn packet(now: Instant, seq_no: u64, millis: u64) -> RtpPacket {
        RtpPacket {
            header: RtpHeader {
                sequence_number: seq_no as u16,
                ..Default::default()
            },
            seq_no: seq_no.into(),
            time: MediaTime::from_90khz(0),
            payload: millis.to_be_bytes().into(),
            vp8_patch: None,
            timestamp: after(now, millis),
            last_sender_info: None,
            nackable: true,
        }
    }

    #[test]
    fn rtx_cache_0_sized() {
        let now = Instant::now();
        let mut rtx_cache = RtxCache::new(0, Duration::from_secs(3));
        rtx_cache.cache_sent_packet(packet(now, 1, 10), after(now, 10));
        assert_eq!(
            Some(packet(now, 1, 10)),
            rtx_cache
                .get_cached_packet_by_seq_no(1.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            Some(packet(now, 1, 10)),
            rtx_cache
                .get_cached_packet_smaller_than(1000)
                .map(SentPacket::restore)
        );
    }

    #[test]
    fn rtx_cache_0_duration() {
        let now = Instant::now();
        let mut rtx_cache = RtxCache::new(10, Duration::from_secs(0));
        rtx_cache.cache_sent_packet(packet(now, 1, 10), after(now, 10));
        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_by_seq_no(1.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_smaller_than(1000)
                .map(SentPacket::restore)
        );
    }

    #[test]
    fn rtx_cache_1_sized() {
        let now = Instant::now();
        let mut rtx_cache = RtxCache::new(1, Duration::from_secs(3));
        rtx_cache.cache_sent_packet(packet(now, 1, 10), after(now, 10));
        assert_eq!(
            Some(packet(now, 1, 10)),
            rtx_cache
                .get_cached_packet_by_seq_no(1.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            Some(packet(now, 1, 10)),
            rtx_cache
                .get_cached_packet_smaller_than(1000)
                .map(SentPacket::restore)
        );
        assert_eq!(
            Some(packet(now, 1, 10)),
            rtx_cache
                .get_cached_packet_smaller_than(25)
                .map(SentPacket::restore)
        );
        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_smaller_than(24)
                .map(SentPacket::restore)
        );
        rtx_cache.cache_sent_packet(packet(now, 2, 20), after(now, 20));
        assert_eq!(
            Some(packet(now, 2, 20)),
            rtx_cache
                .get_cached_packet_by_seq_no(2.into())
                .map(SentPacket::restore)
        );
    }

    #[test]
    fn rtx_cache_100_sized_backwards() {
        let now = Instant::now();
        let mut rtx_cache = RtxCache::new(100, Duration::from_secs(3));

        for i in 1..=200 {
            let seq_no = 201 - i;
            let pkt = packet(now, seq_no, (201 - i) * 10);
            let now = after(now, i * 10);
            rtx_cache.cache_sent_packet(pkt, now);
        }

        assert_eq!(
            Some(packet(now, 200, 2000)),
            rtx_cache
                .get_cached_packet_by_seq_no(200.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_by_seq_no(100.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_by_seq_no(101.into())
                .map(SentPacket::restore)
        );
    }

    #[test]
    fn rtx_cache_eviction() {
        let now = Instant::now();
        // Cache can take all entries
        let mut rtx_cache = RtxCache::new(400, Duration::from_secs(1));
        for i in 1..=200 {
            let seq_no = i;
            let pkt = packet(now, seq_no, i * 10);
            let now = after(now, i * 10);
            rtx_cache.cache_sent_packet(pkt, now);
        }

        assert_eq!(
            None,
            rtx_cache
                .get_cached_packet_by_seq_no(99.into())
                .map(SentPacket::restore)
        );

        assert_eq!(
            Some(packet(now, 100, 1000)),
            rtx_cache
                .get_cached_packet_by_seq_no(100.into())
                .map(SentPacket::restore)
        );
        assert_eq!(
            Some(packet(now, 200, 2000)),
            rtx_cache
                .get_cached_packet_by_seq_no(200.into())
                .map(SentPacket::restore)
        );
    }
}
