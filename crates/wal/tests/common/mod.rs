//! What the tests share: a disk in memory that fails and crashes, and the model that a log is compared with.
#![allow(dead_code)]

mod disk;

use bytes::Bytes;
use quorate_base::Index;
use quorate_wal::{OpenError, Options, Record, Wal};

pub use disk::*;

pub const IDENTITY: u64 = 0x5157_4552_5459_0001;

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub mark: Option<(u64, Bytes)>,
    pub state: Option<Bytes>,
    pub start: u64,
    pub entries: Vec<Bytes>,
}

impl Model {
    pub fn last(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry { index, body } => {
                assert_eq!(index.0, self.last() + 1);
                self.entries.push(body.clone());
            }
            Record::State(body) => self.state = Some(body.clone()),
            Record::Truncate { after } => self.entries.truncate((after.0 - self.start) as usize),
            Record::Mark { index, body } => {
                let gone = ((index.0 - self.start) as usize).min(self.entries.len());
                self.entries.drain(..gone);
                self.start = index.0;
                self.mark = Some((index.0, body.clone()));
            }
        }
    }

    pub fn apply_all(&mut self, batches: &[Vec<Record>]) {
        batches.iter().flatten().for_each(|record| self.apply(record));
    }

    /// All states that a crash while these batches are appended may leave.
    pub fn and_after_each(&self, batches: &[Vec<Record>]) -> Vec<Model> {
        let mut states = vec![self.clone()];
        for batch in batches {
            let mut next = states.last().unwrap().clone();
            batch.iter().for_each(|record| next.apply(record));
            states.push(next);
        }
        states
    }
}

pub fn options(segment_bytes: u32) -> Options {
    Options {
        segment_bytes,
        ..Options::new(IDENTITY)
    }
}

/// Opens a log and says what it holds.
pub fn open(disk: &MemDisk, segment_bytes: u32) -> Result<(Wal, Model), OpenError> {
    let mut model = Model::default();
    let wal = Wal::open(disk.shared(), options(segment_bytes), &mut |record| {
        model.apply(&record)
    })?;
    assert_eq!(wal.last_index(), Index(model.last()));
    assert_eq!(wal.first_index(), Index(model.start + 1));
    Ok((wal, model))
}

pub fn entry(index: u64, body: impl Into<Bytes>) -> Record {
    Record::Entry {
        index: Index(index),
        body: body.into(),
    }
}

pub fn mark(index: u64, body: &'static [u8]) -> Record {
    Record::Mark {
        index: Index(index),
        body: Bytes::from_static(body),
    }
}

pub fn state(body: &'static [u8]) -> Record {
    Record::State(Bytes::from_static(body))
}

pub fn truncate(after: u64) -> Record {
    Record::Truncate { after: Index(after) }
}

/// All upkeep there is to do.
pub fn maintain_all(wal: &mut Wal) -> Result<(), quorate_wal::WriteError> {
    for _ in 0..1000 {
        if !wal.needs_maintenance() || wal.maintain()? == quorate_wal::Space::Low {
            return Ok(());
        }
    }
    panic!("upkeep never comes to an end");
}

/// One step of a workload.
#[derive(Clone, Debug)]
pub enum Step {
    Append(Vec<Vec<Record>>),
    Maintain,
}

/// What may be in the log after a workload, whole or broken off.
#[derive(Debug)]
pub struct Outcome {
    /// The states possible now; the first is the one that was acknowledged.
    pub possible: Vec<Model>,
    /// Whether a step failed.
    pub failed: bool,
}

/// Runs steps on a log that holds `model` until one fails. After a failure nothing may touch the disk any more.
pub fn run(disk: &MemDisk, wal: &mut Wal, mut model: Model, steps: &[Step]) -> Outcome {
    for step in steps {
        let done = match step {
            Step::Append(batches) => {
                let possible = model.and_after_each(batches);
                let done = wal.append(batches);
                if done.is_err() {
                    check_closed(disk, wal);
                    return Outcome {
                        possible,
                        failed: true,
                    };
                }
                model = possible.last().unwrap().clone();
                done
            }
            Step::Maintain => wal.maintain().map(|_| ()),
        };
        if done.is_err() {
            check_closed(disk, wal);
            return Outcome {
                possible: vec![model],
                failed: true,
            };
        }
    }
    Outcome {
        possible: vec![model],
        failed: false,
    }
}

fn check_closed(disk: &MemDisk, wal: &mut Wal) {
    let calls = disk.calls();
    let next = wal.last_index().next();
    let again = wal.append(&[vec![entry(next.0, "never written")]]);
    assert!(
        matches!(again, Err(quorate_wal::WriteError::Closed(_))),
        "{again:?}"
    );
    assert!(matches!(wal.maintain(), Err(quorate_wal::WriteError::Closed(_))));
    assert!(!wal.needs_maintenance());
    assert_eq!(disk.calls(), calls, "a closed log was written");
}

/// A workload that reaches everything: several batches in a call, switches of segment with and without a spare, a batch longer
/// than a segment, truncation, marks, removal. For segments of 4096 bytes.
pub fn workload() -> Vec<Step> {
    use Step::{Append, Maintain};
    let mut random = Random(7);
    let mut body = |n| random.bytes(n);
    vec![
        Append(vec![vec![state(b"term 1"), entry(1, body(10))]]),
        Append(vec![
            vec![entry(2, body(300)), entry(3, body(700))],
            vec![entry(4, body(20))],
        ]),
        Maintain,
        Maintain,
        Append(vec![vec![truncate(2), entry(3, body(1100)), state(b"term 2")]]),
        Append(vec![vec![entry(4, body(900))], vec![entry(5, body(900))]]),
        Maintain,
        Append(vec![vec![mark(3, b"snapshot at 3")]]),
        Maintain,
        Append(vec![
            vec![entry(6, body(1500))],
            vec![entry(7, body(1500))],
            vec![entry(8, body(40))],
        ]),
        Maintain,
        Maintain,
        Maintain,
        Append(vec![vec![entry(9, body(5000)), state(b"term 3")]]),
        Append(vec![vec![mark(8, b"snapshot at 8"), entry(10, body(3))]]),
        Maintain,
        Maintain,
        Append(vec![vec![
            truncate(9),
            mark(20, b"installed at 20"),
            entry(21, body(64)),
        ]]),
        Maintain,
        Append(vec![vec![entry(22, body(64))]]),
    ]
}

/// Segment length of [`workload`].
pub const SMALL: u32 = 4096;
