//! Frames on a connection between members: length, checksum, kind, content. Bytes only: what is in a node's frame is
//! `quorate_node::wire`'s affair, who may send is the handshake's.
//!
//! ```text
//! offset  bytes  field
//!      0      4  length of what follows the checksum, little endian
//!      4      4  CRC32C of what follows
//!      8      1  kind: 0 node, 1 ask, 2 answer, 3 refused ask
//!      9      …  content; of asks and answers first the ask's number (8 bytes, little endian)
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_node::message::PeerMessage;
use quorate_node::wire;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::asks::AskFrame;
use super::outbox::Item;

/// Bytes before the kind.
const HEADER: usize = 8;
/// Payloads shorter than this are copied together rather than handed to the system one by one.
const COPY_BELOW: usize = 2048;
/// Slices in one vectored write.
const MAX_SLICES: usize = 256;
/// Bytes to have room for at every read.
const READ_BYTES: usize = 64 << 10;

const NODE: u8 = 0;
const ASK: u8 = 1;
const ANSWER: u8 = 2;
const REFUSED: u8 = 3;

/// What is wrong with a connection's bytes.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a frame of {0} bytes is over the limit of {1}")]
    TooLong(usize, usize),
    #[error("a frame's checksum is wrong")]
    Checksum,
    #[error("a frame is not understood: {0}")]
    Content(String),
}

/// Frames on their way out: encoded once, small pieces copied together, large ones shared.
pub(crate) struct WriteBuffer {
    /// The version of the protocol that the other side speaks.
    protocol: u32,
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
}

impl WriteBuffer {
    pub(crate) fn new(protocol: u32) -> WriteBuffer {
        WriteBuffer {
            protocol,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
        }
    }

    /// Takes a frame; `false` if the other side's protocol does not know what it says.
    pub(crate) fn push(&mut self, item: &Item) -> bool {
        match item {
            Item::Message(message) => match wire::encode(message, self.protocol) {
                Some(frame) => self.push_parts(NODE, &frame.head, &frame.parts),
                None => return false,
            },
            Item::Ask(AskFrame::Ask { id, request }) => {
                self.push_parts(ASK, &id.to_le_bytes(), std::slice::from_ref(request));
            }
            Item::Ask(AskFrame::Answer {
                id,
                answer: Some(answer),
            }) => {
                self.push_parts(ANSWER, &id.to_le_bytes(), std::slice::from_ref(answer));
            }
            Item::Ask(AskFrame::Answer { id, answer: None }) => {
                self.push_parts(REFUSED, &id.to_le_bytes(), &[]);
            }
        }
        true
    }

    fn push_parts(&mut self, kind: u8, head: &[u8], parts: &[Bytes]) {
        let len = 1 + head.len() + parts.iter().map(Bytes::len).sum::<usize>();
        let len = u32::try_from(len).expect("frames are bounded far below 4 GiB");
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), head);
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
        }
        self.tail.put_u32_le(len);
        self.tail.put_u32_le(crc);
        self.tail.put_u8(kind);
        self.tail.put_slice(head);
        for part in parts {
            if part.len() < COPY_BELOW {
                self.tail.put_slice(part);
            } else {
                self.pieces.push_back(self.tail.split().freeze());
                self.pieces.push_back(part.clone());
            }
        }
    }

    /// Writes everything; answers how many bytes that were.
    pub(crate) async fn write_to(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<u64> {
        self.pieces.push_back(self.tail.split().freeze());
        let mut total = 0;
        while !self.pieces.is_empty() {
            let slices: Vec<IoSlice<'_>> = self
                .pieces
                .iter()
                .take(MAX_SLICES)
                .map(|piece| IoSlice::new(piece))
                .collect();
            let written = stream.write_vectored(&slices).await?;
            if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
                return Err(io::ErrorKind::WriteZero.into());
            }
            total += written as u64;
            self.advance(written);
        }
        stream.flush().await?;
        Ok(total)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.pieces.pop_front();
        }
    }
}

/// A frame that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Message(PeerMessage),
    Ask(AskFrame),
}

/// Frames on their way in.
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    max: usize,
}

impl ReadBuffer {
    /// Takes frames of at most `max` bytes.
    pub(crate) fn new(max: usize) -> ReadBuffer {
        ReadBuffer {
            bytes: BytesMut::new(),
            max,
        }
    }

    /// Reads once; answers how many bytes came, 0 at the end of the stream.
    pub(crate) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        // Never as much as a length field promises: only as much as has come so far, so that a promise costs nothing.
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            self.bytes.reserve(READ_BYTES.max(self.bytes.len()));
        }
        stream.read_buf(&mut self.bytes).await
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Arrived>, FrameError> {
        if self.bytes.len() < HEADER {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.bytes[at + i]));
        let (len, crc) = (word(0) as usize, word(4));
        if len > self.max {
            return Err(FrameError::TooLong(len, self.max));
        }
        if self.bytes.len() < HEADER + len {
            return Ok(None);
        }
        self.bytes.advance(HEADER);
        let body = self.bytes.split_to(len).freeze();
        if crc32c::crc32c(&body) != crc {
            return Err(FrameError::Checksum);
        }
        decode(body).map(Some)
    }
}

fn decode(mut body: Bytes) -> Result<Arrived, FrameError> {
    let short = || FrameError::Content("it is too short".into());
    let kind = body.try_get_u8().map_err(|_| short())?;
    if kind == NODE {
        let message = wire::decode(body).map_err(|error| FrameError::Content(error.to_string()))?;
        return Ok(Arrived::Message(message));
    }
    let id = body.try_get_u64_le().map_err(|_| short())?;
    match kind {
        ASK => Ok(Arrived::Ask(AskFrame::Ask { id, request: body })),
        ANSWER => Ok(Arrived::Ask(AskFrame::Answer {
            id,
            answer: Some(body),
        })),
        REFUSED => Ok(Arrived::Ask(AskFrame::Answer { id, answer: None })),
        _ => Err(FrameError::Content(format!("kind {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use quorate_base::{Index, LogId, Term};
    use quorate_node::handshake::PROTOCOL;

    use super::*;

    fn items() -> Vec<Item> {
        let large = Bytes::from(vec![7; 100_000]);
        vec![
            Item::Ask(AskFrame::Ask {
                id: 1,
                request: Bytes::from_static(b"renew"),
            }),
            Item::Message(PeerMessage::Append {
                term: Term(3),
                prev: LogId::new(2, 9),
                entries: vec![
                    Bytes::from_static(b"small"),
                    large.clone(),
                    large.clone(),
                    Bytes::new(),
                ],
                commit: Index(8),
            }),
            Item::Ask(AskFrame::Answer {
                id: 2,
                answer: Some(large),
            }),
            Item::Ask(AskFrame::Answer { id: 3, answer: None }),
        ]
    }

    async fn encoded() -> Vec<u8> {
        let mut buffer = WriteBuffer::new(PROTOCOL);
        assert!(items().iter().all(|item| buffer.push(item)));
        let mut bytes = Vec::new();
        let count = buffer.write_to(&mut bytes).await.unwrap();
        assert_eq!(count, bytes.len() as u64);
        bytes
    }

    #[tokio::test]
    async fn frames_survive_pipes_of_any_width() {
        let bytes = encoded().await;
        for width in [3, 1000, 1 << 20] {
            let (mut near, mut far) = tokio::io::duplex(width);
            let mut buffer = WriteBuffer::new(PROTOCOL);
            assert!(items().iter().all(|item| buffer.push(item)));
            let writing = tokio::spawn(async move { buffer.write_to(&mut near).await.unwrap() });
            let mut read = ReadBuffer::new(1 << 20);
            let mut arrived = Vec::new();
            while read.fill(&mut far).await.unwrap() > 0 {
                while let Some(frame) = read.next().unwrap() {
                    arrived.push(match frame {
                        Arrived::Message(message) => Item::Message(message),
                        Arrived::Ask(ask) => Item::Ask(ask),
                    });
                }
            }
            assert_eq!(arrived, items());
            assert_eq!(writing.await.unwrap(), bytes.len() as u64);
        }
    }

    #[tokio::test]
    async fn a_long_promise_is_refused_and_a_flipped_bit_noticed() {
        let mut promise = ReadBuffer::new(1000);
        promise.fill(&mut &[0xff; 8][..]).await.unwrap();
        assert!(matches!(
            promise.next(),
            Err(FrameError::TooLong(0xffff_ffff, 1000))
        ));
        assert!(promise.bytes.capacity() <= 2 * READ_BYTES);

        let bytes = encoded().await;
        for at in 4..22 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let mut read = ReadBuffer::new(1 << 20);
            read.fill(&mut &flipped[..]).await.unwrap();
            assert!(matches!(read.next(), Err(FrameError::Checksum)), "byte {at}");
        }
    }

    #[test]
    fn garbage_with_a_good_checksum_is_no_frame() {
        for body in [
            &b""[..],
            b"\x01",
            b"\x01short",
            b"\x09123456789",
            b"\x00",
            b"\x00\xff\xff",
        ] {
            assert!(decode(Bytes::from_static(body)).is_err(), "{body:?}");
        }
    }
}
