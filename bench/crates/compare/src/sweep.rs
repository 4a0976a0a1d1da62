//! How cost grows: with the size of values, the number of clients, of nodes and of keys, each alone. Every point has a cluster of its own.
//! Long; once, not in rounds.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, System};
use crate::load::{Amount, Load, Operation};
use crate::options::Bench;
use crate::probe::Ask;
use crate::results::Sample;
use crate::rounds::NODES;
use crate::scenario::{self, Scenario};

/// Bytes that a point of the sizes sends at most, and puts that every point makes at least and at most.
const BYTES: u64 = 256 << 20;
const LEAST: u64 = 200;
const MOST: u64 = 30_000;

/// What is varied.
const SIZES: [u64; 8] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const CLIENTS: [u64; 5] = [1, 10, 100, 1000, 4000];
const CLUSTERS: [usize; 4] = [1, 3, 5, 7];
const KEYS: [u64; 4] = [1000, 10_000, 100_000, 1_000_000];

/// Keys against which more of them are compared.
const SMALL: u64 = 100_000;

/// A point: one cluster, one measurement.
struct Point {
    scenario: &'static str,
    x: f64,
    nodes: usize,
    /// Keys that are there before.
    keys: u64,
    load: Load,
}

/// All sweeps, or those that are named, of all systems.
pub fn run(bench: &mut Bench, only: &[String]) -> Result<()> {
    let mut points = points();
    if let Some(unknown) = only
        .iter()
        .find(|name| !points.iter().any(|point| point.scenario == **name))
    {
        bail!("there is no sweep {unknown}");
    }
    points.retain(|point| only.is_empty() || only.iter().any(|name| name == point.scenario));
    for point in points {
        for system in bench.systems.clone() {
            eprintln!("{} at {}: {}", point.scenario, point.x, system.name);
            let outcome = one(bench, &system, &point);
            let what = format!("{}, {} at {}", system.name, point.scenario, point.x);
            bench.note(&what, outcome);
            bench.save()?;
        }
    }
    Ok(())
}

fn points() -> Vec<Point> {
    let put = |total| Load::new(Operation::Put, Amount::Total(total));
    let point = |scenario, x: u64, load| Point {
        scenario,
        x: x as f64,
        nodes: NODES,
        keys: 0,
        load,
    };
    let mut all = Vec::new();
    for size in SIZES {
        let load = Load {
            value_size: size,
            key_space: 1000,
            ..put((BYTES / size).clamp(LEAST, MOST))
        };
        all.push(point("by-value-size", size, load));
    }
    for clients in CLIENTS {
        let load = Load {
            clients,
            connections: clients.min(10),
            ..put((clients * 2000).min(MOST))
        };
        all.push(point("by-clients", clients, load));
    }
    for nodes in CLUSTERS {
        all.push(Point {
            nodes,
            ..point("by-nodes", nodes as u64, put(MOST))
        });
    }
    for keys in KEYS {
        let load = Load {
            key_space: keys,
            ..put(MOST)
        };
        all.push(Point {
            keys,
            ..point("by-keys", keys, load)
        });
    }
    all
}

fn one(bench: &mut Bench, system: &System, point: &Point) -> Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::start(system, point.nodes, &bench.dir)?;
    bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    fill(bench, &cluster, point.keys)?;
    measure(bench, &mut cluster, point)?;
    cluster.stop()
}

fn measure(bench: &mut Bench, cluster: &mut Cluster, point: &Point) -> Result<()> {
    let idle = scenario::idle(cluster)?;
    let scenario = Scenario {
        name: point.scenario,
        title: point.scenario,
        loads: vec![point.load.clone()],
        floor: false,
    };
    let mut sample = scenario::measure(bench, cluster, &scenario, idle, 1)?;
    sample.x = Some(point.x);
    let figure = |name: &str| sample.figures.get(name).copied().unwrap_or(f64::NAN);
    eprintln!(
        "  {:.1} µs server CPU/put, {:.0}/s",
        figure("server_cpu_us"),
        figure("throughput")
    );
    bench.results.samples.push(sample);
    Ok(())
}

/// Writes keys 0 to `keys`, once each.
fn fill(bench: &Bench, cluster: &Cluster, keys: u64) -> Result<()> {
    if keys == 0 {
        return Ok(());
    }
    let load = Load {
        clients: 1000,
        connections: 20,
        key_space: keys,
        sequential: true,
        ..Load::new(Operation::Put, Amount::Total(keys))
    };
    let report = bench.generator.run(&load, &cluster.endpoints(), &bench.dir)?;
    report
        .without_failures()
        .with_context(|| format!("writing {keys} keys"))?;
    Ok(())
}

/// CPU per put over 100,000 keys, and over `keys` of them, in one cluster of the first system that grows from one to the other.
pub fn growth(bench: &mut Bench, keys: u64) -> Result<()> {
    let system = bench.systems[0].clone();
    let begun = Instant::now();
    let mut cluster = Cluster::start(&system, NODES, &bench.dir)?;
    bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    for there in [SMALL, keys] {
        eprintln!("growth to {there} keys: {}", system.name);
        fill(bench, &cluster, there)?;
        let load = Load {
            key_space: there,
            // Enough to include what is put off and done in bulk.
            ..Load::new(Operation::Put, Amount::Total(200_000))
        };
        let point = Point {
            scenario: "growth",
            x: there as f64,
            nodes: NODES,
            keys: there,
            load,
        };
        measure(bench, &mut cluster, &point)?;
        bench.save()?;
    }
    let cpu = bench.results.line(&system.name, "growth", "server_cpu_us");
    if let [(_, small), (_, large)] = cpu[..] {
        let grown = Sample::new(&system.name, "grown", 1).with("cpu_ratio", large / small);
        bench.results.samples.push(grown);
    }
    bench.save()?;
    cluster.stop()
}
