//! The invariants of the whole cluster, checked after every step against ghost state that no node knows: C (everything
//! ever committed), who led which term, who voted for whom, and what is durable on each disk.
//!
//! | invariant | where |
//! | --- | --- |
//! | S1 one leader a term; S4 a new leader has what was committed before | [`Ghost::stepped`] |
//! | S2 log matching, by entry bytes and by chained hashes | [`Ghost::emitted`], [`Commits::name`](commits::Commits::name) |
//! | S3 committed prefix; S9 transitions of one run; S10 | [`Ghost::stepped`], with the core's own `invariants` |
//! | S5 C is durable on a quorum; S11 configurations | [`Ghost::check_durable_quorum`] in `membership` |
//! | S6 nothing leaves before it is durable; S8 votes and terms | [`Ghost::sent`] and [`Ghost::acknowledged`] in `sending` |
//! | S7 match index | [`Ghost::stepped`] |
//! | S12 snapshots and compaction; S14 state hashes; S15 revisions | `applying` |
//! | S13 reads | [`Ghost::check_read`], and what the reader's state must say in `applying` |
//! | S16 watches | `watches`, against the model |
//! | S17 leases; S18 client sessions | `leases`, `sessions` |
//! | everything, computed anew from bytes | [`Ghost::scan`] in `scan` |
//! | S20 recovery | [`Ghost::recovered`], [`Ghost::check_image`] |
//!
//! Nothing here is switched off for a fault, but for one thing: S5 no longer counts on a disk that was found damaged, see
//! [`Ghost::lost`], nor on one that may have lost what it confirmed, see [`Ghost::distrust`]. All other faults are inside the model that the invariants are stated for; identities that come back with less than they
//! had are let loose only where the promise holds that nobody lets them in.

pub mod applying;
pub mod commits;
pub mod leases;
pub mod log;
mod membership;
pub mod quorum;
pub mod scan;
mod sending;
pub mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::entry;
use quorate_node::event::StreamId;
use quorate_raft::{Config, Raft, RoleKind, WriteId};
use quorate_wal::Record;
use thiserror::Error;

use applying::Machines;
use commits::Commits;
use leases::Leases;
use log::{GhostLog, Recovered, config_in};
use sessions::Sessions;

/// A broken invariant.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// Which one, by its number in the table above.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(rule: &'static str, what: String) -> Violation {
        Violation { rule, what }
    }

    pub(crate) fn because<T>(rule: &'static str, what: String) -> Result<T, Violation> {
        Err(Violation { rule, what })
    }
}

/// What the checker knows of one node.
#[derive(Clone, Debug, Default)]
struct Member {
    /// The log as the running node sees it: all records it has handed out.
    volatile: GhostLog,
    /// The log as the disk must have it: all records of completed appends.
    durable: GhostLog,
    /// Handed out, not completed.
    waiting: VecDeque<(WriteId, Vec<Record>)>,
    /// In the hands of the log at this moment: after a crash each is there or not, the later only with the earlier.
    appending: Vec<Vec<Record>>,
    /// Its commit index after the last look; `None` before the first of a run.
    commit: Option<Index>,
    /// The match indexes it had as a leader, after its last step.
    matched: BTreeMap<NodeId, Index>,
    leads: Option<Term>,
    /// It has truncated its log since the last look.
    truncated: bool,
    /// It has put a configuration into its log since the last look.
    reconfigured: bool,
}

/// The ghost state of a cluster.
#[derive(Clone, Debug)]
pub struct Ghost {
    commits: Commits,
    /// What the node acted on that was the first to commit the end of C; perhaps the new one of a joint configuration that it leaves with that.
    counted_by: Config,
    leaders: BTreeMap<Term, NodeId>,
    /// Promised by a message or a durable hard state.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    durable_votes: BTreeMap<(NodeId, Term), NodeId>,
    members: BTreeMap<NodeId, Member>,
    /// The last index of each snapshot that was offered, by its sender and its number there.
    transfers: BTreeMap<(NodeId, StreamId), Index>,
    /// Machines that claim to be a member.
    aliases: BTreeMap<NodeId, NodeId>,
    /// Members whose disks were damaged: they never start again.
    lost: BTreeSet<NodeId>,
    /// Members whose disks may have broken their word.
    distrusted: BTreeSet<NodeId>,
    /// What the state machines did.
    pub machines: Machines,
    /// What was promised of leases, and proposed.
    pub leases: Leases,
    /// What was executed for client sessions.
    pub sessions: Sessions,
}

impl Ghost {
    /// Before anything has happened in a cluster of this configuration.
    pub fn new(config: Config) -> Ghost {
        let mut ghost = Ghost {
            commits: Commits::founded(config.clone()),
            counted_by: config.clone(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            durable_votes: BTreeMap::new(),
            members: BTreeMap::new(),
            machines: Machines::default(),
            leases: Leases::default(),
            sessions: Sessions::default(),
            lost: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            aliases: BTreeMap::new(),
            transfers: BTreeMap::new(),
        };
        for id in config.members() {
            ghost.join(id, config.clone());
        }
        ghost
    }

    /// There is a new node with an empty disk. It starts with `config`, which is empty unless it is one of the founders.
    pub fn join(&mut self, id: NodeId, config: Config) {
        let log = GhostLog::founded(config);
        let member = Member {
            volatile: log.clone(),
            durable: log,
            ..Member::default()
        };
        self.members.insert(id, member);
    }

    /// A node and its disk are gone for good: it is no member any longer.
    pub fn destroyed(&mut self, id: NodeId) -> Result<(), Violation> {
        self.members.remove(&id);
        self.distrusted.remove(&id);
        self.check_durable_quorum()
    }

    /// A member's disk is found damaged, and the node will never start again: it neither holds C nor ever votes. This is the one fault
    /// that goes beyond what S5 is stated for, and it is taken out of account there.
    pub fn lost(&mut self, id: NodeId) -> Result<(), Violation> {
        self.members.remove(&id);
        self.distrusted.remove(&id);
        self.lost.insert(id);
        self.check_durable_quorum()
    }

    /// The disk of this member may not hold what it said it holds: it is taken out of account in S5 until it is known.
    pub fn distrust(&mut self, id: NodeId) {
        self.distrusted.insert(id);
    }

    /// A disk in doubt was found whole.
    pub fn trust(&mut self, id: NodeId) -> Result<(), Violation> {
        self.distrusted.remove(&id);
        self.check_durable_quorum()
    }

    /// C and the entries.
    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    /// The machine that led in a term, if any did.
    pub fn leader_of(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// A machine claims to be this member: its votes are the member's if anybody hears them.
    pub fn alias(&mut self, machine: NodeId, member: NodeId) {
        self.aliases.insert(machine, member);
    }

    /// The log that is durable on a node.
    pub fn durable_log(&self, id: NodeId) -> &GhostLog {
        &self.members[&id].durable
    }

    /// A machine begins with a disk that was another's, with this log.
    pub fn put_back(&mut self, id: NodeId, log: GhostLog) {
        if let Some(vote) = log.hard.vote {
            self.durable_votes.insert((id, log.hard.term), vote);
        }
        let member = self.member(id);
        member.volatile = log.clone();
        member.durable = log;
    }

    /// The last entry that is durable on a node.
    pub fn last(&self, id: NodeId) -> LogId {
        self.members
            .get(&id)
            .map_or(LogId::ZERO, |member| member.durable.last())
    }

    fn member(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).expect("a member of the cluster")
    }

    /// The node handed a write to its log.
    pub fn emitted(&mut self, id: NodeId, write: WriteId, records: &[Record]) -> Result<(), Violation> {
        let member = self.members.get_mut(&id).expect("a member of the cluster");
        if member.waiting.back().is_some_and(|last| last.0 >= write) {
            return Violation::because("S9", format!("{id} numbered a write {write} after a later one"));
        }
        for record in records {
            if let Record::Truncate { after } = record {
                member.truncated |= *after < member.volatile.last().index;
            }
            if let Record::Entry { index, body } = record {
                let Some(at) = entry::id_of(body) else {
                    return Violation::because("records", format!("{id} wrote nonsense at {index}"));
                };
                self.commits.name(at, body)?;
                member.reconfigured |= config_in(body).is_some();
            }
            member.volatile.carry_out(record, &self.commits)?;
        }
        member.waiting.push_back((write, records.to_vec()));
        Ok(())
    }

    /// The log of the node begins to append its oldest writes up to `last`.
    pub fn appending(&mut self, id: NodeId, last: WriteId) {
        let member = self.member(id);
        while member.waiting.front().is_some_and(|write| write.0 <= last) {
            member
                .appending
                .extend(member.waiting.pop_front().map(|write| write.1));
        }
    }

    /// The log says that what it was appending is durable.
    pub fn appended(&mut self, id: NodeId) -> Result<(), Violation> {
        let batches = std::mem::take(&mut self.member(id).appending);
        let member = self.members.get_mut(&id).expect("a member of the cluster");
        let mut shrunk = false;
        for record in batches.iter().flatten() {
            shrunk |= matches!(record, Record::Truncate { .. });
            member.durable.carry_out(record, &self.commits)?;
            if let Record::State(_) = record {
                check_hard(id, &member.durable, &mut self.durable_votes)?;
            }
        }
        if shrunk {
            self.check_durable_quorum()
        } else {
            Ok(())
        }
    }

    /// The node ended, in whatever way.
    pub fn crashed(&mut self, id: NodeId) {
        let member = self.member(id);
        member.waiting.clear();
        member.matched.clear();
        member.leads = None;
        member.commit = None;
    }

    /// The node's log was opened again and said `found`. It must be what was durable, and possibly the first few of the
    /// batches that were being appended (S20).
    pub fn recovered(&mut self, id: NodeId, found: &Recovered) -> Result<(), Violation> {
        let member = self.members.get_mut(&id).expect("a member of the cluster");
        let batches = std::mem::take(&mut member.appending);
        let mut candidate = member.durable.clone();
        let mut more = batches.iter();
        while !candidate.matches(found) {
            let Some(batch) = more.next() else {
                let (expected, hard) = (member.durable.last(), member.durable.hard);
                return Violation::because("S20", describe_loss(id, found, &format!("{expected}, {hard:?}")));
            };
            for record in batch {
                candidate.carry_out(record, &self.commits)?;
            }
        }
        if candidate.hard.term < member.durable.hard.term {
            return Violation::because("S8", format!("the durable term of {id} fell"));
        }
        member.durable = candidate;
        member.volatile = member.durable.clone();
        check_hard(id, &member.durable, &mut self.durable_votes)?;
        self.check_durable_quorum()
    }

    /// Whether the node ended while it appended something: a crash may have left any part of that.
    pub fn was_appending(&self, id: NodeId) -> bool {
        !self.members[&id].appending.is_empty()
    }

    /// Whether what was found is all that was durable, and nothing of what was being appended is in question.
    pub fn is_whole(&self, id: NodeId, found: &Recovered) -> bool {
        let member = &self.members[&id];
        let mut candidate = member.durable.clone();
        let mut more = member.appending.iter();
        while !candidate.matches(found) {
            let Some(batch) = more.next() else { return false };
            let carried = batch
                .iter()
                .try_for_each(|record| candidate.carry_out(record, &self.commits));
            if carried.is_err() {
                return false;
            }
        }
        true
    }

    /// A disk that has lost the end of its log said `found`: less than was durable, but nothing that never was (S19).
    pub fn recovered_less(&self, id: NodeId, found: &Recovered) -> Result<(), Violation> {
        let durable = &self.members[&id].durable;
        if found.hard.unwrap_or_default().term > durable.hard.term {
            return Violation::because("S19", format!("the disk of {id} shows a term that never was"));
        }
        let start = found.mark.as_ref().map_or(Index::ZERO, |meta| meta.last.index);
        for (index, body) in (start.0 + 1..).zip(&found.entries) {
            let known = entry::id_of(body).filter(|at| at.index == Index(index));
            if known.and_then(|at| self.commits.body(at)) != Some(body) {
                return Violation::because(
                    "S19",
                    format!("the disk of {id} shows an entry {index} that never was"),
                );
            }
        }
        Ok(())
    }

    /// A copy of the node's disk without anything unsynced says `found`: exactly what was reported durable (S6, S20).
    pub fn check_image(&self, id: NodeId, found: &Recovered) -> Result<(), Violation> {
        let durable = &self.members[&id].durable;
        if durable.matches(found) {
            return Ok(());
        }
        let expected = format!("{}, {:?}", durable.last(), durable.hard);
        Violation::because("S6", describe_loss(id, found, &expected))
    }

    /// Checks a running node whose effects have just been taken.
    pub fn stepped(&mut self, id: NodeId, after: &Raft) -> Result<(), Violation> {
        let Member { volatile, commit, .. } = &self.members[&id];
        if volatile.last() != after.last() {
            let (log, shape) = (volatile.last(), after.last());
            return Violation::because(
                "S2",
                format!("{id} wrote its log up to {log}, and believes {shape}"),
            );
        }
        if *commit != Some(after.commit()) {
            self.check_commit(id, after)?;
        }
        let config = self.members[&id].volatile.config();
        if after.config() != config {
            let believed = after.config();
            return Violation::because(
                "S11",
                format!("{id} acts on {believed:?}, the latest in its log is {config:?}"),
            );
        }
        if std::mem::take(&mut self.member(id).reconfigured) {
            self.check_configs(id, after)?;
            self.check_durable_quorum()?;
        }
        let truncated = std::mem::take(&mut self.member(id).truncated);
        match after.role() {
            RoleKind::Leader if truncated && self.members[&id].leads == Some(after.term()) => {
                Violation::because(
                    "S9",
                    format!("{id} leads and truncates its log to {}", after.last()),
                )
            }
            RoleKind::Leader => self.check_leader(id, after),
            _ => {
                let member = self.member(id);
                member.leads = None;
                member.matched.clear();
                Ok(())
            }
        }
    }

    /// The commit index moved: the node's log agrees with C, or extends it (S3).
    fn check_commit(&mut self, id: NodeId, raft: &Raft) -> Result<(), Violation> {
        let commit = raft.commit();
        if self
            .member(id)
            .commit
            .replace(commit)
            .is_some_and(|before| before > commit)
        {
            return Violation::because("S9", format!("the commit index of {id} fell to {commit}"));
        }
        let volatile = &self.members[&id].volatile;
        let shared = commit.min(self.commits.last());
        if !volatile.holds(shared, &self.commits) {
            return Violation::because(
                "S3",
                format!("{id} commits {shared}, and holds another entry there than C"),
            );
        }
        if commit <= self.commits.last() {
            return Ok(());
        }
        for index in self.commits.last().0 + 1..=commit.0 {
            let index = Index(index);
            let (Some(term), Some(hash)) = (volatile.term_at(index), volatile.hash_at(index)) else {
                return Violation::because("S3", format!("{id} commits {index}, which it does not have"));
            };
            self.commits.push(term, hash, raft.term());
        }
        self.counted_by.clone_from(raft.config());
        self.check_durable_quorum()
    }

    /// At most one node leads a term (S1).
    fn note_leader(&mut self, id: NodeId, term: Term) -> Result<(), Violation> {
        let other = *self.leaders.entry(term).or_insert(id);
        if other != id {
            return Violation::because("S1", format!("{id} and {other} both lead term {term}"));
        }
        Ok(())
    }

    fn check_leader(&mut self, id: NodeId, raft: &Raft) -> Result<(), Violation> {
        let term = raft.term();
        self.note_leader(id, term)?;
        let member = &self.members[&id];
        if member.leads != Some(term) {
            let needed = self.commits.known_before(term);
            if !member.volatile.holds(needed, &self.commits) {
                let last = member.volatile.last();
                return Violation::because(
                    "S4",
                    format!("{id} leads term {term} with a log to {last}, without C[{needed}]"),
                );
            }
            self.check_election(id, raft)?;
        }
        let mut matched = BTreeMap::new();
        for (peer, status) in raft.peers() {
            if member.matched.get(&peer) != Some(&status.matched) {
                self.check_match(id, raft, peer, status.matched)?;
            }
            matched.insert(peer, status.matched);
        }
        let member = self.member(id);
        member.leads = Some(term);
        member.matched = matched;
        Ok(())
    }

    /// A leader takes `matched` for what `peer` holds: while the peer is in the same term, its disk agrees (S7).
    fn check_match(&self, id: NodeId, raft: &Raft, peer: NodeId, matched: Index) -> Result<(), Violation> {
        let Some(follower) = self.members.get(&peer) else {
            return Ok(());
        };
        let (leader, follower) = (&self.members[&id].volatile, &follower.durable);
        if follower.hard.term != raft.term() || matched == Index::ZERO {
            return Ok(());
        }
        let same = match (leader.hash_at(matched), follower.hash_at(matched)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            // Under an installed snapshot, hence in C.
            (None, _) => follower.holds(matched, &self.commits),
            (_, None) => matched < follower.last().index && leader.holds(matched, &self.commits),
        };
        if same {
            return Ok(());
        }
        Violation::because(
            "S7",
            format!(
                "{id} takes {matched} for matched by {peer}, whose disk has {}",
                follower.last()
            ),
        )
    }

    /// A linearizable read that began when C had length `floor` is served at `applied` (S13).
    pub fn check_read(&self, id: NodeId, floor: Index, applied: Index) -> Result<(), Violation> {
        if applied < floor {
            return Violation::because(
                "S13",
                format!("{id} serves at {applied} a read that began after C[{floor}]"),
            );
        }
        Ok(())
    }
}

/// The vote in a durable hard state is the only one of its term (S8).
fn check_hard(
    id: NodeId,
    durable: &GhostLog,
    votes: &mut BTreeMap<(NodeId, Term), NodeId>,
) -> Result<(), Violation> {
    let Some(vote) = durable.hard.vote else {
        return Ok(());
    };
    let term = durable.hard.term;
    let before = *votes.entry((id, term)).or_insert(vote);
    if before != vote {
        return Violation::because(
            "S8",
            format!("{id} voted for {before} and {vote} in term {term}, durably"),
        );
    }
    Ok(())
}

fn describe_loss(id: NodeId, found: &Recovered, expected: &str) -> String {
    let start = found.mark.as_ref().map_or(Index::ZERO, |meta| meta.last.index);
    let last = Index(start.0 + found.entries.len() as u64);
    let hard = found.hard.unwrap_or_default();
    format!("the disk of {id} holds {start} to {last}, {hard:?}; durable was {expected}")
}

#[cfg(test)]
mod tests;
