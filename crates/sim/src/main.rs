//! `quorate-sim`: runs seeds, and prints for each one that fails what is wrong and how to see it again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_sim::coverage::Coverage;
use quorate_sim::failure::Failure;
use quorate_sim::params::Params;

const HELP: &str = "\
Simulates whole clusters under faults, one seed after the other, and checks every step.

usage: quorate-sim [--seeds N] [--seed S] [--threads T] [--trace]

  --seeds N    run N seeds (default 100, or 1 with --seed)
  --seed S     begin with seed S (default 0)
  --threads T  run on T threads (default: all cores)
  --trace      print everything that happens, a column for each node; implies one thread

exit code: 0 all seeds passed, 2 wrong usage, 10 a crash, 11 a liveness failure, 12 a correctness
failure (the worst of all seeds counts)
";

struct Options {
    first: u64,
    seeds: u64,
    threads: usize,
    trace: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let (mut first, mut seeds, mut threads, mut trace) = (None, None, None, false);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64, String> {
            let value = args.next().ok_or(format!("{arg} needs a number"))?;
            value
                .parse()
                .map_err(|_| format!("{arg} needs a number, not {value:?}"))
        };
        match arg.as_str() {
            "--seeds" => seeds = Some(number()?),
            "--seed" => first = Some(number()?),
            "--threads" => threads = Some(number()?.max(1) as usize),
            "--trace" => trace = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    Ok(Some(Options {
        seeds: seeds.unwrap_or(if first.is_some() { 1 } else { 100 }),
        first: first.unwrap_or(0),
        threads: if trace { 1 } else { threads.unwrap_or(cores) },
        trace,
    }))
}

#[derive(Default)]
struct Summary {
    coverage: Coverage,
    passed: u64,
    failed: Vec<(u64, Failure)>,
}

fn run_all(options: &Options) -> Summary {
    let next = AtomicU64::new(options.first);
    let end = options.first.saturating_add(options.seeds);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let result = quorate_sim::run(Params::draw(seed), options.trace);
                    let mut summary = summary.lock().expect("no thread panics while it holds the lock");
                    match result {
                        Ok(report) => {
                            summary.passed += 1;
                            summary.coverage.add(&report.coverage);
                        }
                        Err((failure, _)) => {
                            println!("seed {seed} FAILED, {failure}");
                            println!(
                                "  replay: cargo run --release -p quorate-sim -- --seed {seed} --trace\n"
                            );
                            summary.failed.push((seed, failure));
                        }
                    }
                }
            });
        }
    });
    summary.into_inner().expect("all threads have ended")
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("quorate-sim: {wrong}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let summary = run_all(&options);
    println!("{} seeds passed, {} failed", summary.passed, summary.failed.len());
    println!("met: {}", summary.coverage);
    let worst = summary
        .failed
        .iter()
        .map(|(_, failure)| failure.exit_code())
        .max();
    worst.map_or(ExitCode::SUCCESS, ExitCode::from)
}
