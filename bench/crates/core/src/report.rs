//! Medians, as a table and as JSON.

use serde_json::{Value, json};

use crate::cluster::PAYLOAD;
use crate::measure::Sample;

/// What was measured at one batch size, a sample a round.
pub struct Row {
    /// Commands proposed at once.
    pub batch: usize,
    /// Quorate's core, or whole nodes.
    pub quorate: Vec<Sample>,
    /// raft-rs.
    pub raft_rs: Vec<Sample>,
}

impl Row {
    /// Nothing measured yet.
    pub fn new(batch: usize) -> Row {
        Row {
            batch,
            quorate: Vec::new(),
            raft_rs: Vec::new(),
        }
    }

    /// How many proposals Quorate's core commits in the CPU time in which raft-rs commits one: the median over the rounds.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.quorate.iter().zip(&self.raft_rs);
        median(pairs.map(|(ours, theirs)| theirs.cpu_ns / ours.cpu_ns))
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn middle(samples: &[Sample]) -> Option<Sample> {
    Some(Sample {
        per_second: median(samples.iter().map(|sample| sample.per_second))?,
        cpu_ns: median(samples.iter().map(|sample| sample.cpu_ns))?,
    })
}

fn columns(sample: Option<Sample>) -> String {
    match sample {
        Some(sample) => format!("{:>14.0} {:>10.0}", sample.per_second, sample.cpu_ns),
        None => format!("{:>14} {:>10}", "-", "-"),
    }
}

/// The core beside raft-rs.
pub fn core_table(rows: &[Row]) {
    println!("committed proposals of {PAYLOAD} bytes, three members in one thread, no I/O; medians");
    println!("{:>6}  {:^25}  {:^25}", "", "quorate-raft", "raft-rs 0.7");
    println!(
        "{:>6}  {:>14} {:>10}  {:>14} {:>10}  {:>6}",
        "batch", "proposals/s", "CPU ns", "proposals/s", "CPU ns", "ratio"
    );
    for row in rows {
        let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:>6}  {}  {}  {ratio:>6}",
            row.batch,
            columns(middle(&row.quorate)),
            columns(middle(&row.raft_rs)),
        );
    }
    println!("{OPENRAFT}");
}

/// For orientation only: a figure of another program on another machine.
const OPENRAFT: &str =
    "for orientation: openraft says of itself 0.35 to 0.9 million entries/s, three members, in memory";

/// Whole nodes.
pub fn node_table(rows: &[Row]) {
    println!(
        "committed proposals of {PAYLOAD} bytes, three whole nodes in one thread, encoded between them; medians"
    );
    println!("{:>6}  {:>14} {:>10}", "batch", "proposals/s", "CPU ns");
    for row in rows {
        println!("{:>6}  {}", row.batch, columns(middle(&row.quorate)));
    }
}

/// All of it for programs.
pub fn json(rows: &[Row], rounds: usize, node: bool) -> Value {
    let said = |samples: &[Sample]| {
        middle(samples).map(|sample| {
            json!({
                "proposals_per_second": sample.per_second,
                "cpu_ns_per_proposal": sample.cpu_ns,
            })
        })
    };
    let row = |row: &Row| {
        json!({
            "batch": row.batch,
            "quorate": said(&row.quorate),
            "raft_rs": said(&row.raft_rs),
            "ratio": row.ratio(),
        })
    };
    json!({
        "what": if node { "node" } else { "core" },
        "members": 3,
        "payload_bytes": PAYLOAD,
        "rounds": rounds,
        "results": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
