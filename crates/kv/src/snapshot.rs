//! The whole state as a stream, for a node that is too far behind for the log, and for backups.
//!
//! `"QKVS"`, a version byte, then records: a tag byte, the length of the key and of the value as varints, both. Tag 0 is the state
//! record ([`Flushed`](crate::meta::Flushed)) and comes first; tags 1 to 5 are rows of the tables, in order; tag 255 ends the stream, its value
//! the CRC32C of everything before its tag, its key the number of rows. The receiver builds a new store from it and
//! moves that in place only when all of it has come and the checksum is right.

use std::io::{self, Read};
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use quorate_base::{LogId, SnapshotReader};

use crate::codec::put_varint;
use crate::flush::{self, Frozen, Writer, engine};
use crate::meta::{Flushed, Meta};
use crate::row::{Attached, Current, Events, Leases, Pasts, Row};
use crate::store::{File, Store};
use crate::table::Table;
use crate::view::{Layers, View};

const MAGIC: &[u8] = b"QKVS\x01";
const STATE: u8 = 0;
const END: u8 = 255;
/// The stream is produced in steps of about this size.
const STEP: usize = 64 << 10;
/// The receiver commits whenever so much has come.
const COMMIT_BYTES: i64 = 32 << 20;
/// No key or value is longer; a longer one in a stream is damage, and must not ask for memory.
const MAX_FIELD: u64 = 1 << 30;

/// A snapshot being read out. Holds the tables as they were when it was taken.
pub(crate) struct Stream {
    active: Table,
    frozen: Option<Arc<Frozen>>,
    view: Arc<View>,
    buffer: BytesMut,
    crc: u32,
    rows: u64,
    next: Next,
}

/// Where reading goes on: the first key not yet sent of a table.
#[derive(Clone)]
enum Next {
    Current(Option<<Current as Row>::Key>),
    Events(Option<<Events as Row>::Key>),
    Pasts(Option<<Pasts as Row>::Key>),
    Leases(Option<<Leases as Row>::Key>),
    Attached(Option<<Attached as Row>::Key>),
    Trailer,
    Done,
}

impl Stream {
    pub(crate) fn new(store: &Store, meta: &Meta) -> Stream {
        let scrubbed = store.flushed().scrubbed;
        let tables = (store.active.clone(), store.frozen.clone());
        Stream::of(tables, store.view.clone(), meta, scrubbed)
    }

    /// The state `meta` that these tables over a view hold.
    pub(crate) fn of(
        (active, frozen): (Table, Option<Arc<Frozen>>),
        view: Arc<View>,
        meta: &Meta,
        scrubbed: i64,
    ) -> Stream {
        let state = Flushed {
            meta: meta.clone(),
            scrubbed,
            stored: 0,
        };
        let mut stream = Stream {
            active,
            frozen,
            view,
            buffer: BytesMut::from(MAGIC),
            crc: crc32c::crc32c(MAGIC),
            rows: 0,
            next: Next::Current(None),
        };
        stream.record(STATE, b"", &state.encode());
        stream
    }

    fn record(&mut self, tag: u8, key: &[u8], value: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[tag]);
        put_varint(&mut self.buffer, key.len() as u64);
        put_varint(&mut self.buffer, value.len() as u64);
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer[start..]);
    }

    /// Sends rows of one table until a step is full; the key to go on from, `None` at the end of the table.
    fn rows<R: Row>(&mut self, from: Option<R::Key>) -> io::Result<Option<R::Key>> {
        let (active, frozen, view) = (
            std::mem::take(&mut self.active),
            self.frozen.clone(),
            self.view.clone(),
        );
        let layers = Layers {
            active: &active,
            frozen: frozen.as_ref().map(|frozen| &frozen.table),
            view: &view,
        };
        let next = self.rows_of::<R>(layers, from);
        self.active = active;
        next
    }

    fn rows_of<R: Row>(&mut self, layers: Layers<'_>, from: Option<R::Key>) -> io::Result<Option<R::Key>> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for row in layers
            .range::<R>(&(from, Bound::Unbounded))
            .map_err(io::Error::other)?
        {
            let row = row.map_err(io::Error::other)?;
            if self.buffer.len() >= STEP {
                return Ok(Some(row.key));
            }
            key.clear();
            value.clear();
            R::put_key(&row.key, &mut key);
            R::put_value(&row.value().map_err(io::Error::other)?, &mut value);
            self.record(R::TAG, &key, &value);
            self.rows += 1;
        }
        Ok(None)
    }

    fn step(&mut self) -> io::Result<()> {
        self.next = match self.next.clone() {
            Next::Current(from) => match self.rows::<Current>(from)? {
                None => Next::Events(None),
                more => Next::Current(more),
            },
            Next::Events(from) => match self.rows::<Events>(from)? {
                None => Next::Pasts(None),
                more => Next::Events(more),
            },
            Next::Pasts(from) => match self.rows::<Pasts>(from)? {
                None => Next::Leases(None),
                more => Next::Pasts(more),
            },
            Next::Leases(from) => match self.rows::<Leases>(from)? {
                None => Next::Attached(None),
                more => Next::Leases(more),
            },
            Next::Attached(from) => match self.rows::<Attached>(from)? {
                None => Next::Trailer,
                more => Next::Attached(more),
            },
            Next::Trailer => {
                let crc = self.crc.to_be_bytes();
                self.record(END, &self.rows.to_be_bytes(), &crc);
                Next::Done
            }
            Next::Done => Next::Done,
        };
        Ok(())
    }
}

impl SnapshotReader for Stream {
    fn read_chunk(&mut self, max: usize) -> io::Result<Bytes> {
        assert!(max > 0, "an empty chunk means the end");
        while self.buffer.len() < max.min(STEP) && !matches!(self.next, Next::Done) {
            self.step()?;
        }
        let len = self.buffer.len().min(max);
        Ok(self.buffer.split_to(len).freeze())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let chunk = self.read_chunk(buf.len())?;
        buf[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }
}

/// Builds a store from a stream; the state it holds.
pub(crate) fn receive(file: &File, at: LogId, source: &mut dyn Read) -> io::Result<Flushed> {
    let mut input = Input {
        source: io::BufReader::with_capacity(STEP, source),
        crc: 0,
    };
    let mut magic = [0; MAGIC.len()];
    input.fill(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("not a snapshot of this version"));
    }
    let (tag, _, state) = input.record()?;
    if tag != STATE {
        return Err(invalid("the state record is missing"));
    }
    let mut state = Flushed::decode(&state).map_err(|e| invalid(&e.to_string()))?;
    if state.meta.applied != at {
        return Err(invalid(&format!("of entry {}, not of {at}", state.meta.applied)));
    }
    let mut rows = 0u64;
    loop {
        let txn = flush::begin(&file.db)?;
        let mut writers = [
            Writer::open::<Current>(&txn)?,
            Writer::open::<Events>(&txn)?,
            Writer::open::<Pasts>(&txn)?,
            Writer::open::<Leases>(&txn)?,
            Writer::open::<Attached>(&txn)?,
        ];
        let mut gained = 0;
        let mut trailer = None;
        while gained < COMMIT_BYTES && trailer.is_none() {
            let crc = input.crc;
            let (tag, key, value) = input.record()?;
            match tag {
                1..=5 => {
                    check_row(tag, &key, &value)?;
                    writers[usize::from(tag) - 1].put_raw(&key, &value)?;
                    gained += (key.len() + value.len()) as i64;
                    rows += 1;
                }
                END => trailer = Some((crc, key, value)),
                other => return Err(invalid(&format!("unknown record {other}"))),
            }
        }
        drop(writers);
        txn.commit().map_err(engine)?;
        file.check_space()?;
        state.stored += gained;
        if let Some((crc, key, value)) = trailer {
            if key != rows.to_be_bytes() || value != crc.to_be_bytes() {
                return Err(invalid("the checksum is wrong"));
            }
            return Ok(state);
        }
    }
}

/// A row that does not decode is refused here, not found by some later read.
fn check_row(tag: u8, key: &[u8], value: &[u8]) -> io::Result<()> {
    fn check<R: Row>(key: &[u8], value: &[u8]) -> Result<(), crate::codec::DecodeError> {
        R::get_key(key)?;
        R::get_value(value)?;
        Ok(())
    }
    let checked = match tag {
        Current::TAG => check::<Current>(key, value),
        Events::TAG => check::<Events>(key, value),
        Pasts::TAG => check::<Pasts>(key, value),
        Leases::TAG => check::<Leases>(key, value),
        _ => check::<Attached>(key, value),
    };
    checked.map_err(|e| invalid(&e.to_string()))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {text}"))
}

/// The stream on the receiving side, with the checksum so far.
struct Input<R> {
    source: R,
    crc: u32,
}

impl<R: Read> Input<R> {
    fn fill(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.source.read_exact(out)?;
        self.crc = crc32c::crc32c_append(self.crc, out);
        Ok(())
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let mut byte = [0];
            self.fill(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid("a length is out of bounds"))
    }

    fn record(&mut self) -> io::Result<(u8, Vec<u8>, Vec<u8>)> {
        let mut tag = [0];
        self.fill(&mut tag)?;
        let (key, value) = (self.varint()?, self.varint()?);
        Ok((tag[0], self.field(key)?, self.field(value)?))
    }

    /// Reads piece by piece, so that a damaged length takes no more memory than there are bytes.
    fn field(&mut self, len: u64) -> io::Result<Vec<u8>> {
        if len > MAX_FIELD {
            return Err(invalid("a length is out of bounds"));
        }
        let mut out = Vec::new();
        let read = (&mut self.source).take(len).read_to_end(&mut out)?;
        if read as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.crc = crc32c::crc32c_append(self.crc, out.as_slice().chunk());
        Ok(out)
    }
}
