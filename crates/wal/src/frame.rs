//! Putting a frame together for writing: records with their headers, padding, and the footer of sector checksums. Large
//! bodies are not copied. Taking frames apart is in `scan`.

use std::io::IoSlice;
use std::ops::Range;

use crate::format::{self, FRAME_HEADER, Place, Position, SECTOR, SUMS, Shape, ZEROS};
use crate::record::Parts;

/// Bodies below this size are copied together with the record headers: a copy of one is cheaper than another slice in the
/// system call, and the number of slices in a call is limited.
const COPY_BELOW: usize = 1024;

/// Bytes of a frame whose header and records take `payload` bytes.
pub(crate) fn size(payload: u64) -> u64 {
    let data = payload.div_ceil(SECTOR as u64);
    (data + data.div_ceil(SUMS as u64)) * SECTOR as u64
}

/// From so many pieces on everything is copied: a frame must go out in one system call, which takes 1,024. Two calls could leave a
/// sector half written if the process is killed between them, and that looks like damage.
const MAX_BORROWING: usize = 1000;

enum Piece<'a> {
    Copied(Range<usize>),
    Borrowed(&'a [u8]),
}

/// A frame in the making.
pub(crate) struct FrameWriter<'a> {
    place: Place,
    start: u32,
    records: u32,
    payload: u32,
    scratch: Vec<u8>,
    pieces: Vec<Piece<'a>>,
}

/// A frame ready to be written.
pub(crate) struct Frame<'a> {
    /// Bytes of the whole frame.
    pub size: u32,
    scratch: Vec<u8>,
    pieces: Vec<Piece<'a>>,
}

impl<'a> FrameWriter<'a> {
    /// A frame that will stand at `start`. `scratch` is a buffer to be reused, given back by [`Frame::into_scratch`].
    pub(crate) fn new(place: Place, start: u32, mut scratch: Vec<u8>) -> FrameWriter<'a> {
        scratch.clear();
        let mut writer = FrameWriter {
            place,
            start,
            records: 0,
            payload: 0,
            scratch,
            pieces: Vec::new(),
        };
        writer.copy(&[0; FRAME_HEADER]);
        writer
    }

    /// Where the next record will stand.
    pub(crate) fn offset(&self) -> u32 {
        self.start + self.payload
    }

    pub(crate) fn push(&mut self, record: &Parts<'a>) {
        let header = record.header(self.place, self.offset());
        self.copy(&header);
        if record.body.len() < COPY_BELOW || self.pieces.len() >= MAX_BORROWING {
            self.copy(record.body);
        } else {
            self.payload += record.body.len() as u32;
            self.pieces.push(Piece::Borrowed(record.body));
        }
        self.records += 1;
    }

    /// Appends a record that does not live as long as the frame.
    pub(crate) fn push_copied(&mut self, record: &Parts<'_>) {
        let header = record.header(self.place, self.offset());
        self.copy(&header);
        self.copy(record.body);
        self.records += 1;
    }

    /// Completes the frame.
    pub(crate) fn finish(mut self, sequence: u64, synced: Position) -> Frame<'a> {
        let shape = Shape {
            sequence,
            payload: self.payload,
            synced,
        };
        let header = format::encode_frame_header(self.place, self.start, &shape, self.records);
        self.scratch[..FRAME_HEADER].copy_from_slice(&header);
        let padding = shape.data_sectors() * SECTOR - shape.payload as usize;
        self.pieces.push(Piece::Borrowed(&ZEROS[..padding]));

        let sums = self.sector_sums(shape.data_sectors());
        let footer = self.scratch.len();
        let mut offset = self.start + (shape.data_sectors() * SECTOR) as u32;
        for (part, sums) in sums.chunks(SUMS).enumerate() {
            let sector = format::encode_footer(self.place, offset, self.start, &shape, part as u32, sums);
            self.scratch.extend_from_slice(&sector);
            offset += SECTOR as u32;
        }
        self.pieces.push(Piece::Copied(footer..self.scratch.len()));
        Frame {
            size: shape.size() as u32,
            scratch: self.scratch,
            pieces: self.pieces,
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        let at = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.payload += bytes.len() as u32;
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = self.scratch.len(),
            _ => self.pieces.push(Piece::Copied(at..self.scratch.len())),
        }
    }

    /// The checksums of the data sectors, across the pieces.
    fn sector_sums(&self, sectors: usize) -> Vec<u32> {
        let mut sums = Vec::with_capacity(sectors);
        let mut offset = self.start;
        let mut crc = self.place.seed(offset);
        let mut filled = 0;
        for piece in &self.pieces {
            let mut rest = resolve(piece, &self.scratch);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(SECTOR - filled));
                crc = crc32c::crc32c_append(crc, now);
                filled += now.len();
                rest = later;
                if filled == SECTOR {
                    sums.push(crc);
                    offset += SECTOR as u32;
                    crc = self.place.seed(offset);
                    filled = 0;
                }
            }
        }
        assert_eq!(sums.len(), sectors, "a frame's data fills whole sectors");
        sums
    }
}

impl Frame<'_> {
    /// The frame's bytes, in order.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces
            .iter()
            .map(|piece| IoSlice::new(resolve(piece, &self.scratch)))
            .filter(|slice| !slice.is_empty())
            .collect()
    }

    /// Gives the buffer back.
    pub(crate) fn into_scratch(self) -> Vec<u8> {
        self.scratch
    }
}

fn resolve<'s>(piece: &'s Piece<'_>, scratch: &'s [u8]) -> &'s [u8] {
    match piece {
        Piece::Copied(range) => &scratch[range.clone()],
        Piece::Borrowed(bytes) => bytes,
    }
}
