//! The file stays in proportion to what it holds, whatever is overwritten for however long: by reuse of what is freed, and by writing it
//! anew where that is not enough. Writing it anew loses nothing, wherever power fails or room runs out.

mod support;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index, LogId, SnapshotReader, StateMachine};
use quorate_kv::*;
use support::disk::MemDisk;

const SLACK: u64 = 2 << 20;

fn options() -> Options {
    Options {
        flush_bytes: 128 << 10,
        cache_bytes: 1 << 20,
        compact_chunk: 500,
        slack_bytes: SLACK,
        ..Options::default()
    }
}

fn open(disk: &MemDisk) -> io::Result<Kv> {
    Kv::open(Arc::new(disk.clone()), options())
}

fn jobs(kv: &mut Kv) {
    while let Some(job) = kv.job(true) {
        job().unwrap();
    }
}

/// Overwrites the same keys, with a compaction now and then.
struct Life {
    disk: MemDisk,
    kv: Kv,
    random: u64,
    /// The longest that the file was, and the most that it held.
    longest: u64,
    most: u64,
}

impl Life {
    fn new() -> Life {
        let disk = MemDisk::default();
        let kv = open(&disk).unwrap();
        let (random, longest, most) = (1, 0, 0);
        Life {
            disk,
            kv,
            random,
            longest,
            most,
        }
    }

    fn command(&mut self, command: &Command) {
        let at = LogId::new(1, self.kv.applied().index.next().get());
        self.kv.apply(at, &command.encode()).unwrap();
        while let Some(job) = self.kv.job(false) {
            job().unwrap();
        }
        let Size { total, in_use } = self.kv.size();
        self.longest = self.longest.max(total);
        self.most = self.most.max(in_use);
    }

    /// Puts to 300 keys, about 400 KB in all, and a compaction.
    fn round(&mut self, puts: usize) {
        for _ in 0..puts {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let len = 200 + (self.random >> 20) as usize % 2000;
            self.command(&Command::Put(PutRequest {
                key: format!("key{:04}", self.random % 300).into_bytes().into(),
                value: Bytes::from(vec![self.random as u8; len]),
                ..PutRequest::default()
            }));
        }
        let revision = self.kv.revision() - 100;
        self.command(&Command::Compact {
            revision,
            physical: false,
        });
        jobs(&mut self.kv);
    }
}

#[test]
fn endless_overwrites_leave_the_file_in_proportion() {
    let mut life = Life::new();
    (0..20).for_each(|_| life.round(500));
    let (longest, most) = (life.longest, life.most);
    (0..100).for_each(|_| life.round(500));
    assert!(life.most < most * 3 / 2, "the content is what it was");
    assert!(life.longest <= longest, "{} after {longest}", life.longest);
    assert!(longest <= 4 * most + SLACK, "{longest} for {most}");
}

fn read(mut view: Box<dyn SnapshotReader>) -> Vec<u8> {
    let mut stream = Vec::new();
    loop {
        let part = view.read_chunk(100_000).unwrap();
        if part.is_empty() {
            return stream;
        }
        stream.extend_from_slice(&part);
    }
}

#[test]
fn nor_does_a_state_read_out_slowly_make_it_grow() {
    let mut life = Life::new();
    (0..5).for_each(|_| life.round(500));
    let view = life.kv.snapshot().unwrap();
    let (at, hash) = (life.kv.applied(), life.kv.hash().unwrap());
    (0..100).for_each(|_| life.round(500));
    // Engines grow by doubling.
    let bound = 2 * (4 * life.most + 2 * SLACK);
    assert!(life.longest <= bound, "{} for {}", life.longest, life.most);
    // It is the state as of then, although the file is another by now.
    let mut other = open(&MemDisk::default()).unwrap();
    other.restore(at, &mut read(view).as_slice()).unwrap();
    assert_eq!(other.hash().unwrap(), hash);
    let hash = life.kv.hash().unwrap();
    assert_eq!(open(&life.disk).unwrap().hash().unwrap(), hash);
}

fn unflushed(at: LogId, kv: &mut Kv) {
    let put = PutRequest {
        key: Bytes::from_static(b"unflushed"),
        ..PutRequest::default()
    };
    let at = LogId::new(1, at.index.next().get());
    kv.apply(at, &Command::Put(put).encode()).unwrap();
}

/// A store whose file is far longer than what it holds.
fn wasteful() -> MemDisk {
    let disk = MemDisk::default();
    let never = Options {
        slack_bytes: u64::MAX,
        ..options()
    };
    let mut kv = Kv::open(Arc::new(disk.clone()), never).unwrap();
    let view = kv.snapshot().unwrap();
    while kv.size().total < 4 * SLACK {
        for n in 0..100 {
            let at = LogId::new(1, kv.applied().index.next().get());
            let put = PutRequest {
                key: format!("key{n:04}").into_bytes().into(),
                value: Bytes::from(vec![at.index.0 as u8; 1500]),
                ..PutRequest::default()
            };
            kv.apply(at, &Command::Put(put).encode()).unwrap();
        }
        let (revision, physical) = (kv.revision(), false);
        let at = LogId::new(1, kv.applied().index.next().get());
        kv.apply(at, &Command::Compact { revision, physical }.encode())
            .unwrap();
        kv.job(true).unwrap()().unwrap();
    }
    drop((view, kv));
    disk
}

/// A copy of it. The next job writes the file anew, with something to flush on top.
fn due(wasteful: &MemDisk) -> (MemDisk, Kv) {
    // Nothing of it is lost: it was closed.
    let disk = wasteful.after_crash(0);
    let mut kv = open(&disk).unwrap();
    let Size { total, in_use } = kv.size();
    assert!(total > 4 * in_use + SLACK, "{:?}", kv.size());
    unflushed(kv.applied(), &mut kv);
    (disk, kv)
}

#[test]
fn a_crash_while_the_file_is_written_anew_loses_nothing() {
    let wasteful = wasteful();
    let (disk, mut kv) = due(&wasteful);
    let (hash, total) = (kv.hash().unwrap(), kv.size().total);
    let (flushed, all) = (kv.durable(), kv.applied().index);
    let before = disk.ops();
    kv.job(true).unwrap()().unwrap();
    let ops = disk.ops() - before;
    assert!(ops > 20, "too short to tell: {ops}");
    assert_eq!(kv.durable(), all);
    jobs(&mut kv);
    assert!(kv.size().total < total / 2, "{:?} after {total}", kv.size());
    assert_eq!(kv.hash().unwrap(), hash);

    for op in 0..ops {
        let (disk, mut kv) = due(&wasteful);
        disk.crash_after(op);
        kv.job(true).unwrap()().unwrap_err();
        for seed in 0..2 {
            let left = disk.after_crash(seed);
            let mut found = open(&left).unwrap();
            assert_eq!(left.list().unwrap(), ["store"], "crash at operation {op}");
            let at = found.applied();
            assert!(at.index == flushed || at.index == all, "crash at operation {op}");
            if at.index == flushed {
                unflushed(at, &mut found);
            }
            assert_eq!(
                found.hash().unwrap(),
                hash,
                "crash at operation {op}, seed {seed}"
            );
        }
    }
}

#[test]
fn without_room_for_a_fresh_file_the_old_one_is_flushed_to() {
    let (disk, mut kv) = due(&wasteful());
    let (hash, total, all) = (kv.hash().unwrap(), kv.size().total, kv.applied().index);
    let job = kv.job(true).unwrap();
    disk.full_after(Some(3));
    job().unwrap();
    assert!(!disk.list().unwrap().iter().any(|name| name == "store.new"));
    assert!(kv.job(true).is_none(), "no room for the flush either");
    disk.full_after(None);
    jobs(&mut kv);
    assert_eq!((kv.durable(), kv.hash().unwrap()), (all, hash));
    assert!(kv.size().total >= total / 2, "it is not tried again at once");
    drop(kv);
    assert_eq!(open(&disk).unwrap().hash().unwrap(), hash);
}

#[test]
fn a_snapshot_restored_in_the_meantime_is_not_overwritten() {
    let mut other = Life::new();
    (0..3).for_each(|_| other.round(500));
    let (to, hash) = (other.kv.applied(), other.kv.hash().unwrap());
    let stream = read(other.kv.snapshot().unwrap());

    let (disk, mut kv) = due(&wasteful());
    let job = kv.job(true).unwrap();
    kv.restore(to, &mut stream.as_slice()).unwrap();
    job().unwrap();
    jobs(&mut kv);
    assert_eq!((kv.applied(), kv.hash().unwrap()), (to, hash));
    assert_eq!(kv.durable(), Index(to.index.get()));
    drop(kv);
    assert_eq!(open(&disk).unwrap().hash().unwrap(), hash);
}

#[test]
fn commands_that_change_little_do_not_keep_the_log_for_ever() {
    let mut kv = Kv::open(
        Arc::new(MemDisk::default()),
        Options {
            log_bytes: 1 << 20,
            ..Options::default()
        },
    )
    .unwrap();
    while let Some(job) = kv.job(false) {
        job().unwrap();
    }
    // It fails, and leaves nothing behind but its place in the log.
    let failing = Command::Txn(TxnRequest {
        compare: vec![Compare {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::new(),
            op: CompareOp::Equal,
            target: CompareTarget::Mod(100),
        }],
        success: vec![RequestOp::Put(PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from(vec![7; 100_000]),
            ..PutRequest::default()
        })],
        failure: Vec::new(),
    });
    let bytes = failing.encode();
    let mut flushed = Vec::new();
    for index in 1..=33 {
        kv.apply(LogId::new(1, index), &bytes).unwrap();
        while let Some(job) = kv.job(false) {
            job().unwrap();
        }
        if kv.durable() == Index(index) {
            flushed.push(index);
        }
    }
    assert_eq!(flushed, [11, 22, 33], "once for each MiB of the log");
}
