//! Log writes: the core's [`Write`] as records, and the node's own marks of compaction. Both share one sequence of numbers,
//! so that the disk has one order to keep.

use std::collections::VecDeque;

use quorate_base::Index;
use quorate_marks::reached;
use quorate_raft::{Log, SnapMeta, Write, WriteId};
use quorate_wal::Record;

use crate::event::{LogOp, Nanos};
use crate::stored::{Mark, Origin, state_record};
use crate::tail::Tail;

/// Writes handed out and not yet durable.
#[derive(Debug)]
pub(crate) struct Writes {
    last: WriteId,
    in_flight: VecDeque<InFlight>,
    /// A write that takes longer means that the disk hangs.
    patience: Nanos,
    /// The last write of which that was said.
    complained: WriteId,
    /// The core's last write that is known to be durable, by the core's number.
    core_done: WriteId,
    /// Founds a fresh log with the first write.
    first_mark: Option<Record>,
    /// The newest mark written: truncation never reaches before it.
    marked: Index,
    /// Where the log on disk ends.
    end: Index,
}

#[derive(Debug)]
struct InFlight {
    id: WriteId,
    /// The core's number, if the write is the core's.
    core: Option<WriteId>,
    /// When it was handed out.
    since: Nanos,
}

impl Writes {
    pub(crate) fn new(log: &Log, first_mark: Option<Record>, patience: Nanos) -> Writes {
        Writes {
            last: 0,
            in_flight: VecDeque::new(),
            patience,
            complained: 0,
            core_done: 0,
            first_mark,
            marked: log.base().last.index,
            end: log.last_index(),
        }
    }

    /// The core's write as one batch of records: founding mark, truncation, installed mark, entries, hard state.
    pub(crate) fn of_core(&mut self, now: Nanos, write: Write, tail: &Tail) -> LogOp {
        let mut records: Vec<Record> = self.first_mark.take().into_iter().collect();
        if let Some(after) = write.truncate_after {
            self.truncate(after, &mut records);
        }
        if let Some(meta) = write.installed {
            reached!("node.write.install");
            self.truncate(self.marked, &mut records);
            self.mark(
                Mark {
                    origin: Origin::Installed,
                    meta: *meta,
                },
                &mut records,
            );
        }
        if let Some(range) = write.append {
            assert_eq!(
                range.prev.index, self.end,
                "appends go on where the log on disk ends"
            );
            let before = records.len();
            let entries = (range.first().0..).zip(tail.bodies(range.first(), range.last.index));
            records.extend(entries.map(|(index, body)| Record::Entry {
                index: Index(index),
                body: body.clone(),
            }));
            assert_eq!(
                (records.len() - before) as u64,
                range.len(),
                "an entry that is not durable yet is in the tail cache"
            );
            self.end = range.last.index;
        }
        records.extend(write.hard.as_ref().map(state_record));
        self.number(now, Some(write.id), records)
    }

    fn truncate(&mut self, after: Index, records: &mut Vec<Record>) {
        if after < self.end {
            records.push(Record::Truncate { after });
            self.end = after;
        }
    }

    fn mark(&mut self, mark: Mark, records: &mut Vec<Record>) {
        self.marked = mark.meta.last.index;
        self.end = self.end.max(self.marked);
        records.push(mark.record());
    }

    /// Drops the log before the base that `meta` describes.
    pub(crate) fn of_compaction(&mut self, now: Nanos, meta: SnapMeta) -> LogOp {
        let mut records: Vec<Record> = self.first_mark.take().into_iter().collect();
        self.mark(
            Mark {
                origin: Origin::Compacted,
                meta,
            },
            &mut records,
        );
        self.number(now, None, records)
    }

    fn number(&mut self, now: Nanos, core: Option<WriteId>, records: Vec<Record>) -> LogOp {
        self.last += 1;
        self.in_flight.push_back(InFlight {
            id: self.last,
            core,
            since: now,
        });
        LogOp::Write {
            id: self.last,
            records,
        }
    }

    /// Writes up to `id` are durable. Returns the core's last one so far, perhaps once more: the core must hear that the disk answers, even if
    /// what came back was a mark of compaction.
    pub(crate) fn written(&mut self, id: WriteId) -> WriteId {
        assert!(id <= self.last, "write {id} was never handed out");
        while let Some(write) = self.in_flight.pop_front_if(|write| write.id <= id) {
            self.core_done = write.core.unwrap_or(self.core_done);
        }
        self.core_done
    }

    /// Whether the oldest write has been out for too long; said once of each.
    pub(crate) fn hangs(&mut self, now: Nanos) -> bool {
        let oldest = self.in_flight.front();
        let late = oldest
            .filter(|write| write.id > self.complained && write.since.saturating_add(self.patience) <= now);
        match late {
            Some(write) => {
                reached!("node.write.late");
                self.complained = write.id;
                true
            }
            None => false,
        }
    }

    /// When the oldest write will have been out for too long.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let oldest = self.in_flight.front()?;
        (oldest.id > self.complained).then_some(oldest.since.saturating_add(self.patience))
    }
}
