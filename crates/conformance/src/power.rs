//! What must hold when power fails: what was synced is there, names are as of the last `sync_dir` or later, and a write under way tears at
//! sectors of 512 bytes at the most. The log and everything else that Quorate keeps on a disk depend on exactly this.

use std::io;
use std::sync::Arc;

use quorate_base::{Disk, DiskFile};

use crate::crash::SECTOR;
use crate::{Effort, Failure, Medium, Outcome, Random, Report, ensure, must};

/// A short life on a disk. It keeps in `Known` what has been promised so far, breaks off with the first error, and what a power failure left is
/// judged by that.
struct Scenario {
    check: &'static str,
    live: fn(&dyn Disk, &mut Known) -> io::Result<()>,
    judge: fn(&dyn Disk, &Known) -> Outcome,
}

/// What has been promised.
#[derive(Clone, Debug, Default)]
struct Known {
    /// How many steps were completed.
    steps: u64,
    /// Whether a further one was begun.
    begun: u64,
}

impl Known {
    /// One step, which counts as completed only if it succeeds.
    fn step(&mut self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.begun = self.steps + 1;
        act()?;
        self.steps += 1;
        Ok(())
    }
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        check: "what was written and synced, under a name that was synced, survives a power failure",
        live: append_and_sync,
        judge: judge_appends,
    },
    Scenario {
        check: "a power failure leaves each sector of a write under way old or new, and all others alone",
        live: overwrite,
        judge: judge_overwrites,
    },
    Scenario {
        check: "a file replaced by a rename is the old one or the new one as a whole",
        live: replace,
        judge: judge_replacements,
    },
    Scenario {
        check: "names made, moved and removed before a sync of the directory stay so",
        live: rename_and_remove,
        judge: judge_names,
    },
    Scenario {
        check: "a file that was made longer with set_len and synced is zeros up to its length",
        live: lengthen,
        judge: judge_lengths,
    },
];

/// Lets power fail inside the operations of several short lives, and looks at what is left. `fresh` gives an empty medium for a seed, which decides
/// what survives.
///
/// # Errors
/// The first check that fails.
pub fn survival<M: Medium>(mut fresh: impl FnMut(u64) -> M, effort: Effort) -> Result<Report, Failure> {
    let mut report = Report::default();
    for scenario in SCENARIOS {
        let check = scenario.check;
        scenario
            .run(&mut fresh, effort, &mut report)
            .map_err(|what| Failure { check, what })?;
        report.checks += 1;
    }
    Ok(report)
}

impl Scenario {
    fn run<M: Medium>(
        &self,
        fresh: &mut impl FnMut(u64) -> M,
        effort: Effort,
        report: &mut Report,
    ) -> Outcome {
        let mut whole = fresh(0);
        let before = whole.operations();
        let mut known = Known::default();
        let disk = must("bring up the disk", whole.mount())?;
        must(
            "live through it without a power failure",
            (self.live)(&*disk, &mut known),
        )?;
        (self.judge)(&*disk, &known).map_err(|what| format!("without a power failure: {what}"))?;
        let operations = whole.operations() - before;
        for moment in effort.moments_of(operations) {
            for seed in 0..effort.outcomes {
                let when = |what| format!("power failed in operation {moment}, outcome {seed}: {what}");
                self.fail_at(fresh(seed), moment).map_err(when)?;
                report.crashes += 1;
            }
        }
        Ok(())
    }

    fn fail_at(&self, mut medium: impl Medium, moment: u64) -> Outcome {
        let mut known = Known::default();
        let disk = must("bring up the disk", medium.mount())?;
        medium.cut_power_after(moment);
        // Bringing up may have used some of the moments: then the life ends well, and power fails after it.
        let _ = (self.live)(&*disk, &mut known);
        drop(disk);
        must("cut the power", medium.power_off())?;
        for time in ["", ", the second time"] {
            let disk = must("bring up the disk after a power failure", medium.mount())?;
            (self.judge)(&*disk, &known).map_err(|what| format!("{what}{time}"))?;
            drop(disk);
            // What was found is durable: another failure takes nothing of it.
            must("cut the power", medium.power_off())?;
        }
        Ok(())
    }
}

fn content(disk: &dyn Disk, name: &str) -> Result<Option<Vec<u8>>, String> {
    let file = match disk.open(name, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => must("open a file", opened)?,
    };
    let mut bytes = vec![0; must("ask for the length", file.len())? as usize];
    must("read", file.read_at(0, &mut bytes))?;
    Ok(Some(bytes))
}

/// The bytes of step `n`, recognisable and different from all others.
fn piece(n: u64, len: usize) -> Vec<u8> {
    Random::new(0x9111 + n).bytes(len)
}

const APPENDS: u64 = 8;
const APPEND_BYTES: usize = 900;

fn append_and_sync(disk: &dyn Disk, known: &mut Known) -> io::Result<()> {
    let file = disk.open("log", true)?;
    disk.sync_dir()?;
    for n in 0..APPENDS {
        known.step(|| {
            file.write_at(n * APPEND_BYTES as u64, &piece(n, APPEND_BYTES))?;
            file.sync()
        })?;
    }
    Ok(())
}

fn judge_appends(disk: &dyn Disk, known: &Known) -> Outcome {
    let found = content(disk, "log")?;
    ensure!(
        found.is_some() || known.steps == 0,
        "the file is gone, although its name was synced"
    );
    let found = found.unwrap_or_default();
    for n in 0..known.steps {
        let at = n as usize * APPEND_BYTES..(n as usize + 1) * APPEND_BYTES;
        ensure!(
            found.get(at.clone()) == Some(&piece(n, APPEND_BYTES)[..]),
            "bytes {at:?} were synced, and are something else"
        );
    }
    Ok(())
}

const SECTORS: u64 = 24;

fn overwrite(disk: &dyn Disk, known: &mut Known) -> io::Result<()> {
    let file = disk.open("sectors", true)?;
    file.set_len(SECTORS * SECTOR)?;
    file.sync()?;
    disk.sync_dir()?;
    known.step(|| Ok(()))?;
    let mut random = Random::new(4);
    for n in 1..10 {
        known.step(|| {
            let (first, count) = region(&mut random);
            let data = piece(n, (count * SECTOR) as usize);
            let (one, other) = data.split_at(data.len() / 3);
            let parts = [io::IoSlice::new(one), io::IoSlice::new(other)];
            file.write_vectored_at(first * SECTOR, &parts)?;
            file.sync()
        })?;
    }
    Ok(())
}

/// Which sectors a step overwrites: the first, and how many.
fn region(random: &mut Random) -> (u64, u64) {
    let first = random.below(SECTORS - 6);
    (first, 1 + random.below(6))
}

fn judge_overwrites(disk: &dyn Disk, known: &Known) -> Outcome {
    let Some(found) = content(disk, "sectors")? else {
        ensure!(known.steps == 0, "the file is gone, although its name was synced");
        return Ok(());
    };
    if known.steps == 0 {
        return Ok(());
    }
    let len = (SECTORS * SECTOR) as usize;
    ensure!(
        found.len() == len,
        "it was synced with {len} bytes and has {}",
        found.len()
    );
    let mut old = vec![0; len];
    let mut random = Random::new(4);
    let mut put = |n: u64, into: &mut [u8]| {
        let (first, count) = region(&mut random);
        let data = piece(n, (count * SECTOR) as usize);
        into[(first * SECTOR) as usize..][..data.len()].copy_from_slice(&data);
    };
    (1..known.steps).for_each(|n| put(n, &mut old));
    let mut new = old.clone();
    if known.begun > known.steps {
        put(known.steps, &mut new);
    }
    let size = SECTOR as usize;
    for (number, sector) in found.chunks(size).enumerate() {
        let at = number * size..(number + 1) * size;
        ensure!(
            sector == &old[at.clone()] || sector == &new[at],
            "sector {number} is neither what it was nor what it was to become"
        );
    }
    Ok(())
}

const VERSIONS: u64 = 6;

fn version(n: u64) -> Vec<u8> {
    piece(100 + n, 300 + 700 * n as usize)
}

fn replace(disk: &dyn Disk, known: &mut Known) -> io::Result<()> {
    for n in 0..VERSIONS {
        known.step(|| {
            let file = disk.open("state.new", true)?;
            file.set_len(0)?;
            file.write_at(0, &version(n))?;
            file.sync()?;
            disk.rename("state.new", "state")?;
            disk.sync_dir()
        })?;
    }
    Ok(())
}

fn judge_replacements(disk: &dyn Disk, known: &Known) -> Outcome {
    let found = content(disk, "state")?;
    let mut possible: Vec<Option<Vec<u8>>> = vec![known.steps.checked_sub(1).map(version)];
    if known.begun > known.steps {
        possible.push(Some(version(known.steps)));
    }
    ensure!(
        possible.contains(&found),
        "after {} replacements it has {:?} bytes that are neither the old content nor the new one",
        known.steps,
        found.map(|bytes| bytes.len())
    );
    Ok(())
}

fn rename_and_remove(disk: &dyn Disk, known: &mut Known) -> io::Result<()> {
    known.step(|| {
        for name in ["a", "b", "c"] {
            let file: Arc<dyn DiskFile> = disk.open(name, true)?;
            file.write_at(0, name.as_bytes())?;
            file.sync()?;
        }
        disk.sync_dir()
    })?;
    known.step(|| {
        disk.rename("a", "d")?;
        disk.remove("b")?;
        disk.sync_dir()
    })?;
    known.step(|| {
        disk.rename("c", "d")?;
        disk.sync_dir()
    })
}

fn judge_names(disk: &dyn Disk, known: &Known) -> Outcome {
    // Every name that may be there, what it may hold, and the steps that make it and take it away.
    let rules: [(&str, &[&str], u64, u64); 4] = [
        ("a", &["a"], 1, 2),
        ("b", &["b"], 1, 2),
        ("c", &["c"], 1, 3),
        ("d", &["a", "c"], 2, u64::MAX),
    ];
    for (name, contents, made, gone) in rules {
        let found = content(disk, name)?;
        if let Some(must_be_there) = sure(known, made, gone) {
            ensure!(
                found.is_some() == must_be_there,
                "`{name}` is {}, although the directory was synced",
                if must_be_there { "gone" } else { "there again" }
            );
        }
        // Not synced, a new file's content may be anything.
        if let Some(found) = found.filter(|_| known.steps >= 1) {
            ensure!(
                contents.iter().any(|one| one.as_bytes() == found),
                "`{name}` has another file's content: {found:?}"
            );
        }
    }
    let last = content(disk, "d")?;
    ensure!(
        known.steps < 3 || last.as_deref() == Some(b"c"),
        "`d` is not what was moved there last"
    );
    Ok(())
}

/// Whether a name made in step `made` and gone with step `gone` must be there; `None` while either is under way.
fn sure(known: &Known, made: u64, gone: u64) -> Option<bool> {
    if known.steps >= gone {
        Some(false)
    } else if known.begun >= gone {
        None
    } else if known.steps >= made {
        Some(true)
    } else {
        (known.begun < made).then_some(false)
    }
}

fn lengthen(disk: &dyn Disk, known: &mut Known) -> io::Result<()> {
    let file = disk.open("zeros", true)?;
    disk.sync_dir()?;
    for n in 1..=4 {
        known.step(|| {
            file.set_len(n * 1500)?;
            file.sync()
        })?;
    }
    Ok(())
}

fn judge_lengths(disk: &dyn Disk, known: &Known) -> Outcome {
    let found = content(disk, "zeros")?.unwrap_or_default();
    let len = found.len() as u64;
    ensure!(
        len >= known.steps * 1500,
        "{} bytes were synced, {len} are left",
        known.steps * 1500
    );
    ensure!(
        len <= known.begun * 1500,
        "{len} bytes, more than there ever were"
    );
    ensure!(
        found.iter().all(|byte| *byte == 0),
        "there is something that was never written"
    );
    Ok(())
}
