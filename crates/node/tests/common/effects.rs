//! What the driver of [`common`](super) does about a node's effects: messages through the wire encoding into the network, all else
//! at once, unless the member's switches hold it up.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::{LogId, NodeId};
use quorate_node::handshake::PROTOCOL;
use quorate_node::{Effects, Event, LogOp, MachineOp, PeerMessage, SnapshotOp, StageOp};

use super::host::Staged;
use super::{Cluster, Machine, Outcome};

impl Cluster {
    /// One round of effects of one member. Returns whether there were any.
    pub(super) fn carry_out(&mut self, id: u64) -> bool {
        let Some(node) = &mut self.host(id).node else {
            return false;
        };
        let effects = node.take_effects();
        if self.host(id).damaged && effects.fatal.is_some() {
            self.host(id).ended = effects.fatal;
            self.host(id).node = None;
            return true;
        }
        assert_eq!(effects.fatal, None, "nothing is wrong with the log");
        let Effects {
            log,
            stage,
            machine,
            snapshots,
            send,
            answers,
            reads,
            changed,
            membership,
            removed,
            fatal: _,
        } = effects;
        let any = !(log.is_empty()
            && stage.is_empty()
            && machine.is_empty()
            && snapshots.is_empty()
            && send.is_empty()
            && answers.is_empty()
            && reads.is_empty()
            && changed.is_empty()
            && membership.is_none()
            && !removed);
        for (token, result) in changed {
            self.conclude(token, Outcome::Changed(result));
        }
        let host = self.host(id);
        host.told = membership.or(host.told.take());
        host.removed |= removed;
        send.into_iter()
            .for_each(|(to, message)| self.send(NodeId(id), to, message));
        self.log_ops(id, log);
        stage.into_iter().for_each(|op| self.stage_op(id, op));
        self.machine_ops(id, machine);
        snapshots.into_iter().for_each(|op| self.snapshot_op(id, op));
        answers
            .into_iter()
            .for_each(|(token, failure)| self.conclude(token, Outcome::Failed(failure)));
        for (token, result) in reads {
            let applied = self.host(id).machine.commands.len();
            self.conclude(
                token,
                result.map_or_else(Outcome::Failed, |()| Outcome::Read(applied)),
            );
        }
        any
    }

    fn conclude(&mut self, token: u64, outcome: Outcome) {
        let before = self.outcomes.insert(token, outcome.clone());
        assert_eq!(
            before, None,
            "request {token} is answered once, not again with {outcome:?}"
        );
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        if !(self.queue)(from, to, &message) {
            return self.step(from.0, Event::Dropped { to, message });
        }
        let runs = self.hosts.get(&to).is_some_and(|host| host.node.is_some());
        if !runs || self.cut.contains(&(from, to)) || !(self.filter)(from, to, &message) {
            return;
        }
        let frame =
            quorate_node::wire::encode(&message, PROTOCOL).expect("the latest protocol knows every message");
        let mut bytes = frame.head.to_vec();
        frame.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        assert_eq!(bytes.len(), frame.len());
        let decoded = quorate_node::wire::decode(bytes.into()).expect("what was encoded can be decoded");
        assert_eq!(decoded, message);
        self.net.push_back((from, to, decoded));
    }

    fn log_ops(&mut self, id: u64, ops: Vec<LogOp>) {
        let host = self.host(id);
        host.stalled.extend(ops);
        let mut held = VecDeque::new();
        while let Some(op) = self.host(id).stalled.pop_front() {
            let host = self.host(id);
            match op {
                LogOp::Write { .. } if host.disk_stalled => held.push_back(op),
                LogOp::Read { .. } if host.reads_stalled => held.push_back(op),
                LogOp::Write { id: write, records } => {
                    host.log.append(records);
                    self.step(id, Event::Written(write));
                }
                LogOp::Read {
                    id: read,
                    first,
                    last,
                    max_bytes,
                } => {
                    host.cold_reads += 1;
                    let bodies = match host.damaged {
                        true => Err("damaged".to_owned()),
                        false => host.log.read(first, last, max_bytes),
                    };
                    self.step(id, Event::LogRead { id: read, bodies });
                }
            }
        }
        self.host(id).stalled = held;
    }

    /// Lets the operations go on that were held up.
    pub fn unstall(&mut self, id: u64) {
        let host = self.host(id);
        (host.disk_stalled, host.reads_stalled, host.restore_stalled) = (false, false, false);
        (host.open_stalled, host.staging_stalled) = (false, false);
        for stream in std::mem::take(&mut host.waiting_open) {
            self.snapshot_op(id, SnapshotOp::Open { stream });
        }
        for op in std::mem::take(&mut self.host(id).waiting_stage) {
            self.stage_op(id, op);
        }
        self.log_ops(id, Vec::new());
        if let Some(at) = self.host(id).waiting_restore.take() {
            self.restore(id, at);
        }
    }

    fn stage_op(&mut self, id: u64, op: StageOp) {
        let host = self.host(id);
        if host.staging_stalled || host.staging_ops == 0 {
            return host.waiting_stage.push_back(op);
        }
        host.staging_ops -= 1;
        let of = op.stream();
        match op {
            StageOp::Check => {
                let event = host.check_staged();
                return self.step(id, event);
            }
            StageOp::Begin { stream, about } => {
                let stream = Some(stream);
                host.staging = Some(Staged {
                    stream,
                    about,
                    ..Staged::default()
                });
                return;
            }
            StageOp::Discard => {
                host.staging = None;
                return;
            }
            _ => {}
        }
        let room = host.staging_room;
        let Some(staging) = &mut host.staging else { return };
        if let StageOp::Resume { stream } = op {
            assert_eq!(
                staging.checked,
                staging.bytes.len(),
                "all was checked before it goes on"
            );
            (staging.stream, staging.synced) = (Some(stream), staging.checked);
            return;
        }
        assert_eq!(staging.stream, of, "no other transfer writes");
        match op {
            StageOp::Write {
                stream,
                offset,
                crc,
                bytes,
            } => {
                if staging.bytes.len() + bytes.len() > room {
                    host.staging = None;
                    if !host.staging_silent {
                        self.step(id, Event::StageFailed { stream });
                    }
                    return;
                }
                assert_eq!(staging.bytes.len() as u64, offset, "staging goes on at its end");
                staging.bytes.extend_from_slice(&bytes);
                assert_eq!(
                    crc32c::crc32c(&staging.bytes),
                    crc,
                    "the checksum is that of all so far"
                );
            }
            StageOp::Sync { stream } | StageOp::Finish { stream } => {
                staging.synced = staging.bytes.len();
                let len = staging.synced as u64;
                let finished = matches!(op, StageOp::Finish { .. });
                staging.finished |= finished;
                self.step(
                    id,
                    Event::Staged {
                        stream,
                        len,
                        finished,
                    },
                );
            }
            _ => unreachable!("seen above"),
        }
    }

    pub(super) fn machine_ops(&mut self, id: u64, ops: Vec<MachineOp>) {
        for op in ops {
            match op {
                MachineOp::Apply(entries) => {
                    let last = entries.last().expect("no empty batches").at.index;
                    for entry in entries {
                        let host = self.host(id);
                        host.level = entry.level.or(host.level);
                        self.host(id).machine.apply(entry.at, entry.command);
                        if let Some(token) = entry.token {
                            self.conclude(token, Outcome::Applied(entry.at.index));
                        }
                    }
                    self.step(id, Event::Applied(last));
                }
                MachineOp::Level(level) => self.host(id).level = Some(level),
                MachineOp::Restore(meta) if self.host(id).restore_stalled => {
                    self.host(id).waiting_restore = Some(meta.last);
                }
                MachineOp::Restore(meta) => self.restore(id, meta.last),
            }
        }
    }

    fn restore(&mut self, id: u64, at: LogId) {
        let host = self.host(id);
        let staging = host
            .staging
            .take()
            .expect("the staging file is there until it was taken over");
        assert!(staging.finished, "only what is complete is taken over");
        host.machine = Machine::decode(&staging.bytes);
        assert_eq!(
            host.machine.applied, at,
            "the snapshot is of the entry it is said to be of"
        );
        host.saved = host.machine.clone();
        host.restores += 1;
        self.step(id, Event::Restored(at));
    }

    fn snapshot_op(&mut self, id: u64, op: SnapshotOp) {
        let host = self.host(id);
        match op {
            SnapshotOp::Open { stream } if host.open_stalled => host.waiting_open.push(stream),
            SnapshotOp::Open { stream } => {
                host.views.insert(stream, (host.machine.encode(), 0));
                let at = Some(host.machine.applied);
                self.step(id, Event::SnapshotOpened { stream, at });
            }
            SnapshotOp::Read { stream, max } => {
                let (view, done) = host.views.get_mut(&stream).expect("the view is open");
                let end = view.len().min(*done + max);
                let chunk = Some(Bytes::copy_from_slice(&view[*done..end]));
                *done = end;
                self.step(id, Event::SnapshotChunk { stream, chunk });
            }
            SnapshotOp::Close { stream } => {
                host.views.remove(&stream);
            }
        }
    }
}
