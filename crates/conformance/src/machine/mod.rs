//! What must hold of a [`StateMachine`]: the same log gives the same answers and the same state, whatever else happens meanwhile; what it calls
//! durable is; a snapshot is the state of the moment at which it was taken, and restoring it gives exactly that. The lives that machines
//! lead here are in `life`, snapshots in `snapshots`.

mod life;
mod snapshots;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index, LogId, SnapshotReader, StateMachine};

use crate::{CrashDisk, Effort, Failure, MemDisk, Outcome, Random, Report, ensure, must};
use life::{Life, Pace};

/// One entry of the log that the machines are given.
#[derive(Clone, Debug)]
struct Entry {
    at: LogId,
    /// `None` for one without a command.
    command: Option<Bytes>,
    /// The cluster's feature level from here on.
    level: u32,
}

/// The feature level at which the cluster of the checks is founded. It is raised once, by an entry in the middle of the log.
const FOUNDED_AT: u32 = 1;

type Open<S> = dyn Fn(Arc<dyn Disk>) -> io::Result<S>;
type Digest<S> = dyn Fn(&S) -> Vec<u8>;

/// The checks of one kind of state machine.
///
/// ```
/// # use quorate::{Checkpointed, LogId, State};
/// # use quorate_conformance::{Effort, machine::Checks};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl State for Counter {
/// #     type Output = u64;
/// #     fn apply(&mut self, _at: LogId, _command: &bytes::Bytes) -> u64 { self.0 += 1; self.0 }
/// #     fn save(&self) -> Vec<u8> { self.0.to_le_bytes().to_vec() }
/// #     fn load(&mut self, saved: &[u8]) -> std::io::Result<()> {
/// #         self.0 = u64::from_le_bytes(saved.try_into().map_err(std::io::Error::other)?);
/// #         Ok(())
/// #     }
/// # }
/// let commands = (0..30).map(|_| bytes::Bytes::from_static(b"count"));
/// let checks = Checks::new(|disk| Ok(Checkpointed::open(disk, Counter::default())?.every(300)), commands);
/// let report = checks.run(Effort::quick())?;
/// assert!(report.crashes > 0);
/// # Ok::<(), quorate_conformance::Failure>(())
/// ```
pub struct Checks<S> {
    open: Box<Open<S>>,
    digest: Box<Digest<S>>,
    log: Vec<Entry>,
}

impl<S> Checks<S>
where
    S: StateMachine<Output: Debug>,
{
    /// Machines opened by `open`, and a log of these commands: a few dozen that reach as much of the machine as they can. They are applied
    /// many times.
    ///
    /// States are compared by the bytes of their snapshots, answers by how they print.
    pub fn new(
        open: impl Fn(Arc<dyn Disk>) -> io::Result<S> + 'static,
        commands: impl IntoIterator<Item = Bytes>,
    ) -> Checks<S> {
        let mut log = Vec::new();
        for command in commands {
            // Entries without a command come in between, and terms change.
            if log.len() % 6 == 0 {
                log.push(None);
            }
            log.push(Some(command));
        }
        let half = log.len() / 2;
        let raised = (half..log.len()).find(|n| log[*n].is_none());
        let entry = |(n, command): (usize, Option<Bytes>)| Entry {
            at: LogId::new(1 + n as u64 / 12, 1 + n as u64),
            command,
            level: FOUNDED_AT + u32::from(raised.is_some_and(|raised| n >= raised)),
        };
        Checks {
            open: Box::new(open),
            digest: Box::new(|machine| match machine.snapshot() {
                Ok(mut reader) => snapshots::read(&mut *reader, 1 << 20).unwrap_or_else(String::into_bytes),
                Err(error) => error.to_string().into_bytes(),
            }),
            log: log.into_iter().enumerate().map(entry).collect(),
        }
    }

    /// Compares states by this instead: for machines whose snapshots may differ though their states are equal, or that have none.
    pub fn digest(self, digest: impl Fn(&S) -> Vec<u8> + 'static) -> Checks<S> {
        Checks {
            digest: Box::new(digest),
            ..self
        }
    }

    /// Runs all checks.
    ///
    /// # Errors
    /// The first that fails.
    pub fn run(&self, effort: Effort) -> Result<Report, Failure> {
        let mut report = Report::default();
        let mut run = |check: &'static str, outcome: Outcome| {
            report.checks += 1;
            outcome.map_err(|what| Failure { check, what })
        };
        run(
            "the same log gives the same answers and the same state",
            self.deterministic(),
        )?;
        run("a restart in order finds what was durable", self.restarts())?;
        run(
            "a snapshot is the state when it was taken",
            self.isolated_snapshots(),
        )?;
        run("restoring a snapshot gives its state, durably", self.restores())?;
        let mut crashes = 0;
        run(
            "a crash loses nothing that was called durable",
            self.crashes(effort, &mut crashes),
        )?;
        run(
            "a crash while a snapshot is restored leaves the old state or the new one",
            self.crashes_in_restore(effort, &mut crashes),
        )?;
        report.crashes = crashes;
        Ok(report)
    }

    fn open_on(&self, disk: &Arc<dyn Disk>) -> Result<S, String> {
        let mut machine = must("open the machine", (self.open)(disk.clone()))?;
        self.tell_level(&mut machine);
        Ok(machine)
    }

    /// What the node does at the start and after a restore.
    fn tell_level(&self, machine: &mut S) {
        let applied = machine.applied().index.0 as usize;
        let last = applied.checked_sub(1).and_then(|n| self.log.get(n));
        machine.level(last.map_or(FOUNDED_AT, |entry| entry.level));
    }

    fn restore(&self, machine: &mut S, at: LogId, snapshot: &[u8]) -> Outcome {
        must("restore a snapshot", machine.restore(at, &mut &snapshot[..]))?;
        self.tell_level(machine);
        Ok(())
    }

    fn fresh(&self) -> Result<S, String> {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        self.open_on(&disk)
    }

    /// The answers to the whole log and the state after it, from a machine that does nothing else.
    fn reference(&self) -> Result<(Vec<String>, Vec<u8>), String> {
        let mut life = Life::new(self.fresh()?, Pace::Never);
        life.apply(&self.log)?;
        Ok((life.answers, (self.digest)(&life.machine)))
    }

    fn deterministic(&self) -> Outcome {
        let (answers, state) = self.reference()?;
        for seed in 0..6 {
            let mut life = Life::new(self.fresh()?, Pace::Random(Random::new(seed)));
            life.apply(&self.log)?;
            self.compare_answers(&life.answers, &answers)?;
            ensure!(
                (self.digest)(&life.machine) == state,
                "the states of two machines that were given the same log differ"
            );
        }
        Ok(())
    }

    fn compare_answers(&self, found: &[String], expected: &[String]) -> Outcome {
        for (entry, (found, expected)) in self.log.iter().zip(found.iter().zip(expected)) {
            ensure!(
                found == expected,
                "entry {} was answered {found} by one machine and {expected} by another",
                entry.at
            );
        }
        Ok(())
    }

    /// What a machine that was just opened says of itself, judged by what it had promised.
    fn check_opened(&self, machine: &S, promised: Index) -> Outcome {
        let (applied, durable) = (machine.applied(), machine.durable());
        ensure!(
            durable >= promised,
            "entries up to {promised} were called durable, and {durable} is left"
        );
        ensure!(
            applied.index == durable,
            "just opened, it has applied up to {applied}, but calls {durable} durable"
        );
        let known = self.log.iter().any(|entry| entry.at == applied);
        ensure!(
            known || applied == LogId::ZERO,
            "just opened, it has applied up to {applied}, which was never in the log"
        );
        Ok(())
    }

    /// Gives a machine that was just opened what it has not applied, and compares all that comes of it.
    fn replay(&self, machine: S, reference: &(Vec<String>, Vec<u8>)) -> Outcome {
        let from = machine.applied().index.0 as usize;
        let mut life = Life::new(machine, Pace::Eager);
        life.apply(&self.log[from..])?;
        for (n, answer) in life.answers.iter().enumerate() {
            ensure!(
                *answer == reference.0[from + n],
                "entry {} is answered {answer} when it is applied again after a restart, and was answered {}",
                self.log[from + n].at,
                reference.0[from + n]
            );
        }
        ensure!(
            (self.digest)(&life.machine) == reference.1,
            "with the log applied again from {from} on, the state differs from that of a machine that never stopped"
        );
        Ok(())
    }

    fn restarts(&self) -> Outcome {
        let reference = self.reference()?;
        for stop in (0..=self.log.len()).step_by(1 + self.log.len() / 12) {
            let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
            let mut life = Life::new(self.open_on(&disk)?, Pace::Random(Random::new(stop as u64)));
            life.apply(&self.log[..stop])?;
            life.finish()?;
            let promised = life.machine.durable();
            drop(life);
            let machine = self.open_on(&disk)?;
            self.check_opened(&machine, promised)?;
            self.replay(machine, &reference)?;
        }
        Ok(())
    }

    /// How many changing operations a whole life makes.
    fn operations(&self) -> Result<u64, String> {
        let disk = CrashDisk::over(Arc::new(MemDisk::new()), 0);
        let mut life = Life::new(self.open_on(&must("mount", disk.mount())?)?, Pace::Eager);
        life.apply(&self.log)?;
        life.finish()?;
        Ok(disk.operations())
    }

    fn crashes(&self, effort: Effort, crashes: &mut u64) -> Outcome {
        let reference = self.reference()?;
        for moment in effort.moments_of(self.operations()?) {
            for seed in 0..effort.outcomes {
                *crashes += 1;
                let disk = CrashDisk::over(Arc::new(MemDisk::new()), seed);
                disk.cut_power_after(moment);
                let promised = self.life_with_crash(&disk, seed)?;
                must("cut the power", disk.power_off())?;
                let when = |what| format!("power failed in operation {moment}, outcome {seed}: {what}");
                let raw = must("mount", disk.mount())?;
                let machine = self.open_on(&raw).map_err(when)?;
                self.check_opened(&machine, promised).map_err(when)?;
                self.replay(machine, &reference).map_err(when)?;
            }
        }
        Ok(())
    }

    /// Lives until the power fails; answers what had been promised as durable.
    fn life_with_crash(&self, disk: &CrashDisk, seed: u64) -> Result<Index, String> {
        let raw = must("mount", disk.mount())?;
        let Some(Ok(machine)) = life::survive(|| self.open_on(&raw)) else {
            return Ok(Index::ZERO);
        };
        let pace = match seed % 2 {
            0 => Pace::Eager,
            _ => Pace::Random(Random::new(seed)),
        };
        let mut life = Life::new(machine, pace);
        // With the power the process ends, in whatever way the machine lets it.
        let ended = life::survive(|| life.apply(&self.log).and_then(|()| life.finish()));
        let promised = life.promised;
        let _ = life::survive(|| drop(life));
        match ended {
            Some(Err(what)) if !disk.is_off() => Err(what),
            _ => Ok(promised),
        }
    }
}

/// Whether a machine says that it has no snapshots. One that is never durable needs none.
fn has_no_snapshots(opened: &io::Result<Box<dyn SnapshotReader>>) -> bool {
    matches!(opened, Err(error) if error.kind() == io::ErrorKind::Unsupported)
}
