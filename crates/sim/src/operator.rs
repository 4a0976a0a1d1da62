//! Someone who changes the membership again and again, of any node, while everything else goes on: adds learners of both kinds and
//! the machines for them, promotes, removes (the leader too), replaces several members at once, with and without force. What each
//! request is told is held against C: what was done is there, and what was not done is nowhere.

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::{Index, NodeId};
use quorate_node::about::About;
use quorate_node::event::{ChangeFailure, Event, Token};
use quorate_raft::{Change, ChangeRefused, Config, Promote};

use crate::coverage::Kind;
use crate::failure::Failure;
use crate::identity::address;
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::rng::Rng;
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// Tokens of changes begin here, far from those of the clients.
const FIRST_TOKEN: Token = 1 << 40;

/// Members that a cluster is given at the most.
const MOST: usize = 7;

/// A membership change that somebody asked for.
#[derive(Clone, Debug)]
struct Request {
    changes: Vec<Change>,
    force: bool,
}

/// What the operator remembers.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    rng: Rng,
    last_token: Token,
    last_member: u64,
    waiting: BTreeMap<(NodeId, u64, Token), Request>,
    /// Members of changes that were certainly not made.
    never: BTreeSet<NodeId>,
    /// How the last change ended.
    pub(crate) last: Option<Result<Index, ChangeFailure>>,
}

impl Operator {
    pub(crate) fn new(rng: Rng, founders: u64) -> Operator {
        Operator {
            rng,
            last_token: FIRST_TOKEN,
            last_member: founders,
            waiting: BTreeMap::new(),
            never: BTreeSet::new(),
            last: None,
        }
    }

    /// Whether no change is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The changes under way, and whom they were asked of.
    pub(crate) fn requested(&self) -> impl Iterator<Item = (NodeId, &[Change])> {
        self.waiting
            .iter()
            .map(|((id, _, _), request)| (*id, &request.changes[..]))
    }

    /// A member that never was.
    pub(crate) fn new_member(&mut self) -> NodeId {
        self.last_member += 1;
        NodeId(self.last_member)
    }

    /// A new learner that promotes itself.
    pub(crate) fn add_by_itself(&mut self) -> Change {
        self.add(Promote::WhenCaughtUp)
    }

    fn add(&mut self, promote: Promote) -> Change {
        let id = self.new_member();
        Change::AddLearner {
            id,
            promote,
            about: about(id),
        }
    }

    /// What to do next to a cluster of this configuration.
    fn next_changes(&mut self, config: &Config, leader: Option<NodeId>) -> Vec<Change> {
        let voters: Vec<NodeId> = config.voters.iter().copied().collect();
        let learners: Vec<NodeId> = config.learners.keys().copied().collect();
        let room = config.members().len() < MOST;
        let few = voters.len() < 3;
        match self.rng.below(12) {
            0 | 1 if room => vec![self.add(Promote::WhenCaughtUp)],
            2 | 3 if room => vec![self.add(Promote::Never)],
            4 if room && config.members().len() + 1 < MOST => {
                vec![self.add(Promote::Never), self.add(Promote::Never)]
            }
            0..=5 if !learners.is_empty() => vec![Change::Promote(self.rng.pick(&learners))],
            6 if learners.len() > 1 => {
                let promoted = learners.iter().copied().map(Change::Promote);
                let removed = voters
                    .iter()
                    .copied()
                    .take(learners.len() - 1)
                    .map(Change::Remove);
                promoted.chain(removed).collect()
            }
            6 | 7 if !learners.is_empty() => {
                let (learner, voter) = (self.rng.pick(&learners), self.rng.pick(&voters));
                vec![Change::Promote(learner), Change::Remove(voter)]
            }
            8 if !few => leader.into_iter().map(Change::Remove).collect(),
            9 if !few => vec![Change::Remove(self.rng.pick(&voters))],
            10 if !learners.is_empty() => vec![Change::Remove(self.rng.pick(&learners))],
            11 => {
                let id = self.rng.pick(&voters);
                let about = about(id);
                vec![Change::Describe { id, about }, self.add(Promote::WhenCaughtUp)]
            }
            _ => learners.into_iter().map(Change::Promote).take(1).collect(),
        }
    }
}

/// What stands in the configuration about a member.
pub(crate) fn about(id: NodeId) -> Box<[u8]> {
    let about = About {
        name: format!("n{id}"),
        addresses: vec![address(id)],
        ..About::default()
    };
    about.encode()
}

impl World {
    /// The operator's turn.
    pub(crate) fn operate(&mut self) {
        let Some(pause) = self.params.churn else { return };
        if self.healing {
            return;
        }
        let running = self.running();
        let (config, leader) = (self.ghost.commits().config().clone(), self.leader());
        if let Some(broken) = self.broken_member() {
            // What is left of the cluster must not be put at risk before that is done.
            self.replace_broken(broken);
        }
        let pretended = self.masquerade.is_some() && !self.may_change(&[]);
        let risky = pretended || self.hosts.values().any(|host| host.rotten && !host.doomed);
        let operator = &mut self.operator;
        let busy = risky || (!operator.is_idle() && operator.rng.below(4) > 0);
        if !running.is_empty() && !busy && config.members().len() < 2 * MOST {
            let changes = operator.next_changes(&config, leader);
            let (force, at) = (operator.rng.below(8) == 0, operator.rng.pick(&running));
            if !changes.is_empty() && self.may_change(&changes) {
                self.reconfigure(at, changes, force);
            }
        }
        let pause = self.operator.rng.within(pause / 4..pause * 2);
        self.after(pause, Happening::Operator);
    }

    /// Asks `id` for a membership change.
    pub(crate) fn reconfigure(&mut self, id: NodeId, changes: Vec<Change>, force: bool) {
        self.trace.mark(
            Topic::Membership,
            self.now,
            Some(id),
            format_args!("the operator asks for {}", short(&changes, force)),
        );
        self.operator.last_token += 1;
        self.operator.last = None;
        let token = self.operator.last_token;
        let patience = self.operator.rng.within(2 * SEC..20 * SEC);
        let (run, deadline) = (self.hosts[&id].run, self.hosts[&id].local(self.now) + patience);
        let request = Request {
            changes: changes.clone(),
            force,
        };
        self.operator.waiting.insert((id, run, token), request);
        let event = Event::Reconfigure {
            token,
            changes,
            force,
            deadline,
        };
        self.after(0, Happening::Completion { id, run, event });
    }

    /// A change has ended.
    pub(crate) fn reconfigured(
        &mut self,
        id: NodeId,
        token: Token,
        end: Result<Index, ChangeFailure>,
    ) -> Result<(), Failure> {
        let run = self.hosts[&id].run;
        let Some(request) = self.operator.waiting.remove(&(id, run, token)) else {
            let what = format!("n{id} answers the change {token} twice, or one that nobody asked for");
            return Err(Failure::Correctness(what));
        };
        self.trace.mark(
            Topic::Membership,
            self.now,
            Some(id),
            format_args!("the operator is told: {end:?}"),
        );
        self.operator.last = Some(end);
        match end {
            Ok(at) => self.check_done(id, at, &request)?,
            Err(ChangeFailure::Unknown(_)) => self.coverage.hit(Kind::UnknownChange),
            Err(why) => {
                if why == ChangeFailure::Refused(ChangeRefused::WouldLoseQuorum) {
                    self.coverage.hit(Kind::QuorumLossRefused);
                }
                self.operator.never.extend(added(&request.changes));
                return Ok(());
            }
        }
        for member in added(&request.changes) {
            self.enlist(member);
        }
        Ok(())
    }

    /// What was said to be done is committed, and the configuration shows it (S11).
    fn check_done(&mut self, id: NodeId, at: Index, request: &Request) -> Result<(), Failure> {
        let commits = self.ghost.commits();
        let (since, config) = commits.config_at(at);
        let shown = |change: &Change| match change {
            Change::AddLearner { id, .. } => config.is_member(*id),
            Change::Promote(id) => config.voters.contains(id),
            Change::Remove(id) => config.removed.contains(id) && !config.is_member(*id),
            Change::Describe { id, about } => config.about.get(id) == Some(about),
            Change::RaiseLevel(level) => config.level >= *level,
        };
        if since != at || at > commits.last() || config.is_joint() || !request.changes.iter().all(shown) {
            let what = format!("S11: n{id} says {request:?} is done at {at}, where C has {config:?}");
            return Err(Failure::Correctness(what));
        }
        let kinds = request.changes.iter().map(|change| match change {
            Change::AddLearner { .. } => Kind::AddLearner,
            Change::Promote(_) => Kind::Promote,
            Change::Remove(_) => Kind::Remove,
            Change::Describe { .. } => Kind::Describe,
            Change::RaiseLevel(_) => Kind::LevelRaised,
        });
        kinds.for_each(|kind| self.coverage.hit(kind));
        if request.changes.len() > 2 {
            self.coverage.hit(Kind::ReplaceSeveral);
        }
        if request.force {
            self.coverage.hit(Kind::ForcedChange);
        }
        Ok(())
    }

    /// A process has ended: nobody knows what becomes of the changes that it was asked for.
    pub(crate) fn operator_lost(&mut self, id: NodeId) {
        let run = self.hosts[&id].run;
        let lost: Vec<_> = self
            .operator
            .waiting
            .keys()
            .filter(|(node, of, _)| *node == id && *of == run)
            .copied()
            .collect();
        for key in lost {
            if let Some(request) = self.operator.waiting.remove(&key) {
                for member in added(&request.changes) {
                    self.after(10 * MS, Happening::Enlist(member));
                }
            }
        }
    }

    /// The committed configuration has changed.
    pub(crate) fn note_membership(&mut self) -> Result<(), Failure> {
        let commits = self.ghost.commits();
        let (at, config) = commits.config_at(commits.last());
        if at == self.config_seen.0 {
            return Ok(());
        }
        let (config, former) = (config.clone(), std::mem::take(&mut self.config_seen.1));
        self.trace.mark(
            Topic::Membership,
            self.now,
            None,
            format_args!("C[{at}] is a configuration: {}", show(&config)),
        );
        if config.is_joint() {
            self.coverage.hit(Kind::Joint);
        }
        let promoted = |id: &NodeId| former.learners.get(id) == Some(&Promote::WhenCaughtUp);
        if config.voters.iter().any(promoted) {
            self.coverage.hit(Kind::AutoPromote);
        }
        if config.level > former.level {
            self.coverage.hit(Kind::LevelRaised);
        }
        if self
            .last_leader
            .is_some_and(|id| config.removed.contains(&id) && !former.removed.contains(&id))
        {
            self.coverage.hit(Kind::RemoveLeader);
        }
        let lacks = |id: &NodeId| {
            self.hosts
                .get(id)
                .is_some_and(|host| host.features < config.level)
        };
        if let Some(id) = config.members().into_iter().find(lacks) {
            let what = format!("S11: the feature level is {} and n{id} knows less", config.level);
            return Err(Failure::Correctness(what));
        }
        self.config_seen = (at, config);
        self.doom_removed();
        Ok(())
    }

    /// Changes that were said not to be made were not made.
    pub(crate) fn check_never(&self) -> Result<(), Failure> {
        for config in self.ghost.commits().configs() {
            if let Some(id) = self.operator.never.iter().find(|id| config.is_member(**id)) {
                let what = format!("S11: adding n{id} was said not to be done, and was done: {config:?}");
                return Err(Failure::Correctness(what));
            }
        }
        Ok(())
    }

    /// When the operator has its first turn.
    pub(crate) fn first_turn(&mut self) -> Option<Nanos> {
        let pause = self.params.churn?;
        Some(self.operator.rng.within(SEC..2 * SEC + pause))
    }
}

fn added(changes: &[Change]) -> Vec<NodeId> {
    let added = |change: &Change| match change {
        Change::AddLearner { id, .. } => Some(*id),
        _ => None,
    };
    changes.iter().filter_map(added).collect()
}

fn short(changes: &[Change], force: bool) -> String {
    let words: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::AddLearner { id, promote, .. } => format!("add n{id} ({promote:?})"),
            Change::Promote(id) => format!("promote n{id}"),
            Change::Remove(id) => format!("remove n{id}"),
            Change::Describe { id, .. } => format!("describe n{id}"),
            Change::RaiseLevel(level) => format!("level {level}"),
        })
        .collect();
    format!("{}{}", words.join(", "), if force { ", by force" } else { "" })
}

/// A configuration in a few words.
pub(crate) fn show(config: &Config) -> String {
    let ids = |ids: &BTreeSet<NodeId>| {
        ids.iter()
            .map(|id| format!("n{id}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let learners = config.learners.keys().copied().collect();
    format!(
        "voters {}; outgoing {}; learners {}; removed {}; level {}",
        ids(&config.voters),
        ids(&config.outgoing),
        ids(&learners),
        ids(&config.removed),
        config.level
    )
}
