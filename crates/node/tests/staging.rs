//! Crash points of a snapshot that comes from the leader: staging file, log and state machine together, from the first byte staged to
//! the removal of the staging file. Crashes at every call of the disk, with subsets of what was not durable kept; in the recovery from
//! that, and in the recovery from that one; errors of every kind at every call; cuts and flipped bits at every byte of the file.
//!
//! What runs is the real log, the real staging, and the node's own judgement at start ([`Boot`]). The state machine is a file that is
//! replaced as a whole. The order of the steps is the drivers': stage, sync, then the log's record, then the swap, then the removal.

#[path = "../../wal/tests/common/disk.rs"]
mod disk;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use bytes::Bytes;
use disk::{Fault, MemDisk, Random};
use quorate_base::{Disk, Index, LogId, NodeId, Term};
use quorate_node::event::{Event, MachineOp, StageOp};
use quorate_node::staging::{STAGING, StagingReader, discard};
use quorate_node::stored::{Mark, Origin, state_record};
use quorate_node::{Boot, NodeConfig, Staging, entry};
use quorate_raft::{Config, HardState, SnapMeta};
use quorate_wal::{OpenError, Options, Record, Wal};

type Files = BTreeMap<String, Vec<u8>>;

/// With this set in the environment the tests try all subsets of up to 12 choices, and every crash of the last level. That takes minutes.
const THOROUGH: &str = "QUORATE_CRASH_POINTS";

const ABOUT: &[u8] = b"the snapshot of everything up to 20";
/// An earlier transfer, of which a part lies around.
const OTHER: &[u8] = b"an older snapshot";
const MACHINE: &str = "machine";

fn installed() -> SnapMeta {
    SnapMeta {
        last: LogId::new(1, 20),
        config: Config::of([NodeId(1), NodeId(2), NodeId(3)]),
    }
}

/// The snapshot, and where its pieces end.
fn snapshot() -> (Bytes, [usize; 4]) {
    (Random(20).bytes(2600), [700, 1400, 1440, 2600])
}

fn hard(commit: u64) -> Record {
    state_record(&HardState {
        term: Term(1),
        vote: None,
        commit: Index(commit),
    })
}

fn noop(index: u64) -> Record {
    let at = LogId::new(1, index);
    Record::Entry {
        index: at.index,
        body: entry::encode_noop(at),
    }
}

/// What went before, over all the lives of this machine: how far each step of the way is known to have come.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Bytes that were reported as staged, which promises that they are durable.
    staged: u64,
    /// The log's record of the install was written without an error.
    installed: bool,
    /// The state machine was replaced without an error.
    restored: bool,
    /// The log's entry after the snapshot was written without an error.
    went_on: bool,
    /// A call fails in this life without the machine being gone, so that staging may find less, and begin again.
    blind: bool,
}

/// Why a life ended early. Whatever else goes wrong is a panic.
#[derive(Debug)]
struct Ended;

fn ended<E: std::fmt::Debug>(_: E) -> Ended {
    Ended
}

/// What the state machine's file holds: its index, and the snapshot it came from.
fn machine(disk: &MemDisk) -> Result<LogId, Ended> {
    let file = match disk.open(MACHINE, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(LogId::new(1, 3)),
        opened => opened.map_err(ended)?,
    };
    let mut bytes = vec![0; file.len().map_err(ended)? as usize];
    file.read_at(0, &mut bytes).map_err(ended)?;
    assert!(bytes == snapshot().0, "the state is the snapshot's, whole (S12)");
    Ok(installed().last)
}

/// Replaces the state machine's file by what is staged, as one step. The staged snapshot must be there, whole.
fn restore(disk: &MemDisk, seen: &mut Seen) -> Result<(), Ended> {
    let mut bytes = Vec::new();
    let read = StagingReader::open(disk).and_then(|mut reader| reader.read_to_end(&mut bytes));
    if let Err(error) = read {
        let broken = [
            ErrorKind::InvalidData,
            ErrorKind::NotFound,
            ErrorKind::UnexpectedEof,
        ];
        assert!(
            !broken.contains(&error.kind()),
            "what is installed was staged: {error}"
        );
        return Err(Ended);
    }
    let replace = || -> io::Result<()> {
        let file = disk.open("machine.new", true)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.rename("machine.new", MACHINE)?;
        disk.sync_dir()
    };
    replace().map_err(ended)?;
    seen.restored = true;
    discard(disk).map_err(ended)
}

/// What staging finds after a start: bytes of the transfer, or nothing.
fn find(disk: &MemDisk, staging: &mut Staging, seen: &mut Seen) -> Result<Option<u64>, Ended> {
    loop {
        match staging.carry_out(StageOp::Check).map_err(ended)? {
            // It finds nothing if it cannot write, and the next call shows why.
            _ if disk.is_down() => return Err(Ended),
            Some(Event::StageChecked { end: false, .. }) => {}
            Some(Event::StageChecked { about, len, crc, .. }) => {
                assert!(
                    seen.blind || len >= seen.staged,
                    "{len} of {} staged bytes",
                    seen.staged
                );
                let Some(about) = about else {
                    assert_eq!(len, 0, "bytes of nothing");
                    seen.staged = 0;
                    return Ok(None);
                };
                if about == OTHER {
                    assert_eq!(
                        seen.staged, 0,
                        "the earlier transfer is over since this one began"
                    );
                    return Ok(None);
                }
                assert_eq!(about, ABOUT);
                // From here on it is durable.
                seen.staged = len;
                let (bytes, _) = snapshot();
                assert_eq!(
                    crc,
                    crc32c::crc32c(&bytes[..len as usize]),
                    "what is found was sent"
                );
                return Ok(Some(len));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Stages the snapshot from `found` on, or from the beginning, to the end. `false`: the disk was full.
fn stage(staging: &mut Staging, found: Option<u64>, seen: &mut Seen) -> Result<bool, Ended> {
    let stream = 1;
    let (bytes, ends) = snapshot();
    let mut ops = vec![match found {
        Some(_) => StageOp::Resume { stream },
        None => StageOp::Begin {
            stream,
            about: Bytes::from_static(ABOUT),
        },
    }];
    let mut from = found.unwrap_or(0) as usize;
    for to in ends.into_iter().filter(|end| *end > from).collect::<Vec<_>>() {
        ops.push(StageOp::Write {
            stream,
            offset: from as u64,
            crc: crc32c::crc32c(&bytes[..to]),
            bytes: bytes.slice(from..to),
        });
        if to == ends[1] {
            ops.push(StageOp::Sync { stream });
        }
        from = to;
    }
    ops.push(StageOp::Finish { stream });
    if found.is_none() {
        seen.staged = 0;
    }
    for op in ops {
        match staging.carry_out(op).map_err(ended)? {
            Some(Event::Staged { len, .. }) => seen.staged = len,
            Some(Event::StageFailed { .. }) => {
                seen.staged = 0;
                staging.carry_out(StageOp::Discard).map_err(ended)?;
                return Ok(false);
            }
            None => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.staged, bytes.len() as u64, "finished is durable");
    Ok(true)
}

fn open_log(disk: &MemDisk) -> Result<(Wal, Boot), Ended> {
    let mut boot = Boot::new();
    let options = Options {
        segment_bytes: 4096,
        ..Options::new(7)
    };
    match Wal::open(disk.shared(), options, &mut |record| boot.record(record)) {
        Ok(wal) => Ok((wal, boot)),
        Err(OpenError::Disk(_)) => Err(Ended),
        Err(other) => panic!("a crash is not damage: {other}"),
    }
}

/// One run of the machine, from its start to the entry after the snapshot, unless the disk ends it before.
fn live(disk: &MemDisk, seen: &mut Seen) -> Result<(), Ended> {
    let (mut wal, boot) = open_log(disk)?;
    let applied = machine(disk)?;
    let config = NodeConfig::new(NodeId(3), 1, 1);
    let (node, ops) = boot
        .finish(config, None, applied, applied.index)
        .expect("log and state machine fit together");
    let base = node.raft().log().base().clone();
    let at = installed();
    assert!(base == at || !seen.installed, "the install is durable: {base:?}");
    assert!(
        applied == at.last || !seen.restored,
        "the new state is durable: {applied}"
    );
    let restores = ops.iter().any(|op| matches!(op, MachineOp::Restore(_)));
    assert_eq!(
        restores,
        base == at && applied < at.last,
        "restored if and only if it must be"
    );
    let mut staging = Staging::new(disk.shared());
    if restores {
        restore(disk, seen)?;
    } else if base == at {
        // The node finds that the remains, if there are any, are of no use.
        staging.carry_out(StageOp::Check).map_err(ended)?;
        staging.carry_out(StageOp::Discard).map_err(ended)?;
    } else {
        assert_eq!(
            wal.last_index(),
            Index(3),
            "all that was durable before, and nothing else"
        );
        let mut found = find(disk, &mut staging, seen)?;
        while !stage(&mut staging, found, seen)? {
            found = None;
        }
        let meta = at.clone();
        let origin = Origin::Installed;
        let after = Index::ZERO;
        let batch = vec![
            Record::Truncate { after },
            Mark { origin, meta }.record(),
            hard(20),
        ];
        wal.append(&[batch]).map_err(ended)?;
        seen.installed = true;
        restore(disk, seen)?;
    }
    if wal.last_index() == Index(20) {
        assert!(!seen.went_on, "the entry after the snapshot is durable");
        wal.append(&[vec![noop(21)]]).map_err(ended)?;
        seen.went_on = true;
    }
    assert_eq!((wal.first_index(), wal.last_index()), (Index(21), Index(21)));
    assert_eq!(machine(disk)?, at.last);
    let remains = disk.list().map_err(ended)?;
    assert!(!remains.iter().any(|name| name == STAGING), "{remains:?}");
    Ok(())
}

/// A member with a log of three entries, which it has applied.
fn founded() -> Files {
    let disk = MemDisk::default();
    let (mut wal, _) = open_log(&disk).unwrap();
    let meta = SnapMeta {
        last: LogId::ZERO,
        ..installed()
    };
    let origin = Origin::Founded;
    let batch = vec![Mark { origin, meta }.record(), noop(1), noop(2), noop(3), hard(3)];
    wal.append(&[batch]).unwrap();
    while wal.needs_maintenance() {
        wal.maintain().unwrap();
    }
    disk.files()
}

/// The same with a longer file of an earlier transfer.
fn with_remains() -> Files {
    let disk = MemDisk::of(&founded());
    let mut staging = Staging::new(disk.shared());
    let (stream, about) = (1, Bytes::from_static(OTHER));
    staging.carry_out(StageOp::Begin { stream, about }).unwrap();
    let (mut offset, bytes) = (0, Random(15).bytes(3000));
    for end in [700, 1400, 3000] {
        let crc = crc32c::crc32c(&bytes[..end]);
        let bytes = bytes.slice(offset as usize..end);
        let piece = StageOp::Write {
            stream,
            offset,
            crc,
            bytes,
        };
        staging.carry_out(piece).unwrap();
        offset = end as u64;
    }
    staging.carry_out(StageOp::Finish { stream }).unwrap();
    disk.files()
}

/// What may be left of a disk after a crash: all there is if the choices are few, else nothing, everything, and so many samples.
fn remains(disk: &MemDisk, seed: u64, all_up_to: u32, samples: u64) -> Vec<Files> {
    let mut choices = 0_u32;
    let none = disk.after_crash(&mut || {
        choices += 1;
        false
    });
    let mut images = vec![none.files()];
    if choices <= all_up_to {
        for mask in 1..1_u64 << choices {
            let mut bit = 0;
            let keep = &mut || {
                bit += 1;
                mask >> (bit - 1) & 1 == 1
            };
            images.push(disk.after_crash(keep).files());
        }
        return images;
    }
    images.push(disk.after_crash(&mut || true).files());
    let mut random = Random(seed);
    for sample in 0..samples {
        let odds = [8, 1, 15, 4][sample as usize % 4];
        images.push(disk.after_crash(&mut || random.below(16) < odds).files());
    }
    images
}

/// How many crashes there were, one upon the other.
type Crashes = [u64; 3];

/// Lives from `files` on and crashes at every call; in what follows from that again, `depth` times. Only every `stride`-th crash of the
/// last level is tried.
fn crash_everywhere(files: &Files, seen: &Seen, depth: usize, stride: u64, crashes: &mut Crashes) {
    let thorough = std::env::var_os(THOROUGH).is_some();
    for nth in 0.. {
        let disk = MemDisk::of(files);
        let mut seen = seen.clone();
        disk.fail_at(nth, Fault::Crash);
        if live(&disk, &mut seen).is_ok() {
            return;
        }
        let last = depth == crashes.len();
        if last && (crashes.iter().sum::<u64>() + nth) % stride != 0 {
            continue;
        }
        let (all_up_to, samples) = match (depth, thorough) {
            (1, true) => (12, 200),
            (1, false) => (7, 40),
            (2, true) => (4, 6),
            (2, false) => (1, 1),
            _ => (0, 0),
        };
        for image in remains(&disk, nth, all_up_to, samples) {
            crashes[depth - 1] += 1;
            if last {
                live(&MemDisk::of(&image), &mut seen.clone()).expect("nothing fails any more");
            } else {
                crash_everywhere(&image, &seen, depth + 1, stride, crashes);
            }
        }
    }
}

#[test]
fn crashes_anywhere_and_in_recovery_and_in_that_again_lose_no_snapshot() {
    let mut crashes = [0; 3];
    let stride = if std::env::var_os(THOROUGH).is_some() {
        1
    } else {
        41
    };
    for files in [founded(), with_remains()] {
        crash_everywhere(&files, &Seen::default(), 1, stride, &mut crashes);
    }
    println!("crashes, in recovery, and in the recovery from that: {crashes:?}");
    assert!(
        crashes[0] > 200 && crashes[1] > 10_000 && crashes[2] > 5_000,
        "{crashes:?}"
    );
}

/// Goes on with what the machine has in memory, which a failed sync may have left there and nowhere else; and crashes at every call of
/// that, with nothing kept that was not durable.
fn go_on_and_crash(disk: &MemDisk, seen: &Seen) {
    for nth in 0.. {
        let (copy, mut seen) = (disk.copy(), seen.clone());
        copy.fail_at(nth, Fault::Crash);
        let lived = live(&copy, &mut seen).is_ok();
        let durable = copy.after_crash(&mut || false);
        live(&durable, &mut seen).expect("what counts is durable");
        if lived {
            return;
        }
    }
}

/// Disks at moments that differ in what the next start finds: nothing, half a snapshot, one that is installed and not restored, and one
/// whose staging file is still there after it was restored.
fn moments() -> Vec<(Files, Seen)> {
    let mut moments = vec![(with_remains(), Seen::default()), (founded(), Seen::default())];
    for nth in 0.. {
        let disk = MemDisk::of(&founded());
        let mut seen = Seen::default();
        disk.fail_at(nth, Fault::Crash);
        if live(&disk, &mut seen).is_ok() {
            break;
        }
        let (_, last) = moments.last().expect("the first is there");
        if (seen.staged, seen.installed, seen.restored) != (last.staged, last.installed, last.restored) {
            moments.push((disk.after_crash(&mut || true).files(), seen));
        }
    }
    assert_eq!(
        moments.len(),
        6,
        "half staged, whole, installed, restored: {moments:?}"
    );
    moments
}

#[test]
fn errors_of_every_kind_at_every_call_lose_no_snapshot() {
    let kinds = [ErrorKind::Other, ErrorKind::StorageFull];
    let faults = kinds.map(|kind| [Fault::Nothing(kind), Fault::Short(kind)]);
    let (mut ends, mut survived) = (0, 0);
    for (files, before) in moments() {
        for (fault, nth) in faults
            .into_iter()
            .flatten()
            .flat_map(|fault| (0..100).map(move |nth| (fault, nth)))
        {
            let disk = MemDisk::of(&files);
            let mut seen = Seen {
                blind: true,
                ..before.clone()
            };
            disk.fail_at(nth, fault);
            let lived = live(&disk, &mut seen).is_ok();
            if lived && disk.calls() <= nth {
                continue;
            }
            let full = matches!(
                fault,
                Fault::Nothing(ErrorKind::StorageFull) | Fault::Short(ErrorKind::StorageFull)
            );
            assert!(!lived || full, "{fault:?} of call {nth} was borne");
            // The next process finds what the machine has in memory.
            disk.heal();
            seen.blind = false;
            go_on_and_crash(&disk, &seen);
            *(if lived { &mut survived } else { &mut ends }) += 1;
        }
    }
    println!("{ends} errors ended the process, {survived} did not");
    assert!(ends > 200, "{ends} errors ended the process");
    assert!(survived > 20, "a full disk is no end to staging: {survived}");
}

#[test]
fn errors_of_every_reading_call_lose_no_snapshot() {
    let mut errors = 0;
    for (files, before) in moments() {
        for look in 0.. {
            let image = MemDisk::of(&files);
            let mut seen = Seen {
                blind: true,
                ..before.clone()
            };
            image.fail_look_at(look, ErrorKind::Other);
            let lived = live(&image, &mut seen).is_ok();
            if lived && image.looks() <= look {
                break;
            }
            image.heal();
            seen.blind = false;
            live(&image, &mut seen).expect("nothing fails any more");
            errors += 1;
        }
    }
    assert!(errors > 40, "only {errors} errors");
}

/// A whole staged snapshot is cut off at every byte, or a bit is flipped there. Before the install that costs what comes after; behind
/// it, it is said, and nothing is restored.
#[test]
fn damage_at_every_byte_of_the_staging_file_is_made_good_or_said() {
    let disk = MemDisk::of(&founded());
    let mut staging = Staging::new(disk.shared());
    assert!(stage(&mut staging, None, &mut Seen::default()).unwrap());
    let files = disk.files();
    let whole = files[STAGING].clone();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [flipped, whole[..at].to_vec()] {
            let mut files = files.clone();
            files.insert(STAGING.to_owned(), damaged);
            let image = MemDisk::of(&files);
            let mut bytes = Vec::new();
            let read = StagingReader::open(&image).and_then(|mut reader| reader.read_to_end(&mut bytes));
            let error = read.expect_err("not what was sent");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            live(&image, &mut Seen::default()).expect("staged anew from where it is right");
        }
    }
}
