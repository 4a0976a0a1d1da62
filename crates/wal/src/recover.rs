//! Reading a log back: replays all segments in order, checks that each frame follows from the one before, and decides
//! whether what is missing at the end was torn off by a crash. `Replay` only reads; `repair` then makes sure that what was
//! found counts, and that recovering twice equals recovering once.

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index};
use quorate_marks::reached;

use crate::entries::{Entries, Extent};
use crate::error::{Damage, DiskError, OpenError};
use crate::format::{Position, SECTOR, Shape, ZEROS};
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
        if let Some(torn) = replay.torn.filter(|torn| torn.segment == segment.number()) {
            wipe_first(segment, torn.offset)?;
        }
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

/// Makes the first sector of a torn frame zero, durably, before zeros are written over the rest of it. These may be cut short at any byte, and
/// what they leave of a sector cannot be told from damage by itself; but behind a first sector that is gone as a whole it can.
fn wipe_first(segment: &Segment, torn: u32) -> Result<(), DiskError> {
    segment
        .file
        .write_at(u64::from(torn), &ZEROS)
        .map_err(DiskError::new("write", &segment.name()))?;
    segment.sync()
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

#[cfg(test)]
mod tests {
    //! Frames that are sound in every checksum and make no sense: no disk makes them, a faulty program may. They are refused by the place of
    //! the first record that makes none.

    use std::io;

    use quorate_base::DiskFile;

    use super::*;
    use crate::format::{FRAME_HEADER, Place};
    use crate::frame::FrameWriter;
    use crate::record::{HEADER, Parts, base_body};

    /// A file that is only read.
    #[derive(Debug)]
    struct Image(Vec<u8>);

    impl DiskFile for Image {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
            Ok(())
        }

        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("replaying writes nothing")
        }

        fn write_vectored_at(&self, _: u64, _: &[io::IoSlice<'_>]) -> io::Result<()> {
            unreachable!("replaying writes nothing")
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!("replaying writes nothing")
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!("replaying writes nothing")
        }
    }

    #[derive(Clone)]
    enum Written {
        Base(u64, u64),
        Record(Record),
    }

    use Written::Base;

    fn entry(index: u64) -> Written {
        let (index, body) = (Index(index), Bytes::new());
        Written::Record(Record::Entry { index, body })
    }

    fn truncate(after: u64) -> Written {
        Written::Record(Record::Truncate { after: Index(after) })
    }

    fn mark(index: u64) -> Written {
        let (index, body) = (Index(index), Bytes::new());
        Written::Record(Record::Mark { index, body })
    }

    /// Segments of one frame after the other, as one log writes them.
    #[derive(Default)]
    struct Log {
        segments: Vec<Segment>,
        sequence: u64,
        end: Option<Position>,
        /// The frame, by its number, that names another predecessor than the right one.
        wrong: Option<u64>,
    }

    impl Log {
        fn segment(mut self, number: u64, frames: &[&[Written]]) -> Log {
            let place = Place {
                identity: 7,
                segment: number,
            };
            let mut image = vec![0; 4096];
            let mut at = SECTOR;
            for records in frames {
                let mut writer = FrameWriter::new(place, at as u32, Vec::new());
                for record in *records {
                    match record {
                        Base(start, last) => {
                            writer.push_copied(&Parts::base(Index(*last), &base_body(Index(*start))));
                        }
                        Written::Record(record) => writer.push_copied(&record.parts()),
                    }
                }
                self.sequence += 1;
                let here = Position {
                    segment: number,
                    offset: at as u32,
                };
                let mut synced = self.end.unwrap_or(here);
                if self.wrong == Some(self.sequence) {
                    synced.offset += SECTOR as u32;
                }
                let frame = writer.finish(self.sequence, synced);
                for slice in frame.slices() {
                    image[at..at + slice.len()].copy_from_slice(&slice);
                    at += slice.len();
                }
                self.end = Some(Position {
                    segment: number,
                    offset: at as u32,
                });
            }
            self.segments.push(Segment {
                place,
                length: image.len() as u32,
                file: Arc::new(Image(image)),
            });
            self
        }

        /// The file, the offset, and the beginning of what is said.
        fn refused(&self) -> (String, u64, String) {
            match Replay::of(&self.segments) {
                Err(OpenError::Damaged(damage)) => (damage.file, damage.offset, damage.why),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn records_that_do_not_follow_are_refused_where_they_stand() {
        const EXTENT: &str = "a segment's first record, and no other";
        let first = (SECTOR + FRAME_HEADER) as u64;
        let second = first + HEADER as u64 + 8;
        // A frame takes a sector and one of footer.
        let next_frame = first + 2 * SECTOR as u64;
        let cases: [(&[&[Written]], u64, &str); 8] = [
            (&[&[entry(1)]], first, EXTENT),
            (&[&[Base(0, 0), Base(0, 0)]], second, EXTENT),
            (&[&[Base(0, 0), entry(1)], &[Base(0, 1)]], next_frame, EXTENT),
            (&[&[Base(5, 3)]], first, "an extent that ends before it begins"),
            (&[&[Base(0, 0), entry(2)]], second, "an entry that is not"),
            (
                &[&[Base(0, 0), entry(1)], &[entry(1)]],
                next_frame,
                "an entry that is not",
            ),
            (
                &[&[Base(3, 3), truncate(2)]],
                second,
                "a truncation before the mark",
            ),
            (&[&[Base(3, 3), mark(2)]], second, "a mark that goes back"),
        ];
        for (frames, offset, why) in cases {
            let (file, at, said) = Log::default().segment(1, frames).refused();
            assert_eq!((file, at), (segment::file_name(1), offset), "{said}");
            assert!(said.starts_with(why), "{said}");
        }
    }

    #[test]
    fn a_segment_begins_with_the_extent_that_the_one_before_left() {
        let log = |base| {
            let log = Log::default().segment(1, &[&[Base(0, 0), entry(1), entry(2), mark(1)]]);
            log.segment(2, &[&[base, entry(3)]])
        };
        let whole = Replay::of(&log(Base(1, 2)).segments).unwrap();
        let (start, last) = (Index(1), Index(3));
        assert_eq!(whole.entries.extent(), Extent { start, last });
        for other in [Base(0, 2), Base(1, 1), Base(1, 3)] {
            let (file, at, why) = log(other).refused();
            assert_eq!(
                (file, at),
                (segment::file_name(2), (SECTOR + FRAME_HEADER) as u64)
            );
            assert!(why.contains("another log before it"), "{why}");
        }
    }

    /// What the oldest segment follows is gone, unless it is the very first. Everything else names its predecessor.
    #[test]
    fn a_frame_that_names_another_predecessor_belongs_elsewhere() {
        for (segment, wrong, refused) in [(1, 1, true), (1, 2, true), (2, 1, false), (2, 2, true)] {
            let log = Log {
                wrong: Some(wrong),
                ..Log::default()
            };
            let log = log.segment(segment, &[&[Base(0, 0), entry(1)], &[entry(2)]]);
            if refused {
                let (_, at, why) = log.refused();
                let begins = SECTOR + (wrong as usize - 1) * 2 * SECTOR;
                assert_eq!((at, &why[..]), (begins as u64, "a frame that belongs elsewhere"));
            } else {
                let replay = Replay::of(&log.segments).unwrap();
                assert_eq!(replay.entries.extent().last, Index(2));
            }
        }
    }

    /// Even a frame that names the right predecessor: what is between was not written by this log, or is gone.
    #[test]
    fn a_frame_follows_only_from_the_segment_before_its_own() {
        let log = Log::default()
            .segment(1, &[&[Base(0, 0), entry(1)]])
            .segment(2, &[])
            .segment(3, &[&[Base(0, 1), entry(2)]]);
        let (file, at, why) = log.refused();
        assert_eq!((file, at), (segment::file_name(1), 3 * SECTOR as u64));
        assert!(why.contains("does not follow"), "{why}");
    }
}
