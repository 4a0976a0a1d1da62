//! The command line.

use std::path::PathBuf;

use quorate_sim::campaign::Campaign;

/// What `--help` prints.
pub const HELP: &str = "\
Simulates whole clusters under faults, one seed after the other, and checks every step.

usage: quorate-sim [--seeds N] [--seed S] [--operations N] [--threads T] [--twice] [--json FILE]
                   [--matrix LEAST]
       quorate-sim --seed S --trace [FILE.html [--events N]] [--lying-disks]
       quorate-sim speed

  --seeds N       run N seeds (default 100, or 1 with --seed)
  --seed S        begin with seed S (default 0)
  --operations N  run seeds until clients have done N operations
  --threads T     run on T threads (default: all cores)
  --twice         run each seed twice: both runs must be the same to the last event
  --json FILE     write the summary as JSON, too
  --matrix LEAST  print how often each fault struck in each state; the seeds fail if any possible cell of
                  that table has fewer than LEAST
  --trace         print everything that happens in one seed, a column for each node
  --trace FILE    write a space-time picture of one seed: a page for any browser, which needs nothing else
  --events N      keep the last N events for the picture (default 60000)
  --lying-disks   let the disks of that one seed forget what they confirmed: a run that should fail
  speed           measure virtual against CPU time, with five nodes, idle and loaded

exit code: 0 all seeds passed, 2 wrong usage, 10 a crash, 11 a liveness failure (or more than one seed
in a thousand excused, or a cell of the matrix too low), 12 a correctness failure (the worst of all seeds counts)
";

/// How a run is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// Only in the sum.
    Sum,
    /// Every event is printed.
    Lines,
    /// As a picture of the last so many events.
    Picture(PathBuf, usize),
}

/// Seeds to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which.
    pub campaign: Campaign,
    /// How they are shown.
    pub show: Show,
    /// The disks of the one seed that is shown forget what they confirmed.
    pub lying_disks: bool,
    /// The table of faults by states is printed, and each possible cell must have so many.
    pub matrix: Option<u64>,
    /// Where the summary goes, besides the terminal.
    pub json: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// To be told how it is used.
    Help,
    /// A measurement.
    Speed,
    /// A campaign, or a look at one seed.
    Seeds(Options),
}

#[derive(Default)]
struct Given {
    first: Option<u64>,
    seeds: Option<u64>,
    operations: Option<u64>,
    threads: Option<u64>,
    events: Option<u64>,
    twice: bool,
    lying_disks: bool,
    matrix: Option<u64>,
    trace: Option<Option<PathBuf>>,
    json: Option<PathBuf>,
}

/// Reads the command line.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut given = Given::default();
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "speed" => return Ok(Wanted::Speed),
            "--help" | "-h" => return Ok(Wanted::Help),
            "--seeds" => given.seeds = Some(number(&arg, &value()?)?),
            "--seed" => given.first = Some(number(&arg, &value()?)?),
            "--operations" => given.operations = Some(number(&arg, &value()?)?),
            "--threads" => given.threads = Some(number(&arg, &value()?)?),
            "--matrix" => given.matrix = Some(number(&arg, &value()?)?),
            "--events" => given.events = Some(number(&arg, &value()?)?),
            "--json" => given.json = Some(value()?.into()),
            "--lying-disks" => given.lying_disks = true,
            "--twice" => given.twice = true,
            "--trace" => given.trace = Some(args.next_if(|next| !next.starts_with('-')).map(PathBuf::from)),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    given.finish().map(Wanted::Seeds)
}

fn number(arg: &str, value: &str) -> Result<u64, String> {
    value
        .parse()
        .map_err(|_| format!("{arg} needs a number, not {value:?}"))
}

impl Given {
    fn finish(self) -> Result<Options, String> {
        let usual = match (self.operations, self.first) {
            (Some(_), _) => u64::MAX,
            (None, Some(_)) => 1,
            (None, None) => 100,
        };
        let seeds = self.seeds.unwrap_or(usual);
        if self.trace.is_some() && (seeds != 1 || self.twice) {
            return Err("--trace shows one seed, which --seed names".to_owned());
        }
        if self.events.is_some() && !matches!(self.trace, Some(Some(_))) {
            return Err("--events is for a picture".to_owned());
        }
        if self.lying_disks && self.trace.is_none() {
            return Err("--lying-disks is for one seed that --trace shows".to_owned());
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let campaign = Campaign {
            first: self.first.unwrap_or(0),
            seeds,
            operations: self.operations,
            threads: self.threads.map_or(cores, |threads| threads.max(1) as usize),
            twice: self.twice,
        };
        let show = match self.trace {
            None => Show::Sum,
            Some(None) => Show::Lines,
            Some(Some(file)) => Show::Picture(file, self.events.unwrap_or(60_000) as usize),
        };
        Ok(Options {
            campaign,
            show,
            lying_disks: self.lying_disks,
            matrix: self.matrix,
            json: self.json,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(str::to_owned))? {
            Wanted::Seeds(options) => Ok(options),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_seed_alone_is_run_once_and_operations_bound_the_rest() {
        assert_eq!(options("").unwrap().campaign.seeds, 100);
        let one = options("--seed 7 --trace out.html").unwrap();
        assert_eq!((one.campaign.first, one.campaign.seeds), (7, 1));
        assert_eq!(one.show, Show::Picture("out.html".into(), 60_000));
        assert_eq!(options("--seed 7 --trace").unwrap().show, Show::Lines);
        let many = options("--operations 5000 --seed 3 --twice --json sum.json").unwrap();
        assert_eq!(
            (many.campaign.seeds, many.campaign.operations),
            (u64::MAX, Some(5_000))
        );
        assert!(many.campaign.twice && many.json == Some("sum.json".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--seeds",
            "--seeds many",
            "--trace",
            "--seeds 3 --trace a.html",
            "--seed 1 --events 5",
            "--seed 1 --lying-disks",
            "-x",
        ] {
            assert!(options(wrong).is_err(), "{wrong}");
        }
    }
}
