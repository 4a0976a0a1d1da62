//! `bench/failover`: gaps in successful writes when the leader dies or is asked to end, of Quorate and etcd.

use anyhow::Result;
use clap::Parser;
use quorate_bench_compare::options::Common;
use quorate_bench_compare::{children, failover, report};

/// Longest gap in successful writes after kill -9 and after SIGTERM of the leader, and the time from start to the first write.
#[derive(Debug, Parser)]
#[command(name = "bench/failover")]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// Trials of each kind, for each system
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    children::end_on_signals()?;
    let mut bench = cli.common.bench("failover")?;
    eprintln!("{}", bench.results.machine.line());
    failover::run(&mut bench, cli.trials)?;
    println!("{}", report::gaps(&bench.results).text());
    bench.finish()
}
