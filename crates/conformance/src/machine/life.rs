//! The life of one machine as a driver leads it: runs of entries, jobs on the side, one at a time, which may take their time.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_base::{Index, Job, StateMachine};

use super::Entry;
use crate::{Outcome, Random, ensure, must};

/// A machine that is told to hurry is given so many jobs to become durable.
const MOST_JOBS: usize = 1000;

/// When jobs are asked for and run.
pub(super) enum Pace {
    /// Not at all: everything stays in memory.
    Never,
    /// After every entry, told to hurry.
    Eager,
    /// Now and then, told to hurry or not; run at once or some entries later. Snapshots are taken and thrown away in between.
    Random(Random),
}

/// See the module.
pub(super) struct Life<S> {
    pub machine: S,
    /// What each entry was answered; empty for those without a command.
    pub answers: Vec<String>,
    /// What the machine has called durable.
    pub promised: Index,
    pace: Pace,
    job: Option<Job>,
}

impl<S> Life<S>
where
    S: StateMachine<Output: Debug>,
{
    pub fn new(machine: S, pace: Pace) -> Life<S> {
        Life {
            answers: Vec::new(),
            promised: machine.durable(),
            machine,
            pace,
            job: None,
        }
    }

    /// Applies entries, which follow what was applied.
    pub fn apply(&mut self, entries: &[Entry]) -> Outcome {
        for entry in entries {
            let answer = match &entry.command {
                Some(command) => format!("{:?}", self.machine.apply(entry.at, command)),
                None => {
                    // A configuration; most of them repeat the level.
                    self.machine.level(entry.level);
                    self.machine.skip(entry.at);
                    String::new()
                }
            };
            self.answers.push(answer);
            let applied = self.machine.applied();
            ensure!(
                applied == entry.at,
                "entry {} was applied, and `applied` says {applied}",
                entry.at
            );
            self.tend()?;
        }
        self.machine.batch_applied();
        self.run_job()
    }

    fn tend(&mut self) -> Outcome {
        let (ask, urgent, run) = match &mut self.pace {
            Pace::Never => (false, false, false),
            Pace::Eager => (true, true, true),
            Pace::Random(random) => {
                if random.below(4) == 0 {
                    self.machine.batch_applied();
                }
                if random.below(8) == 0 {
                    // Taking a view of the state must not change it.
                    drop(self.machine.snapshot());
                }
                (random.below(2) == 0, random.below(4) == 0, random.below(3) == 0)
            }
        };
        self.promise()?;
        if ask && self.job.is_none() {
            self.machine.batch_applied();
            self.job = self.machine.job(urgent);
        }
        // With a backlog nothing more is applied before the job is done.
        if run || self.machine.backlog() {
            self.run_job()?;
        }
        self.promise()
    }

    fn run_job(&mut self) -> Outcome {
        if let Some(job) = self.job.take() {
            must("run a job", job())?;
        }
        self.promise()
    }

    /// Notes what the machine calls durable.
    fn promise(&mut self) -> Outcome {
        let (durable, applied) = (self.machine.durable(), self.machine.applied().index);
        ensure!(
            durable <= applied,
            "entries up to {durable} are called durable, and only {applied} is applied"
        );
        ensure!(
            durable >= self.promised,
            "entries up to {} were called durable, and now only {durable}",
            self.promised
        );
        self.promised = durable;
        Ok(())
    }

    /// Stops in order: the machine is told to make everything durable.
    pub fn finish(&mut self) -> Outcome {
        self.run_job()?;
        for _ in 0..MOST_JOBS {
            self.job = self.machine.job(true);
            if self.job.is_none() {
                return Ok(());
            }
            self.run_job()?;
        }
        Err(format!("told to hurry, it still has work after {MOST_JOBS} jobs"))
    }
}

/// Runs something that may panic, as a process without power may. `None` if it does.
pub(super) fn survive<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}
