//! Changing the membership (§4), the leader's side: learners that catch up first (§4.2.1), joint consensus (§4.3), stepping down when
//! not part of the result (§4.2.2).
//!
//! | step | when |
//! | --- | --- |
//! | judge the change | one of the own term is committed, no other change is under way (§4.1) |
//! | append C_old,new, in force at once | the voters change; otherwise the new configuration itself |
//! | append C_new | C_old,new is committed, by both majorities |
//! | answer; step down if no voter | C_new is committed |
//!
//! A later leader that finds C_old,new in its log finishes the change once its own no-op is committed.

use std::collections::BTreeMap;

use quorate_base::{Index, NodeId};
use quorate_marks::reached;

use crate::config::{Change, Config, Promote};
use crate::core::Core;
use crate::effects::{ChangeEnd, ChangeRefused, Placed};
use crate::progress::{Pace, Progress};
use crate::quorum;
use crate::role::Leader;

/// Quorum checks for which a member that left is still told what happened, so that it can learn of its removal.
const FAREWELL: u8 = 2;

/// What a leader knows of membership changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changing {
    /// Who waits for the change under way.
    token: Option<u64>,
    /// The end of the log at the last quorum check but one, and at the last one. Whoever has the former lags by less than two
    /// election timeouts.
    marks: (Index, Index),
    /// Members that have left, with the number of quorum checks since.
    leaving: BTreeMap<NodeId, u8>,
}

impl Changing {
    /// Nothing under way; `noop` is the leader's first entry.
    pub fn new(noop: Index) -> Changing {
        Changing {
            token: None,
            marks: (noop, noop),
            leaving: BTreeMap::new(),
        }
    }

    /// Leadership ends: whether the change will be finished is for the next leader to say.
    pub fn abandon(&mut self, core: &mut Core) {
        if let Some(token) = self.token.take() {
            reached!("raft.change.unknown_end");
            core.out.changed.push((token, ChangeEnd::Unknown));
        }
    }

    /// Whether this former member is still told what happened.
    pub fn is_leaving(&self, id: NodeId) -> bool {
        self.leaving.contains_key(&id)
    }
}

impl Leader {
    /// Somebody asks for a change.
    pub fn on_reconfigure(&mut self, core: &mut Core, token: u64, changes: &[Change], force: bool) {
        // The one before may have been committed since the last drain: it is over, and whoever waits for it is told.
        self.flush_membership(core);
        match self.judge(core, changes, force) {
            Ok(to) => {
                assert!(
                    self.change.token.is_none(),
                    "one who asked for a change is answered before the next one begins"
                );
                self.change.token = Some(token);
                let next = core.log.config().towards(&to);
                self.append_config(core, next);
            }
            Err(why) => {
                reached!("raft.change.bad", matches!(why, ChangeRefused::Bad(_)));
                core.out.changed.push((token, ChangeEnd::Refused(why)));
            }
        }
    }

    /// The configuration that the changes lead to, if they may begin now.
    fn judge(&self, core: &Core, changes: &[Change], force: bool) -> Result<Config, ChangeRefused> {
        // One that must go leaves the next change to its successor, else it might never go.
        if self.handover.is_under_way() || self.must_go(core) {
            reached!("raft.change.transferring", self.handover.is_under_way());
            reached!("raft.change.leader_must_go", self.must_go(core));
            return Err(ChangeRefused::Transferring);
        }
        let config = core.log.config();
        // Two changes at once, or one before the own-term commit, could have disjoint majorities (§4.1, and Ongaro's correction of 2015).
        if config.is_joint() || core.log.config_index() > core.commit || core.own_term_commit().is_none() {
            reached!("raft.change.while_joint", config.is_joint());
            reached!(
                "raft.change.while_uncommitted",
                core.log.config_index() > core.commit
            );
            reached!(
                "raft.change.before_own_term_commit",
                core.own_term_commit().is_none()
            );
            return Err(ChangeRefused::Pending);
        }
        let to = config.after(changes).map_err(ChangeRefused::Bad)?;
        reached!("raft.change.forced", force && to.voters != config.voters);
        if force || to.voters == config.voters {
            return Ok(to);
        }
        let mut promoted = to.voters.difference(&config.voters);
        if let Some(id) = promoted.find(|id| !self.has_caught_up(**id)) {
            reached!("raft.change.not_caught_up");
            return Err(ChangeRefused::NotCaughtUp(*id));
        }
        let alive = |id| id == core.id || self.peers.get(&id).is_some_and(Progress::is_alive);
        if !quorum::has_quorum(&to, alive) {
            reached!("raft.change.would_lose_quorum");
            return Err(ChangeRefused::WouldLoseQuorum);
        }
        Ok(to)
    }

    /// Whether a peer lags by less than two election timeouts: its last round of catching up took no longer than an election may
    /// (§4.2.1).
    pub fn has_caught_up(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| {
            peer.is_alive()
                && matches!(peer.pace, Pace::Replicate { .. })
                && peer.matched >= self.change.marks.0
        })
    }

    /// A configuration is in force from the moment it is in the log (§4.1).
    fn append_config(&mut self, core: &mut Core, config: Config) {
        let at = core.append(core.term, config.size(), Some(config.clone()));
        for id in config.members() {
            self.change.leaving.remove(&id);
            if id != core.id {
                self.peers.entry(id).or_insert_with(|| Progress::new(at.index));
            }
        }
        for id in self.peers.keys().filter(|id| !config.is_member(**id)) {
            self.change.leaving.entry(*id).or_insert(0);
        }
        let config = Box::new(config);
        core.out.placed.push(Placed::Config { at, config });
    }

    /// Takes the next step of a change, if one is due.
    pub fn flush_membership(&mut self, core: &mut Core) {
        let committed = core.log.config_index() <= core.commit && core.own_term_commit().is_some();
        if !committed {
            return;
        }
        if core.log.config().is_joint() {
            reached!("raft.joint.left");
            let new = core.log.config().without_old();
            return self.append_config(core, new);
        }
        if let Some(token) = self.change.token.take() {
            let end = ChangeEnd::Done(core.log.config_index());
            core.out.changed.push((token, end));
        }
        self.promote_learners(core);
    }

    /// Learners that are to become voters by themselves do so once they have caught up (§4.2.1).
    fn promote_learners(&mut self, core: &mut Core) {
        let learners = &core.log.config().learners;
        let ready = |(id, promote): &(&NodeId, &Promote)| {
            **promote == Promote::WhenCaughtUp && self.has_caught_up(**id)
        };
        let changes: Vec<Change> = learners
            .iter()
            .filter(ready)
            .map(|(id, _)| Change::Promote(*id))
            .collect();
        if !changes.is_empty()
            && let Ok(to) = self.judge(core, &changes, false)
        {
            reached!("raft.learner.promoted");
            let next = core.log.config().towards(&to);
            self.append_config(core, next);
        }
    }

    /// At a quorum check: time passes for catching up and for farewells.
    pub fn tick_membership(&mut self, core: &Core) {
        self.change.marks = (self.change.marks.1, core.log.last_index());
        if core.log.config_index() > core.commit {
            reached!("raft.leaving.not_committed");
            return; // There is no removal to learn of yet.
        }
        self.change.leaving.retain(|id, checks| {
            *checks += 1;
            if *checks > FAREWELL {
                reached!("raft.leaving.forgotten");
                self.peers.remove(id);
            }
            *checks <= FAREWELL
        });
    }

    /// Whether this leader is no voter of a committed configuration and so must not lead any longer (§4.2.2). Until then it
    /// leads without counting itself.
    pub fn must_go(&self, core: &Core) -> bool {
        let config = core.log.config();
        core.log.config_index() <= core.commit && !config.is_voter(core.id)
    }

    /// At most one configuration is not committed (S11). What is inherited from earlier terms may be more, as far as this leader
    /// knows before its own-term commit.
    pub fn check_membership(&self, core: &Core) {
        assert!(
            core.own_term_commit().is_none() || core.log.configs_after(core.commit) <= 1,
            "one change at a time (S11)"
        );
    }
}
