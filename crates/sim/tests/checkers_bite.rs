//! The whole simulation must be able to fail: with disks that lie about syncing, the same checks over the same faults find
//! what was lost. (Forged histories and forged deeds are rejected one by one in the unit tests.)

use quorate_sim::failure::Failure;
use quorate_sim::params::{MS, Params, SEC};
use quorate_sim::plan::{Fault, Strike, When};
use quorate_sim::run;

/// A cluster that loses power again and again.
fn stormy(seed: u64) -> Params {
    let power = |n: u64| Strike {
        at: n * SEC,
        when: When::Now,
        fault: Fault::PowerLoss {
            leader: n.is_multiple_of(2),
            down: 300 * MS,
        },
    };
    Params {
        plan: (3..55).map(power).collect(),
        ..Params::draw(seed)
    }
}

#[test]
fn disks_that_lie_are_found_out() {
    for seed in 0..10 {
        let (failure, _) = run(
            Params {
                lying_disks: true,
                ..stormy(seed)
            },
            false,
        )
        .expect_err("a disk that forgets what it confirmed cannot go unnoticed");
        // Either the log itself proves that something is gone, or an invariant does.
        let found = match &failure {
            Failure::Crash(why) => why.contains("refuses to start"),
            Failure::Correctness(_) => true,
            Failure::Liveness(_) => false,
        };
        assert!(found, "seed {seed}: {failure}");
    }
}

#[test]
fn the_same_storm_over_honest_disks_is_survived() {
    for seed in 0..4 {
        let report = run(stormy(seed), false).unwrap_or_else(|(failure, _)| panic!("seed {seed}: {failure}"));
        assert!(report.calls.len() >= 1_000);
    }
}
