//! Damage to what was durable: every single flipped bit, every truncation, zeroed and misplaced sectors, lost and foreign
//! segments. Recovery must find everything, or refuse; it must never find less in silence.

mod common;

use std::collections::BTreeMap;

use common::{
    IDENTITY, MemDisk, Model, Random, SECTOR, entry, maintain_all, mark, open, options, state, truncate,
};
use quorate_wal::{Item, OpenError, Options, Wal, inspect};

/// Of the segments here.
const LENGTH: u32 = 3072;

type Files = BTreeMap<String, Vec<u8>>;

/// A small log over three segments, all of it durable, and what it held after each append.
fn small_log() -> (Files, Vec<Model>) {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, LENGTH).unwrap();
    let mut random = Random(11);
    let mut single_bit = vec![0; 1100];
    single_bit[600] = 16;
    let appends = [
        vec![
            vec![state(b"term 1"), entry(1, random.bytes(30))],
            vec![entry(2, "")],
        ],
        vec![vec![entry(3, random.bytes(600))]],
        vec![vec![truncate(2), entry(3, single_bit), state(b"term 2")]],
        vec![vec![mark(1, b"snapshot at 1"), entry(4, random.bytes(700))]],
        vec![vec![entry(5, random.bytes(300))]],
    ];
    let mut history = vec![model.clone()];
    for batches in appends {
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
        history.push(model.clone());
    }
    wal.maintain().unwrap();
    wal.maintain().unwrap();
    assert_eq!(open(&disk, LENGTH).unwrap().1, model);
    (disk.files(), history)
}

fn segments(files: &Files) -> Vec<String> {
    files.keys().cloned().collect()
}

/// Opens a damaged copy. It must hold everything or refuse with a message that names the file and, where entries may be lost,
/// the remedy.
fn all_or_refusal(files: &Files, whole: &Model) -> Option<OpenError> {
    match open(&MemDisk::of(files), LENGTH) {
        Ok((_, found)) => {
            assert_eq!(found, *whole, "something was dropped in silence");
            None
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("wal-0"), "the file is named: {text}");
            if !matches!(error, OpenError::Foreign { .. } | OpenError::Version { .. }) {
                assert!(text.contains("rejoin"), "the remedy is named: {text}");
            }
            Some(error)
        }
    }
}

#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    let (files, history) = small_log();
    assert!(files.len() >= 4, "segments and a spare: {:?}", files.keys());
    let whole = history.last().unwrap();
    let (mut reported, mut harmless) = (0, 0);
    for name in segments(&files) {
        for at in 0..files[&name].len() {
            for bit in 0..8 {
                let mut files = files.clone();
                files.get_mut(&name).unwrap()[at] ^= 1 << bit;
                match all_or_refusal(&files, whole) {
                    None => harmless += 1,
                    Some(OpenError::Damaged(damage)) => {
                        assert_eq!(damage.file, name);
                        let off = damage.offset.abs_diff(at as u64);
                        assert!(off < SECTOR as u64, "flipped at {at}, reported: {damage}");
                        reported += 1;
                    }
                    Some(other) => panic!("a flipped bit at {at} of {name}: {other}"),
                }
            }
        }
    }
    assert!(
        reported > 20_000 && harmless > 8_000,
        "{reported} reported, {harmless} in unused space"
    );
}

#[test]
fn every_truncation_is_reported() {
    let (files, history) = small_log();
    for name in segments(&files) {
        for length in 0..files[&name].len() {
            let mut files = files.clone();
            files.get_mut(&name).unwrap().truncate(length);
            let error = all_or_refusal(&files, history.last().unwrap());
            let Some(OpenError::Damaged(damage)) = error else {
                panic!("{name} cut to {length}: {error:?}");
            };
            assert_eq!(
                damage.why.contains("shorter than a segment's header"),
                length < SECTOR
            );
            assert_eq!((damage.file, damage.offset), (name.clone(), length as u64));
        }
        let mut longer = files.clone();
        longer.get_mut(&name).unwrap().push(0);
        assert!(all_or_refusal(&longer, history.last().unwrap()).is_some());
    }
}

/// A sector replaced by zeros, noise, or a sector from elsewhere in the log. Only one thing cannot be told from a crash: zeros
/// inside the very last frame (see `docs/wal.md`).
#[test]
fn lost_and_misplaced_sectors_are_reported() {
    let (files, history) = small_log();
    let (whole, before_last) = (&history[history.len() - 1], &history[history.len() - 2]);
    let all: Vec<&[u8]> = files.values().flat_map(|bytes| bytes.chunks(SECTOR)).collect();
    let noise = Random(5).bytes(SECTOR);
    let zeros = [0; SECTOR];
    let mut torn = Vec::new();
    for name in segments(&files) {
        for at in (0..files[&name].len()).step_by(SECTOR) {
            for other in all.iter().copied().chain([&noise[..], &zeros[..]]) {
                let mut files = files.clone();
                files.get_mut(&name).unwrap()[at..at + SECTOR].copy_from_slice(other);
                match open(&MemDisk::of(&files), LENGTH) {
                    Ok((_, found)) if found == *whole => {}
                    Ok((_, found)) => {
                        assert_eq!(found, *before_last);
                        assert!(other.iter().all(|&byte| byte == 0), "{name} at {at}");
                        torn.push((name.clone(), at));
                    }
                    Err(_) => {}
                }
            }
        }
    }
    torn.dedup();
    assert_eq!(torn.len(), 2, "the two sectors of the last frame: {torn:?}");
}

#[test]
fn a_missing_segment_is_reported() {
    let (files, history) = small_log();
    let names = segments(&files);
    let missing = |gone: &str| {
        let mut files = files.clone();
        files.remove(gone);
        all_or_refusal(&files, history.last().unwrap())
    };
    for gone in &names[..2] {
        match missing(gone) {
            Some(OpenError::MissingSegment { file }) => assert_eq!(file, *gone),
            other => panic!("without {gone}: {other:?}"),
        }
    }
    assert!(
        missing(&names[names.len() - 1]).is_none(),
        "the spare holds nothing"
    );
}

#[test]
fn a_missing_oldest_segment_is_reported_if_it_held_entries() {
    let (files, history) = small_log();
    let mut rest = files.clone();
    let first = segments(&files).remove(0);
    rest.remove(&first);
    match all_or_refusal(&rest, history.last().unwrap()) {
        Some(OpenError::MissingSegment { file }) => assert_eq!(file, first),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_of_another_log_is_foreign() {
    let (files, _) = small_log();
    let other = Options {
        identity: IDENTITY + 1,
        ..options(LENGTH)
    };
    let opened = Wal::open(MemDisk::of(&files).shared(), other, &mut |_| {});
    assert!(
        matches!(opened, Err(OpenError::Foreign { found: IDENTITY, .. })),
        "{opened:?}"
    );
}

#[test]
fn an_older_copy_of_a_segment_is_reported() {
    let (files, history) = small_log();
    let mut mixed = files.clone();
    let names = segments(&files);
    // The second segment as it was before anything was written to it.
    mixed.get_mut(&names[1]).unwrap()[SECTOR..].fill(0);
    assert!(all_or_refusal(&mixed, history.last().unwrap()).is_some());
    // A segment under its neighbour's name.
    mixed.insert(names[1].clone(), files[&names[0]].clone());
    assert!(all_or_refusal(&mixed, history.last().unwrap()).is_some());
}

#[test]
fn a_newer_format_is_named_as_such() {
    let (mut files, _) = small_log();
    let name = segments(&files).remove(0);
    let bytes = files.get_mut(&name).unwrap();
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    bytes[12..16].fill(0);
    let crc = crc32c::crc32c(&bytes[..SECTOR]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let error = open(&MemDisk::of(&files), LENGTH).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Version {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}

/// Sound by its checksum, but not a length that any program of this format gives a segment.
#[test]
fn an_impossible_length_is_reported() {
    for length in [0, SECTOR + 188] {
        let (mut files, _) = small_log();
        let name = segments(&files).remove(0);
        let bytes = files.get_mut(&name).unwrap();
        bytes.truncate(length.max(SECTOR));
        bytes[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[12..16].fill(0);
        let crc = crc32c::crc32c(&bytes[..SECTOR]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        let error = open(&MemDisk::of(&files), LENGTH).unwrap_err();
        assert!(error.to_string().contains("impossible length"), "{error}");
    }
}

/// Damage found while the log runs is an error of the read, not wrong bytes.
#[test]
fn a_cold_read_of_a_damaged_entry_is_an_error() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 8192).unwrap();
    wal.append(&[vec![entry(1, vec![5; 2000]), entry(2, "fine")]])
        .unwrap();
    let segment = quorate_base::Disk::open(&disk, "wal-0000000000000001", false).unwrap();
    segment.write_at(1500, &[6]).unwrap();
    let error = wal.read(1.into(), 2.into(), 1 << 20).unwrap_err();
    assert!(
        matches!(&error, quorate_wal::ReadError::Damaged(damage) if damage.index == Some(1.into())),
        "{error}"
    );
    assert_eq!(wal.read(2.into(), 2.into(), 1 << 20).unwrap(), ["fine"]);
}

/// A disk that answers with another log's sector of the same place, sound and of the same identity: an entry, but not the one asked for.
#[test]
fn a_cold_read_of_another_entry_is_an_error() {
    let log = |batch: Vec<quorate_wal::Record>| {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, 4096).unwrap();
        wal.append(&[batch]).unwrap();
        (disk, wal)
    };
    let (disk, wal) = log(vec![state(b"same"), entry(1, "size")]);
    let (other, _) = log(vec![mark(6, b"same"), entry(7, "size")]);
    assert_eq!(wal.read(1.into(), 1.into(), 9).unwrap(), ["size"]);
    let name = "wal-0000000000000001";
    let segment = quorate_base::Disk::open(&disk, name, false).unwrap();
    segment.write_at(0, &other.files()[name]).unwrap();
    let error = wal.read(1.into(), 1.into(), 9).unwrap_err();
    assert!(
        error.to_string().contains("another record than the entry"),
        "{error}"
    );
}

#[test]
fn inspecting_shows_everything_and_changes_nothing() {
    let (files, _) = small_log();
    let disk = MemDisk::of(&files);
    let mut items = Vec::new();
    inspect(&disk, &mut |located| items.push(located))
        .unwrap()
        .unwrap();
    let records = items
        .iter()
        .filter(|located| matches!(located.item, Item::Record(_)));
    assert!(records.count() >= 11);
    assert!(
        items
            .iter()
            .any(|located| matches!(located.item, Item::Unused { .. }))
    );
    let damages = |items: &[quorate_wal::Located]| {
        let damages = items
            .iter()
            .filter(|located| matches!(located.item, Item::Damage(_)));
        damages
            .map(|located| (located.file.clone(), located.offset))
            .collect::<Vec<_>>()
    };
    assert_eq!(damages(&items), []);
    let sound = items.len();

    let mut broken = files.clone();
    let name = segments(&files).remove(0);
    broken.get_mut(&name).unwrap()[SECTOR + 50] ^= 1;
    let disk = MemDisk::of(&broken);
    items.clear();
    let verdict = inspect(&disk, &mut |located| items.push(located)).unwrap();
    assert!(matches!(verdict, Err(OpenError::Damaged(_))));
    assert_eq!(damages(&items), [(name, SECTOR as u64)]);
    assert!(items.len() > sound / 2, "it goes on behind the damage");
    assert_eq!((disk.calls(), disk.files()), (0, broken));
}

/// What is shown covers a segment without gap or overlap, and behind damage it goes on at the next sound frame.
#[test]
fn inspecting_leaves_nothing_out() {
    let (files, _) = longer_log();
    let shown = |files: &Files| {
        let mut items = Vec::new();
        let verdict = inspect(&MemDisk::of(files), &mut |located| items.push(located)).unwrap();
        (items, verdict.is_ok())
    };
    let (items, sound) = shown(&files);
    assert!(sound);
    for (name, bytes) in &files {
        let mut end = 0;
        for located in items.iter().filter(|located| located.file == *name) {
            let length = match &located.item {
                Item::Segment { length, number, .. } => {
                    assert_eq!((*length, *number > 0), (bytes.len() as u64, true));
                    SECTOR as u64
                }
                Item::Frame { length, .. } | Item::Unused { length } => *length,
                _ => continue,
            };
            assert_eq!(located.offset, end, "{located:?}");
            end += length;
        }
        assert_eq!(end, bytes.len() as u64, "{name}");
    }

    let frames = frames(&files);
    for (broken, (name, at, _)) in frames.iter().enumerate() {
        let mut files = files.clone();
        files.get_mut(name).unwrap()[at + 8] ^= 1;
        let (items, sound) = shown(&files);
        assert!(!sound);
        let found = items
            .iter()
            .filter(|located| matches!(located.item, Item::Frame { .. }))
            .map(|located| (located.file.clone(), located.offset as usize));
        let mut expected: Vec<_> = frames.iter().map(|frame| (frame.0.clone(), frame.1)).collect();
        expected.remove(broken);
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    let mut headless = files.clone();
    let name = segments(&files).remove(1);
    headless.get_mut(&name).unwrap()[0] ^= 1;
    let (items, sound) = shown(&headless);
    assert!(!sound);
    let of_it: Vec<_> = items.iter().filter(|located| located.file == name).collect();
    assert!(
        matches!(of_it[..], [located] if located.offset == 0 && matches!(located.item, Item::Damage(_))),
        "{of_it:?}"
    );
}

/// Where the frames of a log are, in order: file, first sector's offset, offset behind the last sector.
fn frames(files: &Files) -> Vec<(String, usize, usize)> {
    let mut frames = Vec::new();
    let show = &mut |located: quorate_wal::Located| {
        if let Item::Frame { length, .. } = located.item {
            let at = located.offset as usize;
            frames.push((located.file, at, at + length as usize));
        }
    };
    inspect(&MemDisk::of(files), show).unwrap().unwrap();
    frames
}

/// A log of several frames in each of several segments, and what it held after each frame.
fn longer_log() -> (Files, Vec<Model>) {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, 8192).unwrap();
    let mut history = vec![model.clone()];
    let mut random = Random(21);
    for (i, size) in (1..).zip([40, 1300, 300, 2200, 10, 700, 900, 90, 1500, 200, 2900, 5, 450]) {
        let batches = [vec![entry(i, random.bytes(size))]];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
        history.push(model.clone());
    }
    (disk.files(), history)
}

/// Every run of sectors zeroed, over the end of a segment's frames and beyond. If anything of a later frame is left to show it, that
/// is damage; only where the whole end of the log is gone is it taken for a tear.
#[test]
fn zeroed_runs_are_reported_while_anything_later_is_left() {
    let (files, history) = longer_log();
    let frames = frames(&files);
    assert_eq!(frames.len() + 1, history.len());
    assert!(files.len() >= 3);
    let (mut reported, mut silent) = (0, 0);
    for (name, bytes) in &files {
        for from in (SECTOR..bytes.len()).step_by(SECTOR) {
            for to in (from + SECTOR..=bytes.len()).step_by(SECTOR) {
                let gone = |file: &String, at: usize| file == name && (from..to).contains(&at);
                let hit = frames
                    .iter()
                    .position(|(file, start, end)| file == name && *start < to && from < *end);
                let Some(hit) = hit else { continue };
                let proof = frames[hit + 1..]
                    .iter()
                    .any(|(file, start, end)| !gone(file, *start) || !gone(file, *end - SECTOR));
                let mut files = files.clone();
                files.get_mut(name).unwrap()[from..to].fill(0);
                match open(&MemDisk::of(&files), 8192) {
                    Err(OpenError::Damaged(_)) => reported += 1,
                    Err(other) => panic!("{name} {from}..{to}: {other}"),
                    Ok((_, found)) => {
                        assert!(
                            !proof,
                            "{name} {from}..{to}: dropped although a later frame is there"
                        );
                        assert_eq!(found, history[hit]);
                        silent += 1;
                    }
                }
            }
        }
    }
    assert!(
        reported > 100 && silent > 0,
        "{reported} reported, {silent} taken for a tear"
    );
}

/// Two places at once: nothing may make up for the other.
#[test]
fn two_damaged_sectors_are_reported() {
    let (files, history) = longer_log();
    let whole = history.last().unwrap();
    let mut random = Random(33);
    // Anywhere in the sectors, and in the headers at the front of them.
    for within in [SECTOR as u64, 40] {
        for (name, bytes) in &files {
            for one in (0..bytes.len()).step_by(SECTOR) {
                for two in (one + SECTOR..bytes.len()).step_by(SECTOR) {
                    let mut files = files.clone();
                    for at in [one, two] {
                        files.get_mut(name).unwrap()[at + random.below(within) as usize] ^=
                            1 << random.below(8);
                    }
                    if let Ok((_, found)) = open(&MemDisk::of(&files), 8192) {
                        assert_eq!(found, *whole, "{name} at {one} and {two}");
                    }
                }
            }
        }
    }
}

/// All from some frame on zeroed, but for one sector. A header or footer of a later frame is proof enough of the loss.
#[test]
fn one_sector_of_a_later_frame_is_enough() {
    let (files, history) = longer_log();
    let frames = frames(&files);
    let last = frames[frames.len() - 1].0.clone();
    let (mut reported, mut silent) = (0, 0);
    for (first, (_, from, _)) in frames.iter().enumerate().filter(|(_, frame)| frame.0 == last) {
        for (this, (_, start, end)) in frames.iter().enumerate().skip(first) {
            for kept in (*start..*end).step_by(SECTOR) {
                let mut files = files.clone();
                let bytes = files.get_mut(&last).unwrap();
                let sector = bytes[kept..kept + SECTOR].to_vec();
                bytes[*from..].fill(0);
                bytes[kept..kept + SECTOR].copy_from_slice(&sector);
                match open(&MemDisk::of(&files), 8192) {
                    Err(error) => {
                        if this > first && (kept == *start || kept == *end - SECTOR) {
                            assert!(error.to_string().contains("a later frame shows"), "{error}");
                        }
                        reported += 1;
                    }
                    Ok((_, found)) => {
                        let tells = kept == *start || kept == *end - SECTOR;
                        assert!(
                            this == first || !tells,
                            "from {from}, kept {kept} of a later frame"
                        );
                        assert_eq!(found, history[first]);
                        silent += 1;
                    }
                }
            }
        }
    }
    assert!(
        reported > 5 && silent > 5,
        "{reported} reported, {silent} taken for a tear"
    );
}

/// A torn frame in the next segment shows that the last frame of this one was durable, even if no header says so.
#[test]
fn remains_in_the_next_segment_are_proof_for_this_one() {
    let (files, _) = longer_log();
    let frames = frames(&files);
    let next = frames.iter().position(|frame| frame.0 != frames[0].0).unwrap();
    let ((first, _, end), (second, start, _)) = (&frames[next - 1], &frames[next]);
    let mut files = files.clone();
    files.get_mut(first).unwrap()[end - SECTOR..*end].fill(0);
    let bytes = files.get_mut(second).unwrap();
    bytes[*start..].fill(0);
    files.retain(|name, _| name <= second);
    assert!(
        open(&MemDisk::of(&files), 8192).is_ok(),
        "alone it looks like a tear"
    );
    files.get_mut(second).unwrap()[start + SECTOR..start + 2 * SECTOR].fill(7);
    let error = open(&MemDisk::of(&files), 8192).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged(damage) if damage.file == *first),
        "{error}"
    );
}

#[test]
fn a_segment_emptied_behind_a_spare_is_reported() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 2048).unwrap();
    for i in 1..=2 {
        wal.append(&[vec![entry(i, vec![9; 900])]]).unwrap();
    }
    maintain_all(&mut wal).unwrap();
    let mut files = disk.files();
    let names = segments(&files);
    assert_eq!(names.len(), 3);
    files.get_mut(&names[1]).unwrap()[SECTOR..].fill(0);
    let error = open(&MemDisk::of(&files), 2048).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged(damage) if damage.file == names[1]),
        "{error}"
    );
}

#[test]
fn an_emptied_log_whose_beginning_was_removed_is_reported() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, 2048).unwrap();
    for i in 1..=3 {
        wal.append(&[vec![entry(i, vec![9; 900]), mark(i, b"m")]])
            .unwrap();
    }
    maintain_all(&mut wal).unwrap();
    let mut files = disk.files();
    let names = segments(&files);
    assert_eq!(names.len(), 2, "the newest and a spare: {names:?}");
    files.get_mut(&names[0]).unwrap()[SECTOR..].fill(0);
    let error = open(&MemDisk::of(&files), 2048).unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged(damage) if damage.file == names[0]),
        "{error}"
    );
}

/// Two logs of the same identity that differ only in how the same entries were written.
#[test]
fn segments_of_two_histories_do_not_mix() {
    let log = |batches: [&[usize]; 2]| {
        let disk = MemDisk::default();
        let (mut wal, mut model) = open(&disk, 4608).unwrap();
        for sizes in batches.into_iter().filter(|sizes| !sizes.is_empty()) {
            let batch = sizes
                .iter()
                .zip(model.last() + 1..)
                .map(|(&size, i)| entry(i, vec![1; size]))
                .collect();
            let batches = [batch];
            wal.append(&batches).unwrap();
            model.apply_all(&batches);
        }
        wal.append(&[vec![entry(3, vec![2; 1500])]]).unwrap();
        disk.files()
    };
    let (two, one) = (log([&[300], &[1200]]), log([&[300, 1900], &[]]));
    let names = segments(&two);
    assert_eq!(segments(&one), names);
    let ends = |files: &Files| frames(files).iter().rfind(|frame| frame.0 == names[0]).unwrap().2;
    assert_eq!(ends(&two), ends(&one), "the same place follows");
    let mixed = Files::from([
        (names[0].clone(), one[&names[0]].clone()),
        (names[1].clone(), two[&names[1]].clone()),
    ]);
    let error = open(&MemDisk::of(&mixed), 4608).unwrap_err();
    assert!(error.to_string().contains("sequence number"), "{error}");
}
