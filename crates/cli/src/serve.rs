//! `quorate serve`.

use crate::client::Failure;
use crate::flags::{self, Ask, Values};
use crate::logging;
use crate::settings::Settings;

/// What `--version` prints.
pub fn version() -> String {
    format!("quorate {}\n", env!("CARGO_PKG_VERSION"))
}

/// Runs a server until it ends.
pub fn run(args: Vec<String>) -> Result<(), Failure> {
    let values = Values::parse(args, std::env::vars()).map_err(|error| Failure::usage(error.to_string()))?;
    match values.ask {
        Ask::Run => {}
        Ask::Help => {
            crate::output::print(flags::help().as_bytes());
            return Ok(());
        }
        Ask::Version => {
            crate::output::print(version().as_bytes());
            return Ok(());
        }
    }
    let settings = Settings::new(&values).map_err(|error| Failure::usage(error.to_string()))?;
    logging::start(&values).map_err(Failure::usage)?;
    let _ = settings;
    Err(Failure::refused("the server is not part of this build yet"))
}
