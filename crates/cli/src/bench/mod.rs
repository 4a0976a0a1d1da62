//! `quorate bench`: a load generator for any server of the etcd v3 API. Here is what a run consists of; the parts are in the
//! modules, from the pacing, which is pure arithmetic, to the connections.

pub mod args;
mod client;
mod link;
mod pace;
mod report;
mod tally;
mod wire;
mod work;
mod worker;

use std::io::IsTerminal;
use std::time::Duration;

use args::{BenchCommand, LoadArgs};
use client::Run;
use pace::Pace;
use report::Report;
use work::Kind;
use worker::{Load, Outcome, Workers};

use crate::args::Output;
use crate::client::progress::{Done, Progress};
use crate::client::{Failure, endpoint_urls};
use crate::output;

/// `quorate bench …`
pub async fn run(command: BenchCommand) -> Result<(), Failure> {
    let (kind, load) = match command {
        BenchCommand::Put(load) => (Kind::Put, load),
        BenchCommand::Range(range) => {
            let kind = Kind::Range {
                serializable: range.serializable,
            };
            (kind, range.load)
        }
    };
    unary(kind, &load).await
}

/// Measures operations that are one call each.
async fn unary(kind: Kind, args: &LoadArgs) -> Result<(), Failure> {
    let endpoints = endpoint_urls(&args.endpoints)?;
    let pace = args.pace();
    let load = Load {
        kind,
        keys: args.keys()?,
        value_size: args.value_size as usize,
        endpoints: endpoints.clone(),
        clients: args.clients as usize,
        connections: args.connections as usize,
        // A thread without a connection would have nothing to do.
        threads: args.threads.min(args.connections) as usize,
        timeout: args.timeout,
        dial_timeout: args.dial_timeout,
        seed: args.seed,
    };
    let mut workers = Workers::start(&load).await?;
    let mut bar = Bar::new();
    if args.warm_up > 0 {
        let warm_up = Pace::unpaced(args.warm_up);
        let outcome = workers
            .run(warm_up, |run| bar.show("warming up", run), interrupted())
            .await?;
        if outcome.interrupted {
            return Err(Failure::refused(
                "interrupted while warming up: nothing was measured",
            ));
        }
    }
    let outcome = workers
        .run(pace, |run| bar.show(kind.name(), run), interrupted())
        .await?;
    drop(bar);
    workers.stop();
    let answered = outcome.tally.succeeded() + outcome.tally.failed();
    let report = Report {
        load: args,
        endpoints: &endpoints,
        kind,
        not_started: if outcome.interrupted {
            0
        } else {
            pace.left_over(answered)
        },
        outcome: &outcome,
    };
    match args.output {
        Output::Json => output::print(report.json().as_bytes()),
        Output::Table => output::print(report.table(output::styled()).as_bytes()),
    }
    verdict(&outcome)
}

/// A run of which nothing succeeded has failed, and its exit code says how.
fn verdict(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.tally.succeeded() > 0 {
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
        let by_time = run.pace.duration.map(|all| Done {
            done: seconds(elapsed.min(all)),
            all: seconds(all),
        });
        // Whichever ends it first.
        let share = |done: &Done| (done.done * 1_000_000) / done.all.max(1);
        let done = by_total.into_iter().chain(by_time).max_by_key(share);
        progress.show(&format!("{what}, {rate:.0}/s"), done);
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}
