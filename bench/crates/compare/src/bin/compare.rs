//! `bench/compare`: Quorate and etcd side by side, and the report made of it.

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use quorate_bench_compare::options::Common;
use quorate_bench_compare::{children, filled, goals, report, rounds, scenario, sweep};

/// Measures Quorate and a real etcd side by side: three nodes each, with their defaults, on the same disk, under the same load, in turn.
#[derive(Debug, Parser)]
#[command(
    name = "bench/compare",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  bench/compare                         five rounds against etcd 3.5.1, and restarts after 500,000 puts\n  \
                  bench/compare --quick                 one short round, to see where one stands\n  \
                  bench/compare --etcd 3.5,3.6          against both\n  \
                  bench/compare sweep                   how cost grows with values, clients, nodes and keys (long)\n  \
                  bench/compare growth                  CPU per put at 10 million keys against 100,000 (long)\n  \
                  bench/compare report                  tables and plots of docs/performance.md from all results"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How cost grows with value size, clients, nodes and keys
    Sweep(Sweep),
    /// CPU per put at many keys against 100,000
    Growth(Growth),
    /// Tables and plots of docs/performance.md, from everything in bench/target/results
    Report(report::Options),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Rounds of all scenarios
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round with a fifth of the operations and a fifth of the filling. For orientation
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, with commas between
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Do not fill a cluster with 500,000 puts: no memory, size or restarts
    #[arg(long)]
    no_fill: bool,
    /// Do not measure what gRPC alone costs
    #[arg(long)]
    no_floor: bool,
}

#[derive(Debug, Args)]
struct Sweep {
    #[command(flatten)]
    common: Common,
    /// Only these, with commas between: by-value-size, by-clients, by-nodes, by-keys
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
}

#[derive(Debug, Args)]
struct Growth {
    #[command(flatten)]
    common: Common,
    /// Keys at the end
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100_001..))]
    keys: u64,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    children::end_on_signals()?;
    match cli.command {
        None => run(&cli.run),
        Some(Command::Sweep(options)) => {
            let mut bench = options.common.bench("sweep")?;
            sweep::run(&mut bench, &options.only)?;
            bench.finish()
        }
        Some(Command::Growth(growth)) => {
            let mut bench = growth.common.bench("growth")?;
            sweep::growth(&mut bench, growth.keys)?;
            bench.finish()
        }
        Some(Command::Report(options)) => report::run(&options),
    }
}

fn run(run: &Run) -> Result<()> {
    let (rounds, share) = if run.quick { (1, 0.2) } else { (run.rounds, 1.0) };
    let mut scenarios = scenario::all(share);
    if let Some(unknown) = run
        .only
        .iter()
        .find(|name| !scenarios.iter().any(|s| s.name == *name))
    {
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {unknown}; there are {}", names.join(", "));
    }
    if !run.only.is_empty() {
        scenarios.retain(|scenario| run.only.iter().any(|name| name == scenario.name));
    }
    let plan = filled::Plan {
        puts: if run.quick { 100_000 } else { 500_000 },
        restarts: if run.quick { 1 } else { 3 },
    };
    let mut bench = run.common.bench("compare")?;
    eprintln!("{}", bench.results.machine.line());
    for system in &bench.systems {
        eprintln!(
            "{}: {} ({})",
            system.name,
            system.binary.display(),
            system.version
        );
    }
    let floor = if run.no_floor { None } else { Some(bench.floor()?) };
    rounds::run(&mut bench, floor.as_ref(), rounds, &scenarios)?;
    if !run.no_fill {
        filled::run(&mut bench, plan)?;
    }
    if run.quick {
        println!(
            "Quick: one short round, and {} puts in place of 500,000.\n",
            plan.puts
        );
    }
    for peer in bench.results.peers() {
        println!("{}", goals::measured(&bench.results, peer).text());
    }
    println!("{}", report::costs(&bench.results).text());
    bench.finish()
}

/// Clap checks its own rules in tests only.
#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
