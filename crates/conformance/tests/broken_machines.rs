//! Every check of state machines can fail: machines with one flaw each, and the check that must name it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_base::{Disk, Index, Job, LogId, SnapshotReader, StateMachine};
use quorate_conformance::Effort;
use quorate_conformance::machine::Checks;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Flawless,
    AnswersByChance,
    CountsItsJobs,
    ToldALevelActsOnIt,
    ForgetsToSkip,
    IsDurableAhead,
    ForgetsAtRestart,
    SharesItsStateWithSnapshots,
    SendsTooMuchAtOnce,
    RestoresInMemoryOnly,
    AddsWhatItRestores,
    IsDurableWhenAsked,
    SavesWithoutSync,
    SavesIndexAndStateApart,
    RemovesBeforeItRestores,
    HasNoSnapshots,
    NeverComesToRest,
}

use Flaw::*;

/// Adds up. Its flawless form is right, as the first test shows.
struct Machine {
    flaw: Flaw,
    disk: Arc<dyn Disk>,
    applied: LogId,
    sum: u64,
    shared: Arc<Mutex<u64>>,
    durable: Arc<AtomicU64>,
}

fn encode(at: LogId, sum: u64) -> Vec<u8> {
    [at.term.0, at.index.0, sum]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn read(disk: &dyn Disk, name: &str) -> io::Result<Option<[u64; 3]>> {
    let file = match disk.open(name, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut words = [0; 3];
    for (n, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        file.read_at(8 * n as u64, &mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(Some(words))
}

fn write(disk: &dyn Disk, name: &str, at: LogId, sum: u64, sync: bool) -> io::Result<()> {
    let file = disk.open("new", true)?;
    file.set_len(0)?;
    file.write_at(0, &encode(at, sum))?;
    if sync {
        file.sync()?;
    }
    disk.rename("new", name)?;
    disk.sync_dir()
}

fn save(disk: &dyn Disk, flaw: Flaw, at: LogId, sum: u64) -> io::Result<()> {
    write(disk, "state", at, sum, flaw != SavesWithoutSync)?;
    if flaw == SavesIndexAndStateApart {
        write(disk, "index", at, 0, true)?;
    }
    Ok(())
}

impl Machine {
    fn open(flaw: Flaw, disk: Arc<dyn Disk>) -> io::Result<Machine> {
        let [mut term, mut index, mut sum] = read(&*disk, "state")?.unwrap_or_default();
        if flaw == SavesIndexAndStateApart {
            [term, index, _] = read(&*disk, "index")?.unwrap_or_default();
        }
        if flaw == ForgetsAtRestart && sum > 0 {
            sum -= 1;
        }
        Ok(Machine {
            flaw,
            disk,
            applied: LogId::new(term, index),
            sum,
            shared: Arc::new(Mutex::new(sum)),
            durable: Arc::new(AtomicU64::new(index)),
        })
    }
}

impl StateMachine for Machine {
    type Output = u64;

    fn apply(&mut self, at: LogId, command: &Bytes) -> u64 {
        self.applied = at;
        self.sum += u64::from(command[0]);
        *self.shared.lock().unwrap() = self.sum;
        static CHANCE: AtomicU64 = AtomicU64::new(0);
        match self.flaw {
            AnswersByChance => CHANCE.fetch_add(1, Ordering::Relaxed),
            _ => self.sum,
        }
    }

    fn skip(&mut self, at: LogId) {
        if self.flaw != ForgetsToSkip {
            self.applied = at;
        }
    }

    fn level(&mut self, level: u32) {
        // Not from an entry on, but whenever it is told.
        if self.flaw == ToldALevelActsOnIt {
            self.sum += u64::from(level);
        }
    }

    fn applied(&self) -> LogId {
        self.applied
    }

    fn durable(&self) -> Index {
        match self.flaw {
            IsDurableAhead => self.applied.index.next(),
            _ => Index(self.durable.load(Ordering::Relaxed)),
        }
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        let idle = self.applied.index.0 == self.durable.load(Ordering::Relaxed);
        if (idle && self.flaw != NeverComesToRest) || !urgent {
            return None;
        }
        if self.flaw == CountsItsJobs {
            self.sum += 1000;
        }
        let (disk, flaw, at, sum) = (self.disk.clone(), self.flaw, self.applied, self.sum);
        let durable = self.durable.clone();
        if flaw == IsDurableWhenAsked {
            durable.store(at.index.0, Ordering::Relaxed);
        }
        Some(Box::new(move || {
            save(&*disk, flaw, at, sum)?;
            durable.store(at.index.0, Ordering::Relaxed);
            Ok(())
        }))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        if self.flaw == HasNoSnapshots {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let frozen = Arc::new(Mutex::new(self.sum));
        Ok(Box::new(Reader {
            sum: match self.flaw {
                SharesItsStateWithSnapshots => self.shared.clone(),
                _ => frozen,
            },
            rest: None,
            greedy: self.flaw == SendsTooMuchAtOnce,
        }))
    }

    fn restore(&mut self, at: LogId, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        source.read_exact(&mut bytes)?;
        let sum = u64::from_le_bytes(bytes);
        if self.flaw == RemovesBeforeItRestores && read(&*self.disk, "state")?.is_some() {
            self.disk.remove("state")?;
            self.disk.sync_dir()?;
        }
        if self.flaw != RestoresInMemoryOnly {
            save(&*self.disk, self.flaw, at, sum)?;
        }
        let before = std::mem::replace(&mut self.sum, sum);
        self.applied = at;
        if self.flaw == AddsWhatItRestores {
            self.sum += before;
        }
        *self.shared.lock().unwrap() = self.sum;
        self.durable.store(at.index.0, Ordering::Relaxed);
        Ok(())
    }
}

struct Reader {
    sum: Arc<Mutex<u64>>,
    rest: Option<Bytes>,
    greedy: bool,
}

impl SnapshotReader for Reader {
    fn read_chunk(&mut self, max: usize) -> io::Result<Bytes> {
        let sum = *self.sum.lock().unwrap();
        let rest = self.rest.get_or_insert_with(|| sum.to_le_bytes().to_vec().into());
        let len = if self.greedy {
            rest.len()
        } else {
            max.min(rest.len())
        };
        Ok(rest.split_to(len))
    }
}

fn checks(flaw: Flaw) -> Checks<Machine> {
    let commands = (0..30_u8).map(|n| Bytes::from(vec![2 * (n % 5) + 2]));
    Checks::new(move |disk| Machine::open(flaw, disk), commands)
        .digest(|machine| machine.sum.to_le_bytes().to_vec())
}

#[test]
fn without_a_flaw_all_is_well() {
    let report = checks(Flawless).run(Effort::thorough()).unwrap();
    assert!(report.crashes > 1000, "{report:?}");
}

#[test]
fn each_check_can_fail() {
    let same = "the same log gives the same answers";
    let restart = "a restart in order";
    let snapshot = "a snapshot is the state when it was taken";
    let restore = "restoring a snapshot gives its state";
    let crash = "a crash loses nothing";
    let flaws = [
        (AnswersByChance, same),
        (CountsItsJobs, same),
        (ToldALevelActsOnIt, restart),
        (ForgetsToSkip, same),
        (IsDurableAhead, same),
        (ForgetsAtRestart, restart),
        (NeverComesToRest, restart),
        (SharesItsStateWithSnapshots, snapshot),
        (SendsTooMuchAtOnce, snapshot),
        (HasNoSnapshots, snapshot),
        (AddsWhatItRestores, restore),
        (RestoresInMemoryOnly, restore),
        (IsDurableWhenAsked, crash),
        (SavesWithoutSync, crash),
        (SavesIndexAndStateApart, crash),
        (RemovesBeforeItRestores, "a crash while a snapshot is restored"),
    ];
    for (flaw, check) in flaws {
        let failure = checks(flaw).run(Effort::thorough()).expect_err(check);
        assert!(failure.check.starts_with(check), "{flaw:?}: {failure}");
    }
}
