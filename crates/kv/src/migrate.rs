//! A store of an earlier release becomes one of the present format when it is opened: its rows go as a snapshot's would into a fresh file, which
//! then takes the old one's place. Files of both earlier formats had no checksums of ours: before anything is taken from one, the
//! engine verifies its own, page by page. A crash on the way leaves the old file as it was. Takes about as long as restoring a
//! snapshot of the same state, and room for both files meanwhile.

use std::io::{self, Read};
use std::sync::Arc;

use quorate_base::Disk;
use redb::{ReadableDatabase, TableDefinition};

use crate::error::REMEDY;
use crate::flush::engine;
use crate::kv::Options;
use crate::meta::{Flushed, Format};
use crate::row::Definition;
use crate::snapshot::{self, Output, Stream};
use crate::store::{FILE, File};
use crate::view::{RawTable, View};
use crate::wire;

/// The tables of the first format that say all; the others (`current`, `history`) follow from them. Their rows are those of a snapshot.
const TABLES: [(u8, Definition); 3] = [
    (wire::EVENTS, TableDefinition::new("events")),
    (wire::LEASES, TableDefinition::new("leases")),
    (wire::ATTACHED, TableDefinition::new("attached")),
];

/// Puts a file with checksums in the place of one without.
pub(crate) fn to_checked(disk: &dyn Disk, options: &Options) -> io::Result<()> {
    let old = File::open_plain(disk, options).map_err(|error| match error.kind() {
        // What the engine has to say of pages that do not fit together.
        io::ErrorKind::Other => io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the file `{FILE}`, of a release that kept no checksums, cannot be read: {error}. {REMEDY}"
            ),
        ),
        _ => error,
    })?;
    let (format, state) = old.state()?;
    let at = state.meta.applied;
    match format {
        Format::First => {
            let mut rows = Rows::of(&old, &state)?;
            File::create(disk, options, |file| snapshot::receive(file, at, &mut rows))
        }
        Format::Second => {
            let view = Arc::new(View::new(&old).map_err(io::Error::other)?);
            let mut rows = Stream::lean(Default::default(), view, &state.meta, state.scrubbed);
            File::create(disk, options, |file| snapshot::receive(file, at, &mut rows))
        }
    }
}

/// The rows of the first format as a stream.
struct Rows {
    tables: Vec<(u8, RawTable)>,
    /// The table being read.
    at: usize,
    /// The last key read of it.
    after: Option<Vec<u8>>,
    output: Output,
    done: bool,
}

impl Rows {
    /// Of a store that holds `state`.
    fn of(old: &File, state: &Flushed) -> io::Result<Rows> {
        let txn = old.db.begin_read().map_err(engine)?;
        let mut tables = Vec::new();
        for (tag, table) in TABLES {
            tables.push((tag, txn.open_table(table).map_err(engine)?));
        }
        let beginning = Flushed {
            stored: 0,
            ..state.clone()
        };
        Ok(Rows {
            tables,
            at: 0,
            after: None,
            output: Output::of(&beginning),
            done: false,
        })
    }

    /// Reads on until there is enough to take.
    fn step(&mut self) -> io::Result<()> {
        let Some((tag, table)) = self.tables.get(self.at) else {
            self.output.trailer();
            self.done = true;
            return Ok(());
        };
        let from = match &self.after {
            Some(after) => std::ops::Bound::Excluded(after.as_slice()),
            None => std::ops::Bound::Unbounded,
        };
        let range = table.range::<&[u8]>((from, std::ops::Bound::Unbounded));
        let mut last = None;
        for row in range.map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            self.output.row(*tag, key.value(), value.value());
            if self.output.is_full() {
                last = Some(key.value().to_vec());
                break;
            }
        }
        if last.is_none() {
            self.at += 1;
        }
        self.after = last;
        Ok(())
    }
}

impl Read for Rows {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.output.len() == 0 && !self.done {
            self.step()?;
        }
        let chunk = self.output.take(buf.len());
        buf[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }
}
