//! Reading protobuf messages without building them: of an event only a few bytes are looked at, and there may be a thousand
//! watchers that each get it. And taking messages out of a stream of pieces.

use bytes::{Buf, Bytes, BytesMut};

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// Bytes: text, or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which none of the messages read here has.
    Fixed,
}

/// The fields of a message with their numbers; ends early, with an error, where it is none.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

/// This is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

impl<'a> Fields<'a> {
    /// Of this message.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// gRPC messages out of the pieces in which they arrive. Mostly a piece is one message, and nothing is copied.
#[derive(Debug, Default)]
pub struct Messages(Bytes);

impl Messages {
    /// Takes a piece.
    pub fn push(&mut self, piece: Bytes) {
        self.0 = if self.0.is_empty() {
            piece
        } else {
            joined(std::mem::take(&mut self.0), &piece)
        };
    }

    /// The next message that is there in full.
    pub fn pop(&mut self) -> Option<Bytes> {
        let (head, rest) = self.0.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if rest.len() < length {
            return None;
        }
        self.0.advance(5);
        Some(self.0.split_to(length))
    }
}

/// Two pieces as one. The first grows in place if nobody else has a part of its memory.
pub fn joined(first: Bytes, second: &[u8]) -> Bytes {
    let mut all = first
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    all.extend_from_slice(second);
    all.freeze()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn fields_are_those_that_prost_wrote() {
        let pair = KeyValue {
            key: Bytes::from_static(b"k"),
            mod_revision: 300,
            value: Bytes::from(vec![7; 1000]),
            lease: -1,
            ..KeyValue::default()
        };
        let encoded = pair.encode_to_vec();
        let fields: Result<Vec<_>, _> = Fields::of(&encoded).collect();
        let value = vec![7; 1000];
        let expected = vec![
            (1, Field::Bytes(b"k")),
            (3, Field::Number(300)),
            (5, Field::Bytes(&value)),
            (6, Field::Number(u64::MAX)),
        ];
        assert_eq!(fields, Ok(expected));
        for cut in 1..encoded.len() {
            // Every cut is an error or the end of a field; none is a panic.
            let _ = Fields::of(&encoded[..cut]).count();
        }
        assert_eq!(
            Fields::of(&encoded[..encoded.len() - 1]).last(),
            Some(Err(Malformed))
        );
        assert_eq!(Fields::of(&[0xff; 11]).last(), Some(Err(Malformed)));
    }

    #[test]
    fn pieces_are_put_together() {
        let block = Bytes::from_static(b"abcdef");
        assert_eq!(joined(block.slice(..2), &block[2..]), block);
        assert_eq!(joined(Bytes::from(vec![b'a']), &block[1..]), block);
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let stream: Vec<u8> = [&[0, 0, 0, 0, 2, 1, 2][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 3]].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let mut got = Vec::new();
            for piece in stream.chunks(size) {
                messages.push(Bytes::copy_from_slice(piece));
                got.extend(std::iter::from_fn(|| messages.pop()));
            }
            assert_eq!(got, [&[1, 2][..], &[], &[3]], "in pieces of {size}");
        }
    }
}
