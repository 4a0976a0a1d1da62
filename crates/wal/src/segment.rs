//! Segment files: names, opening, and making new ones. A segment is complete (header written, the rest zeros, all
//! durable) before it gets its name. What stands inside is the concern of `frame` and `scan`.

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, DiskFile};
use quorate_marks::reached;

use crate::error::{Damage, DiskError, OpenError};
use crate::format::{HeaderError, Place, SECTOR, SegmentHeader, VERSION, ZEROS};

/// The name of a segment that is being made.
pub(crate) const PREPARATION: &str = "wal-prepare";

/// Zeros are written in pieces of this size, so that one step of upkeep stays short.
const PIECE: u32 = 1 << 20;

static ZERO_PIECE: [u8; PIECE as usize] = [0; PIECE as usize];

/// The file name of segment `number`.
pub(crate) fn file_name(number: u64) -> String {
    format!("wal-{number:016x}")
}

/// The number of the segment called `name`; `None` for all other files.
fn parse_name(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix("wal-")?, 16).ok()?;
    (number > 0 && file_name(number) == name).then_some(number)
}

/// The numbers of all segments, in order.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<u64>, DiskError> {
    let names = disk.list().map_err(DiskError::new("list", "the directory"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes creations and removals of segments durable.
pub(crate) fn sync_dir(disk: &dyn Disk) -> Result<(), DiskError> {
    disk.sync_dir().map_err(DiskError::new("sync", "the directory"))
}

/// A segment in use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub place: Place,
    pub length: u32,
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(crate) fn number(&self) -> u64 {
        self.place.segment
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.number())
    }

    /// Opens segment `number` of the log `identity` (of any log, if `None`).
    pub(crate) fn open(disk: &dyn Disk, number: u64, identity: Option<u64>) -> Result<Segment, OpenError> {
        let name = file_name(number);
        let damage = |offset: u64, why: &str| Damage {
            file: name.clone(),
            offset,
            index: None,
            why: why.to_owned(),
        };
        let file = disk.open(&name, false).map_err(DiskError::new("open", &name))?;
        let length = file.len().map_err(DiskError::new("measure", &name))?;
        if length < SECTOR as u64 {
            reached!("wal.open.shorter_than_header");
            return Err(damage(length, "the file is shorter than a segment's header").into());
        }
        let mut sector = ZEROS;
        file.read_at(0, &mut sector)
            .map_err(DiskError::new("read", &name))?;
        let header = match SegmentHeader::decode(&sector) {
            Ok(header) => header,
            Err(HeaderError::Invalid(why)) => {
                reached!("wal.open.bad_header");
                return Err(damage(0, why).into());
            }
            Err(HeaderError::Version(found)) => {
                reached!("wal.open.other_version");
                return Err(OpenError::Version {
                    file: name,
                    found,
                    supported: VERSION,
                });
            }
        };
        if let Some(expected) = identity.filter(|&expected| expected != header.place.identity) {
            reached!("wal.open.foreign");
            return Err(OpenError::Foreign {
                file: name,
                found: header.place.identity,
                expected,
            });
        }
        if header.place.segment != number {
            reached!("wal.open.under_another_name");
            let why = format!(
                "the file is segment {} under another's name",
                header.place.segment
            );
            return Err(damage(0, &why).into());
        }
        if u64::from(header.length) != length {
            reached!("wal.open.other_length");
            let why = format!("the file is {length} bytes long, not {}", header.length);
            return Err(damage(length.min(u64::from(header.length)), &why).into());
        }
        Ok(Segment {
            place: header.place,
            length: header.length,
            file,
        })
    }

    /// All bytes of the segment.
    pub(crate) fn image(&self) -> Result<Bytes, DiskError> {
        self.read(0, self.length)
    }

    pub(crate) fn read(&self, offset: u32, length: u32) -> Result<Bytes, DiskError> {
        let mut bytes = vec![0; length as usize];
        self.file
            .read_at(u64::from(offset), &mut bytes)
            .map_err(DiskError::new("read", &self.name()))?;
        Ok(Bytes::from(bytes))
    }

    /// Writes zeros from `offset` to the end. Durable after the next sync.
    pub(crate) fn write_zeros(&self, mut offset: u32) -> Result<(), DiskError> {
        while offset < self.length {
            let piece = PIECE.min(self.length - offset);
            self.file
                .write_at(u64::from(offset), &ZERO_PIECE[..piece as usize])
                .map_err(DiskError::new("write", &self.name()))?;
            offset += piece;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync().map_err(DiskError::new("sync", &self.name()))
    }
}

/// A segment in the making, under a name that recovery ignores.
#[derive(Debug)]
pub(crate) struct Preparation {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    written: u32,
    /// A failed sync: the file must not be used any more.
    spoiled: bool,
}

impl Preparation {
    /// Begins a segment with this header. Remains of an earlier attempt are thrown away.
    pub(crate) fn begin(disk: &dyn Disk, header: SegmentHeader) -> Result<Preparation, DiskError> {
        let file = disk
            .open(PREPARATION, true)
            .map_err(DiskError::new("create", PREPARATION))?;
        file.set_len(0).map_err(DiskError::new("empty", PREPARATION))?;
        Ok(Preparation {
            header,
            file,
            written: 0,
            spoiled: false,
        })
    }

    pub(crate) fn length(&self) -> u32 {
        self.header.length
    }

    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Whether only [`publish`](Preparation::publish) is left to do.
    pub(crate) fn is_filled(&self) -> bool {
        self.written == self.header.length
    }

    /// Fills the next piece and makes it durable. May be tried again after the disk was full.
    pub(crate) fn fill(&mut self) -> Result<(), DiskError> {
        let piece = PIECE.min(self.header.length - self.written);
        let at = u64::from(self.written);
        let wrote = if self.written == 0 {
            let header = self.header.encode();
            let zeros = &ZERO_PIECE[..piece as usize - SECTOR];
            let parts = [std::io::IoSlice::new(&header), std::io::IoSlice::new(zeros)];
            self.file.write_vectored_at(at, &parts)
        } else {
            self.file.write_at(at, &ZERO_PIECE[..piece as usize])
        };
        wrote.map_err(DiskError::new("write", PREPARATION))?;
        self.file.sync().map_err(|error| {
            reached!("wal.prepare.sync_failed");
            self.spoiled = true;
            DiskError::new("sync", PREPARATION)(error)
        })?;
        self.written += piece;
        Ok(())
    }

    /// Gives the filled segment its name. The name is durable after the next sync of the directory.
    pub(crate) fn publish(&self, disk: &dyn Disk) -> Result<Segment, DiskError> {
        assert!(self.is_filled(), "a segment is complete before it gets its name");
        let name = file_name(self.header.place.segment);
        disk.rename(PREPARATION, &name)
            .map_err(DiskError::new("create", &name))?;
        let file = disk.open(&name, false).map_err(DiskError::new("open", &name))?;
        Ok(Segment {
            place: self.header.place,
            length: self.header.length,
            file,
        })
    }
}
