//! The loads that both systems get in every round, and the measuring of one.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Kind};
use crate::load::{Amount, Load, Operation, Report};
use crate::options::Bench;
use crate::process::{Spent, Usage};
use crate::results::Sample;

/// Keys that are there before anything is measured: reads find something.
pub const PRELOADED: u64 = 20_000;

/// The servers' CPU is looked at so often until it is quiet.
const LOOK: Duration = Duration::from_millis(250);
/// Quiet: less than this share of a core more than when idle, for three looks.
const QUIET: f64 = 0.03;
/// Looks at most.
const LOOKS: usize = 32;

/// A scenario: its name, and loads that run at the same time.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// As it stands in the results.
    pub name: &'static str,
    /// What people read.
    pub title: &'static str,
    /// Usually one.
    pub loads: Vec<Load>,
    /// Whether something without consensus can do it, too.
    pub floor: bool,
}

fn scenario(name: &'static str, title: &'static str, loads: Vec<Load>) -> Scenario {
    let floor = loads.len() == 1 && loads[0].operation != Operation::Watch;
    Scenario {
        name,
        title,
        loads,
        floor,
    }
}

/// All of them, in the order in which they run; with `share` of the operations.
pub fn all(share: f64) -> Vec<Scenario> {
    use Operation::{Put, Range, SerializableRange, Txn, Watch};
    // Loads are long enough that CPU per operation settles; a rounder number of operations hides nothing.
    let load = |operation, total: f64| Load::new(operation, Amount::Total((total * share) as u64));
    let read = |operation, total| Load {
        key_space: PRELOADED,
        ..load(operation, total)
    };
    let one = |load: Load| Load {
        clients: 1,
        connections: 1,
        ..load
    };
    let paced = |operation, rate: u64, clients| Load {
        rate: Some(rate),
        clients,
        key_space: PRELOADED,
        ..Load::new(operation, Amount::Seconds((5.0 * share).max(1.0)))
    };
    vec![
        scenario("put-100", "put, 100 clients", vec![load(Put, 50_000.0)]),
        scenario(
            "put-1000",
            "put, 1000 clients",
            vec![Load {
                clients: 1000,
                ..load(Put, 50_000.0)
            }],
        ),
        scenario("put-1", "put, one client", vec![one(load(Put, 2500.0))]),
        scenario(
            "range-100",
            "linearizable read, 100 clients",
            vec![read(Range, 50_000.0)],
        ),
        scenario(
            "range-1",
            "linearizable read, one client",
            vec![one(read(Range, 5000.0))],
        ),
        scenario(
            "serializable-100",
            "serializable read, 100 clients",
            vec![read(SerializableRange, 50_000.0)],
        ),
        scenario(
            "serializable-1",
            "serializable read, one client",
            vec![one(read(SerializableRange, 8000.0))],
        ),
        scenario(
            "txn-100",
            "compare and put, else get, 100 clients",
            vec![read(Txn, 30_000.0)],
        ),
        scenario(
            "mixed",
            "400 puts and 2000 linearizable reads a second",
            vec![paced(Put, 400, 100), paced(Range, 2000, 100)],
        ),
        scenario(
            "watch",
            "200 puts a second for 100 watchers, per event",
            vec![paced(Watch, 200, 100)],
        ),
    ]
}

/// Writes the keys that reads look for, and warms the servers up with it.
pub fn preload(bench: &Bench, cluster: &Cluster) -> Result<()> {
    let load = Load {
        clients: 500,
        key_space: PRELOADED,
        sequential: true,
        ..Load::new(Operation::Put, Amount::Total(PRELOADED))
    };
    let report = bench.generator.run(&load, &cluster.endpoints(), &bench.dir)?;
    report.without_failures().context("preloading")?;
    Ok(())
}

/// What the servers use when nobody asks them anything, in cores.
pub fn idle(cluster: &mut Cluster) -> Result<f64> {
    let before = cluster.usage()?;
    let begun = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    Ok(cluster.spent(&before)?.cpu_us / begun.elapsed().as_secs_f64() / 1e6)
}

/// Runs one scenario against a cluster, with everything that the servers spend on it, also what they put off until afterwards.
pub fn measure(
    bench: &Bench,
    cluster: &mut Cluster,
    scenario: &Scenario,
    idle: f64,
    round: u32,
) -> Result<Sample> {
    // One client on one connection asks the leader; of ten connections the leader gets four. The same for both systems.
    let leader = leader(bench, cluster)?;
    let endpoints = cluster.endpoints_from(leader);
    let (before, written_before) = (cluster.usage()?, cluster.device_written()?);
    let reports = run(bench, &endpoints, scenario, round)?;
    let during = cluster.spent(&before)?;
    let after = settled(cluster, &before, during, idle)?;
    let operations: f64 = reports
        .iter()
        .map(|report| report.events.unwrap_or(report.total))
        .sum();
    let mut sample = Sample::new(&cluster.system().name, scenario.name, round)
        .with("operations", operations)
        .with("server_cpu_us", (during.cpu_us + after.cpu_us) / operations)
        .with("server_cpu_during_us", during.cpu_us / operations)
        .with("sleeps", during.sleeps / operations)
        .with("file_calls", during.calls / operations);
    if let (Some(before), Some(now)) = (written_before, cluster.device_written()?) {
        sample = sample.with("written_bytes", (now - before) as f64 / operations);
    }
    let client_cpu: f64 = reports
        .iter()
        .map(|report| report.client_cpu_us * report.total)
        .sum();
    sample = sample.with("client_cpu_us", client_cpu / operations);
    if scenario.loads.len() == 1 {
        sample = one_load(sample, &reports[0]);
    } else {
        for (load, report) in scenario.loads.iter().zip(&reports) {
            let kind = if load.operation == Operation::Put {
                "put"
            } else {
                "range"
            };
            for (name, value) in &report.latency {
                sample = sample.with(&format!("{kind}_{name}"), *value);
            }
        }
    }
    sample.load = reports.into_iter().map(|report| report.raw).collect();
    Ok(sample)
}

fn one_load(mut sample: Sample, report: &Report) -> Sample {
    sample = sample
        .with("throughput", report.throughput)
        .with("longest_gap_ms", report.longest_gap_ms);
    for (name, value) in &report.latency {
        sample = sample.with(name, *value);
    }
    sample
}

fn leader(bench: &Bench, cluster: &mut Cluster) -> Result<usize> {
    match cluster.system().kind {
        Kind::Floor => Ok(0),
        _ => bench.probe.leader(cluster),
    }
}

fn run(bench: &Bench, endpoints: &[String], scenario: &Scenario, round: u32) -> Result<Vec<Report>> {
    let mut running = Vec::new();
    for (k, load) in scenario.loads.iter().enumerate() {
        let load = Load {
            // The same keys for both systems, others in another round.
            seed: u64::from(round) * 10 + k as u64,
            ..load.clone()
        };
        running.push(bench.generator.start(&load, endpoints, &bench.dir)?);
    }
    let finish = |running: crate::load::Running| running.finish()?.without_failures();
    running.into_iter().map(finish).collect()
}

/// Waits until the servers are quiet and says what they used meanwhile beyond what idling costs: flushing, compacting, collecting garbage.
pub fn settled(cluster: &mut Cluster, before: &[Usage], during: Spent, idle: f64) -> Result<Spent> {
    let begun = std::time::Instant::now();
    let (mut last, mut quiet) = (during, 0);
    for _ in 0..LOOKS {
        std::thread::sleep(LOOK);
        let now = cluster.spent(before)?;
        let cores = (now.cpu_us - last.cpu_us) / LOOK.as_secs_f64() / 1e6;
        quiet = if cores < idle + QUIET { quiet + 1 } else { 0 };
        last = now;
        if quiet == 3 {
            break;
        }
    }
    let mut after = last - during;
    after.cpu_us = (after.cpu_us - idle * begun.elapsed().as_secs_f64() * 1e6).max(0.0);
    Ok(after)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_shares_apply() {
        let names: BTreeSet<_> = all(1.0).iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all(1.0).len());
        assert_eq!(all(0.1)[0].loads[0].amount, Amount::Total(5000));
        assert_eq!(all(0.1)[9].loads[0].amount, Amount::Seconds(1.0));
        assert!(all(1.0).iter().filter(|scenario| scenario.floor).count() >= 6);
    }
}
