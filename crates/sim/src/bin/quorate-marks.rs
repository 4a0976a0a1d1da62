//! `quorate-marks`: which coverage marks of `raft`, `wal` and `node` the simulator and the tests reach, and how often. A mark that
//! neither reaches is a branch of which nobody knows whether it is right: that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_marks::sources::{self, Place};
use quorate_sim::params::Params;

const HELP: &str = "\
Counts how often the coverage marks in the sources of raft, wal and node are reached.

usage: quorate-marks [--seeds N] [--seed S] [--threads T] [--tests FILE] [--root DIR]

  --seeds N     simulate N seeds (default 100)
  --seed S      begin with seed S (default 0)
  --threads T   on T threads (default: all cores)
  --tests FILE  count what tests have reached, too: what QUORATE_MARKS=FILE cargo test --workspace wrote
  --root DIR    the workspace whose sources are looked at (default: that this program was built in)

exit code: 0 every mark was reached, 1 some were not, 2 wrong usage or a seed that failed
";

struct Options {
    first: u64,
    seeds: u64,
    threads: usize,
    tests: Option<PathBuf>,
    root: PathBuf,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut options = Options {
        first: 0,
        seeds: 100,
        threads: cores,
        tests: None,
        root: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
    };
    while let Some(arg) = args.next() {
        if matches!(arg.as_str(), "--help" | "-h") {
            return Ok(None);
        }
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = || -> Result<u64, String> {
            value
                .parse()
                .map_err(|_| format!("{arg} needs a number, not {value:?}"))
        };
        match arg.as_str() {
            "--seeds" => options.seeds = number()?,
            "--seed" => options.first = number()?,
            "--threads" => options.threads = number()?.max(1) as usize,
            "--tests" => options.tests = Some(value.into()),
            "--root" => options.root = value.into(),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(Some(options))
}

/// What is known of one mark.
#[derive(Clone, Default)]
struct Reached {
    seeds: u64,
    hits: u64,
    tests: BTreeSet<String>,
}

type Table = BTreeMap<String, Reached>;

/// Runs the seeds. Each runs on one thread from beginning to end, so what that thread has reached is what the seed has.
fn simulate(options: &Options, table: &mut Table) -> Result<(), String> {
    let next = AtomicU64::new(options.first);
    let end = options.first.saturating_add(options.seeds);
    let (table, failed) = (Mutex::new(table), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let result = quorate_sim::run(Params::draw(seed), false);
                    let reached = quorate_marks::take();
                    if let Err((failure, _)) = result {
                        let mut failed = failed.lock().expect("nobody panics while holding it");
                        failed.push(format!("seed {seed}: {failure}"));
                    }
                    let mut table = table.lock().expect("nobody panics while holding it");
                    for (name, hits) in reached {
                        let entry = table.entry(name.to_owned()).or_default();
                        entry.seeds += 1;
                        entry.hits += hits;
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("all threads have ended") {
        failed if failed.is_empty() => Ok(()),
        failed => Err(failed.join("\n")),
    }
}

/// Adds what tests have reached, from lines of package, thread, mark and count.
fn add_tests(file: &Path, table: &mut Table) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    for line in text.lines() {
        let [package, test, mark, _] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("{}: not a line of marks: {line:?}", file.display()));
        };
        let entry = table.entry(mark.to_owned()).or_default();
        entry.tests.insert(format!("{package} {test}"));
    }
    Ok(())
}

/// Prints a line for each mark, and then those that nothing reached, whose number it returns.
fn report(places: &[Place], table: &Table, with_tests: bool) -> usize {
    println!("{:>9} {:>12} {:>6}  mark", "seeds", "hits", "tests");
    let mut never = Vec::new();
    for place in places {
        let reached = table.get(&place.name).cloned().unwrap_or_default();
        let Reached { seeds, hits, tests } = &reached;
        // Of the tests the nearest one: its own crate's, if there is one.
        let krate = place.name.split('.').next().unwrap_or_default();
        let own = |test: &&String| test.starts_with(&format!("quorate-{krate} "));
        let test = tests.iter().find(own).or(tests.first());
        let test = test.map_or(String::new(), |test| format!("  ({test})"));
        println!("{seeds:>9} {hits:>12} {:>6}  {}{test}", tests.len(), place.name);
        if *seeds == 0 && tests.is_empty() {
            never.push(place);
        }
    }
    let sum = |count: fn(&Reached) -> bool| {
        let known = places.iter().filter_map(|place| table.get(&place.name));
        known.filter(|reached| count(reached)).count()
    };
    println!(
        "{} marks, {} reached by the simulator",
        places.len(),
        sum(|r| r.seeds > 0)
    );
    if with_tests {
        println!("{} reached by tests", sum(|r| !r.tests.is_empty()));
    }
    println!("{} never reached", never.len());
    for Place { name, file, line } in &never {
        println!("  {name}  {file}:{line}");
    }
    never.len()
}

fn carry_out(options: &Options) -> Result<usize, String> {
    let root = options.root.canonicalize().map_err(|error| error.to_string())?;
    let places = sources::all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut table = Table::new();
    simulate(options, &mut table)?;
    if let Some(file) = &options.tests {
        add_tests(file, &mut table)?;
    }
    Ok(report(&places, &table, options.tests.is_some()))
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("quorate-marks: {wrong}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match carry_out(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(why) => {
            eprintln!("quorate-marks: {why}");
            ExitCode::from(2)
        }
    }
}
