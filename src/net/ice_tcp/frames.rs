//! Datagrams on a stream, each behind two bytes that say how long it is (RFC 4571).

/// The largest that any WebRTC peer sends, with room: as of a socket.
const DATAGRAM_BYTES: usize = 2_048;
/// Bytes in front of each.
const HEADER: usize = 2;

/// A stream's bytes, cut into datagrams.
#[derive(Debug, Default)]
pub struct Frames {
    rest: Vec<u8>,
}

/// A length that no WebRTC peer's datagram has; whoever is there speaks something else.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Frames {
    /// Takes the stream's next bytes and gives `each` every datagram that is whole now.
    ///
    /// # Errors
    /// What came is no stream of datagrams.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some((header, rest)) = self.rest[begin..].split_first_chunk::<HEADER>() {
            let length = usize::from(u16::from_be_bytes(*header));
            if length > DATAGRAM_BYTES {
                self.rest.clear();
                return Err(TooLong);
            }
            let Some(datagram) = rest.get(..length) else { break };
            if !datagram.is_empty() {
                each(datagram);
            }
            begin += HEADER + length;
        }
        self.rest.drain(..begin);
        self.rest.shrink_to(HEADER + DATAGRAM_BYTES);
        Ok(())
    }
}

/// Appends a datagram to what is to be sent; `false` if it is longer than the two bytes can say.
pub fn append(datagram: &[u8], stream: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else { return false };
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(datagram);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn in_whatever_pieces_they_come_datagrams_are_the_same(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            piece in 1_usize..700,
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                prop_assert!(append(datagram, &mut stream));
            }
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in stream.chunks(piece) {
                frames.push(piece, |datagram| got.push(datagram.to_vec())).expect("lengths of datagrams");
            }
            prop_assert_eq!(got, datagrams);
            prop_assert!(frames.rest.is_empty());
        }

        #[test]
        fn what_is_kept_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..9_000), piece in 1_usize..5_000) {
            let mut frames = Frames::default();
            for piece in bytes.chunks(piece) {
                if frames.push(piece, |datagram| assert!(datagram.len() <= DATAGRAM_BYTES)).is_err() {
                    break;
                }
                prop_assert!(frames.rest.len() < HEADER + DATAGRAM_BYTES);
            }
        }
    }

    #[test]
    fn somebody_who_speaks_http_is_found_out_at_once() {
        let mut frames = Frames::default();
        assert_eq!(frames.push(b"GET / HTTP/1.1\r\n\r\n", |_| panic!("a datagram")), Err(TooLong));
    }
}
