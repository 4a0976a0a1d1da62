//! Figure 8 of the Raft paper (Figure 3.7 of the thesis): an entry of an earlier term that is stored on a majority can still be
//! overwritten, and so must not be committed by counting replicas; together with an entry of the leader's own term it is safe.
//!
//! Our leaders place a no-op at once, so the figure's "(c) but 4 not replicated" is reached by losing just that no-op.

mod common;

use common::{Cluster, i, n};
use quorate_base::Term;
use quorate_raft::RoleKind;

/// Up to (c): S1 leads term 4, has replicated entry 2 of term 2 to S3, a majority with S2, and its entry of term 4 is on its
/// own disk only.
fn up_to_c() -> Cluster {
    // (a) S1 and S2 hold entry 2 of term 2. (b) S5 has one of term 3 in that place.
    let mut c = Cluster::with_logs(&[&[1, 2], &[1, 2], &[1], &[1], &[1, 3]], 3);
    // (c) S5 is down; S1 is elected for term 4 by S2, S3 and S4.
    c.crash(n(5), 0);
    // Room for one entry a message: what repairs S3 does not take the no-op along.
    c.limits.max_append_bytes = 10;
    for id in [1, 2, 3, 4] {
        c.restart(n(id));
    }
    c.cut.extend([(n(1), n(2)), (n(1), n(3)), (n(1), n(4))]);
    c.heal();
    c.run();
    c.fire(n(1), quorate_raft::Timer::Election);
    // Lose all Appends but the one that gives entry 2 to S3.
    for _ in 0..100 {
        for id in [1, 2, 3, 4] {
            c.settle(n(id));
        }
        c.lose_where(|parcel| match &parcel.what {
            common::What::Message(message, _) => match &message.body {
                quorate_raft::Body::Append { prev, .. } => {
                    let repairs_s3 = parcel.to == n(3) && *prev == common::at(1, 1);
                    // The first probe has to be refused for the leader to learn what S3 lacks.
                    let asks_s3 = parcel.to == n(3) && *prev == common::at(2, 2) && !repairs_s3;
                    !(repairs_s3 || asks_s3)
                }
                _ => false,
            },
            _ => false,
        });
        let Some(parcel) = c.network.pop_front() else {
            break;
        };
        let repaired = c.terms(n(3)) == [1, 2];
        let append = matches!(&parcel.what, common::What::Message(m, _) if matches!(m.body, quorate_raft::Body::Append { .. }));
        match repaired && append {
            true => c.lose(parcel),
            false => c.deliver(parcel),
        }
    }
    assert_eq!(
        (c.raft(n(1)).role(), c.raft(n(1)).term()),
        (RoleKind::Leader, Term(4))
    );
    assert_eq!(c.terms(n(1)), [1, 2, 4]);
    assert_eq!(
        (c.terms(n(2)), c.terms(n(3)), c.terms(n(4))),
        (vec![1, 2], vec![1, 2], vec![1])
    );
    let s3 = c.raft(n(1)).peers().find(|peer| peer.0 == n(3)).unwrap().1;
    assert_eq!(s3.matched, i(2), "S1 knows that S3 has entry 2");
    c
}

/// Entry 2 is on S1, S2 and S3, a majority, and S1 knows of S3; still it is not committed.
#[test]
fn c_an_entry_of_an_earlier_term_on_a_majority_is_not_committed() {
    let mut c = up_to_c();
    c.message(n(2), n(1), 4, quorate_raft::Body::Appended { upto: i(2) });
    assert_eq!(c.raft(n(1)).commit(), i(0));
}

/// (d) S1 crashes; S5 is elected by S3 and S4 (its last term, 3, is later than theirs, 2), and overwrites entry 2.
#[test]
fn d_it_can_still_be_overwritten() {
    let mut c = up_to_c();
    c.network.clear();
    c.crash(n(1), 0);
    c.start(n(5));
    c.run();
    // S5 missed term 4, so its first attempt only teaches it that.
    c.fire(n(5), quorate_raft::Timer::Election);
    c.run();
    c.elect(n(5));
    assert_eq!(c.raft(n(5)).term(), Term(5));
    for id in [2, 3, 4, 5] {
        assert_eq!(c.terms(n(id)), [1, 3, 5], "n{id}");
    }
    c.start(n(1));
    c.heartbeat(n(5));
    c.heartbeat(n(5));
    assert_eq!(c.terms(n(1)), [1, 3, 5]);
}

/// (e) S1 replicates an entry of its own term to a majority before it crashes: now S5 cannot win, and entry 2 is safe with it.
#[test]
fn e_with_an_own_term_entry_on_a_majority_it_is_committed_and_safe() {
    let mut c = up_to_c();
    c.network.clear();
    c.isolate(n(4));
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!(c.raft(n(1)).commit(), i(3), "entries 2 and 3 at once");
    c.crash(n(1), 0);
    c.heal();
    c.start(n(5));
    for _ in 0..3 {
        for id in [2, 3, 4, 5] {
            c.fire(n(id), quorate_raft::Timer::Fresh);
        }
        c.fire(n(5), quorate_raft::Timer::Election);
        c.run();
        assert_ne!(
            c.raft(n(5)).role(),
            RoleKind::Leader,
            "S2 and S3 have a later last term"
        );
    }
    c.elect(n(2));
    assert_eq!(c.terms(n(5))[..3], [1, 2, 4]);
}
