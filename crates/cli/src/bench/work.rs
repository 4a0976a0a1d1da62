//! What is asked: keys, values and the encoded requests. Made anew for each operation, so it allocates little: values are pieces
//! of one block of random bytes, and a client's messages share one buffer.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest};

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

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One key is written.
    Put,
    /// One key is read.
    Range {
        /// From the endpoint's own state.
        serializable: bool,
    },
    /// One key's version is compared and, as the comparison always holds, the key is written.
    Txn,
    /// One key is written, with the time in its value for those who watch.
    Watched,
    /// A lease is granted, renewed so many times, revoked.
    Lease {
        /// For each lease.
        renewals: u32,
    },
}

impl Kind {
    /// The name of its command.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Range { .. } => "range",
            Kind::Txn => "txn",
            Kind::Watched => "watch",
            Kind::Lease { .. } => "lease",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Put => "Put",
            Kind::Range { serializable: false } => "Linearizable read",
            Kind::Range { serializable: true } => "Serializable read",
            Kind::Txn => "Transaction",
            Kind::Watched => "Put, seen by watchers",
            Kind::Lease { .. } => "Lease",
        }
    }

    /// The gRPC method of an operation that is one call.
    pub fn path(self) -> &'static str {
        match self {
            Kind::Put | Kind::Watched => "/etcdserverpb.KV/Put",
            Kind::Range { .. } => "/etcdserverpb.KV/Range",
            Kind::Txn => "/etcdserverpb.KV/Txn",
            Kind::Lease { .. } => "/etcdserverpb.Lease/LeaseGrant",
        }
    }

    /// Whether values are written.
    pub fn has_values(self) -> bool {
        matches!(self, Kind::Put | Kind::Txn | Kind::Watched)
    }

    /// Whether an answer holds what was asked for. An answer that cannot be read is an error.
    pub fn found(self, answer: Bytes) -> Result<bool, prost::DecodeError> {
        match self {
            Kind::Range { .. } => Ok(!RangeResponse::decode(answer)?.kvs.is_empty()),
            _ => Ok(true),
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

    /// A value that begins with a stamp, at the cost of a copy.
    fn stamped(&self, random: &mut Random, stamp: Stamp) -> Bytes {
        let mut value = self.pick(random).to_vec();
        value[..8].copy_from_slice(&stamp.run.to_le_bytes());
        value[8..Stamp::SIZE].copy_from_slice(&stamp.nanos.to_le_bytes());
        Bytes::from(value)
    }
}

/// What a watcher needs to know of a put, in its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Of which run it is: others may write the same keys.
    pub run: u64,
    /// When it was sent, counted from the run's start.
    pub nanos: u64,
}

impl Stamp {
    /// Bytes that it takes.
    pub const SIZE: usize = 16;

    /// The stamp of a value, if there is room for one in it.
    pub fn of(value: &[u8]) -> Option<Stamp> {
        let (run, rest) = value.split_first_chunk::<8>()?;
        let (nanos, _) = rest.split_first_chunk::<8>()?;
        Some(Stamp {
            run: u64::from_le_bytes(*run),
            nanos: u64::from_le_bytes(*nanos),
        })
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

    /// The request of the operation of this number, as it goes into a gRPC stream. Only what is watched needs the stamp.
    pub fn encode(&mut self, number: u64, stamp: Stamp) -> Bytes {
        let key = self.keys.pick(number, &mut self.random);
        match self.kind {
            Kind::Put | Kind::Watched | Kind::Lease { .. } => {
                let value = if self.kind == Kind::Watched {
                    self.values.stamped(&mut self.random, stamp)
                } else {
                    self.values.pick(&mut self.random)
                };
                frame(&put(key, value), &mut self.buffer)
            }
            Kind::Range { serializable } => {
                let range = RangeRequest {
                    serializable,
                    ..range(key)
                };
                frame(&range, &mut self.buffer)
            }
            Kind::Txn => {
                let value = self.values.pick(&mut self.random);
                frame(&txn(key, value), &mut self.buffer)
            }
        }
    }
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

fn range(key: Bytes) -> RangeRequest {
    RangeRequest {
        key,
        ..RangeRequest::default()
    }
}

/// If the key's version is above -1, which every key's is, put, else get: the work of a compare-and-set, and the same each time.
fn txn(key: Bytes, value: Bytes) -> TxnRequest {
    let request = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Version(-1)),
            ..Compare::default()
        }],
        success: vec![request(Request::RequestPut(put(key.clone(), value)))],
        failure: vec![request(Request::RequestRange(range(key)))],
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

    fn decoded(frame: &Bytes) -> PutRequest {
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
            let request = decoded(&requests.encode(number, Stamp::default()));
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
        assert_eq!(decoded(&requests.encode(999, Stamp::default())).key, "00000999");
        assert_eq!(decoded(&requests.encode(1000, Stamp::default())).key, "00000000");
    }

    #[test]
    fn the_same_seed_asks_the_same_and_another_asks_something_else() {
        let ask = |seed| {
            let mut requests = requests(Kind::Put, KEYS, seed);
            (0..10)
                .map(|number| requests.encode(number, Stamp::default()))
                .collect::<Vec<_>>()
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
    fn what_is_watched_carries_its_stamp() {
        let mut requests = requests(Kind::Watched, KEYS, 1);
        let stamp = Stamp { run: 7, nanos: 8 };
        let request = decoded(&requests.encode(0, stamp));
        assert_eq!(request.value.len(), 100);
        assert_eq!(Stamp::of(&request.value), Some(stamp));
        assert_eq!(Stamp::of(&request.value[..15]), None);
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
