//! Reading entries back from the segments, for followers that lag behind what the caller keeps in memory.

use bytes::Bytes;
use quorate_base::{Index, parts};
use quorate_marks::reached;

use crate::entries::EntryPlace;
use crate::error::{Damage, ReadError};
use crate::log::Wal;
use crate::record::{self, Record, Stored};
use crate::segment::Segment;

/// Entries with at most this many bytes between them (frame headers, padding, footers) are read at once.
const GAP: u32 = 8 << 10;

/// At most this many bytes are read at once, a single larger entry excepted.
const RUN: u32 = 1 << 20;

impl Wal {
    /// The bodies of the entries from `first` on, up to `last`, or fewer if they would exceed `max_bytes`; at least one. Every
    /// body was checked against its checksum. Bodies of one call may share memory, but those that are a small part of it.
    pub fn read(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        if first < self.first_index() {
            reached!("wal.read.compacted");
            return Err(ReadError::Compacted {
                asked: first,
                first: self.first_index(),
            });
        }
        let ends = self.last_index();
        if first > last || last > ends {
            reached!("wal.read.absent");
            let asked = if last > ends { last } else { first };
            return Err(ReadError::Absent { asked, last: ends });
        }
        let mut bodies = Vec::new();
        let mut left = max_bytes;
        let mut index = first;
        while index <= last {
            let run = self.run(index, last, left, bodies.is_empty());
            if run.is_empty() {
                break;
            }
            self.read_run(index, &run, &mut bodies)?;
            index = Index(index.0 + run.len() as u64);
            left -= left.min(run.iter().map(|place| place.length as usize).sum());
        }
        Ok(bodies)
    }

    /// The entries from `first` on that can be read at once, in at most `left` bytes; at least one if `at_least_one`.
    fn run(&self, first: Index, last: Index, mut left: usize, at_least_one: bool) -> Vec<EntryPlace> {
        let mut run: Vec<EntryPlace> = Vec::new();
        for index in first.0..=last.0 {
            let place = self
                .entries
                .get(Index(index))
                .expect("the caller stays within the log");
            let adjoins = run.last().is_none_or(|before| {
                before.segment == place.segment
                    && place.offset >= end(before)
                    && place.offset - end(before) <= GAP
            });
            if !adjoins {
                reached!("wal.read.gap");
                break;
            }
            let short = run.first().is_none_or(|first| end(&place) - first.offset <= RUN);
            let fits = place.length as usize <= left && short;
            let needed = at_least_one && run.is_empty();
            reached!("wal.read.single_too_large", !fits && needed);
            if !fits && !needed {
                break;
            }
            left = left.saturating_sub(place.length as usize);
            run.push(place);
        }
        run
    }

    fn read_run(&self, first: Index, run: &[EntryPlace], bodies: &mut Vec<Bytes>) -> Result<(), ReadError> {
        let (begin, stop) = (run[0].offset, end(&run[run.len() - 1]));
        let segment = self.segment(run[0].segment);
        let bytes = segment.read(begin, stop - begin)?;
        for (place, index) in run.iter().zip(first.0..) {
            let index = Index(index);
            let record = bytes.slice((place.offset - begin) as usize..(end(place) - begin) as usize);
            let damage = |why: &str| Damage {
                file: segment.name(),
                offset: u64::from(place.offset),
                index: Some(index),
                why: why.to_owned(),
            };
            match record::decode(segment.place, place.offset, &record).map_err(damage)? {
                (Stored::Record(Record::Entry { index: found, body }), _) if found == index => {
                    bodies.push(parts::detach(body, bytes.len()))
                }
                _ => return Err(damage("another record than the entry written there").into()),
            }
        }
        Ok(())
    }

    fn segment(&self, number: u64) -> &Segment {
        if number == self.head.number() {
            return &self.head;
        }
        let oldest = self.sealed.front().map_or(0, Segment::number);
        let segment = number
            .checked_sub(oldest)
            .and_then(|at| self.sealed.get(at as usize));
        segment.expect("segments with entries are kept")
    }
}

fn end(place: &EntryPlace) -> u32 {
    place.offset + record::HEADER as u32 + place.length
}
