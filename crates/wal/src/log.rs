//! The log itself: opening, appending, and what is in it now. Making and removing segments is in `upkeep`, reading
//! entries in `read`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index};
use quorate_marks::reached;

use crate::entries::{Entries, Extent};
use crate::error::{DiskError, OpenError, ReadError, WriteError};
use crate::format::{FRAME_HEADER, Place, Position, SECTOR, SegmentHeader};
use crate::frame::{self, FrameWriter};
use crate::record::{self, Parts, Record};
use crate::recover::{self, Replay};
use crate::segment::{Preparation, Segment};

/// How a log is kept. What has only one safe value is not here.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names this log, for example a random number drawn when the data directory was made. Stored in every segment and
    /// part of every checksum: segments of another log are refused.
    pub identity: u64,
    /// Length of a segment file in bytes; rounded up to whole sectors. A batch that does not fit gets a longer one.
    pub segment_bytes: u32,
    /// Set when this directory is known to have held a log: an absent one is then [`OpenError::Missing`] instead of a fresh
    /// start.
    pub must_exist: bool,
}

impl Options {
    /// The defaults for the log named `identity`: segments of 16 MiB, fresh start allowed.
    pub fn new(identity: u64) -> Options {
        Options {
            identity,
            segment_bytes: 16 << 20,
            must_exist: false,
        }
    }
}

/// Whether the disk has room for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Nothing is known to be short.
    Ok,
    /// The disk is full: there is no spare segment, and the last attempt to make one failed. Appends go on in what is
    /// [reserved](Wal::reserved).
    Low,
}

/// The most bytes one batch may take; the lengths of segments and frames are 32-bit numbers.
const MAX_BATCH: u64 = 1 << 30;

/// How many bytes [`Wal::open`] reads at a time for its visitor.
const VISIT_BYTES: usize = 1 << 20;

/// A durable log on a [`Disk`], owned by one thread.
#[derive(Debug)]
pub struct Wal {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) place: Place,
    pub(crate) segment_bytes: u32,
    /// Segments before the head, oldest first.
    pub(crate) sealed: VecDeque<Segment>,
    /// The segment that is written to.
    pub(crate) head: Segment,
    /// The complete next segment, if there is one.
    pub(crate) spare: Option<Segment>,
    /// The next segment in the making.
    pub(crate) preparation: Option<Preparation>,
    /// Whether the last attempt to make room found the disk full.
    pub(crate) starved: bool,
    /// Why nothing can be written any more.
    pub(crate) closed: Option<String>,
    /// The end of the last frame.
    pub(crate) end: Position,
    pub(crate) entries: Entries,
    /// Where the next frame begins in the head.
    at: u32,
    sequence: u64,
    mark: Option<(Index, Bytes)>,
    state: Option<Bytes>,
    /// A buffer for frames, kept to be reused.
    scratch: Vec<u8>,
}

impl Wal {
    /// Opens the log on `disk`, or creates it. `visit` is given, in this order: the newest [`Record::Mark`] if there is
    /// one, the newest [`Record::State`] if there is one, and the entries that are in the log, in index order without gaps.
    /// (Truncations are already carried out.)
    ///
    /// A frame torn by a crash is cut off. Everything else that is not as it was written is an error, and the log
    /// is left as it is.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        visit: &mut dyn FnMut(Record),
    ) -> Result<Wal, OpenError> {
        let segment_bytes = whole_sectors(options.segment_bytes);
        let mut segments = recover::open_segments(&*disk, Some(options.identity))?;
        if segments.is_empty() {
            if options.must_exist {
                reached!("wal.open.missing");
                return Err(OpenError::Missing);
            }
            segments.push(create_first(&*disk, options.identity, segment_bytes)?);
        }
        let replay = Replay::of(&segments)?;
        recover::repair(&disk, &segments, &replay)?;
        let wal = Wal::assemble(disk, options.identity, segment_bytes, segments, replay);
        wal.visit_all(visit)?;
        Ok(wal)
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        identity: u64,
        segment_bytes: u32,
        segments: Vec<Segment>,
        replay: Replay,
    ) -> Wal {
        let sequence = replay.next_sequence();
        let mut sealed: VecDeque<Segment> = segments.into();
        let last = sealed.pop_back().expect("a log has a segment");
        let (head, spare) = if last.number() > replay.end.segment {
            reached!("wal.open.finds_spare");
            (
                sealed.pop_back().expect("the segment of the last frame is there"),
                Some(last),
            )
        } else {
            (last, None)
        };
        assert_eq!(
            head.number(),
            replay.end.segment,
            "the log goes on after its last frame"
        );
        Wal {
            disk,
            place: Place { identity, segment: 0 },
            segment_bytes,
            sealed,
            spare,
            preparation: None,
            starved: false,
            closed: None,
            at: replay.end.offset,
            head,
            end: replay.end,
            entries: replay.entries,
            sequence,
            mark: replay.mark,
            state: replay.state,
            scratch: Vec::new(),
        }
    }

    fn visit_all(&self, visit: &mut dyn FnMut(Record)) -> Result<(), OpenError> {
        if let Some((index, body)) = self.mark.clone() {
            visit(Record::Mark { index, body });
        }
        if let Some(body) = self.state.clone() {
            visit(Record::State(body));
        }
        let mut index = self.first_index();
        while index <= self.last_index() {
            let bodies = match self.read(index, self.last_index(), VISIT_BYTES) {
                Ok(bodies) => bodies,
                Err(ReadError::Disk(error)) => return Err(error.into()),
                Err(ReadError::Damaged(damage)) => return Err(damage.into()),
                Err(ReadError::Compacted { .. } | ReadError::Absent { .. }) => {
                    unreachable!("only indexes of the log are asked for")
                }
            };
            for body in bodies {
                visit(Record::Entry { index, body });
                index = index.next();
            }
        }
        Ok(())
    }

    /// Appends the batches and makes them durable: normally one write and one sync for all of them. Each batch is found after
    /// a crash as a whole or not at all, and only if all before it are. After an error the log accepts nothing more.
    ///
    /// # Panics
    /// If a record does not continue the log (see [`Record`]), or a batch is larger than a GiB: mistakes of the caller.
    pub fn append(&mut self, batches: &[Vec<Record>]) -> Result<(), WriteError> {
        self.check_open()?;
        self.check_batches(batches);
        let done = self.append_frames(batches);
        self.close_on_error(done)
    }

    fn check_batches(&self, batches: &[Vec<Record>]) {
        let mut extent = self.entries.extent();
        for batch in batches {
            assert!(size_of_batch(batch) <= MAX_BATCH, "a batch fits a segment");
            for record in batch {
                if let Err(why) = extent.step(record) {
                    panic!("the log's owner appends {why}: {record:?} to entries {extent:?}");
                }
            }
        }
    }

    fn append_frames(&mut self, mut batches: &[Vec<Record>]) -> Result<(), DiskError> {
        while let Some((first, rest)) = batches.split_first() {
            if first.is_empty() {
                // Must not reach the switch below: every segment but the last holds a frame.
                reached!("wal.append.empty_batch");
                batches = rest;
                continue;
            }
            match self.fitting(batches) {
                0 => self.switch(frame::size(self.head_payload() + size_of_batch(first)))?,
                count => {
                    reached!("wal.append.split_over_segments", count < batches.len());
                    let (now, later) = batches.split_at(count);
                    self.write_frame(now)?;
                    batches = later;
                }
            }
        }
        Ok(())
    }

    /// How many of the batches fit into one frame in the head.
    fn fitting(&self, batches: &[Vec<Record>]) -> usize {
        let room = u64::from(self.head.length - self.at);
        let mut payload = if self.at as usize == SECTOR {
            self.head_payload()
        } else {
            FRAME_HEADER as u64
        };
        let fits = |batch: &&Vec<Record>| {
            payload += size_of_batch(batch);
            payload <= MAX_BATCH + self.head_payload() && frame::size(payload) <= room
        };
        batches.iter().take_while(fits).count()
    }

    /// Bytes of a segment's first frame before its first batch: header, extent, newest mark and state.
    fn head_payload(&self) -> u64 {
        let mark = self
            .mark
            .as_ref()
            .map_or(0, |(_, body)| record::HEADER + body.len());
        let state = self.state.as_ref().map_or(0, |body| record::HEADER + body.len());
        (FRAME_HEADER + record::HEADER + 8 + mark + state) as u64
    }

    /// Writes the batches as one frame, which fits the head, and makes it durable.
    fn write_frame(&mut self, batches: &[Vec<Record>]) -> Result<(), DiskError> {
        let start = self.at;
        let mut writer = FrameWriter::new(self.head.place, start, std::mem::take(&mut self.scratch));
        if start as usize == SECTOR {
            self.repeat_newest(&mut writer);
        }
        let mut offset = writer.offset();
        for record in batches.iter().flatten() {
            writer.push(&record.parts());
        }
        let frame = writer.finish(self.sequence, self.end);
        self.head
            .file
            .write_vectored_at(u64::from(start), &frame.slices())
            .map_err(DiskError::new("write", &self.head.name()))?;
        self.head.sync()?;

        self.at = start + frame.size;
        self.sequence += 1;
        self.end = Position {
            segment: self.head.number(),
            offset: self.at,
        };
        self.scratch = frame.into_scratch();
        for record in batches.iter().flatten() {
            self.take_in(record, offset);
            offset += record.size() as u32;
        }
        Ok(())
    }

    /// A segment's first frame begins with what would be lost if the segments before it were removed.
    fn repeat_newest(&self, writer: &mut FrameWriter<'_>) {
        let Extent { start, last } = self.entries.extent();
        writer.push_copied(&Parts::base(last, &record::base_body(start)));
        if let Some((index, body)) = self.mark.clone() {
            writer.push_copied(&Record::Mark { index, body }.parts());
        }
        if let Some(body) = self.state.clone() {
            writer.push_copied(&Record::State(body).parts());
        }
    }

    /// Notes a record that is durable now, at `offset` of the head.
    fn take_in(&mut self, record: &Record, offset: u32) {
        let applied = self.entries.apply(record, self.head.number(), offset);
        applied.expect("all records were checked before they were written");
        match record {
            Record::Mark { index, body } => self.mark = Some((*index, body.clone())),
            Record::State(body) => self.state = Some(body.clone()),
            Record::Entry { .. } | Record::Truncate { .. } => {}
        }
    }

    /// Moves on to the next segment, which gets room for a first frame of `frame` bytes.
    fn switch(&mut self, frame: u64) -> Result<(), DiskError> {
        let next = self.take_next(frame)?;
        assert_eq!(
            next.number(),
            self.head.number() + 1,
            "segments are used in order"
        );
        self.sealed.push_back(std::mem::replace(&mut self.head, next));
        self.at = SECTOR as u32;
        self.remove_some()
    }

    pub(crate) fn check_open(&self) -> Result<(), WriteError> {
        match &self.closed {
            Some(why) => {
                reached!("wal.closed.refuses");
                Err(WriteError::Closed(why.clone()))
            }
            None => Ok(()),
        }
    }

    /// After a failed write or sync nothing is known about what is durable, so nothing may be written after it.
    pub(crate) fn close_on_error<T>(&mut self, done: Result<T, DiskError>) -> Result<T, WriteError> {
        done.map_err(|error| {
            reached!("wal.closed.disk_full", error.is_full());
            reached!("wal.closed.disk_failed", !error.is_full());
            self.closed = Some(error.to_string());
            WriteError::Disk(error)
        })
    }

    /// The first index that is in the log (or will be, if it is empty).
    pub fn first_index(&self) -> Index {
        self.entries.extent().start.next()
    }

    /// The last index in the log; `first_index - 1` if it is empty.
    pub fn last_index(&self) -> Index {
        self.entries.extent().last
    }

    /// Bytes that can still be appended without any new space on the disk, frames and padding included.
    pub fn reserved(&self) -> u64 {
        let spare = self
            .spare
            .as_ref()
            .map_or(0, |spare| spare.length - SECTOR as u32);
        u64::from(self.head.length - self.at) + u64::from(spare)
    }
}

fn size_of_batch(batch: &[Record]) -> u64 {
    batch.iter().map(|record| record.size() as u64).sum()
}

/// A usable segment length: whole sectors, at least the header and one frame.
fn whole_sectors(bytes: u32) -> u32 {
    let sectors = bytes.div_ceil(SECTOR as u32).clamp(4, u32::MAX / SECTOR as u32);
    sectors * SECTOR as u32
}

fn create_first(disk: &dyn Disk, identity: u64, length: u32) -> Result<Segment, DiskError> {
    let place = Place { identity, segment: 1 };
    let mut preparation = Preparation::begin(disk, SegmentHeader { place, length })?;
    while !preparation.is_filled() {
        preparation.fill()?;
    }
    // Its name becomes durable in `repair`, as that of a segment found.
    preparation.publish(disk)
}
