//! Running seeds: a campaign with its progress and failures, or one seed that somebody wants to see.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use quorate_sim::campaign::{Tally, replay};
use quorate_sim::failure::Failure;
use quorate_sim::params::Params;
use quorate_sim::trace::View;
use quorate_sim::watch;

use super::args::{Options, Show};
use super::{cpu, summary};

/// The exit code of runs in which something necessary did not happen.
const LIVENESS: u8 = 11;

/// Does what the options say.
pub fn run(options: &Options) -> ExitCode {
    let params = Params {
        lying_disks: options.lying_disks,
        ..Params::draw(options.campaign.first)
    };
    match &options.show {
        Show::Sum => campaign(options),
        Show::Lines => look(params, None),
        Show::Picture(file, events) => look(params, Some((file, *events))),
    }
}

fn campaign(options: &Options) -> ExitCode {
    let begun = Instant::now();
    let terminal = io::stderr().is_terminal();
    let tally = options.campaign.run(
        |_| Ok(()),
        |seed, failure, sum| {
            if let Some(failure) = failure {
                clear(terminal);
                println!("{}\n", describe(seed, failure));
            }
            if terminal {
                progress(sum, options, begun);
            }
        },
    );
    clear(terminal);
    let spent = (begun.elapsed(), cpu::of_process());
    print!("{}", summary::text(&tally, options.campaign.first, spent));
    let mut filled = true;
    if let Some(least) = options.matrix {
        let (text, whole) = summary::matrix(&tally.coverage.matrix, least);
        print!("{text}");
        filled = whole;
    }
    if let Some(file) = &options.json {
        let json = summary::json(&tally, options.campaign.first, spent);
        if let Err(error) = std::fs::write(file, json) {
            eprintln!("quorate-sim: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    match tally.exit_code() {
        0 if !filled => ExitCode::from(LIVENESS),
        code => ExitCode::from(code),
    }
}

fn describe(seed: u64, failure: &Failure) -> String {
    format!("{}\n  replay: {}", failed(seed, failure), replay(seed))
}

fn failed(seed: u64, failure: &Failure) -> String {
    format!("seed {seed} FAILED ({}), {failure}", failure.exit_code())
}

fn clear(terminal: bool) {
    if terminal {
        eprint!("\r\x1b[K");
    }
}

fn progress(sum: &Tally, options: &Options, begun: Instant) {
    let (seeds, total) = (sum.seeds(), sum.total());
    let part = match options.campaign.operations {
        Some(wanted) => total as f64 / wanted.max(1) as f64,
        None => seeds as f64 / options.campaign.seeds.max(1) as f64,
    };
    let left = begun.elapsed().as_secs_f64() * (1.0 / part.max(1e-9) - 1.0);
    eprint!(
        "\r\x1b[K{:5.1} %  {seeds} seeds, {total} operations, {} failed, {} excused, about {:.0} s left",
        (100.0 * part).min(100.0),
        sum.failed.len(),
        sum.excused.len(),
        left.max(0.0),
    );
    let _ = io::stderr().flush();
}

/// Runs one seed and shows it.
fn look(params: Params, picture: Option<(&Path, usize)>) -> ExitCode {
    let view = picture.map_or(View::Lines, |(_, events)| View::Picture(events));
    let seed = params.seed;
    let about = format!("{params:#?}");
    let (result, kept) = watch(params, view);
    let (words, code) = match &result {
        Ok(report) => (format!("seed {seed} passed, trace {:016x}", report.trace_hash), 0),
        Err((failure, _)) => (failed(seed, failure), failure.exit_code()),
    };
    println!("{words}");
    if let (Some((file, _)), Some(kept)) = (picture, kept) {
        let title = format!(
            "quorate-sim, seed {seed}: {}",
            if code == 0 { "passed" } else { "FAILED" }
        );
        let written = File::create(file).and_then(|file| {
            let mut out = BufWriter::new(file);
            kept.write(&title, &about, &mut out)?;
            out.flush()
        });
        if let Err(error) = written {
            eprintln!("quorate-sim: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        println!("the last {} events are in {}", kept.len(), file.display());
    }
    ExitCode::from(code)
}
