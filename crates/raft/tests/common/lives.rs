//! Random lives of small clusters, for tests that hold a node up against another form of itself at any moment.

use quorate_base::NodeId;
use quorate_raft::{Config, Limits};

use super::explore::{Chance, Mood, Seen, disturb};
use super::{Cluster, n};

/// So many things happen in one life.
const LENGTH: u64 = 300;

/// Three nodes, whose messages hold one entry or many.
pub fn three(chance: &mut Chance) -> Cluster {
    let limits = Limits {
        max_append_bytes: chance.pick(&[15, 1000]),
        ..Limits::default()
    };
    Cluster::of(Config::of((1..=3).map(n)), limits)
}

/// Lives as many lives: each seed gives another, which begins as `begin` says; about every tenth moment `look` is shown a node that is
/// up and whose effects have been taken.
pub fn live(
    lives: u64,
    begin: impl Fn(u64, &mut Chance) -> (Cluster, Mood),
    mut look: impl FnMut(&Cluster, NodeId, &mut Chance),
) {
    for seed in 0..lives {
        let chance = &mut Chance(seed);
        let (mut cluster, mood) = begin(seed, chance);
        let (mut seen, mut token) = (Seen::new(), 0);
        for _ in 0..LENGTH {
            disturb(&mut cluster, chance, &mood, &mut seen, &mut token);
            let id = chance.pick(&cluster.ids());
            if chance.one_in(10) && cluster.is_up(id) {
                cluster.drain(id);
                look(&cluster, id, chance);
            }
        }
    }
}
