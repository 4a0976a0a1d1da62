//! A state of the cluster opened up, for those who judge it as a whole: what each node is, what was committed, what is on the network. And a
//! moment: what one action made of one such state. Nothing here decides anything.

use std::sync::Arc;

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Body, Config, RoleKind};

use crate::action::Action;
use crate::cluster::Cluster;
use crate::ghost::Ghost;
use crate::node::Node;
use crate::parcel::Parcel;
use crate::state::State;

/// A state opened up.
#[derive(Clone, Debug)]
pub struct View {
    /// The nodes, in order of id, from 1 on.
    pub nodes: Vec<Arc<Node>>,
    /// The record.
    pub ghost: Arc<Ghost>,
    /// All that may still arrive.
    pub network: Vec<Arc<Parcel>>,
}

/// What an action has led to.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Where it was taken.
    pub before: View,
    /// The action.
    pub action: Action,
    /// Where it led.
    pub after: View,
}

impl Moment {
    /// The node to which it happened, before and after.
    pub fn node(&self) -> (&Node, &Node) {
        (self.before.node(self.action.at), self.after.node(self.action.at))
    }
}

impl Cluster {
    /// A state opened up.
    pub fn view(&self, state: &State) -> View {
        let node = |id| self.node(state, NodeId(id));
        let network = self.network(state).into_iter();
        View {
            nodes: (1..).map_while(node).collect(),
            ghost: self.ghost(state),
            network: network.map(|(_, parcel)| parcel).collect(),
        }
    }
}

impl View {
    /// The node of this id, which is there.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    /// Those in this role.
    pub fn in_role(&self, role: RoleKind) -> impl Iterator<Item = &Node> + Clone {
        let nodes = self.nodes.iter().map(|node| &**node);
        nodes.filter(move |node| node.raft.role() == role)
    }

    /// All who lead, each in its term.
    pub fn leaders(&self) -> impl Iterator<Item = &Node> + Clone {
        self.in_role(RoleKind::Leader)
    }

    /// The leader of the latest term that anyone leads.
    pub fn newest_leader(&self) -> Option<&Node> {
        self.leaders().max_by_key(|node| node.raft.term())
    }

    /// Whether anybody runs for a term after this one.
    pub fn runs_after(&self, term: Term) -> bool {
        let mut candidates = self.in_role(RoleKind::Candidate);
        candidates.any(|node| node.raft.term() > term)
    }

    /// Leaders of terms before that one.
    pub fn outdated_leaders(&self) -> impl Iterator<Item = &Node> + Clone {
        let newest = self.newest_leader().map(|node| node.raft.term());
        self.leaders().filter(move |node| Some(node.raft.term()) < newest)
    }

    /// The entries of a node's log that are not committed.
    pub fn tail(&self, node: &Node) -> Vec<LogId> {
        let log = node.raft.log();
        let entries = (log.first().0..=log.last_index().0).filter_map(|index| log.id_at(Index(index)));
        let is_open = |id: &LogId| self.ghost.at(id.index).map(|c| c.id) != Some(*id);
        entries.filter(is_open).collect()
    }

    /// The last committed entry.
    pub fn last_committed(&self) -> Option<LogId> {
        self.ghost.committed.last().map(|c| c.id)
    }

    /// The configuration of the last committed change.
    pub fn config(&self) -> &Config {
        self.ghost.last_config().1
    }

    /// The messages under way, with their senders and receivers.
    pub fn messages(&self) -> impl Iterator<Item = (&Node, &Node, Term, &Body)> {
        self.network.iter().filter_map(|parcel| {
            let (term, body) = parcel.body()?;
            Some((self.node(parcel.from), self.node(parcel.to), term, body))
        })
    }

    /// Whether this node has voted, on disk, for this candidate in its term.
    pub fn has_voted(node: &Node, candidate: &Node) -> bool {
        let hard = node.image.hard;
        hard.term == candidate.raft.term() && hard.vote == Some(candidate.id())
    }

    /// Whether this node leads this term.
    pub fn leads(node: &Node, term: Term) -> bool {
        node.raft.role() == RoleKind::Leader && node.raft.term() == term
    }

    /// Whether the disks of these nodes alone could decide something in `config`.
    pub fn is_quorum(&self, config: &Config, holds: impl Fn(&Node) -> bool) -> bool {
        crate::members::can_decide(config, |id| {
            self.nodes.get(id.0 as usize - 1).is_some_and(|node| holds(node))
        })
    }
}
