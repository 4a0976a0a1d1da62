//! A cluster after 500,000 puts over 100,000 keys: what all of that cost, what it takes in memory and on disk, and how soon it is back after
//! `kill -9`. Once for each system, not in rounds: the filling alone takes a minute.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, System};
use crate::load::{Amount, Load, Operation};
use crate::options::Bench;
use crate::probe::Ask;
use crate::process::Spent;
use crate::results::Sample;
use crate::rounds::NODES;
use crate::scenario;

/// How much, and how often it is started again.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Puts, over a fifth as many keys.
    pub puts: u64,
    /// Restarts of one member, and of all.
    pub restarts: u32,
}

/// Keys of a plan.
const PUTS_PER_KEY: u64 = 5;

/// Measures all systems.
pub fn run(bench: &mut Bench, plan: Plan) -> Result<()> {
    for system in bench.systems.clone() {
        eprintln!("{} puts: {}", plan.puts, system.name);
        let outcome = one(bench, &system, plan);
        bench.note(&format!("{}, filled", system.name), outcome);
        bench.save()?;
    }
    Ok(())
}

fn one(bench: &mut Bench, system: &System, plan: Plan) -> Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::start(system, NODES, &bench.dir)?;
    bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    let sample = fill(bench, &mut cluster, plan)?;
    bench.results.samples.push(sample);
    for trial in 1..=plan.restarts {
        let milliseconds = restart_one(bench, &mut cluster)?;
        note(bench, system, "restart-one", trial, milliseconds);
    }
    for trial in 1..=plan.restarts {
        let milliseconds = restart_all(bench, &mut cluster)?;
        note(bench, system, "restart-all", trial, milliseconds);
    }
    cluster.stop()
}

fn note(bench: &mut Bench, system: &System, scenario: &str, trial: u32, milliseconds: f64) {
    eprintln!("  {scenario:<44} {milliseconds:>8.0} ms");
    bench
        .results
        .samples
        .push(Sample::new(&system.name, scenario, trial).with("ms", milliseconds));
}

fn fill(bench: &Bench, cluster: &mut Cluster, plan: Plan) -> Result<Sample> {
    let idle = scenario::idle(cluster)?;
    let (before, written_before) = (cluster.usage()?, cluster.device_written()?);
    let load = Load {
        clients: 1000,
        connections: 20,
        key_space: plan.puts / PUTS_PER_KEY,
        ..Load::new(Operation::Put, Amount::Total(plan.puts))
    };
    let report = bench
        .generator
        .run(&load, &cluster.endpoints(), &bench.dir)?
        .without_failures()?;
    let during = cluster.spent(&before)?;
    let Spent { cpu_us, .. } = scenario::settled(cluster, &before, during, idle)?;
    let leader = bench.probe.leader(cluster)?;
    let memory = cluster.memory(leader)?;
    let on_disk = cluster.bytes_on_disk()? as f64;
    let mut sample = Sample::new(&cluster.system().name, "filled", 1)
        .with("operations", report.total)
        .with("throughput", report.throughput)
        .with("server_cpu_us", (during.cpu_us + cpu_us) / report.total)
        .with("client_cpu_us", report.client_cpu_us)
        .with("leader_resident_bytes", memory.resident)
        .with("leader_anonymous_bytes", memory.anonymous)
        .with("leader_file_bytes", memory.file)
        .with("bytes_on_disk", on_disk);
    if let (Some(before), Some(now)) = (written_before, cluster.device_written()?) {
        sample = sample.with("written_bytes", (now - before) as f64 / report.total);
    }
    eprintln!(
        "  {:.1} µs server CPU/put, {:.0}/s, leader {:.0} MiB anonymous and {:.0} MiB of files, {:.0} MiB on disk",
        (during.cpu_us + cpu_us) / report.total,
        report.throughput,
        memory.anonymous / MIB,
        memory.file / MIB,
        on_disk / MIB,
    );
    Ok(sample)
}

const MIB: f64 = 1024.0 * 1024.0;

/// From the start of a follower that was killed until it answers a linearizable read.
fn restart_one(bench: &Bench, cluster: &mut Cluster) -> Result<f64> {
    let leader = bench.probe.leader(cluster)?;
    let follower = (leader + 1) % cluster.size();
    cluster.kill(follower)?;
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    cluster.start_node(follower)?;
    let endpoint = vec![cluster.endpoints()[follower].clone()];
    let took = bench.probe.first_answer(&endpoint, Ask::Read, begun)?;
    Ok(took.as_secs_f64() * 1000.0)
}

/// From the start of all members, which were killed, until one of them takes a put.
fn restart_all(bench: &Bench, cluster: &mut Cluster) -> Result<f64> {
    for k in 0..cluster.size() {
        cluster.kill(k)?;
    }
    let begun = Instant::now();
    for k in 0..cluster.size() {
        cluster.start_node(k)?;
    }
    let took = bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    // The next one begins from a cluster that is whole.
    for endpoint in cluster.endpoints() {
        bench.probe.first_answer(&[endpoint], Ask::Read, begun)?;
    }
    Ok(took.as_secs_f64() * 1000.0)
}
