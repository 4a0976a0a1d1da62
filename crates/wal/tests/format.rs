//! The format on disk does not change unnoticed: the log in `fixtures/v1` was written by the first version of the format and must
//! open, and the current program must write the same bytes.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{MemDisk, Model, entry, maintain_all, mark, open, state, truncate};
use quorate_wal::Record;

const SEGMENT: u32 = 2048;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// All kinds of records, three segments and a spare.
fn appends() -> Vec<Vec<Vec<Record>>> {
    vec![
        vec![
            vec![state(b"hard state 1"), entry(1, "first")],
            vec![entry(2, "second")],
        ],
        vec![vec![entry(3, vec![0xcd; 700])]],
        vec![vec![truncate(2), entry(3, "third"), state(b"hard state 2")]],
        vec![vec![mark(1, b"snapshot at 1"), entry(4, vec![0xef; 1000])]],
        vec![vec![entry(5, "fifth")]],
    ]
}

fn written_now() -> (BTreeMap<String, Vec<u8>>, Model) {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, SEGMENT).unwrap();
    for batches in appends() {
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
    }
    maintain_all(&mut wal).unwrap();
    (disk.files(), model)
}

fn fixture() -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory()).expect("the fixture is checked in");
    files
        .map(|file| {
            let file = file.unwrap();
            (
                file.file_name().into_string().unwrap(),
                std::fs::read(file.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_log_of_the_first_format_opens() {
    let (_, model) = written_now();
    let (mut wal, found) = open(&MemDisk::of(&fixture()), SEGMENT).unwrap();
    assert_eq!(found, model);
    wal.append(&[vec![entry(6, "appended by a later program")]])
        .unwrap();
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let (files, _) = written_now();
    assert!(
        files == fixture(),
        "the format changed: give it a new version and keep this fixture readable"
    );
}

/// `cargo test -p quorate-wal --test format -- --ignored` makes the fixture of a new version.
#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    std::fs::create_dir_all(directory()).unwrap();
    for (name, bytes) in written_now().0 {
        std::fs::write(directory().join(name), bytes).unwrap();
    }
}
