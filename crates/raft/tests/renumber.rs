//! Renumbering changes nothing: at any moment of many random lives, a core whose numbers were brought down does with every input what the
//! original does. The model checker relies on that.

mod common;

use common::Cluster;
use common::explore::{Chance, Mood, equip};
use common::inputs::inputs;
use common::lives::{live, three};
use quorate_base::NodeId;
use quorate_raft::{Effects, Input, Outgoing, Raft, Timer};

/// Effects without the numbers that may differ, in an order of their own and each message once.
fn bare(mut effects: Effects) -> Effects {
    if let Some(write) = &mut effects.write {
        write.id = 0;
        if let Some(range) = &mut write.append {
            range.epoch = 0;
        }
    }
    if let Some(range) = &mut effects.apply {
        range.epoch = 0;
    }
    let mut once: Vec<Outgoing> = Vec::new();
    for mut outgoing in effects.send {
        if let Outgoing::Append { range, .. } = &mut outgoing {
            range.epoch = 0;
        }
        if !once.contains(&outgoing) {
            once.push(outgoing);
        }
    }
    effects.send = once;
    effects
}

fn brought_down(raft: &Raft) -> (Raft, u64) {
    let mut raft = raft.clone();
    raft.forget_repetitions();
    let shift = raft.renumber();
    (raft, shift.writes)
}

fn same_deeds(cluster: &Cluster, id: NodeId) -> u64 {
    let mut original = cluster.raft(id).clone();
    let last = original.take_effects().write.map_or(u64::MAX, |write| write.id);
    let (copy, shift) = brought_down(&original);
    let mut shifted = 0;
    for input in inputs(cluster, id, last) {
        let mut original = original.clone();
        let mut copy = copy.clone();
        let moved = match &input {
            Input::Persisted(write) if *write > shift => Input::Persisted(write - shift),
            Input::Persisted(_) => continue,
            other => other.clone(),
        };
        original.step(input.clone());
        copy.step(moved);
        let done = (bare(original.take_effects()), bare(copy.take_effects()));
        assert_eq!(done.0, done.1, "n{id} does otherwise on {input:?}");
        assert_eq!(
            brought_down(&original).0,
            brought_down(&copy).0,
            "n{id} is another after {input:?}"
        );
        shifted += u64::from(shift > 0);
    }
    shifted
}

#[test]
fn a_core_with_other_numbers_does_the_same() {
    let begin = |_, chance: &mut Chance| {
        let mut cluster = three(chance);
        let mood = Mood::any(chance);
        equip(&mut cluster, chance, &mood);
        (cluster, mood)
    };
    let mut shifted = 0;
    live(150, begin, |cluster, id, _| shifted += same_deeds(cluster, id));
    assert!(shifted > 5_000, "only {shifted} inputs after a renumbering");
}

/// As long as the haste timer never fires, its steps mean nothing.
#[test]
fn a_core_that_forgot_the_steps_of_its_haste_does_the_same() {
    let begin = |_, chance: &mut Chance| {
        let mut mood = Mood::any(chance);
        mood.clocks = false;
        (Cluster::new(3), mood)
    };
    let mut hasty = 0;
    live(60, begin, |cluster, id, _| {
        for input in inputs(cluster, id, u64::MAX) {
            let mut original = cluster.raft(id).clone();
            let mut copy = original.clone();
            copy.forget_haste_steps();
            hasty += u64::from(copy != original);
            if matches!(input, Input::Fired(Timer::Haste)) {
                continue;
            }
            original.step(input.clone());
            copy.step(input.clone());
            let mut done = (original.take_effects(), copy.take_effects());
            for effects in [&mut done.0, &mut done.1] {
                effects.timers.retain(|armed| armed.0 != Timer::Haste);
            }
            assert_eq!(done.0, done.1, "n{id} does otherwise on {input:?}");
            original.forget_haste_steps();
            copy.forget_haste_steps();
            assert_eq!(original, copy, "n{id} is another after {input:?}");
        }
    });
    assert!(hasty > 1_000, "only {hasty} inputs in a haste");
}
