//! Situations of a whole cluster that are hard to come by and that we are afraid of, each with a name and a way to tell that it has arisen.
//! Random walks ([`walk`](crate::walk)) look for them; each that was found is a start in the folder `corpus/walks`, under the
//! situation's name. Those about elections and logs stand here; the others in `stores` and `changes`.

mod changes;
mod stores;

use std::collections::BTreeSet;

use quorate_base::{Index, LogId, Term};
use quorate_raft::{Body, RoleKind};

use crate::node::Node;
use crate::view::{Moment, View};

/// Something to look for.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The story's name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Whether it has arisen just now.
    pub arises: fn(&Moment) -> bool,
}

/// All of them.
pub fn all() -> Vec<Situation> {
    [LOGS, stores::ALL, changes::ALL].concat()
}

/// By name.
pub fn by_name(name: &str) -> Option<Situation> {
    all().into_iter().find(|situation| situation.name == name)
}

const LOGS: &[Situation] = &[
    Situation {
        name: "leaders-apart",
        about: "Two lead, in different terms, and each has entries that the other lacks and nobody has committed.",
        arises: |now| leaders_apart(&now.after),
    },
    Situation {
        name: "three-claims",
        about: "Three nodes have entries of three terms at the same place, none of them committed (Figure 7).",
        arises: |now| three_claims(&now.after),
    },
    Situation {
        name: "elected-and-unaware",
        about: "A quorum has voted for a candidate, on disk, which does not know it yet; the leader before has something to commit.",
        arises: |now| elected_and_unaware(&now.after),
    },
    Situation {
        name: "two-candidates-and-a-leader",
        about: "Two campaign in one term, while a leader of an earlier one still tries to commit something.",
        arises: |now| two_candidates_and_a_leader(&now.after),
    },
    Situation {
        name: "leader-behind-c",
        about: "A leader does not know that what an earlier term has left to it is committed, and has more to commit itself.",
        arises: |now| {
            let v = &now.after;
            let behind = |node: &Node| node.raft.commit() < v.ghost.len() && v.tail(node).len() > 1;
            v.newest_leader().is_some_and(behind)
        },
    },
    Situation {
        name: "deposed-with-a-longer-log",
        about: "A leader that was deposed has two entries where others are committed, and a longer log than the new leader.",
        arises: |now| deposed_with_a_longer_log(&now.after),
    },
    Situation {
        name: "old-entry-on-a-majority",
        about: "An entry of an earlier term is on the disks of a majority and not committed; the leader's own is not there yet (Figure 8).",
        arises: |now| old_entry_on_a_majority(&now.after),
    },
    Situation {
        name: "acknowledged-and-overwritten",
        about: "An acknowledgement is on its way to its leader, and the disk that gave it has another entry there by now.",
        arises: |now| acknowledged_and_overwritten(&now.after),
    },
    Situation {
        name: "every-term-another",
        about: "One leads, one campaigns in a later term, one is in a third term; something is not committed.",
        arises: |now| every_term_another(&now.after),
    },
    Situation {
        name: "candidate-lacks-what-is-committed",
        about: "A candidate of the latest term lacks a committed entry, and yet one other has voted for it.",
        arises: |now| candidate_lacks_what_is_committed(&now.after),
    },
    Situation {
        name: "vote-of-one-that-moved-on",
        about: "A vote is on its way to a candidate whose voter is in a later term by now.",
        arises: |now| vote_of_one_that_moved_on(&now.after),
    },
    Situation {
        name: "pre-vote-outdated",
        about: "A granted pre-vote is on its way, and its giver follows a leader of that term already, which has committed something.",
        arises: |now| pre_vote_outdated(&now.after),
    },
    Situation {
        name: "three-append-one-place",
        about: "Appends of three leaders of different terms are on their way to one node, with different entries for the same place.",
        arises: |now| three_append_one_place(&now.after),
    },
    Situation {
        name: "committed-on-a-bare-quorum",
        about: "What is committed is on the disks of a bare quorum, nobody leads, nobody knows that it is committed, and one without it campaigns.",
        arises: |now| committed_on_a_bare_quorum(&now.after),
    },
    Situation {
        name: "conflict-below-the-match",
        about: "An answer of its own term tells a leader of a conflict, where it knows by now that the logs match.",
        arises: |now| conflict_below_the_match(&now.after),
    },
];

fn leaders_apart(v: &View) -> bool {
    let tail_apart = |a: &Node, b: &Node| v.tail(a).iter().any(|id| !b.raft.log().contains(*id));
    v.leaders()
        .any(|a| v.outdated_leaders().any(|b| tail_apart(a, b) && tail_apart(b, a)))
}

fn three_claims(v: &View) -> bool {
    let last = v.nodes.iter().map(|node| node.raft.last().index.0).max();
    (1..=last.unwrap_or(0)).map(Index).any(|index| {
        let claims = v.nodes.iter().filter_map(|node| node.raft.log().id_at(index));
        let open = claims.filter(|id| v.ghost.at(index).map(|c| c.id) != Some(*id));
        let terms: BTreeSet<Term> = open.map(|id| id.term).collect();
        terms.len() > 2
    })
}

/// How many have voted for this one in its term, on disk.
fn durable_votes(v: &View, candidate: &Node) -> usize {
    let voted = v.nodes.iter().filter(|node| View::has_voted(node, candidate));
    voted.count()
}

fn elected_and_unaware(v: &View) -> bool {
    v.in_role(RoleKind::Candidate).any(|candidate| {
        let config = candidate.raft.config();
        let elected = v.is_quorum(config, |node| View::has_voted(node, candidate));
        let earlier = |node: &Node| node.raft.term() < candidate.raft.term() && !v.tail(node).is_empty();
        elected && v.leaders().any(earlier)
    })
}

fn two_candidates_and_a_leader(v: &View) -> bool {
    v.in_role(RoleKind::Candidate).any(|one| {
        let term = one.raft.term();
        let rival = |node: &Node| node.id() > one.id() && node.raft.term() == term;
        let earlier = |node: &Node| node.raft.term() < term && !v.tail(node).is_empty();
        v.in_role(RoleKind::Candidate).any(rival) && v.leaders().any(earlier)
    })
}

fn deposed_with_a_longer_log(v: &View) -> bool {
    let Some(newest) = v.newest_leader() else {
        return false;
    };
    v.outdated_leaders().any(|node| {
        let lost = |id: &&LogId| id.index <= v.ghost.len();
        node.raft.last().index > newest.raft.last().index && v.tail(node).iter().filter(lost).count() > 1
    })
}

fn old_entry_on_a_majority(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let (term, config) = (leader.raft.term(), leader.raft.config());
    let on_a_majority = |id: LogId| {
        v.is_quorum(config, |node| {
            node.image.entry(id.index).is_some() && node.image.holds(id)
        })
    };
    let tail = v.tail(leader);
    let old = tail.iter().filter(|id| id.term < term);
    let own = tail.iter().filter(|id| id.term == term);
    old.copied().any(on_a_majority) && !own.copied().any(on_a_majority)
}

fn acknowledged_and_overwritten(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        let Body::Appended { upto } = body else {
            return false;
        };
        let acknowledged = to.raft.log().id_at(*upto);
        View::leads(to, term) && acknowledged.is_some_and(|id| !from.image.holds(id))
    })
}

fn every_term_another(v: &View) -> bool {
    let Some(leader) = v.newest_leader() else {
        return false;
    };
    let terms: BTreeSet<Term> = v.nodes.iter().map(|node| node.raft.term()).collect();
    terms.len() > 2 && v.runs_after(leader.raft.term()) && !v.tail(leader).is_empty()
}

fn candidate_lacks_what_is_committed(v: &View) -> bool {
    let latest = v.nodes.iter().map(|node| node.raft.term()).max();
    v.in_role(RoleKind::Candidate).any(|candidate| {
        let lacks = v
            .last_committed()
            .is_some_and(|id| !candidate.raft.log().contains(id));
        lacks && Some(candidate.raft.term()) == latest && durable_votes(v, candidate) > 1
    })
}

fn vote_of_one_that_moved_on(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        matches!(body, Body::VoteResponse { granted: true })
            && to.raft.role() == RoleKind::Candidate
            && to.raft.term() == term
            && from.image.hard.term > term
    })
}

fn pre_vote_outdated(v: &View) -> bool {
    v.messages().any(|(from, to, _, body)| {
        let Body::PreVoteResponse { next, granted: true } = body else {
            return false;
        };
        let asks = to.raft.role() == RoleKind::PreCandidate && to.raft.term().next() == *next;
        let follows = from.raft.leader().is_some() && from.raft.term() >= *next;
        asks && follows && v.ghost.committed.iter().any(|c| c.by >= *next)
    })
}

fn three_append_one_place(v: &View) -> bool {
    let mut claims = BTreeSet::new();
    for (_, to, _, body) in v.messages() {
        if let Body::Append { prev, entries, .. } = body {
            for (index, entry) in (prev.index.0 + 1..).zip(entries) {
                if v.ghost.len().0 < index {
                    claims.insert((to.id(), index, entry.term));
                }
            }
        }
    }
    claims.iter().any(|(to, index, _)| {
        let same = claims.iter().filter(|claim| (claim.0, claim.1) == (*to, *index));
        same.count() > 2
    })
}

fn committed_on_a_bare_quorum(v: &View) -> bool {
    let Some(last) = v.last_committed() else {
        return false;
    };
    let holders = v.nodes.iter().filter(|node| node.image.holds(last)).count();
    let campaigns = |node: &Node| !node.image.holds(last);
    holders == v.config().voters.len() / 2 + 1
        && v.leaders().next().is_none()
        && !v.nodes.iter().any(|node| node.raft.commit() >= last.index)
        && v.in_role(RoleKind::Candidate).any(campaigns)
}

fn conflict_below_the_match(v: &View) -> bool {
    v.messages().any(|(from, to, term, body)| {
        let Body::Conflict { prev, .. } = body else {
            return false;
        };
        let matched = |peer: (_, quorate_raft::PeerStatus)| peer.0 == from.id() && peer.1.matched >= *prev;
        View::leads(to, term) && to.raft.peers().any(matched)
    })
}
