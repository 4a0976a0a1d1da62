//! Faults that wait for their moment. A fault that is to strike in some state lies in wait until a machine (or the cluster) is in that state,
//! and strikes after that very step; if that takes too long, it strikes whatever is the case.

use quorate_base::NodeId;

use crate::cells::State;
use crate::failure::Failure;
use crate::params::{MS, SEC};
use crate::plan::Fault;
use crate::trace::Nanos;
use crate::world::{Happening, World};

/// Who lies in wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lair {
    /// The planned fault of this number, for anybody.
    Fault(usize),
    /// The impostor, for its victim.
    Impostor(NodeId),
}

/// Somebody in wait for a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lurking {
    lair: Lair,
    state: State,
    until: Nanos,
}

impl World {
    /// The moment of a planned fault has come: it strikes, or lies in wait.
    pub(crate) fn release(&mut self, number: usize) -> Result<(), Failure> {
        let strike = &mut self.params.plan[number];
        // An impostor needs some preparation before it can wait.
        if matches!(strike.fault, Fault::Impostor(_)) || self.healing {
            return self.strike(number, None);
        }
        match strike.when.take() {
            Some(state) => self.lurk(Lair::Fault(number), state),
            None => return self.strike(number, None),
        }
        Ok(())
    }

    /// Lies in wait.
    pub(crate) fn lurk(&mut self, lair: Lair, state: State) {
        let until = self.now + self.rng.within(500 * MS..6 * SEC);
        self.lurking.push(Lurking { lair, state, until });
        self.at(until, Happening::Spring);
    }

    /// After something has happened, on `id` if at one machine: what lies in wait for that strikes.
    pub(crate) fn spring(&mut self, id: Option<NodeId>) -> Result<(), Failure> {
        if self.healing {
            self.lurking.clear();
        }
        if self.lurking.is_empty() {
            return Ok(());
        }
        let here = id.map(|id| self.states_of(id)).unwrap_or_default();
        let cluster = self.states_of_cluster();
        let mut ready = Vec::new();
        let now = self.now;
        self.lurking.retain(|lurking| {
            let of_victim = match lurking.lair {
                Lair::Fault(_) => here.has(lurking.state),
                Lair::Impostor(victim) => here.has(lurking.state) && id == Some(victim),
            };
            let met = of_victim || cluster.has(lurking.state);
            if met || lurking.until <= now {
                ready.push((lurking.lair, id.filter(|_| of_victim)));
            }
            !met && lurking.until > now
        });
        for (lair, victim) in ready {
            match lair {
                Lair::Fault(number) => self.strike(number, victim)?,
                Lair::Impostor(_) => self.masquerade(),
            }
        }
        Ok(())
    }
}
