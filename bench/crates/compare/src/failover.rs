//! Gaps in service: how long no write succeeds, anywhere, after the leader is killed and after it is asked to end, while clients of all
//! members go on asking; and how long a new cluster takes to its first write. With the systems' own defaults.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::cluster::{Cluster, System};
use crate::load::{Amount, Load, Operation};
use crate::options::Bench;
use crate::probe::Ask;
use crate::results::Sample;
use crate::rounds::NODES;

/// The load: begun at fixed times, by so many clients that none is missed while those whose request went down with the leader wait for
/// their answer. It lasts from well before the end of the leader until well after the next one.
const RATE: u64 = 500;
const CLIENTS: u64 = 3000;
const CONNECTIONS: u64 = 12;
const SECONDS: f64 = 7.0;
/// What a client waits for an answer that may never come: as etcd's own command line does.
const TIMEOUT: u64 = 5;
const BEFORE: Duration = Duration::from_millis(2500);
const AFTER: Duration = Duration::from_millis(3500);

/// What happens to the leader.
const ENDS: [(&str, Signal); 2] = [("failover-kill", Signal::KILL), ("failover-term", Signal::TERM)];

/// So many trials of each kind, of all systems in turn.
pub fn run(bench: &mut Bench, trials: u32) -> Result<()> {
    for trial in 1..=trials {
        for (name, signal) in ENDS {
            for system in bench.systems.clone() {
                let outcome = one(bench, &system, name, signal, trial);
                bench.note(&format!("{}, {name}, trial {trial}", system.name), outcome);
                bench.save()?;
            }
        }
    }
    Ok(())
}

fn one(bench: &mut Bench, system: &System, name: &str, signal: Signal, trial: u32) -> Result<()> {
    let begun = Instant::now();
    let mut cluster = Cluster::start(system, NODES, &bench.dir)?;
    let start = bench.probe.first_answer(&cluster.endpoints(), Ask::Put, begun)?;
    // All members are up, and know each other.
    for endpoint in cluster.endpoints() {
        bench.probe.first_answer(&[endpoint], Ask::Read, begun)?;
    }
    let load = Load {
        clients: CLIENTS,
        connections: CONNECTIONS,
        rate: Some(RATE),
        seed: u64::from(trial),
        timeout: TIMEOUT,
        ..Load::new(Operation::Put, Amount::Seconds(SECONDS))
    };
    let running = bench.generator.start(&load, &cluster.endpoints(), &bench.dir)?;
    std::thread::sleep(BEFORE);
    let leader = bench.probe.leader(&mut cluster)?;
    let ended = Instant::now();
    cluster.signal(leader, signal)?;
    let mut survivors = cluster.endpoints();
    survivors.remove(leader);
    let back = bench.probe.first_answer(&survivors, Ask::Put, ended)?;
    let report = running.finish()?;
    // The load generator knows of a gap by the success that ends it. Where none came as long as it went on asking, another client's counts.
    let gap_ms = if back < AFTER {
        report.longest_gap_ms
    } else {
        report.longest_gap_ms.max(back.as_secs_f64() * 1000.0)
    };
    let sample = Sample::new(&system.name, name, trial)
        .with("longest_gap_ms", gap_ms)
        .with("back_ms", back.as_secs_f64() * 1000.0)
        .with("failed", report.failed)
        .with("succeeded", report.total)
        .with("start_ms", start.as_secs_f64() * 1000.0);
    eprintln!(
        "{name}, trial {trial}, {:<10} longest gap {:>7.1} ms, {} writes failed; first write {:.0} ms after the start",
        system.name,
        gap_ms,
        report.failed,
        start.as_secs_f64() * 1000.0,
    );
    bench.results.samples.push(Sample {
        load: vec![report.raw],
        ..sample
    });
    Ok(())
}
