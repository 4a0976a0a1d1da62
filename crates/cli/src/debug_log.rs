//! `quorate debug log`: prints the log of a data directory, of a running server too, without changing a byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_base::{Disk, DiskFile};
use quorate_kv::{Command, types};
use quorate_node::entry::{Content, Entry};
use quorate_node::stored;
use quorate_wal::{Item, Located, Record, inspect};

use crate::client::Failure;
use crate::output;

/// Lines are printed in pieces of about this size.
const PIECE: usize = 64 << 10;

/// Prints the log in `dir`. Damage is shown where it is, and makes the command fail.
pub fn run(dir: &Path) -> Result<(), Failure> {
    let failed = |error: String| Failure::refused(format!("{}: {error}", dir.display()));
    let disk = ReadOnly(dir.to_owned());
    if !disk
        .list()
        .map_err(|error| failed(error.to_string()))?
        .iter()
        .any(|name| name.starts_with("wal-"))
    {
        return Err(failed("no log is in this directory".to_owned()));
    }
    let mut text = String::new();
    let verdict = inspect(&disk, &mut |found| {
        text += &line(&found);
        if text.len() >= PIECE {
            output::print(std::mem::take(&mut text).as_bytes());
        }
    });
    output::print(text.as_bytes());
    match verdict {
        Err(error) => Err(failed(error.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(())) => Ok(()),
    }
}

/// File, offset, and what stands there. What one write made durable is indented below its frame.
fn line(found: &Located) -> String {
    let what = match &found.item {
        Item::Segment {
            identity,
            number,
            length,
        } => {
            format!(
                "SEGMENT {number} of log {identity:016x}, {}",
                output::size(*length as i64)
            )
        }
        Item::Frame {
            sequence,
            length,
            records,
        } => {
            format!("frame {sequence}: {records} records in {length} bytes")
        }
        Item::Base { start, last } => {
            format!("  base      entries after {start} up to {last} are in earlier segments")
        }
        Item::Record(record) => format!("  {}{}", stored::describe(record), command(record)),
        Item::Torn => {
            "TORN: remains of a write that a crash cut short; never acknowledged, cut off at start".to_owned()
        }
        Item::Unused { length } => format!("unused: {}", output::size(*length as i64)),
        Item::Damage(damage) => format!("DAMAGE: {damage}"),
    };
    format!("{}+{:<10} {what}\n", found.file, found.offset)
}

/// What an entry's command does, if it is one of the key-value store's.
fn command(record: &Record) -> String {
    let Record::Entry { body, .. } = record else {
        return String::new();
    };
    let Ok(Entry {
        content: Content::Command { command, .. },
        ..
    }) = Entry::decode(body)
    else {
        return String::new();
    };
    match Command::decode(&command) {
        Ok(command) => format!(": {}", in_words(&command)),
        Err(error) => format!(": unreadable command: {error}"),
    }
}

fn in_words(command: &Command) -> String {
    match command {
        Command::Put(put) => put_in_words(put),
        Command::DeleteRange(delete) => format!("delete {}", range(&delete.key, &delete.range_end)),
        Command::Txn(txn) => format!(
            "txn with {} compares, {} operations if they hold, {} if not",
            txn.compare.len(),
            txn.success.len(),
            txn.failure.len()
        ),
        Command::Compact { revision, .. } => format!("compact before revision {revision}"),
        Command::LeaseGrant { id, ttl, .. } => format!("grant lease {id:x} for {ttl} s"),
        Command::LeaseRevoke { id, expiry: None } => format!("revoke lease {id:x}"),
        Command::LeaseRevoke {
            id,
            expiry: Some(expiry),
        } => {
            let of = expiry
                .grant
                .map_or(String::new(), |grant| format!(" as granted by entry {grant}"));
            format!("lease {id:x}{of} expired in term {}", expiry.term)
        }
        Command::Alarm { action, member, kind } => format!("alarm {action:?} {kind:?} of member {member:x}"),
    }
}

fn put_in_words(put: &types::PutRequest) -> String {
    let lease = if put.lease == 0 {
        String::new()
    } else {
        format!(" with lease {:x}", put.lease)
    };
    format!(
        "put {} ({} bytes){lease}",
        output::readable(&put.key),
        put.value.len()
    )
}

fn range(key: &[u8], end: &[u8]) -> String {
    match end {
        [] => output::readable(key),
        [0] => format!("{} and all after", output::readable(key)),
        _ => format!("{} up to {}", output::readable(key), output::readable(end)),
    }
}

/// A directory of which nothing but reading is allowed.
#[derive(Debug)]
struct ReadOnly(PathBuf);

#[derive(Debug)]
struct ReadOnlyFile(File);

fn read_only<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the directory is only looked at",
    ))
}

impl Disk for ReadOnly {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if create {
            return read_only();
        }
        Ok(Arc::new(ReadOnlyFile(File::open(self.0.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self) -> io::Result<()> {
        read_only()
    }
}

impl DiskFile for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        read_only()
    }

    fn sync(&self) -> io::Result<()> {
        read_only()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        read_only()
    }
}
