//! One file of the simulated disk: what programs see now, what a crash would leave, and the sectors between the two.
//! Names and directories are in the parent module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::rng::Rng;

/// What the medium writes as a whole: a crash keeps a sector or loses it.
pub const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// How many of the last writes of a file are remembered that could turn out to be lost.
const RECENT: usize = 48;

/// How many overwritten versions of an unsynced sector are remembered as possible outcomes of a crash.
const VERSIONS: usize = 2;

/// Contents of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// What reads see. Shared with views, which are many, are short-lived and write little.
    pub now: Arc<Vec<u8>>,
    /// What is certain to survive.
    durable: Arc<Vec<u8>>,
    /// Lengths that the file has had since the last sync: a crash may leave any of them. A length set in one call is there or
    /// not, as on every file system with a journal; growth by a write may end anywhere in it.
    lengths: Vec<usize>,
    /// Sectors that differ or may differ, with older unsynced versions that may have reached the medium.
    dirty: BTreeMap<usize, Vec<Sector>>,
    /// The last writes are remembered.
    remembers: bool,
    recent: VecDeque<Written>,
    /// Sectors that the medium has not as they were written last.
    spoilt: BTreeSet<usize>,
    /// Those of them that were written anew, and not synced yet.
    renewed: BTreeSet<usize>,
}

/// A write of the store's, which writes whole sectors.
#[derive(Clone, Debug)]
struct Written {
    offset: usize,
    /// What stood there before.
    old: Vec<u8>,
    new: Vec<u8>,
    synced: bool,
}

impl Written {
    fn sectors(&self) -> Range<usize> {
        self.offset / SECTOR..(self.offset + self.new.len()).div_ceil(SECTOR)
    }
}

/// How a crash treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing unsynced survives.
    Nothing,
    /// Everything does.
    Everything,
    /// Each sector on its own, so often in a million.
    Some(u32),
}

impl Keep {
    pub fn draw(self, rng: &mut Rng) -> bool {
        match self {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some(chance) => rng.chance(chance),
        }
    }
}

/// How many unsynced sectors a crash kept and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub kept: u64,
    pub lost: u64,
}

fn sector_at(bytes: &[u8], number: usize) -> Sector {
    let mut sector = [0; SECTOR];
    let start = number * SECTOR;
    if start < bytes.len() {
        let end = bytes.len().min(start + SECTOR);
        sector[..end - start].copy_from_slice(&bytes[start..end]);
    }
    sector
}

impl Contents {
    /// A new file; the last writes are remembered if it `remembers`.
    pub fn empty(remembers: bool) -> Contents {
        Contents {
            remembers,
            ..Contents::default()
        }
    }

    /// The file as a crash that loses everything unsynced would leave it.
    pub fn durable_only(&self) -> Contents {
        Contents {
            now: self.durable.clone(),
            durable: self.durable.clone(),
            ..Contents::default()
        }
    }

    /// What [`durable_only`](Contents::durable_only) would show to reads, and nothing for a crash to leave.
    pub fn durable_view(&self) -> Contents {
        Contents {
            now: self.durable.clone(),
            ..Contents::default()
        }
    }

    /// Its length as reads see it.
    pub fn len(&self) -> usize {
        self.now.len()
    }

    /// Reads show `data`, and the medium will never have it.
    pub fn pretend(&mut self, offset: usize, data: &[u8]) {
        Arc::make_mut(&mut self.now)[offset..offset + data.len()].copy_from_slice(data);
    }

    /// What was meant for another place is on the medium here; reads do not show it yet if this place is `cached`.
    pub fn stray(&mut self, offset: usize, data: &[u8], cached: bool) {
        let end = (offset + data.len()).min(self.durable.len());
        if let Some(part) = end.checked_sub(offset) {
            Arc::make_mut(&mut self.durable)[offset..end].copy_from_slice(&data[..part]);
            if !cached {
                Arc::make_mut(&mut self.now)[offset..end].copy_from_slice(&data[..part]);
            }
            self.spoil(offset..end);
        }
    }

    fn spoil(&mut self, bytes: Range<usize>) {
        let sectors = bytes.start / SECTOR..bytes.end.div_ceil(SECTOR);
        self.renewed.retain(|sector| !sectors.contains(sector));
        self.spoilt.extend(sectors);
    }

    /// Whether the medium has something else than was written last.
    pub fn is_spoilt(&self) -> bool {
        !self.spoilt.is_empty()
    }

    /// The sectors of which that is true.
    pub fn spoilt_sectors(&self) -> impl Iterator<Item = usize> + '_ {
        self.spoilt.iter().copied()
    }

    /// One of the last writes that were synced, but for those at `but`, turns out to be lost: the medium has what stood there before, and reads show
    /// that unless this place is `cached`. With `astray` it is in another place instead. Returns whether there was such a write.
    pub fn lose_write(&mut self, but: usize, cached: bool, astray: bool, rng: &mut Rng) -> bool {
        let may_go =
            |written: &Written| written.synced && written.offset != but && written.old != written.new;
        let able: Vec<usize> = (0..self.recent.len())
            .filter(|n| may_go(&self.recent[*n]))
            .collect();
        if able.is_empty() {
            return false;
        }
        let Written {
            mut offset,
            mut old,
            mut new,
            ..
        } = self.recent.remove(rng.pick(&able)).expect("just found");
        let sectors = new.len() / SECTOR;
        if sectors > 1 && rng.coin() {
            // Only some of its sectors.
            let from = rng.below(sectors);
            let upto = from + 1 + rng.below(sectors - from);
            offset += from * SECTOR;
            old = old[from * SECTOR..upto * SECTOR].to_vec();
            new = new[from * SECTOR..upto * SECTOR].to_vec();
            if old == new {
                return false;
            }
        }
        self.stray(offset, &old, cached);
        if astray {
            let sectors = self.durable.len().saturating_sub(new.len()) / SECTOR;
            let place = rng.below(sectors + 1) * SECTOR;
            if place != offset {
                self.stray(place, &new, cached);
            }
        }
        true
    }

    /// Remembers a write of whole sectors, and that what stood there is nothing to lose any longer.
    fn remember(&mut self, offset: usize, data: &[u8]) {
        let whole = offset.div_ceil(SECTOR)..(offset + data.len()) / SECTOR;
        let renewed = self.spoilt.iter().filter(|sector| whole.contains(sector));
        self.renewed.extend(renewed.copied().collect::<Vec<_>>());
        if !self.remembers {
            return;
        }
        let written = Written {
            offset,
            old: self.now[offset..offset + data.len()].to_vec(),
            new: data.to_vec(),
            synced: false,
        };
        let sectors = written.sectors();
        let apart =
            |other: &Written| other.sectors().end <= sectors.start || sectors.end <= other.sectors().start;
        self.recent.retain(apart);
        self.recent.push_back(written);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Whether anything is not synced.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.now.len() != self.durable.len()
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        if end > self.now.len() {
            let boundaries = (self.now.len() / SECTOR + 1..end.div_ceil(SECTOR)).map(|n| n * SECTOR);
            self.lengths.extend(boundaries);
            self.set_len(end);
        }
        for number in offset / SECTOR..=(end - 1) / SECTOR {
            match self.dirty.get_mut(&number) {
                Some(versions) if versions.len() < VERSIONS => versions.push(sector_at(&self.now, number)),
                Some(_) => {}
                None => drop(self.dirty.insert(number, Vec::new())),
            }
        }
        self.remember(offset, data);
        Arc::make_mut(&mut self.now)[offset..end].copy_from_slice(data);
    }

    pub fn set_len(&mut self, len: usize) {
        let before = self.now.len();
        if len < before {
            self.recent.clear();
        }
        self.lengths.push(before);
        Arc::make_mut(&mut self.now).resize(len, 0);
        if len < before {
            self.dirty.split_off(&len.div_ceil(SECTOR));
        }
        // Old durable bytes above the shorter length must not shine through when the file has grown again.
        let from = before.min(len) / SECTOR;
        for number in from..self.durable.len().min(len).div_ceil(SECTOR) {
            self.dirty.entry(number).or_default();
        }
    }

    /// Flips one bit of a byte that is not zero, if there is any.
    pub fn flip(&mut self, rng: &mut Rng) {
        let used: Vec<usize> = (0..self.now.len()).filter(|at| self.now[*at] != 0).collect();
        if used.is_empty() {
            return;
        }
        let (at, bit) = (rng.pick(&used), 1 << rng.below(8));
        self.spoil(at..at + 1);
        Arc::make_mut(&mut self.now)[at] ^= bit;
        if let Some(byte) = Arc::make_mut(&mut self.durable).get_mut(at) {
            *byte ^= bit;
        }
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        for sector in std::mem::take(&mut self.renewed) {
            self.spoilt.remove(&sector);
        }
        self.recent.iter_mut().for_each(|written| written.synced = true);
        let dirty = std::mem::take(&mut self.dirty);
        self.lengths.clear();
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.now.len(), 0);
        for number in dirty.into_keys() {
            let start = number * SECTOR;
            let end = self.now.len().min(start + SECTOR);
            if start < end {
                durable[start..end].copy_from_slice(&self.now[start..end]);
            }
        }
    }

    /// A failed sync: some sectors reached the medium, and the others are no longer known to be dirty, so that no later sync
    /// writes them. Reads still show them.
    pub fn fail_sync(&mut self, rng: &mut Rng) {
        self.forget();
        let dirty = std::mem::take(&mut self.dirty);
        self.lengths.clear();
        Arc::make_mut(&mut self.durable).resize(self.now.len(), 0);
        for number in dirty.into_keys() {
            if rng.coin() {
                self.persist(number, &sector_at(&self.now, number));
            }
        }
    }

    /// The power fails: what was not synced survives or not, sector by sector.
    pub fn crash(&mut self, keep: Keep, rng: &mut Rng) -> Tally {
        let mut tally = Tally::default();
        self.forget();
        let length = self.length_after_crash(keep, rng);
        let dirty = std::mem::take(&mut self.dirty);
        let full = self.durable.len().max(self.now.len());
        Arc::make_mut(&mut self.durable).resize(full, 0);
        for (number, versions) in dirty {
            if keep.draw(rng) {
                tally.kept += 1;
                let version = rng.below(versions.len() + 1);
                let sector = match versions.get(version) {
                    Some(older) if keep != Keep::Everything => *older,
                    _ => sector_at(&self.now, number),
                };
                self.persist(number, &sector);
            } else {
                tally.lost += 1;
            }
        }
        Arc::make_mut(&mut self.durable).resize(length, 0);
        self.lengths.clear();
        self.now = self.durable.clone();
        tally
    }

    /// What was written last may not be on the medium.
    fn forget(&mut self) {
        self.recent.clear();
        self.renewed.clear();
    }

    fn length_after_crash(&self, keep: Keep, rng: &mut Rng) -> usize {
        let (old, new) = (self.durable.len(), self.now.len());
        match keep {
            Keep::Nothing => old,
            Keep::Everything => new,
            Keep::Some(_) => match rng.below(3) {
                0 => old,
                1 => new,
                _ => self
                    .lengths
                    .get(rng.below(self.lengths.len() + 1))
                    .copied()
                    .unwrap_or(new),
            },
        }
    }

    fn persist(&mut self, number: usize, sector: &Sector) {
        let start = number * SECTOR;
        let end = self.durable.len().min(start + SECTOR);
        if start < end {
            Arc::make_mut(&mut self.durable)[start..end].copy_from_slice(&sector[..end - start]);
        }
    }
}
