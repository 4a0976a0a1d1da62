//! Random workloads with restarts and crashes against a model, and logs mangled at random: decoding never panics, and what it
//! accepts was once written.

mod common;

use common::{MemDisk, Model, Random, SECTOR, SMALL, entry, maintain_all, open};
use proptest::prelude::*;
use quorate_base::Index;
use quorate_wal::{Record, inspect};

#[derive(Clone, Debug)]
enum Act {
    Entry(usize),
    State(usize),
    Truncate(u64),
    Mark(u64),
    Install(u64),
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<Vec<Act>>),
    Maintain,
    Reopen,
    Crash(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop_oneof![0..50_usize, 400..1200_usize, Just(6000_usize)].prop_map(Act::Entry),
        2 => (0..40_usize).prop_map(Act::State),
        2 => (0..8_u64).prop_map(Act::Truncate),
        2 => (0..6_u64).prop_map(Act::Mark),
        1 => (1..9_u64).prop_map(Act::Install),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let batch = prop::collection::vec(act(), 0..5);
    prop_oneof![
        10 => prop::collection::vec(batch, 1..4).prop_map(Op::Append),
        4 => Just(Op::Maintain),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
    ]
}

/// Turns acts into records that continue the log.
fn records(model: &Model, random: &mut Random, batches: &[Vec<Act>]) -> Vec<Vec<Record>> {
    let mut model = model.clone();
    let mut out = Vec::new();
    for acts in batches {
        let mut batch = Vec::new();
        for act in acts {
            let added = match act {
                Act::Entry(size) => vec![entry(model.last() + 1, random.bytes(*size))],
                Act::State(size) => vec![Record::State(random.bytes(*size))],
                Act::Truncate(back) => {
                    let after = Index(model.last().saturating_sub(*back).max(model.start));
                    vec![Record::Truncate { after }]
                }
                Act::Mark(back) => {
                    let index = Index(model.last().saturating_sub(*back).max(model.start));
                    vec![Record::Mark {
                        index,
                        body: random.bytes(20),
                    }]
                }
                Act::Install(ahead) => {
                    let index = Index(model.last() + ahead);
                    let after = Index(model.start);
                    vec![
                        Record::Truncate { after },
                        Record::Mark {
                            index,
                            body: random.bytes(20),
                        },
                    ]
                }
            };
            added.iter().for_each(|record| model.apply(record));
            batch.extend(added);
        }
        out.push(batch);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_what_the_model_says(ops in prop::collection::vec(op(), 1..60), seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut disk = MemDisk::default();
        let (mut wal, mut model) = open(&disk, SMALL).unwrap();
        for op in &ops {
            match op {
                Op::Append(batches) => {
                    let batches = records(&model, &mut random, batches);
                    wal.append(&batches).unwrap();
                    model.apply_all(&batches);
                }
                Op::Maintain => maintain_all(&mut wal).unwrap(),
                Op::Reopen => {
                    let (reopened, found) = open(&disk, SMALL).unwrap();
                    prop_assert_eq!(&found, &model);
                    wal = reopened;
                }
                Op::Crash(seed) => {
                    let mut random = Random(*seed);
                    disk = disk.after_crash(&mut || random.below(2) == 0);
                    let (reopened, found) = open(&disk, SMALL).unwrap();
                    prop_assert_eq!(&found, &model);
                    wal = reopened;
                }
            }
            let mut index = model.start + 1;
            let limit = 1 + random.below(4000) as usize;
            while index <= model.last() {
                let some = wal.read(Index(index), Index(model.last()), limit).unwrap();
                let at = (index - model.start - 1) as usize;
                prop_assert_eq!(&some[..], &model.entries[at..at + some.len()]);
                index += some.len() as u64;
            }
        }
    }
}

/// Every state the workload went through, with the files at its end.
fn history() -> (std::collections::BTreeMap<String, Vec<u8>>, Vec<Model>) {
    let disk = MemDisk::default();
    let (mut wal, mut model) = open(&disk, SMALL).unwrap();
    let mut history = vec![model.clone()];
    let mut random = Random(99);
    for i in 1..=16 {
        let mut batch = vec![entry(i, random.bytes(random.clone().below(1500) as usize))];
        if i % 5 == 0 {
            batch.push(Record::State(random.bytes(9)));
            batch.push(Record::Truncate { after: Index(i) });
        }
        let batches = [batch];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
        history.push(model.clone());
    }
    (disk.files(), history)
}

fn mangle(random: &mut Random, bytes: &mut [u8]) {
    let length = bytes.len() as u64;
    for _ in 0..1 + random.below(4) {
        let at = random.below(length) as usize;
        let run = (1 + random.below(3 * SECTOR as u64) as usize).min(bytes.len() - at);
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..at + run].fill(0),
            3 => bytes[at..at + run]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8),
            _ => {
                let from = random.below(length - run as u64 + 1) as usize;
                bytes.copy_within(from..from + run, at);
            }
        }
    }
}

#[test]
fn mangled_logs_never_panic_and_never_give_what_was_not_written() {
    let (files, history) = history();
    let names: Vec<&String> = files.keys().collect();
    let mut random = Random(2024);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut files = files.clone();
        let name = names[random.below(names.len() as u64) as usize];
        mangle(&mut random, files.get_mut(name).unwrap());
        let disk = MemDisk::of(&files);
        let verdict = inspect(&disk, &mut |_| ()).expect("the disk itself is sound");
        match open(&disk, SMALL) {
            Ok((_, found)) => {
                assert!(history.contains(&found), "a state that never was: {found:?}");
                opened += 1;
            }
            Err(_) => refused += 1,
        }
        assert_eq!(
            verdict.is_ok(),
            open(&MemDisk::of(&files), SMALL).is_ok(),
            "inspecting says what opening says"
        );
    }
    assert!(
        opened > 100 && refused > 10_000,
        "{opened} opened, {refused} refused"
    );
}

#[test]
fn noise_in_place_of_a_log_never_panics() {
    let (files, _) = history();
    let first = files.keys().next().unwrap();
    let mut random = Random(4);
    for round in 0..2000 {
        let size = random.below(SMALL.into()) as usize;
        let mut bytes = random.bytes(size).to_vec();
        if round % 2 == 0 {
            // Behind a sound segment header.
            bytes = files[first].clone();
            let size = random.below(u64::from(SMALL) - SECTOR as u64) as usize;
            bytes[SECTOR..SECTOR + size].copy_from_slice(&random.bytes(size));
        }
        let disk = MemDisk::of(&[(first.clone(), bytes)].into());
        let _ = inspect(&disk, &mut |_| ());
        if let Ok((_, found)) = open(&disk, SMALL) {
            assert_eq!(found, Model::default());
        }
    }
}
