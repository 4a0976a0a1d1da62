//! The staging file of an incoming snapshot on this node's disk. Its bytes and what is done with them are the node's affair
//! ([`quorate_node::staging`]); here people are told of what goes wrong.

use std::sync::Arc;

use quorate_base::Disk;
use quorate_node::event::{Event, StageOp};

pub(crate) use quorate_node::staging::{StagingReader, discard};

/// Carries out what the node wants done with the staging file.
pub(crate) struct Staging(quorate_node::Staging);

impl Staging {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Staging {
        Staging(quorate_node::Staging::new(disk))
    }

    /// Carries out one operation. On a full disk the transfer is given up, which the node hears of. Any other error is final.
    pub(crate) fn carry_out(&mut self, op: StageOp) -> Result<Option<Event>, String> {
        let resumes = matches!(op, StageOp::Resume { .. });
        let event = self.0.carry_out(op).map_err(|error| error.to_string())?;
        match &event {
            Some(Event::StageFailed { .. }) => {
                tracing::error!("no room to stage a snapshot from the leader: the disk is full");
            }
            _ if resumes => {
                tracing::info!("going on with a snapshot that was being received before the restart")
            }
            _ => {}
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use bytes::Bytes;
    use quorate_base::DiskFile;
    use quorate_node::staging::STAGING;

    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    /// Pieces of a snapshot, each with the checksum up to its end.
    fn pieces<'a>(texts: &[&'a str]) -> Vec<(u64, u32, &'a str)> {
        let (mut len, mut crc) = (0, 0);
        let piece = |text: &&'a str| {
            let offset = len;
            len += text.len() as u64;
            crc = crc32c::crc32c_append(crc, text.as_bytes());
            (offset, crc, *text)
        };
        texts.iter().map(piece).collect()
    }

    fn write(stream: u64, (offset, crc, text): (u64, u32, &str)) -> StageOp {
        StageOp::Write {
            stream,
            offset,
            crc,
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    fn begin(stream: u64, about: &'static str) -> StageOp {
        StageOp::Begin {
            stream,
            about: Bytes::from_static(about.as_bytes()),
        }
    }

    /// Carries out something that answers with the bytes staged, and whether that is all.
    fn staged(staging: &mut Staging, op: StageOp) -> (u64, bool) {
        match staging.carry_out(op).unwrap() {
            Some(Event::Staged { len, finished, .. }) => (len, finished),
            other => panic!("{other:?}"),
        }
    }

    /// Checks what is there to its end: what it is, the bytes, and the steps that it took.
    fn checked(staging: &mut Staging) -> (Option<Bytes>, u64, usize) {
        for steps in 1.. {
            match staging.carry_out(StageOp::Check).unwrap() {
                Some(Event::StageChecked { end: false, .. }) => {}
                Some(Event::StageChecked { about, len, .. }) => return (about, len, steps),
                other => panic!("{other:?}"),
            }
        }
        unreachable!()
    }

    fn text(disk: &dyn Disk) -> io::Result<String> {
        let mut text = String::new();
        StagingReader::open(disk)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// A disk whose files take no more than `room` bytes each.
    #[derive(Debug)]
    struct Narrow {
        inner: DirDisk,
        room: u64,
    }

    #[derive(Debug)]
    struct NarrowFile(Arc<dyn DiskFile>, u64);

    impl Disk for Narrow {
        fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(NarrowFile(self.inner.open(name, create)?, self.room)))
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.inner.list()
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.inner.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.inner.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.inner.sync_dir()
        }
    }

    impl DiskFile for NarrowFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if offset + data.len() as u64 > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write_at(offset, data)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_snapshot_that_is_complete_is_held_open_no_longer() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let staged_at = std::fs::canonicalize(dir.path()).unwrap().join(STAGING);
        let is_open = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            open.flatten()
                .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == staged_at))
        };
        let mut staging = Staging::new(disk);
        staging.carry_out(begin(1, "")).unwrap();
        staging.carry_out(write(1, pieces(&["all of it"])[0])).unwrap();
        assert!(is_open());
        assert_eq!(staged(&mut staging, StageOp::Finish { stream: 1 }), (9, true));
        assert!(
            !is_open(),
            "or its space would be taken for as long as the process runs"
        );
    }

    #[test]
    fn a_full_disk_fails_the_transfer_once_and_frees_what_it_took() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(Narrow {
            inner: DirDisk::open(dir.path()).unwrap(),
            room: 40,
        });
        let mut staging = Staging::new(disk.clone());
        let parts = pieces(&["fits", "too much"]);
        assert!(staging.carry_out(begin(1, "")).unwrap().is_none());
        assert!(staging.carry_out(write(1, parts[0])).unwrap().is_none());
        assert_eq!(staged(&mut staging, StageOp::Sync { stream: 1 }), (4, false));
        let fails = staging.carry_out(write(1, parts[1])).unwrap();
        assert!(
            matches!(fails, Some(Event::StageFailed { stream: 1 })),
            "{fails:?}"
        );
        assert_eq!(disk.open(STAGING, false).unwrap().len().unwrap(), 0);
        // What was queued behind it changes nothing.
        for late in [
            write(1, parts[1]),
            StageOp::Sync { stream: 1 },
            StageOp::Finish { stream: 1 },
        ] {
            assert!(staging.carry_out(late).unwrap().is_none());
        }
        staging.carry_out(begin(2, "")).unwrap();
        staging.carry_out(write(2, parts[0])).unwrap();
        assert_eq!(staged(&mut staging, StageOp::Sync { stream: 2 }), (4, false));
    }

    #[test]
    fn pieces_of_another_transfer_are_ignored() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let mut staging = Staging::new(disk.clone());
        let (first, second) = (pieces(&["first", "late"]), pieces(&["sec", "ond"]));
        assert!(staging.carry_out(write(1, first[0])).unwrap().is_none());
        staging.carry_out(begin(1, "first")).unwrap();
        staging.carry_out(write(1, first[0])).unwrap();
        assert_eq!(staged(&mut staging, StageOp::Sync { stream: 1 }), (5, false));
        staging.carry_out(begin(2, "second")).unwrap();
        staging.carry_out(write(2, second[0])).unwrap();
        assert!(staging.carry_out(write(1, first[1])).unwrap().is_none());
        staging.carry_out(write(2, second[1])).unwrap();
        text(&*disk).expect_err("the end is not there yet");
        assert_eq!(staged(&mut staging, StageOp::Finish { stream: 2 }), (6, true));
        assert_eq!(text(&*disk).unwrap(), "second");
        staging.carry_out(StageOp::Discard).unwrap();
        staging.carry_out(StageOp::Discard).unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn what_was_staged_is_found_after_a_restart_and_goes_on() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        assert_eq!(checked(&mut Staging::new(disk.clone())), (None, 0, 1));
        let long = "x".repeat(700 << 10);
        let parts = pieces(&["ab", &long, &long, "yz"]);
        let mut staging = Staging::new(disk.clone());
        staging.carry_out(begin(1, "this one")).unwrap();
        for part in &parts[..3] {
            staging.carry_out(write(1, *part)).unwrap();
        }
        let mut staging = Staging::new(disk.clone());
        let (about, len, steps) = checked(&mut staging);
        assert_eq!((about.as_deref(), len), (Some(&b"this one"[..]), parts[3].0));
        assert!(steps > 1, "the log need not wait for all of it");
        staging.carry_out(StageOp::Resume { stream: 7 }).unwrap();
        staging.carry_out(write(7, parts[3])).unwrap();
        let whole = parts[3].0 + 2;
        assert_eq!(staged(&mut staging, StageOp::Finish { stream: 7 }), (whole, true));
        assert_eq!(text(&*disk).unwrap(), format!("ab{long}{long}yz"));
        // Finished, and yet not installed: only the end is missing again.
        let mut staging = Staging::new(disk.clone());
        assert_eq!(checked(&mut staging).1, whole);
        staging.carry_out(StageOp::Resume { stream: 8 }).unwrap();
        text(&*disk).expect_err("the end is not there yet");
        assert_eq!(staged(&mut staging, StageOp::Finish { stream: 8 }), (whole, true));
    }

    /// A staged snapshot, its length, and where its first piece begins.
    fn whole(disk: &Arc<dyn Disk>) -> (Vec<u8>, u64) {
        let mut staging = Staging::new(disk.clone());
        staging.carry_out(begin(1, "about")).unwrap();
        let head = disk.open(STAGING, false).unwrap().len().unwrap();
        for part in pieces(&["one", "two", "three"]) {
            staging.carry_out(write(1, part)).unwrap();
        }
        staging.carry_out(StageOp::Finish { stream: 1 }).unwrap();
        let file = disk.open(STAGING, false).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        (bytes, head)
    }

    #[test]
    fn damage_anywhere_is_noticed_and_what_stands_before_it_is_kept() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let (bytes, head) = whole(&disk);
        let file = disk.open(STAGING, false).unwrap();
        for at in 0..bytes.len() {
            for damaged in [vec![bytes[at] ^ 4], vec![]] {
                // A byte is wrong, or the file ends there.
                file.set_len(0).unwrap();
                file.write_at(0, &bytes[..at]).unwrap();
                file.write_at(at as u64, &damaged).unwrap();
                if !damaged.is_empty() {
                    file.write_at(at as u64 + 1, &bytes[at + 1..]).unwrap();
                }
                text(&*disk).expect_err("not what was sent");
                let (about, len, _) = checked(&mut Staging::new(disk.clone()));
                let before = match (at as u64).checked_sub(head) {
                    None => (None, 0),
                    Some(0..15) => (Some("about"), 0),
                    Some(15..30) => (Some("about"), 3),
                    Some(30..47) => (Some("about"), 6),
                    Some(_) => (Some("about"), 11),
                };
                let about = about.as_deref().map(|about| std::str::from_utf8(about).unwrap());
                assert_eq!((about, len), before, "at {at}");
            }
        }
    }

    #[test]
    fn pieces_that_an_earlier_transfer_left_on_the_medium_are_not_found_again() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let (bytes, head) = whole(&disk);
        let mut staging = Staging::new(disk.clone());
        staging.carry_out(begin(1, "other")).unwrap();
        let file = disk.open(STAGING, false).unwrap();
        // As if the crash had lost the cut of the file and kept the header.
        file.write_at(head, &bytes[head as usize..]).unwrap();
        let (about, len, _) = checked(&mut Staging::new(disk.clone()));
        assert_eq!((about.as_deref(), len), (Some(&b"other"[..]), 0));
    }
}
