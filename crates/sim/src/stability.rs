//! Stable leadership: how long a cluster, or the part of it that is healed, may take to find a leader, and that it then keeps it. Whose leader
//! that is, and when it is demanded, is in `survivors` and `healing`.

use quorate_base::{NodeId, Term};

use crate::failure::Failure;
use crate::params::SEC;
use crate::trace::Nanos;
use crate::world::World;

/// In so many election timeouts after the last fault there must be a leader, whatever was before.
const ELECTIONS: u64 = 20;

/// For so many election timeouts a leader must stay, once there is one.
const STABLE: u64 = 10;

impl World {
    /// For so long nobody may lead after the last fault.
    pub(crate) fn patience(&self) -> Nanos {
        ELECTIONS * self.params.election + 2 * SEC
    }

    /// Within the patience for a leader there is one, as `leader` tells, and it stays: the same one in one term.
    pub(crate) fn await_stable_leader(
        &mut self,
        what: &str,
        leader: impl Fn(&World) -> Option<(NodeId, Term)>,
    ) -> Result<(), Failure> {
        let stay = STABLE * self.params.election;
        let time = self.patience() + stay;
        let end = self.now + time;
        let mut held = Held::new(leader(self), self.now);
        while !held.stays(self.now, stay) {
            if !self.step(end)? && !held.stays(self.now, stay) {
                return Err(self.missing(what, time));
            }
            held.note(leader(self), self.now);
        }
        Ok(())
    }
}

/// Who leads, and since when.
struct Held {
    leader: Option<(NodeId, Term)>,
    since: Nanos,
}

impl Held {
    fn new(leader: Option<(NodeId, Term)>, since: Nanos) -> Held {
        Held { leader, since }
    }

    fn note(&mut self, leader: Option<(NodeId, Term)>, now: Nanos) {
        if leader != self.leader {
            *self = Held::new(leader, now);
        }
    }

    /// Whether the same one leads for at least so long, in one term.
    fn stays(&self, now: Nanos, long: Nanos) -> bool {
        self.leader.is_some() && now - self.since >= long
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::MS;
    use crate::scenario::Scenario;

    const LEADS: Option<(NodeId, Term)> = Some((NodeId(1), Term(3)));

    #[test]
    fn a_leader_stays_if_it_is_the_same_in_one_term() {
        let stay = STABLE * SEC;
        let mut held = Held::new(None, 0);
        for moment in 0..100 {
            let now = moment * (stay - MS);
            held.note(if moment % 2 == 0 { LEADS } else { None }, now);
            assert!(!held.stays(now + stay - 2 * MS, stay), "not long enough");
        }
        let now = 1_000 * SEC;
        held.note(LEADS, now);
        held.note(Some((NodeId(1), Term(4))), now + stay / 2);
        assert!(!held.stays(now + stay, stay), "another term is another leader");
        assert!(held.stays(now + stay + stay / 2, stay));
    }

    /// A healthy cluster of three with a leader.
    fn cluster() -> World {
        let mut scenario = Scenario::new(3, 1);
        scenario.elect().expect("nothing is wrong with it");
        scenario.world
    }

    #[test]
    fn a_healthy_cluster_keeps_its_leader() {
        let mut world = cluster();
        let before = world.leader_of_all();
        assert_eq!(world.await_lasting_leader(), Ok(()));
        assert_eq!(world.leader_of_all(), before);
    }

    #[test]
    fn a_cluster_that_goes_on_electing_is_a_failure() {
        let mut world = cluster();
        // What a cluster would look like whose leaders are deposed again and again, each after a while in office.
        let reign = (STABLE - 1) * world.params.election;
        let restless = |world: &World| {
            let (leader, term) = world.leader_of_all()?;
            Some((leader, Term(term.0 + world.now / reign)))
        };
        let failure = world
            .await_stable_leader("leader that stays", restless)
            .unwrap_err();
        assert!(
            matches!(&failure, Failure::Liveness(why) if why.contains("leader that stays")),
            "{failure}"
        );
    }
}
