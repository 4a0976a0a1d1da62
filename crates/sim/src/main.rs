//! `quorate-sim`: runs seeds, says what they amount to, and prints for each one that fails what is wrong and how to see it again.

mod program {
    pub mod args;
    pub mod cpu;
    pub mod seeds;
    pub mod speed;
    pub mod summary;
}

use std::process::ExitCode;

use program::args::{self, HELP, Wanted};
use program::{seeds, speed};

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)) {
        Ok(Wanted::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Wanted::Speed) => speed::measure(),
        Ok(Wanted::Seeds(options)) => seeds::run(&options),
        Err(wrong) => {
            eprintln!("quorate-sim: {wrong}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}
