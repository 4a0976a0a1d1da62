//! What a committed proposal costs in the pure core: three members in one thread, no I/O, 64-byte commands, proposed one, 64 and 1,024 at a
//! time; beside crate `raft` (raft-rs), which does the same work in the same program. With `--node` what it costs in whole nodes, encoding
//! included. Rounds alternate, and ratios are taken within a round, so that they mean something on a machine that has other work too.

mod cluster;
mod measure;
mod nodes;
mod quorate;
mod raft_rs;
mod report;

use clap::{Parser, ValueEnum};

use crate::measure::Sample;
use crate::report::Row;

/// Commands proposed at once.
const BATCHES: [usize; 3] = [1, 64, 1024];

/// Measures committed proposals per second and CPU time per proposal, three members in one thread.
#[derive(Parser)]
struct Args {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Proposals in one measurement
    #[arg(long, default_value_t = 100_000)]
    proposals: u64,
    /// Measure whole nodes, with their encoding, instead of the core beside raft-rs
    #[arg(long)]
    node: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Measure only this batch size
    #[arg(long)]
    batch: Option<usize>,
    /// Measure only one of the two, for profilers
    #[arg(long, value_enum, conflicts_with = "node")]
    only: Option<Only>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Quorate,
    RaftRs,
}

fn main() {
    let args = Args::parse();
    let batches = args.batch.map_or(BATCHES.to_vec(), |batch| vec![batch]);
    let mut rows: Vec<Row> = batches.into_iter().map(Row::new).collect();
    for _ in 0..args.rounds {
        for row in &mut rows {
            measure_once(&args, row);
        }
    }
    match (args.output, args.node) {
        (Output::Json, node) => println!("{}", report::json(&rows, args.rounds, node)),
        (Output::Table, false) => report::core_table(&rows),
        (Output::Table, true) => report::node_table(&rows),
    }
}

fn measure_once(args: &Args, row: &mut Row) {
    let measure = |which: fn(usize, u64) -> Sample| which(row.batch, args.proposals);
    if args.node {
        row.quorate.push(measure(measure::cluster::<nodes::Nodes>));
        return;
    }
    if args.only != Some(Only::RaftRs) {
        row.quorate.push(measure(measure::cluster::<quorate::Cores>));
    }
    if args.only != Some(Only::Quorate) {
        row.raft_rs.push(measure(measure::cluster::<raft_rs::RaftRs>));
    }
}
