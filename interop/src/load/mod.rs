//! Clients that never stop: each asks, notes what it was told, and asks again, while servers die and networks break. What is asked
//! is in [`choice`], how in [`client`]. Others watch ([`watcher`]).
//!
//! The program is told on its standard input what to do: `count` prints how many calls were answered, refused and left open so far, and
//! how many of those answered were writes;
//! `stop`, or the end of the input, ends it: the clients stop, one last value is written, and the watchers follow until they have seen it.

pub use client::{connect, unfilled};

mod choice;
mod client;
mod watcher;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use crate::Result;
use crate::history::{Ask, Call, Moment, Outcome};
use crate::options::Options;

/// How long most clients wait for an answer, and how long the patient ones do: longer than any fault lasts.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(20)];
/// Clients that stay with one member, by how patient they are, and those that go on to the next one after a failure.
const FAITHFUL: [usize; 2] = [2, 1];
const ROAMING: usize = 3;
/// A key that only the end of a load writes: what comes last.
pub const LAST: &str = "the-last";

/// What all clients share.
struct Shared {
    endpoints: Vec<String>,
    begun: Instant,
    history: Mutex<BufWriter<File>>,
    /// Calls that were begun.
    asked: AtomicU64,
    /// Answered, refused, open; and acknowledged writes.
    counts: [AtomicU64; 4],
    /// Bytes that a value is filled up to.
    value_bytes: usize,
    /// Whether all reads ask for what a member has, however old, and are noted as if they had asked for the newest.
    stale_reads: bool,
}

impl Shared {
    fn now(&self) -> Moment {
        Moment::try_from(self.begun.elapsed().as_nanos()).unwrap_or(Moment::MAX)
    }

    fn note(&self, call: &Call) {
        let kind = match call.outcome {
            Outcome::Ok { .. } => 0,
            Outcome::Failed(_) => 1,
            Outcome::Unknown(_) => 2,
        };
        let mut history = self
            .history
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // Nothing that follows would mean anything.
        writeln!(history, "{call}").expect("the history is written");
        drop(history);
        self.counts[kind].fetch_add(1, Ordering::Relaxed);
        if call.acknowledged().is_some() {
            self.counts[3].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn print_counts(&self) {
        let counts = self
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed).to_string());
        println!("{}", counts.join(" "));
    }
}

/// Makes the load until it is told to stop.
pub async fn run(options: &Options, history: &str) -> Result {
    let shared = Arc::new(Shared {
        endpoints: options.endpoints.clone(),
        begun: Instant::now(),
        history: Mutex::new(BufWriter::new(File::create(history)?)),
        asked: AtomicU64::new(0),
        counts: Default::default(),
        value_bytes: options.value_bytes,
        stale_reads: options.stale_reads,
    });
    let (stop, stopped) = watch::channel(false);
    let mut clients = tokio::task::JoinSet::new();
    for plan in plans(options) {
        clients.spawn(client::run(plan, shared.clone(), stopped.clone()));
    }
    let (tell, last) = watch::channel(None);
    let mut watchers = tokio::task::JoinSet::new();
    for member in 0..options.endpoints.len() {
        watchers.spawn(watcher::run(
            member,
            seen_by(history, member),
            shared.clone(),
            last.clone(),
            options.patience,
        ));
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "count" => shared.print_counts(),
            "stop" => break,
            other => return Err(format!("what is {other:?}").into()),
        }
    }
    stop.send(true)?;
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let written = write_last(&shared, plans(options).len());
    let written = tokio::time::timeout(options.patience, written).await;
    tell.send(Some(written.map_err(|_| "the last value could not be written")?))?;
    while let Some(ended) = watchers.join_next().await {
        ended??;
    }
    shared
        .history
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .flush()?;
    shared.print_counts();
    Ok(())
}

/// Writes, as the client with this number, until it is acknowledged: the revision.
async fn write_last(shared: &Shared, client: usize) -> i64 {
    for attempt in 0.. {
        let ask = Ask::Put {
            key: LAST.into(),
            value: format!("v{client}.{attempt}"),
            lease: 0,
        };
        let member = attempt % shared.endpoints.len();
        let mut connection = connect(&shared.endpoints[member]).await;
        let invoked = shared.now();
        let asked = client::ask_once(&mut connection, &ask, shared);
        let answer = tokio::time::timeout(PATIENCE[0], asked).await;
        let call = Call {
            client,
            member,
            invoked,
            returned: shared.now(),
            ask,
            outcome: client::outcome(answer),
        };
        shared.note(&call);
        if let Some(revision) = call.acknowledged() {
            return revision;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("it is tried for ever")
}

/// The file with what a watcher saw.
pub fn seen_by(history: &str, watcher: usize) -> String {
    format!("{history}.seen-{watcher}")
}

/// Who the clients are.
fn plans(options: &Options) -> Vec<client::Plan> {
    let mut plans = Vec::new();
    for member in 0..options.endpoints.len() {
        for (patience, count) in PATIENCE.into_iter().zip(FAITHFUL) {
            plans.extend((0..count).map(|_| (member, patience, false)));
        }
    }
    plans.extend((0..ROAMING).map(|number| (number % options.endpoints.len(), PATIENCE[0], true)));
    let plan = |(number, (member, patience, roams))| client::Plan {
        number,
        member,
        patience,
        roams,
        seed: options.seed.wrapping_add(number as u64),
    };
    plans.into_iter().enumerate().map(plan).collect()
}
