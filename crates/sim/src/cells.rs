//! Which fault struck in which state: the states that matter, the table of faults by states, and the cells of it that cannot be, each
//! with its reason. What state a running node is in is found in `states`.

use std::fmt::{self, Write};

use crate::coverage::Kind;

/// A state of a machine (or, for the three from [`Leaderless`](State::Leaderless) on, of the cluster) at the moment of a fault. A machine
/// is in several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It follows a leader.
    Following,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads, and has committed nothing in its term.
    NewLeader,
    /// It leads, and has.
    Leading,
    /// It leads, and is handing over.
    HandingOver,
    /// It leads, and may serve reads by its clock.
    Leasing,
    /// It has no vote.
    Learning,
    /// Its configuration is joint.
    Joint,
    /// It sends a snapshot.
    Sending,
    /// It does not lead, and is being sent a snapshot or takes one over.
    Installing,
    /// Its disk is cutting off the end of the log.
    Truncating,
    /// Its disk is recording that the beginning of the log may go.
    Compacting,
    /// Its state machine is being flushed.
    Flushing,
    /// Its log has writes to do that are not durable.
    Writing,
    /// It waits for entries from its disk.
    ColdReading,
    /// Clients wait for linearizable reads of it.
    Reading,
    /// It has started, and found no leader yet.
    Recovering,
    /// Some of its links are cut.
    Cut,
    /// Its disk is slow, or does not return.
    Slow,
    /// Its disk has no space.
    Full,
    /// It stands still.
    Paused,
    /// Nobody leads.
    Leaderless,
    /// Several lead at once, each in a term of its own.
    Rivals,
    /// Some voter is down.
    Short,
}

impl State {
    /// All of them. In five a fault lasts already: `Cut`, `Slow`, `Full`, `Paused`, `Short`.
    pub const ALL: [State; 25] = [
        State::Following,
        State::PreCandidate,
        State::Candidate,
        State::NewLeader,
        State::Leading,
        State::HandingOver,
        State::Leasing,
        State::Learning,
        State::Joint,
        State::Sending,
        State::Installing,
        State::Truncating,
        State::Compacting,
        State::Flushing,
        State::Writing,
        State::ColdReading,
        State::Reading,
        State::Recovering,
        State::Cut,
        State::Slow,
        State::Full,
        State::Paused,
        State::Leaderless,
        State::Rivals,
        State::Short,
    ];
}

/// A set of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Adds `state` if `holds`.
    pub fn put(&mut self, state: State, holds: bool) {
        self.0 |= u32::from(holds) << state as u32;
    }

    /// Whether `state` is among them.
    pub fn has(self, state: State) -> bool {
        self.0 & (1 << state as u32) != 0
    }

    /// These and those of `other`.
    pub fn with(self, other: States) -> States {
        States(self.0 | other.0)
    }

    fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |state| self.has(*state))
    }
}

/// How often each fault struck in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    cells: Vec<[u64; State::ALL.len()]>,
}

impl Matrix {
    /// A fault struck in these states.
    pub fn hit(&mut self, fault: Kind, states: States) {
        self.cells.resize(Kind::ALL.len(), [0; State::ALL.len()]);
        for state in states.iter() {
            self.cells[fault as usize][state as usize] += 1;
        }
    }

    /// How often a fault struck in a state.
    pub fn count(&self, fault: Kind, state: State) -> u64 {
        let row = self.cells.get(fault as usize);
        row.map_or(0, |row| row[state as usize])
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Matrix) {
        self.cells.resize(Kind::ALL.len(), [0; State::ALL.len()]);
        for (sum, row) in self.cells.iter_mut().zip(&other.cells) {
            sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
    }

    /// The possible cells that were hit less than `least` times, with their counts.
    pub fn below(&self, least: u64) -> Vec<(Kind, State, u64)> {
        let counts = cells().map(|(fault, state)| (fault, state, self.count(fault, state)));
        let short =
            counts.filter(|(fault, state, count)| impossible(*fault, *state).is_none() && *count < least);
        short.collect()
    }

    /// The cells that are said to be impossible, and were hit: the table is wrong there.
    pub fn disproved(&self) -> Vec<(Kind, State)> {
        let hit = |(fault, state): &(Kind, State)| self.count(*fault, *state) > 0;
        let hit = cells().filter(hit);
        hit.filter(|(fault, state)| impossible(*fault, *state).is_some())
            .collect()
    }
}

fn cells() -> impl Iterator<Item = (Kind, State)> {
    let row = |fault: Kind| State::ALL.into_iter().map(move |state| (fault, state));
    Kind::FAULTS.iter().copied().flat_map(row)
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = format!("{:18}", "");
        for state in State::ALL {
            let _ = write!(head, "{:>8.7}", format!("{state:?}"));
        }
        writeln!(f, "{head}")?;
        for fault in Kind::FAULTS.iter().copied() {
            write!(f, "{:18}", format!("{fault:?}"))?;
            for state in State::ALL {
                match (self.count(fault, state), impossible(fault, state)) {
                    (0, Some(_)) => write!(f, "{:>8}", "-")?,
                    (count, _) => write!(f, "{count:>8}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Why a fault cannot strike in a state; `None` if it can.
pub fn impossible(fault: Kind, state: State) -> Option<&'static str> {
    match (fault, state) {
        (
            Kind::IsolateLeader | Kind::CutFollower | Kind::Stall | Kind::Transfer | Kind::FalseHint,
            State::Leaderless,
        ) => Some("it needs a leader to strike"),
        (Kind::Transfer, State::Following | State::PreCandidate | State::Candidate | State::Learning) => {
            Some("a leader is asked, and it is none of these")
        }
        (Kind::Transfer, State::Recovering) => Some("who leads has found a leader: itself"),
        (Kind::Transfer, State::Installing) => Some("a leader is asked, and takes no snapshot from anybody"),
        (Kind::Transfer, State::Truncating) => {
            Some("who leads has voted since it truncated its log, and writes are durable in order")
        }
        (Kind::CrashInRecovery, state) if state < State::Cut => {
            Some("the process is only starting: it has no role, no requests and no writes")
        }
        (
            Kind::CrashInDisk
            | Kind::CrashInRecovery
            | Kind::SyncError
            | Kind::WriteError
            | Kind::ShortWrite
            | Kind::DirSyncError
            | Kind::ReadError
            | Kind::LostWrite
            | Kind::MisdirectedWrite,
            State::Paused,
        ) => Some("who stands still asks nothing of its disk"),
        (
            Kind::OtherCluster | Kind::WipedRefused | Kind::BackupRefused | Kind::DuplicateRefused,
            State::Paused,
        ) => Some("who stands still answers nobody"),
        (Kind::ClockLeap | Kind::Suspend, State::Leasing) => {
            Some("leases count on clocks: with them on, clocks only drift, as far as is allowed")
        }
        (
            Kind::BitRotFound
            | Kind::RotInUse
            | Kind::LostWrite
            | Kind::MisdirectedWrite
            | Kind::StoreRot
            | Kind::StoreLostWrite,
            State::Joint | State::Learning,
        ) => Some(
            "only a disk is damaged that the cluster can do without: a voter's, with no change under way",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(of: &[State]) -> States {
        let mut states = States::default();
        of.iter().for_each(|state| states.put(*state, true));
        states
    }

    #[test]
    fn what_struck_seldom_is_named_and_what_cannot_be_is_not() {
        let mut matrix = Matrix::default();
        matrix.hit(Kind::Kill, states(&[State::Leading, State::Writing]));
        matrix.hit(Kind::Kill, states(&[State::Leading]));
        let mut sum = Matrix::default();
        sum.add(&matrix);
        sum.add(&matrix);
        assert_eq!(sum.count(Kind::Kill, State::Leading), 4);
        assert_eq!(sum.count(Kind::Kill, State::Writing), 2);
        let below = sum.below(3);
        assert!(below.contains(&(Kind::Kill, State::Writing, 2)));
        assert!(
            !below
                .iter()
                .any(|cell| cell.0 == Kind::Kill && cell.1 == State::Leading)
        );
        assert!(
            !below
                .iter()
                .any(|cell| cell.0 == Kind::Transfer && cell.1 == State::Leaderless)
        );
    }

    #[test]
    fn a_cell_that_cannot_be_and_was_hit_is_named() {
        let mut matrix = Matrix::default();
        assert!(matrix.disproved().is_empty());
        matrix.hit(Kind::Transfer, states(&[State::Leaderless]));
        assert_eq!(matrix.disproved(), [(Kind::Transfer, State::Leaderless)]);
        assert!(matrix.to_string().contains("Transfer"));
    }

    #[test]
    fn the_list_of_states_is_complete_and_in_order() {
        assert!(State::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(State::Short as usize + 1, State::ALL.len());
        let set = states(&[State::Following, State::Short]);
        assert!(set.has(State::Following) && set.has(State::Short) && !set.has(State::Cut));
    }
}
