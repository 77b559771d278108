//! Where one TURN message ends and the next begins, on a stream (RFC 8656, 12.5: ChannelData is padded there).

/// Bytes in front of ChannelData: channel number and length.
pub const CHANNEL_HEADER: usize = 4;
/// Bytes in front of a STUN message's attributes.
const STUN_HEADER: usize = 20;
/// The largest message: a STUN message whose length is all ones, and its header.
const MAX_MESSAGE: usize = STUN_HEADER + u16::MAX as usize;

/// What is kept for the next message: one that is larger is rare.
const USUAL: usize = 4_096;

/// What the first byte says a message is (RFC 8656, 12; RFC 7983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stun,
    ChannelData,
}

impl Kind {
    /// `None`: neither.
    pub fn of(first: u8) -> Option<Self> {
        match first {
            0..=3 => Some(Self::Stun),
            0x40..=0x4f => Some(Self::ChannelData),
            _ => None,
        }
    }
}

/// The channel's number and its payload, if `message` is ChannelData and whole. Padding behind it is left out.
pub fn channel_data(message: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = message.split_first_chunk::<CHANNEL_HEADER>()?;
    let [a, b, c, d] = *header;
    let length = usize::from(u16::from_be_bytes([c, d]));
    Some((u16::from_be_bytes([a, b]), rest.get(..length)?))
}

/// The header of ChannelData for `length` bytes; `None` if that is more than the field holds.
pub fn channel_header(number: u16, length: usize) -> Option<[u8; CHANNEL_HEADER]> {
    let ([a, b], [c, d]) = (number.to_be_bytes(), u16::try_from(length).ok()?.to_be_bytes());
    Some([a, b, c, d])
}

/// How many bytes of padding follow `length` bytes on a stream.
pub fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

/// A stream's bytes, cut into messages.
#[derive(Debug, Default)]
pub struct Stream {
    rest: Vec<u8>,
}

/// The stream holds what is no TURN message; nothing that follows can be understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbled;

impl Stream {
    /// Takes the stream's next bytes and gives `each` every message that is whole now, ChannelData with its padding.
    ///
    /// # Errors
    /// What came is no TURN.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Garbled> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = message_length(&self.rest[begin..])? {
            let Some(message) = self.rest.get(begin..begin + length) else {
                break;
            };
            each(message);
            begin += length;
        }
        self.rest.drain(..begin);
        if self.rest.is_empty() {
            self.rest.shrink_to(USUAL);
        }
        debug_assert!(self.rest.len() < MAX_MESSAGE, "a whole message was left");
        Ok(())
    }
}

#[cfg(test)]
impl Stream {
    /// Bytes that wait for the rest of their message.
    pub fn held(&self) -> usize {
        self.rest.capacity()
    }
}

/// How long the message that begins here is; `None` if too little of it is there to tell.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, Garbled> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let kind = Kind::of(*first).ok_or(Garbled)?;
    let &[_, _, a, b, ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([a, b]));
    Ok(Some(match kind {
        Kind::Stun if length % 4 != 0 => return Err(Garbled),
        Kind::Stun => STUN_HEADER + length,
        Kind::ChannelData => CHANNEL_HEADER + length.next_multiple_of(4),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(number: u16, payload: &[u8]) -> Vec<u8> {
        let mut message = channel_header(number, payload.len()).expect("it fits").to_vec();
        message.extend_from_slice(payload);
        message.resize(message.len() + padding(payload.len()), 0);
        message
    }

    #[test]
    fn however_a_stream_is_cut_the_same_messages_come_out() {
        let mut stun = vec![0, 1, 0, 8];
        stun.resize(28, 7);
        let messages = [
            stun,
            channel(0x4000, b"a"),
            channel(0x4fff, b""),
            channel(0x4001, b"abcd"),
            channel(0x4002, b"abcdefg"),
        ];
        let bytes = messages.concat();
        for size in 1..=bytes.len() {
            let (mut stream, mut out) = (Stream::default(), Vec::new());
            for piece in bytes.chunks(size) {
                stream.push(piece, |message| out.push(message.to_vec())).expect("good messages");
            }
            assert_eq!(out, messages, "in pieces of {size}");
            assert!(stream.rest.is_empty());
        }
        assert_eq!(
            channel_data(&messages[4]),
            Some((0x4002, &b"abcdefg"[..])),
            "the padding is not part of it"
        );
    }

    #[test]
    fn what_is_no_turn_is_refused() {
        let (tls_alert, odd_length, unknown) = ([0x15, 3, 3, 0, 2], [0, 1, 0, 3, 0], [0x50, 0, 0, 0, 0]);
        for bytes in [&tls_alert, &odd_length, &unknown] {
            assert_eq!(Stream::default().push(bytes, |_| panic!("no message")), Err(Garbled), "{bytes:?}");
        }
        assert_eq!(channel_data(&[0x40, 0, 0, 5, 1, 2]), None, "cut short");
        assert_eq!(channel_header(0x4000, 65_536), None);
    }
}
