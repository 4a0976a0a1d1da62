//! Damage in the store's file: every sector of every block with flipped bits, zeroed, with what stood there before, or with what stands
//! elsewhere. Whatever is asked of a store on such a file is answered as if nothing had happened, or not at all, with an
//! error that names the damage, and then the next job ends the process. Nothing is answered otherwise, and nothing is "not found".

mod support;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, LogId, StateMachine};
use quorate_kv::*;
use support::disk::MemDisk;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Where the engine's header is.
const HEADER: usize = 2;
const KEYS: usize = 300;

fn open(disk: &MemDisk) -> io::Result<Kv> {
    open_with(disk, 1 << 20)
}

fn open_with(disk: &MemDisk, cache_bytes: usize) -> io::Result<Kv> {
    let options = Options {
        cache_bytes,
        compact_chunk: 50,
        ..Options::default()
    };
    Kv::open(Arc::new(disk.clone()), options)
}

fn key(n: usize) -> Bytes {
    format!("k{:03}", n % KEYS).into()
}

/// A command of a life in which there is something of everything.
fn command(n: usize) -> Command {
    match n % 20 {
        0 => Command::grant(level::NAMED_GRANTS, n as i64 + 1, 60),
        13 => Command::DeleteRange(DeleteRangeRequest {
            key: key(n * 7),
            ..DeleteRangeRequest::default()
        }),
        _ if n == 350 => Command::Compact {
            revision: 120,
            physical: true,
        },
        last => Command::Put(PutRequest {
            key: key(n * 7),
            value: vec![n as u8; 40 + n % 200].into(),
            lease: if last == 5 { (n - last) as i64 + 1 } else { 0 },
            prev_kv: true,
            ..PutRequest::default()
        }),
    }
}

fn live(kv: &mut Kv, commands: std::ops::Range<usize>) {
    let end = commands.end;
    for n in commands {
        let _ = kv.apply(LogId::new(1, n as u64 + 1), &command(n).encode());
        while (n % 10 == 0 || n + 1 == end)
            && let Some(job) = kv.job(true)
        {
            job().unwrap();
        }
    }
}

/// A store that has lived, closed.
fn store(commands: usize) -> MemDisk {
    let disk = MemDisk::default();
    live(&mut open(&disk).unwrap(), 0..commands);
    disk
}

fn bytes(disk: &MemDisk) -> Vec<u8> {
    let file = disk.open("store", false).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// A disk with this file and nothing else.
fn disk_of(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::default();
    put(&disk, bytes);
    disk
}

fn put(disk: &MemDisk, bytes: &[u8]) {
    let file = disk.open("store", true).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_at(0, bytes).unwrap();
}

/// What is asked of a store, and its answers, in words.
fn answers(kv: &Kv) -> Vec<Result<String, String>> {
    fn told<T: std::fmt::Debug>(answer: Result<T, Error>) -> Result<String, String> {
        match answer {
            Err(Error::Storage(why)) => Err(why),
            answer => Ok(format!("{answer:?}")),
        }
    }
    let of = |key: Bytes, revision| RangeRequest {
        key,
        revision,
        ..RangeRequest::default()
    };
    let mut answers = Vec::new();
    for n in (0..KEYS + 20).step_by(3) {
        // Keys that never were are among them.
        let key: Bytes = format!("k{n:03}").into();
        answers.push(told(kv.range(&of(key.clone(), 0))));
        answers.push(told(kv.range(&of(key, 200))));
    }
    answers.push(told(kv.range(&RangeRequest {
        range_end: "l".into(),
        ..of("k".into(), 0)
    })));
    answers.push(told(kv.leases()));
    answers.push(told(kv.lease_keys(21)));
    answers.push(told(kv.history(150, usize::MAX, true)));
    answers.push(told(kv.hash_kv(0)));
    answers.push(told(kv.hash()));
    let mut stream = kv.snapshot().unwrap();
    let mut snapshot = Vec::new();
    answers.push(loop {
        match stream.read_chunk(10_000) {
            Ok(chunk) if chunk.is_empty() => break Ok(format!("{snapshot:?}")),
            Ok(chunk) => snapshot.extend_from_slice(&chunk),
            Err(why) => break Err(why.to_string()),
        }
    });
    answers
}

fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
        && error.get_ref().is_some_and(|inner| inner.is::<Damage>())
        && error.to_string().contains("the file `store` is damaged at bytes")
}

/// The right answers, and what applying the next commands leads to.
struct Right {
    whole: Vec<u8>,
    commands: usize,
    answers: Vec<Result<String, String>>,
    then: u32,
}

impl Right {
    fn of(disk: &MemDisk, commands: usize) -> Right {
        let copy = disk_of(&bytes(disk));
        let mut kv = open(&copy).unwrap();
        let answers = answers(&kv);
        assert!(answers.iter().all(|answer| answer.is_ok()));
        live(&mut kv, commands..commands + 40);
        let then = kv.hash().unwrap();
        Right {
            whole: bytes(disk),
            commands,
            answers,
            then,
        }
    }

    /// Holds a store on these bytes to it; whether the damage was noticed. The file is damaged before it is opened, or while it is in use:
    /// in tests the engine reads all of it when it opens it.
    fn judge(&self, bytes: &[u8], what: &str) -> bool {
        let in_use = || {
            let disk = disk_of(&self.whole);
            // Hardly anything is cached.
            let kv = open_with(&disk, 0).unwrap();
            put(&disk, bytes);
            kv
        };
        let noticed = self.judge_reads(&in_use(), what) | self.judge_changes(in_use(), what);
        match open(&disk_of(bytes)) {
            Ok(kv) => noticed | self.judge_reads(&kv, what) | self.judge_changes(kv, what),
            Err(error) => {
                assert!(is_damage(&error), "{what}: {error}");
                true
            }
        }
    }

    fn judge_reads(&self, kv: &Kv, what: &str) -> bool {
        let mut noticed = false;
        for (found, right) in answers(kv).into_iter().zip(&self.answers) {
            match found {
                Err(why) => {
                    assert!(why.contains("the file `store` is damaged at"), "{what}: {why}");
                    noticed = true;
                }
                found => assert!(found == *right, "{what}: another answer"),
            }
        }
        noticed
    }

    /// Commands are applied rightly, and come to the disk rightly, or the process ends.
    fn judge_changes(&self, mut kv: Kv, what: &str) -> bool {
        for n in self.commands..self.commands + 40 {
            let at = LogId::new(1, n as u64 + 1);
            let applied = catch_unwind(AssertUnwindSafe(|| kv.apply(at, &command(n).encode())));
            if let Err(panic) = applied {
                let text = panic.downcast_ref::<String>().expect("a message");
                assert!(text.contains("the file `store` is damaged at"), "{what}: {text}");
                return true;
            }
        }
        while let Some(job) = kv.job(true) {
            if let Err(error) = job() {
                assert!(is_damage(&error), "{what}: {error}");
                return true;
            }
        }
        match kv.hash() {
            Ok(hash) => assert_eq!(hash, self.then, "{what}"),
            Err(Error::Storage(why)) => assert!(why.contains("is damaged at"), "{what}: {why}"),
            Err(other) => panic!("{what}: {other}"),
        }
        false
    }
}

/// Nobody else asks for anything: the job is there only to end the process.
#[test]
fn damage_that_a_read_has_met_ends_the_process_with_the_next_job() {
    let disk = store(400);
    let mut kv = open_with(&disk, 0).unwrap();
    assert!(kv.job(false).is_none());
    let mut damaged = bytes(&disk);
    damaged[HEADER * BLOCK + BLOCK..].fill(1);
    put(&disk, &damaged);
    assert!(kv.job(false).is_none());
    assert!(matches!(kv.hash(), Err(Error::Storage(_))));
    let job = kv.job(false).expect("a job that ends the process");
    assert!(is_damage(&job().unwrap_err()));
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_does_not_matter() {
    let disk = store(400);
    let right = Right::of(&disk, 400);
    let whole = bytes(&disk);
    assert!(!right.judge(&whole, "whole"), "there is no damage yet");
    let (mut noticed, mut blocks) = (0, std::collections::BTreeSet::new());
    for sector in 0..whole.len() / SECTOR {
        for at in [9, 250] {
            let mut damaged = whole.clone();
            damaged[sector * SECTOR + at] ^= 1 << (sector % 8);
            if right.judge(&damaged, &format!("bit in byte {at} of sector {sector}")) {
                noticed += 1;
                blocks.insert(sector * SECTOR / BLOCK);
            }
        }
    }
    assert!(noticed > 200, "only {noticed}");
    assert!(
        [0, HEADER].iter().all(|block| blocks.contains(block)) && blocks.len() > 20,
        "{blocks:?}"
    );
}

#[test]
fn no_byte_of_what_guides_the_rest_can_change_unnoticed() {
    let disk = store(60);
    let right = Right::of(&disk, 60);
    let whole = bytes(&disk);
    let head = 0..20;
    let header = HEADER * BLOCK..HEADER * BLOCK + 320;
    for byte in head.chain(header) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        assert!(right.judge(&damaged, &format!("a bit in byte {byte}")));
    }
    // Checksums of blocks that nobody reads may change.
    let mut noticed = 0;
    for byte in BLOCK..BLOCK + whole.len() / BLOCK * 4 {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        noticed += usize::from(right.judge(&damaged, &format!("a bit in byte {byte}")));
    }
    assert!(noticed > 40 && noticed % 4 == 0, "only {noticed}");
}

/// A write of a block that was confirmed and lost; so is one of checksums.
#[test]
fn what_stood_in_a_block_before_is_no_answer() {
    let disk = store(300);
    let before = bytes(&disk);
    live(&mut open(&disk).unwrap(), 300..400);
    let right = Right::of(&disk, 400);
    let now = bytes(&disk);
    let mut noticed = 0;
    for block in 0..before.len().min(now.len()) / BLOCK {
        let place = block * BLOCK..(block + 1) * BLOCK;
        let mut damaged = now.clone();
        damaged[place.clone()].copy_from_slice(&before[place.clone()]);
        // An old header cannot be told.
        if block != HEADER && damaged != now && right.judge(&damaged, &format!("block {block} is old")) {
            noticed += 1;
        }
        damaged[place].fill(0);
        right.judge(&damaged, &format!("block {block} is zeros"));
    }
    assert!(noticed > 5, "only {noticed}");
}

/// A write that went elsewhere.
#[test]
fn what_stands_elsewhere_is_no_answer() {
    let disk = store(400);
    let right = Right::of(&disk, 400);
    let whole = bytes(&disk);
    let blocks = whole.len() / BLOCK;
    let mut noticed = 0;
    for block in 0..blocks {
        let from = ((block * 7 + 3) % blocks) * BLOCK;
        let mut damaged = whole.clone();
        damaged[block * BLOCK..][..BLOCK].copy_from_slice(&whole[from..from + BLOCK]);
        noticed +=
            usize::from(damaged != whole && right.judge(&damaged, &format!("block {block} of {from}")));
    }
    assert!(noticed > 20, "only {noticed}");
    // Nor if its checksum went with it.
    let sum = |block: usize| BLOCK + (block - HEADER) * 4..BLOCK + (block - HEADER + 1) * 4;
    noticed = 0;
    for block in HEADER + 1..blocks - 1 {
        let (from, to) = (block + 1, block);
        let mut damaged = whole.clone();
        damaged[to * BLOCK..][..BLOCK].copy_from_slice(&whole[from * BLOCK..][..BLOCK]);
        damaged[sum(to)].copy_from_slice(&whole[sum(from)]);
        noticed += usize::from(right.judge(&damaged, &format!("block {to} of {from}, and its checksum")));
    }
    assert!(noticed > 20, "only {noticed}");
}

/// The file that a restored snapshot replaced was at the same places of another file.
#[test]
fn the_store_before_is_not_taken_for_this_one() {
    let disk = store(300);
    let before = bytes(&disk);
    let at = LogId::new(1, 300);
    let mut kv = open(&disk).unwrap();
    let (mut view, mut stream) = (kv.snapshot().unwrap(), Vec::new());
    loop {
        let chunk = view.read_chunk(10_000).unwrap();
        if chunk.is_empty() {
            break;
        }
        stream.extend_from_slice(&chunk);
    }
    drop(view);
    kv.restore(at, &mut stream.as_slice()).unwrap();
    drop(kv);
    let now = bytes(&disk);
    // All of the old file, and the new one's head.
    let mut mixed = before.clone();
    mixed[..BLOCK].copy_from_slice(&now[..BLOCK]);
    assert!(is_damage(&open(&disk_of(&mixed)).unwrap_err()));
    // And the new one's header.
    let header = HEADER * BLOCK..(HEADER + 1) * BLOCK;
    mixed[header.clone()].copy_from_slice(&now[header]);
    let right = Right::of(&disk, 300);
    assert!(right.judge(&mixed, "the blocks of the store before"));
}

#[test]
fn a_file_that_ends_early_is_noticed() {
    let disk = store(400);
    let right = Right::of(&disk, 400);
    let whole = bytes(&disk);
    for blocks in 1..whole.len() / BLOCK {
        let disk = disk_of(&whole[..blocks * BLOCK]);
        // The engine compares the length with its own idea of it.
        if let Ok(kv) = open(&disk) {
            drop(kv);
            assert!(right.judge(&whole[..blocks * BLOCK], &format!("{blocks} blocks")));
        }
    }
}
