//! Shortening of a path through the model while what it leads to still arises: actions are left out, many at a time and then one by one, and what
//! was slow, batched or cold becomes usual where that makes no difference. A message that is another without what was left out (a later
//! round, a smaller commit index) is taken for the one of its kind.

use std::collections::BTreeSet;
use std::mem::discriminant;

use stateright::Model;

use crate::action::{Action, How, ParcelId, Stimulus};
use crate::cluster::Cluster;
use crate::parcel::{Parcel, What};
use crate::state::State;
use crate::walk::Goal;

/// The same goal, by fewer actions. `None` if this path does not lead to it.
pub fn shorten(cluster: &Cluster, path: &[Action], goal: &Goal) -> Option<Vec<Action>> {
    let mut best = follow(cluster, path, goal)?;
    loop {
        let before = best.clone();
        let mut size = best.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < best.len() {
                let rest = best.iter().enumerate();
                let rest = rest.filter(|(i, _)| *i < at || *i >= at + size);
                let rest: Vec<Action> = rest.map(|(_, action)| *action).collect();
                match follow(cluster, &rest, goal) {
                    Some(shorter) if shorter.len() < best.len() => best = shorter,
                    _ => at += size,
                }
            }
            size /= 2;
        }
        for at in 0..best.len() {
            let mut plain = best.clone();
            if let Some(action) = plain.get_mut(at).filter(|action| action.how != How::Settled) {
                action.how = How::Settled;
                if let Some(other) = follow(cluster, &plain, goal).filter(|other| other.len() <= best.len()) {
                    best = other;
                }
            }
        }
        if best == before {
            return Some(best);
        }
    }
}

/// Takes these actions, those that are possible, until the goal is reached; those that were taken.
fn follow(cluster: &Cluster, path: &[Action], goal: &Goal) -> Option<Vec<Action>> {
    let mut state = cluster.first().clone();
    let mut taken = Vec::new();
    let mut arrived = BTreeSet::new();
    for action in path {
        let Some(action) = possible(cluster, &state, *action, &arrived) else {
            continue;
        };
        let Some(next) = cluster.next_state(&state, action) else {
            continue;
        };
        if next.violation.is_some() {
            return None;
        }
        if let Stimulus::Deliver(id) = action.what {
            arrived.insert(id);
        }
        taken.push(action);
        if goal.is_reached(cluster, &state, action, &next) {
            return Some(taken);
        }
        state = next;
    }
    None
}

/// The action, or what it is in this state.
fn possible(
    cluster: &Cluster,
    state: &State,
    action: Action,
    arrived: &BTreeSet<ParcelId>,
) -> Option<Action> {
    let Action { at, what, how } = action;
    let all = cluster.possible(state).into_iter();
    let all = all.filter_map(|(node, what)| (node == at).then_some(what));
    let same: Vec<Stimulus> = all
        .filter(|other| discriminant(other) == discriminant(&what))
        .collect();
    let what = match what {
        what if same.contains(&what) => what,
        // The next number.
        Stimulus::Propose(_) | Stimulus::Read(_) => *same.first()?,
        Stimulus::Deliver(id) => {
            let wanted = cluster.parcel(id);
            let alike = |what: &&Stimulus| match what {
                Stimulus::Deliver(id) => !arrived.contains(id) && is_alike(&wanted, &cluster.parcel(*id)),
                _ => false,
            };
            *same.iter().find(alike)?
        }
        _ => return None,
    };
    let action = Action { at, what, how };
    cluster.offers(state, action).then_some(action)
}

/// Whether two parcels are of one kind, term and link.
fn is_alike(a: &Parcel, b: &Parcel) -> bool {
    let same_link = (a.from, a.to) == (b.from, b.to);
    same_link
        && match (&a.what, &b.what) {
            (What::Message(a, _), What::Message(b, _)) => {
                a.term == b.term && discriminant(&a.body) == discriminant(&b.body)
            }
            (a, b) => discriminant(a) == discriminant(b),
        }
}
