//! Stores of earlier formats: of the first, of which values stood in two tables and changes in a third, and of the second, which had no
//! checksums around the engine's file. They are opened, and are stores of the present format then. The rows of the first are those of a
//! snapshot that a release with that format made; the file of the second is as a release with it left it.

mod support;

use std::io;
use std::sync::Arc;

use quorate_base::{Disk, DiskFile, LogId, StateMachine};
use quorate_kv::*;
use redb::{Builder, StorageBackend, TableDefinition};
use support::disk::MemDisk;

const SNAPSHOT: &[u8] = include_bytes!("fixtures/level-1.snapshot");
/// A store of the second format, into which that was restored.
const SECOND: &[u8] = include_bytes!("fixtures/level-1.store");
/// The hash of the state of both.
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

/// A store of the second format on these bytes.
fn second_store(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::default();
    let file = disk.open("store", true).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    disk
}

fn bytes(disk: &MemDisk) -> Vec<u8> {
    let file = disk.open("store", false).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
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

/// Old stores of both formats.
fn old_stores() -> [(&'static str, MemDisk); 2] {
    [("first", old_store()), ("second", second_store(SECOND))]
}

#[test]
fn a_store_of_an_old_format_is_opened_and_stays_the_same_state() {
    for (format, disk) in old_stores() {
        assert!(bytes(&disk).starts_with(b"redb"), "{format}");
        for _ in 0..2 {
            let kv = open(&disk).unwrap();
            assert_eq!(kv.hash(), Ok(HASH), "{format}");
            assert_eq!(snapshot(&kv), SNAPSHOT, "{format}");
            assert_eq!(disk.list().unwrap(), ["store"], "{format}");
            assert_eq!(kv.durable(), kv.applied().index, "{format}");
        }
        assert!(bytes(&disk).starts_with(b"QKVSTORE"), "{format}");
    }
}

#[test]
fn a_crash_at_any_operation_of_the_change_of_format_loses_nothing() {
    for (format, whole) in old_stores() {
        let changes = {
            let disk = whole.after_crash(0);
            open(&disk).unwrap();
            disk.ops()
        };
        assert!(changes > 10, "nothing was changed");
        for op in 0..changes {
            let disk = whole.after_crash(0);
            disk.crash_after(op);
            drop(open(&disk));
            let disk = disk.after_crash(op);
            let what = format!("{format} format, crash at operation {op}");
            let kv = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(kv.hash(), Ok(HASH), "{what}");
        }
    }
}

/// A store without checksums gets none over damage: the engine's are looked at first, all of them.
#[test]
fn damage_in_a_store_of_the_second_format_is_not_taken_over() {
    let mut refused = 0;
    // Most of the file is free; all of the header counts.
    for at in (0..320).chain((320..SECOND.len()).step_by(211)) {
        let mut damaged = SECOND.to_vec();
        damaged[at] ^= 1 << (at % 8);
        match open(&second_store(&damaged)) {
            Ok(kv) => assert_eq!(kv.hash(), Ok(HASH), "a bit in byte {at}"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
                assert!(error.to_string().contains("replace the member"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "only {refused} refused");
}

/// An earlier release opens the engine's file at once.
#[test]
fn an_earlier_release_refuses_the_present_format_and_leaves_it_alone() {
    let disk = MemDisk::default();
    drop(open(&disk).unwrap());
    let before = bytes(&disk);
    let file = File(disk.open("store", false).unwrap());
    let error = Builder::new().create_with_backend(file).unwrap_err();
    assert!(error.to_string().contains("Not a redb database"), "{error}");
    assert_eq!(bytes(&disk), before);
}

#[test]
fn a_later_version_of_the_file_is_refused() {
    let disk = MemDisk::default();
    drop(open(&disk).unwrap());
    let mut head = bytes(&disk)[..512].to_vec();
    head[8] = 2;
    let identity = [[0; 8], [0xff; 8]].concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&identity), &head[..508]);
    head[508..].copy_from_slice(&sum.to_le_bytes());
    let file = disk.open("store", false).unwrap();
    file.write_at(0, &head).unwrap();
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("has version 2"), "{error}");
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
