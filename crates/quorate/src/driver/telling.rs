//! What the driver tells the world: the status, the gauges, and one log line for each change of leader or role.

use std::collections::BTreeMap;

use quorate_base::{NodeId, StateMachine, Term};
use quorate_node::event::Event;
use quorate_raft::RoleKind;

use super::Driver;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::status::{PeerStatus, Role, Space, Status};

/// What the driver knows beside the node.
pub(crate) struct Telling {
    id: NodeId,
    cluster: u64,
    /// Whoever a connection is, or was, up to.
    connected: BTreeMap<NodeId, bool>,
    pub(crate) space: Space,
    pub(crate) stopping: bool,
}

impl Telling {
    pub(crate) fn new(config: &Config) -> Telling {
        Telling {
            id: config.id,
            cluster: config.cluster,
            connected: BTreeMap::new(),
            space: Space::Ok,
            stopping: false,
        }
    }

    /// Notes which links went up or down.
    pub(crate) fn links(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::LinkUp(peer) => drop(self.connected.insert(*peer, true)),
                Event::LinkDown(peer) => drop(self.connected.insert(*peer, false)),
                _ => {}
            }
        }
    }

    fn is_connected(&self, id: NodeId) -> bool {
        self.connected.get(&id).copied().unwrap_or(false)
    }

    pub(crate) fn space(&mut self, space: Space) {
        match space {
            Space::Ok => tracing::info!("there is room for the log again"),
            Space::Low => tracing::error!("the disk is full: the log goes on in its reserve"),
            Space::Out => {
                tracing::error!(
                    "the disk is full and the log's reserve nearly used up: proposals are refused"
                )
            }
        }
        self.space = space;
    }

    pub(crate) fn dropped(&self, metrics: &Metrics, to: NodeId) {
        metrics.peer(to).dropped.add(1);
    }
}

impl<S: StateMachine> Driver<S> {
    pub(super) fn node_leads(&self) -> bool {
        self.leading_term().is_some()
    }

    /// Whether there is a connection to somebody who could take over the leadership.
    pub(super) fn heir_is_connected(&self) -> bool {
        let mut voters = self.roll.membership.voters.iter();
        voters.any(|id| self.is_heir(*id))
    }

    /// Whether this is such a one.
    pub(super) fn is_heir(&self, id: NodeId) -> bool {
        id != self.telling.id && self.roll.membership.voters.contains(&id) && self.telling.is_connected(id)
    }

    /// The term in which this node leads, if it does.
    pub(super) fn leading_term(&self) -> Option<Term> {
        let raft = self.node.raft();
        (raft.role() == RoleKind::Leader).then(|| raft.term())
    }

    fn status(&self) -> Status {
        let raft = self.node.raft();
        let others = self.roll.membership.members.keys().copied();
        let unmatched = |id| PeerStatus {
            connected: self.telling.is_connected(id),
            matched: None,
        };
        let mut peers: BTreeMap<NodeId, PeerStatus> = others
            .filter(|id| *id != self.telling.id)
            .map(|id| (id, unmatched(id)))
            .collect();
        for (id, progress) in raft.peers() {
            if let Some(peer) = peers.get_mut(&id) {
                peer.matched = Some(progress.matched);
            }
        }
        Status {
            id: self.telling.id,
            cluster: self.telling.cluster,
            term: raft.term(),
            leader: raft.leader(),
            role: role(raft.role()),
            commit: raft.commit(),
            applied: self.host.applied(),
            durable: self.host.durable(),
            last_log: raft.last(),
            space: self.telling.space,
            restoring: self.host.is_restoring(),
            stopping: self.telling.stopping,
            membership: self.roll.membership.clone(),
            peers,
        }
    }

    /// Publishes what has changed.
    pub(super) fn tell(&mut self) {
        let metrics = &self.shared.metrics;
        metrics.proposals_pending.set(self.replies.waiting() as u64);
        let now = self.status();
        self.shared.status.send_if_modified(|before| {
            if *before == now {
                return false;
            }
            if before.leader != now.leader {
                metrics.leader_changes.add(1);
            }
            log_changes(before, &now);
            let audible = before.differs_audibly(&now);
            *before = now;
            audible
        });
    }
}

fn log_changes(before: &Status, now: &Status) {
    if (before.term, before.leader, before.role) == (now.term, now.leader, now.role) {
        return;
    }
    let term = now.term.0;
    match (now.role, now.leader) {
        (Role::Leader, _) => tracing::info!(term, last_log = %now.last_log, "elected: this node leads"),
        (_, Some(leader)) if before.leader != now.leader => {
            tracing::info!(term, leader = %format_args!("{:016x}", leader.0), "following a leader");
        }
        (Role::Candidate, _) => tracing::info!(term, last_log = %now.last_log, "campaigning"),
        (_, None) if before.leader.is_some() => tracing::warn!(term, "no leader"),
        _ => {}
    }
}

fn role(role: RoleKind) -> Role {
    match role {
        RoleKind::Follower => Role::Follower,
        RoleKind::PreCandidate => Role::PreCandidate,
        RoleKind::Candidate => Role::Candidate,
        RoleKind::Leader => Role::Leader,
    }
}
