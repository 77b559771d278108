//! What the camera says of itself: USB 2.0 and UVC 1.1 descriptors (frame-based payload for H.264, or Motion JPEG), and the
//! probe-and-commit negotiation of the stream. One bulk endpoint, one format, one size, one rate.

/// The largest payload of one bulk transfer, its header included: a picture takes several, as on real cameras.
pub const PAYLOAD: usize = 4 * 1024;

const CLOCK_HZ: u32 = 48_000_000;
/// Where pictures come from.
const BULK_IN: u8 = 0x81;
/// Class-specific interface descriptor.
const CS_INTERFACE: u8 = 0x24;

/// What the camera says that its pictures are.
#[derive(Clone, Copy)]
pub enum Coding {
    H264,
    H265,
    Mjpeg,
}

/// What follows the four letters of a format's GUID.
const GUID: [u8; 12] = *b"\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71";

/// What the camera shows.
#[derive(Clone, Copy)]
pub struct Mode {
    pub width: u16,
    pub height: u16,
    pub fps: u32,
    pub coding: Coding,
}

impl Mode {
    /// A frame's duration in units of 100 ns.
    fn interval(self) -> u32 {
        10_000_000 / self.fps
    }

    fn largest_frame(self) -> u32 {
        u32::from(self.width) * u32::from(self.height) * 2
    }
}

/// What a control request leads to.
pub enum Answer {
    /// Bytes for the host.
    Data(Vec<u8>),
    /// Done.
    Taken,
    /// Done, and the host will now read pictures from a fresh start.
    Starts,
    /// Not known: the endpoint stalls.
    Stall,
}

/// The control endpoint.
pub struct Control {
    mode: Mode,
    /// UVC 1.1's `VS_PROBE_CONTROL` as negotiated so far.
    probe: Vec<u8>,
}

impl Control {
    pub fn new(mode: Mode) -> Self {
        let probe = bytes(&[
            &1_u16.to_le_bytes(), // bmHint: the interval stands
            &[1, 1],              // format, frame
            &mode.interval().to_le_bytes(),
            &[0; 10], // key frame rate to delay
            &mode.largest_frame().to_le_bytes(),
            &u32::try_from(PAYLOAD).unwrap_or(u32::MAX).to_le_bytes(),
            &CLOCK_HZ.to_le_bytes(),
            &[3, 1, 1, 1], // framing by frame id and end of frame
        ]);
        Self { mode, probe }
    }

    /// Does a control request; `data` came with it, `length` is the most that may be answered.
    pub fn request(&mut self, setup: [u8; 8], data: &[u8], length: usize) -> Answer {
        let [kind, request, value_low, value_high, index_low, ..] = setup;
        let cut = |mut data: Vec<u8>| {
            data.truncate(length);
            Answer::Data(data)
        };
        match (kind, request) {
            // Standard, from the device: GET_DESCRIPTOR, GET_STATUS.
            (0x80, 6) => self.descriptor(value_high, value_low).map_or(Answer::Stall, cut),
            (0x80..=0x82, 0) => cut(vec![0, 0]),
            // Standard, to the device: address, configuration, interface and cleared halts need nothing done.
            (0..=2, _) => Answer::Taken,
            // Class, of the streaming interface: VS_PROBE_CONTROL (1) and VS_COMMIT_CONTROL (2).
            (0x21 | 0xa1, _) if index_low == 1 && (value_high == 1 || value_high == 2) => match request {
                0x01 => {
                    // SET_CUR: there is one mode, so all but the sizes is as the host likes.
                    let wanted = data.len().min(18);
                    self.probe[..wanted].copy_from_slice(&data[..wanted]);
                    if value_high == 2 { Answer::Starts } else { Answer::Taken }
                }
                0x85 => cut(u16::try_from(self.probe.len()).unwrap_or(u16::MAX).to_le_bytes().to_vec()),
                0x86 => cut(vec![3]), // GET_INFO: may be read and set
                _ => cut(self.probe.clone()),
            },
            _ => Answer::Stall,
        }
    }

    fn descriptor(&self, kind: u8, index: u8) -> Option<Vec<u8>> {
        match (kind, index) {
            (1, _) => Some(device()),
            (2, _) => Some(configuration(self.mode)),
            (3, 0) => Some(vec![4, 3, 9, 4]), // US English
            (3, 1) => Some(string("peercam")),
            (3, 2) => Some(string("Test camera H264")),
            (3, 3) => Some(string("0001")),
            _ => None,
        }
    }
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A descriptor: its length goes before it.
fn described(parts: &[&[u8]]) -> Vec<u8> {
    let body = bytes(parts);
    let mut whole = vec![u8::try_from(body.len() + 1).unwrap_or(u8::MAX)];
    whole.extend(body);
    whole
}

fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    described(&[&[3], &units])
}

/// USB 2.0, a composite device (interface association), 64-byte control packets, maker 0x1d6b (Linux), three strings.
fn device() -> Vec<u8> {
    described(&[&[1, 0x00, 0x02, 0xef, 2, 1, 64, 0x6b, 0x1d, 0x05, 0x01, 0x00, 0x01, 1, 2, 3, 1]])
}

fn length(parts: &[&[u8]]) -> [u8; 2] {
    u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>())
        .unwrap_or(u16::MAX)
        .to_le_bytes()
}

/// One format with one frame, its frames of variable size.
fn format_and_frame(mode: Mode) -> (Vec<u8>, Vec<u8>) {
    let interval = mode.interval().to_le_bytes();
    let frame_based = |letters: &[u8; 4]| described(&[&[CS_INTERFACE, 0x10, 1, 1], letters, &GUID, &[16, 1, 0, 0, 0, 0, 1]]);
    let (format, subtype) = match mode.coding {
        Coding::H264 => (frame_based(b"H264"), 0x11),
        Coding::H265 => (frame_based(b"H265"), 0x11),
        Coding::Mjpeg => (described(&[&[CS_INTERFACE, 0x06, 1, 1, 0, 1, 0, 0, 0, 0]]), 0x07),
    };
    let size = [mode.width.to_le_bytes(), mode.height.to_le_bytes()].concat();
    let rates = [1_000_000_u32.to_le_bytes(), 8_000_000_u32.to_le_bytes()].concat();
    let head = [CS_INTERFACE, subtype, 1, 0];
    let frame = match mode.coding {
        Coding::H264 | Coding::H265 => described(&[&head, &size, &rates, &interval, &[1], &[0; 4], &interval]),
        // Motion JPEG tells the largest frame first, and no bytes a line.
        Coding::Mjpeg => described(&[
            &head,
            &size,
            &rates,
            &mode.largest_frame().to_le_bytes(),
            &interval,
            &[1],
            &interval,
        ]),
    };
    (format, frame)
}

fn configuration(mode: Mode) -> Vec<u8> {
    // A camera terminal (1) feeds a streaming terminal (2).
    let camera = described(&[&[CS_INTERFACE, 2, 1, 0x01, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]]);
    let streaming = described(&[&[CS_INTERFACE, 3, 2, 0x01, 0x01, 0, 1, 0]]);
    let control = described(&[
        &[CS_INTERFACE, 1, 0x10, 0x01],
        &length(&[&[0; 13], &camera, &streaming]),
        &CLOCK_HZ.to_le_bytes(),
        &[1, 1],
    ]);
    let (format, frame) = format_and_frame(mode);
    let colour = described(&[&[CS_INTERFACE, 13, 1, 1, 4]]);
    let header = described(&[
        &[CS_INTERFACE, 1, 1],
        &length(&[&[0; 14], &format, &frame, &colour]),
        &[BULK_IN, 0, 2, 0, 0, 0, 1, 0],
    ]);
    let interfaces = bytes(&[
        &described(&[&[11, 0, 2, 14, 3, 0, 0]]),
        &described(&[&[4, 0, 0, 0, 14, 1, 0, 0]]),
        &control,
        &camera,
        &streaming,
        &described(&[&[4, 1, 0, 1, 14, 2, 0, 0]]),
        &header,
        &format,
        &frame,
        &colour,
        &described(&[&[5, BULK_IN, 2, 0x00, 0x02, 0]]),
    ]);
    let mut whole = described(&[&[2], &length(&[&[0; 9], &interfaces]), &[2, 1, 0, 0x80, 50]]);
    whole.extend(interfaces);
    whole
}
