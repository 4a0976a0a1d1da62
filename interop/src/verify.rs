//! The end of a run: asks every member what was committed and what there is, demands that all say the same, and checks the history of
//! the clients against it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use etcd_client::{Client, EventType, GetOptions, WatchOptions};

use crate::Result;
use crate::history::committed::Committed;
use crate::history::search::Searched;
use crate::history::watched::{self, Note};
use crate::history::{Ask, Call, Moment, Outcome, Violation, check, doctored, doctored_watchers, leases};
use crate::load::{LAST, connect, seen_by, unfilled};
use crate::options::Options;

/// A key that no client uses: its revision is the last.
const END: &str = "end";
/// Where others than the clients may write, and nothing is checked but that all members have the same.
const OTHERS: &[u8] = b"other";
/// An answer that took longer was under way during a fault.
const LONG: Moment = 1_000_000_000;

/// What one member says.
#[derive(Clone)]
struct Testimony {
    committed: Committed,
    there: BTreeMap<String, (String, i64)>,
    hash: u32,
}

/// The program's exit code if what was checked is wrong; that it could not be checked has another.
pub const WRONG: i32 = 3;

/// Checks everything, and says in some lines what there was to check. An `Err` inside says what is wrong.
pub async fn run(options: &Options, history: &str) -> Result<std::result::Result<(), Violation>> {
    let calls: Vec<Call> = read(history)?;
    let patience = options.patience;
    let last = patiently(patience, "the last write", || write_last(&options.endpoints)).await?;
    let mut all = Vec::new();
    for endpoint in &options.endpoints {
        all.push(patiently(patience, endpoint, || ask(endpoint, last)).await?);
    }
    let mut seen = Vec::new();
    for watcher in 0..options.endpoints.len() {
        let mut notes: Vec<Note> = read(&seen_by(history, watcher))?;
        notes.retain(|note| !(options.learners && note.is_of_a_learner()));
        for note in &mut notes {
            if let Note::Answer(seen) = note {
                seen.retain(|change| !change.key.as_bytes().starts_with(OTHERS));
            }
        }
        seen.push(notes);
    }
    let searched = match judge(&options.endpoints, &all, &calls, &seen)? {
        Ok(searched) => searched,
        violation => return Ok(violation.map(drop)),
    };
    searched.demand()?;
    if options.doctor {
        doctor(&calls, &all, &seen, &options.endpoints)?;
    }
    Ok(Ok(()))
}

/// The revision that all watchers had to see.
fn last_of_all(calls: &[Call]) -> Option<i64> {
    let is_last = |call: &&Call| matches!(&call.ask, Ask::Put { key, .. } if key == LAST);
    calls.iter().filter(is_last).find_map(Call::acknowledged)
}

/// Whether all that was said fits together. An `Err` outside says that this cannot be judged.
fn judge(
    endpoints: &[String],
    all: &[Testimony],
    calls: &[Call],
    seen: &[Vec<Note>],
) -> Result<std::result::Result<Searched, Violation>> {
    let last = last_of_all(calls).ok_or("the load did not come to its end")?;
    let judged = || {
        let committed = agreed(endpoints, all)?;
        let searched = check(calls, committed)?;
        let watched = seen.iter().map(|notes| watched::check(notes, committed, last));
        let watched = watched.collect::<std::result::Result<Vec<_>, _>>()?;
        print_summary(calls, committed, &searched);
        let counts = watched.iter();
        let counts: Vec<String> = counts
            .map(|watched| format!("{} ({} breaks)", watched.changes, watched.resumed))
            .collect();
        println!("changes that the watchers saw: {}", counts.join(", "));
        Ok(searched)
    };
    Ok(judged())
}

/// The lines of a file.
fn read<T: FromStr<Err = String>>(path: &str) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text
        .lines()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?)
}

fn print_summary(calls: &[Call], committed: &Committed, searched: &Searched) {
    let count = |matches: fn(&Call) -> bool| calls.iter().filter(|call| matches(call)).count();
    println!(
        "{} calls: {} ok ({} after more than a second), {} failed, {} unknown; {} revisions",
        calls.len(),
        count(|call| matches!(call.outcome, Outcome::Ok { .. })),
        count(|call| matches!(call.outcome, Outcome::Ok { .. }) && call.returned - call.invoked > LONG),
        count(|call| matches!(call.outcome, Outcome::Failed(_))),
        count(|call| matches!(call.outcome, Outcome::Unknown(_))),
        committed.changes.len(),
    );
    let Searched {
        eligible,
        covered,
        not_whole,
    } = searched;
    println!("{covered} of {eligible} calls searched for a linearization; not to their end: {not_whole:?}");
    let several = committed.changes.values().filter(|changes| changes.len() > 1);
    let (writes, deletions): (Vec<_>, Vec<_>) = several.partition(|changes| changes[0].1.is_some());
    println!(
        "{} revisions that write several keys, and {} that end a lease with several; {} keys were attached to leases",
        writes.len(),
        deletions.len(),
        calls.iter().filter_map(leases::attachment).count(),
    );
}

/// Tries again and again for a while; the error is the last one.
async fn patiently<T, F: Future<Output = Result<T>>>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let error = match tokio::time::timeout(patience / 2, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no end".to_owned(),
        };
        if begun.elapsed() > patience {
            return Err(format!("{what}: {error}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all leases have run out, and writes once more: the revision.
async fn write_last(endpoints: &[String]) -> Result<i64> {
    let mut client = Client::connect(endpoints, None).await?;
    let leased = client
        .get("l", Some(GetOptions::new().with_prefix().with_count_only()))
        .await?
        .count();
    if leased > 0 {
        return Err(format!("{leased} keys have not vanished with their leases").into());
    }
    let answer = client.put(END, END, None).await?;
    Ok(answer.header().ok_or("no header")?.revision())
}

/// Everything that a member knows up to revision `last`.
async fn ask(endpoint: &str, last: i64) -> Result<Testimony> {
    let client = connect(endpoint).await;
    let everything = Some(GetOptions::new().with_all_keys().with_revision(last));
    let answer = client
        .kv_client()
        .max_decoding_message_size(usize::MAX)
        .get("", everything)
        .await?;
    let kvs = answer
        .kvs()
        .iter()
        .filter(|kv| kv.key() != END.as_bytes() && !kv.key().starts_with(OTHERS));
    let there = kvs
        .map(|kv| (unfilled(kv.key()), (unfilled(kv.value()), kv.mod_revision())))
        .collect();
    let hash = client.maintenance_client().hash_kv(last).await?.hash();
    let committed = watch(&client, last).await?;
    Ok(Testimony {
        committed,
        there,
        hash,
    })
}

/// All changes up to revision `last`.
async fn watch(client: &Client, last: i64) -> Result<Committed> {
    let options = WatchOptions::new()
        .with_all_keys()
        .with_start_revision(1)
        .with_fragment();
    let mut stream = client
        .watch_client()
        .max_decoding_message_size(usize::MAX)
        .watch("", Some(options))
        .await?;
    let mut committed = Committed::up_to(last);
    while let Some(answer) = stream.message().await? {
        if answer.canceled() {
            return Err(format!("the watch was cancelled: {}", answer.cancel_reason()).into());
        }
        for event in answer.events() {
            let kv = event.kv().ok_or("an event without a key")?;
            let revision = kv.mod_revision();
            if kv.key().starts_with(OTHERS) {
                continue;
            }
            if kv.key() != END.as_bytes() {
                let value = (event.event_type() == EventType::Put).then(|| unfilled(kv.value()));
                committed.push(revision, unfilled(kv.key()), value);
            } else if revision == last {
                return Ok(committed);
            }
        }
    }
    Err("the watch ended early".into())
}

/// What all members say; an error if they do not say the same, or one contradicts itself.
fn agreed<'a>(endpoints: &[String], all: &'a [Testimony]) -> std::result::Result<&'a Committed, Violation> {
    for (endpoint, testimony) in endpoints.iter().zip(all) {
        let last = testimony.committed.last();
        let there = &testimony.there;
        let odd = there
            .iter()
            .find(|(key, (value, written))| last.get(key.as_str()) != Some(&(value.as_str(), *written)));
        if odd.is_some() || there.len() != last.len() {
            return Err(format!(
                "{endpoint} holds {} keys, and says that {} were written and stayed; not the same is {odd:?}",
                there.len(),
                last.len()
            ));
        }
        if testimony.committed != all[0].committed {
            return Err(format!(
                "{endpoint} says that other changes were committed than {}",
                endpoints[0]
            ));
        }
        if testimony.hash != all[0].hash {
            return Err(format!("{endpoint} has another hash than {}", endpoints[0]));
        }
    }
    Ok(&all[0].committed)
}

type Disagree = fn(&mut Testimony);

/// Members that do not agree, each in one way.
const DISAGREEING: [(&str, Disagree); 4] = [
    ("a member has another hash", |said| said.hash ^= 1),
    ("a member lacks a key", |said| drop(said.there.pop_first())),
    ("a member holds an old value", |said| {
        if let Some((_, written)) = said.there.values_mut().next() {
            *written -= 1;
        }
    }),
    ("a member has other changes", |said| {
        let revision = said.committed.revision;
        said.committed.push(revision, "k".into(), None);
    }),
];

/// Shows that the checks object to what is wrong.
fn doctor(calls: &[Call], all: &[Testimony], seen: &[Vec<Note>], endpoints: &[String]) -> Result {
    let committed = &all[0].committed;
    let (mut caught, mut missed) = doctored::check_all(calls, committed);
    let last = last_of_all(calls).ok_or("the load did not come to its end")?;
    for notes in seen {
        let (objections, unnoticed) = doctored_watchers::check_all(notes, committed, last);
        caught.extend(objections);
        missed.extend(unnoticed);
    }
    for (what, disagree) in DISAGREEING {
        for member in 0..all.len() {
            let mut all = all.to_vec();
            disagree(&mut all[member]);
            match agreed(endpoints, &all) {
                Err(objection) => caught.push(format!("{what}: {objection}")),
                Ok(_) => missed.push(format!("{what}: no objection to {}", endpoints[member])),
            }
        }
    }
    println!("objects to {} histories that were tampered with", caught.len());
    for objection in &caught {
        println!("  {objection}");
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(missed.join("\n").into())
    }
}
