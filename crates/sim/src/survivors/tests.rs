//! The demand on the survivors must be able to fail, only a proof may excuse that, and the cores must be quorums.

use super::*;
use crate::params::Params;
use crate::scenario::Scenario;
use crate::trace::View;

/// A cluster of three that has committed something.
fn cluster() -> World {
    let mut scenario = Scenario::new(3, 1);
    let leader = scenario.elect().unwrap();
    scenario.must_write(leader, 5 * SEC).unwrap();
    scenario.run(SEC).unwrap();
    scenario.world.healing = true;
    scenario.world
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn survivors_that_come_to_nothing_are_a_failure() {
    let mut world = cluster();
    world.leave_alone(ids(&[1, 2]));
    // What a part that never elects again would look like.
    world.net.cut(|_| true);
    let result = world.demand_of_survivors();
    let failure = world.survive_or_excuse(result).unwrap_err();
    assert!(
        matches!(&failure, Failure::Liveness(why) if why.contains("core")),
        "{failure}"
    );
    assert_eq!(world.excused, None);
}

#[test]
fn survivors_without_a_quorum_are_excused_only_then() {
    let mut world = cluster();
    world.leave_alone(ids(&[1]));
    let result = world.demand_of_survivors();
    assert!(matches!(result, Err(Failure::Liveness(_))), "{result:?}");
    assert_eq!(world.survive_or_excuse(result), Ok(()));
    assert!(matches!(world.excused, Some(Excuse::NoQuorum { .. })));
    let broken = Err(Failure::Correctness("S1".into()));
    assert!(
        world.survive_or_excuse(broken).is_err(),
        "only liveness can be excused"
    );
}

#[test]
fn cores_are_quorums_and_often_leave_somebody_out() {
    let mut left_out = 0;
    for seed in 0..40 {
        let mut world = World::new(
            Params {
                nodes: 5,
                ..Params::draw(seed)
            },
            View::Hash,
        );
        let core = world.choose_core().unwrap();
        assert!(core.len() >= 3, "{core:?}");
        left_out += usize::from(core.len() < 5);
    }
    assert!(left_out > 20, "{left_out}");
}
