//! Snapshots: taken at one moment and read at later ones, restored into machines fresh and used, with and without a crash.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, LogId, SnapshotReader, StateMachine};

use super::life::{Life, Pace, survive};
use super::{Checks, has_no_snapshots};
use crate::{CrashDisk, Effort, MemDisk, Outcome, Random, ensure, must};

/// Reads a snapshot to its end, in pieces of at most `max` bytes.
pub(super) fn read(reader: &mut dyn SnapshotReader, max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let piece: Bytes = must("read a snapshot", reader.read_chunk(max))?;
        ensure!(
            piece.len() <= max,
            "{max} bytes of a snapshot were asked for, and {} came",
            piece.len()
        );
        if piece.is_empty() {
            let after = must("read a snapshot beyond its end", reader.read_chunk(max))?;
            ensure!(after.is_empty(), "a snapshot goes on after its end");
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}

/// A snapshot, and what is known of it.
struct Taken {
    at: LogId,
    bytes: Vec<u8>,
    /// The state's digest when it was taken.
    state: Vec<u8>,
}

impl<S> Checks<S>
where
    S: StateMachine<Output: Debug>,
{
    /// Where snapshots are taken: after so many entries.
    fn points(&self) -> Vec<usize> {
        let all = self.log.len();
        vec![all / 4, all / 2, all]
    }

    /// A snapshot after so many entries, read while the machine goes on.
    fn take(&self, point: usize, max: usize) -> Result<Option<Taken>, String> {
        let mut life = Life::new(self.fresh()?, Pace::Random(Random::new(point as u64)));
        life.apply(&self.log[..point])?;
        let opened = life.machine.snapshot();
        if has_no_snapshots(&opened) {
            let durable = life.machine.durable();
            ensure!(
                durable.0 == 0,
                "it has no snapshots, yet calls {durable} durable: the log before that goes, and a member that needs it gets nothing"
            );
            return Ok(None);
        }
        let mut reader = must("take a snapshot", opened)?;
        let (at, state) = (life.machine.applied(), (self.digest)(&life.machine));
        life.apply(&self.log[point..])?;
        life.finish()?;
        let bytes = read(&mut *reader, max)?;
        Ok(Some(Taken { at, bytes, state }))
    }

    pub(super) fn isolated_snapshots(&self) -> Outcome {
        for point in self.points() {
            let (Some(whole), Some(pieces)) = (self.take(point, 1 << 20)?, self.take(point, 7)?) else {
                return Ok(());
            };
            let machine = self.restored(&whole)?;
            ensure!(
                (self.digest)(&machine) == whole.state,
                "read while the machine went on, the snapshot as of {} is not the state as of then",
                whole.at
            );
            let machine = self.restored(&pieces)?;
            ensure!(
                (self.digest)(&machine) == whole.state,
                "read in small pieces, a snapshot is another one"
            );
        }
        Ok(())
    }

    fn restored(&self, taken: &Taken) -> Result<S, String> {
        let mut machine = self.fresh()?;
        self.restore(&mut machine, taken.at, &taken.bytes)?;
        Ok(machine)
    }

    /// A machine on `disk` that has restored: it is the snapshot, durably, and goes on from there.
    fn check_restored(&self, machine: S, disk: &Arc<dyn Disk>, taken: &Taken) -> Outcome {
        ensure!(
            machine.applied() == taken.at,
            "restored as of {}, it has applied up to {}",
            taken.at,
            machine.applied()
        );
        ensure!(
            machine.durable() == taken.at.index,
            "restored as of {}, only {} is durable",
            taken.at,
            machine.durable()
        );
        ensure!(
            (self.digest)(&machine) == taken.state,
            "the restored state is not the one that the snapshot was taken of"
        );
        drop(machine);
        let machine = self.open_on(disk)?;
        ensure!(
            machine.applied() == taken.at && (self.digest)(&machine) == taken.state,
            "opened again after a restore as of {}, it is something else, as of {}",
            taken.at,
            machine.applied()
        );
        self.replay(machine, &self.reference()?)
    }

    pub(super) fn restores(&self) -> Outcome {
        for point in self.points() {
            let Some(taken) = self.take(point, 1000)? else {
                return Ok(());
            };
            // Into machines that have nothing yet, something, and something durable.
            for before in [0, point / 2, point.saturating_sub(1)] {
                for pace in [Pace::Never, Pace::Eager] {
                    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
                    let mut life = Life::new(self.open_on(&disk)?, pace);
                    life.apply(&self.log[..before])?;
                    let mut machine = life.machine;
                    // Twice, as after a crash that came between the restore and its being noted.
                    for _ in 0..2 {
                        self.restore(&mut machine, taken.at, &taken.bytes)?;
                    }
                    self.check_restored(machine, &disk, &taken)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn crashes_in_restore(&self, effort: Effort, crashes: &mut u64) -> Outcome {
        let (point, before) = (self.log.len() / 2, self.log.len() / 4);
        let Some(taken) = self.take(point, 1000)? else {
            return Ok(());
        };
        let prepare = |seed| {
            let disk = CrashDisk::over(Arc::new(MemDisk::new()), seed);
            let mut life = Life::new(self.open_on(&must("mount", disk.mount())?)?, Pace::Eager);
            life.apply(&self.log[..before])?;
            Ok::<_, String>((disk, life))
        };
        let (whole, mut life) = prepare(0)?;
        let operations = whole.operations();
        self.restore(&mut life.machine, taken.at, &taken.bytes)?;
        for moment in effort.moments_of(whole.operations() - operations) {
            for seed in 0..effort.outcomes {
                *crashes += 1;
                let (disk, mut life) = prepare(seed)?;
                let promised = life.promised;
                disk.cut_power_after(moment);
                let _ = survive(|| life.machine.restore(taken.at, &mut &taken.bytes[..]));
                let _ = survive(|| drop(life));
                must("cut the power", disk.power_off())?;
                let when = |what| format!("power failed in operation {moment}, outcome {seed}: {what}");
                let raw = must("mount", disk.mount())?;
                let machine = self.open_on(&raw).map_err(when)?;
                self.check_opened(&machine, promised).map_err(when)?;
                drop(machine);
                // What the node does then: it restores again.
                let mut machine = self.open_on(&raw).map_err(when)?;
                self.restore(&mut machine, taken.at, &taken.bytes).map_err(when)?;
                self.check_restored(machine, &raw, &taken).map_err(when)?;
            }
        }
        Ok(())
    }
}
