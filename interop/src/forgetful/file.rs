//! The content of one file, as it reads now and as it would read after a power cut. Sectors that were written since the last sync are
//! known one by one, and each may survive a cut or not.

use std::collections::BTreeMap;

use super::disk::Mood;
use crate::random::Random;

/// The piece that a cut leaves old or new, never half.
pub const SECTOR: usize = 512;

/// `None`: all zeros. Logs are zero-filled in advance, and need no memory for that.
type Sector = Option<Box<[u8; SECTOR]>>;

/// A regular file.
#[derive(Debug, Default)]
pub struct File {
    sectors: BTreeMap<u64, Box<[u8; SECTOR]>>,
    len: u64,
    /// What the sectors that are not synced would be again.
    before: BTreeMap<u64, Sector>,
    synced_len: u64,
}

impl File {
    /// Its length as it reads now.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Up to `size` bytes from `offset` on.
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(size as u64));
        let mut data = Vec::new();
        let mut at = offset;
        while at < end {
            let (number, skip) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
            let length = (SECTOR - skip).min((end - at) as usize);
            match self.sectors.get(&number) {
                Some(sector) => data.extend_from_slice(&sector[skip..skip + length]),
                None => data.resize(data.len() + length, 0),
            }
            at += length as u64;
        }
        data
    }

    /// Writes `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut left) = (offset, data);
        while !left.is_empty() {
            let (number, skip) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
            let (piece, rest) = left.split_at(left.len().min(SECTOR - skip));
            let mut sector = self.sectors.get(&number).map_or([0; SECTOR], |sector| **sector);
            sector[skip..skip + piece.len()].copy_from_slice(piece);
            self.put(number, &sector);
            at += piece.len() as u64;
            left = rest;
        }
        self.len = self.len.max(at);
    }

    /// Makes it this long; what is added is zeros.
    pub fn set_len(&mut self, len: u64) {
        let kept = (len % SECTOR as u64) as usize;
        for number in self.from(len / SECTOR as u64) {
            let mut sector = *self.sectors[&number];
            let from = if number == len / SECTOR as u64 { kept } else { 0 };
            sector[from..].fill(0);
            self.put(number, &sector);
        }
        self.len = len;
    }

    /// Makes everything durable. Returns how many sectors that were.
    pub fn sync(&mut self) -> usize {
        self.synced_len = self.len;
        std::mem::take(&mut self.before).len()
    }

    /// What a power cut leaves. Returns how many of the sectors that were not synced survived, and how many there were.
    pub fn cut(&mut self, mood: Mood, random: &mut Random) -> (usize, usize) {
        let before = std::mem::take(&mut self.before);
        let (mut kept, all) = (0, before.len());
        for (number, old) in before {
            if mood.keeps(random) {
                kept += 1;
            } else {
                self.restore(number, old);
            }
        }
        if self.len != self.synced_len && !mood.keeps(random) {
            let len = self.synced_len;
            self.set_len(len);
        }
        self.sync();
        (kept, all)
    }

    /// The sectors with bytes in them from this one on.
    fn from(&self, number: u64) -> Vec<u64> {
        self.sectors.range(number..).map(|(number, _)| *number).collect()
    }

    fn put(&mut self, number: u64, new: &[u8; SECTOR]) {
        let old = self.sectors.get(&number);
        if old.map_or(&[0; SECTOR], |sector| sector) == new {
            return;
        }
        let old = old.cloned();
        self.before.entry(number).or_insert(old);
        self.restore(number, new.iter().any(|byte| *byte != 0).then(|| Box::new(*new)));
    }

    fn restore(&mut self, number: u64, sector: Sector) {
        match sector {
            Some(sector) => self.sectors.insert(number, sector),
            None => self.sectors.remove(&number),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_forgets_what_was_not_synced_and_nothing_else() {
        let mut random = Random::new(1);
        let mut file = File::default();
        file.write(100, &[1; 2000]);
        file.sync();
        file.write(0, &[2; 600]);
        file.write(5000, &[3; 100]);
        file.set_len(9000);
        assert_eq!(file.len(), 9000);
        assert_eq!(file.read(590, 20), [[2; 10], [1; 10]].concat());
        assert_eq!(file.cut(Mood(0), &mut random), (0, 3));
        assert_eq!(file.len(), 2100);
        assert_eq!(file.read(0, 4000), [&[0; 100][..], &[1; 2000]].concat());
    }

    #[test]
    fn a_shortened_file_comes_back_whole() {
        let mut file = File::default();
        file.write(0, &[1; 2000]);
        file.sync();
        file.set_len(10);
        file.set_len(2000);
        assert_eq!(file.read(0, 20), [[1; 10], [0; 10]].concat());
        file.set_len(10);
        file.cut(Mood(0), &mut Random::new(1));
        assert_eq!(file.read(0, 3000), [1; 2000]);
    }

    #[test]
    fn each_sector_survives_for_itself() {
        let mut file = File::default();
        file.write(0, &[1; 100 * SECTOR]);
        file.sync();
        file.write(0, &[2; 100 * SECTOR]);
        let (kept, all) = file.cut(Mood(50), &mut Random::new(1));
        assert!(all == 100 && (20..80).contains(&kept), "{kept} of {all}");
        let read = file.read(0, 100 * SECTOR);
        assert!(
            read.chunks(SECTOR)
                .all(|sector| sector == [1; SECTOR] || sector == [2; SECTOR])
        );
        assert_eq!(read.iter().filter(|byte| **byte == 2).count(), kept * SECTOR);
    }
}
