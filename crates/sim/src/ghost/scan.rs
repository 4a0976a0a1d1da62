//! The full scan: every now and then all that the checker believes is forgotten, and computed anew from what is really there: the bytes
//! on every disk that a crash could not take, the bodies of all entries, the cores of the running nodes. Slow, complete, and
//! independent of the transition checks, whose mistakes it would show.
//!
//! | invariant | what is computed anew |
//! | --- | --- |
//! | S1, S4 | who leads which term now, and whether its log has what was committed before |
//! | S2 | prefixes of each two disks, up to the last place where they have the same term |
//! | S3 | every disk's committed prefix against C; C's own chain from the bodies of its entries |
//! | S5 | which disks hold all of C, against every configuration that may decide |
//! | S6, S20 | each disk against what was reported durable; what a core takes for durable against its disk |
//! | S7 | each leader's match indexes against the followers' disks |
//! | S8 | durable votes and terms |
//! | S9 | commit and applied indexes against logs and disks |
//! | S10 | terms along every log |
//! | S11 | configurations in C and in every log: order, intersection, how many are not committed, which one is in force |
//! | S12 | where each log starts |
//!
//! Not here: S13 is about moments, not states, and judged when a read is served and again over the whole history; S14 compares
//! stores, and is done by the world, which has them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::entry;
use quorate_raft::{Config, HardState, Raft, RoleKind};

use super::commits::Commits;
use super::log::{Recovered, chain, config_in};
use super::membership::check_succession;
use super::quorum::is_quorum;
use super::{Ghost, Violation};

/// One node as the scan finds it.
pub struct Scanned<'a> {
    /// What is certain to survive on its disk.
    pub found: Recovered,
    /// Its core, if it runs and all its effects were taken.
    pub raft: Option<&'a Raft>,
    /// What its state machine has applied, and how much of that is durable; of a running node.
    pub applied: Option<(Index, Index)>,
}

/// The hashes of C from some index on, computed from bytes.
struct Chained {
    from: Index,
    hashes: Vec<u64>,
}

impl Chained {
    fn hash_at(&self, index: Index) -> Option<u64> {
        let slot = index.0.checked_sub(self.from.0)? as usize;
        self.hashes.get(slot).copied()
    }
}

/// A log, computed from bytes.
struct Plain {
    base: LogId,
    hard: HardState,
    terms: Vec<Term>,
    /// The hash of the log up to each entry; the first is that of the base.
    hashes: Vec<u64>,
    configs: Vec<(Index, Config)>,
}

impl Plain {
    fn last(&self) -> Index {
        Index(self.base.index.0 + self.terms.len() as u64)
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let slot = index.0.checked_sub(self.base.index.0 + 1)? as usize;
        self.terms.get(slot).copied()
    }

    fn hash_at(&self, index: Index) -> Option<u64> {
        let slot = index.0.checked_sub(self.base.index.0)? as usize;
        self.hashes.get(slot).copied()
    }

    /// Whether it agrees with C up to `index`; what lies under its base does.
    fn holds(&self, index: Index, c: &Chained) -> bool {
        index < self.base.index
            || self
                .hash_at(index)
                .is_some_and(|hash| c.hash_at(index) == Some(hash))
    }
}

impl Ghost {
    /// Scans everything. Machines that are left out are those whose disks are known to be damaged. Of C only what is still in somebody's
    /// log is computed anew, unless all of it is wanted.
    pub fn scan(&self, nodes: &BTreeMap<NodeId, Scanned<'_>>, all: bool) -> Result<(), Violation> {
        let starts = nodes.values().map(|node| node.found.mark.as_ref());
        let lowest = starts
            .map(|mark| mark.map_or(Index::ZERO, |mark| mark.last.index))
            .min();
        let from = lowest.filter(|_| !all).unwrap_or(Index::ZERO);
        let c = self.scan_commits(from.min(self.commits.last()))?;
        let mut logs = BTreeMap::new();
        for (id, node) in nodes {
            let log = self.scan_disk(*id, &node.found, &c)?;
            logs.insert(*id, log);
        }
        scan_prefixes(&logs)?;
        self.scan_quorums(&logs, &c)?;
        let mut leaders = BTreeMap::new();
        for (id, node) in nodes {
            let log = &logs[id];
            if let Some((applied, durable)) = node.applied
                && applied >= log.base.index
                && durable < log.base.index
            {
                let base = log.base;
                return Violation::because("S12", format!("{id} compacted to {base}, and stores {durable}"));
            }
            let Some(raft) = node.raft else { continue };
            self.scan_core(
                *id,
                raft,
                log,
                node.applied.map_or(Index::ZERO, |applied| applied.0),
            )?;
            if raft.role() == RoleKind::Leader {
                self.scan_leader(*id, raft, &logs)?;
                let other = leaders.insert(raft.term(), *id);
                if let Some(other) = other.or_else(|| self.leaders.get(&raft.term()).copied())
                    && other != *id
                {
                    let term = raft.term();
                    return Violation::because("S1", format!("{id} and {other} both lead term {term}"));
                }
            }
        }
        Ok(())
    }

    /// C after `from` from the bodies of its entries.
    fn scan_commits(&self, from: Index) -> Result<Chained, Violation> {
        let (mut since, mut config) = self.commits.config_at(from);
        let mut before = self.commits.term_at(from).unwrap_or_default();
        let start = self.commits.hash_at(from).expect("it is in C");
        let mut chained = Chained {
            from,
            hashes: vec![start],
        };
        for index in from.0 + 1..=self.commits.last().0 {
            let index = Index(index);
            let term = self.commits.term_at(index).unwrap_or_default();
            let Some(body) = self.commits.body(LogId { term, index }) else {
                return Violation::because("S3", format!("nobody knows the entry C[{index}] of term {term}"));
            };
            if term < before {
                return Violation::because("S10", format!("terms fall in C at {index}"));
            }
            let hash = chain(*chained.hashes.last().expect("it has a start"), body);
            if self.commits.hash_at(index) != Some(hash) {
                return Violation::because("S3", format!("C[{index}] has changed"));
            }
            if let Some(next) = config_in(body) {
                check_succession(NodeId(0), config, &next)?;
                (since, config) = self.commits.config_at(index);
                if since != index || *config != next {
                    return Violation::because(
                        "S11",
                        format!("C[{index}] is another configuration: {next:?}"),
                    );
                }
            }
            chained.hashes.push(hash);
            before = term;
        }
        if since != self.commits.config_at(self.commits.last()).0 {
            return Violation::because("S11", format!("C has a configuration after {since} in no entry"));
        }
        Ok(chained)
    }

    /// One disk: its log from its bytes, against C, against itself, and against what was reported durable.
    fn scan_disk(&self, id: NodeId, found: &Recovered, c: &Chained) -> Result<Plain, Violation> {
        self.scan_image(id, found)?;
        let mark = found.mark.as_ref();
        let base = mark.map_or(LogId::ZERO, |mark| mark.last);
        let wrong = |rule, what: String| Violation::because(rule, format!("the disk of {id}: {what}"));
        let (since, right) = self.commits.config_at(base.index);
        let committed = base == LogId::ZERO || self.commits.term_at(base.index) == Some(base.term);
        let unlike = |mark: &quorate_raft::SnapMeta| since > Index::ZERO && mark.config != *right;
        if !committed || mark.is_some_and(unlike) {
            return wrong("S12", format!("the log starts after {mark:?}, unlike C"));
        }
        let mut log = Plain {
            base,
            hard: found.hard.unwrap_or_default(),
            terms: Vec::with_capacity(found.entries.len()),
            hashes: c.hash_at(base.index).into_iter().collect(),
            configs: Vec::new(),
        };
        let mut before = base;
        let Some(mut hash) = log.hashes.first().copied() else {
            return wrong("S12", format!("the log starts after {base}, beyond C"));
        };
        for body in &found.entries {
            let Some(at) = entry::id_of(body).filter(|at| at.index == before.index.next()) else {
                return wrong("S12", format!("after {before} comes no entry"));
            };
            if at.term < before.term || at.term > log.hard.term {
                let term = log.hard.term;
                return wrong("S10", format!("{at} after {before}, in term {term}"));
            }
            if self.commits.body(at) != Some(body) {
                return wrong("S2", format!("another entry named {at}"));
            }
            hash = chain(hash, body);
            log.terms.push(at.term);
            log.hashes.push(hash);
            log.configs
                .extend(config_in(body).map(|config| (at.index, config)));
            before = at;
        }
        let commit = log.hard.commit.min(self.commits.last());
        if log.hard.commit > log.last() || !log.holds(commit, c) {
            return wrong(
                "S3",
                format!("it records commit {commit} and holds another entry there than C"),
            );
        }
        // What was being appended when the node ended has not been looked at yet.
        if let Some(vote) = log.hard.vote
            && log.hard == self.members[&id].durable.hard
            && self.durable_votes.get(&(id, log.hard.term)) != Some(&vote)
        {
            let term = log.hard.term;
            return wrong(
                "S8",
                format!("a vote for {vote} in term {term} that nobody saw become durable"),
            );
        }
        let known = mark
            .map(|mark| &mark.config)
            .unwrap_or(self.commits.config_at(Index::ZERO).1);
        scan_configs(id, known, &log, &self.commits, c)?;
        Ok(log)
    }

    /// The bytes are what was reported durable, and at most the beginning of what was being appended when the node ended (S6, S20).
    fn scan_image(&self, id: NodeId, found: &Recovered) -> Result<(), Violation> {
        let member = &self.members[&id];
        if member.durable.matches(found) {
            return Ok(());
        }
        let mut log = member.durable.clone();
        for batch in &member.appending {
            for record in batch {
                log.carry_out(record, &self.commits)?;
            }
            if log.matches(found) {
                return Ok(());
            }
        }
        self.check_image(id, found)
    }

    /// Everything committed is on a member of every quorum that may decide, and on as many as were needed to commit it (S5).
    fn scan_quorums(&self, logs: &BTreeMap<NodeId, Plain>, c: &Chained) -> Result<(), Violation> {
        let last = self.commits.last();
        let (have, lack): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            logs.keys().partition(|id| logs[*id].holds(last, c));
        let whole: BTreeSet<NodeId> = have.union(&self.lost).copied().collect();
        let unseen = self.members.keys().filter(|id| !logs.contains_key(id));
        let whole: BTreeSet<NodeId> = whole.into_iter().chain(unseen.copied()).collect();
        let active = self.active_configs();
        if active.iter().any(|config| is_quorum(config, &lack)) || !self.could_commit(&active, &whole) {
            return Violation::because("S5", format!("C[{last}] is on the disks of {have:?} only"));
        }
        Ok(())
    }

    /// A running core, against the records it has handed out since its disk's last ones, and against C.
    fn scan_core(&self, id: NodeId, raft: &Raft, disk: &Plain, applied: Index) -> Result<(), Violation> {
        let member = &self.members[&id];
        let mut log = Cow::Borrowed(&member.durable);
        let waiting = member.waiting.iter().map(|(_, records)| records);
        for record in member.appending.iter().chain(waiting).flatten() {
            log.to_mut().carry_out(record, &self.commits)?;
        }
        let wrong = |rule, what: String| Violation::because(rule, format!("{id}: {what}"));
        if *log != member.volatile {
            return wrong(
                "S2",
                "its log is not what its disk and its writes amount to".to_owned(),
            );
        }
        let first = raft.log().base().last.index.max(log.mark.last.index);
        for index in first.0..=raft.last().index.0 {
            if raft.log().term_at(Index(index)) != log.term_at(Index(index)) {
                return wrong(
                    "S2",
                    format!("it takes the entry {index} for one of another term"),
                );
            }
        }
        let (commit, durable) = (raft.commit(), raft.durable());
        if commit > self.commits.last() || !log.holds(commit, &self.commits) {
            return wrong("S3", format!("it commits {commit} with another log than C"));
        }
        if durable > disk.last() || raft.term() < disk.hard.term {
            let (term, last) = (disk.hard.term, disk.last());
            return wrong(
                "S6",
                format!("it takes {durable} for durable; its disk has {last}, term {term}"),
            );
        }
        let most = commit.min(disk.last());
        if raft.applied() > most || applied > most {
            return wrong(
                "S9",
                format!("it has applied {applied}, where {most} is committed and durable"),
            );
        }
        if raft.log().last().term > raft.term() {
            return wrong("S10", format!("its log is of a later term than {}", raft.term()));
        }
        let latest = log
            .configs()
            .last()
            .map_or(&log.mark.config, |(_, config)| config);
        if raft.config() != latest {
            return wrong("S11", format!("it acts on another configuration than {latest:?}"));
        }
        Ok(())
    }

    /// A leader's log has what was committed before its term, and its followers have what it believes (S4, S7).
    fn scan_leader(&self, id: NodeId, raft: &Raft, logs: &BTreeMap<NodeId, Plain>) -> Result<(), Violation> {
        let log = &self.members[&id].volatile;
        let needed = self.commits.known_before(raft.term());
        if !log.holds(needed, &self.commits) {
            let term = raft.term();
            return Violation::because("S4", format!("{id} leads term {term} without C[{needed}]"));
        }
        for (peer, status) in raft.peers() {
            let Some(disk) = logs.get(&peer).filter(|disk| disk.hard.term == raft.term()) else {
                continue;
            };
            let matched = status.matched;
            let same = match (log.hash_at(matched), disk.hash_at(matched)) {
                (Some(ours), Some(theirs)) => ours == theirs,
                // One of them has it under a snapshot, hence in C: then the other holds C there.
                (None, Some(theirs)) => self.commits.hash_at(matched) == Some(theirs),
                (_, None) => matched < disk.base.index && log.holds(matched, &self.commits),
            };
            if !same {
                return Violation::because(
                    "S7",
                    format!(
                        "{id} takes {matched} for matched by {peer}, whose disk has {}",
                        disk.last()
                    ),
                );
            }
        }
        Ok(())
    }
}

/// Two logs that have one term at one index are the same up to there (S2).
fn scan_prefixes(logs: &BTreeMap<NodeId, Plain>) -> Result<(), Violation> {
    for (one, log) in logs {
        for (other, others) in logs.range(..*one) {
            let first = log.base.index.max(others.base.index);
            let last = log.last().min(others.last());
            let mut common = (first.0..=last.0).rev().map(Index);
            let met = common.find(|index| log.term_at(*index) == others.term_at(*index));
            if let Some(index) = met
                && log.hash_at(index) != others.hash_at(index)
            {
                return Violation::because(
                    "S2",
                    format!("{one} and {other} have one term at {index}, and different logs"),
                );
            }
        }
    }
    Ok(())
}

/// The configurations in a log follow each other, and at most one of them is not committed (S11).
fn scan_configs<'a>(
    id: NodeId,
    mut before: &'a Config,
    log: &'a Plain,
    commits: &Commits,
    c: &Chained,
) -> Result<(), Violation> {
    let pending = |index: Index| index > commits.last() || !log.holds(index, c);
    if log.configs.iter().filter(|(index, _)| pending(*index)).count() > 1 {
        return Violation::because(
            "S11",
            format!("the disk of {id} has several configurations in doubt"),
        );
    }
    for (_, config) in &log.configs {
        check_succession(id, before, config)?;
        before = config;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
