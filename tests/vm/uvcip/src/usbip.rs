//! USB/IP's messages between a host controller and a device, as the kernel's `vhci_hcd` speaks them
//! (`Documentation/usb/usbip_protocol.rst`). All numbers are big-endian; every message begins with 48 bytes.

use std::io::{self, Read};

const HEADER: usize = 48;
const COMMAND_SUBMIT: u32 = 1;
const COMMAND_UNLINK: u32 = 2;
const REPLY_SUBMIT: u32 = 3;
const REPLY_UNLINK: u32 = 4;

/// No transfer here is larger: 4 KiB payloads and short control requests.
const LARGEST_OUT: usize = 64 * 1024;

/// The status of a request that the device does not know.
pub const STALLED: i32 = -32;
/// The status of a transfer that was taken back in time.
pub const TAKEN_BACK: i32 = -104;

/// What the host asks for.
pub enum Command {
    /// A control request. `data` goes to the device; a request from the device may answer up to `length` bytes.
    Control {
        sequence: u32,
        setup: [u8; 8],
        data: Vec<u8>,
        length: usize,
    },
    /// Room for `length` bytes from the bulk endpoint.
    Bulk { sequence: u32, length: usize },
    /// A transfer is taken back.
    Unlink { sequence: u32, victim: u32 },
}

/// Reads one command.
///
/// # Errors
/// The host closed the connection, or sent what USB/IP does not know.
pub fn read(from: &mut impl Read) -> io::Result<Command> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let sequence = word(4);
    match word(0) {
        COMMAND_UNLINK => Ok(Command::Unlink {
            sequence,
            victim: word(20),
        }),
        COMMAND_SUBMIT => {
            let (to_device, endpoint, length) = (word(12) == 0, word(16), word(24) as usize);
            if endpoint != 0 {
                return Ok(Command::Bulk { sequence, length });
            }
            let mut data = vec![0; if to_device { length.min(LARGEST_OUT) } else { 0 }];
            from.read_exact(&mut data)?;
            let mut setup = [0; 8];
            setup.copy_from_slice(&header[40..]);
            Ok(Command::Control {
                sequence,
                setup,
                data,
                length,
            })
        }
        other => Err(io::Error::other(format!("USB/IP command {other} is unknown"))),
    }
}

fn reply(kind: u32, sequence: u32, status: i32, length: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + length);
    for word in [
        kind,
        sequence,
        0,
        0,
        0,
        status.cast_unsigned(),
        u32::try_from(length).unwrap_or(u32::MAX),
    ] {
        message.extend(word.to_be_bytes());
    }
    message.resize(HEADER, 0);
    message
}

/// A transfer from the device is done: `data` is what it gave.
pub fn gave(sequence: u32, status: i32, data: &[u8]) -> Vec<u8> {
    let mut message = reply(REPLY_SUBMIT, sequence, status, data.len());
    message.extend_from_slice(data);
    message
}

/// A transfer to the device is done: it took `length` bytes.
pub fn took(sequence: u32, length: usize) -> Vec<u8> {
    reply(REPLY_SUBMIT, sequence, 0, length)
}

/// Whether a transfer could be taken back: [`TAKEN_BACK`] if so, 0 if it was done already.
pub fn unlinked(sequence: u32, status: i32) -> Vec<u8> {
    reply(REPLY_UNLINK, sequence, status, 0)
}
