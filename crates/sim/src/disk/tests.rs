//! What the simulated disk promises, and that a lying one does not.

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
    for (blow, left) in [(Blow::WriteError, 0), (Blow::ShortWrite, 1)] {
        let disk = disk(3);
        let file = log(&disk);
        disk.arm(0, blow);
        let error = file.write_at(0, &[1; 2 * SECTOR]).unwrap_err();
        assert!(error.to_string().contains(IO_ERROR));
        assert_eq!((disk.failed(), disk.has_faulted()), (Some(blow), true));
        assert_eq!(sectors(&disk), [left, 0, 0, 0]);
        file.write_at(0, &[2; SECTOR]).unwrap();
    }
    let disk = disk(1);
    let file = log(&disk);
    disk.arm(1, Blow::ReadError);
    file.write_at(0, &[1; SECTOR]).unwrap();
    let mut byte = [0];
    assert!(file.read_at(0, &mut byte).is_ok(), "only reads count");
    assert!(file.read_at(0, &mut byte).is_err());
    assert!(file.read_at(0, &mut byte).is_ok() && byte == [1]);
}
