//! The staging file of an incoming snapshot: its bytes, and how [`StageOp`]s are carried out on a [`Disk`]. All drivers use this
//! one. Which transfer is staged, and when it counts, is not known here.
//!
//! All numbers are little-endian.
//!
//! | part | bytes |
//! | --- | --- |
//! | header | `QUORSTG1`; length of what follows (u32); what transfer this is, as the node describes it; CRC32C of all that (u32) |
//! | a piece | its length, not 0 (u32); CRC32C of the snapshot up to its end (u32); CRC32C over the header's checksum and these two (u32); its bytes |
//! | the end | as a piece of length 0 |
//!
//! The third number ties a piece to this file's header, so that nothing an earlier transfer left on the medium is taken for a piece of
//! this one. What a crash left is read until the first piece that is not right: everything before it is what the sender sent.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::disk::is_full;
use quorate_base::{Disk, DiskFile};
use quorate_marks::reached;

use crate::event::{Event, StageOp, StreamId};

/// The staging file's name.
pub const STAGING: &str = "incoming-snapshot";

const MAGIC: &[u8; 8] = b"QUORSTG1";
/// Length of what stands before each piece.
const PIECE_HEAD: u64 = 12;
/// No description of a transfer is longer: it names one configuration.
const MAX_ABOUT: u32 = 16 << 20;
/// One [`StageOp::Check`] reads about so much: the log waits for it.
const CHECK_BYTES: u64 = 1 << 20;

/// Carries out what the node wants done with the staging file, on the thread that serves the log.
#[derive(Debug)]
pub struct Staging {
    disk: Arc<dyn Disk>,
    /// Being written.
    open: Option<Open>,
    /// Left by an earlier run, and checked so far.
    found: Option<Found>,
}

#[derive(Debug)]
struct Open {
    stream: StreamId,
    end: End,
    /// The directory is known to have it durably.
    entered: bool,
}

#[derive(Debug)]
struct Found {
    about: Bytes,
    end: End,
    size: u64,
    /// Written once more up to here.
    renewed: u64,
}

/// How far a file is written, or read.
#[derive(Clone, Debug)]
struct End {
    file: Arc<dyn DiskFile>,
    /// The header's checksum.
    salt: u32,
    /// Where the file goes on.
    at: u64,
    /// Bytes of the snapshot before that, and their checksum.
    len: u64,
    crc: u32,
}

/// What stands before a piece.
#[derive(Clone, Copy, Debug)]
struct PieceHead {
    len: u32,
    crc: u32,
}

impl PieceHead {
    fn encode(self, salt: u32) -> [u8; PIECE_HEAD as usize] {
        let mut bytes = [0; PIECE_HEAD as usize];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        let check = crc32c::crc32c_append(salt, &bytes[..8]);
        bytes[8..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; PIECE_HEAD as usize], salt: u32) -> Option<PieceHead> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let head = PieceHead {
            len: number(0),
            crc: number(4),
        };
        (head.encode(salt) == bytes).then_some(head)
    }
}

impl End {
    /// The piece that follows, if it is right; the empty one ends the snapshot.
    fn next(&self, size: u64) -> io::Result<Option<(PieceHead, Vec<u8>)>> {
        if size.saturating_sub(self.at) < PIECE_HEAD {
            reached!("node.staging.cut_piece_head", self.at < size);
            return Ok(None);
        }
        let mut bytes = [0; PIECE_HEAD as usize];
        self.file.read_at(self.at, &mut bytes)?;
        let Some(head) = PieceHead::decode(bytes, self.salt) else {
            reached!("node.staging.bad_piece_head");
            return Ok(None);
        };
        if u64::from(head.len) > size - self.at - PIECE_HEAD {
            reached!("node.staging.cut_piece");
            return Ok(None);
        }
        let mut piece = vec![0; head.len as usize];
        self.file.read_at(self.at + PIECE_HEAD, &mut piece)?;
        let right = crc32c::crc32c_append(self.crc, &piece) == head.crc;
        reached!("node.staging.bad_piece", !right);
        Ok(right.then_some((head, piece)))
    }

    /// Goes on behind a piece.
    fn pass(&mut self, head: PieceHead) {
        self.at += PIECE_HEAD + u64::from(head.len);
        self.len += u64::from(head.len);
        self.crc = head.crc;
    }

    fn put(&mut self, crc: u32, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| invalid("a piece is longer than a frame can be"))?;
        let head = PieceHead { len, crc };
        let encoded = head.encode(self.salt);
        self.file
            .write_vectored_at(self.at, &[IoSlice::new(&encoded), IoSlice::new(bytes)])?;
        self.pass(head);
        Ok(())
    }
}

impl Staging {
    /// Of what is on `disk` nothing is known yet.
    pub fn new(disk: Arc<dyn Disk>) -> Staging {
        Staging {
            disk,
            open: None,
            found: None,
        }
    }

    /// Carries out one operation. On a full disk the transfer is given up, and what it took is free again.
    ///
    /// # Errors
    /// Those of the disk, but for a full one. They are final.
    pub fn carry_out(&mut self, op: StageOp) -> io::Result<Option<Event>> {
        let stream = op.stream();
        match (self.try_carry_out(op), stream) {
            (Err(error), Some(stream)) if is_full(&error) => {
                reached!("node.staging.disk_full");
                if let Some(open) = self.open.take() {
                    // The node discards the file next. This frees its room where even a removal needs some, and if there is none for
                    // this either, that is no reason to end.
                    match open.end.file.set_len(0) {
                        Err(error) if !is_full(&error) => return Err(error),
                        _ => {}
                    }
                }
                Ok(Some(Event::StageFailed { stream }))
            }
            (result, _) => result,
        }
    }

    fn try_carry_out(&mut self, op: StageOp) -> io::Result<Option<Event>> {
        match op {
            StageOp::Check => self.check().map(Some),
            StageOp::Begin { stream, about } => self.begin(stream, &about).map(|()| None),
            StageOp::Resume { stream } => self.resume(stream).map(|()| None),
            StageOp::Write {
                stream,
                offset,
                crc,
                bytes,
            } => {
                if let Some(open) = self.current(stream) {
                    assert_eq!(offset, open.end.len, "a piece is staged where the file ends");
                    open.end.put(crc, &bytes)?;
                }
                Ok(None)
            }
            StageOp::Sync { stream } => self.sync(stream, false),
            StageOp::Finish { stream } => {
                if let Some(open) = self.current(stream) {
                    open.end.put(open.end.crc, &[])?;
                }
                self.sync(stream, true)
            }
            StageOp::Discard => {
                (self.open, self.found) = (None, None);
                discard(&*self.disk).map(|()| None)
            }
        }
    }

    /// The open file, if it is this transfer's. An operation for another one comes after that was given up.
    fn current(&mut self, stream: StreamId) -> Option<&mut Open> {
        self.open.as_mut().filter(|open| open.stream == stream)
    }

    fn begin(&mut self, stream: StreamId, about: &[u8]) -> io::Result<()> {
        (self.open, self.found) = (None, None);
        let file = self.disk.open(STAGING, true)?;
        let mut header = MAGIC.to_vec();
        let len = u32::try_from(about.len())
            .ok()
            .filter(|len| *len <= MAX_ABOUT)
            .ok_or_else(|| invalid("the description of a transfer is too long"))?;
        header.extend_from_slice(&len.to_le_bytes());
        header.extend_from_slice(about);
        let salt = crc32c::crc32c(&header);
        header.extend_from_slice(&salt.to_le_bytes());
        let end = End {
            file,
            salt,
            at: header.len() as u64,
            len: 0,
            crc: 0,
        };
        let open = self.open.insert(Open {
            stream,
            end,
            entered: false,
        });
        open.end.file.set_len(0)?;
        open.end.file.write_at(0, &header)
    }

    fn resume(&mut self, stream: StreamId) -> io::Result<()> {
        let found = self.found.take();
        let end = found.expect("only what was found is resumed").end;
        end.file.set_len(end.at)?;
        self.open = Some(Open {
            stream,
            end,
            entered: true,
        });
        Ok(())
    }

    fn sync(&mut self, stream: StreamId, finished: bool) -> io::Result<Option<Event>> {
        let disk = self.disk.clone();
        let Some(open) = self.current(stream) else {
            reached!("node.staging.of_former_stream");
            return Ok(None);
        };
        open.end.file.sync()?;
        if !open.entered {
            disk.sync_dir()?;
            open.entered = true;
        }
        let len = open.end.len;
        if finished {
            // Who takes the snapshot over has a handle of its own, and in the end the file is unlinked: this one would keep its space.
            self.open = None;
        }
        Ok(Some(Event::Staged {
            stream,
            len,
            finished,
        }))
    }

    /// Reads on through what an earlier run left. What cannot be read is not there: the transfer begins anew, and the disk has its
    /// say again when it is written to.
    fn check(&mut self) -> io::Result<Event> {
        if self.found.is_none() {
            self.found = find(&*self.disk)?;
        }
        let Some(found) = &mut self.found else {
            return Ok(Event::StageChecked {
                about: None,
                len: 0,
                crc: 0,
                end: true,
            });
        };
        let stop = found.end.at + CHECK_BYTES;
        let mut end = false;
        while !end && found.end.at < stop {
            match found.end.next(found.size) {
                Ok(Some((head, _))) if head.len > 0 => found.end.pass(head),
                Ok(found) => {
                    reached!("node.staging.complete_already", found.is_some());
                    end = true;
                }
                Err(_) => {
                    reached!("node.staging.unreadable");
                    end = true;
                }
            }
        }
        if !found.renew()? {
            reached!("node.staging.not_renewable");
            self.found = None;
            return Ok(Event::StageChecked {
                about: None,
                len: 0,
                crc: 0,
                end: true,
            });
        }
        if end {
            // What is said to be staged is durable: an earlier run may have been killed before its sync, of the file or of the directory.
            found.end.file.sync()?;
            self.disk.sync_dir()?;
        }
        Ok(Event::StageChecked {
            about: Some(found.about.clone()),
            len: found.end.len,
            crc: found.end.crc,
            end,
        })
    }
}

impl Found {
    /// Writes once more what was checked, so that the sync at the end makes it durable: if the sync that an earlier run died of had failed, reads
    /// show pages that never reached the medium and that no later sync would write. Answers whether it could: what cannot be read again, or
    /// not be written for want of room, is given up. Any other error of writing is final.
    fn renew(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; usize::try_from(self.end.at - self.renewed).map_err(io::Error::other)?];
        if self.end.file.read_at(self.renewed, &mut bytes).is_err() {
            return Ok(false);
        }
        match self.end.file.write_at(self.renewed, &bytes) {
            Err(error) if is_full(&error) => return Ok(false),
            written => written?,
        }
        self.renewed = self.end.at;
        Ok(true)
    }
}

/// Opens the staging file, if there is one with a header that is whole.
fn find(disk: &dyn Disk) -> io::Result<Option<Found>> {
    let file = match disk.open(STAGING, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let size = file.len()?;
    Ok(header(&file, size).unwrap_or(None).map(|(about, salt, at)| {
        let (len, crc) = (0, 0);
        let end = End {
            file,
            salt,
            at,
            len,
            crc,
        };
        let renewed = 0;
        Found {
            about,
            end,
            size,
            renewed,
        }
    }))
}

/// What the header says, its checksum, and where it ends; `None` if it is not whole.
fn header(file: &Arc<dyn DiskFile>, size: u64) -> io::Result<Option<(Bytes, u32, u64)>> {
    const FIXED: usize = MAGIC.len() + 4;
    if size < FIXED as u64 {
        reached!("node.staging.cut_header");
        return Ok(None);
    }
    let mut bytes = vec![0; FIXED];
    file.read_at(0, &mut bytes)?;
    let len = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let end = FIXED as u64 + u64::from(len) + 4;
    if &bytes[..MAGIC.len()] != MAGIC || len > MAX_ABOUT || size < end {
        reached!("node.staging.bad_header");
        return Ok(None);
    }
    bytes.resize(end as usize, 0);
    file.read_at(FIXED as u64, &mut bytes[FIXED..])?;
    let check = bytes.split_off(end as usize - 4);
    let salt = crc32c::crc32c(&bytes);
    let about = Bytes::from(bytes).slice(FIXED..);
    reached!("node.staging.bad_header_checksum", check != salt.to_le_bytes());
    Ok((check == salt.to_le_bytes()).then_some((about, salt, end)))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{STAGING}: {what}"))
}

/// Removes the staging file if there is one.
///
/// # Errors
/// Those of the disk.
pub fn discard(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(STAGING) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => disk.sync_dir(),
    }
}

/// Reads the staged snapshot, and checks it on the way: whoever reads to the end has read what was sent.
#[derive(Debug)]
pub struct StagingReader {
    end: End,
    size: u64,
    piece: io::Cursor<Vec<u8>>,
    done: bool,
}

impl StagingReader {
    /// Opens what was staged and finished.
    ///
    /// # Errors
    /// Those of the disk; [`ErrorKind::NotFound`] without a staging file, [`ErrorKind::InvalidData`] if its header is damaged.
    pub fn open(disk: &dyn Disk) -> io::Result<StagingReader> {
        let file = disk.open(STAGING, false)?;
        let size = file.len()?;
        let (_, salt, at) = header(&file, size)?.ok_or_else(|| invalid("the header is damaged"))?;
        let (len, crc) = (0, 0);
        let end = End {
            file,
            salt,
            at,
            len,
            crc,
        };
        Ok(StagingReader {
            end,
            size,
            piece: io::Cursor::default(),
            done: false,
        })
    }
}

impl Read for StagingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buf)?;
            if count > 0 || buf.is_empty() || self.done {
                return Ok(count);
            }
            let at = self.end.at;
            let (head, piece) = self
                .end
                .next(self.size)?
                .ok_or_else(|| invalid(&format!("damaged or cut off at byte {at}")))?;
            self.end.pass(head);
            self.done = head.len == 0;
            self.piece = io::Cursor::new(piece);
        }
    }
}
