//! The floor: what no server of this design can be cheaper than. Each picture is cut once; for each viewer its packets get
//! a header and are encrypted with that viewer's key, straight into the buffer of one segmented send. Nothing else: no
//! retransmissions, no feedback, no ICE, no timers but the pictures'.

use std::io::{self, BufRead, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use peercam::media::annexb::AccessUnits;
use peercam::media::rtp;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// RTP header with one extension word for the profile and as many bytes of extensions as the agent sends.
const HEADER: usize = 12 + 4 + 24;
/// Where the moment of capture stands in it, in nanoseconds since 1970.
const STAMP: usize = 16;
/// The most that one segmented send takes.
const MAX_BATCH: usize = 65_000;
const MAX_SEGMENTS: usize = 64;

/// Serves the viewers whose addresses stand on standard input, one a line, until it ends.
pub fn serve(film: &Path, fps: f64) -> anyhow::Result<()> {
    let pictures = pictures(film)?;
    let viewers: Vec<SocketAddr> = io::stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .map_while(|line| line.parse().ok())
        .collect();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let state = UdpSocketState::new((&socket).into())?;
    state.set_send_buffer_size((&socket).into(), 4 << 20)?;
    let mut keys = Vec::new();
    for index in 0..viewers.len() {
        let key = UnboundKey::new(&AES_256_GCM, &[index as u8; 32]).map_err(|_| anyhow::anyhow!("no key"))?;
        keys.push(LessSafeKey::new(key));
    }
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let mut sequence = 0u16;
    let mut next = Instant::now();
    for payloads in pictures.iter().cycle() {
        next += Duration::from_secs_f64(1.0 / fps);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let captured = since_1970();
        for (viewer, key) in viewers.iter().zip(&keys) {
            let send = |batch: &mut Vec<u8>, segment: usize| {
                let transmit = Transmit {
                    destination: *viewer,
                    ecn: None,
                    contents: batch,
                    segment_size: Some(segment),
                    src_ip: None,
                };
                // What the kernel has no room for is lost, as on any network.
                let _ = state.try_send((&socket).into(), &transmit);
                batch.clear();
            };
            let (mut segment, mut last) = (0, 0);
            for (index, payload) in payloads.iter().enumerate() {
                let size = HEADER + payload.len() + AES_256_GCM.tag_len();
                let joins = size <= segment && last == segment && batch.len() + size <= MAX_BATCH && batch.len() / segment < MAX_SEGMENTS;
                if !batch.is_empty() && !joins {
                    send(&mut batch, segment);
                }
                if batch.is_empty() {
                    segment = size;
                }
                last = size;
                let marker = index + 1 == payloads.len();
                packet(&mut batch, key, sequence.wrapping_add(index as u16), marker, captured, payload);
            }
            send(&mut batch, segment);
        }
        sequence = sequence.wrapping_add(payloads.len() as u16);
    }
    Ok(())
}

/// The film's pictures, cut into RTP payloads.
fn pictures(film: &Path) -> anyhow::Result<Vec<Vec<Arc<[u8]>>>> {
    let bytes = std::fs::read(film)?;
    let mut pictures = Vec::new();
    let mut units = AccessUnits::default();
    units.push(&bytes, |unit| pictures.push(rtp::packetize(unit)));
    units.finish(|unit| pictures.push(rtp::packetize(unit)));
    Ok(pictures)
}

/// Appends one SRTP packet (RFC 7714).
fn packet(batch: &mut Vec<u8>, key: &LessSafeKey, sequence: u16, marker: bool, captured: u64, payload: &[u8]) {
    let start = batch.len();
    batch.extend_from_slice(&[0x90, 96 | u8::from(marker) << 7]);
    batch.extend_from_slice(&sequence.to_be_bytes());
    batch.extend_from_slice(&(captured as u32).to_be_bytes());
    batch.extend_from_slice(&[1, 2, 3, 4, 0xbe, 0xde, 0, 6]);
    batch.extend_from_slice(&captured.to_be_bytes());
    batch.resize(start + HEADER, 0);
    batch.extend_from_slice(payload);
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&captured.to_be_bytes());
    nonce[8..10].copy_from_slice(&sequence.to_be_bytes());
    let (header, body) = batch[start..].split_at_mut(HEADER);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&*header), body)
        .expect("a packet is short enough for AES-GCM");
    batch.extend_from_slice(tag.as_ref());
}

/// Listens as `count` viewers, prints their addresses, an empty line, and after `seconds` what arrived:
/// packets, and the delay from capture to the last packet of a picture at its viewer, p50 and p99, in milliseconds.
pub fn sink(count: usize, seconds: f64) -> anyhow::Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let state = UdpSocketState::new((&socket).into())?;
        state.set_recv_buffer_size((&socket).into(), 1 << 20)?;
        println!("{}", socket.local_addr()?);
        sockets.push((socket, state));
    }
    println!();
    io::stdout().flush()?;
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)).collect();
    let mut buffer = vec![0; 1 << 16];
    let (mut packets, mut delays) = (0u64, Vec::new());
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    while Instant::now() < end {
        poll(&mut fds, Some(&patience))?;
        for (fd, (socket, state)) in fds.iter().zip(&sockets) {
            if !fd.revents().contains(PollFlags::IN) {
                continue;
            }
            let mut meta = [RecvMeta::default()];
            let Ok(1..) = state.recv(socket.into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta) else {
                continue;
            };
            let arrived = meta[0].timestamp.map_or_else(since_1970, |stamp| stamp.as_nanos() as u64);
            for packet in buffer[..meta[0].len].chunks(meta[0].stride.max(1)) {
                packets += 1;
                let ends_picture = packet[1] & 0x80 != 0;
                let stamp = packet[STAMP..STAMP + 8].try_into().map(u64::from_be_bytes);
                if let (true, Ok(captured)) = (ends_picture, stamp) {
                    delays.push(arrived.saturating_sub(captured) as f64 / 1e6);
                }
            }
        }
    }
    delays.sort_by(f64::total_cmp);
    let rank = |share: f64| {
        delays
            .get(((delays.len() as f64 * share).ceil() as usize).saturating_sub(1))
            .copied()
            .unwrap_or(0.0)
    };
    println!("{packets} {} {}", rank(0.5), rank(0.99));
    Ok(())
}

fn since_1970() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}
