//! Many seeds one after the other, on several threads, and what they amount to: operations by kind and outcome, faults met, virtual
//! time, elections, excuses, failures. How that is printed is the program's business.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use quorate_kv::Command;
use quorate_node::session::Answer;

use crate::coverage::Coverage;
use crate::failure::{Failure, catch};
use crate::finish::{Report, Verdict, run};
use crate::history::{Action, Call, Outcome};
use crate::params::Params;
use crate::survivors::Excuse;
use crate::trace::Nanos;

/// At most one seed in so many may be excused from a demand for liveness.
const EXCUSED_OF: u64 = 1_000;

/// Which seeds are run, and how.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first.
    pub first: u64,
    /// At most so many.
    pub seeds: u64,
    /// No seed is begun any more when so many operations are done.
    pub operations: Option<u64>,
    /// On so many threads.
    pub threads: usize,
    /// Each seed is run twice, and both runs must be the same to the last event.
    pub twice: bool,
}

/// What a client asked, as a campaign counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// A key was put.
    Put,
    /// A key was deleted.
    Delete,
    /// A transaction.
    Txn,
    /// A compaction.
    Compact,
    /// A lease was granted or revoked.
    Lease,
    /// A lease was renewed.
    Renewal,
    /// A command of a client session.
    Session,
    /// A watcher was created, the first time or again at another node.
    Watch,
    /// Another command.
    Command,
    /// A linearizable read.
    Read,
    /// A read of one node's state.
    SerializableRead,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// Done or read.
    Ok,
    /// Answered with an error of the store.
    Error,
    /// Certainly not done.
    NotDone,
    /// Nobody knows.
    Unknown,
}

/// What a campaign amounts to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Seeds that passed.
    pub passed: u64,
    /// Seeds that failed, with the reason.
    pub failed: BTreeMap<u64, Failure>,
    /// Seeds in which nothing could be demanded of the nodes healed first, with the proof.
    pub excused: BTreeMap<u64, Excuse>,
    /// What clients asked, and how it ended.
    pub operations: BTreeMap<(Asked, Ended), u64>,
    /// What was met.
    pub coverage: Coverage,
    /// Terms that had a leader.
    pub elections: u64,
    /// Virtual time of all runs.
    pub elapsed: Nanos,
    /// The first seed that was not begun.
    pub next: u64,
}

impl Tally {
    /// Operations of all kinds.
    pub fn total(&self) -> u64 {
        self.operations.values().sum()
    }

    /// Seeds that were run to some end.
    pub fn seeds(&self) -> u64 {
        self.passed + self.failed.len() as u64
    }

    /// Whether more seeds are excused than may be.
    pub fn is_excused_too_often(&self) -> bool {
        self.excused.len() as u64 * EXCUSED_OF > self.seeds()
    }

    /// The exit code of a program that ran this: that of the worst failure.
    pub fn exit_code(&self) -> u8 {
        let excuses = self
            .is_excused_too_often()
            .then(|| Failure::Liveness(String::new()));
        let failures = self.failed.values().chain(&excuses);
        failures.map(Failure::exit_code).max().unwrap_or(0)
    }

    fn add(&mut self, seed: u64, result: Result<Report, Failure>) {
        let report = match result {
            Ok(report) => report,
            Err(failure) => {
                self.failed.insert(seed, failure);
                return;
            }
        };
        self.passed += 1;
        self.coverage.add(&report.coverage);
        self.elections += report.elections as u64;
        self.elapsed += report.elapsed;
        self.excused.extend(report.excused.map(|excuse| (seed, excuse)));
        for call in &report.calls {
            *self.operations.entry((asked(call), ended(call))).or_default() += 1;
        }
        let watches = (Asked::Watch, Ended::Ok);
        *self.operations.entry(watches).or_default() += report.watch_requests;
    }
}

fn asked(call: &Call) -> Asked {
    match &call.action {
        Action::Write(Command::Put(_)) => Asked::Put,
        Action::Write(Command::DeleteRange(_)) => Asked::Delete,
        Action::Write(Command::Txn(_)) => Asked::Txn,
        Action::Write(Command::Compact { .. }) => Asked::Compact,
        Action::Write(Command::LeaseGrant { .. } | Command::LeaseRevoke { .. }) => Asked::Lease,
        Action::Write(_) => Asked::Command,
        Action::Renew { .. } => Asked::Renewal,
        Action::Session(_) => Asked::Session,
        Action::Read {
            serializable: false, ..
        } => Asked::Read,
        Action::Read {
            serializable: true, ..
        } => Asked::SerializableRead,
    }
}

fn ended(call: &Call) -> Ended {
    match &call.outcome {
        Outcome::Written(Ok(_)) | Outcome::Read(Ok(_)) => Ended::Ok,
        Outcome::Renewed { ttl: Some(_), .. }
        | Outcome::Session(Answer::Opened(_) | Answer::Done(_) | Answer::Closed) => Ended::Ok,
        Outcome::Written(Err(_))
        | Outcome::Read(Err(_))
        | Outcome::Renewed { ttl: None, .. }
        | Outcome::Session(_) => Ended::Error,
        Outcome::NotDone => Ended::NotDone,
        Outcome::Unknown => Ended::Unknown,
    }
}

/// The command that runs a seed again and makes a picture of it.
pub fn replay(seed: u64) -> String {
    format!("cargo run --release -p quorate-sim -- --seed {seed} --trace seed-{seed}.html")
}

impl Campaign {
    /// Runs it. `told` hears of every seed when it has ended: its number, the failure if it failed, and the sum so far. `judge` may find
    /// more that is wrong with a run that passed.
    pub fn run(
        &self,
        judge: impl Fn(&Report) -> Result<(), String> + Sync,
        told: impl Fn(u64, Option<&Failure>, &Tally) + Sync,
    ) -> Tally {
        let tally = Mutex::new(Tally {
            next: self.first,
            ..Tally::default()
        });
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while let Some(seed) = self.begin(lock(&tally)) {
                        let result = self.run_seed(seed, &judge);
                        let failure = result.as_ref().err().cloned();
                        let mut tally = lock(&tally);
                        tally.add(seed, result);
                        told(seed, failure.as_ref(), &tally);
                    }
                });
            }
        });
        tally
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn begin(&self, mut tally: MutexGuard<'_, Tally>) -> Option<u64> {
        let enough = self.operations.is_some_and(|wanted| tally.total() >= wanted);
        let seed = tally.next;
        if enough || seed >= self.first.saturating_add(self.seeds) {
            return None;
        }
        tally.next += 1;
        Some(seed)
    }

    fn run_seed(&self, seed: u64, judge: &impl Fn(&Report) -> Result<(), String>) -> Result<Report, Failure> {
        // Nothing of the code under test should come up to here; what does is a failure of this seed, and not of the others.
        let once = || catch(|| run(Params::draw(seed), false)).map_err(Failure::Crash);
        let result = once()?;
        if self.twice {
            let hash = |result: &Verdict| match result {
                Ok(report) => report.trace_hash,
                Err((_, hash)) => *hash,
            };
            let (first, second) = (hash(&result), hash(&once()?));
            if first != second {
                let what = format!("one seed, two runs: their traces are {first:016x} and {second:016x}");
                return Err(Failure::Correctness(what));
            }
        }
        let report = result.map_err(|(failure, _)| failure)?;
        judge(&report).map_err(Failure::Correctness)?;
        Ok(report)
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(seeds: u64) -> Campaign {
        Campaign {
            first: 7,
            seeds,
            operations: None,
            threads: 2,
            twice: false,
        }
    }

    #[test]
    fn seeds_are_counted_and_judged() {
        let told = Mutex::new(Vec::new());
        let judge = |report: &Report| match report.params.seed {
            8 => Err("eight".to_owned()),
            _ => Ok(()),
        };
        let tally = campaign(3).run(judge, |seed, failure, _| {
            told.lock().unwrap().push((seed, failure.is_some()));
        });
        let mut told = told.into_inner().unwrap();
        told.sort_unstable();
        assert_eq!(told, [(7, false), (8, true), (9, false)]);
        assert_eq!((tally.seeds(), tally.passed, tally.next), (3, 2, 10));
        assert_eq!(tally.failed[&8], Failure::Correctness("eight".into()));
        assert_eq!(tally.exit_code(), 12);
        assert!(tally.total() >= 2_000 && tally.elections >= 2);
    }

    #[test]
    fn a_campaign_ends_when_it_has_its_operations() {
        let few = Campaign {
            operations: Some(1),
            threads: 1,
            twice: true,
            ..campaign(100)
        };
        let tally = few.run(|_| Ok(()), |_, _, _| {});
        assert_eq!((tally.seeds(), tally.exit_code()), (1, 0));
    }

    #[test]
    fn more_than_one_excuse_in_a_thousand_is_a_failure() {
        let excuse = || Excuse::NoHolder {
            able: Default::default(),
            last: quorate_base::Index(1),
        };
        let mut tally = Tally {
            passed: 999,
            ..Tally::default()
        };
        assert_eq!(tally.exit_code(), 0);
        tally.excused.insert(3, excuse());
        assert_eq!(tally.exit_code(), 11);
        tally.passed = 1_000;
        assert_eq!(tally.exit_code(), 0);
        tally.failed.insert(5, Failure::Crash(String::new()));
        assert_eq!(tally.exit_code(), 10);
    }
}
