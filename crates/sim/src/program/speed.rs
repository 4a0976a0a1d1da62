//! `quorate-sim speed`: virtual time against CPU time of one core, with every check that a campaign has.

use std::process::ExitCode;

use quorate_sim::params::SEC;
use quorate_sim::speed::Course;

use super::cpu::Stopwatch;

/// What is demanded: virtual seconds for a second of CPU.
const IDLE: f64 = 1_000.0;
const LOADED: f64 = 20.0;

/// Measures and prints both; the exit code says whether both are reached.
pub fn measure() -> ExitCode {
    let idle = one("idle", false, 600, IDLE);
    let loaded = one("100 operations a second", true, 120, LOADED);
    match idle && loaded {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn one(name: &str, loaded: bool, seconds: u64, wanted: f64) -> bool {
    let mut course = Course::new(loaded).expect("a healthy cluster");
    let watch = Stopwatch::start();
    let covered = course.run(seconds * SEC).expect("a healthy cluster");
    let (spent, cpu) = watch.read();
    let speed = seconds as f64 / spent.as_secs_f64();
    println!(
        "five nodes, {name}: {speed:.0} times real time (wanted: {wanted:.0}); {seconds} virtual s in {:.3} {}, \
         {:.1} operations and {:.0} events a virtual second",
        spent.as_secs_f64(),
        if cpu { "CPU s" } else { "s by the clock" },
        covered.operations as f64 / seconds as f64,
        covered.lines as f64 / seconds as f64,
    );
    speed >= wanted
}
