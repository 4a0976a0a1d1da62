//! The file of a checkpoint: its bytes, how it is put in place of the one before, and how damage is told. When one is made is the
//! parent's affair.
//!
//! ```text
//! bytes 0..8    "QCHKPNT" and the format's number, 1
//! bytes 8..12   CRC-32C of all that follows
//! bytes 12..20  term, 20..28 index of the last entry applied
//! bytes 28..36  length of the body
//! bytes 36..    the body: what the state saved
//! ```
//!
//! Numbers are little-endian.

use std::io;

use quorate_base::{Disk, Index, LogId, Term};

/// The checkpoint.
pub(super) const FILE: &str = "checkpoint";
/// The next one, while it is written.
const NEXT: &str = "checkpoint.new";

const MAGIC: [u8; 8] = *b"QCHKPNT\x01";
const HEADER: usize = 36;

/// Makes `body` the checkpoint as of `at`, durably. Whatever happens meanwhile, the old one or the new one is there as a whole.
pub(super) fn write(disk: &dyn Disk, at: LogId, body: &[u8]) -> io::Result<()> {
    let file = disk.open(NEXT, true)?;
    // What an earlier attempt has left goes first.
    file.set_len(0)?;
    file.write_at(0, &header(at, body))?;
    file.write_at(HEADER as u64, body)?;
    file.sync()?;
    disk.rename(NEXT, FILE)?;
    disk.sync_dir()
}

/// Removes what an attempt that failed has left.
pub(super) fn give_up(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(NEXT) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.sync_dir(),
    }
}

/// The checkpoint, if there is one.
pub(super) fn read(disk: &dyn Disk) -> io::Result<Option<(LogId, Vec<u8>)>> {
    let file = match disk.open(FILE, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    if bytes.len() < HEADER || bytes[..7] != MAGIC[..7] {
        return Err(damaged("it does not begin as a checkpoint does"));
    }
    if bytes[7] != MAGIC[7] {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the file `{FILE}` has format {}, and this program knows only format {}: use the release that wrote it",
                bytes[7], MAGIC[7]
            ),
        ));
    }
    let body = bytes.split_off(HEADER);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    if number(28) != body.len() as u64 {
        return Err(damaged("its length is not what it says"));
    }
    let at = LogId {
        term: Term(number(12)),
        index: Index(number(20)),
    };
    if bytes != header(at, &body) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(Some((at, body)))
}

fn header(at: LogId, body: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(HEADER);
    rest.extend_from_slice(&at.term.0.to_le_bytes());
    rest.extend_from_slice(&at.index.0.to_le_bytes());
    rest.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&rest), body);
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&crc.to_le_bytes());
    header.append(&mut rest);
    header
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the file `{FILE}` is damaged: {why}. The log before it may be gone, so this member cannot go on: remove it from the \
             cluster and let it join again with an empty data directory"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    #[test]
    fn what_was_written_is_read_and_any_flipped_bit_is_noticed() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        assert_eq!(read(&*disk).unwrap(), None);
        let at = LogId::new(3, 17);
        write(&*disk, LogId::new(1, 1), &[7; 5000]).unwrap();
        write(&*disk, at, b"state").unwrap();
        assert_eq!(read(&*disk).unwrap(), Some((at, b"state".to_vec())));
        assert_eq!(disk.list().unwrap(), [FILE]);

        let file = disk.open(FILE, false).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            file.write_at(0, &flipped).unwrap();
            let error = read(&*disk).expect_err("a flipped bit");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "bit {bit}: {error}");
        }
        for len in 0..bytes.len() {
            file.set_len(0).unwrap();
            file.write_at(0, &bytes[..len]).unwrap();
            read(&*disk).expect_err("a file cut short");
        }
    }

    /// Format 1, byte for byte: what released programs have written must stay readable.
    #[test]
    fn the_format_is_what_it_was() {
        let dir = TempDir::new();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        let mut fixture = b"QCHKPNT\x01".to_vec();
        fixture.extend([0; 4]);
        fixture.extend([
            2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ]);
        fixture.extend(b"ok");
        let crc = crc32c::crc32c(&fixture[12..]).to_le_bytes();
        fixture[8..12].copy_from_slice(&crc);
        disk.open(FILE, true).unwrap().write_at(0, &fixture).unwrap();
        assert_eq!(read(&*disk).unwrap(), Some((LogId::new(2, 9), b"ok".to_vec())));
    }
}
