//! Disks that answer with errors: after a failed write or sync the log is closed, a restart finds what was acknowledged, and
//! what it finds is durable from then on. A full disk is noticed while there is still room.

mod common;

use std::io::ErrorKind;

use common::{Fault, MemDisk, Model, SMALL, Step, entry, maintain_all, open, run, workload};
use quorate_wal::{OpenError, ReadError, Space, WriteError};

const FAULTS: [Fault; 4] = [
    Fault::Nothing(ErrorKind::Other),
    Fault::Short(ErrorKind::Other),
    Fault::Nothing(ErrorKind::StorageFull),
    Fault::Short(ErrorKind::StorageFull),
];

/// Restarts the process (not the machine) and checks that whatever it finds stays, even if the machine then crashes.
fn restart(disk: &MemDisk, possible: &[Model]) {
    disk.heal();
    let (mut wal, found) = open(disk, SMALL).expect("an error of the disk is not damage");
    assert!(
        possible.contains(&found),
        "found {found:#?}\nnot one of {possible:#?}"
    );
    let survives = |disk: &MemDisk| {
        let opened = open(disk, SMALL);
        opened
            .unwrap_or_else(|error| {
                panic!("a log that was said to be durable is damaged after a crash: {error}")
            })
            .1
    };
    let crashed = disk.after_crash(&mut || false);
    assert_eq!(survives(&crashed), found, "what counts is durable");
    let last = vec![vec![entry(found.last() + 1, "goes on")]];
    let outcome = run(disk, &mut wal, found, &[Step::Append(last)]);
    assert!(!outcome.failed);
    let crashed = disk.after_crash(&mut || false);
    assert_eq!(survives(&crashed), outcome.possible[0]);
}

#[test]
fn an_error_at_any_call_closes_the_log_and_loses_nothing() {
    let steps = workload();
    for fault in FAULTS {
        let (mut closed, mut survived) = (0, 0);
        for nth in 0.. {
            let disk = MemDisk::default();
            disk.fail_at(nth, fault);
            let Ok((mut wal, model)) = open(&disk, SMALL) else {
                restart(&disk, &[Model::default()]);
                continue;
            };
            if disk.calls() > nth {
                panic!("the failed call {nth} of opening went unnoticed");
            }
            let outcome = run(&disk, &mut wal, model, &steps);
            let reached = disk.calls() > nth;
            drop(wal);
            restart(&disk, &outcome.possible);
            if !reached {
                break;
            }
            *(if outcome.failed {
                &mut closed
            } else {
                &mut survived
            }) += 1;
        }
        assert!(closed > 20, "{fault:?} closed the log {closed} times");
        let full = matches!(
            fault,
            Fault::Nothing(ErrorKind::StorageFull) | Fault::Short(ErrorKind::StorageFull)
        );
        assert_eq!(
            survived > 0,
            full,
            "only a full disk in upkeep is survived: {survived} times"
        );
    }
}

/// Recovery that fails half-way and is tried again by the next process, with the page cache of the first.
#[test]
fn an_error_in_recovery_is_no_worse_than_a_crash() {
    let steps = workload();
    let mut errors = 0;
    for crash in 0.. {
        let disk = MemDisk::default();
        disk.fail_at(crash, Fault::Crash);
        let Ok((mut wal, model)) = open(&disk, SMALL) else {
            continue;
        };
        let outcome = run(&disk, &mut wal, model, &steps);
        if !outcome.failed {
            break;
        }
        let mut turn = 0;
        let files = disk
            .after_crash(&mut || {
                turn += 1;
                turn % 3 != 0
            })
            .files();
        let found = open(&MemDisk::of(&files), SMALL).unwrap().1;
        for fault in FAULTS {
            for nth in 0.. {
                let image = MemDisk::of(&files);
                image.fail_at(nth, fault);
                if open(&image, SMALL).is_ok() {
                    break;
                }
                errors += 1;
                restart(&image, std::slice::from_ref(&found));
            }
        }
    }
    assert!(errors > 400, "only {errors} errors in recovery");
}

#[test]
fn a_full_disk_is_noticed_while_a_segment_is_left() {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, SMALL).unwrap();
    disk.set_capacity(Some(2 * SMALL as usize + 1000));
    let body = vec![1; 400];
    let append = |wal: &mut quorate_wal::Wal, model: &mut Model| {
        let batches = [vec![entry(model.last() + 1, body.clone())]];
        wal.append(&batches)?;
        model.apply_all(&batches);
        Ok::<(), WriteError>(())
    };
    maintain_all(&mut wal).unwrap();
    assert_eq!(wal.maintain().unwrap(), Space::Ok, "two segments fit");
    while wal.reserved() > u64::from(SMALL) - 1024 {
        append(&mut wal, &mut model).unwrap();
        maintain_all(&mut wal).unwrap();
    }
    assert_eq!(wal.space(), Space::Low);
    let reserved = wal.reserved();
    assert!(
        reserved >= u64::from(SMALL) / 2,
        "most of a segment is still there: {reserved}"
    );
    append(&mut wal, &mut model).unwrap();
    assert_eq!(wal.maintain().unwrap(), Space::Low, "it does not pass by itself");

    disk.set_capacity(None);
    maintain_all(&mut wal).unwrap();
    assert_eq!(wal.space(), Space::Ok, "but with new space it does");
    for _ in 0..20 {
        append(&mut wal, &mut model).unwrap();
    }
    assert_eq!(open(&disk, SMALL).unwrap().1, model);
}

#[test]
fn only_a_full_disk_is_called_full() {
    for (kind, full) in [
        (ErrorKind::StorageFull, true),
        (ErrorKind::QuotaExceeded, true),
        (ErrorKind::Other, false),
    ] {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, SMALL).unwrap();
        disk.fail_at(0, Fault::Nothing(kind));
        let error = wal.append(&[vec![entry(1, "one")]]).unwrap_err();
        assert_eq!(error.is_full(), full, "{error}");
        let error = wal.append(&[vec![entry(1, "one")]]).unwrap_err();
        assert!(
            matches!(error, WriteError::Closed(_)) && !error.is_full(),
            "{error}"
        );
    }
}

#[test]
fn an_append_without_any_room_left_closes_the_log_and_loses_nothing() {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, SMALL).unwrap();
    disk.set_capacity(Some(SMALL as usize));
    let error = loop {
        let batches = [vec![entry(model.last() + 1, vec![1; 400])]];
        match wal.append(&batches) {
            Ok(()) => model.apply_all(&batches),
            Err(error) => break error,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(model.last() >= 3);
    disk.set_capacity(None);
    restart(&disk, &[model]);
}

/// A preparation left over by a crash, longer than a segment and full of noise.
#[test]
fn remains_of_a_preparation_do_no_harm() {
    let noise = common::Random(1).bytes(3 * SMALL as usize).to_vec();
    let disk = MemDisk::of(&[("wal-prepare".to_owned(), noise)].into());
    let (mut wal, mut model) = open(&disk, SMALL).unwrap();
    maintain_all(&mut wal).unwrap();
    for i in 1..=10 {
        let batches = [vec![entry(i, vec![1; 900])]];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
    }
    assert_eq!(open(&disk, SMALL).unwrap().1, model);
}

/// Some file systems only find out in the sync. The file that failed must not become a segment.
#[test]
fn a_preparation_whose_sync_failed_is_begun_anew() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, SMALL).unwrap();
    // Creating, emptying and writing come first.
    disk.fail_at(3, Fault::Nothing(ErrorKind::StorageFull));
    assert_eq!(wal.maintain().unwrap(), Space::Low);
    let calls = disk.calls();
    assert_eq!(wal.maintain().unwrap(), Space::Ok);
    assert_eq!(disk.calls() - calls, 3, "emptied, written, synced");
}

/// The disk cannot be looked at: no file is listed, opened, measured or read at one moment. That is an error of the disk, never damage,
/// and never a log with less in it.
#[test]
fn an_error_of_any_reading_call_is_reported_as_such() {
    let disk = MemDisk::default();
    let (mut wal, model) = open(&disk, SMALL).unwrap();
    let model = run(&disk, &mut wal, model, &workload()).possible.remove(0);
    let files = disk.files();
    let mut errors = 0;
    for nth in 0.. {
        let image = MemDisk::of(&files);
        image.fail_look_at(nth, ErrorKind::Other);
        match open(&image, SMALL) {
            Err(OpenError::Disk(_)) => errors += 1,
            Err(other) => panic!("call {nth}: {other}"),
            Ok((_, found)) => {
                assert_eq!(found, model, "call {nth} failed and was not missed");
                assert!(image.looks() <= nth, "the failed call {nth} went unnoticed");
                break;
            }
        }
        restart(&image, std::slice::from_ref(&model));
    }
    assert!(errors > 10, "only {errors} errors");
    let (first, last) = (wal.first_index(), wal.last_index());
    assert!(first < last, "several entries are there");
    disk.fail_look_at(0, ErrorKind::Other);
    let failed = wal.read(first, last, usize::MAX);
    assert!(matches!(failed, Err(ReadError::Disk(_))), "{failed:?}");
    assert_eq!(
        wal.read(first, last, usize::MAX).unwrap(),
        model.entries,
        "it passes"
    );
}
