//! The whole state as a stream, for a node that is too far behind for the log, and for backups.
//!
//! `"QKVS"`, a version byte, then records: a tag byte, the length of the key and of the value as varints, both. Tag 0 is the state
//! record ([`Flushed`](crate::meta::Flushed)) and comes first; tags 1 to 5 are [rows](crate::wire), in order; tag 255 ends the stream, its value
//! the CRC32C of everything before its tag, its key the number of rows. The receiver builds a new store from it and
//! moves that in place only when all of it has come and the checksum is right.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use quorate_base::{LogId, SnapshotReader};
use redb::WriteTransaction;

use crate::chain::Place;
use crate::codec::put_varint;
use crate::flush::{self, Frozen, Writer, engine};
use crate::meta::{Flushed, Format, Meta};
use crate::range::Reader;
use crate::row::{Attached, Change, Changes, Keys, Latest, Leases, Row};
use crate::store::{File, Store};
use crate::table::Table;
use crate::view::{Layers, ReadError, View};
use crate::wire;

const MAGIC: &[u8] = b"QKVS\x01";
const STATE: u8 = 0;
const END: u8 = 255;
/// The stream is produced in steps of about this size.
const STEP: usize = 64 << 10;
/// The receiver commits whenever so much has come.
const COMMIT_BYTES: i64 = 32 << 20;
/// Distinct keys among them: each is remembered until the commit.
const COMMIT_KEYS: usize = 100_000;
/// No key or value is longer; a longer one in a stream is damage, and must not ask for memory.
const MAX_FIELD: u64 = 1 << 30;

/// The bytes of a stream, as far as they are put together and not taken.
pub(crate) struct Output {
    buffer: BytesMut,
    crc: u32,
    rows: u64,
}

impl Output {
    /// The beginning of a stream of this state.
    pub(crate) fn of(state: &Flushed) -> Output {
        let mut output = Output {
            buffer: BytesMut::from(MAGIC),
            crc: crc32c::crc32c(MAGIC),
            rows: 0,
        };
        output.record(STATE, b"", &state.encode(Format::First));
        output
    }

    /// Whether a step's worth waits to be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= STEP
    }

    pub(crate) fn row(&mut self, tag: u8, key: &[u8], value: &[u8]) {
        self.record(tag, key, value);
        self.rows += 1;
    }

    pub(crate) fn trailer(&mut self) {
        let crc = self.crc.to_be_bytes();
        self.record(END, &self.rows.to_be_bytes(), &crc);
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

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn take(&mut self, max: usize) -> Bytes {
        let len = self.buffer.len().min(max);
        self.buffer.split_to(len).freeze()
    }
}

/// A snapshot being read out. Holds the tables as they were when it was taken.
pub(crate) struct Stream {
    active: Table,
    frozen: Option<Arc<Frozen>>,
    view: Arc<View>,
    meta: Meta,
    lean: bool,
    output: Output,
    next: Next,
    past: Past,
}

/// Of the key whose past is being sent, what is left of it: the last change comes first.
#[derive(Default)]
struct Past {
    key: Bytes,
    rows: Vec<(Place, (i64, i64))>,
}

impl Past {
    /// Sends until a step is full.
    fn send(&mut self, output: &mut Output) {
        let (mut at, mut value) = (Vec::new(), Vec::new());
        while !output.is_full()
            && let Some((place, put)) = self.rows.pop()
        {
            at.clear();
            value.clear();
            wire::put_history_key(&self.key, place, &mut at);
            wire::put_history(put, &mut value);
            output.row(wire::HISTORY, &at, &value);
        }
    }

    /// The first key behind this one.
    fn after(&self) -> Bytes {
        [&self.key[..], &[0]].concat().into()
    }
}

/// Where reading goes on: the first key not yet sent of a table.
#[derive(Clone)]
enum Next {
    Current(Option<<Keys as Row>::Key>),
    Events(Option<<Changes as Row>::Key>),
    History(Option<<Keys as Row>::Key>),
    Leases(Option<<Leases as Row>::Key>),
    Attached(Option<<Attached as Row>::Key>),
    Trailer,
    Done,
}

impl Stream {
    pub(crate) fn new(store: &Store, meta: &Meta) -> Stream {
        let scrubbed = store.flushed().scrubbed;
        let tables = (store.active.clone(), store.frozen.clone());
        let stream = Stream::lean(tables, store.view.clone(), meta, scrubbed);
        Stream {
            lean: false,
            next: Next::Current(None),
            ..stream
        }
    }

    /// The state `meta` that these tables over a view hold, without the rows that say nothing new: for [`receive`] in the same process only.
    pub(crate) fn lean(
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
        Stream {
            active,
            frozen,
            view,
            meta: meta.clone(),
            lean: true,
            output: Output::of(&state),
            next: Next::Events(None),
            past: Past::default(),
        }
    }

    /// Sends rows made of one table until a step is full; the key to go on from, `None` at the end of the table. `send` is given each row.
    fn rows<R: Row>(
        &mut self,
        from: Option<R::Key>,
        mut send: impl FnMut(&mut Output, Reader<'_>, &R::Key, R::Value) -> Result<(), ReadError>,
    ) -> io::Result<Option<R::Key>> {
        let reader = Reader {
            layers: Layers {
                active: &self.active,
                frozen: self.frozen.as_ref().map(|frozen| &frozen.table),
                view: &self.view,
            },
            latest: self.meta.revision,
            compacted: self.meta.compacted,
        };
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        for row in reader
            .layers
            .range::<R>(&(from, Bound::Unbounded))
            .map_err(io::Error::other)?
        {
            let row = row.map_err(io::Error::other)?;
            if self.output.is_full() {
                return Ok(Some(row.key));
            }
            let value = row.value().map_err(io::Error::other)?;
            send(&mut self.output, reader, &row.key, value).map_err(io::Error::other)?;
        }
        Ok(None)
    }

    fn current(&mut self, from: Option<Bytes>) -> io::Result<Option<Bytes>> {
        let mut value = Vec::new();
        self.rows::<Keys>(from, |output, reader, key, latest| {
            if !latest.is_tombstone() {
                value.clear();
                reader.version(latest.at)?.put_fields(&mut value);
                output.row(wire::CURRENT, key, &value);
            }
            Ok(())
        })
    }

    fn events(&mut self, from: Option<Place>) -> io::Result<Option<Place>> {
        let (mut at, mut value) = (Vec::new(), Vec::new());
        self.rows::<Changes>(from, |output, _, place, change| {
            at.clear();
            value.clear();
            Changes::put_key(place, &mut at);
            wire::put_event(&change.key, change.put.as_ref(), &mut value);
            output.row(wire::EVENTS, &at, &value);
            Ok(())
        })
    }

    /// The rows of one key are found from its last to its first, and sent the other way round, in as many steps as it takes.
    fn history(&mut self, from: Option<Bytes>) -> io::Result<Option<Bytes>> {
        let mut past = std::mem::take(&mut self.past);
        past.send(&mut self.output);
        let next = self.rows::<Keys>(from, |output, reader, key, latest| {
            past.key = key.clone();
            let mut next = Some(latest.at);
            while let Some(place) = next
                && let Some(change) = reader.layers.get::<Changes>(&place)?
            {
                let put = change.put.map_or((0, 0), |put| (put.create, put.version));
                past.rows.push((place, put));
                next = change.links.before;
            }
            past.send(output);
            Ok(())
        })?;
        self.past = past;
        // Behind the last key of all there is none to go on from, but perhaps a rest.
        Ok(next.or_else(|| (!self.past.rows.is_empty()).then(|| self.past.after())))
    }

    fn plain<R: Row>(&mut self, tag: u8, from: Option<R::Key>) -> io::Result<Option<R::Key>> {
        let (mut bytes, mut value) = (Vec::new(), Vec::new());
        self.rows::<R>(from, |output, _, key, row| {
            bytes.clear();
            value.clear();
            R::put_key(key, &mut bytes);
            R::put_value(&row, &mut value);
            output.row(tag, &bytes, &value);
            Ok(())
        })
    }

    fn step(&mut self) -> io::Result<()> {
        self.next = match self.next.clone() {
            Next::Current(from) => match self.current(from)? {
                None => Next::Events(None),
                more => Next::Current(more),
            },
            Next::Events(from) => match self.events(from)? {
                None if self.lean => Next::Leases(None),
                None => Next::History(None),
                more => Next::Events(more),
            },
            Next::History(from) => match self.history(from)? {
                None => Next::Leases(None),
                more => Next::History(more),
            },
            Next::Leases(from) => match self.plain::<Leases>(wire::LEASES, from)? {
                None => Next::Attached(None),
                more => Next::Leases(more),
            },
            Next::Attached(from) => match self.plain::<Attached>(wire::ATTACHED, from)? {
                None => Next::Trailer,
                more => Next::Attached(more),
            },
            Next::Trailer => {
                self.output.trailer();
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
        while self.output.len() < max.min(STEP) && !matches!(self.next, Next::Done) {
            self.step()?;
        }
        Ok(self.output.take(max))
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
    let (_, mut state) = Flushed::decode(&state).map_err(|e| invalid(&e.to_string()))?;
    if state.meta.applied != at {
        return Err(invalid(&format!("of entry {}, not of {at}", state.meta.applied)));
    }
    let mut rows = 0u64;
    loop {
        let txn = flush::begin(&file.db)?;
        let mut rows_in = Rows::open(&txn)?;
        let mut trailer = None;
        while !rows_in.is_full() && trailer.is_none() {
            let crc = input.crc;
            let (tag, key, value) = input.record()?;
            match tag {
                wire::CURRENT..=wire::ATTACHED => {
                    wire::check(tag, &key, &value).map_err(|e| invalid(&e.to_string()))?;
                    rows_in.take(tag, &key, &value)?;
                    rows += 1;
                }
                END => trailer = Some((crc, key, value)),
                other => return Err(invalid(&format!("unknown record {other}"))),
            }
        }
        state.stored += rows_in.finish()?;
        txn.commit().map_err(engine)?;
        file.check_space()?;
        if let Some((crc, key, value)) = trailer {
            if key != rows.to_be_bytes() || value != crc.to_be_bytes() {
                return Err(invalid("the checksum is wrong"));
            }
            return Ok(state);
        }
    }
}

/// The rows of one transaction of a store in the making. What the changes make of the table `keys` is collected, and written in order.
struct Rows<'txn> {
    keys: Writer<'txn>,
    changes: Writer<'txn>,
    leases: Writer<'txn>,
    attached: Writer<'txn>,
    latest: BTreeMap<Bytes, Latest>,
    bytes: Vec<u8>,
    /// Bytes of rows that came.
    gained: i64,
}

impl<'txn> Rows<'txn> {
    fn open(txn: &'txn WriteTransaction) -> io::Result<Rows<'txn>> {
        Ok(Rows {
            keys: Writer::open::<Keys>(txn)?,
            changes: Writer::open::<Changes>(txn)?,
            leases: Writer::open::<Leases>(txn)?,
            attached: Writer::open::<Attached>(txn)?,
            latest: BTreeMap::new(),
            bytes: Vec::new(),
            gained: 0,
        })
    }

    /// Whether it is time to commit, and to forget what was collected.
    fn is_full(&self) -> bool {
        self.gained >= COMMIT_BYTES || self.latest.len() >= COMMIT_KEYS
    }

    /// Takes in a row that was checked.
    fn take(&mut self, tag: u8, key: &[u8], value: &[u8]) -> io::Result<()> {
        match tag {
            wire::EVENTS => self.take_event(key, value)?,
            wire::LEASES => self.leases.put_raw(key, value)?,
            wire::ATTACHED => self.attached.put_raw(key, value)?,
            _ => return Ok(()),
        }
        self.gained += (key.len() + value.len()) as i64;
        Ok(())
    }

    fn take_event(&mut self, at: &[u8], value: &[u8]) -> io::Result<()> {
        let (place, key, put) = wire::get_event(at, value).map_err(|e| invalid(&e.to_string()))?;
        let latest = match self.latest.remove(&key) {
            None => self.keys.get::<Keys>(&key)?,
            latest => latest,
        };
        if latest.as_ref().is_some_and(|latest| latest.at >= place) {
            return Err(invalid("its changes are out of order"));
        }
        let (chain, links) = Latest::follow(latest, place);
        // A copy, since the key as it came holds on to the value beside it.
        let kept = Bytes::copy_from_slice(&key);
        self.latest.insert(kept, Latest::of(place, put.as_ref(), chain));
        self.bytes.clear();
        Changes::put_value(&Change { key, put, links }, &mut self.bytes);
        self.changes.put_raw(at, &self.bytes)
    }

    /// Writes what was collected; the bytes that all tables gained.
    fn finish(mut self) -> io::Result<i64> {
        for (key, latest) in &self.latest {
            self.keys.set::<Keys>(key, Some(latest))?;
        }
        Ok(self.keys.gained + self.changes.gained + self.leases.gained + self.attached.gained)
    }
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
