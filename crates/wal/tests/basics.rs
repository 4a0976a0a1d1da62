//! What the log does when nothing goes wrong: appending, reading, truncating, forgetting, growing over segments.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use common::{MemDisk, Model, Random, entry, maintain_all, mark, open, state, truncate};
use quorate_base::Index;
use quorate_wal::{Options, ReadError, Record, Wal};

fn read_all(wal: &Wal) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    let mut index = wal.first_index();
    while index <= wal.last_index() {
        let some = wal.read(index, wal.last_index(), 700).unwrap();
        assert!(!some.is_empty(), "a read gives at least one entry");
        index = Index(index.0 + some.len() as u64);
        bodies.extend(some);
    }
    bodies
}

#[test]
fn what_was_appended_is_found_again() {
    let disk = MemDisk::default();
    let (mut wal, found) = open(&disk, 8192).unwrap();
    assert_eq!(found, Model::default(), "a fresh log is empty");
    let batches = [
        vec![state(b"one"), entry(1, "a"), entry(2, "")],
        vec![state(b"two"), entry(3, vec![7; 3000])],
        vec![],
    ];
    wal.append(&batches).unwrap();
    let mut model = Model::default();
    model.apply_all(&batches);
    assert_eq!(read_all(&wal), model.entries);
    drop(wal);
    let (wal, found) = open(&disk, 8192).unwrap();
    assert_eq!(found, model);
    assert_eq!(read_all(&wal), model.entries);
}

#[test]
fn all_batches_of_a_call_share_one_write_and_one_sync() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 1 << 20).unwrap();
    let (calls, syncs) = (disk.calls(), disk.syncs());
    let batches: Vec<_> = (1..=50).map(|i| vec![entry(i, vec![i as u8; 2000])]).collect();
    wal.append(&batches).unwrap();
    assert_eq!(disk.calls() - calls, 2);
    assert_eq!(disk.syncs() - syncs, 1);
}

#[test]
fn many_large_entries_go_out_in_one_system_call() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8 << 20).unwrap();
    let batches = [(1..=1500).map(|i| entry(i, vec![i as u8; 2000])).collect()];
    wal.append(&batches).unwrap();
    assert!(
        disk.most_parts() > 1000 && disk.most_parts() <= 1024,
        "{}",
        disk.most_parts()
    );
    drop(wal);
    let (_, found) = open(&disk, 8 << 20).unwrap();
    assert_eq!(found.entries.len(), 1500);
}

#[test]
fn nothing_to_append_touches_nothing() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8192).unwrap();
    let calls = disk.calls();
    wal.append(&[]).unwrap();
    wal.append(&[vec![], vec![]]).unwrap();
    assert_eq!(disk.calls(), calls);
}

#[test]
fn truncated_entries_are_replaced() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8192).unwrap();
    wal.append(&[vec![entry(1, "a"), entry(2, "b"), entry(3, "c")]])
        .unwrap();
    wal.append(&[vec![truncate(1), entry(2, "B")]]).unwrap();
    assert_eq!(read_all(&wal), ["a", "B"]);
    drop(wal);
    let (_, found) = open(&disk, 8192).unwrap();
    assert_eq!(found.entries, ["a", "B"]);
}

#[test]
fn an_installed_snapshot_replaces_the_log() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8192).unwrap();
    wal.append(&[vec![entry(1, "a"), entry(2, "b")]]).unwrap();
    wal.append(&[vec![truncate(1), mark(100, b"snapshot"), entry(101, "z")]])
        .unwrap();
    let (_, found) = open(&disk, 8192).unwrap();
    assert_eq!((found.start, found.entries), (100, vec![Bytes::from("z")]));
    assert!(matches!(
        wal.read(Index(2), Index(101), 9),
        Err(ReadError::Compacted {
            first: Index(101),
            ..
        })
    ));
    assert!(matches!(
        wal.read(Index(101), Index(102), 9),
        Err(ReadError::Absent { last: Index(101), .. })
    ));
}

#[test]
fn old_segments_go_and_space_stays_bounded() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8192).unwrap();
    let mut random = Random(1);
    let mut model = Model::default();
    for i in 1..=400 {
        let mut batch = vec![
            entry(i, random.bytes(random.clone().below(900) as usize)),
            state(b"s"),
        ];
        if i % 10 == 0 {
            batch.push(mark(i - 5, b"m"));
        }
        let batches = [batch];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
        if i % 3 == 0 {
            maintain_all(&mut wal).unwrap();
        }
        let files = disk.files();
        assert!(files.len() <= 6, "{:?}", files.keys());
    }
    assert_eq!(read_all(&wal), model.entries);
    assert_eq!(open(&disk, 8192).unwrap().1, model);
}

#[test]
fn without_upkeep_the_log_still_works_and_stays_bounded() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 4096).unwrap();
    for i in 1..=200 {
        wal.append(&[vec![entry(i, vec![1; 300]), mark(i - 1, b"")]])
            .unwrap();
    }
    assert!(disk.files().len() <= 3, "{:?}", disk.files().keys());
    assert_eq!(open(&disk, 4096).unwrap().1.last(), 200);
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_longer_one() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 4096).unwrap();
    maintain_all(&mut wal).unwrap();
    let big = Random(3).bytes(3 << 19);
    wal.append(&[
        vec![entry(1, "small")],
        vec![entry(2, big.clone())],
        vec![entry(3, "after")],
    ])
    .unwrap();
    assert_eq!(
        read_all(&wal),
        [Bytes::from("small"), big.clone(), Bytes::from("after")]
    );
    let (wal, found) = open(&disk, 4096).unwrap();
    assert_eq!(found.entries[1], big);
    assert_eq!(wal.last_index(), Index(3));
}

#[test]
fn the_first_batch_may_be_larger_than_the_first_segment() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 2048).unwrap();
    wal.append(&[vec![entry(1, vec![9; 10_000])]]).unwrap();
    assert_eq!(open(&disk, 2048).unwrap().1.entries, [vec![9; 10_000]]);
}

#[test]
fn many_batches_spread_over_segments() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 4096).unwrap();
    let batches: Vec<Vec<Record>> = (1..=40).map(|i| vec![entry(i, vec![i as u8; 700])]).collect();
    wal.append(&batches).unwrap();
    let (wal, found) = open(&disk, 4096).unwrap();
    assert_eq!(found.last(), 40);
    assert_eq!(read_all(&wal), found.entries);
}

#[test]
fn a_read_stops_at_the_byte_limit() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 1 << 20).unwrap();
    wal.append(&[(1..=10).map(|i| entry(i, vec![0; 100])).collect()])
        .unwrap();
    assert_eq!(wal.read(Index(1), Index(10), 350).unwrap().len(), 3);
    assert_eq!(wal.read(Index(1), Index(10), 0).unwrap().len(), 1);
    assert_eq!(wal.read(Index(4), Index(5), 9999).unwrap().len(), 2);
}

/// Found before anything is written, for the log would not open again.
#[test]
fn what_does_not_continue_the_log_is_the_callers_mistake() {
    let mistakes = [
        (entry(7, "seven"), "an entry that is not the one after the last"),
        (entry(5, "five"), "an entry that is not the one after the last"),
        (truncate(2), "a truncation before the mark"),
        (mark(2, b"two"), "a mark that goes back"),
    ];
    for (mistake, why) in mistakes {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, 4096).unwrap();
        let entries = (1..=5).map(|i| entry(i, "")).chain([mark(3, b"three")]);
        wal.append(&[entries.collect()]).unwrap();
        let calls = disk.calls();
        let append = AssertUnwindSafe(|| wal.append(&[vec![mistake]]));
        let panic = catch_unwind(append).expect_err(why);
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains(why), "{why}: {text}");
        assert_eq!(disk.calls(), calls, "nothing was written");
    }
}

#[test]
fn a_missing_log_is_not_a_fresh_one() {
    let disk = MemDisk::default();
    let options = Options {
        must_exist: true,
        ..common::options(4096)
    };
    let opened = Wal::open(disk.shared(), options, &mut |_| {});
    assert!(matches!(opened, Err(quorate_wal::OpenError::Missing)));
    assert!(disk.files().is_empty(), "nothing was made");
}
