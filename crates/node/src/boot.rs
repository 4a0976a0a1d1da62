//! Starting from what the disk holds: the log's records become the shape that the core needs, and are checked against the
//! state machine. Nothing is written here; a fresh log gets its founding mark with the first write.

use bytes::Bytes;
use quorate_base::{Index, LogId, Term};
use quorate_marks::reached;
use quorate_raft::{Config, EntryShape, HardState, Raft, Restored, SnapMeta};
use quorate_wal::Record;
use thiserror::Error;

use crate::changes::MEMBERSHIP_LEVEL;
use crate::codec::DecodeError;
use crate::config::NodeConfig;
use crate::entry;
use crate::event::MachineOp;
use crate::node::{Node, Start};
use crate::stored::{Mark, Origin, decode_state};

mod survey;

pub use survey::Survey;

/// Why a node cannot start with what is on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// A record is not understood.
    #[error("the log holds a {what} that this program cannot read: {why}")]
    Unreadable {
        /// The kind of record, and where.
        what: String,
        /// What is wrong with it.
        why: DecodeError,
    },
    /// Entries do not follow each other.
    #[error("the log goes on with entry {found} where {expected} should be")]
    Gap {
        /// The index that should come.
        expected: Index,
        /// The index that came.
        found: Index,
    },
    /// The terms of the log are impossible.
    #[error("entry {at} has a term {why}: this is not a log that Raft wrote")]
    Terms {
        /// The entry.
        at: LogId,
        /// What it contradicts.
        why: &'static str,
    },
    /// The recorded commit index is beyond the end.
    #[error(
        "the log ends at {last}, but {commit} was committed: its end is lost; let this member rejoin as a new one, never empty under its old identity"
    )]
    CommitLost {
        /// The commit index.
        commit: Index,
        /// The last entry.
        last: Index,
    },
    /// The store is ahead of the log.
    #[error(
        "the store has applied {machine}, but the log ends at {last}: one of them was replaced or lost; let this member rejoin as a new one, never empty under its old identity"
    )]
    MachineAhead {
        /// What the state machine has.
        machine: LogId,
        /// The last entry of the log.
        last: LogId,
    },
    /// The store lacks entries that the log no longer has.
    #[error(
        "the store has applied {machine}, but the log starts after {base}: the store was replaced or lost; let this member rejoin as a new one, never empty under its old identity"
    )]
    MachineBehind {
        /// What the state machine has.
        machine: LogId,
        /// Where the log starts.
        base: LogId,
    },
    /// Store and log tell different stories.
    #[error(
        "the store has applied {machine}, but the log has entry {index} of term {term}: they do not belong together"
    )]
    Diverged {
        /// What the state machine has.
        machine: LogId,
        /// The index in question.
        index: Index,
        /// The log's term there.
        term: Term,
    },
    /// The log was written by a later release.
    #[error(
        "the cluster's feature level is {level}, this release understands {features}: start a later release"
    )]
    Level {
        /// The level in the log.
        level: u32,
        /// What this node understands.
        features: u32,
    },
    /// A cluster of nobody.
    #[error("the initial configuration has no voter")]
    NoVoters,
}

/// Gathers the log's records.
#[derive(Debug, Default)]
pub struct Boot {
    mark: Option<Mark>,
    hard: HardState,
    entries: Vec<EntryShape>,
    failed: Option<BootError>,
}

impl Boot {
    /// Nothing yet.
    pub fn new() -> Boot {
        Boot::default()
    }

    /// The visitor of `Wal::open`. What is wrong is reported by [`Boot::finish`].
    pub fn record(&mut self, record: Record) {
        if self.failed.is_none() {
            self.failed = self.take(record).err();
        }
    }

    fn take(&mut self, record: Record) -> Result<(), BootError> {
        match record {
            Record::Mark { index, body } => self.take_mark(index, &body),
            Record::State(body) => {
                self.hard = decode_state(&body).map_err(|why| unreadable("hard state", why))?;
                Ok(())
            }
            Record::Entry { index, body } => self.take_entry(index, &body),
            Record::Truncate { after } => {
                let keep = after.0.saturating_sub(self.base().0);
                self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
                Ok(())
            }
        }
    }

    fn take_mark(&mut self, index: Index, body: &Bytes) -> Result<(), BootError> {
        let mark = Mark::decode(index, body).map_err(|why| unreadable(&format!("mark at {index}"), why))?;
        let gone = index.0.saturating_sub(self.base().0);
        let gone = usize::try_from(gone)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        self.entries.drain(..gone);
        self.mark = Some(mark);
        Ok(())
    }

    fn take_entry(&mut self, index: Index, body: &Bytes) -> Result<(), BootError> {
        let (named, shape) = entry::shape(body).map_err(|why| unreadable(&format!("entry {index}"), why))?;
        let expected = Index(self.base().0 + self.entries.len() as u64).next();
        if index != expected || named != expected {
            reached!("node.boot.gap");
            let found = if index == expected { named } else { index };
            return Err(BootError::Gap { expected, found });
        }
        self.entries.push(shape);
        Ok(())
    }

    fn base(&self) -> Index {
        self.mark
            .as_ref()
            .map_or(Index::ZERO, |mark| mark.meta.last.index)
    }

    /// Whether the log holds nothing at all: this node starts for the first time.
    pub fn is_fresh(&self) -> bool {
        self.failed.is_none()
            && self.mark.is_none()
            && self.entries.is_empty()
            && self.hard == HardState::default()
    }

    /// Makes the node. If the log is fresh, `initial` founds the cluster, at the feature level of this node; or, if there is none, the
    /// node joins: it knows no configuration until it hears from the cluster's leader. Ignored otherwise. `applied` is the state machine's
    /// last entry, `durable` what it would keep in a crash. The operations returned come before all others.
    pub fn finish(
        self,
        config: NodeConfig,
        initial: Option<Config>,
        applied: LogId,
        durable: Index,
    ) -> Result<(Node, Vec<MachineOp>), BootError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let founded = self.mark.is_none();
        if founded && initial.as_ref().is_some_and(|initial| initial.voters.is_empty()) {
            reached!("node.boot.no_voters");
            return Err(BootError::NoVoters);
        }
        let mut founding = initial.unwrap_or_default();
        if config.features >= MEMBERSHIP_LEVEL && !founding.voters.is_empty() {
            founding.level = config.features;
        }
        let meta = SnapMeta {
            last: LogId::ZERO,
            config: founding,
        };
        let mark = self.mark.unwrap_or(Mark {
            origin: Origin::Founded,
            meta,
        });
        let last = check_terms(&mark.meta, &self.entries, &self.hard)?;
        if self.hard.commit > last.index {
            reached!("node.boot.commit_lost");
            return Err(BootError::CommitLost {
                commit: self.hard.commit,
                last: last.index,
            });
        }
        let restore = check_machine(&mark, &self.entries, applied, last)?;
        let raft = Raft::new(Restored {
            id: config.id,
            hard: self.hard,
            base: mark.meta.clone(),
            entries: self.entries,
            applied: applied.index.max(mark.meta.last.index),
            nonce: config.nonce,
            priority: config.priority,
            leases: config.leases,
            limits: config.limits.clone(),
        });
        let level = raft.config().level;
        if level > config.features {
            let features = config.features;
            reached!("node.boot.level_beyond_this_release");
            return Err(BootError::Level { level, features });
        }
        let start = Start {
            first_mark: founded.then(|| mark.record()),
            restore: restore.then(|| mark.meta.clone()),
            applied: applied.index,
            durable,
        };
        let ops = match &start.restore {
            Some(meta) => {
                let level = meta.config.level;
                vec![MachineOp::Restore(meta.clone()), MachineOp::Level(level)]
            }
            None => vec![MachineOp::Level(raft.log().config_at(applied.index).level)],
        };
        Ok((Node::new(config, raft, start), ops))
    }
}

/// Terms never fall along the log and never pass the current one (S10). Returns the last entry.
fn check_terms(base: &SnapMeta, entries: &[EntryShape], hard: &HardState) -> Result<LogId, BootError> {
    let mut last = base.last;
    for entry in entries {
        let at = LogId {
            term: entry.term,
            index: last.index.next(),
        };
        if entry.term < last.term {
            reached!("node.boot.term_falls");
            return Err(BootError::Terms {
                at,
                why: "below that of the entry before it",
            });
        }
        last = at;
    }
    if last.term > hard.term {
        reached!("node.boot.term_above_recorded");
        return Err(BootError::Terms {
            at: last,
            why: "above the recorded current term",
        });
    }
    Ok(last)
}

/// Whether the state machine still has to take over the snapshot that the log starts with; or why log and machine do not fit.
fn check_machine(
    mark: &Mark,
    entries: &[EntryShape],
    machine: LogId,
    last: LogId,
) -> Result<bool, BootError> {
    let base = mark.meta.last;
    if machine.index > last.index {
        reached!("node.boot.machine_ahead");
        return Err(BootError::MachineAhead { machine, last });
    }
    if machine.index < base.index {
        return match mark.origin {
            Origin::Installed => {
                reached!("node.boot.restores_staged_snapshot");
                Ok(true)
            }
            Origin::Founded | Origin::Compacted => {
                reached!("node.boot.machine_behind");
                Err(BootError::MachineBehind { machine, base })
            }
        };
    }
    let term = match machine.index.0 - base.index.0 {
        0 => base.term,
        n => entries[n as usize - 1].term,
    };
    if term != machine.term {
        reached!("node.boot.machine_diverged");
        return Err(BootError::Diverged {
            machine,
            index: machine.index,
            term,
        });
    }
    Ok(false)
}

fn unreadable(what: &str, why: DecodeError) -> BootError {
    reached!("node.boot.unreadable");
    BootError::Unreadable {
        what: what.to_owned(),
        why,
    }
}
