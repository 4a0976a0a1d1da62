//! The store's file with a checksum for each of its blocks, seen by the engine as a plain file: what a read gives it is what was written
//! last, at that place, into this file; or the read fails with [`Damage`]. `docs/store.md` has the bytes.
//!
//! The engine checks its own checksums only when it repairs a file, and trusts it otherwise. The checksums here stand apart from what they
//! are of, so that a block that was lost or went elsewhere on its way to the medium is noticed too. They are kept in memory as far as they were needed,
//! four bytes for 4 KiB, and go to the file with the engine's syncs, before them ([`Checked::settle`]).
//!
//! Why a crash cannot make a sound file look damaged: the engine never writes over a block that the last durable commit needs, but for its
//! header; a sector of checksums is old or new, and says the same of those blocks both ways. What a crash tears is therefore what nobody
//! reads again before it is written again. The header has its checksum within its own sector.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use quorate_base::{Disk, DiskFile};

use crate::backend::damage_error;
use crate::error::Damage;
use crate::layout::{BLOCK, GROUP, HEAD, blocks_in, place, slots, sums_at};

/// What a medium writes whole or not at all.
const SECTOR: usize = 512;
/// What a sector with a checksum of its own holds besides.
const SEALED: usize = SECTOR - 4;
/// Checksums in a sector.
const SUMS: usize = SECTOR / 4;
/// How the file begins.
const MAGIC: &[u8; 8] = b"QKVSTORE";
const VERSION: u32 = 1;
/// The number that stands for the head where the engine's blocks have theirs.
const NO_BLOCK: u64 = u64::MAX;
/// How a file of the engine begins when there is nothing around it.
const PLAIN: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// The first damage found in a file: seen by all who read it.
pub(crate) type FirstDamage = Arc<OnceLock<Damage>>;

/// The file.
#[derive(Debug)]
pub(crate) struct Checked {
    name: String,
    file: Arc<dyn DiskFile>,
    /// Which of the stores that were here one after the other this is: part of each checksum, lest a block of one pass for another's.
    generation: u64,
    /// It is being made, and no header has been written yet.
    headless: AtomicBool,
    groups: RwLock<BTreeMap<u64, Group>>,
    damage: FirstDamage,
}

/// The checksums of a group, 0 for a block never written.
#[derive(Debug)]
struct Group {
    sums: Box<[u32; BLOCK as usize / 4]>,
    /// Which of its sectors the file does not have yet, a bit each.
    unsaved: u8,
}

/// Whether a file is one of a release that had no checksums.
pub(crate) fn is_plain(disk: &dyn Disk, name: &str) -> io::Result<bool> {
    let file = disk.open(name, false)?;
    let mut magic = [0; PLAIN.len()];
    if file.len()? < BLOCK {
        return Ok(false);
    }
    file.read_at(0, &mut magic)?;
    Ok(magic == *PLAIN)
}

/// The generation of the file of this name; 0 if there is none.
pub(crate) fn generation(disk: &dyn Disk, name: &str) -> io::Result<u64> {
    if !disk.list()?.iter().any(|file| file == name) || is_plain(disk, name)? {
        return Ok(0);
    }
    Ok(Checked::open(name, disk.open(name, false)?)?.generation)
}

impl Checked {
    /// A fresh file, which has to be empty.
    pub(crate) fn create(name: &str, file: Arc<dyn DiskFile>, generation: u64) -> io::Result<Checked> {
        let mut head = [0; SECTOR];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[12..20].copy_from_slice(&generation.to_le_bytes());
        seal(&mut head, 0, NO_BLOCK);
        file.set_len(HEAD * BLOCK)?;
        file.write_at(0, &head)?;
        Ok(Checked {
            generation,
            headless: AtomicBool::new(true),
            ..Checked::over(name, file)
        })
    }

    /// A file that [`create`](Checked::create) made.
    pub(crate) fn open(name: &str, file: Arc<dyn DiskFile>) -> io::Result<Checked> {
        let len = file.len()?;
        let this = Checked::over(name, file);
        if len < HEAD * BLOCK {
            return Err(this.damaged(0..HEAD * BLOCK, "the file ends before"));
        }
        let mut head = [0; SECTOR];
        this.file.read_at(0, &mut head)?;
        if !is_sealed(&head, 0, NO_BLOCK) || head[..8] != *MAGIC {
            return Err(this.damaged(0..SECTOR as u64, "it does not begin as a store does"));
        }
        let version = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
        if version != VERSION {
            let name = &this.name;
            let text =
                format!("the file `{name}` has version {version}, this program knows version {VERSION}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let generation = u64::from_le_bytes(head[12..20].try_into().expect("eight bytes"));
        Ok(Checked { generation, ..this })
    }

    fn over(name: &str, file: Arc<dyn DiskFile>) -> Checked {
        Checked {
            name: name.to_owned(),
            file,
            generation: 0,
            headless: AtomicBool::new(false),
            groups: RwLock::default(),
            damage: FirstDamage::default(),
        }
    }

    /// The first damage found.
    pub(crate) fn damage(&self) -> &FirstDamage {
        &self.damage
    }

    /// Writes the checksums of what was written since the last time. It may find the disk full, and be repeated then.
    pub(crate) fn settle(&self) -> io::Result<()> {
        // Only one thread writes, so nothing becomes unsaved meanwhile; and readers do not wait for the disk.
        let mut unsaved = Vec::new();
        for (&number, group) in self.shared().iter().filter(|(_, group)| group.unsaved != 0) {
            let first = group.unsaved.trailing_zeros() as usize;
            let last = 7 - group.unsaved.leading_zeros() as usize;
            let sums = &group.sums[first * SUMS..(last + 1) * SUMS];
            let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            unsaved.push((number, sums_at(number) + (first * SECTOR) as u64, bytes));
        }
        for (number, at, bytes) in unsaved {
            self.file.write_at(at, &bytes)?;
            if let Some(group) = self.exclusive().get_mut(&number) {
                group.unsaved = 0;
            }
        }
        Ok(())
    }

    /// Reads from the file as it is.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = at..at + out.len() as u64;
        self.file.read_at(at, out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(bytes, "the file ends before"),
            _ => error,
        })
    }

    /// The engine's header: a sector with its checksum within, and behind it nothing.
    fn read_header(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        self.read(place(0), &mut sector)?;
        // Where a disk runs full while a file is made, a header is asked for that is not yet written.
        let not_yet = sector == [0; SECTOR] && self.headless.load(Ordering::Relaxed);
        if !not_yet && !is_sealed(&sector, self.generation, 0) {
            let at = place(0);
            return Err(self.damaged(at..at + SECTOR as u64, "they are not what was written there"));
        }
        for (at, byte) in (offset as usize..).zip(out) {
            *byte = if at < SEALED { sector[at] } else { 0 };
        }
        Ok(())
    }

    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let (header, rest) = data.split_at(data.len().min(SEALED));
        assert!(is_zero(rest), "the engine's header fits into a sector");
        let mut sector = [0; SECTOR];
        sector[..header.len()].copy_from_slice(header);
        seal(&mut sector, self.generation, 0);
        let at = place(0);
        let mut before = [0; SECTOR];
        let was = self.file.len()? >= at + SECTOR as u64;
        if was {
            self.file.read_at(at, &mut before)?;
        }
        let written = self.file.write_at(at, &sector);
        if written.is_err() && was {
            // The system may have taken a part of it, and what stood there was whole and is needed. The first error counts either way.
            let _ = self.file.write_at(at, &before).and_then(|()| self.file.sync());
        }
        self.headless.fetch_and(written.is_err(), Ordering::Relaxed);
        written
    }

    /// Does something with the checksums of a group, which are read if they were not yet.
    fn with_group<T>(&self, number: u64, f: impl FnOnce(&mut Group) -> T) -> io::Result<T> {
        if let Some(group) = self.exclusive().get_mut(&number) {
            return Ok(f(group));
        }
        let mut bytes = [0; BLOCK as usize];
        self.read(sums_at(number), &mut bytes)?;
        let mut sums = Box::new([0; BLOCK as usize / 4]);
        for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(4)) {
            *sum = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        // Whoever was quicker may have changed them since.
        let mut groups = self.exclusive();
        Ok(f(groups.entry(number).or_insert(Group { sums, unsaved: 0 })))
    }

    /// The checksums of blocks of one group.
    fn sums(&self, blocks: &Range<u64>) -> io::Result<Vec<u32>> {
        let (number, slots) = slots(blocks);
        if let Some(group) = self.shared().get(&number) {
            return Ok(group.sums[slots].to_vec());
        }
        self.with_group(number, |group| group.sums[slots].to_vec())
    }

    fn shared(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Group>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, bytes: Range<u64>, why: &str) -> io::Error {
        let damage = self.damage.get_or_init(|| Damage {
            file: self.name.clone(),
            bytes,
            why: why.to_owned(),
        });
        damage_error(damage)
    }
}

impl DiskFile for Checked {
    fn len(&self) -> io::Result<u64> {
        Ok(blocks_in(self.file.len()? / BLOCK) * BLOCK)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 <= BLOCK {
            return self.read_header(offset, out);
        }
        let mut rest = out;
        for blocks in runs(offset, rest.len()) {
            let (run, behind) = rest.split_at_mut(bytes_of(&blocks));
            rest = behind;
            let sums = self.sums(&blocks)?;
            self.read(place(blocks.start), run)?;
            for ((block, data), sum) in blocks.zip(run.chunks_exact(BLOCK as usize)).zip(sums) {
                if sum_of(self.generation, block, data) != sum {
                    let at = place(block);
                    return Err(self.damaged(at..at + BLOCK, "they are not what was written there"));
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, data);
        if offset == 0 {
            let (header, behind) = data.split_at(data.len().min(BLOCK as usize));
            self.write_header(header)?;
            (offset, rest) = (BLOCK, behind);
        }
        for blocks in runs(offset, rest.len()) {
            let (run, behind) = rest.split_at(bytes_of(&blocks));
            rest = behind;
            self.file.write_at(place(blocks.start), run)?;
            let (number, slots) = slots(&blocks);
            let data = blocks.zip(run.chunks_exact(BLOCK as usize));
            let sums = data.map(|(block, data)| sum_of(self.generation, block, data));
            self.with_group(number, |group| {
                for (slot, sum) in slots.zip(sums) {
                    group.sums[slot] = sum;
                    group.unsaved |= 1 << (slot / SUMS);
                }
            })?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.settle()?;
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        assert_eq!(len % BLOCK, 0, "the engine's file is one of blocks");
        let blocks = len / BLOCK;
        self.file
            .set_len((HEAD + blocks + blocks.div_ceil(GROUP)) * BLOCK)?;
        // What is written there later begins with no checksums in the file either.
        self.exclusive().retain(|number, _| number * GROUP < blocks);
        Ok(())
    }
}

fn bytes_of(blocks: &Range<u64>) -> usize {
    ((blocks.end - blocks.start) * BLOCK) as usize
}

/// Cuts whole blocks at the borders of groups.
fn runs(offset: u64, len: usize) -> impl Iterator<Item = Range<u64>> {
    let (mut at, end) = (offset / BLOCK, (offset + len as u64) / BLOCK);
    assert!(
        offset > 0 && offset.is_multiple_of(BLOCK) && (len as u64).is_multiple_of(BLOCK),
        "behind its header the engine reads and writes whole blocks: {len} bytes at {offset}"
    );
    std::iter::from_fn(move || {
        let run = at..end.min((at / GROUP + 1) * GROUP);
        at = run.end;
        (!run.is_empty()).then_some(run)
    })
}

/// The checksum of what stands at a place. Never 0, which stands for no checksum.
fn sum_of(generation: u64, block: u64, data: &[u8]) -> u32 {
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&generation.to_le_bytes());
    identity[8..].copy_from_slice(&block.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&identity), data).max(1)
}

fn seal(sector: &mut [u8; SECTOR], generation: u64, block: u64) {
    let sum = sum_of(generation, block, &sector[..SEALED]);
    sector[SEALED..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(sector: &[u8; SECTOR], generation: u64, block: u64) -> bool {
    let sum = sum_of(generation, block, &sector[..SEALED]);
    sector[SEALED..] == sum.to_le_bytes()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
