//! The layout of segments, frames and footers: constants, encoding, decoding, and the checksum bound to a place. Pure
//! functions over bytes; `docs/wal.md` draws the same picture. Record layout is in `record`.

/// The unit that the medium writes as a whole. Frames begin and end at multiples of it.
pub(crate) const SECTOR: usize = 512;
/// The format version this program reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 40;
/// Sector checksums in one footer sector.
pub(crate) const SUMS: usize = (SECTOR - FOOTER_HEADER) / 4;

const FOOTER_HEADER: usize = 40;
const SEGMENT_MAGIC: [u8; 8] = *b"QUORWAL\0";
const FRAME_MAGIC: [u8; 4] = *b"QwFr";
const FOOTER_MAGIC: [u8; 4] = *b"QwFt";

pub(crate) type Sector = [u8; SECTOR];

pub(crate) const ZEROS: Sector = [0; SECTOR];

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Where checksummed bytes belong. Every checksum starts from the identity of the log, the number of the segment and the
/// offset, so that bytes which a disk put elsewhere, or of another log, do not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub identity: u64,
    pub segment: u64,
}

impl Place {
    /// CRC32C of `bytes` standing at `offset`.
    pub(crate) fn checksum(self, offset: u32, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed(offset), bytes)
    }

    /// What a checksum of bytes at `offset` starts from.
    pub(crate) fn seed(self, offset: u32) -> u32 {
        let mut binding = [0; 20];
        put(&mut binding, 0, &self.identity.to_le_bytes());
        put(&mut binding, 8, &self.segment.to_le_bytes());
        put(&mut binding, 16, &offset.to_le_bytes());
        crc32c::crc32c(&binding)
    }
}

/// A position: everything in the log before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub segment: u64,
    pub offset: u32,
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub place: Place,
    /// Length of the whole file; segments never change theirs.
    pub length: u32,
}

/// What a segment's first sector turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Invalid(&'static str),
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Sector {
        let mut sector = ZEROS;
        put(&mut sector, 0, &SEGMENT_MAGIC);
        put(&mut sector, 8, &VERSION.to_le_bytes());
        put(&mut sector, 16, &self.place.identity.to_le_bytes());
        put(&mut sector, 24, &self.place.segment.to_le_bytes());
        put(&mut sector, 32, &u64::from(self.length).to_le_bytes());
        let crc = crc32c::crc32c(&sector);
        put(&mut sector, 12, &crc.to_le_bytes());
        sector
    }

    /// Magic, version and checksum stand at the same place in all versions, so that a newer log is told from a broken one.
    pub(crate) fn decode(sector: &Sector) -> Result<SegmentHeader, HeaderError> {
        if sector[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Invalid("the file does not begin like a log segment"));
        }
        let mut unsigned = *sector;
        put(&mut unsigned, 12, &[0; 4]);
        if crc32c::crc32c(&unsigned) != get_u32(sector, 12) {
            return Err(HeaderError::Invalid(
                "the checksum of the segment's header is wrong",
            ));
        }
        let version = get_u32(sector, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let length = u32::try_from(get_u64(sector, 32))
            .ok()
            .filter(|&length| length as usize >= SECTOR && (length as usize).is_multiple_of(SECTOR));
        let Some(length) = length else {
            return Err(HeaderError::Invalid(
                "the segment's header names an impossible length",
            ));
        };
        let place = Place {
            identity: get_u64(sector, 16),
            segment: get_u64(sector, 24),
        };
        Ok(SegmentHeader { place, length })
    }
}

/// What both ends of a frame say about it: its header, and each sector of its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Frames count up by one over the whole life of the log.
    pub sequence: u64,
    /// Bytes of header and records.
    pub payload: u32,
    /// Everything before this position was durable when the frame was written.
    pub synced: Position,
}

impl Shape {
    /// Sectors holding header and records.
    pub(crate) fn data_sectors(&self) -> usize {
        (self.payload as usize).div_ceil(SECTOR)
    }

    /// Sectors holding the footer.
    pub(crate) fn footer_sectors(&self) -> usize {
        self.data_sectors().div_ceil(SUMS)
    }

    /// Bytes of the whole frame.
    pub(crate) fn size(&self) -> usize {
        (self.data_sectors() + self.footer_sectors()) * SECTOR
    }
}

/// The header of a frame at `start`.
pub(crate) fn encode_frame_header(
    place: Place,
    start: u32,
    shape: &Shape,
    records: u32,
) -> [u8; FRAME_HEADER] {
    let mut header = [0; FRAME_HEADER];
    put(&mut header, 0, &FRAME_MAGIC);
    put(&mut header, 8, &shape.sequence.to_le_bytes());
    put(&mut header, 16, &shape.payload.to_le_bytes());
    put(&mut header, 20, &records.to_le_bytes());
    put(&mut header, 24, &shape.synced.segment.to_le_bytes());
    put(&mut header, 32, &shape.synced.offset.to_le_bytes());
    let crc = place.checksum(start, &header[8..]);
    put(&mut header, 4, &crc.to_le_bytes());
    header
}

/// Shape and number of records of the frame that begins with `sector` at `start`; `None` if there is no sound header.
pub(crate) fn decode_frame_header(place: Place, start: u32, sector: &[u8]) -> Option<(Shape, u32)> {
    let header = &sector[..FRAME_HEADER];
    if header[..4] != FRAME_MAGIC || place.checksum(start, &header[8..]) != get_u32(header, 4) {
        return None;
    }
    let shape = Shape {
        sequence: get_u64(header, 8),
        payload: get_u32(header, 16),
        synced: Position {
            segment: get_u64(header, 24),
            offset: get_u32(header, 32),
        },
    };
    (shape.payload as usize >= FRAME_HEADER).then(|| (shape, get_u32(header, 20)))
}

/// Whether `sector` is the beginning of a frame's first sector, cut off inside the header.
pub(crate) fn is_begun_frame_header(sector: &[u8]) -> bool {
    let written = sector
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let told = written.min(FRAME_MAGIC.len());
    (1..FRAME_HEADER).contains(&written) && sector[..told] == FRAME_MAGIC[..told]
}

/// Where in a footer sector the checksum of the `i`th data sector stands that it covers.
pub(crate) fn sum_in_footer(i: usize) -> std::ops::Range<usize> {
    FOOTER_HEADER + i * 4..FOOTER_HEADER + (i + 1) * 4
}

/// One sector of a frame's footer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footer<'a> {
    /// Offset of the frame.
    pub start: u32,
    pub shape: Shape,
    /// Which sector of the footer this is, from 0.
    pub part: u32,
    sums: &'a [u8],
}

impl Footer<'_> {
    /// The checksum of the `i`th data sector that this footer sector covers.
    pub(crate) fn sum(&self, i: usize) -> u32 {
        get_u32(self.sums, i * 4)
    }
}

/// A footer sector that will stand at `offset`; `sums` are at most [`SUMS`].
pub(crate) fn encode_footer(
    place: Place,
    offset: u32,
    start: u32,
    shape: &Shape,
    part: u32,
    sums: &[u32],
) -> Sector {
    let mut sector = ZEROS;
    put(&mut sector, 0, &FOOTER_MAGIC);
    put(&mut sector, 8, &shape.sequence.to_le_bytes());
    put(&mut sector, 16, &shape.payload.to_le_bytes());
    put(&mut sector, 20, &start.to_le_bytes());
    put(&mut sector, 24, &shape.synced.segment.to_le_bytes());
    put(&mut sector, 32, &shape.synced.offset.to_le_bytes());
    put(&mut sector, 36, &part.to_le_bytes());
    for (i, sum) in sums.iter().enumerate() {
        put(&mut sector, FOOTER_HEADER + i * 4, &sum.to_le_bytes());
    }
    let crc = place.checksum(offset, &sector[8..]);
    put(&mut sector, 4, &crc.to_le_bytes());
    sector
}

/// The footer sector `sector`, if it is sound and belongs at `offset`.
pub(crate) fn decode_footer(place: Place, offset: u32, sector: &[u8]) -> Option<Footer<'_>> {
    if sector[..4] != FOOTER_MAGIC || place.checksum(offset, &sector[8..SECTOR]) != get_u32(sector, 4) {
        return None;
    }
    let shape = Shape {
        sequence: get_u64(sector, 8),
        payload: get_u32(sector, 16),
        synced: Position {
            segment: get_u64(sector, 24),
            offset: get_u32(sector, 32),
        },
    };
    (shape.payload as usize >= FRAME_HEADER).then_some(Footer {
        start: get_u32(sector, 20),
        shape,
        part: get_u32(sector, 36),
        sums: &sector[FOOTER_HEADER..],
    })
}
