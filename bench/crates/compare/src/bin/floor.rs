//! `bench/floor`: what gRPC alone costs. Measures the service that does nothing, and is that service with `serve`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use quorate_bench_compare::options::Common;
use quorate_bench_compare::{children, floor, report, rounds, scenario};

/// What gRPC alone costs: a service with etcd's messages and nothing behind it, under the load of bench/compare.
#[derive(Debug, Parser)]
#[command(name = "bench/floor", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be that service
    Serve {
        /// Address and port
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Rounds of all scenarios
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Serve { listen }) = cli.command {
        return floor::serve(listen);
    }
    children::end_on_signals()?;
    let common = Common {
        etcd: Vec::new(),
        ..cli.run.common
    };
    let mut bench = common.bench("floor")?;
    eprintln!("{}", bench.results.machine.line());
    let floor = bench.floor()?;
    // The others stay out of it: bench/compare measures all of them.
    bench.systems.clear();
    rounds::run(&mut bench, Some(&floor), cli.run.rounds, &scenario::all(1.0))?;
    println!("{}", report::costs(&bench.results).text());
    bench.finish()
}
