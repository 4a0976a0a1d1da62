//! How fast the simulator is: a healthy cluster of five nodes under the timing that the server has by default, with all checks, idle
//! and under load. What is measured is how much virtual time passes; the clock it is held against is the program's.

use crate::failure::Failure;
use crate::params::{MS, Params, SEC};
use crate::scenario::Scenario;
use crate::trace::Nanos;
use crate::world::World;

/// A cluster to be measured.
pub struct Course {
    world: World,
}

/// What happened in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Virtual time.
    pub time: Nanos,
    /// Requests of clients that were answered.
    pub operations: u64,
    /// Lines of the trace.
    pub lines: u64,
}

impl Course {
    /// Five nodes without faults, with a leader; under about a hundred requests a second, if `loaded`.
    pub fn new(loaded: bool) -> Result<Course, Failure> {
        let mut scenario = Scenario::with(5, 1, |params: &mut Params| {
            params.clients = if loaded { 22 } else { 1 };
            params.think = 400 * MS;
            params.keys = 40;
        });
        scenario.elect()?;
        scenario.run(2 * SEC)?;
        let mut world = scenario.world;
        world.silent = !loaded;
        if loaded {
            for client in 0..world.clients.len() {
                world.client_turn(client);
            }
        }
        Ok(Course { world })
    }

    /// Lets so much virtual time pass.
    pub fn run(&mut self, time: Nanos) -> Result<Covered, Failure> {
        let answered = |world: &World| (world.calls.len() - world.pending.len()) as u64;
        let before = (answered(&self.world), self.world.trace.lines());
        let end = self.world.now + time;
        while self.world.step(end)? {}
        Ok(Covered {
            time,
            operations: answered(&self.world) - before.0,
            lines: self.world.trace.lines() - before.1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deadline that moved must not leave a wake behind that sets the next one, and so on for good.
    #[test]
    fn what_happens_stays_in_proportion_to_what_is_done() {
        let mut course = Course::new(true).unwrap();
        let before = course.world.steps;
        let covered = course.run(60 * SEC).unwrap();
        let steps = course.world.steps - before;
        assert!(steps < 2 * covered.lines, "{steps} steps, {covered:?}");
    }

    #[test]
    fn the_load_is_a_hundred_requests_a_second_and_idle_is_none() {
        let covered = Course::new(true).unwrap().run(20 * SEC).unwrap();
        assert!((2_000..2_600).contains(&covered.operations), "{covered:?}");
        let covered = Course::new(false).unwrap().run(20 * SEC).unwrap();
        assert_eq!(covered.operations, 0);
        assert!(covered.lines > 100, "heartbeats go on: {covered:?}");
    }
}
