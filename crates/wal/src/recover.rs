//! Reading a log back: replays all segments in order, checks that each frame follows from the one before, and decides
//! whether what is missing at the end was torn off by a crash. `Replay` only reads; `repair` then makes sure that what was
//! found counts, and that recovering twice equals recovering once.

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index};
use quorate_marks::reached;

use crate::entries::{Entries, Extent};
use crate::error::{Damage, DiskError, OpenError};
use crate::format::{Position, SECTOR, Shape};
use crate::record::{Record, Stored};
use crate::scan::{self, Found};
use crate::segment::{self, Segment};

/// What the segments seen so far amount to.
#[derive(Debug)]
pub(crate) struct Replay {
    pub entries: Entries,
    pub mark: Option<(Index, Bytes)>,
    pub state: Option<Bytes>,
    /// The sequence number the next frame must have; `None` before the first frame of a log whose beginning is gone.
    sequence: Option<u64>,
    /// The end of the last frame; before the first frame: where it would begin.
    pub end: Position,
    /// Where the last frame begins, if there is one.
    last_frame: Option<Position>,
    /// Where the remains of a torn frame are.
    pub torn: Option<Position>,
}

/// Opens all segments of a log, oldest first, with none missing between.
pub(crate) fn open_segments(disk: &dyn Disk, identity: Option<u64>) -> Result<Vec<Segment>, OpenError> {
    let numbers = segment::list(disk)?;
    let mut segments: Vec<Segment> = Vec::with_capacity(numbers.len());
    for number in numbers {
        if let Some(before) = segments.last()
            && number != before.number() + 1
        {
            reached!("wal.damage.segment_missing_between");
            let file = segment::file_name(before.number() + 1);
            return Err(OpenError::MissingSegment { file });
        }
        let identity = identity.or(segments.last().map(|segment| segment.place.identity));
        segments.push(Segment::open(disk, number, identity)?);
    }
    Ok(segments)
}

impl Replay {
    /// Replays `segments`, which are all there are, oldest first and at least one.
    pub(crate) fn of(segments: &[Segment]) -> Result<Replay, OpenError> {
        let first = segments.first().expect("a log has a segment").number();
        let nothing = Extent {
            start: Index::ZERO,
            last: Index::ZERO,
        };
        let mut replay = Replay {
            entries: Entries::unseen(nothing),
            mark: None,
            state: None,
            sequence: (first == 1).then_some(1),
            end: Position {
                segment: first,
                offset: SECTOR as u32,
            },
            last_frame: None,
            torn: None,
        };
        for segment in segments {
            replay.segment(segment)?;
        }
        replay.check_end(segments)?;
        Ok(replay)
    }

    /// The sequence number of the next frame.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence
            .expect("a log that replays has a first frame or begins at segment 1")
    }

    fn damage(&self, at: Position, why: &str) -> OpenError {
        let index = self.last_frame.map(|_| self.entries.extent().last.next());
        OpenError::Damaged(Damage {
            file: segment::file_name(at.segment),
            offset: u64::from(at.offset),
            index,
            why: why.to_owned(),
        })
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), OpenError> {
        let image = segment.image()?;
        let place = segment.place;
        let mut at = Position {
            segment: segment.number(),
            offset: SECTOR as u32,
        };
        loop {
            match scan::look(place, &image, at.offset) {
                Found::Nothing => return Ok(()),
                Found::Torn { shape } => {
                    self.check_untorn()?;
                    if let Some(shape) = shape {
                        self.check_follows(at, &shape)?;
                    }
                    reached!("wal.torn.at_head_of_segment", at.offset as usize == SECTOR);
                    reached!("wal.torn.behind_other_frames", at.offset as usize > SECTOR);
                    self.torn = Some(at);
                    return Ok(());
                }
                Found::Damaged { offset, why } => return Err(self.damage(Position { offset, ..at }, why)),
                Found::Frame { shape, records, end } => {
                    self.check_follows(at, &shape)?;
                    self.frame(at, &image, segment, shape, records)?;
                    self.last_frame = Some(at);
                    self.sequence = Some(shape.sequence.saturating_add(1));
                    at.offset = end;
                    self.end = at;
                }
            }
        }
    }

    /// After a torn frame nothing can have been written. (What names its own predecessor is checked by that.)
    fn check_untorn(&self) -> Result<(), OpenError> {
        match self.torn {
            Some(torn) => {
                reached!("wal.damage.torn_before_more");
                Err(self.damage(torn, "parts of a frame are missing after which more was written"))
            }
            None => Ok(()),
        }
    }

    /// The frame at `at`, whole or torn, must have been written right after the last one found.
    fn check_follows(&self, at: Position, shape: &Shape) -> Result<(), OpenError> {
        if at == self.end {
            // What the first frame of the oldest segment follows is gone, except in the very first segment.
            let oldest = self.last_frame.is_none() && at.segment > 1;
            if !oldest && shape.synced != at {
                reached!("wal.damage.frame_of_elsewhere");
                return Err(self.damage(at, "a frame that belongs elsewhere"));
            }
        } else if shape.synced != self.end || self.end.segment + 1 != at.segment {
            reached!("wal.damage.frames_missing");
            return Err(self.damage(
                self.end,
                "the next segment does not follow from what is here: frames are missing",
            ));
        }
        match self.sequence {
            Some(expected) if expected != shape.sequence => {
                reached!("wal.damage.frame_out_of_sequence");
                Err(self.damage(
                    at,
                    "a frame's sequence number does not follow from the one before",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Carries out the records of a whole frame.
    fn frame(
        &mut self,
        at: Position,
        image: &Bytes,
        segment: &Segment,
        shape: Shape,
        count: u32,
    ) -> Result<(), OpenError> {
        let mut expect_base = at.offset as usize == SECTOR;
        let very_first = self.last_frame.is_none();
        let visit = &mut |offset, stored| match stored {
            Stored::Base { start, last } if expect_base => {
                expect_base = false;
                self.base(Extent { start, last }, very_first)
            }
            Stored::Record(record) if !expect_base => self.record(record, segment.number(), offset),
            _ => {
                reached!("wal.damage.extent_misplaced");
                Err("a segment's first record, and no other, tells the extent of the log")
            }
        };
        let taken_apart = scan::records(segment.place, image, at.offset, &shape, count, visit);
        taken_apart.map_err(|(offset, why)| self.damage(Position { offset, ..at }, why))
    }

    fn base(&mut self, extent: Extent, very_first: bool) -> Result<(), &'static str> {
        if extent.last < extent.start {
            reached!("wal.damage.extent_backwards");
            return Err("an extent that ends before it begins");
        }
        if very_first {
            self.entries = Entries::unseen(extent);
        }
        if self.entries.extent() == extent {
            Ok(())
        } else {
            reached!("wal.damage.extent_of_another_log");
            Err("the segment was begun with another log before it")
        }
    }

    fn record(&mut self, record: Record, segment: u64, offset: u32) -> Result<(), &'static str> {
        self.entries.apply(&record, segment, offset)?;
        match record {
            Record::Mark { index, body } => self.mark = Some((index, body)),
            Record::State(body) => self.state = Some(body),
            Record::Entry { .. } | Record::Truncate { .. } => {}
        }
        Ok(())
    }

    /// Checks that need all segments.
    fn check_end(&self, segments: &[Segment]) -> Result<(), OpenError> {
        let (first, last) = (segments[0].number(), segments[segments.len() - 1].number());
        if self.last_frame.is_none() && first > 1 {
            reached!("wal.damage.oldest_lost_first_frame");
            return Err(self.damage(self.end, "the oldest segment has lost its first frame"));
        }
        if last > self.end.segment + 1 {
            let lost = Position {
                segment: self.end.segment + 1,
                offset: SECTOR as u32,
            };
            reached!("wal.damage.empty_segment_between");
            return Err(self.damage(lost, "a segment without frames, followed by another"));
        }
        if self.entries.has_unseen() {
            reached!("wal.damage.oldest_segment_missing");
            let file = segment::file_name(first - 1);
            return Err(OpenError::MissingSegment { file });
        }
        Ok(())
    }
}

/// Makes durable what a replay found, and zero what comes after.
///
/// This is done at every start, torn or not: the last frame may have been read from the page cache after a sync of it had
/// failed, in which case only writing it again makes it count; the same goes for zeros that an earlier recovery wrote. And a
/// segment's name may not be durable yet.
pub(crate) fn repair(disk: &Arc<dyn Disk>, segments: &[Segment], replay: &Replay) -> Result<(), DiskError> {
    for segment in segments {
        reached!(
            "wal.repair.torn_frame",
            replay.torn.is_some_and(|torn| torn.segment == segment.number())
        );
        if segment.number() == replay.end.segment {
            rewrite_last_frame(segment, replay)?;
            segment.write_zeros(replay.end.offset)?;
            segment.sync()?;
        } else if segment.number() > replay.end.segment {
            reached!("wal.repair.spare_segment");
            segment.write_zeros(SECTOR as u32)?;
            segment.sync()?;
        }
    }
    segment::sync_dir(&**disk)
}

/// The same bytes into the same sectors: a crash in between changes nothing.
fn rewrite_last_frame(segment: &Segment, replay: &Replay) -> Result<(), DiskError> {
    let Some(frame) = replay.last_frame else {
        reached!("wal.repair.no_frame_yet");
        return Ok(());
    };
    let bytes = segment.read(frame.offset, replay.end.offset - frame.offset)?;
    segment
        .file
        .write_at(u64::from(frame.offset), &bytes)
        .map_err(DiskError::new("write", &segment.name()))
}
