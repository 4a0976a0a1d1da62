//! Stores of the first format, of which values stood in two tables and changes in a third: they are opened, and are stores of the
//! present format then. The rows are those of a snapshot that the release with that format made.

mod support;

use std::io;
use std::sync::Arc;

use quorate_base::{Disk, DiskFile, LogId, StateMachine};
use quorate_kv::*;
use redb::{Builder, StorageBackend, TableDefinition};
use support::disk::MemDisk;

const SNAPSHOT: &[u8] = include_bytes!("fixtures/level-1.snapshot");
/// The hash of its state.
const HASH: u32 = 0x5b80_0b4b;

#[derive(Debug)]
struct File(Arc<dyn DiskFile>);

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// Tag, key and value of the records of a snapshot whose lengths are below 128.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let mut records = Vec::new();
    bytes = &bytes[b"QKVS\x01".len()..];
    while let [tag, key, value, rest @ ..] = bytes {
        assert!(*key < 128 && *value < 128, "a longer length takes two bytes");
        let (key, rest) = rest.split_at(usize::from(*key));
        let (value, rest) = rest.split_at(usize::from(*value));
        records.push((*tag, key, value));
        bytes = rest;
    }
    records
}

/// A store of the first format, as that release laid it out: the state record in `meta`, and a table for each kind of rows.
fn old_store() -> MemDisk {
    let disk = MemDisk::default();
    let file = File(disk.open("store", true).unwrap());
    let db = Builder::new().create_with_backend(file).unwrap();
    let txn = db.begin_write().unwrap();
    for (at, name) in ["meta", "current", "events", "history", "leases", "attached"]
        .into_iter()
        .enumerate()
    {
        let table = TableDefinition::<&[u8], &[u8]>::new(name);
        let mut table = txn.open_table(table).unwrap();
        for (tag, key, value) in records(SNAPSHOT) {
            if usize::from(tag) == at {
                let key = if tag == 0 { b"meta" } else { key };
                table.insert(key, value).unwrap();
            }
        }
    }
    txn.commit().unwrap();
    drop(db);
    disk.sync_dir().unwrap();
    disk
}

fn open(disk: &MemDisk) -> io::Result<Kv> {
    Kv::open(Arc::new(disk.clone()), Options::default())
}

fn snapshot(kv: &Kv) -> Vec<u8> {
    let (mut view, mut bytes) = (kv.snapshot().unwrap(), Vec::new());
    loop {
        let chunk = view.read_chunk(1000).unwrap();
        if chunk.is_empty() {
            return bytes;
        }
        bytes.extend_from_slice(&chunk);
    }
}

#[test]
fn a_store_of_the_first_format_is_opened_and_stays_the_same_state() {
    let disk = old_store();
    for _ in 0..2 {
        let kv = open(&disk).unwrap();
        assert_eq!(kv.hash(), Ok(HASH));
        assert_eq!(snapshot(&kv), SNAPSHOT);
        assert_eq!(disk.list().unwrap(), ["store"]);
        assert_eq!(kv.durable(), kv.applied().index);
    }
}

#[test]
fn a_crash_at_any_operation_of_the_change_of_format_loses_nothing() {
    let began = old_store().ops();
    let ended = {
        let disk = old_store();
        open(&disk).unwrap();
        disk.ops()
    };
    let changes = ended - began;
    assert!(changes > 10, "nothing was changed");
    for op in 0..changes {
        let disk = old_store();
        disk.crash_after(op);
        drop(open(&disk));
        let disk = disk.after_crash(op);
        let kv = open(&disk).unwrap_or_else(|error| panic!("crash at operation {op}: {error}"));
        assert_eq!(kv.hash(), Ok(HASH), "crash at operation {op}");
    }
}

/// The past of one key is longer than a step of the snapshot, and the key is the last of all.
#[test]
fn the_past_of_a_key_is_sent_whole_and_in_order_in_however_many_steps() {
    const CHANGES: u64 = 20_000;
    let mut kv = open(&MemDisk::default()).unwrap();
    for index in 1..=CHANGES {
        let key = if index % 10_000 == 1 { "a" } else { "b" };
        let put = Command::Put(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        });
        kv.apply(LogId::new(1, index), &put.encode()).unwrap();
    }
    let bytes = snapshot(&kv);
    let history: Vec<&[u8]> = records(&bytes)
        .into_iter()
        .filter(|(tag, ..)| *tag == 3)
        .map(|(_, key, _)| key)
        .collect();
    assert_eq!(history.len(), CHANGES as usize, "each change once");
    assert!(history.is_sorted(), "by key, then by revision");

    let mut other = open(&MemDisk::default()).unwrap();
    other.restore(kv.applied(), &mut &bytes[..]).unwrap();
    assert_eq!(other.hash(), kv.hash());
    assert_eq!(snapshot(&other), bytes);
}
