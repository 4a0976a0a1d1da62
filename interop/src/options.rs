//! The few options of the subcommands, in any order before or between the endpoints.

use std::time::Duration;

use crate::Result;

/// What stands behind a subcommand.
pub struct Options {
    /// `--seed`
    pub seed: u64,
    /// `--value-bytes`
    pub value_bytes: usize,
    /// `--stale-reads`
    pub stale_reads: bool,
    /// `--patience`
    pub patience: Duration,
    /// `--doctor`
    pub doctor: bool,
    /// `--learners`: members may have had no vote at times.
    pub learners: bool,
    /// Everything that is no option.
    pub endpoints: Vec<String>,
}

impl Options {
    /// Reads them.
    pub fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options {
            seed: 0,
            value_bytes: 0,
            stale_reads: false,
            patience: Duration::from_secs(60),
            doctor: false,
            learners: false,
            endpoints: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--seed" => options.seed = value()?.parse()?,
                "--value-bytes" => options.value_bytes = value()?.parse()?,
                "--patience" => options.patience = Duration::from_secs(value()?.parse()?),
                "--stale-reads" => options.stale_reads = true,
                "--doctor" => options.doctor = true,
                "--learners" => options.learners = true,
                other if other.starts_with("--") => return Err(format!("no option {other}").into()),
                endpoint => options.endpoints.push(endpoint.to_owned()),
            }
        }
        if options.endpoints.is_empty() {
            return Err("no endpoint was given".into());
        }
        Ok(options)
    }
}
