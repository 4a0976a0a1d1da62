//! What is asked: keys, values and the encoded requests. Made anew for each operation, so it allocates little: values are pieces
//! of one block of random bytes, and a client's messages share one buffer.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};

/// The keys of a run: zero-padded numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpace {
    /// Bytes of a key.
    pub digits: usize,
    /// Number of different keys.
    pub keys: u64,
    /// In order, or at random.
    pub sequential: bool,
}

impl KeySpace {
    /// The key of the operation of this number.
    fn pick(&self, number: u64, random: &mut Random) -> Bytes {
        let mut rest = if self.sequential {
            number % self.keys
        } else {
            random.below(self.keys)
        };
        let mut key = vec![b'0'; self.digits];
        for digit in key.iter_mut().rev() {
            if rest == 0 {
                break;
            }
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Bytes::from(key)
    }
}

/// Which call a unary operation makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One key is written.
    Put,
    /// One key is read.
    Range {
        /// From the endpoint's own state.
        serializable: bool,
    },
}

impl Kind {
    /// The name of its command.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Range { .. } => "range",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Put => "Put",
            Kind::Range { serializable: false } => "Linearizable read",
            Kind::Range { serializable: true } => "Serializable read",
        }
    }

    /// The gRPC method.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Put => "/etcdserverpb.KV/Put",
            Kind::Range { .. } => "/etcdserverpb.KV/Range",
        }
    }

    /// Whether an answer holds what was asked for. An answer that cannot be read is an error.
    pub fn found(self, answer: Bytes) -> Result<bool, prost::DecodeError> {
        match self {
            Kind::Put => Ok(true),
            Kind::Range { .. } => Ok(!RangeResponse::decode(answer)?.kvs.is_empty()),
        }
    }
}

/// Values: pieces of a block of random bytes, which do not compress, begin anywhere and cost nothing to make.
#[derive(Clone, Debug)]
pub struct Values {
    block: Bytes,
    size: usize,
}

/// By how much the block of random bytes is larger than one value.
const VARIETY: usize = 64 << 10;

impl Values {
    /// Values of this size.
    pub fn new(size: usize, seed: u64) -> Values {
        let mut random = Random::new(seed);
        let mut block = Vec::with_capacity(size + VARIETY + 8);
        while block.len() < size + VARIETY {
            block.extend_from_slice(&random.next().to_le_bytes());
        }
        Values {
            block: Bytes::from(block),
            size,
        }
    }

    fn pick(&self, random: &mut Random) -> Bytes {
        let from = random.below(VARIETY as u64) as usize;
        self.block.slice(from..from + self.size)
    }
}

/// One client's requests.
#[derive(Debug)]
pub struct Requests {
    kind: Kind,
    keys: KeySpace,
    values: Rc<Values>,
    random: Random,
    buffer: BytesMut,
}

impl Requests {
    /// Requests of a client that no other client's depend on.
    pub fn new(kind: Kind, keys: KeySpace, values: Rc<Values>, random: Random) -> Requests {
        Requests {
            kind,
            keys,
            values,
            random,
            buffer: BytesMut::new(),
        }
    }

    /// The request of the operation of this number, as it goes into a gRPC stream.
    pub fn encode(&mut self, number: u64) -> Bytes {
        let key = self.keys.pick(number, &mut self.random);
        match self.kind {
            Kind::Put => {
                let value = self.values.pick(&mut self.random);
                let put = PutRequest {
                    key,
                    value,
                    ..PutRequest::default()
                };
                frame(&put, &mut self.buffer)
            }
            Kind::Range { serializable } => {
                let range = RangeRequest {
                    key,
                    serializable,
                    ..RangeRequest::default()
                };
                frame(&range, &mut self.buffer)
            }
        }
    }
}

/// Encodes a message with gRPC's five bytes before it. The buffer's memory is used again once earlier messages are sent.
pub fn frame(message: &impl Message, buffer: &mut BytesMut) -> Bytes {
    let length = message.encoded_len();
    buffer.reserve(5 + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).expect("requests are limited to far less by their options"));
    message.encode(buffer).expect("room was reserved");
    buffer.split().freeze()
}

/// splitmix64: fast, and any seed is a good seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from the seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Numbers for one of many that share a seed.
    pub fn of(seed: u64, who: u64) -> Random {
        let mut base = Random(seed);
        let base = base.next();
        let mut own = Random(base ^ who.wrapping_mul(0xd134_2543_de82_ef95));
        Random(own.next())
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, each as likely as the others to within 2^-64 * limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(kind: Kind, keys: KeySpace, seed: u64) -> Requests {
        Requests::new(kind, keys, Rc::new(Values::new(100, seed)), Random::new(seed))
    }

    const KEYS: KeySpace = KeySpace {
        digits: 8,
        keys: 1000,
        sequential: false,
    };

    fn put(frame: &Bytes) -> PutRequest {
        assert_eq!(frame[0], 0, "not compressed");
        assert_eq!(
            u32::from_be_bytes(frame[1..5].try_into().expect("four bytes")) as usize,
            frame.len() - 5
        );
        PutRequest::decode(frame.slice(5..)).expect("a PutRequest")
    }

    #[test]
    fn keys_are_padded_numbers_below_the_key_space() {
        let mut requests = requests(Kind::Put, KEYS, 1);
        let mut highest = 0;
        for number in 0..2000 {
            let request = put(&requests.encode(number));
            assert_eq!((request.key.len(), request.value.len()), (8, 100));
            let key: u64 = std::str::from_utf8(&request.key)
                .expect("digits")
                .parse()
                .expect("digits");
            assert!(key < 1000);
            highest = highest.max(key);
        }
        assert!(highest > 900, "over the whole space");
    }

    #[test]
    fn keys_in_order_begin_again_at_the_end() {
        let keys = KeySpace {
            sequential: true,
            ..KEYS
        };
        let mut requests = requests(Kind::Put, keys, 1);
        assert_eq!(put(&requests.encode(999)).key, "00000999");
        assert_eq!(put(&requests.encode(1000)).key, "00000000");
    }

    #[test]
    fn the_same_seed_asks_the_same_and_another_asks_something_else() {
        let ask = |seed| {
            let mut requests = requests(Kind::Put, KEYS, seed);
            (0..10).map(|number| requests.encode(number)).collect::<Vec<_>>()
        };
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
        let clients: Vec<u64> = (0..100).map(|client| Random::of(1, client).next()).collect();
        let mut different = clients.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(clients.len(), different.len());
    }

    #[test]
    fn a_read_without_a_key_in_it_found_nothing() {
        let range = Kind::Range { serializable: true };
        assert_eq!(range.found(Bytes::new()), Ok(false));
        let answer = RangeResponse {
            kvs: vec![Default::default()],
            ..RangeResponse::default()
        };
        assert_eq!(range.found(answer.encode_to_vec().into()), Ok(true));
        assert!(range.found(Bytes::from_static(&[0xff])).is_err());
    }
}
