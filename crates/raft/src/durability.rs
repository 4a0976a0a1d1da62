//! What the disk has, what is on its way there, and what must wait for it.
//!
//! Durability by construction: whoever sends a term, a vote or an acknowledgement names the write that makes it durable,
//! and the message is kept back until that write is done. Write numbers are used and not (index, term) pairs,
//! since an entry can be overwritten by another and come back: the acknowledgement of the first write must not count for the second.

use std::collections::VecDeque;

use quorate_base::{Index, NodeId};
use quorate_marks::reached;

use crate::effects::{HardState, SnapMeta, Write, WriteId};
use crate::log::Log;
use crate::message::Message;

/// The state of one node's disk as the core knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Durability {
    /// The number that the next write will get.
    next: WriteId,
    /// All writes up to here are durable.
    persisted: WriteId,
    /// The log is durable up to here.
    durable: Index,
    /// The log was handed to the disk up to here.
    handed: Index,
    in_flight: VecDeque<InFlight>,
    /// The write (done, in flight or next) that makes the current term and vote durable.
    hard_by: WriteId,
    /// The same for the current end of the log.
    log_by: WriteId,
    hard_dirty: bool,
    /// Entries after this one are on the disk or on their way, and must go.
    truncate_after: Option<Index>,
    installed: Option<Box<SnapMeta>>,
    recorded_commit: Index,
    /// Messages that wait for a write, in the order of the writes; for the same write, in the order they came.
    withheld: VecDeque<(WriteId, NodeId, Message)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    id: WriteId,
    /// The end of the log that this write makes durable; lowered by later truncations.
    last: Index,
    installed: Option<Box<SnapMeta>>,
}

impl Durability {
    /// A disk that holds the log up to `last`, and `hard`.
    pub fn new(last: Index, commit: Index) -> Durability {
        Durability {
            next: 1,
            persisted: 0,
            durable: last,
            handed: last,
            in_flight: VecDeque::new(),
            hard_by: 0,
            log_by: 0,
            hard_dirty: false,
            truncate_after: None,
            installed: None,
            recorded_commit: commit,
            withheld: VecDeque::new(),
        }
    }

    /// The log is durable up to here.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// Whether the current term and vote are durable.
    pub fn hard_is_durable(&self) -> bool {
        self.persisted >= self.hard_by
    }

    /// Term or vote has changed.
    pub fn hard_changed(&mut self) {
        self.hard_dirty = true;
        self.hard_by = self.next;
    }

    /// Entries were appended to the log.
    pub fn appended(&mut self) {
        self.log_by = self.next;
    }

    /// Entries after `index` were removed from the log.
    pub fn truncated(&mut self, index: Index) {
        reached!(
            "raft.truncate.of_write_in_flight",
            self.in_flight.back().is_some_and(|write| write.last > index)
        );
        self.forget_after(index);
        reached!("raft.truncate.of_unwritten_only", index >= self.handed);
        if index < self.handed {
            reached!(
                "raft.truncate.again_before_written",
                self.truncate_after.is_some()
            );
            self.handed = index;
            self.truncate_after = Some(self.truncate_after.map_or(index, |before| before.min(index)));
        }
        self.log_by = self.next;
    }

    /// A staged snapshot took the place of the log, of which the entries up to `commit` were committed. Until that is written the disk
    /// has these; what follows them there may conflict with the leader's log.
    pub fn installed(&mut self, meta: Box<SnapMeta>, commit: Index) {
        reached!("raft.install.over_writes_in_flight", !self.in_flight.is_empty());
        reached!("raft.install.over_unwritten_install", self.installed.is_some());
        self.forget_after(commit);
        self.handed = meta.last.index;
        self.truncate_after = None;
        self.installed = Some(meta);
        self.log_by = self.next;
    }

    fn forget_after(&mut self, index: Index) {
        self.durable = self.durable.min(index);
        for write in &mut self.in_flight {
            write.last = write.last.min(index);
        }
    }

    /// The next write, if there is anything to write. The commit index rides along and is never a reason to write.
    pub fn take_write(&mut self, log: &Log, hard: HardState) -> Option<Write> {
        let append = (self.handed < log.last_index()).then(|| log.range(self.handed, log.last_index()));
        if !self.hard_dirty && self.truncate_after.is_none() && self.installed.is_none() && append.is_none() {
            return None;
        }
        let write = Write {
            id: self.next,
            hard: (self.hard_dirty || hard.commit > self.recorded_commit).then_some(hard),
            truncate_after: self.truncate_after.take(),
            installed: self.installed.take(),
            append,
        };
        self.hard_dirty = false;
        self.recorded_commit = hard.commit;
        self.handed = log.last_index();
        let installed = write.installed.clone();
        self.in_flight.push_back(InFlight {
            id: write.id,
            last: self.handed,
            installed,
        });
        self.next += 1;
        Some(write)
    }

    /// All writes up to `id` are durable: the messages that waited for them may go, and if a snapshot was installed, that is returned.
    /// Completions may come late, twice, or out of order: only the largest counts.
    pub fn persisted(&mut self, id: WriteId, mut go: impl FnMut(NodeId, Message)) -> Option<Box<SnapMeta>> {
        assert!(id < self.next, "write {id} was never handed out");
        self.persisted = self.persisted.max(id);
        let mut installed = None;
        let done = self.persisted;
        while let Some(write) = self.in_flight.pop_front_if(|write| write.id <= done) {
            self.durable = write.last;
            reached!(
                "raft.install.two_at_once",
                installed.is_some() && write.installed.is_some()
            );
            installed = write.installed.or(installed);
        }
        while let Some((_, to, message)) = self.withheld.pop_front_if(|first| first.0 <= done) {
            go(to, message);
        }
        installed
    }

    /// Passes a message on if term and vote are durable, else keeps it back until they are.
    pub fn after_hard(&mut self, to: NodeId, message: Message) -> Option<(NodeId, Message)> {
        self.after(self.hard_by, to, message)
    }

    /// Passes a message on if term, vote and the log to its end are durable, else keeps it back until they are.
    pub fn after_log(&mut self, to: NodeId, message: Message) -> Option<(NodeId, Message)> {
        self.after(self.hard_by.max(self.log_by), to, message)
    }

    fn after(&mut self, id: WriteId, to: NodeId, message: Message) -> Option<(NodeId, Message)> {
        if id <= self.persisted {
            return Some((to, message));
        }
        let at = self.withheld.partition_point(|waiting| waiting.0 <= id);
        reached!("raft.withheld.not_in_order", at < self.withheld.len());
        self.withheld.insert(at, (id, to, message));
        None
    }

    /// Numbers the writes as if those that are done had never been. Returns how many that were.
    #[cfg(feature = "check")]
    pub fn renumber(&mut self) -> WriteId {
        let done = self.persisted;
        let numbers = [&mut self.next, &mut self.persisted];
        let numbers = numbers
            .into_iter()
            .chain([&mut self.hard_by, &mut self.log_by])
            .chain(self.in_flight.iter_mut().map(|write| &mut write.id))
            .chain(self.withheld.iter_mut().map(|waiting| &mut waiting.0));
        for number in numbers {
            *number = number.saturating_sub(done);
        }
        done
    }

    /// See [`Raft::forget_repetitions`](crate::Raft::forget_repetitions).
    #[cfg(feature = "check")]
    pub fn forget_repetitions(&mut self) {
        let all = std::mem::take(&mut self.withheld);
        for waiting in all {
            if !self.withheld.contains(&waiting) {
                self.withheld.push_back(waiting);
            }
        }
    }

    /// See [`Raft::rename`](crate::Raft::rename).
    #[cfg(feature = "check")]
    pub fn rename(&mut self, names: crate::Names) {
        for waiting in &mut self.withheld {
            waiting.1 = names(waiting.1);
        }
        let withheld = self.withheld.make_contiguous();
        withheld.sort_by_key(|waiting| (waiting.0, waiting.1));
    }

    /// The log on disk is a prefix of what was handed out, writes are in order (S9).
    pub fn check(&self, log: &Log) {
        assert!(
            self.durable <= self.handed,
            "durable {} ≤ handed {}",
            self.durable,
            self.handed
        );
        assert!(
            self.handed <= log.last_index(),
            "handed {} ≤ last {}",
            self.handed,
            log.last_index()
        );
        assert!(self.hard_by <= self.next && self.log_by <= self.next);
        let mut before = self.persisted;
        for write in &self.in_flight {
            assert!(
                write.id > before && write.id < self.next,
                "writes in flight are numbered in order"
            );
            before = write.id;
        }
        assert!(
            self.withheld.iter().all(|waiting| waiting.0 > self.persisted),
            "nothing is kept back without need"
        );
        assert!(
            self.withheld.iter().is_sorted_by_key(|waiting| waiting.0),
            "what waits is in the order of the writes"
        );
    }
}

#[cfg(test)]
mod tests {
    use quorate_base::{LogId, Term};

    use super::*;
    use crate::invariants::tests::refuses;
    use crate::message::{Body, EntryShape};

    fn log(entries: usize) -> Log {
        let entry = EntryShape {
            term: Term(1),
            size: 10,
            config: None,
        };
        Log::new(SnapMeta::default(), &vec![entry; entries])
    }

    fn message() -> Message {
        Message {
            term: Term(1),
            body: Body::NewerTerm,
        }
    }

    /// What was never handed to the disk need not be removed from it.
    #[test]
    fn only_what_the_disk_has_is_truncated_there() {
        for (keep, truncated) in [(3, None), (2, Some(Index(2)))] {
            let (mut log, mut disk) = (log(3), Durability::new(Index(3), Index(1)));
            log.append(Term(1), 10, None);
            disk.appended();
            log.truncate_after(Index(keep));
            disk.truncated(Index(keep));
            log.append(Term(2), 10, None);
            disk.appended();
            let write = disk.take_write(&log, HardState::default()).expect("a write");
            assert_eq!(write.truncate_after, truncated);
            let append = write.append.expect("an entry");
            assert_eq!(
                (append.prev, append.last),
                (LogId::new(1, keep), LogId::new(2, keep + 1))
            );
        }
    }

    #[test]
    fn only_repetitions_are_forgotten() {
        let mut disk = Durability::new(Index(0), Index(0));
        let withheld = [(1, 2), (1, 3), (1, 2), (2, 2), (2, 2), (2, 3)];
        disk.withheld = withheld.map(|(write, to)| (write, NodeId(to), message())).into();
        disk.forget_repetitions();
        let left: Vec<_> = disk
            .withheld
            .iter()
            .map(|(write, to, _)| (*write, to.0))
            .collect();
        assert_eq!(left, [(1, 2), (1, 3), (2, 2), (2, 3)]);
    }

    #[test]
    fn a_view_of_the_disk_that_cannot_be_is_named() {
        type Spoil = fn(&mut Durability);
        let broken: [(&str, Spoil); 6] = [
            ("≤ handed", |disk| disk.durable = Index(9)),
            ("≤ last", |disk| disk.handed = Index(9)),
            ("hard_by", |disk| disk.hard_by = 9),
            ("numbered in order", |disk| disk.persisted = 1),
            ("without need", |disk| disk.withheld[0].0 = 0),
            ("order of the writes", |disk| disk.withheld.swap(0, 1)),
        ];
        let mut log = log(3);
        let mut disk = Durability::new(Index(3), Index(1));
        for _ in 0..2 {
            log.append(Term(1), 10, None);
            disk.appended();
            assert!(disk.after_log(NodeId(2), message()).is_none());
            disk.take_write(&log, HardState::default()).expect("a write");
        }
        disk.check(&log);
        for (why, spoil) in broken {
            let mut disk = disk.clone();
            spoil(&mut disk);
            refuses(why, || disk.check(&log));
        }
    }
}
