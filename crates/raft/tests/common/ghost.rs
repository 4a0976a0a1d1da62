//! What no node can see and every test checks: the cluster-wide invariants (S1 to S4, S6 to S8, S12 to S14; those of
//! the membership, S5 and S11, are in `members`), from a record of all
//! that ever happened. The invariants of one node are in `quorate_raft::invariants`.

use std::collections::BTreeMap;

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Body, Config, Message, Raft, RoleKind};

use super::disk::{Entry, Machine, Payload, digest, noop};
use super::{Cluster, Node};

/// A committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub id: LogId,
    pub payload: Payload,
    /// The term of the leader that committed it.
    pub by: Term,
    /// The state machine's digest after it.
    pub digest: u64,
}

/// The record.
#[derive(Clone, Debug, Default)]
pub struct Ghost {
    /// C: everything ever committed; never shortened.
    pub committed: Vec<Committed>,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Each entry that ever was: what is in it, and the term of the one before.
    entries: BTreeMap<LogId, (Payload, Option<Term>)>,
    /// The length of C when each open read came.
    reads: BTreeMap<(NodeId, u64), Index>,
    /// The configurations of C, each with its index; the founders' at 0.
    pub(super) configs: Vec<(Index, Config)>,
}

impl Ghost {
    /// The length of C.
    pub fn len(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    pub fn at(&self, index: Index) -> Option<&Committed> {
        self.committed.get((index.0 as usize).checked_sub(1)?)
    }

    /// Entry `id` came into a log, after one of term `before` (unknown where that was compacted). Log Matching (S2): the same
    /// name stands for the same entry after the same predecessor, and so, by induction, for the same prefix.
    pub fn placed(&mut self, id: LogId, payload: Payload, before: Option<Term>) {
        let known = self.entries.entry(id).or_insert((payload, before));
        assert_eq!(known.0, payload, "two entries are called {id} (S2)");
        if let (Some(a), Some(b)) = (known.1, before) {
            assert_eq!(a, b, "two predecessors of {id} (S2)");
        }
        known.1 = known.1.or(before);
    }

    /// What is in the entry `id`, as far as anyone knows; else a no-op.
    pub fn payload(&self, id: LogId) -> Payload {
        self.entries.get(&id).map_or(noop(id.term), |known| known.0)
    }

    /// A read came.
    pub fn read_begun(&mut self, node: NodeId, token: u64) {
        self.reads.insert((node, token), self.len());
    }

    /// A read may be served at `index` (S13).
    pub fn read_answered(&mut self, node: NodeId, token: u64, index: Option<Index>) {
        let begun = self
            .reads
            .remove(&(node, token))
            .unwrap_or_else(|| panic!("read {token} at n{node} was answered twice or never asked"));
        if let Some(index) = index {
            assert!(
                index >= begun,
                "read {token} at n{node} is stale: index {index}, but {begun} was committed before it came (S13)"
            );
        }
    }

    /// Reads that nobody will answer any more: the node has crashed.
    pub fn crashed(&mut self, node: NodeId) {
        self.reads.retain(|(at, _), _| *at != node);
    }

    /// A machine has applied something, or was replaced (S12, S14).
    pub fn machine(&self, machine: Machine) {
        let expected = self.at(machine.applied).map_or(0, |c| c.digest);
        assert_eq!(
            machine.digest, expected,
            "the state at {} is not C's (S14)",
            machine.applied
        );
    }

    /// Entries went from a disk. Nothing in C ever does, else a quorum could lose it (S5).
    pub fn removed(&self, node: NodeId, gone: &[(Index, Entry)]) {
        for (index, entry) in gone {
            let lost = self
                .at(*index)
                .is_some_and(|c| c.id.term == entry.shape.term && c.payload == entry.payload);
            assert!(!lost, "n{node} lost the committed entry {index} (S5)");
        }
    }

    /// A message leaves: its sender's durable image must bear it out (S6, S8), and a match must be one (S7).
    pub fn sent(&mut self, cluster: &BTreeMap<NodeId, Node>, from: NodeId, to: NodeId, message: &Message) {
        let image = &cluster[&from].image;
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
            let known = *self.votes.entry((from, *term)).or_insert(candidate);
            assert_eq!(known, candidate, "n{from} votes twice in term {term} (S8)");
            assert!(
                image.hard.term > *term || image.hard.vote == Some(candidate),
                "n{from} votes for n{candidate} in term {term} before that is durable (S6)"
            );
        }
        let upto = match body {
            Body::Appended { upto } => *upto,
            Body::HeartbeatResponse { matched, .. } => *matched,
            _ => return,
        };
        let held = image.term_at(upto);
        assert!(
            held.is_some() || image.base.last.index > upto,
            "n{from} acknowledges {upto}, its disk ends at {} (S6)",
            image.last_index()
        );
        let leader = cluster[&to]
            .raft
            .as_ref()
            .filter(|r| r.role() == RoleKind::Leader && r.term() == *term);
        if let Some(leader) = leader {
            let last = leader.last().index;
            assert!(
                upto <= last,
                "n{from} acknowledges {upto}, its leader's log ends at {last} (S7)"
            );
        }
        if let (Some(leader), Some(held)) = (leader, held)
            && let Some(leads) = leader.log().term_at(upto)
        {
            assert_eq!(
                held, leads,
                "n{from} acknowledges {upto}, which it holds in another term (S7)"
            );
        }
    }
}

impl Cluster {
    /// Runs after every step and drain of node `id`: `before` is the node before it.
    pub(super) fn observe(&mut self, id: NodeId, before: &Raft) {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().expect("it has just been stepped");
        if raft.role() == RoleKind::Leader {
            let known = *self.ghost.leaders.entry(raft.term()).or_insert(id);
            assert_eq!(known, id, "two leaders in term {} (S1)", raft.term());
            if before.role() != RoleKind::Leader {
                self.check_complete(id);
            }
        }
        let raft = self.nodes[&id].raft.as_ref().expect("as above");
        let base = raft.log().base().last;
        if let Some(c) = self.ghost.at(base.index) {
            assert_eq!(
                c.id, base,
                "n{id}'s log starts after something that is not in C (S12)"
            );
        }
        let (known, was) = (self.ghost.len(), before.config().clone());
        for index in before.commit().max(base.index).0 + 1..=raft.commit().0 {
            self.check_committed(id, Index(index));
        }
        self.check_change(id, before);
        self.check_latest(id);
        if self.ghost.len() > known || *self.raft(id).config() != was {
            self.check_quorums_hold_c();
        }
    }

    /// Leader Completeness (S4).
    fn check_complete(&self, id: NodeId) {
        let raft = self.raft(id);
        for c in self.ghost.committed.iter().filter(|c| c.by < raft.term()) {
            let covered = c.id.index <= raft.log().base().last.index;
            assert!(
                covered || raft.log().contains(c.id),
                "n{id} leads term {} without {}, committed in term {} (S4)",
                raft.term(),
                c.id,
                c.by
            );
        }
    }

    /// Node `id` has moved its commit index over `index`: State Machine Safety (S3). The leader commits first.
    fn check_committed(&mut self, id: NodeId, index: Index) {
        let node = &self.nodes[&id];
        let raft = self.raft(id);
        let entry = raft.log().id_at(index).expect("committed entries are in the log");
        let body = node.bodies.get(&index).filter(|body| body.0 == entry.term);
        let payload = body
            .unwrap_or_else(|| panic!("n{id} has no payload for {entry}"))
            .1;
        if let Some(c) = self.ghost.at(index) {
            assert_eq!(
                (c.id, c.payload),
                (entry, payload),
                "n{id} commits something else at {index} (S3)"
            );
            return;
        }
        assert_eq!(
            raft.role(),
            RoleKind::Leader,
            "n{id} commits {entry} before any leader (S3)"
        );
        let before = self.ghost.committed.last().map_or(0, |c| c.digest);
        let by = raft.term();
        let digest = digest(before, entry, payload);
        self.ghost.committed.push(Committed {
            id: entry,
            payload,
            by,
            digest,
        });
        if let Some(config) = self.raft(id).log().config_entry(index) {
            let config = config.clone();
            self.ghost.configs.push((index, config));
        }
    }
}
