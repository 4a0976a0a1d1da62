//! What the system knows of a running server: CPU, memory, wake-ups; and what a directory takes on disk and its device has written. All from `/proc` and
//! the file system, so it is the same for every program, whatever it is written in. Nothing is computed per operation here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Sub;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// How far the two clocks of a process may lie apart before the coarser one is believed: it counts in ticks of 10 ms, and rounds user and
/// system time apart.
const TICKS_APART_NS: u64 = 30_000_000;

/// What a process has used since its start.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// CPU in nanoseconds of each thread that lives: exact.
    threads: BTreeMap<u32, u64>,
    /// CPU in nanoseconds of all threads, those that ended too: in ticks.
    ticks_ns: u64,
    /// Times that threads went to sleep by themselves: each is a wake-up somewhere.
    sleeps: u64,
    /// Calls of `read` and `write` and their like.
    calls: u64,
}

/// What was used between two moments, of one process or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// CPU, user and system, in microseconds.
    pub cpu_us: f64,
    /// Times that threads went to sleep.
    pub sleeps: f64,
    /// Reading and writing system calls on files (sockets' `send` and `recv` do not count here).
    pub calls: f64,
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Spent>>(all: I) -> Spent {
        all.fold(Spent::default(), |a, b| Spent {
            cpu_us: a.cpu_us + b.cpu_us,
            sleeps: a.sleeps + b.sleeps,
            calls: a.calls + b.calls,
        })
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, b: Spent) -> Spent {
        Spent {
            cpu_us: self.cpu_us - b.cpu_us,
            sleeps: self.sleeps - b.sleeps,
            calls: self.calls - b.calls,
        }
    }
}

impl Usage {
    /// Of the process with this id, now.
    pub fn of(id: u32) -> Result<Usage> {
        let mut usage = Usage::default();
        let tasks = format!("/proc/{id}/task");
        for entry in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let path = entry?.path();
            let Some(thread) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            // A thread may end between the listing and the reading; the ticks have its share.
            let (Ok(schedstat), Ok(status)) = (
                fs::read_to_string(path.join("schedstat")),
                fs::read_to_string(path.join("status")),
            ) else {
                continue;
            };
            usage.threads.insert(thread, first_number(&schedstat)?);
            usage.sleeps += field(&status, "voluntary_ctxt_switches:")?;
        }
        let stat = read(format!("/proc/{id}/stat"))?;
        usage.ticks_ns = ticks(&stat)? * (1_000_000_000 / rustix::param::clock_ticks_per_second());
        let io = read(format!("/proc/{id}/io"))?;
        usage.calls = field(&io, "syscr:")? + field(&io, "syscw:")?;
        Ok(usage)
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Usage) -> Spent {
        let threads: u64 = self
            .threads
            .iter()
            .map(|(thread, ns)| ns.saturating_sub(before.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let ticks = self.ticks_ns.saturating_sub(before.ticks_ns);
        // Threads that ended meanwhile took their exact figure with them.
        let ns = if ticks > threads + TICKS_APART_NS {
            ticks
        } else {
            threads
        };
        let spent = |now: u64, then: u64| now.saturating_sub(then) as f64;
        Spent {
            cpu_us: ns as f64 / 1000.0,
            sleeps: spent(self.sleeps, before.sleeps),
            calls: spent(self.calls, before.calls),
        }
    }
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// All of it.
    pub resident: f64,
    /// The program's own: heap and stacks. It cannot be dropped, as pages of a file can.
    pub anonymous: f64,
    /// Pages of mapped files: the program's code, and a database that is mapped. The system takes them back when it needs room.
    pub file: f64,
}

impl Memory {
    /// Of the process with this id, now.
    pub fn of(id: u32) -> Result<Memory> {
        Memory::parse(&read(format!("/proc/{id}/smaps_rollup"))?)
    }

    fn parse(text: &str) -> Result<Memory> {
        let bytes = |name| Ok::<f64, anyhow::Error>(field(text, name)? as f64 * 1024.0);
        let (resident, anonymous) = (bytes("Rss:")?, bytes("Anonymous:")?);
        Ok(Memory {
            resident,
            anonymous,
            file: resident - anonymous,
        })
    }
}

/// Bytes of the blocks that all files under `dir` take: what is missing on the disk, whatever the lengths of the files say.
pub fn blocks(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // A running server removes files as it goes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += blocks(&entry.path())?;
        }
    }
    Ok(sum)
}

/// Bytes that the device under `dir` has written, whoever asked for it; none where there is no device that counts. What `/proc/PID/io` calls
/// `write_bytes` is of no use: it counts whole folios of the page cache, up to a megabyte for one record.
pub fn device_written(dir: &Path) -> Result<Option<u64>> {
    let device = fs::metadata(dir)
        .with_context(|| dir.display().to_string())?
        .dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    match fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) {
        Ok(stat) => sectors_written(&stat).map(|sectors| Some(sectors * 512)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("the device's counters"),
    }
}

/// The seventh number, whatever the size of the device's sectors in units of 512 bytes.
fn sectors_written(stat: &str) -> Result<u64> {
    first_number(stat.split_whitespace().nth(6).unwrap_or_default())
}

fn read(path: String) -> Result<String> {
    fs::read_to_string(&path).context(path)
}

fn first_number(text: &str) -> Result<u64> {
    let first = text.split_whitespace().next().context("an empty file")?;
    first.parse().with_context(|| format!("{first:?} is no number"))
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    first_number(line.ok_or_else(|| anyhow!("no field {name}"))?).with_context(|| name.to_owned())
}

/// utime + stime of `/proc/PID/stat`. The program's name stands in parentheses and may hold anything, parentheses too.
fn ticks(stat: &str) -> Result<u64> {
    let (_, rest) = stat.rsplit_once(')').context("stat has no name")?;
    let number = |k: usize| first_number(rest.split_whitespace().nth(k).unwrap_or_default());
    Ok(number(11)? + number(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat).expect("well formed"), 168);
        assert!(ticks("42 no name").is_err());
    }

    #[test]
    fn memory_is_split() {
        let text = "00400000-7fff000 ---p 00000000 00:00 0 [rollup]\nRss:    3000 kB\nPss:  10 kB\nAnonymous:   1000 kB\n";
        let memory = Memory::parse(text).expect("well formed");
        assert_eq!(memory.resident, 3000.0 * 1024.0);
        assert_eq!(memory.anonymous, 1000.0 * 1024.0);
        assert_eq!(memory.file, 2000.0 * 1024.0);
        assert!(Memory::parse("Rss: 1 kB\n").is_err());
    }

    #[test]
    fn the_device_says_what_it_wrote() {
        let stat = " 3269958    97658 99202762  5392300  6806090   608809 1360094336  5394808        5   806908 11441374\n";
        assert_eq!(sectors_written(stat).expect("well formed"), 1_360_094_336);
        assert!(sectors_written("1 2 3").is_err());
        device_written(&std::env::temp_dir()).expect("a number or none");
    }

    fn usage(threads: &[(u32, u64)], ticks_ns: u64) -> Usage {
        Usage {
            threads: threads.iter().copied().collect(),
            ticks_ns,
            ..Usage::default()
        }
    }

    #[test]
    fn threads_count_from_their_own_start() {
        let before = usage(&[(1, 5_000), (2, 7_000)], 0);
        let after = usage(&[(1, 6_000), (2, 7_000), (3, 2_000)], 10_000_000);
        assert_eq!(after.since(&before).cpu_us, 3.0);
    }

    #[test]
    fn ticks_count_where_threads_ended() {
        let before = usage(&[(1, 5_000), (2, 7_000)], 0);
        let after = usage(&[(1, 6_000)], 100_000_000);
        assert_eq!(after.since(&before).cpu_us, 100_000.0);
    }

    #[test]
    fn this_process_can_be_read() {
        let id = std::process::id();
        let before = Usage::of(id).expect("its own usage");
        let mut x = 1_u64;
        while Usage::of(id).expect("its own usage").since(&before).cpu_us < 1000.0 {
            x = x.wrapping_mul(6_364_136_223_846_793_005);
        }
        assert_ne!(x, 0);
        assert!(Memory::of(id).expect("its own memory").anonymous > 0.0);
    }
}
