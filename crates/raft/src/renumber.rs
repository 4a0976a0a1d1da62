//! Numbers that only tell things of one run apart (of writes, of log epochs, of bytes since the start) brought back to where a fresh start
//! has them. A core does the same under any of them, so two that differ in nothing else are one situation, and a model checker would
//! take it for thousands. Only checkers call this (feature `check`); a driver that did would lose track of its writes.

use crate::effects::WriteId;
use crate::haste;
use crate::raft::Raft;
use crate::role::Role;

/// By how much the numbers have fallen: whoever holds any subtracts as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renumbered {
    /// The numbers of writes that are not yet done.
    pub writes: WriteId,
    /// The epochs of ranges; one that was outdated before wraps around, and stays so.
    pub epochs: u64,
}

impl Raft {
    /// Brings all such numbers down. The effects must have been taken: they hold some.
    pub fn renumber(&mut self) -> Renumbered {
        assert!(
            self.core.out.write.is_none(),
            "a write that was not taken has a number"
        );
        Renumbered {
            writes: self.core.durability.renumber(),
            epochs: self.core.log.renumber(),
        }
    }

    /// Forgets what is on a list twice: an answer that waits for the disk, a follower's read that waits for a round. Each would be sent twice,
    /// which makes no difference where any message may arrive twice; but the lists would grow with every arrival.
    pub fn forget_repetitions(&mut self) {
        self.core.durability.forget_repetitions();
        if let Role::Leader(leader) = &mut self.role {
            leader.forget_repetitions();
        }
    }

    /// Forgets how far a haste has come, and not that there is one. Nothing but [`Timer::Haste`](crate::Timer::Haste) counts the steps, so
    /// where that never fires they mean nothing, as long as nobody asks ten times.
    pub fn forget_haste_steps(&mut self) {
        haste::forget_steps(&mut self.core);
    }
}
