//! From committed to applied: cuts what the core lets through into batches of bounded size, gets cold bodies from the log, and
//! sees to it that entries reach the state machine in order, each once, without gaps.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::{Index, LogId};
use quorate_marks::reached;
use quorate_raft::{Log, SnapMeta};

use crate::entry::{Content, Entry};
use crate::event::{MachineOp, ToApply};
use crate::fill::still_right;
use crate::message::RequestId;
use crate::outbox::Outbox;
use crate::proposals::Proposals;
use crate::tail::Tail;

/// The way of entries to the state machine.
#[derive(Debug)]
pub(crate) struct Applier {
    /// The state machine has applied up to here.
    applied: Index,
    /// Handed to the driver up to here.
    handed: Index,
    /// May be handed out up to here.
    target: Index,
    /// Last index and bytes of each batch that the driver has and has not reported.
    outstanding: VecDeque<(Index, usize)>,
    /// A cold read under way.
    reading: Option<u64>,
    /// The snapshot that the state machine is taking over: nothing is applied meanwhile.
    restoring: Option<LogId>,
    batch_bytes: usize,
}

impl Applier {
    /// A state machine at `applied`.
    pub(crate) fn new(applied: Index, batch_bytes: usize) -> Applier {
        Applier {
            applied,
            handed: applied,
            target: applied,
            outstanding: VecDeque::new(),
            reading: None,
            restoring: None,
            batch_bytes,
        }
    }

    /// What the state machine has applied.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// What was handed to the state machine.
    pub(crate) fn handed(&self) -> Index {
        self.handed
    }

    /// Whether a snapshot is being taken over.
    pub(crate) fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// Entries up to `last` may be applied.
    pub(crate) fn allow(&mut self, prev: Index, last: Index) {
        assert_eq!(
            prev, self.target,
            "entries are let through in order, without gaps"
        );
        self.target = last;
    }

    /// The state machine is to be replaced by the snapshot `meta`.
    pub(crate) fn restore(&mut self, meta: &SnapMeta) {
        assert!(
            meta.last.index > self.handed,
            "a snapshot is never older than what was applied"
        );
        assert!(self.restoring.is_none(), "one snapshot is taken over at a time");
        self.restoring = Some(meta.last);
        self.handed = meta.last.index;
        self.target = meta.last.index;
        self.reading = None;
    }

    /// The state machine is the snapshot now.
    pub(crate) fn restored(&mut self, at: LogId) {
        assert_eq!(
            self.restoring.take(),
            Some(at),
            "only the snapshot asked for can be restored"
        );
        self.outstanding.clear();
        self.applied = at.index;
    }

    /// The state machine has applied up to `index`.
    pub(crate) fn on_applied(&mut self, index: Index) {
        assert!(
            index <= self.handed,
            "applied {index}, but only {} was handed out",
            self.handed
        );
        while self.outstanding.pop_front_if(|batch| batch.0 <= index).is_some() {}
        self.applied = self.applied.max(index);
    }

    /// Hands out what can be handed out.
    pub(crate) fn pump(&mut self, log: &Log, tail: &Tail, proposals: &mut Proposals, out: &mut Outbox) {
        while self.may_go_on(log) {
            let first = self.handed.next();
            let bodies = tail.run(first, self.target, self.batch_bytes);
            if bodies.is_empty() {
                reached!("node.apply.not_in_memory");
                self.reading = Some(out.read_log(first, self.target, self.batch_bytes));
                return;
            }
            self.hand_out(log, &bodies, proposals, out);
        }
    }

    fn may_go_on(&self, log: &Log) -> bool {
        let bytes: usize = self.outstanding.iter().map(|batch| batch.1).sum();
        self.handed < self.target
            && self.reading.is_none()
            && self.restoring.is_none()
            && !self.is_overtaken(log)
            && bytes < 2 * self.batch_bytes
    }

    /// A snapshot has taken the place of the log and covers what would come next: once its install is durable, the state machine
    /// takes it over.
    fn is_overtaken(&self, log: &Log) -> bool {
        self.handed < log.base().last.index
    }

    /// The log answered read `id`. Returns false if it was not for the state machine.
    pub(crate) fn on_read(
        &mut self,
        log: &Log,
        id: u64,
        bodies: &Result<Vec<Bytes>, String>,
        proposals: &mut Proposals,
        out: &mut Outbox,
    ) -> bool {
        if self.reading != Some(id) {
            return false;
        }
        self.reading = None;
        if self.is_overtaken(log) {
            reached!("node.apply.read_overtaken_by_install");
            return true;
        }
        let why = match bodies {
            Ok(bodies) => {
                let bodies = still_right(log, self.handed, self.target, bodies.clone());
                if !bodies.is_empty() {
                    self.hand_out(log, &bodies, proposals, out);
                    return true;
                }
                "the log gave another entry"
            }
            Err(why) => why.as_str(),
        };
        reached!("node.apply.unreadable");
        let index = self.handed.next();
        out.effects.fatal = Some(format!(
            "the committed entry {index} cannot be read from the log: {why}"
        ));
        true
    }

    fn hand_out(&mut self, log: &Log, bodies: &[Bytes], proposals: &mut Proposals, out: &mut Outbox) {
        let mut batch = Vec::with_capacity(bodies.len());
        for body in bodies {
            let index = self.handed.next();
            // Bodies were decoded once before they came into the log, so this fails only if memory or disk lie.
            let entry = match Entry::decode(body) {
                Ok(entry) if Some(entry.at) == log.id_at(index) => entry,
                other => {
                    reached!("node.apply.not_what_log_has");
                    out.effects.fatal = Some(format!(
                        "the committed entry {index} is not what the log has: {other:?}"
                    ));
                    return;
                }
            };
            batch.push(to_apply(entry, proposals, out));
            self.handed = index;
        }
        self.outstanding
            .push_back((self.handed, bodies.iter().map(Bytes::len).sum()));
        out.effects.machine.push(MachineOp::Apply(batch));
    }
}

fn to_apply(entry: Entry, proposals: &mut Proposals, out: &mut Outbox) -> ToApply {
    let at = entry.at;
    let (request, command, level): (Option<RequestId>, _, _) = match entry.content {
        Content::Command { request, command } => (Some(request), Some(command), None),
        Content::Config(config) => (None, None, Some(config.level)),
        Content::Noop => (None, None, None),
    };
    let token = proposals.committed(at, request, out);
    ToApply {
        at,
        command,
        token,
        level,
    }
}
