//! Situations about disks, machines and snapshots: what was lost with a crash, what overtakes what on its way to the disk.

use quorate_base::{LogId, Term};
use quorate_raft::{Body, RoleKind};

use super::Situation;
use crate::action::Stimulus;
use crate::node::Node;
use crate::parcel::What;
use crate::view::{Moment, View};

pub(super) const ALL: &[Situation] = &[
    Situation {
        name: "entries-lost-from-memory",
        about: "A voter restarts with a shorter log than it had in memory, and another has those entries on disk, not committed.",
        arises: entries_lost_from_memory,
    },
    Situation {
        name: "vote-lost-from-memory",
        about: "A voter restarts and does not know any more whom it wanted to vote for; the candidate still asks, and so does another.",
        arises: vote_lost_from_memory,
    },
    Situation {
        name: "verified-and-lost",
        about: "An answer tells a leader how far a log equals its own, and the crash of its sender has lost some of that.",
        arises: |now| verified_and_lost(&now.after),
    },
    Situation {
        name: "truncation-overtakes-a-write",
        about: "The disk has not written yet what an earlier leader sent, and the order to remove it waits behind.",
        arises: |now| now.after.nodes.iter().any(|node| truncates_what_waits(node)),
    },
    Situation {
        name: "committed-without-its-leaders-disk",
        about: "An entry is committed that its leader's own disk does not have yet.",
        arises: |now| {
            let last = now.after.last_committed();
            let leader = now.after.newest_leader();
            leader.zip(last).is_some_and(|(leader, last)| {
                leader.raft.commit() == last.index && !leader.image.holds(last) && last.index.0 > 1
            })
        },
    },
    Situation {
        name: "leads-before-its-disk-knows-its-entries",
        about: "A leader has two writes on their way, and another campaigns for the next term.",
        arises: |now| {
            let v = &now.after;
            let Some(leader) = v.newest_leader() else {
                return false;
            };
            leader.writes.len() > 1 && v.runs_after(leader.raft.term())
        },
    },
    Situation {
        name: "two-inputs-make-a-leader",
        about: "One leads whose effects were not taken yet, while the leader before still has something to commit.",
        arises: |now| {
            let v = &now.after;
            let fresh = v.newest_leader().is_some_and(|node| node.raft.has_effects());
            fresh && v.outdated_leaders().any(|node| !v.tail(node).is_empty())
        },
    },
    Situation {
        name: "two-inputs-truncate",
        about: "A follower has removed entries of its log, and the effects of that were not taken yet.",
        arises: |now| {
            let (before, after) = now.node();
            after.raft.has_effects() && before.raft.last() > after.raft.last()
                || after.raft.has_effects() && !after.raft.log().contains(before.raft.last())
        },
    },
    Situation {
        name: "deposed-while-it-reads-its-log",
        about: "A leader was deposed, and an Append of it still waits for its log to be read.",
        arises: |now| {
            let v = &now.after;
            let waits = |node: &Node| !node.cold.is_empty() && node.raft.role() != RoleKind::Leader;
            v.nodes.iter().any(|node| waits(node)) && v.newest_leader().is_some()
        },
    },
    Situation {
        name: "snapshot-into-a-conflict",
        about: "A snapshot is on its way to a node that has other, uncommitted entries where it ends.",
        arises: |now| snapshot_into_a_conflict(&now.after),
    },
    Situation {
        name: "snapshot-of-a-deposed-leader",
        about: "A snapshot that was sent in an earlier term is on its way to a node that needs one.",
        arises: |now| snapshot_of_a_deposed_leader(&now.after),
    },
    Situation {
        name: "two-snapshots-to-one",
        about: "Two different snapshots are on their way to one node, which has neither.",
        arises: |now| two_snapshots_to_one(&now.after),
    },
    Situation {
        name: "installs-while-terms-change",
        about: "A node has not installed a snapshot wholly, and another campaigns for the next term.",
        arises: |now| installs_while_terms_change(&now.after),
    },
    Situation {
        name: "restarts-half-installed",
        about: "A node restarts after its log has taken a snapshot and before its machine has; whoever sent it leads no more.",
        arises: restarts_half_installed,
    },
    Situation {
        name: "compacted-more-than-the-leader",
        about: "A follower has compacted more than its leader, and another lacks what it has compacted.",
        arises: |now| compacted_more_than_the_leader(&now.after),
    },
    Situation {
        name: "leader-needs-its-own-snapshot",
        about: "One that was just elected has compacted up to what another has not, whose log ends with entries nobody committed.",
        arises: |now| leader_that_compacted(&now.after),
    },
];

fn entries_lost_from_memory(now: &Moment) -> bool {
    let (before, after) = now.node();
    let Stimulus::Restart(_) = now.action.what else {
        return false;
    };
    let lost = |id| {
        let elsewhere = |node: &Node| node.id() != after.id() && node.image.holds(id);
        !after.raft.log().contains(id) && now.after.nodes.iter().any(|node| elsewhere(node))
    };
    let voter = after.raft.config().is_voter(after.id());
    voter && now.before.tail(before).into_iter().any(lost)
}

fn vote_lost_from_memory(now: &Moment) -> bool {
    let (before, after) = now.node();
    let Stimulus::Restart(_) = now.action.what else {
        return false;
    };
    let Some(vote) = before.raft.vote() else {
        return false;
    };
    let lost = after.image.hard.term < before.raft.term() || after.image.hard.vote.is_none();
    let asks = |node: &Node| {
        let role = node.raft.role();
        role == RoleKind::Candidate && node.raft.term() >= before.raft.term()
    };
    let candidate = now.after.node(vote);
    let rival = |node: &Node| node.id() != vote && node.id() != after.id() && asks(node);
    lost && vote != after.id() && asks(candidate) && now.after.nodes.iter().any(|node| rival(node))
}

fn verified_and_lost(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        let Body::HeartbeatResponse { verified, .. } = body else {
            return false;
        };
        View::leads(to, term) && *verified > from.raft.last().index
    })
}

fn truncates_what_waits(node: &Node) -> bool {
    let durable = node.image.last_index();
    let removes = |write: &quorate_raft::Write| write.truncate_after.is_some_and(|index| index >= durable);
    let waits = node.writes.iter().any(|filled| !filled.entries.is_empty());
    waits && node.writes.iter().skip(1).any(|filled| removes(&filled.write))
}

/// The snapshots on their way: to whom, of which term, and what they cover.
fn snapshots(v: &View) -> impl Iterator<Item = (&Node, Term, LogId)> {
    v.network.iter().filter_map(|parcel| match &parcel.what {
        What::Snapshot { term, meta, .. } => Some((v.node(parcel.to), *term, meta.last)),
        _ => None,
    })
}

fn snapshot_into_a_conflict(v: &View) -> bool {
    snapshots(v).any(|(to, term, last)| {
        let other = to.raft.log().id_at(last.index).is_some_and(|id| id != last);
        other && to.raft.term() <= term
    })
}

fn snapshot_of_a_deposed_leader(v: &View) -> bool {
    snapshots(v).any(|(to, term, last)| {
        to.raft.term() > term && to.raft.commit() < last.index && v.newest_leader().is_some()
    })
}

fn two_snapshots_to_one(v: &View) -> bool {
    let lacks = |one: &(&Node, _, LogId)| one.0.raft.last().index < one.2.index;
    snapshots(v).filter(lacks).any(|one| {
        let other = |two: &(&Node, Term, _)| two.0.id() == one.0.id() && two.2 > one.2 && two.1 > one.1;
        snapshots(v).filter(lacks).any(|two| other(&two))
    })
}

fn installs_while_terms_change(v: &View) -> bool {
    let installing = v.nodes.iter().find(|node| node.is_installing());
    installing.is_some_and(|node| v.runs_after(node.raft.term()))
}

fn restarts_half_installed(now: &Moment) -> bool {
    let (before, _) = now.node();
    let half = before.image.base.last.index > before.image.machine.applied;
    let Some(leader) = before.raft.leader() else {
        return false;
    };
    let gone = now.after.node(leader).raft.role() != RoleKind::Leader;
    matches!(now.action.what, Stimulus::Restart(_)) && half && gone
}

fn compacted_more_than_the_leader(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let base = |node: &Node| node.raft.log().base().last.index;
    v.nodes.iter().any(|ahead| {
        let lacks = |node: &Node| node.raft.last().index < base(ahead) && !v.tail(node).is_empty();
        base(ahead) > base(leader) && v.nodes.iter().any(|node| lacks(node))
    })
}

fn leader_that_compacted(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let base = leader.raft.log().base().last;
    let open = leader.raft.commit() < leader.raft.last().index;
    let behind = |node: &Node| {
        let conflicts = v.tail(node).iter().any(|id| id.index <= base.index);
        conflicts && node.raft.config().is_voter(node.id())
    };
    base.term < leader.raft.term() && open && v.nodes.iter().any(|node| behind(node))
}
