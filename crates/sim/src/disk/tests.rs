//! What the simulated disk promises, and that a lying one does not.

use std::io;

use quorate_base::DiskFile;

use super::*;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Rng::new(seed))
}

fn contents(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.mount().open(name, false).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mounted = disk.mount();
        let file = mounted.open("a", true).unwrap();
        file.write_at(0, &[7; 3000]).unwrap();
        file.sync().unwrap();
        mounted.sync_dir().unwrap();
        disk.crash();
        assert_eq!(contents(&disk, "a"), Some(vec![7; 3000]));
        assert!(
            file.write_at(0, b"x").is_err(),
            "a view of an earlier run is useless"
        );
    }
}

#[test]
fn unsynced_sectors_survive_in_every_mixture() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let mounted = disk.mount();
        let file = mounted.open("a", true).unwrap();
        file.write_at(0, &[1; 2 * SECTOR]).unwrap();
        file.sync().unwrap();
        mounted.sync_dir().unwrap();
        file.write_at(0, &[2; 2 * SECTOR]).unwrap();
        disk.crash();
        let bytes = contents(&disk, "a").unwrap();
        for sector in bytes.chunks(SECTOR) {
            assert!(
                sector.iter().all(|b| *b == sector[0]),
                "a sector is never torn itself"
            );
        }
        outcomes.insert((bytes[0], bytes[SECTOR]));
    }
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [(1, 1), (1, 2), (2, 1), (2, 2)]
    );
}

#[test]
fn names_survive_only_with_a_directory_sync() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let mounted = disk.mount();
        mounted.open("old", true).unwrap();
        mounted.sync_dir().unwrap();
        mounted.rename("old", "new").unwrap();
        mounted.open("other", true).unwrap();
        disk.crash();
        seen.insert(disk.mount().list().unwrap().join(" "));
    }
    let expected = ["new", "new other", "old", "old other"];
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        expected,
        "a rename is atomic, other names independent"
    );
}

#[test]
fn bytes_cut_off_do_not_shine_through_later() {
    for seed in 0..50 {
        let disk = disk(seed);
        let mounted = disk.mount();
        let file = mounted.open("a", true).unwrap();
        mounted.sync_dir().unwrap();
        file.write_at(0, &[9; 4000]).unwrap();
        file.sync().unwrap();
        file.set_len(700).unwrap();
        file.set_len(4000).unwrap();
        let mut byte = [1];
        file.read_at(700, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        file.sync().unwrap();
        disk.crash();
        let bytes = contents(&disk, "a").unwrap();
        assert!(bytes[..700].iter().all(|b| *b == 9) && bytes[700..].iter().all(|b| *b == 0));
    }
}

#[test]
fn the_fuse_strikes_inside_the_chosen_operation() {
    let disk = disk(3);
    let mounted = disk.mount();
    let file = mounted.open("a", true).unwrap();
    disk.arm(2, Blow::PowerLoss);
    file.write_at(0, b"1").unwrap();
    file.write_at(1, b"2").unwrap();
    assert!(file.sync().is_err() && disk.is_dead());
    assert!(file.len().is_err(), "nothing works without power");
    disk.crash();
    assert!(!disk.is_dead() && disk.mount().list().is_ok());
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next() {
    let lost = (0..50).any(|seed| {
        let disk = disk(seed);
        let mounted = disk.mount();
        let file = mounted.open("a", true).unwrap();
        mounted.sync_dir().unwrap();
        disk.arm(0, Blow::SyncError);
        file.write_at(0, &[5; 4 * SECTOR]).unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.crash();
        contents(&disk, "a").unwrap() != vec![5; 4 * SECTOR]
    });
    assert!(
        lost,
        "pages of a failed sync are marked clean without being written"
    );
}

#[test]
fn a_lying_disk_forgets_what_it_confirmed() {
    let forgotten = (0..50).any(|seed| {
        let disk = disk(seed);
        disk.lie();
        let mounted = disk.mount();
        let file = mounted.open("a", true).unwrap();
        mounted.sync_dir().unwrap();
        file.write_at(0, &[5; SECTOR]).unwrap();
        file.sync().unwrap();
        disk.crash();
        contents(&disk, "a") != Some(vec![5; SECTOR])
    });
    assert!(forgotten);
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = disk(1);
    let mounted = disk.mount();
    let file = mounted.open("a", true).unwrap();
    file.write_at(0, &[1; 1000]).unwrap();
    disk.limit(Some(1000));
    file.write_at(0, &[2; 1000]).unwrap();
    assert_eq!(
        file.write_at(1000, b"3").unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    disk.limit(None);
    file.write_at(1000, b"3").unwrap();
    assert_eq!(disk.used(), 1001);
}

#[test]
fn rot_flips_one_bit_of_what_is_there_and_survives_a_crash() {
    let disk = disk(1);
    let mounted = disk.mount();
    let file = mounted.open("a1", true).unwrap();
    file.write_at(1000, &[0x55; 100]).unwrap();
    file.sync().unwrap();
    mounted.sync_dir().unwrap();
    disk.rot("a");
    disk.crash();
    let bytes = contents(&disk, "a1").unwrap();
    let flipped: u32 = bytes[1000..].iter().map(|byte| (byte ^ 0x55).count_ones()).sum();
    assert_eq!(flipped, 1);
    assert!(bytes[..1000].iter().all(|byte| *byte == 0));
}

/// Rot in use: who has the file open reads the flipped bit without any restart, and so does every later run.
#[test]
fn rot_is_read_by_the_run_that_is_under_way() {
    let disk = disk(1);
    let mounted = disk.mount();
    let file = mounted.open("wal-1", true).unwrap();
    mounted.sync_dir().unwrap();
    file.write_at(0, &[0x55; SECTOR]).unwrap();
    file.sync().unwrap();
    disk.rot("wal-");
    let mut bytes = [0; SECTOR];
    file.read_at(0, &mut bytes).unwrap();
    let flipped: u32 = bytes.iter().map(|byte| (byte ^ 0x55).count_ones()).sum();
    assert_eq!(flipped, 1, "nobody is told, and the bytes are others");
    assert_eq!((disk.failed(), disk.has_faulted()), (None, false));
    disk.crash();
    assert_eq!(contents(&disk, "wal-1"), Some(bytes.to_vec()));
}

#[test]
fn the_durable_copy_is_the_worst_outcome() {
    let disk = disk(1);
    let mounted = disk.mount();
    let file = mounted.open("a", true).unwrap();
    mounted.sync_dir().unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync().unwrap();
    file.write_at(0, b"unsure").unwrap();
    mounted.open("b", true).unwrap();
    assert_eq!(contents(&disk.durable_copy(), "a"), Some(b"synced".to_vec()));
    assert_eq!(disk.durable_copy().mount().list().unwrap(), ["a"]);
    assert_eq!(
        contents(&disk, "a"),
        Some(b"unsure".to_vec()),
        "the copy does not disturb the original"
    );
}

#[test]
fn a_length_set_at_once_is_there_or_not_and_growth_by_writing_ends_anywhere() {
    let lengths = |grow: &dyn Fn(&dyn DiskFile)| {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = disk(seed);
            let mounted = disk.mount();
            let file = mounted.open("a", true).unwrap();
            mounted.sync_dir().unwrap();
            grow(&*file);
            disk.crash();
            seen.insert(contents(&disk, "a").unwrap().len());
        }
        seen.into_iter().collect::<Vec<_>>()
    };
    let twice = |file: &dyn DiskFile| {
        file.set_len(2000).unwrap();
        file.set_len(5000).unwrap();
    };
    assert_eq!(lengths(&twice), [0, 2000, 5000]);
    assert_eq!(
        lengths(&|file| file.write_at(0, &[1; 1100]).unwrap()),
        [0, 512, 1024, 1100]
    );
}

/// A log of four sectors that were made beforehand, and its file.
fn log(disk: &SimDisk) -> Arc<dyn DiskFile> {
    let mounted = disk.mount();
    let file = mounted.open("wal-1", true).unwrap();
    file.write_at(0, &[0; 4 * SECTOR]).unwrap();
    file.sync().unwrap();
    mounted.sync_dir().unwrap();
    file
}

/// Which byte each sector of the log is full of.
fn sectors(disk: &SimDisk) -> Vec<u8> {
    let bytes = contents(disk, "wal-1").unwrap();
    let sectors = bytes.chunks(SECTOR);
    sectors
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
            sector[0]
        })
        .collect()
}

#[test]
fn a_lost_write_is_confirmed_and_gone() {
    for cached in [true, false] {
        let disk = disk(1);
        let file = log(&disk);
        disk.arm(0, Blow::Lose { cached });
        file.write_at(0, &[1; SECTOR]).unwrap();
        file.sync().unwrap();
        file.write_at(SECTOR as u64, &[2; SECTOR]).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.take_struck(), Some(Blow::Lose { cached }));
        assert_eq!(disk.failed(), None, "nobody was told");
        assert_eq!(sectors(&disk), [u8::from(cached), 2, 0, 0]);
        disk.crash();
        assert_eq!(sectors(&disk), [0, 2, 0, 0]);
    }
}

#[test]
fn a_misdirected_write_is_confirmed_and_elsewhere() {
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = disk(seed);
        let file = log(&disk);
        disk.arm(0, Blow::Misdirect { cached: false });
        file.write_at(0, &[1; SECTOR]).unwrap();
        file.sync().unwrap();
        let seen = sectors(&disk);
        disk.crash();
        assert_eq!(sectors(&disk), seen, "it is on the medium");
        places.insert(seen.iter().position(|byte| *byte == 1).expect("it is somewhere"));
        assert_eq!(seen.iter().filter(|byte| **byte == 1).count(), 1);
    }
    // By chance it may hit the right place, and is no fault then.
    assert_eq!(places, (0..4).collect());
}

#[test]
fn errors_are_told_once_and_leave_what_they_say() {
    let whole = disk(2);
    let file = log(&whole);
    whole.arm(0, Blow::WriteError);
    let error = file.write_at(0, &[1; 2 * SECTOR]).unwrap_err();
    assert!(error.to_string().contains(IO_ERROR));
    let told = (whole.failed(), whole.has_faulted());
    assert_eq!(told, (Some(Blow::WriteError), true));
    assert_eq!(sectors(&whole), [0; 4]);
    file.write_at(0, &[2; SECTOR]).unwrap();
    let disk = disk(1);
    let file = log(&disk);
    disk.arm(1, Blow::ReadError);
    file.write_at(0, &[1; SECTOR]).unwrap();
    let mut byte = [0];
    assert!(file.read_at(0, &mut byte).is_ok(), "only reads count");
    assert!(file.read_at(0, &mut byte).is_err());
    assert!(file.read_at(0, &mut byte).is_ok() && byte == [1]);
}

#[test]
fn a_short_write_may_end_at_any_byte() {
    let mut ends = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let disk = disk(seed);
        let file = log(&disk);
        disk.arm(0, Blow::ShortWrite);
        assert!(file.write_at(500, &[1; 40]).is_err());
        assert_eq!(
            (disk.failed(), disk.has_faulted()),
            (Some(Blow::ShortWrite), true)
        );
        let written = |byte: &u8| *byte == 1;
        let now = contents(&disk, "wal-1").unwrap();
        let end = 500 + now[500..].iter().take_while(|byte| written(byte)).count();
        assert!(now[..500].iter().chain(&now[end..]).all(|byte| *byte == 0));
        ends.insert(end);
        // The process may end, and the machine lose power, in any state of those two sectors.
        disk.crash();
        let left = contents(&disk, "wal-1").unwrap();
        assert!(left[end..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(ends, (501..540).collect(), "neither nothing of it nor all");
}

#[test]
fn a_failed_sync_of_the_directory_is_told_and_names_are_lost_unless_another_succeeds() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..80 {
        let disk = disk(seed);
        let mounted = disk.mount();
        disk.arm(0, Blow::DirSyncError);
        mounted.sync_dir().expect("there is nothing to sync");
        mounted.open("a", true).unwrap();
        mounted.open("b", true).unwrap();
        assert!(mounted.sync_dir().unwrap_err().to_string().contains(IO_ERROR));
        assert_eq!(disk.failed(), Some(Blow::DirSyncError));
        assert_eq!(
            mounted.list().unwrap(),
            ["a", "b"],
            "it is seen while there is power"
        );
        let again = seed % 2 == 0;
        if again {
            mounted.sync_dir().unwrap();
        }
        disk.crash();
        outcomes.insert((again, disk.mount().list().unwrap().concat()));
    }
    let expected = [
        (false, ""),
        (false, "a"),
        (false, "ab"),
        (false, "b"),
        (true, "ab"),
    ];
    let expected = expected.map(|(again, names)| (again, names.to_owned()));
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), expected);
}

/// A store of four sectors, each full of a byte of its own, written one after the other.
fn store(disk: &SimDisk) -> Arc<dyn DiskFile> {
    let mounted = disk.mount();
    let file = mounted.open("store", true).unwrap();
    mounted.sync_dir().unwrap();
    for n in 0..4 {
        file.write_at((n * SECTOR) as u64, &[n as u8 + 1; SECTOR])
            .unwrap();
    }
    file.sync().unwrap();
    file
}

#[test]
fn a_write_that_turns_out_to_be_lost_leaves_what_was_before() {
    for seed in 0..40 {
        let (cached, disk) = (seed % 2 == 0, disk(seed));
        let file = store(&disk);
        file.write_at(SECTOR as u64, &[9; SECTOR]).unwrap();
        assert!(!disk.is_spoilt(STORE));
        assert!(
            disk.lose_write(STORE, 0, cached, false),
            "not the one at the beginning"
        );
        assert!(disk.is_spoilt(STORE));
        let now = contents(&disk, "store").unwrap();
        let seen = (0..4).filter(|n| now[n * SECTOR] == 0).count();
        assert_eq!((now[0], now[SECTOR]), (1, 9), "nor one that is not synced");
        assert_eq!(seen, usize::from(!cached));
        disk.crash();
        let lost = (0..4).filter(|n| contents(&disk, "store").unwrap()[n * SECTOR] == 0);
        let lost: Vec<usize> = lost.collect();
        assert!(matches!(lost[..], [2 | 3]), "{lost:?}");
        assert!(disk.is_spoilt(STORE));
        // What is written anew is no longer spoilt when that is synced.
        let file = disk.mount().open("store", false).unwrap();
        file.write_at((lost[0] * SECTOR) as u64, &[7; SECTOR]).unwrap();
        assert!(disk.is_spoilt(STORE));
        file.sync().unwrap();
        assert!(!disk.is_spoilt(STORE));
    }
}

#[test]
fn a_write_gone_astray_is_missing_in_one_place_and_too_much_in_another() {
    let mut changed = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let disk = disk(seed);
        store(&disk);
        assert!(disk.lose_write(STORE, 0, false, true));
        let now = contents(&disk, "store").unwrap();
        disk.crash();
        assert_eq!(contents(&disk, "store"), Some(now.clone()), "it is on the medium");
        changed.insert((0..4).filter(|n| now[n * SECTOR] != *n as u8 + 1).count());
    }
    assert_eq!(changed, [1, 2].into(), "by chance it may hit the right place");
}
