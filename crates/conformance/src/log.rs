//! Quorate's own log on a disk that loses power: whatever was acknowledged is found again, in order, and nothing that was never written;
//! recovering twice is recovering once, and the log goes on. This is what a disk is for here, so it is the last word on one.

use bytes::Bytes;
use quorate_base::Index;
use quorate_wal::{Options, Record, Wal};

use crate::{Effort, Failure, Medium, Outcome, Random, Report, ensure, must};

/// Small, so that a short life has several segments.
const SEGMENT_BYTES: u32 = 8192;

const CHECK: &str = "the log on this disk loses nothing acknowledged";

/// Appends to a log, lets power fail inside every operation that `effort` allows, and recovers. `fresh` gives an empty medium for a seed.
///
/// # Errors
/// If anything acknowledged is missing or different, or the log does not open.
pub fn survival<M: Medium>(mut fresh: impl FnMut(u64) -> M, effort: Effort) -> Result<Report, Failure> {
    let mut report = Report::default();
    run(&mut fresh, effort, &mut report).map_err(|what| Failure { check: CHECK, what })?;
    report.checks += 1;
    Ok(report)
}

/// What a log holds: the entries after `start`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    start: u64,
    entries: Vec<Bytes>,
}

impl Content {
    fn last(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    fn take(&mut self, record: &Record) {
        match record {
            Record::Entry { body, .. } => self.entries.push(body.clone()),
            Record::Truncate { after } => self.entries.truncate((after.0 - self.start) as usize),
            Record::Mark { index, .. } => {
                let gone = (index.0.saturating_sub(self.start) as usize).min(self.entries.len());
                self.entries.drain(..gone);
                self.start = self.start.max(index.0);
            }
            Record::State(_) => {}
        }
    }
}

/// What may be found: what was acknowledged, or that and the batches under way, up to any of them.
#[derive(Default)]
struct Life {
    possible: Vec<Content>,
}

fn open(medium: &mut impl Medium) -> Result<(Wal, Content), String> {
    let disk = must("bring up the disk", medium.mount())?;
    let mut content = Content::default();
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::new(7)
    };
    let wal = must(
        "open the log",
        Wal::open(disk, options, &mut |record| content.take(&record)),
    )?;
    Ok((wal, content))
}

/// A life of the log, until the first error. Batches of all sizes, several in one call, rewritten tails, marks, upkeep in between.
fn live(wal: &mut Wal, mut content: Content, life: &mut Life) -> Result<(), String> {
    let mut random = Random::new(6);
    life.possible = vec![content.clone()];
    for step in 0..24 {
        let mut batches = Vec::new();
        life.possible.truncate(1);
        for _ in 0..1 + random.below(3) {
            let batch = batch(&content, step, &mut random);
            batch.iter().for_each(|record| content.take(record));
            life.possible.push(content.clone());
            batches.push(batch);
        }
        must("append", wal.append(&batches))?;
        life.possible = vec![content.clone()];
        if step % 3 == 1 && wal.needs_maintenance() {
            must("keep the log up", wal.maintain())?;
        }
    }
    Ok(())
}

fn batch(content: &Content, step: u64, random: &mut Random) -> Vec<Record> {
    let mut batch = Vec::new();
    let mut next = content.last() + 1;
    if step % 7 == 5 && content.entries.len() > 2 {
        next -= 2;
        batch.push(Record::Truncate {
            after: Index(next - 1),
        });
    }
    let len = [1, 40, 500, 700, 3000, 9000][random.below(6) as usize];
    for _ in 0..1 + random.below(2) {
        batch.push(Record::Entry {
            index: Index(next),
            body: random.bytes(len).into(),
        });
        next += 1;
    }
    if step % 10 == 9 {
        batch.push(Record::Mark {
            index: Index(next - 3),
            body: Bytes::from_static(b"compacted"),
        });
    }
    batch
}

fn run<M: Medium>(fresh: &mut impl FnMut(u64) -> M, effort: Effort, report: &mut Report) -> Outcome {
    let mut whole = fresh(0);
    let before = whole.operations();
    let (mut wal, content) = open(&mut whole)?;
    live(&mut wal, content, &mut Life::default())
        .map_err(|what| format!("without a power failure: {what}"))?;
    for moment in effort.moments_of(whole.operations() - before) {
        for seed in 0..effort.outcomes {
            let when = |what| format!("power failed in operation {moment}, outcome {seed}: {what}");
            fail_at(fresh(seed), moment).map_err(when)?;
            report.crashes += 1;
        }
    }
    Ok(())
}

fn fail_at(mut medium: impl Medium, moment: u64) -> Outcome {
    let mut life = Life {
        possible: vec![Content::default()],
    };
    medium.cut_power_after(moment);
    if let Ok((mut wal, content)) = open(&mut medium) {
        let _ = live(&mut wal, content, &mut life);
    }
    must("cut the power", medium.power_off())?;
    let (wal, found) = open(&mut medium)?;
    ensure!(
        life.possible.contains(&found),
        "entries {} to {} were found, acknowledged were {} to {}, or the bytes differ",
        found.start + 1,
        found.last(),
        life.possible[0].start + 1,
        life.possible[0].last()
    );
    drop(wal);
    must("cut the power", medium.power_off())?;
    let (mut wal, again) = open(&mut medium)?;
    ensure!(
        again == found,
        "the second recovery found something else than the first"
    );
    let more = Record::Entry {
        index: Index(found.last() + 1),
        body: Bytes::from_static(b"goes on"),
    };
    must("append after a recovery", wal.append(&[vec![more.clone()]]))?;
    drop(wal);
    must("cut the power", medium.power_off())?;
    let (_, last) = open(&mut medium)?;
    let mut expected = found;
    expected.take(&more);
    ensure!(
        last == expected,
        "what was appended after a recovery did not survive"
    );
    Ok(())
}
