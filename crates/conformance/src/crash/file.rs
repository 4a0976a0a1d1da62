//! One file of a disk whose power can fail: what each sector and the length were when it was last synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use quorate_base::DiskFile;

use super::{Keep, SECTOR};
use crate::random::Random;

type Sector = [u8; SECTOR as usize];

/// A file of the disk below, and what a power failure may take back.
#[derive(Debug)]
pub(super) struct Tracked {
    file: Arc<dyn DiskFile>,
    /// Its name below.
    pub place: String,
    /// The length as of the last sync.
    durable_len: u64,
    /// Lengths since then, any of which may be what survives.
    lens: Vec<u64>,
    /// Sectors that were changed since, as they were.
    before: BTreeMap<u64, Sector>,
}

impl Tracked {
    /// A file all of which is durable.
    pub fn new(file: Arc<dyn DiskFile>, place: String) -> io::Result<Tracked> {
        Ok(Tracked {
            durable_len: file.len()?,
            file,
            place,
            lens: Vec::new(),
            before: BTreeMap::new(),
        })
    }

    pub fn handle(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }

    pub fn write(&mut self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if len > 0 {
            let (now, end) = (self.file.len()?, offset + len);
            self.remember(offset / SECTOR..end.div_ceil(SECTOR))?;
            if end > now {
                self.remember(now / SECTOR..end.div_ceil(SECTOR))?;
                // A file grows in steps, and power may fail between them.
                self.lens.push(now);
                self.lens
                    .extend((now / SECTOR + 1..end.div_ceil(SECTOR)).map(|n| n * SECTOR));
            }
        }
        match parts {
            [one] => self.file.write_at(offset, one),
            parts => self.file.write_vectored_at(offset, parts),
        }
    }

    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        let now = self.file.len()?;
        self.remember(now.min(len) / SECTOR..now.max(len).max(self.durable_len).div_ceil(SECTOR))?;
        self.lens.push(now);
        self.file.set_len(len)
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.durable_len = self.file.len()?;
        self.lens.clear();
        self.before.clear();
        Ok(())
    }

    /// Remembers what is in these sectors, unless they were changed before.
    fn remember(&mut self, sectors: std::ops::Range<u64>) -> io::Result<()> {
        let len = self.file.len()?;
        for number in sectors {
            if !self.before.contains_key(&number) {
                let mut sector = [0; SECTOR as usize];
                let start = number * SECTOR;
                let there = len.saturating_sub(start).min(SECTOR) as usize;
                if there > 0 {
                    self.file.read_at(start, &mut sector[..there])?;
                }
                self.before.insert(number, sector);
            }
        }
        Ok(())
    }

    /// Takes back what does not survive. What is left is durable.
    pub fn power_off(&mut self, keep: Keep, random: &mut Random) -> io::Result<()> {
        let now = self.file.len()?;
        let len = match keep {
            Keep::Nothing => self.durable_len,
            Keep::Everything => now,
            Keep::Some(_) => {
                let mut lens = std::mem::take(&mut self.lens);
                lens.extend([self.durable_len, now, self.durable_len, now]);
                lens[random.below(lens.len() as u64) as usize]
            }
        };
        self.file.set_len(now.max(self.durable_len))?;
        let longest = self.file.len()?;
        for (number, sector) in std::mem::take(&mut self.before) {
            let start = number * SECTOR;
            let there = longest.saturating_sub(start).min(SECTOR) as usize;
            if there > 0 && !keep.draw(random) {
                self.file.write_at(start, &sector[..there])?;
            }
        }
        self.file.set_len(len)?;
        self.sync()
    }

    /// Copies the content.
    pub fn copy_to(&self, other: &dyn DiskFile) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(self.file.len()?).map_err(io::Error::other)?];
        self.file.read_at(0, &mut bytes)?;
        other.write_at(0, &bytes)?;
        other.sync()
    }
}
