//! What no node can see: a record of all that was ever committed and of who led, and the invariants of the whole cluster that need
//! it (S1 to S4, S7, S12 to S14). The record is part of every state. What follows from the states of two nodes alone, such as
//! Log Matching, is checked there and not recorded, since a longer record would keep equal situations apart.

use std::collections::BTreeMap;

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Body, Config, Names, RoleKind};

use crate::disk::{Machine, Payload, digest};
use crate::node::{Event, Node};
use crate::parcel::Parcel;

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// Its name.
    pub id: LogId,
    /// What stands in it.
    pub payload: Payload,
    /// The configuration, if it is one.
    pub config: Option<Config>,
    /// The term of the leader that committed it.
    pub by: Term,
    /// The state machine's digest after it.
    digest: u64,
}

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// C: everything ever committed; never shortened.
    pub committed: Vec<Committed>,
    /// Who led in each term.
    pub leaders: BTreeMap<Term, NodeId>,
    /// The length of C when each open read came, by node and number.
    reads: BTreeMap<(NodeId, u8), Index>,
    /// The configuration that the cluster began with.
    founded: Config,
    /// How many commands and reads there have been: the next one's number.
    pub proposed: u8,
    /// See `proposed`.
    pub asked: u8,
}

impl Ghost {
    /// Of a cluster that begins with this configuration.
    pub fn founded(config: Config) -> Ghost {
        Ghost {
            founded: config,
            ..Ghost::default()
        }
    }

    /// The length of C.
    pub fn len(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// Whether nothing was ever committed.
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty()
    }

    /// The entry of C at `index`.
    pub fn at(&self, index: Index) -> Option<&Committed> {
        self.committed.get((index.0 as usize).checked_sub(1)?)
    }

    /// The last configuration of C, and its place.
    pub(crate) fn last_config(&self) -> (LogId, &Config) {
        self.config_before(Index(u64::MAX))
    }

    /// The configuration of C in force as of `index`.
    pub(crate) fn config_before(&self, index: Index) -> (LogId, &Config) {
        let earlier = self.committed.iter().rev().filter(|c| c.id.index <= index);
        let mut configs = earlier.filter_map(|c| Some((c.id, c.config.as_ref()?)));
        configs.next().unwrap_or((LogId::ZERO, &self.founded))
    }

    /// A read comes to a node.
    pub fn read_begun(&mut self, node: NodeId, token: u8) {
        self.reads.insert((node, token), self.len());
        self.asked = token;
    }

    /// Gives all nodes new names; the membership must stay what it is.
    pub(crate) fn rename(&mut self, names: Names) {
        let configs = self.committed.iter().filter_map(|c| c.config.as_ref());
        let mut configs = configs.chain([&self.founded]);
        assert!(
            configs.all(|config| config.is_unchanged_by(names)),
            "the new names change a configuration"
        );
        self.leaders.values_mut().for_each(|id| *id = names(*id));
        let reads = std::mem::take(&mut self.reads).into_iter();
        self.reads = reads
            .map(|((at, token), begun)| ((names(at), token), begun))
            .collect();
    }

    /// Where reads are open, once a read.
    pub fn open_reads(&self) -> impl Iterator<Item = NodeId> {
        self.reads.keys().map(|(at, _)| *at)
    }

    /// Takes note of what others see of `node`, after a stimulus; `nodes` are all as they are after it.
    pub fn note(&mut self, nodes: &[&Node], node: &Node, event: &Event) {
        let id = node.id();
        match event {
            Event::Leads(term) => self.leads(node, *term),
            Event::Commits(from, to, by) => {
                for index in from.0 + 1..=to.0 {
                    self.commits(node, Index(index), *by);
                }
            }
            Event::Drops(gone) => {
                for (at, payload) in gone {
                    let lost = self
                        .at(at.index)
                        .is_some_and(|c| c.id == *at && c.payload == *payload);
                    assert!(!lost, "n{id} lost the committed entry {at} (S5)");
                }
            }
            Event::Machine(machine) => self.machine(id, *machine),
            Event::Answers(token, index) => self.answered(id, *token, *index),
            Event::Crashes => self.reads.retain(|(at, _), _| *at != id),
            Event::Sent(parcel, held) => check_match(nodes, parcel, *held),
            Event::Reconfigures(..) => {}
        }
    }

    /// At most one leader a term (S1), which has all that was committed before (S4).
    fn leads(&mut self, node: &Node, term: Term) {
        let (id, log) = (node.id(), node.raft.log());
        let known = *self.leaders.entry(term).or_insert(id);
        assert_eq!(known, id, "two leaders in term {term} (S1)");
        for c in self.committed.iter().filter(|c| c.by < term) {
            let covered = c.id.index <= log.base().last.index;
            assert!(
                covered || log.contains(c.id),
                "n{id} leads term {term} without {}, committed in term {} (S4)",
                c.id,
                c.by
            );
        }
    }

    /// A node has moved its commit index over `index`: State Machine Safety (S3). The leader commits first.
    fn commits(&mut self, node: &Node, index: Index, by: Option<Term>) {
        let (id, log) = (node.id(), node.raft.log());
        let entry = log.id_at(index).expect("committed entries are in the log");
        let body = node.bodies.get(&index).filter(|body| body.0 == entry.term);
        let payload = body
            .unwrap_or_else(|| panic!("n{id} has no payload for {entry}"))
            .1;
        if let Some(c) = self.at(index) {
            assert_eq!(
                (c.id, c.payload),
                (entry, payload),
                "n{id} commits something else at {index} (S3)"
            );
            return;
        }
        let by = by.unwrap_or_else(|| panic!("n{id} commits {entry} before any leader (S3)"));
        let before = self.committed.last().map_or(0, |c| c.digest);
        self.committed.push(Committed {
            id: entry,
            payload,
            config: log.config_entry(index).cloned(),
            by,
            digest: digest(before, entry, payload),
        });
    }

    /// A machine has applied something, or was replaced (S12, S14).
    fn machine(&self, id: NodeId, machine: Machine) {
        assert!(
            machine.applied <= self.len(),
            "n{id} has applied what is not committed (S9)"
        );
        let expected = self.at(machine.applied).map_or(0, |c| c.digest);
        assert_eq!(
            machine.digest, expected,
            "n{id}'s state at {} is not C's (S14)",
            machine.applied
        );
    }

    /// A read may be served at `index` (S13).
    fn answered(&mut self, node: NodeId, token: u8, index: Option<Index>) {
        let begun = self
            .reads
            .remove(&(node, token))
            .unwrap_or_else(|| panic!("read {token} at n{node} was answered twice or never asked (S13)"));
        if let Some(index) = index {
            assert!(
                index >= begun,
                "read {token} at n{node} is stale: index {index}, but {begun} was committed before it came (S13)"
            );
        }
    }

    /// What leaders believe of others is so (S7): of those whose match has `risen` in the list of `node`, and, if what it has on disk is another, of `node`
    /// in all lists.
    pub fn check_matches(&self, nodes: &[&Node], node: &Node, risen: &[(NodeId, Index)], disk_changed: bool) {
        for (id, matched) in risen {
            if let Some(follower) = nodes.iter().find(|other| other.id() == *id) {
                self.check_believed(node, follower, *matched);
            }
        }
        if disk_changed {
            for leader in nodes.iter().filter(|other| other.id() != node.id()) {
                let believed = leader.raft.peers().find(|(id, _)| *id == node.id());
                if let Some((_, peer)) = believed {
                    self.check_believed(leader, node, peer.matched);
                }
            }
        }
    }

    /// A leader's log and the disk of a follower that it believes to hold it up to `matched` are the same there (S7). One that was deposed without knowing it may be
    /// wrong about who follows another now.
    fn check_believed(&self, leader: &Node, follower: &Node, matched: Index) {
        let (log, image) = (leader.raft.log(), &follower.image);
        let (at, id) = (leader.id(), follower.id());
        assert!(
            matched <= log.last_index(),
            "n{at} believes n{id} to hold {matched}, its own log ends at {} (S7)",
            log.last_index()
        );
        if matched == Index::ZERO || image.hard.term > leader.raft.term() {
            return;
        }
        // What one of the two has compacted is in C.
        let in_c = || self.at(matched).map(|c| c.id.term);
        let known = |term: Option<Term>, base: Index| term.or_else(|| in_c().filter(|_| base > matched));
        let held = known(image.term_at(matched), image.base.last.index);
        let leads = known(log.term_at(matched), log.base().last.index);
        assert!(
            held.is_some() && held == leads,
            "n{at} believes n{id} to hold {matched} as it does, in term {leads:?}, but its disk has term {held:?} there (S7)"
        );
    }

    /// A node's log starts after something that is in C (S12).
    pub fn check_base(&self, node: &Node) {
        let base = node.raft.log().base().last;
        if let Some(c) = self.at(base.index) {
            assert_eq!(
                c.id,
                base,
                "n{}'s log starts after something that is not in C (S12)",
                node.id()
            );
        }
    }
}

/// An acknowledgement is of what the leader of its term has (S7).
fn check_match(nodes: &[&Node], parcel: &Parcel, held: Option<LogId>) {
    let Some((term, body)) = parcel.body() else {
        return;
    };
    let upto = match body {
        Body::Appended { upto } => *upto,
        Body::HeartbeatResponse { matched, .. } => *matched,
        _ => return,
    };
    let leads = |node: &&&Node| {
        node.id() == parcel.to && node.raft.role() == RoleKind::Leader && node.raft.term() == term
    };
    let Some(leader) = nodes.iter().find(leads) else {
        return;
    };
    let (from, log) = (parcel.from, leader.raft.log());
    assert!(
        upto <= log.last_index(),
        "n{from} acknowledges {upto}, its leader's log ends at {} (S7)",
        log.last_index()
    );
    if let (Some(held), Some(leads)) = (held, log.term_at(upto)) {
        assert_eq!(
            held.term, leads,
            "n{from} acknowledges {upto}, which it holds in another term (S7)"
        );
    }
}

/// Log Matching (S2): where two logs have the same entry, they are the same up to there.
pub(crate) fn check_matching(a: &Node, b: &Node) {
    let (left, right) = (a.raft.log(), b.raft.log());
    let first = left.first().max(right.first()).0;
    let last = left.last_index().min(right.last_index()).0;
    let same = |i: &u64| left.term_at(Index(*i)) == right.term_at(Index(*i));
    let Some(agree) = (first..=last).rev().find(same) else {
        return;
    };
    for i in first..=agree {
        let at = Index(i);
        assert!(
            same(&i) && a.bodies.get(&at) == b.bodies.get(&at),
            "n{} and n{} agree at {agree} and differ at {at} (S2)",
            a.id(),
            b.id()
        );
    }
}
