//! The dialler's greeting and its bytes, all numbers little-endian:
//!
//! ```text
//! offset  bytes  field
//!      0      8  "quorate" and a byte 1
//!      8      4  protocol version of this connection
//!     12      4  features that the dialler knows
//!     16      8  cluster; 0 in an inquiry
//!     24      8  the dialler; 0 in an inquiry
//!     32      8  whom it means to reach; 0 in an inquiry
//!     40      8  boot: which start of the dialler this is; up to protocol 1 a random number
//!     48      1  which connection, the transport's affair
//!                                          from protocol 2 on:
//!     49      4  length of the papers
//!     53      …  papers: incarnation (8), number of nonces (4), nonces (8 each), term (8), last index (8), lease timeout in ms (4, 0 is
//!                off), number of addresses (4), addresses (length (4), UTF-8), CRC32C of everything before it (4)
//! ```

use bytes::Bytes;
use quorate_base::{Index, NodeId, Term};

use super::{Refusal, protocol_of};
use crate::codec::{DecodeError, Put, Reader, length};

/// What every connection between members starts with.
pub const MAGIC: [u8; 8] = *b"quorate\x01";

/// Bytes of a greeting before the papers: all of it up to protocol 1.
pub const HELLO_LEN: usize = 49;

/// Nonces of former starts that are kept and shown.
pub const MAX_NONCES: usize = 32;

/// The longest papers taken.
const MAX_PAPERS: usize = 8 << 10;
/// Addresses of one node, and the length of one.
const MAX_ADDRESSES: (usize, usize) = (16, 300);
/// The length of papers, in front of them.
const LENGTH: usize = 4;

/// The dialler's first words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version of this connection.
    pub protocol: u32,
    /// The features the dialler knows.
    pub features: u32,
    /// The cluster.
    pub cluster: u64,
    /// The dialler.
    pub from: NodeId,
    /// Whom it means to reach.
    pub to: NodeId,
    /// Which start of the dialler's data directory this is, counted from 1. In protocol 1 a random number.
    pub boot: u64,
    /// Which of the connections between the two; the transport's affair.
    pub lane: u8,
    /// What proves that the dialler is who it was. Protocol 1 has none.
    pub papers: Option<Papers>,
}

/// What a node shows of its data directory, so that peers know it again, or know that it is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Papers {
    /// Drawn at random when the data directory was founded.
    pub incarnation: u64,
    /// A random number for each of the last starts up to this one ([`MAX_NONCES`] at most), oldest first. Two processes that started from
    /// copies of one directory differ in the last.
    pub nonces: Vec<u64>,
    /// The term that was durable when the node started.
    pub term: Term,
    /// The last index of the log that was durable when the node started.
    pub last: Index,
    /// With lease reads on, the election timeout in milliseconds that they count on.
    pub leases: Option<u32>,
    /// `host:port` of the dialler's own peer listeners. Those that are too many or too long are not shown.
    pub addresses: Vec<String>,
}

impl Hello {
    /// A greeting by one who is no member yet and wants to know what to join. Its own addresses say who it will be.
    pub fn inquiry(features: u32, addresses: Vec<String>) -> Hello {
        Hello {
            protocol: protocol_of(features).max(2),
            features,
            cluster: 0,
            from: NodeId::ZERO,
            to: NodeId::ZERO,
            boot: 0,
            lane: 0,
            papers: Some(Papers {
                addresses,
                ..Papers::default()
            }),
        }
    }

    /// Whether this is an inquiry.
    pub fn is_inquiry(&self) -> bool {
        self.from == NodeId::ZERO && self.to == NodeId::ZERO && self.papers.is_some()
    }

    /// The same greeting as nodes of protocol 1 say it.
    pub fn without_papers(&self) -> Hello {
        Hello {
            protocol: 1,
            papers: None,
            ..self.clone()
        }
    }

    /// The bytes to send.
    ///
    /// # Panics
    /// If a greeting of protocol 2 has no papers, or one of protocol 1 has.
    pub fn encode(&self) -> Bytes {
        assert_eq!(
            self.papers.is_some(),
            self.protocol > 1,
            "papers came with protocol 2"
        );
        let mut bytes = MAGIC.to_vec();
        bytes.put_u32(self.protocol);
        bytes.put_u32(self.features);
        for number in [self.cluster, self.from.0, self.to.0, self.boot] {
            bytes.put_u64(number);
        }
        bytes.put_u8(self.lane);
        if let Some(papers) = &self.papers {
            let body = papers.encode();
            bytes.put_u32(length(body.len() + LENGTH));
            bytes.extend_from_slice(&body);
            bytes.put_u32(crc32c::crc32c(&bytes));
        }
        bytes.into()
    }

    /// How many bytes of a greeting are to be read as far as these first ones tell; when there are that many, they can be
    /// [`decode`](Hello::decode)d. Garbage is refused at its first byte, since it may be shorter than a greeting.
    pub fn needs(first: &[u8]) -> Result<usize, Refusal> {
        let known = first.len().min(MAGIC.len());
        if first[..known] != MAGIC[..known] {
            return Err(Refusal::NotAPeer);
        }
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| first[at + i]));
        Ok(match first.len() {
            0 => 1,
            1..HELLO_LEN => HELLO_LEN,
            _ if word(MAGIC.len()) < 2 => HELLO_LEN,
            len if len < HELLO_LEN + LENGTH => HELLO_LEN + LENGTH,
            _ => match word(HELLO_LEN) as usize {
                len if len <= MAX_PAPERS => HELLO_LEN + LENGTH + len,
                _ => return Err(Refusal::NotAPeer),
            },
        })
    }

    /// Reads a whole greeting. Of a later protocol only the head is understood, which is enough to refuse it.
    pub fn decode(bytes: Bytes) -> Result<Hello, Refusal> {
        if Hello::needs(&bytes)? != bytes.len() {
            return Err(Refusal::NotAPeer);
        }
        Hello::read(bytes).map_err(|_| Refusal::NotAPeer)
    }

    fn read(bytes: Bytes) -> Result<Hello, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        reader.bytes(MAGIC.len())?;
        let (protocol, features) = (reader.u32()?, reader.u32()?);
        let mut hello = Hello {
            protocol,
            features,
            cluster: reader.u64()?,
            from: NodeId(reader.u64()?),
            to: NodeId(reader.u64()?),
            boot: reader.u64()?,
            lane: reader.u8()?,
            papers: None,
        };
        if protocol == 2 {
            let Some((covered, crc)) = bytes.split_last_chunk::<4>() else {
                return Err(DecodeError::Short);
            };
            if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
                return Err(DecodeError::Invalid("a greeting's checksum is wrong"));
            }
            reader.u32()?;
            hello.papers = Some(Papers::read(&mut reader)?);
            reader.u32()?;
            reader.end()?;
        }
        Ok(hello)
    }
}

impl Papers {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u64(self.incarnation);
        let nonces = &self.nonces[self.nonces.len().saturating_sub(MAX_NONCES)..];
        bytes.put_u32(length(nonces.len()));
        nonces.iter().for_each(|nonce| bytes.put_u64(*nonce));
        bytes.put_u64(self.term.0);
        bytes.put_u64(self.last.0);
        bytes.put_u32(self.leases.unwrap_or(0));
        let addresses = self.addresses.iter().filter(|text| text.len() <= MAX_ADDRESSES.1);
        let addresses: Vec<&String> = addresses.take(MAX_ADDRESSES.0).collect();
        bytes.put_u32(length(addresses.len()));
        for address in addresses {
            bytes.put_u32(length(address.len()));
            bytes.extend_from_slice(address.as_bytes());
        }
        bytes
    }

    fn read(reader: &mut Reader) -> Result<Papers, DecodeError> {
        let mut papers = Papers {
            incarnation: reader.u64()?,
            ..Papers::default()
        };
        let nonces = reader.count(8)?;
        if nonces > MAX_NONCES {
            return Err(DecodeError::Invalid("too many nonces"));
        }
        for _ in 0..nonces {
            papers.nonces.push(reader.u64()?);
        }
        (papers.term, papers.last) = (reader.term()?, reader.index()?);
        papers.leases = Some(reader.u32()?).filter(|millis| *millis > 0);
        let addresses = reader.count(4)?;
        if addresses > MAX_ADDRESSES.0 {
            return Err(DecodeError::Invalid("too many addresses"));
        }
        for _ in 0..addresses {
            let len = reader.u32()? as usize;
            let text = reader.bytes(len)?;
            match std::str::from_utf8(&text) {
                Ok(text) if len <= MAX_ADDRESSES.1 => papers.addresses.push(text.to_owned()),
                _ => return Err(DecodeError::Invalid("an address is not one")),
            }
        }
        Ok(papers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: 2,
            features: 2,
            cluster: 9,
            from: NodeId(1),
            to: NodeId(2),
            boot: 5,
            lane: 1,
            papers: Some(Papers {
                incarnation: 77,
                nonces: vec![4, 5],
                term: Term(3),
                last: Index(8),
                leases: Some(1000),
                addresses: vec!["one:2380".into(), "[::1]:2380".into()],
            }),
        }
    }

    /// Reads as a driver does: only as much as is asked for.
    fn piecemeal(bytes: &Bytes) -> Result<Hello, Refusal> {
        let mut have = 0;
        loop {
            let needs = Hello::needs(&bytes[..have])?;
            assert!(needs >= have && needs <= bytes.len());
            if needs == have {
                return Hello::decode(bytes.slice(..have));
            }
            have = needs;
        }
    }

    #[test]
    fn a_greeting_survives_the_wire() {
        for hello in [hello(), hello().without_papers(), Hello::inquiry(2, Vec::new())] {
            let bytes = hello.encode();
            assert_eq!(piecemeal(&bytes), Ok(hello));
            for cut in 0..bytes.len() {
                assert_eq!(Hello::decode(bytes.slice(..cut)), Err(Refusal::NotAPeer));
            }
        }
        assert_eq!(hello().without_papers().encode().len(), HELLO_LEN);
        assert_eq!(Hello::needs(b"GET / HTTP/1.1\r\n"), Err(Refusal::NotAPeer));
        assert_eq!(Hello::needs(b"qo"), Err(Refusal::NotAPeer));
    }

    #[test]
    fn too_much_to_show_is_no_reason_to_be_misunderstood() {
        let mut hello = hello();
        let papers = hello.papers.as_mut().unwrap();
        papers.nonces = (0..100).collect();
        papers.addresses = vec!["x".repeat(1000)];
        papers.addresses.extend((0..100).map(|n| format!("host{n}:1")));
        let read = piecemeal(&hello.encode()).unwrap().papers.unwrap();
        assert_eq!(read.nonces, (100 - MAX_NONCES as u64..100).collect::<Vec<_>>());
        assert_eq!(read.addresses.len(), MAX_ADDRESSES.0);
        assert_eq!(read.addresses[0], "host0:1");
    }

    #[test]
    fn a_flipped_bit_makes_no_other_greeting() {
        let bytes = hello().encode();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The length may then ask for more than there is.
            let needs = Hello::needs(&flipped).unwrap_or(0);
            // Another protocol is seen as what it is, and refused by the next rule.
            if let Ok(hello) = Hello::decode(Bytes::from(flipped).slice(..needs.min(bytes.len()))) {
                assert_ne!(hello.protocol, 2, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_later_protocol_is_recognised_by_its_head() {
        let mut bytes = hello().encode().to_vec();
        bytes[8] = 3;
        let later = piecemeal(&bytes.into()).unwrap();
        assert_eq!((later.protocol, later.papers), (3, None));
    }

    #[test]
    fn long_papers_are_not_waited_for() {
        let mut bytes = hello().encode().to_vec();
        bytes[HELLO_LEN..HELLO_LEN + LENGTH].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Hello::needs(&bytes), Err(Refusal::NotAPeer));
    }
}
