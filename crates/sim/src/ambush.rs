//! Ambushes: on most seeds some faults lie in wait for states that come seldom or are soon over, and strike in that state or not at all. Left
//! to chance, a fault would meet a leader just as it hands over once in some hundred clusters. Here is which pairs of fault and state a
//! seed draws, and what it plans so that such states come about; how they wait is in [`steering`](crate::steering).
//!
//! A part of the seeds has no ambush, and is what chance alone makes of it.

use crate::cells::{State, impossible};
use crate::coverage::Kind;
use crate::params::{MS, NetParams, SEC};
use crate::plan::{Fault, Setting, Strike, When, draw_fault};
use crate::rng::Rng;
use crate::trace::Nanos;

/// So many seeds in a million have ambushes.
const SHARE: u32 = 800_000;

/// So many of those in a million have impostors. They and disks that break their word exclude each other for some time, so that a seed has
/// one or the other.
const SHARE_WITH_IMPOSTORS: u32 = 400_000;

/// How much more often one lies in wait for a state, the more seldom faults meet it by chance.
const STATES: [(State, u64); 22] = [
    (State::HandingOver, 24),
    (State::Truncating, 30),
    (State::Full, 22),
    (State::Rivals, 26),
    (State::ColdReading, 12),
    (State::Candidate, 15),
    (State::NewLeader, 14),
    (State::Compacting, 8),
    (State::Joint, 12),
    (State::Paused, 8),
    (State::Slow, 9),
    (State::Learning, 9),
    (State::Installing, 6),
    (State::Leasing, 6),
    (State::PreCandidate, 8),
    (State::Flushing, 3),
    (State::Leaderless, 4),
    (State::Sending, 6),
    (State::Cut, 2),
    (State::Short, 3),
    (State::Recovering, 4),
    (State::Reading, 2),
];

/// The same for disks that break their word. There is only one at a time, and until it is replaced the others wait: whoever waits for what is often
/// the case would strike first, and nobody else.
const STATES_OF_BREAKERS: [(State, u64); 19] = [
    (State::Rivals, 54),
    (State::PreCandidate, 26),
    (State::NewLeader, 20),
    (State::Full, 38),
    (State::Candidate, 22),
    (State::HandingOver, 26),
    (State::Truncating, 60),
    (State::Slow, 25),
    (State::ColdReading, 15),
    (State::Recovering, 13),
    (State::Paused, 16),
    (State::Leasing, 5),
    (State::Sending, 6),
    (State::Installing, 18),
    (State::Cut, 2),
    (State::Leaderless, 2),
    (State::Compacting, 4),
    (State::Flushing, 3),
    (State::Reading, 1),
];

/// Disks that break their word.
const BREAKERS: [Kind; 6] = [
    Kind::LostWrite,
    Kind::MisdirectedWrite,
    Kind::BitRotFound,
    Kind::RotInUse,
    Kind::StoreRot,
    Kind::StoreLostWrite,
];

/// How often one of them is of a kind: often if it often waits in vain.
fn weight_of_breaker(kind: Kind, state: State) -> u64 {
    match kind {
        // Who is about to ask for votes has nothing left to write.
        Kind::LostWrite | Kind::MisdirectedWrite if state == State::PreCandidate => 160,
        Kind::LostWrite => 60,
        Kind::MisdirectedWrite => 56,
        Kind::StoreLostWrite => 62,
        Kind::StoreRot | Kind::RotInUse => 42,
        _ => 44,
    }
}

/// So many ambushes in a million are of these, in seeds that have any.
const SHARE_OF_BREAKERS: u32 = 550_000;

/// How often one of the others is of a kind: seldom if it strikes many machines at once, often if it often has to wait in vain.
fn weight_of(kind: Kind, state: State, impostors: bool) -> u64 {
    match kind {
        // Hardly anything is read or named in the moment in which a log is cut off.
        Kind::ReadError if state == State::Truncating => 24,
        Kind::ReadError if state == State::Candidate => 9,
        Kind::DirSyncError if state == State::Truncating => 60,
        Kind::Garbled | Kind::Hub if state == State::Truncating => 10,
        Kind::LostWrite | Kind::MisdirectedWrite | Kind::BitRotFound | Kind::RotInUse => 0,
        Kind::StoreRot | Kind::StoreLostWrite => 0,
        Kind::WipedRefused | Kind::BackupRefused | Kind::DuplicateRefused if !impostors => 0,
        Kind::WipedRefused if state == State::Learning => 44,
        Kind::DuplicateRefused if matches!(state, State::Learning | State::Joint) => 36,
        Kind::WipedRefused | Kind::BackupRefused | Kind::DuplicateRefused => 24,
        // It has few states.
        Kind::CrashInRecovery => 8,
        // Clocks leap only where no lease counts on them, and only bytes can be garbled.
        Kind::ClockLeap | Kind::Suspend | Kind::Garbled => 5,
        Kind::ShortWrite | Kind::ReadError => 5,
        // There are few of these, and most states are over before one comes.
        Kind::DirSyncError => 12,
        Kind::SyncError | Kind::WriteError | Kind::SlowDisk | Kind::StallDisk => 4,
        Kind::CutFollower | Kind::OneLink | Kind::Hub | Kind::Flap | Kind::OtherCluster => 3,
        Kind::Chain | Kind::Kill if state == State::Truncating => 4,
        Kind::IsolateLeader | Kind::FalseHint | Kind::Drop | Kind::Delay | Kind::Duplicate => 1,
        _ => 2,
    }
}

/// So many ambushes in a million come with something that brings their state about.
const SHARE_WITH_OPENER: u32 = 700_000;

/// Faults of messages, which can be made to strike one.
const MESSAGES: [Kind; 4] = [Kind::Drop, Kind::Delay, Kind::Duplicate, Kind::Garbled];

/// Adds the ambushes of a seed to its plan. They are drawn apart, so that all else is as it would be without them.
pub(crate) fn lay(seed: u64, setting: &Setting, net: &NetParams, plan: &mut Vec<Strike>) {
    let rng = &mut Rng::new(seed ^ 0x7761_6974_6572);
    if !rng.chance(SHARE) {
        return;
    }
    let (count, impostors) = (rng.within(24..70), rng.chance(SHARE_WITH_IMPOSTORS));
    let breaks = !impostors && setting.can_replace();
    // Fewer of the others, so that these seeds are not merely worse.
    plan.retain(|strike| rng.chance(470_000) && !(breaks && strike.fault.wants_dispensable()));
    for _ in 0..count {
        let breaker = breaks && rng.chance(SHARE_OF_BREAKERS);
        let state = match breaker {
            true => draw_weighted(rng, &STATES_OF_BREAKERS),
            false => draw_weighted(rng, &STATES),
        };
        let kinds = match breaker {
            true => BREAKERS
                .map(|kind| (kind, weight_of_breaker(kind, state)))
                .to_vec(),
            false => others(state, impostors),
        };
        let Some(fault) = draw_ambush(rng, state, &kinds, setting, net) else {
            continue;
        };
        let at = rng.within(SEC..setting.duration * 7 / 10);
        let writes = matches!(fault, Fault::LostWrite { .. } | Fault::MisdirectedWrite { .. });
        let when = When::Only(state);
        plan.push(Strike { at, when, fault });
        let at = at + rng.within(MS..4 * SEC);
        if setting.nodes > 1 && rng.chance(SHARE_WITH_OPENER) {
            plan.extend(match state {
                State::PreCandidate if writes => hurry(rng, at),
                _ => draw_opener(rng, state, at).into_iter().collect(),
            });
        }
    }
}

/// What lies in wait for this state, apart from disks that break their word.
fn others(state: State, impostors: bool) -> Vec<(Kind, u64)> {
    let kinds = Kind::PLANNED.iter().copied().chain(MESSAGES);
    kinds
        .map(|kind| (kind, weight_of(kind, state, impostors)))
        .collect()
}

fn draw_weighted<T: Copy>(rng: &mut Rng, items: &[(T, u64)]) -> T {
    let sum: u64 = items.iter().map(|(_, weight)| weight).sum();
    let mut drawn = rng.within(0..sum);
    for (item, weight) in items {
        match drawn.checked_sub(*weight) {
            Some(left) => drawn = left,
            None => return *item,
        }
    }
    unreachable!("the weights were summed")
}

/// Some fault that can strike in this state; `None` if such a seed has neither the state nor the fault.
fn draw_ambush(
    rng: &mut Rng,
    state: State,
    kinds: &[(Kind, u64)],
    setting: &Setting,
    net: &NetParams,
) -> Option<Fault> {
    for _ in 0..4 {
        let kind = draw_weighted(rng, kinds);
        if impossible(kind, state).is_some() || !setting.knows(state) {
            continue;
        }
        let can = match kind {
            Kind::Drop | Kind::Duplicate => !net.stream && setting.nodes > 1,
            Kind::Garbled => net.bytes && setting.nodes > 1,
            Kind::Delay => setting.nodes > 1,
            _ => false,
        };
        let fault = match can {
            true => Some(Fault::Message(kind)),
            false => draw_fault(rng, kind, setting),
        };
        if let Some(mut fault) = fault {
            fault.at_next_operation();
            return Some(fault);
        }
    }
    None
}

/// What makes this state come about, or last, for some time; `None` if it comes often enough, or no fault brings it.
pub(crate) fn draw_opener(rng: &mut Rng, state: State, at: Nanos) -> Option<Strike> {
    let lasts: Nanos = rng.log_within(500..8_000) * MS;
    let down: Nanos = rng.log_within(100..4_000) * MS;
    let fault = match state {
        State::HandingOver => Fault::Transfer,
        State::NewLeader if rng.coin() => Fault::Transfer,
        State::NewLeader | State::Candidate | State::PreCandidate | State::Leaderless => match rng.coin() {
            true => Fault::FalseHint,
            false => Fault::Kill { leader: true, down },
        },
        State::Truncating => Fault::IsolateLeader(lasts),
        State::Rivals if rng.chance(300_000) => Fault::FalseHint,
        State::Rivals => Fault::Stall(SEC + lasts / 4),
        State::Full => Fault::FullDisk(lasts),
        State::Slow => Fault::SlowDisk {
            lasts,
            factor: rng.log_within(3..100),
        },
        State::Paused => Fault::Pause(lasts),
        State::ColdReading | State::Installing | State::Recovering | State::Short => {
            Fault::PowerLoss { leader: false, down }
        }
        State::Cut => Fault::OneLink(lasts),
        _ => return None,
    };
    // A leader that has nothing to do has handed over at once.
    let when = match fault {
        Fault::Transfer => When::Only(State::Writing),
        _ => When::Now,
    };
    Some(Strike { at, when, fault })
}

/// Who is about to ask for votes has heard nobody for long, and has nothing left to write. Only who is told that its leader is gone asks while
/// it still writes, until it hears of the leader again: it is told so several times, each time with something to write.
fn hurry(rng: &mut Rng, at: Nanos) -> Vec<Strike> {
    let hint = |at| Strike {
        at,
        when: When::Only(State::Writing),
        fault: Fault::FalseHint,
    };
    let hints = 0..rng.within(3..8);
    hints.map(|_| hint(at + rng.within(0..10 * SEC))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Params;

    #[test]
    fn most_seeds_have_ambushes_in_every_state_and_some_have_none() {
        let plans: Vec<Vec<Strike>> = (0..400).map(|seed| Params::draw(seed).plan).collect();
        let lies = |strike: &&Strike| matches!(strike.when, When::Only(_));
        let with = plans
            .iter()
            .filter(|plan| plan.iter().any(|strike| lies(&strike)));
        let with = with.count();
        assert!((270..370).contains(&with), "{with} of 400 seeds");
        let ambushes: Vec<&Strike> = plans.iter().flatten().filter(lies).collect();
        for (state, _) in STATES {
            let when = When::Only(state);
            let count = ambushes.iter().filter(|strike| strike.when == when).count();
            assert!(count > 5, "{count} ambushes for {state:?}");
        }
        for kind in Kind::PLANNED.iter().copied().chain(MESSAGES) {
            let count = ambushes
                .iter()
                .filter(|strike| strike.fault.kind() == kind)
                .count();
            assert!(count > 20, "{count} ambushes of {kind:?}");
        }
    }

    #[test]
    fn no_ambush_waits_for_what_cannot_be() {
        for strike in (0..400).flat_map(|seed| Params::draw(seed).plan) {
            if let When::Only(state) = strike.when {
                assert_eq!(impossible(strike.fault.kind(), state), None);
            }
        }
    }

    #[test]
    fn weights_are_how_often_something_is_drawn() {
        let mut rng = Rng::new(1);
        let items = [('a', 1), ('b', 3)];
        let drawn = (0..4_000).filter(|_| draw_weighted(&mut rng, &items) == 'b');
        let drawn = drawn.count();
        assert!((2_800..3_200).contains(&drawn), "{drawn}");
    }
}
