//! Rounds: each starts every system once, with nothing on its disk, runs all scenarios on it and ends it; the order of the systems turns with
//! every round. What changes slowly on the machine then touches all alike.

use std::time::Instant;

use anyhow::Result;

use crate::cluster::{Cluster, System};
use crate::options::Bench;
use crate::probe::Ask;
use crate::results::Sample;
use crate::scenario::{self, Scenario};

/// Members of a cluster.
pub const NODES: usize = 3;

/// Measures all systems in `rounds` rounds.
pub fn run(bench: &mut Bench, floor: Option<&System>, rounds: u32, scenarios: &[Scenario]) -> Result<()> {
    for round in 1..=rounds {
        let mut systems = bench.systems.clone();
        // The floor may be all there is.
        let turn = (round as usize - 1) % systems.len().max(1);
        systems.rotate_left(turn);
        systems.extend(floor.cloned());
        for system in &systems {
            eprintln!("round {round} of {rounds}: {}", system.name);
            let outcome = one(bench, system, round, scenarios);
            bench.note(&format!("{} in round {round}", system.name), outcome);
            bench.save()?;
        }
    }
    Ok(())
}

/// One system in one round.
fn one(bench: &mut Bench, system: &System, round: u32, scenarios: &[Scenario]) -> Result<()> {
    let is_floor = system.kind == crate::cluster::Kind::Floor;
    let begun = Instant::now();
    let mut cluster = Cluster::start(system, NODES, &bench.dir)?;
    let start = bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    if !is_floor {
        let start = Sample::new(&system.name, "start", round).with("ms", start.as_secs_f64() * 1000.0);
        bench.results.samples.push(start);
        scenario::preload(bench, &cluster)?;
    }
    let idle = scenario::idle(&mut cluster)?;
    let sample = Sample::new(&system.name, "idle", round).with("cores", idle);
    bench.results.samples.push(sample);
    for scenario in scenarios.iter().filter(|scenario| scenario.floor || !is_floor) {
        let measured = scenario::measure(bench, &mut cluster, scenario, idle, round);
        let what = format!("{}, {}, round {round}", system.name, scenario.name);
        if let Some(sample) = bench.note(&what, measured) {
            eprintln!("  {:<44} {}", scenario.title, brief(&sample));
            bench.results.samples.push(sample);
        }
    }
    cluster.stop()
}

/// The figures that one looks at while a run goes on, as far as the sample has them.
fn brief(sample: &Sample) -> String {
    let figure = |name: &str, before: &str, digits: usize, after: &str| {
        let value = sample.figures.get(name)?;
        Some(format!("{before}{value:>8.digits$}{after}"))
    };
    let figures = [
        figure("server_cpu_us", "", 1, " µs server CPU/op"),
        figure("client_cpu_us", "", 1, " client"),
        figure("throughput", "", 0, "/s"),
        figure("p50_ms", "p50 ", 2, " ms"),
        figure("p99_ms", "p99 ", 2, " ms"),
    ];
    figures.into_iter().flatten().collect::<Vec<_>>().join("  ")
}
