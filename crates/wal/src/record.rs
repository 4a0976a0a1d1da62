//! Records: what the log is made of, and their bytes. How records are grouped into frames and protected by sector
//! checksums is in `format` and `frame`.

use bytes::Bytes;
use quorate_base::Index;
use quorate_marks::reached;

use crate::format::{Place, get_u32, get_u64};

/// One record of the log. The bodies mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry. Its index must be the last index plus one.
    Entry {
        /// Position in the log.
        index: Index,
        /// The caller's bytes.
        body: Bytes,
    },
    /// The caller's small state beside the entries (in Raft: the hard state). The last one wins.
    State(Bytes),
    /// The entries after `after` are gone. Not before the newest mark.
    Truncate {
        /// The last index that stays.
        after: Index,
    },
    /// The log starts after `index`: entries up to there are forgotten. If the log ended before, it is empty now and goes
    /// on at `index + 1`. Marks never go back.
    Mark {
        /// The last forgotten index.
        index: Index,
        /// The caller's bytes (in Raft: what names the snapshot that replaces the forgotten entries).
        body: Bytes,
    },
}

/// Bytes of a record's header, which its body follows.
pub(crate) const HEADER: usize = 20;

const ENTRY: u8 = 1;
const STATE: u8 = 2;
const TRUNCATE: u8 = 3;
const MARK: u8 = 4;
const BASE: u8 = 5;

/// A record as it stands in a segment: the caller's, or the log's own first record of every segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// One of the caller's, or a repetition of the caller's newest mark or state at the head of a segment.
    Record(Record),
    /// The extent of the log when the segment was begun: entries `start + 1` to `last` are in earlier segments.
    Base { start: Index, last: Index },
}

/// What a record's header says.
pub(crate) struct Parts<'a> {
    pub kind: u8,
    pub index: u64,
    pub body: &'a [u8],
}

impl Record {
    /// Bytes of this record in a segment.
    pub(crate) fn size(&self) -> usize {
        HEADER + self.parts().body.len()
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let (kind, index, body): (u8, u64, &[u8]) = match self {
            Record::Entry { index, body } => (ENTRY, index.0, body),
            Record::State(body) => (STATE, 0, body),
            Record::Truncate { after } => (TRUNCATE, after.0, &[]),
            Record::Mark { index, body } => (MARK, index.0, body),
        };
        Parts { kind, index, body }
    }
}

/// The body of a base record.
pub(crate) fn base_body(start: Index) -> [u8; 8] {
    start.0.to_le_bytes()
}

impl<'a> Parts<'a> {
    /// A base record; `body` from [`base_body`].
    pub(crate) fn base(last: Index, body: &'a [u8; 8]) -> Parts<'a> {
        Parts {
            kind: BASE,
            index: last.0,
            body,
        }
    }

    /// The header of this record at `offset`: checksum, body length, index, kind, three zeros.
    pub(crate) fn header(&self, place: Place, offset: u32) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let length =
            u32::try_from(self.body.len()).expect("a record's body is below 4 GiB: frames are checked first");
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&self.index.to_le_bytes());
        header[16] = self.kind;
        let crc = crc32c::crc32c_append(place.checksum(offset, &header[4..]), self.body);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// Reads the record at the front of `bytes`, which stand at `offset` of the segment. Returns it and its size, or what is
/// wrong with it. The body shares `bytes`.
pub(crate) fn decode(place: Place, offset: u32, bytes: &Bytes) -> Result<(Stored, usize), &'static str> {
    if bytes.len() < HEADER {
        reached!("wal.record.cut_header");
        return Err("the frame ends inside a record's header");
    }
    let length = get_u32(bytes, 4) as usize;
    let index = Index(get_u64(bytes, 8));
    let kind = bytes[16];
    let Some(end) = HEADER.checked_add(length).filter(|&end| end <= bytes.len()) else {
        reached!("wal.record.longer_than_frame");
        return Err("a record is longer than its frame");
    };
    if place.checksum(offset, &bytes[4..end]) != get_u32(bytes, 0) {
        reached!("wal.record.checksum");
        return Err("a record's checksum is wrong");
    }
    if bytes[17..HEADER] != [0; 3] {
        reached!("wal.record.reserved_bytes");
        return Err("a record's reserved bytes are not zero");
    }
    let body = bytes.slice(HEADER..end);
    let record = match kind {
        ENTRY => Record::Entry { index, body },
        STATE => Record::State(body),
        TRUNCATE if body.is_empty() => Record::Truncate { after: index },
        MARK => Record::Mark { index, body },
        BASE if body.len() == 8 => {
            let start = Index(get_u64(&body, 0));
            return Ok((Stored::Base { start, last: index }, end));
        }
        _ => {
            reached!("wal.record.unknown_kind");
            return Err("a record is of no known kind");
        }
    };
    Ok((Stored::Record(record), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no program writes, with a checksum that is right.
    #[test]
    fn a_sound_record_of_the_wrong_shape_is_refused() {
        let place = Place {
            identity: 1,
            segment: 2,
        };
        let decoded = |kind, body: &[u8]| {
            let parts = Parts { kind, index: 3, body };
            let bytes = [&parts.header(place, 512)[..], body].concat();
            decode(place, 512, &bytes.into())
        };
        for (kind, body) in [
            (TRUNCATE, &b"x"[..]),
            (BASE, b"1234567"),
            (BASE, b"123456789"),
            (0, b""),
            (6, b""),
        ] {
            assert_eq!(
                decoded(kind, body),
                Err("a record is of no known kind"),
                "{kind} {body:?}"
            );
        }
        for (kind, body) in [
            (TRUNCATE, &b""[..]),
            (BASE, b"12345678"),
            (ENTRY, b""),
            (STATE, b"x"),
            (MARK, b"x"),
        ] {
            assert!(decoded(kind, body).is_ok(), "{kind} {body:?}");
        }
    }

    #[test]
    fn a_record_cut_short_or_with_more_to_it_is_refused() {
        let place = Place {
            identity: 1,
            segment: 2,
        };
        let body = &b"body"[..];
        let (kind, index) = (ENTRY, 3);
        let mut bytes = [&Parts { kind, index, body }.header(place, 512)[..], body].concat();
        for cut in 0..bytes.len() {
            let said = match cut {
                0..HEADER => "the frame ends inside a record's header",
                _ => "a record is longer than its frame",
            };
            let cut = decode(place, 512, &Bytes::copy_from_slice(&bytes[..cut]));
            assert_eq!(cut, Err(said));
        }
        for reserved in 17..HEADER {
            let mut other = bytes.clone();
            other[reserved] = 1;
            let crc = place.checksum(512, &other[4..]);
            other[..4].copy_from_slice(&crc.to_le_bytes());
            let said = "a record's reserved bytes are not zero";
            assert_eq!(decode(place, 512, &other.into()), Err(said));
        }
        bytes[16] = MARK;
        let wrong = decode(place, 512, &bytes.into());
        assert_eq!(wrong, Err("a record's checksum is wrong"));
        for mark in ["cut_header", "longer_than_frame", "reserved_bytes", "checksum"] {
            assert!(quorate_marks::hits(&format!("wal.record.{mark}")) > 0, "{mark}");
        }
    }
}
