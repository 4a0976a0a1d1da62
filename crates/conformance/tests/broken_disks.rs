//! Every check of disks can fail: disks with one flaw each, and the check that must name it.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_base::{Disk, DiskFile};
use quorate_conformance::{CrashDisk, Effort, MemDisk, Stacked, disk, log, power};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    CreatesWhatIsAbsent,
    EmptiesWhatItOpens,
    ForgetsTheLastByteOfLongWrites,
    ReadsZerosBeyondTheEnd,
    FillsGapsWithGarbage,
    GrowsWithGarbage,
    WritesOnlyTheFirstPart,
    GivesEachHandleAFileOfItsOwn,
    AsksForTheLengthOnce,
    ListsInReverse,
    RenamesByCopying,
    LeavesRemovedContent,
    RenamesNothingGladly,
    CannotSyncTwice,
    SharesABufferBetweenThreads,
    DropsTheThousandthWrite,
    // From here on only a crash can tell.
    NeverSyncs,
    NeverSyncsNames,
    SyncsNamesOnce,
    HidesWhatItRemoves,
    RewritesBlocks,
    WritesTwice,
    HoldsOddLengthsBack,
}

use Flaw::*;

#[derive(Debug)]
struct Broken {
    inner: Arc<dyn Disk>,
    flaw: Flaw,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    writes: AtomicU64,
    synced: AtomicU64,
    hidden: Mutex<BTreeSet<String>>,
    /// What [`SharesABufferBetweenThreads`] shares.
    buffer: Mutex<Vec<u8>>,
    writers: AtomicUsize,
}

#[derive(Debug)]
struct BrokenFile {
    inner: Arc<dyn DiskFile>,
    flaw: Flaw,
    shared: Arc<Shared>,
    /// A length that was set and held back.
    held: Mutex<Option<u64>>,
    /// The length when the file was opened, or as this handle has changed it since.
    cached: AtomicU64,
}

fn broken(inner: Arc<dyn Disk>, flaw: Flaw) -> Arc<dyn Disk> {
    Arc::new(Broken {
        inner,
        flaw,
        shared: Arc::default(),
    })
}

fn content(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

impl Disk for Broken {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self
            .inner
            .open(name, create || self.flaw == CreatesWhatIsAbsent)?;
        if self.flaw == EmptiesWhatItOpens && create {
            inner.set_len(0)?;
        }
        if self.flaw == GivesEachHandleAFileOfItsOwn {
            let copy = MemDisk::new().open(name, true)?;
            copy.write_at(0, &content(&*inner)?)?;
            inner = copy;
        }
        let len = inner.len()?;
        Ok(Arc::new(BrokenFile {
            inner,
            flaw: self.flaw,
            shared: self.shared.clone(),
            held: Mutex::default(),
            cached: len.into(),
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.inner.list()?;
        if self.flaw == ListsInReverse {
            names.reverse();
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self.flaw {
            RenamesByCopying if from != to => {
                let bytes = content(&*self.inner.open(from, false)?)?;
                let target = self.inner.open(to, true)?;
                target.set_len(0)?;
                target.write_at(0, &bytes)?;
                target.sync()?;
                self.inner.remove(from)
            }
            RenamesNothingGladly => self.inner.rename(from, to).or(Ok(())),
            _ => self.inner.rename(from, to),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.flaw == HidesWhatItRemoves {
            self.shared.hidden.lock().unwrap().insert(name.to_owned());
            return Ok(());
        }
        if self.flaw == LeavesRemovedContent {
            return self.inner.rename(name, "trash");
        }
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let before = self.shared.synced.fetch_add(1, Ordering::Relaxed);
        match self.flaw {
            NeverSyncsNames => Ok(()),
            SyncsNamesOnce if before > 0 => Ok(()),
            CannotSyncTwice if before > 0 => Err(io::Error::other("synced enough")),
            _ => self.inner.sync_dir(),
        }
    }
}

impl DiskFile for BrokenFile {
    fn len(&self) -> io::Result<u64> {
        match *self.held.lock().unwrap() {
            Some(len) => Ok(len),
            None if self.flaw == AsksForTheLengthOnce => Ok(self.cached.load(Ordering::Relaxed)),
            None => self.inner.len(),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = self.inner.len()?;
        if matches!(self.flaw, ReadsZerosBeyondTheEnd | HoldsOddLengthsBack)
            && offset.saturating_add(buf.len() as u64) > len
        {
            buf.fill(0);
            let there = len.saturating_sub(offset).min(buf.len() as u64) as usize;
            return self.inner.read_at(offset.min(len), &mut buf[..there]);
        }
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let len = self.inner.len()?;
        let end = offset + data.len() as u64;
        if !data.is_empty() {
            self.cached.fetch_max(end, Ordering::Relaxed);
        }
        let nth = self.shared.writes.fetch_add(1, Ordering::Relaxed);
        match self.flaw {
            ForgetsTheLastByteOfLongWrites if data.len() > 4096 => {
                self.inner.write_at(offset, &data[..data.len() - 1])
            }
            FillsGapsWithGarbage if offset > len => {
                self.inner.write_at(len, &vec![0xaa; (offset - len) as usize])?;
                self.inner.write_at(offset, data)
            }
            DropsTheThousandthWrite if nth == 999 => Ok(()),
            SharesABufferBetweenThreads => self.write_through_buffer(offset, data),
            RewritesBlocks => {
                // The whole block is wiped and then written, as a careless translation layer may do it.
                let (from, to) = (offset / 4096 * 4096, end.next_multiple_of(4096).min(len.max(end)));
                let mut block = content(&*self.inner)?;
                block.resize(len.max(end) as usize, 0);
                block[offset as usize..end as usize].copy_from_slice(data);
                self.inner.write_at(from, &vec![0xaa; (to - from) as usize])?;
                self.inner.write_at(from, &block[from as usize..to as usize])
            }
            WritesTwice if data.len() > 2048 => {
                self.inner.write_at(offset, &vec![0xaa; data.len()])?;
                self.inner.write_at(offset, data)
            }
            _ => self.inner.write_at(offset, data),
        }
    }

    fn write_vectored_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        if self.flaw == WritesOnlyTheFirstPart {
            return parts.first().map_or(Ok(()), |part| self.write_at(offset, part));
        }
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(offset, &whole)
    }

    fn sync(&self) -> io::Result<()> {
        match self.flaw {
            NeverSyncs => Ok(()),
            _ => self.inner.sync(),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.inner.len()?;
        self.cached.store(len, Ordering::Relaxed);
        match self.flaw {
            GrowsWithGarbage if len > now => self.inner.write_at(now, &vec![0xaa; (len - now) as usize]),
            HoldsOddLengthsBack if len >= now && !len.is_multiple_of(512) => {
                *self.held.lock().unwrap() = Some(len);
                Ok(())
            }
            _ => self.inner.set_len(len),
        }
    }
}

impl BrokenFile {
    /// Copies into a buffer that all threads share, and from there to the file. The first two writers of the shared file wait for
    /// each other in between, so that the flaw shows however the threads are scheduled.
    fn write_through_buffer(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        *self.shared.buffer.lock().unwrap() = data.to_vec();
        if data.len() == 700
            && self.inner.len()? == 5600
            && self.shared.writers.fetch_add(1, Ordering::SeqCst) < 2
        {
            let patience = Instant::now();
            while self.shared.writers.load(Ordering::SeqCst) < 2
                && patience.elapsed() < Duration::from_secs(60)
            {
                std::thread::yield_now();
            }
        }
        let buffer = self.shared.buffer.lock().unwrap();
        self.inner.write_at(offset, &buffer)
    }
}

#[test]
fn each_check_of_the_contract_can_fail() {
    let flaws = [
        (CreatesWhatIsAbsent, "an absent file is NotFound"),
        (EmptiesWhatItOpens, "an absent file is NotFound"),
        (ForgetsTheLastByteOfLongWrites, "what was written is read"),
        (ReadsZerosBeyondTheEnd, "a read beyond the end"),
        (FillsGapsWithGarbage, "a write beyond the end"),
        (GrowsWithGarbage, "set_len cuts"),
        (WritesOnlyTheFirstPart, "a vectored write"),
        (GivesEachHandleAFileOfItsOwn, "an absent file is NotFound"),
        (AsksForTheLengthOnce, "two handles of one file"),
        (ListsInReverse, "list names all files"),
        (RenamesByCopying, "a rename replaces"),
        (LeavesRemovedContent, "removed files are gone"),
        (RenamesNothingGladly, "renaming or removing an absent file"),
        (CannotSyncTwice, "syncing succeeds"),
        (SharesABufferBetweenThreads, "threads that write"),
        (DropsTheThousandthWrite, "a long random life"),
    ];
    for (flaw, check) in flaws {
        let failure = disk::contract(|| Ok(broken(Arc::new(MemDisk::new()), flaw))).expect_err(check);
        assert!(failure.check.starts_with(check), "{flaw:?}: {failure}");
    }
}

fn stacked(seed: u64, flaw: Flaw) -> impl quorate_conformance::Medium {
    let raw = CrashDisk::over(Arc::new(MemDisk::new()), seed);
    Stacked::new(raw, move |raw| Ok(broken(raw, flaw)))
}

#[test]
fn each_check_of_power_failures_can_fail() {
    let flaws = [
        (NeverSyncs, "what was written and synced"),
        (NeverSyncsNames, "what was written and synced"),
        (RewritesBlocks, "what was written and synced"),
        (WritesTwice, "a power failure leaves each sector"),
        (RenamesByCopying, "a file replaced by a rename"),
        (SyncsNamesOnce, "a file replaced by a rename"),
        (HidesWhatItRemoves, "names made, moved and removed"),
        (HoldsOddLengthsBack, "a file that was made longer"),
    ];
    for (flaw, check) in flaws {
        let failure = power::survival(|seed| stacked(seed, flaw), Effort::thorough()).expect_err(check);
        assert!(failure.check.starts_with(check), "{flaw:?}: {failure}");
    }
}

#[test]
fn the_log_notices_a_disk_that_lies() {
    for flaw in [NeverSyncs, NeverSyncsNames, RewritesBlocks] {
        let failure = log::survival(|seed| stacked(seed, flaw), Effort::thorough());
        failure.expect_err(&format!("{flaw:?}"));
    }
}
