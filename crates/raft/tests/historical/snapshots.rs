//! Snapshots, and crashes in the middle of taking one.

use super::*;

/// OR 674e78aa: a crash in the middle of an install left a conflicting tail of the log. Here it is one write: all or nothing.
#[test]
fn a_crash_in_the_middle_of_an_install_leaves_a_conflicting_tail() {
    for written in [0, 1] {
        let mut c = Cluster::with_logs(&[&[2, 2, 2], &[2, 2, 2], &[1, 1, 1, 1]], 2);
        c.isolate(n(3));
        c.elect(n(1));
        c.compact(n(1), i(3));
        c.heal();
        c.heartbeat(n(1)); // n3 learns the term and refuses.
        if c.nodes[&n(3)].restored == 0 {
            c.heartbeat(n(1));
        }
        assert_eq!(c.nodes[&n(3)].restored, 1, "n3 was given a snapshot");
        // Once more, to stop it half way.
        c.isolate(n(3));
        for _ in 0..3 {
            c.propose(n(1));
        }
        c.run();
        c.compact(n(1), i(7));
        c.node(n(3)).slow_disk = true;
        c.heal();
        for _ in 0..2 {
            c.heartbeat(n(1));
        }
        let installs = c.nodes[&n(3)]
            .writes
            .iter()
            .filter(|filled| filled.write.installed.is_some())
            .count();
        assert_eq!(installs, 1);
        let before = c.nodes[&n(3)].image.last_index();
        c.crash(n(3), written);
        let image = &c.nodes[&n(3)].image;
        let ends = (image.base.last.index, image.last_index());
        assert_eq!(
            ends,
            if written == 1 {
                (i(7), i(7))
            } else {
                (image.base.last.index, before)
            }
        );
        c.node(n(3)).slow_disk = false;
        c.start(n(3));
        for _ in 0..3 {
            c.heartbeat(n(1));
        }
        assert_eq!(c.nodes[&n(3)].machine, c.nodes[&n(1)].machine);
    }
}

/// OR #1828: its last entry is its base, so there is nothing to compare with.
#[test]
fn a_leader_whose_log_is_all_purged_never_sends_a_snapshot() {
    let mut c = Cluster::new(3);
    c.isolate(n(3));
    c.elect(n(1));
    c.propose(n(1));
    c.run();
    c.compact(n(1), i(2));
    assert_eq!(c.terms(n(1)), []);
    c.heal();
    c.heartbeat(n(1));
    c.heartbeat(n(1));
    assert_eq!((c.nodes[&n(3)].restored, c.raft(n(3)).commit()), (1, i(2)));
}

/// RR #417: a second install while the first is still on its way to the disk.
#[test]
fn overlapping_installs_get_the_persisted_index_wrong() {
    let mut c = Cluster::new(3);
    let raft = c.node(n(2)).raft.as_mut().unwrap();
    let heartbeat = Body::Heartbeat {
        commit: i(0),
        round: 1,
    };
    let message = quorate_raft::Message {
        term: Term(1),
        body: heartbeat,
    };
    raft.step(Input::Message { from: n(1), message });
    let mut writes = Vec::new();
    for index in [5, 9] {
        let meta = SnapMeta {
            last: at(1, index),
            config: Config::of([1, 2, 3].map(n)),
        };
        raft.step(Input::SnapshotStaged {
            from: n(1),
            term: Term(1),
            meta: Box::new(meta),
        });
        writes.push(raft.take_effects().write.unwrap().id);
    }
    raft.step(Input::Persisted(writes[0]));
    assert_eq!(raft.take_effects().restore, None, "the first is out of date");
    assert_eq!(raft.durable(), i(5), "and the second is not on the disk");
    raft.step(Input::Persisted(writes[1]));
    assert_eq!(raft.durable(), i(9));
    assert_eq!(raft.take_effects().restore.map(|meta| meta.last), Some(at(1, 9)));
}

/// A no-op of the harness is never mistaken for a command: what the ghost compares tells entries apart.
#[test]
fn the_harness_would_notice() {
    let mut c = Cluster::new(1);
    c.run();
    assert_eq!(c.ghost.committed[0].payload, noop(Term(1)));
    c.ghost.committed[0].payload += 1;
    c.restart(n(1));
    let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.run()));
    assert!(wrong.is_err(), "State Machine Safety is checked (S3)");
}
