//! `quorate bench`: a load generator for any server of the etcd v3 API. Here is what a run consists of; the parts are in the
//! modules, from the pacing, which is pure arithmetic, to the connections.

mod alarm;
pub mod args;
mod client;
mod job;
mod link;
mod pace;
mod report;
mod scan;
mod tally;
mod watch;
mod wire;
mod work;
mod worker;

use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use args::{BenchCommand, Form, LoadArgs};
use client::Run;
use pace::Pace;
use report::Report;
use work::{Kind, Stamp};
use worker::{Load, Outcome, Workers};

use crate::client::progress::{Done, Progress};
use crate::client::{Failure, endpoint_urls};
use crate::output;

/// `quorate bench …`
pub async fn run(command: BenchCommand) -> Result<(), Failure> {
    let (kind, watchers, args) = match command {
        BenchCommand::Put(load) => (Kind::Put, 0, load),
        BenchCommand::Range(range) => {
            let kind = Kind::Range {
                serializable: range.serializable,
            };
            (kind, 0, range.load)
        }
        BenchCommand::Txn(load) => (Kind::Txn, 0, load),
        BenchCommand::Watch(watch) => (Kind::Watched, watch.watchers, watch.load),
        BenchCommand::Lease(lease) => {
            let kind = Kind::Lease {
                renewals: lease.renewals,
            };
            (kind, 0, lease.load)
        }
    };
    let load = plan(kind, watchers, &args)?;
    let outcome = measure(&load, &args).await?;
    let report = Report {
        load: &load,
        args: &args,
        outcome: &outcome,
    };
    match args.output {
        Form::Json => output::print(report.json().as_bytes()),
        Form::Table => output::print(report.table(output::styled()).as_bytes()),
    }
    verdict(&load, &outcome)
}

fn plan(kind: Kind, watchers: u32, args: &LoadArgs) -> Result<Load, Failure> {
    if kind == Kind::Watched && (args.value_size as usize) < Stamp::SIZE {
        return Err(Failure::usage(format!(
            "--value-size: what is watched carries its time in the first {} bytes",
            Stamp::SIZE
        )));
    }
    Ok(Load {
        kind,
        keys: args.keys()?,
        value_size: args.value_size as usize,
        endpoints: endpoint_urls(&args.endpoints)?,
        clients: args.clients as usize,
        watchers: watchers as usize,
        connections: args.connections as usize,
        // A thread without a connection would have nothing to do.
        threads: args.threads.min(args.connections) as usize,
        timeout: args.timeout,
        dial_timeout: args.dial_timeout,
        seed: args.seed,
    })
}

/// Dials, warms up, and does what counts.
async fn measure(load: &Load, args: &LoadArgs) -> Result<Outcome, Failure> {
    let mut workers = Workers::start(load).await?;
    let mut bar = Bar::new();
    let mark = mark();
    if args.warm_up > 0 {
        let warm_up = Pace::unpaced(args.warm_up);
        let show = |run: &Run| bar.show("warming up", run);
        let outcome = workers.run(warm_up, mark, show, interrupted()).await?;
        if outcome.interrupted {
            return Err(Failure::refused(
                "interrupted while warming up: nothing was measured",
            ));
        }
        if load.watchers > 0 {
            // Its events do not count, and are not in the way of those that do.
            let mut outcome = outcome;
            workers.drain(&mut outcome).await?;
        }
    }
    let show = |run: &Run| bar.show(load.kind.name(), run);
    let mut outcome = workers
        .run(args.pace(), mark.wrapping_add(1), show, interrupted())
        .await?;
    if load.watchers > 0 && !outcome.interrupted {
        workers.drain(&mut outcome).await?;
    }
    workers.stop();
    Ok(outcome)
}

/// Tells the writes of this run from all others.
fn mark() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since_1970.as_nanos() as u64).rotate_left(16) ^ u64::from(std::process::id())
}

/// A run of which nothing succeeded has failed, and its exit code says how.
fn verdict(load: &Load, outcome: &Outcome) -> Result<(), Failure> {
    if outcome.tally.succeeded() > 0 {
        if load.watchers > 0 && outcome.tally.events.latency.is_empty() {
            return Err(Failure::refused("no watcher received anything"));
        }
        return Ok(());
    }
    let most = outcome.tally.errors.iter().max_by_key(|(_, count)| **count);
    Err(match most {
        Some((message, _)) => Failure::refused(format!("no operation succeeded: {message}")),
        None => Failure::refused("no operation was answered"),
    })
}

/// Comes with Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the program by itself.
        std::future::pending::<()>().await;
    }
}

/// How far the run is, on a terminal; nowhere else, since lines of it would be no use to anybody.
struct Bar(Option<Progress>);

impl Bar {
    fn new() -> Bar {
        Bar(std::io::stderr().is_terminal().then(Progress::new))
    }

    fn show(&mut self, what: &str, run: &Run) {
        let Some(progress) = &mut self.0 else { return };
        let begun = run.begun();
        let elapsed = run.start.elapsed();
        let rate = begun as f64 / elapsed.as_secs_f64().max(0.001);
        let by_total = run.pace.total.map(|all| Done { done: begun, all });
        // As many as it will be if it goes on like this.
        let by_time = run.pace.duration.map(|all| Done {
            done: begun,
            all: (rate * all.as_secs_f64()) as u64,
        });
        // Whichever ends it first.
        let done = by_total.into_iter().chain(by_time).min_by_key(|done| done.all);
        progress.show(&format!("{what}, {rate:.0}/s"), done);
    }
}
