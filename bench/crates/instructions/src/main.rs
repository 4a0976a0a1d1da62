//! A fixed amount of work, to be run under an instruction counter: three whole nodes (core, log, store, encoding), or three cores alone,
//! in one thread, without clock, chance or system calls. Prints nothing; `bench/instructions` runs it, compares and judges.

// The core alone: the very work that `bench/core` measures in time, whose program does not run under valgrind.
#[path = "../../core/src/cluster.rs"]
mod cluster;
#[path = "../../core/src/quorate.rs"]
mod cores;
mod disk;
mod member;
mod trio;
mod work;

use std::process::ExitCode;

use crate::work::Scenario;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (scenario, operations) = match args.as_slice() {
        [name] if name == "list" => {
            Scenario::ALL
                .iter()
                .for_each(|scenario| println!("{}", scenario.name()));
            return ExitCode::SUCCESS;
        }
        [name, operations] => (Scenario::named(name), operations.parse().ok()),
        _ => (None, None),
    };
    let (Some(scenario), Some(operations)) = (scenario, operations) else {
        eprintln!(
            "usage: quorate-bench-instructions list\n       quorate-bench-instructions SCENARIO OPERATIONS"
        );
        return ExitCode::from(2);
    };
    scenario.run(operations);
    ExitCode::SUCCESS
}
