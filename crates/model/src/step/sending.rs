//! What a node sends: ranges become Appends with their payloads, at once or when the log has been read, and snapshots are of the machine as it is.
//! Whatever leaves must be borne out by the durable image (S6, S8).
//!
//! The fill rules are those of the real driver, told again: a range is only ever filled from the log that it was named in, a pending one is
//! checked against its epoch and reported as not sent if it was overtaken, and may never be skipped.

use quorate_base::{Index, LogId, NodeId};
use quorate_raft::{Body, Input, Message, Outgoing, Range, RoleKind, SnapMeta};

use super::Step;
use crate::disk::Entry;
use crate::node::{Cold, Event};
use crate::parcel::{Parcel, What};

impl Step<'_> {
    /// The entries of a range that was named just now, with their payloads.
    pub(super) fn fill(&self, range: Range) -> Vec<Entry> {
        let log = self.node.raft.log();
        assert!(log.holds(&range), "a range names what is in the log");
        let shapes = log.shapes(range.prev.index, range.last.index);
        (range.first().0..)
            .zip(shapes)
            .map(|(index, shape)| {
                let body = self.node.bodies.get(&Index(index));
                let body = body.unwrap_or_else(|| panic!("no payload for {index}@{}", shape.term));
                assert_eq!(body.0, shape.term, "the payload belongs to the entry");
                Entry {
                    shape,
                    payload: body.1,
                }
            })
            .collect()
    }

    pub(super) fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Message { to, message } => self.post(to, What::Message(message, Vec::new())),
            Outgoing::Append {
                to,
                term,
                range,
                commit,
            } => {
                let job = Cold {
                    to,
                    term,
                    range,
                    commit,
                };
                self.send_append(job);
            }
            Outgoing::Snapshot { to, term } => {
                let (log, machine) = (self.node.raft.log(), self.node.machine);
                // The state machine as it is now; while it is being replaced it is behind the log's base, and has nothing to give.
                let Some(last) = log.id_at(machine.applied) else {
                    let what = What::SnapshotDone { term, last: None };
                    let (from, to) = (to, self.node.id());
                    return self.events.push(Event::Sent(Parcel { from, to, what }, None));
                };
                let config = log.config_at(last.index).clone();
                let body = Body::InstallSnapshot { last };
                self.post(to, What::Message(Message { term, body }, Vec::new()));
                let meta = SnapMeta { last, config };
                self.post(to, What::Snapshot { term, meta, machine });
            }
        }
    }

    /// Sends an Append, or lets it wait for its payloads: then all that follow it to the same peer wait, too. If it does not follow what
    /// waits already, the core has gone back, and it takes the place of all that.
    fn send_append(&mut self, job: Cold) {
        let to = job.to;
        let waits = self.node.cold.iter().rev().find(|cold| cold.to == to);
        let follows = |last: &Cold| last.term == job.term && last.range.last == job.range.prev;
        match waits {
            None if !self.cold || job.range.is_empty() => return self.send_filled(job),
            Some(last) if !follows(last) => self.node.cold.retain(|cold| cold.to != to),
            _ => {}
        }
        self.node.cold.push(job);
    }

    fn send_filled(&mut self, job: Cold) {
        let filled = self.fill(job.range);
        let payloads = filled.iter().map(|entry| entry.payload).collect();
        let body = Body::Append {
            prev: job.range.prev,
            entries: filled.into_iter().map(|entry| entry.shape).collect(),
            commit: job.commit,
        };
        let message = Message { term: job.term, body };
        self.post(job.to, What::Message(message, payloads));
    }

    /// The log has been read for the oldest Append that waits for `to`.
    pub(super) fn fill_oldest(&mut self, to: NodeId) -> Option<()> {
        let at = self.node.cold.iter().position(|cold| cold.to == to)?;
        let job = self.node.cold[at].clone();
        let raft = &self.node.raft;
        if raft.role() != RoleKind::Leader || raft.term() != job.term {
            self.node.cold.retain(|cold| cold.to != to);
        } else if !raft.log().holds(&job.range) {
            self.node.cold.retain(|cold| cold.to != to);
            let first = job.range.first();
            self.step(Input::NotSent { to, first });
        } else {
            self.node.cold.remove(at);
            self.send_filled(job);
        }
        Some(())
    }

    /// A message leaves: the durable image must bear it out (S6, S8).
    pub(super) fn post(&mut self, to: NodeId, what: What) {
        let from = self.node.id();
        let mut held = None;
        if let What::Message(message, _) = &what {
            held = self.bear_out(to, message);
        }
        self.events.push(Event::Sent(Parcel { from, to, what }, held));
    }

    fn bear_out(&self, to: NodeId, message: &Message) -> Option<LogId> {
        let (from, image) = (self.node.id(), &self.node.image);
        let Message { term, body } = message;
        if !matches!(body, Body::PreVote { .. }) {
            assert!(
                *term <= image.hard.term,
                "n{from} speaks of term {term} before it is durable (S6)"
            );
        }
        let vote = match body {
            Body::Vote { .. } => Some(from),
            Body::VoteResponse { granted: true } => Some(to),
            _ => None,
        };
        if let Some(candidate) = vote {
            assert!(
                image.hard.term == *term && image.hard.vote == Some(candidate),
                "n{from} votes for n{candidate} in term {term} before that is durable (S6)"
            );
        }
        let upto = match body {
            Body::Appended { upto } => *upto,
            Body::HeartbeatResponse { matched, .. } => *matched,
            _ => return None,
        };
        let held = image.term_at(upto);
        assert!(
            held.is_some() || image.base.last.index > upto,
            "n{from} acknowledges {upto}, its disk ends at {} (S6)",
            image.last_index()
        );
        held.map(|term| LogId { term, index: upto })
    }
}
