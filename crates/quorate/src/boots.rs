//! The `boots` file: how often a data directory has been started, and the random number (*nonce*) of each of the last starts. Only bytes; what
//! they are good for is told in [`identity`](crate::identity).
//!
//! It is written at every start, on a full disk too, so its room is taken when it is made, and it is overwritten in place: two slots in
//! turn, each in a block of its own. A slot that a crash left half written does not count; nothing was sent in its start. Should a whole one
//! rot, the next start takes a number for the second time with another nonce, and peers refuse it as a second process: that is safe.
//!
//! A slot, all numbers little-endian: "quoboots", incarnation (8), boot (8), number of nonces (4), nonces (8 each), CRC32C of everything
//! before it (4), zeros up to 4,096 bytes.

use std::io;

use quorate_base::{Disk, DiskFile};
use quorate_node::handshake::MAX_NONCES;

pub(crate) const NAME: &str = "boots";
const STAGING: &str = "boots.new";
const MAGIC: [u8; 8] = *b"quoboots";
const SLOT: usize = 4096;

/// The starts of one incarnation of a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boots {
    incarnation: u64,
    /// Starts so far.
    boot: u64,
    /// Of the last starts, oldest first.
    nonces: Vec<u64>,
}

impl Boots {
    /// No starts yet, with the file that will count them.
    pub(crate) fn make(disk: &dyn Disk, incarnation: u64) -> io::Result<Boots> {
        let file = disk.open(STAGING, true)?;
        file.set_len(0)?;
        file.write_at(0, &[0; 2 * SLOT])?;
        file.sync()?;
        disk.rename(STAGING, NAME)?;
        disk.sync_dir()?;
        Ok(Boots {
            incarnation,
            ..Boots::default()
        })
    }

    /// Reads what is on the disk. Starts of another incarnation, which this one was made out of, do not count.
    pub(crate) fn load(disk: &dyn Disk, incarnation: u64) -> io::Result<Boots> {
        let file = disk.open(NAME, false)?;
        let slots = [Boots::read(&*file, 0)?, Boots::read(&*file, SLOT)?];
        let latest = slots
            .into_iter()
            .flatten()
            .filter(|slot| slot.incarnation == incarnation)
            .max_by_key(|slot| slot.boot);
        Ok(latest.unwrap_or(Boots {
            incarnation,
            ..Boots::default()
        }))
    }

    fn read(file: &dyn DiskFile, at: usize) -> io::Result<Option<Boots>> {
        let mut slot = [0; SLOT];
        file.read_at(at as u64, &mut slot)?;
        Ok(Boots::decode(&slot))
    }

    /// Counts a start, durably.
    pub(crate) fn begin(&mut self, disk: &dyn Disk, nonce: u64) -> io::Result<()> {
        self.boot += 1;
        self.nonces.push(nonce);
        let surplus = self.nonces.len().saturating_sub(MAX_NONCES);
        self.nonces.drain(..surplus);
        let at = if self.boot.is_multiple_of(2) {
            0
        } else {
            SLOT as u64
        };
        let file = disk.open(NAME, false)?;
        file.write_at(at, &self.encode())?;
        file.sync()
    }

    /// Which start this is.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// The nonces of the last starts, oldest first.
    pub(crate) fn nonces(&self) -> &[u64] {
        &self.nonces
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes.extend_from_slice(&self.boot.to_le_bytes());
        bytes.extend_from_slice(&(self.nonces.len() as u32).to_le_bytes());
        for nonce in &self.nonces {
            bytes.extend_from_slice(&nonce.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(SLOT, 0);
        bytes
    }

    fn decode(slot: &[u8; SLOT]) -> Option<Boots> {
        let (magic, rest) = slot.split_first_chunk::<8>()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let count = u32::from_le_bytes(*count) as usize;
        if *magic != MAGIC || count > MAX_NONCES {
            return None;
        }
        let (nonces, rest) = rest.split_at(8 * count);
        let crc = rest.first_chunk()?;
        let covered = slot.len() - rest.len();
        if crc32c::crc32c(&slot[..covered]) != u32::from_le_bytes(*crc) {
            return None;
        }
        let nonces = nonces.as_chunks().0.iter();
        Some(Boots {
            incarnation: u64::from_le_bytes(*incarnation),
            boot: u64::from_le_bytes(*boot),
            nonces: nonces.map(|nonce| u64::from_le_bytes(*nonce)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    #[test]
    fn each_start_is_counted_and_the_last_nonces_are_kept() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        assert_eq!(Boots::load(&disk, 7).unwrap_err().kind(), io::ErrorKind::NotFound);
        Boots::make(&disk, 7).unwrap();
        let len = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
        for boot in 1..=40 {
            let mut boots = Boots::load(&disk, 7).unwrap();
            boots.begin(&disk, 100 + boot).unwrap();
            assert_eq!(Boots::load(&disk, 7).unwrap(), boots);
            let kept = boot.min(MAX_NONCES as u64);
            let expected: Vec<u64> = (101 + boot - kept..=100 + boot).collect();
            assert_eq!((boots.boot(), boots.nonces()), (boot, &expected[..]));
        }
        let after = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
        assert_eq!(after, len, "it takes no more room than at first");
        assert_eq!(Boots::load(&disk, 8).unwrap().boot(), 0, "another incarnation");
    }

    #[test]
    fn a_start_that_was_not_written_whole_has_not_been() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        let mut before = Boots::make(&disk, 7).unwrap();
        before.begin(&disk, 101).unwrap();
        let mut after = before.clone();
        after.begin(&disk, 102).unwrap();
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let len = after.encode().iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for byte in 0..len {
            let mut torn = whole.clone();
            torn[byte] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(Boots::load(&disk, 7).unwrap(), before, "byte {byte}");
        }
    }
}
