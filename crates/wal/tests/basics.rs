//! What the log does when nothing goes wrong: appending, reading, truncating, forgetting, growing over segments.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use common::{MemDisk, Model, Random, SECTOR, entry, maintain_all, mark, open, state, truncate};
use quorate_base::Index;
use quorate_wal::{Options, ReadError, Record, Wal};

fn state_of(body: Vec<u8>) -> Record {
    Record::State(body.into())
}

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

/// What a read asks for is named as it was asked, so that the caller can tell what is missing.
#[test]
fn a_read_of_what_is_not_there_says_what_is() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 1 << 20).unwrap();
    wal.append(&[(1..=10).map(|i| entry(i, "x")).collect()]).unwrap();
    let absent = |first: u64, last: u64| match wal.read(Index(first), Index(last), 9) {
        Err(ReadError::Absent { asked, last }) => (asked.0, last.0),
        other => panic!("{first} to {last}: {other:?}"),
    };
    assert_eq!(absent(10, 11), (11, 10));
    assert_eq!(absent(12, 15), (15, 10));
    assert_eq!(absent(5, 4), (5, 10), "an empty range");
    assert_eq!(absent(11, 10), (11, 10), "at the end too");
    assert!(wal.read(Index(10), Index(10), 9).is_ok());
}

/// Entries that stand close together are read at once, up to a MiB; what lies between entries far apart is not read.
#[test]
fn neighbours_are_read_together() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8 << 20).unwrap();
    let reads = |wal: &Wal, first: u64, last: u64| {
        disk.take_reads();
        let bodies = wal.read(Index(first), Index(last), usize::MAX).unwrap();
        assert_eq!(bodies.len() as u64, last - first + 1);
        disk.take_reads()
    };
    let small = (1..=3).map(|i| vec![entry(i, vec![1; 100])]);
    for batch in small {
        wal.append(&[batch]).unwrap();
    }
    // Two sectors a frame, each record a header of twenty bytes.
    assert_eq!(reads(&wal, 1, 3), [2 * 1024 + 100 + 20 - 28]);
    // As far apart as may be, and further.
    for (distance, together) in [(8 << 10, true), ((8 << 10) + 1, false)] {
        let next = wal.last_index().0 + 1;
        let body = vec![2; distance - 20];
        let batch = vec![entry(next, "a"), state_of(body), entry(next + 1, "b")];
        wal.append(&[batch]).unwrap();
        let count = reads(&wal, next, next + 1).len();
        assert_eq!(count == 1, together, "{distance} bytes between");
    }
    // A MiB at most, to the byte.
    for (size, together) in [(1 << 19, true), ((1 << 19) + 1, false)] {
        let next = wal.last_index().0 + 1;
        let batch = vec![
            entry(next, vec![3; (1 << 19) - 20]),
            entry(next + 1, vec![4; size - 20]),
        ];
        wal.append(&[batch]).unwrap();
        let lengths = reads(&wal, next, next + 1);
        let expected = if together {
            vec![1 << 20]
        } else {
            vec![1 << 19, size]
        };
        assert_eq!(lengths, expected);
    }
}

#[test]
fn opening_reads_many_entries_at_once() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 1 << 20).unwrap();
    wal.append(&[(1..=100).map(|i| entry(i, vec![1; 100])).collect()])
        .unwrap();
    drop(wal);
    disk.take_reads();
    open(&disk, 1 << 20).unwrap();
    let reads = disk.take_reads();
    assert_eq!(
        reads.len(),
        4,
        "the header, all, the last frame, the entries: {reads:?}"
    );
}

/// Small bodies travel with the headers around them in one piece, large ones are not copied.
#[test]
fn bodies_from_a_kibibyte_on_are_not_copied() {
    for (size, parts) in [(1023, 3), (1024, 3 + 2 * 5 - 1)] {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, 1 << 20).unwrap();
        let before = disk.most_parts();
        wal.append(&[(1..=5).map(|i| entry(i, vec![1; size])).collect()])
            .unwrap();
        assert!(before <= parts);
        assert_eq!(disk.most_parts(), parts, "headers and bodies, padding, footer");
    }
}

/// A segment is filled to the last byte, with what every first frame repeats taken into account, and not further.
#[test]
fn a_batch_goes_where_it_just_fits() {
    let (state_body, mark_body) = (&b"the state"[..], &b"the mark"[..]);
    // Header of the frame, base record; state and mark where there are some.
    let bare = 40 + 28;
    let repeated = 20 + state_body.len() + 20 + mark_body.len();
    for (head, first) in [(bare, true), (bare + repeated, false)] {
        // The segment's header and one sector of footer are no room for records.
        let fits = 4096 - 2 * SECTOR - head - 20;
        for (size, segments) in [(fits, 1), (fits + 1, 2)] {
            let disk = MemDisk::default();
            let (mut wal, _) = open(&disk, 4096).unwrap();
            let mut index = 1;
            if !first {
                let batch = vec![entry(1, vec![0; 2500]), mark(1, b"the mark"), state(b"the state")];
                wal.append(&[batch, vec![]]).unwrap();
                index = 2;
            }
            let used = disk.files().len();
            wal.append(&[vec![entry(index, vec![7; size])]]).unwrap();
            let more = if first { 0 } else { 1 };
            let longest = disk.files().values().map(Vec::len).max().unwrap();
            if segments == 1 {
                assert!(disk.files().len() <= used + more && longest == 4096, "{size}");
                assert_eq!(wal.reserved(), 0, "to the last byte");
            } else {
                assert!(longest > 4096 || wal.reserved() > 0, "{size}");
            }
            assert_eq!(open(&disk, 4096).unwrap().1.entries.last().unwrap().len(), size);
        }
    }
}

#[test]
fn what_is_reserved_is_what_is_left() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 4096).unwrap();
    assert_eq!(wal.reserved(), 4096 - 512);
    wal.append(&[vec![entry(1, "a")]]).unwrap();
    assert_eq!(
        wal.reserved(),
        4096 - 512 - 1024,
        "a sector of records, one of checksums"
    );
    maintain_all(&mut wal).unwrap();
    assert_eq!(wal.reserved(), 2 * (4096 - 512) - 1024, "and a spare segment");
}

#[test]
fn segments_have_the_length_asked_for_in_whole_sectors() {
    for (asked, length) in [(0, 2048), (2049, 2560), (4096, 4096), (1 << 20, 1 << 20)] {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, asked).unwrap();
        maintain_all(&mut wal).unwrap();
        let files = disk.files();
        let lengths: Vec<_> = files.values().map(Vec::len).collect();
        assert_eq!(lengths, [length; 2], "{asked}");
    }
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
fn files_with_other_names_are_not_the_logs() {
    let names = [
        "wal-0000000000000000",
        "wal-1",
        "wal-000000000000000A",
        "wal-00000000000000001",
        "wal-000000000000000g",
        "wal-prepared",
        "notes",
    ];
    let others: BTreeMap<_, _> = names.map(|name| (name.to_owned(), b"not a log".to_vec())).into();
    let disk = MemDisk::of(&others);
    let (mut wal, found) = open(&disk, 4096).unwrap();
    assert_eq!(found, Model::default());
    wal.append(&[vec![entry(1, "one")]]).unwrap();
    assert_eq!(open(&disk, 4096).unwrap().1.entries, ["one"]);
    let files = disk.files();
    assert!(others.iter().all(|(name, bytes)| files[name] == *bytes));
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
