//! Situations about who belongs to the cluster, and about requests whose leader is gone: changes of the membership, transfers, reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_base::{LogId, NodeId};
use quorate_raft::{Body, RoleKind};

use super::Situation;
use crate::node::Node;
use crate::view::{Moment, View};

pub(super) const ALL: &[Situation] = &[
    Situation {
        name: "joint-and-halves-behind",
        about: "A joint configuration is under way; in each of its halves one has it and one does not.",
        arises: |now| joint_and_halves_behind(&now.after),
    },
    Situation {
        name: "joint-beside-another-leader",
        about: "One leads in a joint configuration that is not committed, another in another term without it.",
        arises: |now| joint_beside_another_leader(&now.after),
    },
    Situation {
        name: "two-changes-in-two-logs",
        about: "Two logs end with different changes of the same configuration, neither of them committed.",
        arises: |now| two_changes_in_two_logs(&now.after),
    },
    Situation {
        name: "removed-and-leading",
        about: "A leader is no voter of the configuration that it has in force, which is not committed, and somebody runs against it.",
        arises: |now| {
            let v = &now.after;
            v.leaders().any(|leader| {
                let gone = !leader.raft.config().is_voter(leader.id()) && !leader.raft.config_is_settled();
                gone && v.runs_after(leader.raft.term())
            })
        },
    },
    Situation {
        name: "removed-and-campaigning",
        about: "A node runs for leader that a committed configuration has removed.",
        arises: |now| {
            let v = &now.after;
            let removed = |node: &Node| v.config().removed.contains(&node.id());
            v.in_role(RoleKind::Candidate).any(removed)
        },
    },
    Situation {
        name: "promoted-and-unaware",
        about: "A voter of the configuration in force at the leader takes itself for a learner, and has voted in this term.",
        arises: |now| promoted_and_unaware(&now.after),
    },
    Situation {
        name: "vote-from-outside",
        about: "Somebody was voted for, in the latest term, by a node that is no voter of the committed configuration.",
        arises: |now| vote_from_outside(&now.after),
    },
    Situation {
        name: "change-rolled-back",
        about: "A change of the membership is undone: the leader has another entry in its place.",
        arises: change_rolled_back,
    },
    Situation {
        name: "campaign-on-an-old-configuration",
        about: "One runs for leader with a configuration that is not the latest committed one, and another has voted for it.",
        arises: |now| campaign_on_an_old_configuration(&now.after),
    },
    Situation {
        name: "quorums-of-two-configurations",
        about: "A leader and a candidate of a later term count on different configurations.",
        arises: |now| {
            let v = &now.after;
            v.leaders().any(|leader| {
                let apart = |node: &Node| {
                    node.raft.term() > leader.raft.term() && node.raft.config() != leader.raft.config()
                };
                !leader.raft.config_is_settled() && v.in_role(RoleKind::Candidate).any(apart)
            })
        },
    },
    Situation {
        name: "restarted-in-joint",
        about: "The leader that has begun a joint configuration has restarted, not everyone has it, and a member of the new half alone campaigns.",
        arises: |now| restarted_in_joint(&now.after),
    },
    Situation {
        name: "read-of-a-deposed-leader",
        about: "A read waits at a leader that was deposed, and the next one has committed more.",
        arises: |now| read_of_a_deposed_leader(&now.after),
    },
    Situation {
        name: "read-asked-of-a-deposed-leader",
        about: "A follower's read is on its way to a leader that was deposed, and the next one has committed more.",
        arises: |now| read_asked_of_a_deposed_leader(&now.after),
    },
    Situation {
        name: "read-index-of-a-deposed-leader",
        about: "The answer to a read that waits is on its way; who gave it leads no more.",
        arises: |now| read_index_of_a_deposed_leader(&now.after),
    },
    Situation {
        name: "told-to-campaign-too-late",
        about: "A node is told to campaign by a leader that was deposed, of which it knows nothing.",
        arises: |now| told_to_campaign_too_late(&now.after),
    },
    Situation {
        name: "transfer-and-another-candidate",
        about: "A leader hands over to one, and another one campaigns.",
        arises: |now| {
            let v = &now.after;
            v.leaders().any(|leader| {
                let told = v.messages().any(|(from, to, term, body)| {
                    let mine = from.id() == leader.id() && term == leader.raft.term();
                    mine && *body == Body::TimeoutNow && to.raft.term() == term
                });
                let told_is_another = |node: &Node| {
                    let target = v.messages().any(|(from, to, _, body)| {
                        from.id() == leader.id() && to.id() == node.id() && *body == Body::TimeoutNow
                    });
                    node.raft.term() > leader.raft.term() && !target
                };
                told && v.in_role(RoleKind::Candidate).any(told_is_another)
            })
        },
    },
];

fn joint_and_halves_behind(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let config = leader.raft.config();
    let at = leader.raft.log().id_at(leader.raft.log().config_index());
    let has = |id: &NodeId| at.is_some_and(|at| v.node(*id).image.holds(at));
    let split = |half: &BTreeSet<NodeId>| half.iter().any(has) && !half.iter().all(has);
    config.is_joint() && split(&config.voters) && split(&config.outgoing)
}

fn joint_beside_another_leader(v: &View) -> bool {
    let open = |node: &&Node| node.raft.config().is_joint() && !node.raft.config_is_settled();
    v.leaders().filter(open).any(|joint| {
        v.leaders()
            .any(|other| !other.raft.config().is_joint() && other.id() != joint.id())
    })
}

fn two_changes_in_two_logs(v: &View) -> bool {
    let open = |node: &Node| {
        let log = node.raft.log();
        let id = log.id_at(log.config_index()).filter(|id| id.index.0 > 0)?;
        let committed = v.ghost.at(id.index).is_some_and(|c| c.id == id);
        (!committed && log.base().last.index < id.index).then(|| (id, log.config().clone()))
    };
    let changes: Vec<_> = v.nodes.iter().filter_map(|node| open(node)).collect();
    let apart = |one: &(LogId, _)| {
        changes
            .iter()
            .any(|two| one.0.term != two.0.term && one.1 != two.1)
    };
    changes.iter().any(apart)
}

fn promoted_and_unaware(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let (config, term) = (leader.raft.config(), leader.raft.term());
    v.nodes.iter().any(|node| {
        let unaware = node.raft.config().learners.contains_key(&node.id());
        let voted = node.image.hard.term == term && node.image.hard.vote.is_some();
        config.voters.contains(&node.id()) && unaware && voted
    })
}

fn vote_from_outside(v: &View) -> bool {
    let latest = v.nodes.iter().map(|node| node.image.hard.term).max();
    v.nodes.iter().any(|node| {
        let hard = node.image.hard;
        let voted = hard.vote.is_some_and(|vote| vote != node.id());
        voted && Some(hard.term) == latest && !v.config().is_voter(node.id())
    })
}

fn change_rolled_back(now: &Moment) -> bool {
    let (before, after) = now.node();
    let log = before.raft.log();
    let was = log
        .id_at(log.config_index())
        .filter(|id| id.index > log.base().last.index);
    let same_life = !matches!(now.action.what, crate::action::Stimulus::Restart(_));
    let base = after.raft.log().base().last.index;
    same_life && was.is_some_and(|id| id.index > base && !after.raft.log().contains(id))
}

fn campaign_on_an_old_configuration(v: &View) -> bool {
    let (at, _) = v.ghost.last_config();
    v.in_role(RoleKind::Candidate).any(|candidate| {
        let log = candidate.raft.log();
        let old = log.base().last.index < at.index && !log.contains(at);
        old && super::durable_votes(v, candidate) > 1
    })
}

fn restarted_in_joint(v: &View) -> bool {
    let joint = |node: &&Arc<Node>| {
        node.raft.config().is_joint() && node.raft.commit() < node.raft.log().config_index()
    };
    let Some(config) = v.nodes.iter().find(joint).map(|node| node.raft.config()) else {
        return false;
    };
    let of_new = |node: &Node| config.voters.contains(&node.id()) && !config.outgoing.contains(&node.id());
    v.leaders().next().is_none()
        && v.in_role(RoleKind::Candidate).any(of_new)
        && v.nodes.iter().any(|node| !node.raft.config().is_joint())
}

/// Whether it leads no more, or without knowing that the next leader has committed more.
fn is_outdated(v: &View, node: &Node) -> bool {
    let term = node.raft.term();
    node.raft.role() == RoleKind::Leader && v.ghost.committed.iter().any(|c| c.by > term)
}

fn read_of_a_deposed_leader(v: &View) -> bool {
    v.ghost.open_reads().any(|at| is_outdated(v, v.node(at)))
}

fn read_asked_of_a_deposed_leader(v: &View) -> bool {
    v.messages().any(|(_, to, term, body)| {
        matches!(body, Body::ReadIndex { .. }) && to.raft.term() == term && is_outdated(v, to)
    })
}

fn read_index_of_a_deposed_leader(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        let waits = v.ghost.open_reads().any(|at| at == to.id());
        let late = from.raft.term() > term && v.ghost.committed.iter().any(|c| c.by > term);
        matches!(body, Body::ReadIndexResponse { .. }) && waits && late && to.raft.term() == term
    })
}

fn told_to_campaign_too_late(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        let late = v.newest_leader().is_some_and(|leader| leader.raft.term() > term);
        *body == Body::TimeoutNow && late && to.raft.term() == term && from.raft.term() > term
    })
}
