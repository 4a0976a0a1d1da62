//! The first words on a connection between two members: who speaks to whom, in which cluster, in which format. Only the
//! bytes and the rules; the connection itself belongs to the driver.
//!
//! The dialler sends a [`Hello`], the listener answers with one byte and a text. Both are of a form that later versions
//! must keep, so that different versions can at least refuse each other politely.

use bytes::Bytes;
use quorate_base::NodeId;
use thiserror::Error;

use crate::codec::{DecodeError, Put, Reader, length};

/// What every connection between members starts with.
pub const MAGIC: [u8; 8] = *b"quorate\x01";

/// The protocol version that this program speaks.
pub const PROTOCOL: u32 = 1;

/// The features beyond the protocol that this program knows; counts up.
pub const FEATURE_LEVEL: u32 = 1;

/// Bytes of an encoded [`Hello`].
pub const HELLO_LEN: usize = 48;

/// The dialler's first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster.
    pub cluster: u64,
    /// The dialler.
    pub from: NodeId,
    /// Whom it means to reach.
    pub to: NodeId,
    /// Which run of the dialler this is.
    pub boot: u64,
    /// The protocol version it speaks.
    pub protocol: u32,
    /// The features it knows.
    pub features: u32,
}

/// Why two nodes do not talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not a member of anything.
    #[error("the other side does not speak Quorate's peer protocol")]
    NotAPeer,
    /// Incompatible programs.
    #[error(
        "the peer speaks protocol version {theirs}, this node speaks {PROTOCOL}: bring both to compatible releases"
    )]
    Protocol {
        /// The dialler's version.
        theirs: u32,
    },
    /// Different clusters.
    #[error(
        "the peer belongs to cluster {theirs:016x}, this node to {ours:016x}: check both sides' initial cluster and token"
    )]
    WrongCluster {
        /// The listener's.
        ours: u64,
        /// The dialler's.
        theirs: u64,
    },
    /// Someone else was meant.
    #[error("the peer means to reach member {:016x}, but this is {:016x}: check the peer URLs", .meant.0, .ours.0)]
    WrongMember {
        /// The listener.
        ours: NodeId,
        /// Whom the dialler meant.
        meant: NodeId,
    },
    /// The dialler claims to be the listener, or nobody.
    #[error("the peer calls itself {:016x}, which it cannot be", .named.0)]
    Impostor {
        /// The name it gives.
        named: NodeId,
    },
}

impl Hello {
    /// A greeting by this program.
    pub fn new(cluster: u64, from: NodeId, to: NodeId, boot: u64) -> Hello {
        Hello {
            cluster,
            from,
            to,
            boot,
            protocol: PROTOCOL,
            features: FEATURE_LEVEL,
        }
    }

    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u32(self.protocol);
        bytes.put_u32(self.features);
        for number in [self.cluster, self.from.0, self.to.0, self.boot] {
            bytes.put_u64(number);
        }
        bytes.into()
    }

    /// Reads a greeting of exactly [`HELLO_LEN`] bytes.
    pub fn decode(bytes: Bytes) -> Result<Hello, Refusal> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(MAGIC.len()).is_ok_and(|magic| magic[..] == MAGIC) {
            Hello::read(reader).map_err(|_| Refusal::NotAPeer)
        } else {
            Err(Refusal::NotAPeer)
        }
    }

    fn read(mut reader: Reader) -> Result<Hello, DecodeError> {
        let (protocol, features) = (reader.u32()?, reader.u32()?);
        let hello = Hello {
            protocol,
            features,
            cluster: reader.u64()?,
            from: NodeId(reader.u64()?),
            to: NodeId(reader.u64()?),
            boot: reader.u64()?,
        };
        reader.end()?;
        Ok(hello)
    }

    /// Whether the listener `me` of `cluster` talks to whoever says this.
    pub fn check(&self, cluster: u64, me: NodeId) -> Result<(), Refusal> {
        if self.protocol != PROTOCOL {
            return Err(Refusal::Protocol {
                theirs: self.protocol,
            });
        }
        if self.cluster != cluster {
            return Err(Refusal::WrongCluster {
                ours: cluster,
                theirs: self.cluster,
            });
        }
        if self.to != me {
            return Err(Refusal::WrongMember {
                ours: me,
                meant: self.to,
            });
        }
        if self.from == me || self.from == NodeId::ZERO {
            return Err(Refusal::Impostor { named: self.from });
        }
        Ok(())
    }
}

/// The listener's answer: accepted, or the reason for a refusal as a text of at most 255 bytes.
pub fn encode_answer(answer: &Result<(), Refusal>) -> Bytes {
    let why = answer.as_ref().err().map(Refusal::to_string).unwrap_or_default();
    let mut bytes = vec![u8::from(answer.is_err())];
    bytes.put_u32(length(why.len()));
    bytes.extend_from_slice(why.as_bytes());
    bytes.into()
}

/// Bytes of an answer before its text.
pub const ANSWER_HEAD: usize = 5;

/// Length of the text after an answer's head; refused if it is unreasonably long.
pub fn answer_text_len(head: &[u8; ANSWER_HEAD]) -> Result<usize, DecodeError> {
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if len > 1024 {
        return Err(DecodeError::Invalid("the answer to the greeting is too long"));
    }
    Ok(len as usize)
}

/// Reads an answer; `Err` carries the listener's reason.
pub fn decode_answer(head: &[u8; ANSWER_HEAD], text: &[u8]) -> Result<(), String> {
    match head[0] {
        0 => Ok(()),
        _ => Err(String::from_utf8_lossy(text).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        cluster: 9,
        from: NodeId(1),
        to: NodeId(2),
        boot: 5,
        protocol: PROTOCOL,
        features: FEATURE_LEVEL,
    };

    #[test]
    fn a_greeting_survives_the_wire() {
        let bytes = HELLO.encode();
        assert_eq!(bytes.len(), HELLO_LEN);
        assert_eq!(Hello::decode(bytes.clone()), Ok(HELLO));
        for cut in 0..HELLO_LEN {
            assert_eq!(Hello::decode(bytes.slice(..cut)), Err(Refusal::NotAPeer));
        }
        assert_eq!(
            Hello::decode(Bytes::from_static(b"GET / HTTP/1.1\r\n")),
            Err(Refusal::NotAPeer)
        );
    }

    #[test]
    fn each_mismatch_has_its_own_refusal() {
        assert_eq!(HELLO.check(9, NodeId(2)), Ok(()));
        assert_eq!(
            HELLO.check(8, NodeId(2)),
            Err(Refusal::WrongCluster { ours: 8, theirs: 9 })
        );
        assert_eq!(
            HELLO.check(9, NodeId(3)),
            Err(Refusal::WrongMember {
                ours: NodeId(3),
                meant: NodeId(2)
            })
        );
        let newer = Hello { protocol: 7, ..HELLO };
        assert_eq!(newer.check(9, NodeId(2)), Err(Refusal::Protocol { theirs: 7 }));
        let me = Hello {
            from: NodeId(2),
            ..HELLO
        };
        assert_eq!(
            me.check(9, NodeId(2)),
            Err(Refusal::Impostor { named: NodeId(2) })
        );
    }

    #[test]
    fn answers_carry_the_reason() {
        for answer in [Ok(()), Err(Refusal::WrongCluster { ours: 8, theirs: 9 })] {
            let bytes = encode_answer(&answer);
            let head = bytes[..ANSWER_HEAD].try_into().unwrap();
            assert_eq!(answer_text_len(&head), Ok(bytes.len() - ANSWER_HEAD));
            assert_eq!(
                decode_answer(&head, &bytes[ANSWER_HEAD..]),
                answer.map_err(|why| why.to_string())
            );
        }
        assert!(answer_text_len(&[1, 255, 255, 255, 255]).is_err());
    }
}
