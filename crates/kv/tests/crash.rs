//! Power cuts and full disks at every single disk operation, of opening, flushing, compacting, restoring and catching up after a full
//! disk. Whatever is found afterwards must open, hold everything that was durable, and lead to the same state
//! when the log is replayed.

mod support;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Index, LogId, StateMachine};
use quorate_kv::*;
use support::disk::MemDisk;

const SEEDS: u64 = 2;

fn options() -> Options {
    Options {
        flush_bytes: 1,
        cache_bytes: 1 << 20,
        compact_chunk: 2,
        ..Options::default()
    }
}

fn open(disk: &MemDisk) -> io::Result<Kv> {
    Kv::open(Arc::new(disk.clone()), options())
}

fn put(key: &str, len: usize, lease: i64) -> Command {
    Command::Put(PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(vec![len as u8; len]),
        lease,
        ..PutRequest::default()
    })
}

/// A short life with something of everything.
fn log() -> Vec<Bytes> {
    let mut log = vec![Command::grant(level::NAMED_GRANTS, 5, 60)];
    for n in 0..6 {
        log.push(put(["a", "b", "c"][n % 3], 40 * n, if n == 2 { 5 } else { 0 }));
    }
    log.push(Command::DeleteRange(DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        ..DeleteRangeRequest::default()
    }));
    // Larger than the file, so that it grows.
    log.push(put("d", 1_500_000, 0));
    log.push(Command::Compact {
        revision: 8,
        physical: true,
    });
    log.push(Command::LeaseRevoke { id: 5, expiry: None });
    log.push(put("e", 3, 0));
    log.iter().map(Command::encode).collect()
}

fn at(n: usize) -> LogId {
    LogId::new(1, n as u64 + 1)
}

fn replay(kv: &mut Kv, log: &[Bytes]) {
    for (n, bytes) in log.iter().enumerate().skip(kv.applied().index.get() as usize) {
        let applied = kv.apply(at(n), bytes);
        assert!(
            applied.is_ok(),
            "the state is not the one before entry {n}: {applied:?}"
        );
    }
}

/// The hash of the state that the whole log leads to.
fn goal(log: &[Bytes]) -> u32 {
    let mut kv = Kv::open(Arc::new(MemDisk::default()), Options::default()).unwrap();
    replay(&mut kv, log);
    kv.hash().unwrap()
}

fn jobs(kv: &mut Kv) -> io::Result<()> {
    while let Some(job) = kv.job(true) {
        job()?;
    }
    Ok(())
}

/// Applies the log with jobs after every third entry; how far it got is in `durable`.
fn live(disk: &MemDisk, log: &[Bytes], durable: &mut Index) -> io::Result<()> {
    let mut kv = open(disk)?;
    *durable = kv.durable();
    for (n, bytes) in log.iter().enumerate() {
        kv.apply(at(n), bytes).unwrap();
        if n % 3 == 2 {
            let done = jobs(&mut kv);
            *durable = kv.durable();
            done?;
        }
    }
    let done = jobs(&mut kv);
    *durable = kv.durable();
    done
}

/// What a crash left opens, keeps the durable, and leads to the goal; opening it twice too.
fn check_after(disk: &MemDisk, durable: Index, log: &[Bytes], goal: u32, what: &str) {
    for seed in 0..SEEDS {
        let found = disk.after_crash(seed);
        drop(open(&found).unwrap_or_else(|e| panic!("{what}, seed {seed}: {e}")));
        let mut kv = open(&found).unwrap();
        assert!(
            kv.durable() >= durable,
            "{what}, seed {seed}: lost what was durable"
        );
        assert_eq!(kv.applied().index, kv.durable());
        replay(&mut kv, log);
        assert_eq!(kv.hash().unwrap(), goal, "{what}, seed {seed}");
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_durable() {
    let log = log();
    let goal = goal(&log);
    let whole = MemDisk::default();
    let mut durable = Index::ZERO;
    live(&whole, &log, &mut durable).unwrap();
    assert!(whole.ops() > 60, "the life is too short to tell: {}", whole.ops());
    for ops in 0..whole.ops() {
        let disk = MemDisk::default();
        disk.crash_after(ops);
        let mut durable = Index::ZERO;
        // Closing the store writes too, so the last crashes come after the life ended well.
        let _ = live(&disk, &log, &mut durable);
        check_after(&disk, durable, &log, goal, &format!("crash at operation {ops}"));
    }
}

/// A write fails of which a part was done, up to any byte, and the process ends; the machine goes on, or loses power too.
#[test]
fn a_write_cut_short_loses_nothing_durable() {
    let log = log();
    let goal = goal(&log);
    let whole = MemDisk::default();
    live(&whole, &log, &mut Index::ZERO.clone()).unwrap();
    let mut failed = 0;
    for ops in 0..whole.ops() {
        // Inside the first fields of a header, of a row of checksums, of a sector, and of a later one.
        for bytes in [[1, 11, 510, 700][ops as usize % 4], 150] {
            let disk = MemDisk::default();
            disk.short_after(ops, bytes);
            let mut durable = Index::ZERO;
            failed += usize::from(live(&disk, &log, &mut durable).is_err());
            let what = format!("operation {ops} cut after {bytes} bytes");
            check_after(&disk.after_kill(), durable, &log, goal, &what);
            check_after(&disk, durable, &log, goal, &format!("{what}, then no power"));
        }
    }
    assert!(failed > 100, "only {failed} lives met it");
}

/// etcd #17780: where the last revision is a deletion, compaction may leave no row to tell which it was. It must not be told from rows.
#[test]
fn a_crash_in_a_compaction_up_to_the_last_revision_never_lowers_it() {
    let delete = Command::DeleteRange(DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        ..DeleteRangeRequest::default()
    });
    let compact = |revision| Command::Compact {
        revision,
        physical: true,
    };
    let log: Vec<Bytes> = [put("a", 3, 0), delete, compact(3)]
        .iter()
        .map(Command::encode)
        .collect();
    let goal = goal(&log);
    let whole = MemDisk::default();
    live(&whole, &log, &mut Index::ZERO.clone()).unwrap();
    for ops in 0..=whole.ops() {
        let disk = MemDisk::default();
        disk.crash_after(ops);
        let mut durable = Index::ZERO;
        let _ = live(&disk, &log, &mut durable);
        check_after(&disk, durable, &log, goal, &format!("crash at operation {ops}"));
        let mut kv = open(&disk.after_crash(ops)).unwrap();
        replay(&mut kv, &log);
        assert_eq!((kv.revision(), kv.compacted_revision()), (3, 3));
    }
}

fn stream_of(log: &[Bytes]) -> (LogId, Vec<u8>) {
    let mut kv = open(&MemDisk::default()).unwrap();
    replay(&mut kv, log);
    let mut stream = Vec::new();
    let mut reader = kv.snapshot().unwrap();
    loop {
        let part = reader.read_chunk(100_000).unwrap();
        if part.is_empty() {
            return (kv.applied(), stream);
        }
        stream.extend_from_slice(&part);
    }
}

#[test]
fn a_crash_in_a_restore_leaves_the_old_state_or_the_new() {
    let log = log();
    let goal = goal(&log);
    let (to, stream) = stream_of(&log[..10]);
    let life = |disk: &MemDisk| -> io::Result<Kv> {
        let mut kv = open(disk)?;
        replay(&mut kv, &log[..4]);
        jobs(&mut kv)?;
        Ok(kv)
    };
    let whole = MemDisk::default();
    let mut kv = life(&whole).unwrap();
    let before = whole.ops();
    kv.restore(to, &mut stream.as_slice()).unwrap();
    let ops = whole.ops() - before;
    for op in 0..ops {
        let disk = MemDisk::default();
        let mut kv = life(&disk).unwrap();
        disk.crash_after(op);
        // The last operations close the old store, when the new one is in place.
        let durable = if kv.restore(to, &mut stream.as_slice()).is_ok() {
            to.index
        } else {
            Index(4)
        };
        let what = format!("crash at operation {op} of a restore");
        check_after(&disk, durable, &log, goal, &what);
        // The driver would restore again.
        let found = disk.after_crash(op);
        let mut kv = open(&found).unwrap();
        kv.restore(to, &mut stream.as_slice()).unwrap();
        replay(&mut kv, &log);
        assert_eq!(kv.hash().unwrap(), goal);
    }
}

/// Whoever closes a file hears of an error too: after a failed write or sync nobody may go on, and least of all put that file in place.
#[test]
fn an_error_at_any_operation_of_a_restore_or_a_job_is_told() {
    let log = log();
    let goal = goal(&log);
    let (to, stream) = stream_of(&log[..10]);
    let mut told = 0;
    for op in 0.. {
        let disk = MemDisk::default();
        let mut kv = open(&disk).unwrap();
        replay(&mut kv, &log[..4]);
        jobs(&mut kv).unwrap();
        let before = disk.ops();
        disk.fail_after(op);
        let done = kv.restore(to, &mut stream.as_slice()).and_then(|()| {
            replay(&mut kv, &log);
            jobs(&mut kv)
        });
        let struck = disk.ops() > before + op;
        assert_eq!(done.is_err(), struck, "operation {op}: {done:?}");
        if !struck {
            break;
        }
        assert_ne!(done.unwrap_err().kind(), io::ErrorKind::StorageFull);
        told += 1;
        drop(kv);
        check_after(
            &disk,
            Index(4),
            &log,
            goal,
            &format!("an error at operation {op}"),
        );
    }
    assert!(told > 60, "only {told}");
}

#[test]
fn a_disk_too_full_for_a_snapshot_says_so_and_keeps_the_old_state() {
    let log = log();
    let (to, stream) = stream_of(&log);
    let disk = MemDisk::default();
    let mut kv = open(&disk).unwrap();
    replay(&mut kv, &log[..5]);
    jobs(&mut kv).unwrap();
    let hash = kv.hash().unwrap();
    let mut refused = 0;
    for op in 0.. {
        disk.full_after(Some(op));
        let restored = kv.restore(to, &mut stream.as_slice());
        disk.full_after(None);
        match restored {
            Ok(()) => break,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}"),
        }
        refused += 1;
        assert_eq!(kv.hash().unwrap(), hash);
    }
    assert!(refused > 5, "the restore is too short to tell: {refused}");
    assert_eq!(kv.applied(), to);
}

#[test]
fn what_cannot_be_read_ends_the_process_and_is_no_answer() {
    let disk = MemDisk::default();
    let mut kv = open(&disk).unwrap();
    // More than the engine reads ahead when it opens a file.
    let puts = 3000;
    for i in 0..puts {
        kv.apply(at(i), &put(&format!("k{i:03}"), 1000, 0).encode())
            .unwrap();
    }
    jobs(&mut kv).unwrap();
    drop(kv);
    // Reopened, so that hardly anything is cached.
    let mut kv = open(&disk).unwrap();
    disk.fail_reads();
    let compare = Compare {
        key: Bytes::from_static(b"k250"),
        range_end: Bytes::new(),
        op: CompareOp::Equal,
        target: CompareTarget::Value(Bytes::from_static(b"v")),
    };
    let txn = TxnRequest {
        compare: vec![compare],
        ..TxnRequest::default()
    };
    let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        kv.apply(at(puts), &Command::Txn(txn).encode())
    }));
    let panic = applied.expect_err("an answer would differ from the other members'");
    let text = panic.downcast_ref::<String>().expect("a message");
    assert!(text.contains("cannot be read"), "{text}");
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let log = log();
    let (to, stream) = stream_of(&log[..8]);
    let disk = MemDisk::default();
    let mut kv = open(&disk).unwrap();
    replay(&mut kv, &log[..3]);
    let hash = kv.hash().unwrap();
    for byte in (0..stream.len()).step_by(5) {
        let mut damaged = stream.clone();
        damaged[byte] ^= 1 << (byte % 8);
        kv.restore(to, &mut damaged.as_slice()).unwrap_err();
        kv.restore(to, &mut &stream[..byte]).unwrap_err();
    }
    kv.restore(LogId::new(9, 9), &mut stream.as_slice())
        .expect_err("of another entry");
    assert_eq!(kv.hash().unwrap(), hash);
    assert_eq!(kv.applied(), at(2));
    kv.restore(to, &mut stream.as_slice()).unwrap();
    assert_eq!(kv.applied(), to);
}

/// A store with most of the log applied and flushed, the rest waiting.
fn before_full(log: &[Bytes]) -> (MemDisk, Kv) {
    let disk = MemDisk::default();
    let mut kv = open(&disk).unwrap();
    replay(&mut kv, &log[..5]);
    jobs(&mut kv).unwrap();
    replay(&mut kv, log);
    (disk, kv)
}

/// The disk is full from operation `op` of a flush on. `None` if the flush is shorter than that.
fn fill(log: &[Bytes], op: u64) -> Option<(MemDisk, Kv)> {
    let (disk, mut kv) = before_full(log);
    let job = kv.job(true).unwrap();
    disk.full_after(Some(op));
    job().unwrap();
    if !kv.space_low() {
        return None;
    }
    assert_eq!(kv.durable(), Index(5));
    assert!(kv.job(true).is_none(), "the driver must not spin");
    Some((disk, kv))
}

#[test]
fn a_full_disk_loses_nothing_and_passes() {
    let log = log();
    let goal = goal(&log);
    let mut points = 0;
    for op in 0.. {
        let Some((disk, mut kv)) = fill(&log, op) else {
            break;
        };
        points += 1;
        assert_eq!(
            kv.hash().unwrap(),
            goal,
            "everything can be read while the disk is full"
        );
        check_after(
            &disk,
            Index(5),
            &log,
            goal,
            &format!("crash while full from operation {op}"),
        );
        kv.job(false).unwrap()().unwrap();
        assert!(kv.space_low(), "still full");
        assert!(kv.job(false).is_none());
        disk.full_after(None);
        kv.job(false).unwrap()().unwrap();
        assert!(!kv.space_low());
        assert_eq!(kv.durable(), Index(log.len() as u64));
        jobs(&mut kv).unwrap();
        assert_eq!(kv.hash().unwrap(), goal);
        check_after(&disk, Index(log.len() as u64), &log, goal, "after space returned");
    }
    assert!(points > 5, "the flush is too short to tell: {points}");
}

#[test]
fn a_crash_while_catching_up_after_a_full_disk() {
    let log = log();
    let goal = goal(&log);
    for op in (0..).step_by(10) {
        let Some((disk, mut kv)) = fill(&log, op) else {
            break;
        };
        disk.full_after(None);
        let before = disk.ops();
        kv.job(false).unwrap()().unwrap();
        for crash in 0..disk.ops() - before {
            let (disk, mut kv) = fill(&log, op).unwrap();
            disk.full_after(None);
            disk.crash_after(crash);
            kv.job(false).unwrap()().unwrap_err();
            check_after(
                &disk,
                Index(5),
                &log,
                goal,
                &format!("full from {op}, crash at {crash}"),
            );
        }
    }
}

#[test]
fn a_store_of_another_format_or_an_emptied_one_is_refused() {
    use quorate_base::Disk;
    let disk = MemDisk::default();
    drop(open(&disk).unwrap());
    disk.open("store", false).unwrap().set_len(0).unwrap();
    let error = open(&disk).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("store is empty"), "{error}");

    let disk = MemDisk::default();
    let file = disk.open("store", true).unwrap();
    file.write_at(0, &[7; 8192]).unwrap();
    open(&disk).unwrap_err();
}
