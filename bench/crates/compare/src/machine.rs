//! The machine that figures were taken on, so that nobody compares figures of two. The disk is measured by what a log needs of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::stats::Spread;

/// Writes that are timed, after as many that are not.
const SYNCS: u64 = 200;
/// Bytes of each.
const BLOCK: usize = 4096;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor, as it calls itself.
    pub cpu: String,
    /// How many of its cores there are.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Median time of `fdatasync` after writing 4 KiB in the directory of the data, in ms.
    pub fdatasync_ms: f64,
}

impl Machine {
    /// This one, with its disk measured in `dir`.
    pub fn here(dir: &Path) -> Result<Machine> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
        Ok(Machine {
            kernel: kernel.trim().to_owned(),
            cpu: value(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory: kilobytes(value(&meminfo, "MemTotal").unwrap_or_default()) * 1024,
            fdatasync_ms: fdatasync(dir).with_context(|| dir.display().to_string())?,
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{} cores of {}, {} GiB, Linux {}, fdatasync of 4 KiB {:.2} ms",
            self.cores,
            self.cpu,
            self.memory >> 30,
            self.kernel,
            self.fdatasync_ms
        )
    }
}

/// Today in UTC, `2026-01-31`.
pub fn today() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%F"])
        .output()
        .context("date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// In place, in a file whose blocks are there: what the log of either system does.
fn fdatasync(dir: &Path) -> io::Result<f64> {
    let path = dir.join(format!("fdatasync-{}", std::process::id()));
    let file = File::create(&path)?;
    let times = timed(&file);
    fs::remove_file(&path)?;
    let spread = Spread::of(times?).ok_or_else(|| io::Error::other("nothing was timed"))?;
    Ok(spread.median)
}

fn timed(file: &File) -> io::Result<Vec<f64>> {
    let mut times = Vec::new();
    for pass in 0..2 {
        for k in 0..SYNCS {
            file.write_all_at(&[pass + 1; BLOCK], k * BLOCK as u64)?;
            let begun = Instant::now();
            file.sync_data()?;
            if pass == 1 {
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    Ok(times)
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

fn kilobytes(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let text = "processor\t: 0\nmodel name\t: A Processor: 3 GHz\nMemTotal:       1024 kB\n";
        assert_eq!(value(text, "model name"), Some("A Processor: 3 GHz"));
        assert_eq!(value(text, "MemTotal").map(kilobytes), Some(1024));
        assert_eq!(value(text, "model"), None);
    }

    #[test]
    fn this_machine() {
        let machine = Machine::here(&std::env::temp_dir()).expect("a machine");
        assert!(machine.cores > 0 && machine.memory > 0 && machine.fdatasync_ms > 0.0);
        assert_eq!(today().expect("a day").len(), "2026-01-31".len());
    }
}
