//! Which entries are in the log and where their bytes are, in memory. The rules of what a record may do stand here
//! once, for appending and for replay alike.

use std::collections::VecDeque;

use quorate_base::Index;
use quorate_marks::reached;

use crate::record::Record;

/// The extent of a log: entries `start + 1` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub start: Index,
    pub last: Index,
}

impl Extent {
    /// Lets `record` act, or says why it does not continue this log.
    pub(crate) fn step(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Entry { index, .. } if *index != self.last.next() => {
                reached!("wal.extent.entry_not_next");
                return Err("an entry that is not the one after the last");
            }
            Record::Entry { index, .. } => self.last = *index,
            Record::State(_) => {}
            Record::Truncate { after } if *after < self.start => {
                reached!("wal.extent.truncation_before_mark");
                return Err("a truncation before the mark");
            }
            Record::Truncate { after } => self.last = self.last.min(*after),
            Record::Mark { index, .. } if *index < self.start => {
                reached!("wal.extent.mark_goes_back");
                return Err("a mark that goes back");
            }
            Record::Mark { index, .. } => {
                reached!("wal.extent.mark_beyond_end", *index > self.last);
                self.start = *index;
                self.last = self.last.max(*index);
            }
        }
        Ok(())
    }
}

/// Where an entry's record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryPlace {
    /// 0 for an entry in a segment that is not there any more (only during replay).
    pub segment: u64,
    /// Of the record's header.
    pub offset: u32,
    /// Of the body.
    pub length: u32,
}

/// The entries of the log.
#[derive(Debug)]
pub(crate) struct Entries {
    start: Index,
    places: VecDeque<EntryPlace>,
}

impl Entries {
    /// A log of this extent whose entries have not been seen.
    pub(crate) fn unseen(extent: Extent) -> Entries {
        let unseen = EntryPlace {
            segment: 0,
            offset: 0,
            length: 0,
        };
        let count = extent.last.0.saturating_sub(extent.start.0) as usize;
        Entries {
            start: extent.start,
            places: std::iter::repeat_n(unseen, count).collect(),
        }
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent {
            start: self.start,
            last: Index(self.start.0 + self.places.len() as u64),
        }
    }

    /// Lets `record`, which stands at `offset` of `segment`, act.
    pub(crate) fn apply(&mut self, record: &Record, segment: u64, offset: u32) -> Result<(), &'static str> {
        let mut extent = self.extent();
        extent.step(record)?;
        if let Record::Entry { body, .. } = record {
            self.places.push_back(EntryPlace {
                segment,
                offset,
                length: body.len() as u32,
            });
            return Ok(());
        }
        let forgotten = (extent.start.0 - self.start.0).min(self.places.len() as u64) as usize;
        self.places.drain(..forgotten);
        self.start = extent.start;
        self.places.truncate((extent.last.0 - extent.start.0) as usize);
        Ok(())
    }

    pub(crate) fn get(&self, index: Index) -> Option<EntryPlace> {
        let at = index.0.checked_sub(self.start.0 + 1)?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    /// The segment of the first entry.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        self.places.front().map(|place| place.segment)
    }

    /// Whether an entry has not been seen.
    pub(crate) fn has_unseen(&self) -> bool {
        self.places.iter().any(|place| place.segment == 0)
    }
}
