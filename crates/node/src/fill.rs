//! Filling the core's Append ranges with bodies: from the tail cache at once, from the log if they are cold. One queue
//! a peer keeps the order; a range that was overtaken, or cannot be read any more, is reported to the core as not sent. A
//! range may be split, never skipped.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Input, Log, Raft, Range, RoleKind};

use crate::entry;
use crate::message::PeerMessage;
use crate::outbox::Outbox;
use crate::tail::Tail;

/// Appends on their way out.
#[derive(Debug)]
pub(crate) struct Appends {
    queues: BTreeMap<NodeId, Queue>,
    frame_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The cold read that the first job waits for.
    reading: Option<u64>,
}

/// What is left of one Append.
#[derive(Clone, Copy, Debug)]
struct Job {
    term: Term,
    range: Range,
    commit: Index,
    /// The core has gone back since and asked for something else: of this one, only the read under way is still of use.
    obsolete: bool,
}

/// What the log gave for a cold read that starts after `prev`: the bodies that still are what the log's shape says.
pub(crate) fn still_right(log: &Log, prev: Index, last: Index, bodies: Vec<Bytes>) -> Vec<Bytes> {
    let wanted = (prev.0 + 1..=last.0).map(|index| log.id_at(Index(index)));
    let right = |(body, wanted): &(Bytes, Option<LogId>)| wanted.is_some() && entry::id_of(body) == *wanted;
    bodies
        .into_iter()
        .zip(wanted)
        .take_while(right)
        .map(|(body, _)| body)
        .collect()
}

impl Appends {
    pub(crate) fn new(frame_bytes: usize) -> Appends {
        Appends {
            queues: BTreeMap::new(),
            frame_bytes,
        }
    }

    /// Sends the entries of `range` to `to`, as soon as they are there. If they do not follow what waits already, the core has gone back to
    /// look for the match, perhaps only because all this waiting looks like a loss from there: the new range takes the place of the old, or
    /// the queue would grow by a repetition at every heartbeat.
    pub(crate) fn send(
        &mut self,
        raft: &Raft,
        tail: &Tail,
        to: NodeId,
        (term, range, commit): (Term, Range, Index),
        out: &mut Outbox,
    ) {
        let queue = self.queues.entry(to).or_default();
        let follows = |last: &Job| last.term == term && last.range.last == range.prev;
        if !queue.jobs.back().is_none_or(follows) {
            reached!("node.fill.range_replaced", !queue.jobs.is_empty());
            queue.jobs.truncate(usize::from(queue.reading.is_some()));
            queue.jobs.iter_mut().for_each(|job| job.obsolete = true);
        }
        queue.jobs.push_back(Job {
            term,
            range,
            commit,
            obsolete: false,
        });
        self.pump(raft, tail, to, out);
    }

    /// Goes on with the queue of `to` as far as the bodies are at hand.
    fn pump(&mut self, raft: &Raft, tail: &Tail, to: NodeId, out: &mut Outbox) {
        let Some(queue) = self.queues.get_mut(&to).filter(|queue| queue.reading.is_none()) else {
            return;
        };
        let matched = raft
            .peers()
            .find(|(id, _)| *id == to)
            .map(|(_, peer)| peer.matched);
        while let Some(job) = queue.jobs.front_mut() {
            if matched.is_some_and(|matched| job.pass_over(raft.log(), matched)) {
                reached!("node.fill.acknowledged_already");
                queue.jobs.pop_front();
                continue;
            }
            if raft.role() != RoleKind::Leader || raft.term() != job.term {
                reached!("node.fill.no_longer_leader");
                queue.jobs.clear();
            } else if !raft.log().holds(&job.range) {
                reached!("node.fill.range_overtaken");
                return self.give_up(to, out);
            } else if job.range.is_empty() {
                job.send(to, Vec::new(), out);
                queue.jobs.pop_front();
            } else {
                let (first, last) = (job.range.first(), job.range.last.index);
                let bodies = tail.run(first, last, self.frame_bytes);
                if bodies.is_empty() {
                    reached!("node.fill.not_in_memory");
                    queue.reading = Some(out.read_log(first, last, self.frame_bytes));
                    return;
                }
                job.send(to, bodies, out);
                job.advance(raft.log());
                if job.range.is_empty() {
                    queue.jobs.pop_front();
                }
            }
        }
    }

    /// The log answered read `id`. Returns false if it was not for a peer.
    pub(crate) fn on_read(
        &mut self,
        raft: &Raft,
        tail: &Tail,
        id: u64,
        bodies: &Result<Vec<Bytes>, String>,
        out: &mut Outbox,
    ) -> bool {
        let Some((&to, queue)) = self
            .queues
            .iter_mut()
            .find(|(_, queue)| queue.reading == Some(id))
        else {
            return false;
        };
        queue.reading = None;
        let job = queue.jobs.front_mut().expect("a read is for the first job");
        let held = raft.role() == RoleKind::Leader && raft.term() == job.term && raft.log().holds(&job.range);
        let failed = bodies.as_ref().err().map(String::as_str);
        let bodies = match bodies {
            Ok(bodies) if held => still_right(
                raft.log(),
                job.range.prev.index,
                job.range.last.index,
                bodies.clone(),
            ),
            _ => Vec::new(),
        };
        reached!("node.fill.read_overtaken", !held);
        reached!("node.fill.read_of_obsolete", job.obsolete);
        if bodies.is_empty() && !job.obsolete {
            reached!("node.fill.read_failed", held);
            if held {
                // It will not be better next time. To go on would leave the follower without a word, for ever.
                let (index, why) = (job.range.first(), failed.unwrap_or("the log gave another entry"));
                out.effects.fatal = Some(format!("the entry {index} cannot be read from the log: {why}"));
            }
            self.give_up(to, out);
            return true;
        }
        if !bodies.is_empty() {
            job.send(to, bodies, out);
            job.advance(raft.log());
        }
        if job.obsolete || job.range.is_empty() {
            queue.jobs.pop_front();
        }
        self.pump(raft, tail, to, out);
        true
    }

    /// Drops all that waits for `to`, and tells the core from where on.
    fn give_up(&mut self, to: NodeId, out: &mut Outbox) {
        let first = self
            .queues
            .remove(&to)
            .and_then(|queue| queue.jobs.front().map(|job| job.range.first()));
        if let Some(first) = first {
            out.inputs.push(Input::NotSent { to, first });
        }
    }

    /// An Append to `to` after `prev` was lost before it was sent, and so were all behind it.
    pub(crate) fn lost(&mut self, to: NodeId, first: Index, out: &mut Outbox) {
        self.queues.remove(&to);
        out.inputs.push(Input::NotSent { to, first });
    }
}

impl Job {
    /// Passes over entries that the peer has acknowledged meanwhile. Returns whether that was all.
    fn pass_over(&mut self, log: &Log, matched: Index) -> bool {
        let upto = matched.min(self.range.last.index);
        if upto <= self.range.prev.index || !log.holds(&self.range) {
            return false;
        }
        reached!("node.fill.partly_acknowledged", upto < self.range.last.index);
        self.range.prev = log.id_at(upto).expect("the range is in the log");
        self.range.is_empty()
    }

    /// Sends the first bodies of the range; the caller moves on.
    fn send(&mut self, to: NodeId, entries: Vec<Bytes>, out: &mut Outbox) {
        let prev = self.range.prev;
        self.range.prev.index = Index(prev.index.0 + entries.len() as u64);
        out.send(
            to,
            PeerMessage::Append {
                term: self.term,
                prev,
                entries,
                commit: self.commit,
            },
        );
    }

    /// After [`Job::send`]: the entry that the rest follows.
    fn advance(&mut self, log: &Log) {
        self.range.prev = log
            .id_at(self.range.prev.index)
            .expect("what was just sent is in the log");
    }
}
