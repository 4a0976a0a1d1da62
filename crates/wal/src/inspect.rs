//! Looking into a log without opening it: read-only, and not stopped by damage. For people who want to know what is in a
//! data directory.

use quorate_base::{Disk, Index};

use crate::error::{Damage, DiskError, OpenError};
use crate::format::SECTOR;
use crate::record::{Record, Stored};
use crate::recover::{self, Replay};
use crate::scan::{self, Found};
use crate::segment::{self, Segment};

/// Something found in a log, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The segment's file name.
    pub file: String,
    /// Byte offset in the file.
    pub offset: u64,
    /// What is there.
    pub item: Item,
}

/// What can be found in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The header of a segment.
    Segment {
        /// The log it belongs to.
        identity: u64,
        /// Its number; the first segment of a log is 1.
        number: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A whole frame: what one write made durable. Its records follow.
    Frame {
        /// Frames count up by one.
        sequence: u64,
        /// Bytes, footer included.
        length: u64,
        /// Number of records.
        records: u32,
    },
    /// The extent of the log when this segment was begun: its entries were those after `start`, up to `last`. Newest mark
    /// and state are repeated after it.
    Base {
        /// The last forgotten index.
        start: Index,
        /// The last index.
        last: Index,
    },
    /// One of the caller's records.
    Record(Record),
    /// Remains of a frame that a crash tore; opening the log cuts them off.
    Torn,
    /// Nothing is written from here to the end of the segment.
    Unused {
        /// Bytes left.
        length: u64,
    },
    /// Damage.
    Damage(Damage),
}

/// Shows all that is in the log on `disk`, in order, and returns what [`Wal::open`](crate::Wal::open) would say: nothing, or why
/// it would refuse. After a damaged place it goes on with the next sound frame. Nothing is changed. The outer error is a disk that cannot be
/// read.
pub fn inspect(disk: &dyn Disk, visit: &mut dyn FnMut(Located)) -> Result<Result<(), OpenError>, DiskError> {
    for number in segment::list(disk)? {
        match Segment::open(disk, number, None) {
            Ok(segment) => show_segment(&segment, visit)?,
            Err(OpenError::Disk(error)) => return Err(error),
            Err(OpenError::Damaged(damage)) => show_damage(visit, damage),
            Err(other) => return Ok(Err(other)),
        }
    }
    let verdict = recover::open_segments(disk, None).and_then(|segments| {
        if segments.is_empty() {
            return Err(OpenError::Missing);
        }
        Replay::of(&segments).map(|_| ())
    });
    match verdict {
        Err(OpenError::Disk(error)) => Err(error),
        verdict => Ok(verdict),
    }
}

fn show_damage(visit: &mut dyn FnMut(Located), damage: Damage) {
    visit(Located {
        file: damage.file.clone(),
        offset: damage.offset,
        item: Item::Damage(damage),
    });
}

fn show_segment(segment: &Segment, visit: &mut dyn FnMut(Located)) -> Result<(), DiskError> {
    let image = segment.image()?;
    let place = segment.place;
    let file = segment.name();
    let mut show = |offset: u32, item: Item| {
        visit(Located {
            file: file.clone(),
            offset: u64::from(offset),
            item,
        });
    };
    let damage = |offset: u32, why: &str| {
        Item::Damage(Damage {
            file: file.clone(),
            offset: u64::from(offset),
            index: None,
            why: why.to_owned(),
        })
    };
    show(
        0,
        Item::Segment {
            identity: place.identity,
            number: place.segment,
            length: u64::from(segment.length),
        },
    );
    let mut at = SECTOR as u32;
    loop {
        match scan::look(place, &image, at) {
            Found::Nothing => {
                let length = u64::from(segment.length - at);
                show(at, Item::Unused { length });
                return Ok(());
            }
            Found::Torn { .. } => {
                show(at, Item::Torn);
                return Ok(());
            }
            Found::Damaged { offset, why } => {
                show(offset, damage(offset, why));
                let Some(next) = scan::next_frame(place, &image, at + SECTOR as u32) else {
                    return Ok(());
                };
                at = next;
            }
            Found::Frame { shape, records, end } => {
                let item = Item::Frame {
                    sequence: shape.sequence,
                    length: u64::from(end - at),
                    records,
                };
                show(at, item);
                let shown = scan::records(place, &image, at, &shape, records, &mut |offset, stored| {
                    show(offset, stored.into());
                    Ok(())
                });
                if let Err((offset, why)) = shown {
                    show(offset, damage(offset, why));
                }
                at = end;
            }
        }
    }
}

impl From<Stored> for Item {
    fn from(stored: Stored) -> Item {
        match stored {
            Stored::Record(record) => Item::Record(record),
            Stored::Base { start, last } => Item::Base { start, last },
        }
    }
}
