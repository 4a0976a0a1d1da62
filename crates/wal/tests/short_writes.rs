//! Writes of which the system takes only so many bytes, and then the process ends: at every byte, also inside a sector, also of the zeros that
//! recovery writes, with the page cache left as it is or lost in part afterwards. Such a frame was never synced, so the log goes on
//! without it.

mod common;

use std::io::ErrorKind;

use common::{Fault, MemDisk, Model, Random, SECTOR, SMALL, entry, maintain_all, open, state};
use quorate_wal::{OpenError, Record};

/// A log with a frame or none, and where the next write begins.
fn log(frames: usize) -> (MemDisk, Model, usize) {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, SMALL).unwrap();
    for frame in 0..frames as u64 {
        let batches = [vec![state(b"term 1"), entry(frame + 1, vec![3; 400])]];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
    }
    maintain_all(&mut wal).unwrap();
    let used = wal.reserved() as usize;
    let spare = SMALL as usize - SECTOR;
    (disk, model, SMALL as usize - (used - spare))
}

fn batches(model: &Model, size: usize) -> [Vec<Record>; 1] {
    [vec![entry(model.last() + 1, Random(9).bytes(size))]]
}

/// Appends to a copy of the log, of which the first `cut` bytes are written.
fn cut_short(disk: &MemDisk, batches: &[Vec<Record>], cut: usize) -> MemDisk {
    let disk = disk.copy();
    let (mut wal, _) = open(&disk, SMALL).unwrap();
    disk.fail_at(0, Fault::Cut(cut, ErrorKind::Other));
    wal.append(batches).unwrap_err();
    disk.heal();
    disk
}

/// The segment that the last frame is in, as bytes.
fn segment(disk: &MemDisk) -> Vec<u8> {
    disk.files()["wal-0000000000000001"].clone()
}

/// The segment after the append.
fn whole(disk: &MemDisk, batches: &[Vec<Record>]) -> Vec<u8> {
    let disk = disk.copy();
    let (mut wal, _) = open(&disk, SMALL).unwrap();
    wal.append(batches).unwrap();
    segment(&disk)
}

fn bits(bytes: &[u8]) -> u32 {
    bytes.iter().map(|byte| byte.count_ones()).sum()
}

/// Opens what is there, and again what a crash then leaves.
fn recovered(disk: &MemDisk, about: &str) -> Model {
    let found = match open(disk, SMALL) {
        Ok((_, found)) => found,
        Err(error) => panic!("{about}: {error}"),
    };
    let again = open(&disk.after_crash(&mut || false), SMALL).unwrap().1;
    assert_eq!(again, found, "{about}: what counts is durable");
    found
}

#[test]
fn an_append_cut_short_at_any_byte_is_torn_and_never_damage() {
    let (mut torn, mut inside, mut single) = (0, 0, 0);
    for (frames, size) in [(0, 10), (1, 10), (1, 600), (2, 1400)] {
        let (disk, before, from) = log(frames);
        let batches = batches(&before, size);
        let mut after = before.clone();
        after.apply_all(&batches);
        let whole = whole(&disk, &batches);
        for cut in 0..whole.len() - from {
            let missing = bits(&whole[from + cut..]);
            if missing == 0 {
                break;
            }
            let about = format!("{size} bytes behind {frames} frames cut at {cut}");
            let image = cut_short(&disk, &batches, cut);
            // Power may fail as well, before anybody has read what is there.
            let mut random = Random(cut as u64);
            for _ in 0..2 {
                let crashed = image.after_crash(&mut || random.below(2) == 0);
                if missing > 1 {
                    assert_eq!(recovered(&crashed, &about), before, "{about}, and a crash");
                }
            }
            // One bit may as well have flipped: the safe side.
            if missing == 1 {
                let refused = open(&image, SMALL);
                assert!(matches!(refused, Err(OpenError::Damaged(_))), "{about}");
                single += 1;
                continue;
            }
            assert_eq!(recovered(&image, &about), before, "{about}");
            let (mut wal, _) = open(&image, SMALL).unwrap();
            wal.append(&batches).unwrap();
            assert_eq!(open(&image, SMALL).unwrap().1, after, "{about}: it goes on");
            torn += 1;
            inside += usize::from(!cut.is_multiple_of(SECTOR));
        }
    }
    assert!(
        torn > 2_000 && inside > 2_000,
        "{torn} torn, {inside} inside a sector"
    );
    assert!(single < 8, "{single} times all but one bit was there");
}

/// A frame so long that its footer takes two sectors, cut short around and inside them.
#[test]
fn a_footer_of_two_sectors_cut_short_is_torn() {
    let (disk, before, _) = log(1);
    let batches = batches(&before, 61_000);
    let spacious = 1 << 17;
    let (mut wal, _) = open(&disk, spacious).unwrap();
    wal.append(&batches).unwrap();
    drop(wal);
    let name = "wal-0000000000000002";
    let whole = disk.files()[name].clone();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let footer = end / SECTOR * SECTOR - SECTOR;
    let mut torn = 0;
    for cut in (footer - 20..=end - 1).chain([513, 530, 540, 30_000]) {
        let mut files = disk.files();
        files.get_mut(name).unwrap()[cut..].fill(0);
        if bits(&whole[cut..]) == 1 {
            continue;
        }
        let image = MemDisk::of(&files);
        let found = open(&image, spacious).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(found.1, before, "cut at {cut}");
        torn += 1;
    }
    assert!(torn > 500, "only {torn}");
}

/// Whatever is left of a frame, recovery puts zeros over it; and these may be cut short at any byte too, twice, with power failing after.
#[test]
fn recovery_cut_short_at_any_byte_changes_nothing() {
    let (disk, before, from) = log(1);
    let batches = batches(&before, 1400);
    let mut remains = vec![
        cut_short(&disk, &batches, 17),
        cut_short(&disk, &batches, 700),
        cut_short(&disk, &batches, 3 * SECTOR + 47),
    ];
    // Written as a whole and not synced: every part of its four sectors.
    for mask in 1..15_u32 {
        let image = disk.copy();
        let (mut wal, _) = open(&image, SMALL).unwrap();
        image.fail_at(1, Fault::Crash);
        wal.append(&batches).unwrap_err();
        let mut bit = 0;
        remains.push(image.after_crash(&mut || {
            bit += 1;
            mask >> (bit - 1) & 1 == 1
        }));
    }
    let mut cuts = 0;
    for (which, remains) in remains.iter().enumerate() {
        for call in 0.. {
            // Every byte of the first sector for some remains, a coprime stride elsewhere.
            let (lengths, stride) = match call {
                0 => (1..SECTOR, if which < 4 { 1 } else { 41 }),
                _ => (1..SMALL as usize - from, 41),
            };
            let mut came = false;
            for cut in lengths.step_by(stride) {
                let image = remains.copy();
                let about = format!("remains {which}, call {call} cut at {cut}");
                image.fail_at(call, Fault::Cut(cut, ErrorKind::Other));
                if open(&image, SMALL).is_ok() {
                    assert!(!came, "{about}: an error is an error");
                    break;
                }
                came = true;
                image.heal();
                let mut random = Random(cut as u64);
                let crashed = image.after_crash(&mut || random.below(2) == 0);
                crashed.fail_at(call, Fault::Cut(cut / 2, ErrorKind::Other));
                // It may have less to do, and be done before that call.
                let _ = open(&crashed, SMALL);
                crashed.heal();
                let twice = crashed.after_crash(&mut || random.below(2) == 0);
                for image in [&image, &crashed, &twice] {
                    assert_eq!(recovered(image, &about), before, "{about}");
                    cuts += 1;
                }
            }
            if !came {
                assert!(
                    call > 3,
                    "zeros for the first sector, a sync, the last frame once more, zeros for all, a sync"
                );
                break;
            }
        }
    }
    assert!(cuts > 7_000, "only {cuts}");
}
