//! What follows from the membership outside of the node: whom to keep connections to and where, what the status shows, and the end of a node that was
//! removed. Who the members are is decided in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_base::{Index, NodeId, StateMachine};
use quorate_node::MEMBERSHIP_LEVEL;
use quorate_node::event::{Event, Nanos};
use quorate_raft::{Change, Config, Raft};
use tokio::sync::oneshot;

use super::Driver;
use crate::membership::{Member, Membership};

/// What the driver knows of the members beside the node.
pub(crate) struct Roll {
    /// Where members are reached as far as the log does not say: of a cluster that was founded before descriptions existed, and
    /// all that one knows who has only just joined.
    hearsay: BTreeMap<NodeId, Vec<String>>,
    /// How members were described to this node when it was started; the leader puts it into the log where that has nothing.
    described: BTreeMap<NodeId, Member>,
    pub(crate) membership: Arc<Membership>,
    /// What the connections were told last: whether the configuration in force was committed, how many the leader replicated to, and who led.
    /// `None`: it is another configuration since.
    told: Option<(bool, usize, Option<NodeId>)>,
    /// When the leader may next describe members.
    describe_at: Nanos,
    /// Removed: it may end its leadership in order, but not for longer than this.
    pub(crate) leaving_by: Option<Nanos>,
    /// It led when it was removed.
    led: bool,
}

impl Roll {
    pub(crate) fn new(
        hearsay: BTreeMap<NodeId, Vec<String>>,
        described: BTreeMap<NodeId, Member>,
        config: &Config,
    ) -> Roll {
        Roll {
            hearsay,
            described,
            membership: Arc::new(Membership::of(config)),
            told: None,
            describe_at: 0,
            leaving_by: None,
            led: false,
        }
    }

    /// Another configuration is in force.
    pub(crate) fn replace(&mut self, config: &Config) {
        self.membership = Arc::new(Membership::of(config));
        self.told = None;
        for (id, member) in &self.membership.members {
            // Kept after its removal, while the leader still tells it of that.
            if !member.addresses.is_empty() {
                self.hearsay.insert(*id, member.addresses.clone());
            }
        }
    }

    /// Whom to talk to, and where.
    fn reached(&self, raft: &Raft) -> BTreeMap<NodeId, Vec<String>> {
        let config = raft.config();
        if config.voters.is_empty() {
            return self.hearsay.clone();
        }
        // Besides the members, the leader has peers that have left and do not know it yet. And whoever is about to leave is needed until the
        // configuration without it is committed; if it is the leader itself, until another leads.
        let peers = raft.peers().map(|(id, _)| id);
        let committed = raft.log().config_at(raft.commit()).members();
        let everyone = config.members().into_iter().chain(committed);
        let everyone = everyone.chain(peers).chain(raft.leader());
        everyone
            .map(|id| (id, self.hearsay.get(&id).cloned().unwrap_or_default()))
            .collect()
    }

    /// The members that the log does not describe and that this node can.
    fn undescribed(&self, config: &Config) -> Vec<Change> {
        let missing = |id: &NodeId| !config.about.contains_key(id);
        let describe = |id| {
            let about = self.described.get(&id)?.encode();
            Some(Change::Describe { id, about })
        };
        let members = config.members().into_iter();
        members.filter(missing).filter_map(describe).collect()
    }
}

impl<S: StateMachine> Driver<S> {
    /// Tells the connections who the members are, if that has changed.
    pub(super) fn follow_membership(&mut self) {
        let raft = self.node.raft();
        let committed = raft.log().config_index() <= raft.commit();
        let now = Some((committed, raft.peers().count(), raft.leader()));
        if self.roll.told != now {
            self.roll.told = now;
            let removed = raft.log().config_at(raft.commit()).removed.clone();
            let members = self.roll.reached(raft);
            self.links.set_members(members, raft.config().clone(), removed);
        }
    }

    /// A cluster that was founded before descriptions existed gets them when all its members know what they are.
    pub(super) fn describe_members(&mut self, now: Nanos) {
        let raft = self.node.raft();
        let config = raft.config();
        let due = now >= self.roll.describe_at && config.level >= MEMBERSHIP_LEVEL;
        if !due || !self.node_leads() || !raft.config_is_settled() {
            return;
        }
        let changes = self.roll.undescribed(config);
        if changes.is_empty() {
            return;
        }
        self.roll.describe_at = now + 2 * self.election;
        tracing::info!("describing the members in the log");
        // Nobody waits for the answer: if it is not done now, it is later.
        let token = self.replies.change(oneshot::channel().0);
        let (force, deadline) = (false, now + self.election);
        self.node.step(
            now,
            Event::Reconfigure {
                token,
                changes,
                force,
                deadline,
            },
        );
    }

    /// The leader knows for sure what its followers have: they are not let in with less later on.
    pub(super) fn note_peers(&self) {
        let raft = self.node.raft();
        for (id, peer) in raft.peers() {
            // Zero: nothing was heard in this term.
            if peer.matched > Index::ZERO {
                self.links.note(id, raft.term(), peer.matched.min(raft.commit()));
            }
        }
    }

    /// Notes that this node was removed.
    pub(super) fn removed(&mut self, now: Nanos) {
        tracing::warn!("this member has been removed from the cluster");
        self.telling.stopping = true;
        self.roll.leaving_by = Some(now + self.election);
        self.roll.led = self.node_leads();
    }

    /// Whether this node was removed and has nothing more to do.
    pub(super) fn has_left(&self, now: Nanos) -> bool {
        // A leader first hands over to somebody who stays.
        self.roll
            .leaving_by
            .is_some_and(|by| now >= by || !self.node_leads())
    }

    /// Sends what is queued, and after having led waits until the others have hung up, for an election timeout at the most: whoever waits for
    /// an answer from here would take the end of the connection for its loss.
    pub(super) async fn take_leave(&mut self) {
        self.links.farewell().await;
        if self.roll.led {
            let patience = Duration::from_nanos(self.election);
            let _ = tokio::time::timeout(patience, self.network.deserted()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Config {
        Config::of([NodeId(1), NodeId(2), NodeId(3)])
    }

    #[test]
    fn what_the_log_says_of_a_member_counts_and_is_remembered_when_it_has_left() {
        let hearsay = BTreeMap::from([(NodeId(2), vec!["old:2".to_owned()])]);
        let mut roll = Roll::new(hearsay, BTreeMap::new(), &three());
        let mut config = three();
        config
            .about
            .insert(NodeId(2), Member::new("two", "new:2").encode());
        roll.replace(&config);
        assert_eq!(roll.hearsay[&NodeId(2)], ["new:2"]);
        roll.replace(&Config::of([NodeId(1), NodeId(3)]));
        assert_eq!(roll.hearsay[&NodeId(2)], ["new:2"]);
    }

    #[test]
    fn only_members_that_the_log_does_not_describe_are_described() {
        let member = |n: u64| (NodeId(n), Member::new("", format!("host:{n}")));
        let roll = Roll::new(
            BTreeMap::new(),
            BTreeMap::from([member(1), member(2), member(9)]),
            &three(),
        );
        let mut config = three();
        config
            .about
            .insert(NodeId(1), Member::new("one", "host:1").encode());
        let (id, about) = (NodeId(2), member(2).1.encode());
        assert_eq!(roll.undescribed(&config), [Change::Describe { id, about }]);
    }
}
