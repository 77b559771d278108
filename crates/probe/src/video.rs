//! What becomes of one viewer's RTP packets: pictures, an account of them, a file, and the wish for a key frame.

use std::io::Write;
use std::time::{Duration, Instant, UNIX_EPOCH};

use str0m::rtp::RtpPacket;

use crate::assembler::{Assembler, Packet};
use crate::moment::Moment;
use crate::tally::{Tally, Verdict};

/// As long as the device coalesces requests of all viewers; asking more often would not help.
const PLI_INTERVAL: Duration = Duration::from_millis(300);

/// One viewer's video.
pub struct Video {
    pub tally: Tally,
    pub bytes: u64,
    pub packets: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// What stands in the way of saving, if anything.
    pub save_error: Option<std::io::Error>,
    assembler: Assembler,
    save: Option<Box<dyn Write>>,
    pli_wanted: bool,
    pli_after: Option<Instant>,
}

impl Video {
    /// Counts from `settle` after the first key frame on what [`Tally::new`] says, and writes to `save`.
    pub fn new(settle: Duration, save: Option<Box<dyn Write>>) -> Self {
        Self {
            tally: Tally::new(settle),
            bytes: 0,
            packets: 0,
            plis: 0,
            save_error: None,
            assembler: Assembler::default(),
            save,
            pli_wanted: false,
            pli_after: None,
        }
    }

    /// Takes one packet.
    pub fn packet(&mut self, packet: RtpPacket, now: Moment) {
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        let capture = packet.header.ext_vals.abs_capture_time;
        self.assembler.push(Packet {
            seq: *packet.seq_no,
            ticks: packet.time.numer(),
            marker: packet.header.marker,
            capture_ms: capture.and_then(|stamp| {
                let unix = stamp.capture_time.duration_since(UNIX_EPOCH).ok()?;
                Some(unix.as_secs_f64() * 1e3)
            }),
            payload: packet.payload,
            arrived: now,
        });
        self.timeout(now);
    }

    /// Enters what is certain by now. To be called at [`Video::deadline`].
    pub fn timeout(&mut self, now: Moment) {
        while let Some(assembled) = self.assembler.poll(now.mono) {
            let save = self.save.as_mut().map(|save| &mut **save as &mut dyn Write);
            match self.tally.enter(&assembled, save) {
                Ok(Verdict::Fine) => self.pli_wanted = false,
                Ok(Verdict::NeedsKeyFrame) => self.pli_wanted = true,
                Err(error) => (self.save, self.save_error) = (None, Some(error)),
            }
        }
    }

    /// When [`Video::timeout`] has to be called though no packet came.
    pub fn deadline(&self) -> Option<Instant> {
        self.assembler.deadline()
    }

    /// Whether a key frame is to be asked for now; [`Video::asked`] says that it was.
    pub fn needs_key_frame(&self, now: Moment) -> bool {
        self.pli_wanted && self.pli_after.is_none_or(|after| now.mono >= after)
    }

    /// A key frame was asked for.
    pub fn asked(&mut self, now: Moment) {
        self.pli_wanted = false;
        self.pli_after = Some(now.mono + PLI_INTERVAL);
        self.plis += 1;
    }

    /// Packets that came after they had been given up.
    pub fn late_packets(&self) -> u64 {
        self.assembler.late()
    }

    /// It is over: closes the account and the file.
    pub fn finish(&mut self, now: Moment) {
        self.tally.finish(now);
        if let Some(mut save) = self.save.take() {
            self.save_error = save.flush().err();
        }
    }
}
