//! Clients that never stop writing, what they know of their writes, and what must be true of the stores afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{HashKvRequest, PutRequest, RangeRequest};
use quorate_proto::mvccpb::KeyValue;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::{Server, wait_for};

const WRITERS: usize = 9;

/// Writers at work. They need a runtime with several threads, or a test that waits often.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Vec<Write>>>,
}

impl Load {
    /// Starts writers that go from one of these URLs to the next whenever a write fails. Not all need to be reachable.
    pub fn start(urls: &[String]) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..WRITERS)
            .map(|id| tokio::spawn(write(id, urls.to_vec(), stop.clone(), done.clone())))
            .collect();
        Load { stop, done, writers }
    }

    /// Acknowledged writes so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged: a moment told by what the clients got done rather than by a clock.
    pub async fn go_on_for(&self, writes: u64) {
        let target = self.done() + writes;
        wait_for(&format!("{writes} more writes"), async || {
            (self.done() >= target).then_some(())
        })
        .await;
    }

    /// Ends the writers and gives all that they wrote.
    pub async fn stop(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        for writer in self.writers {
            writes.extend(writer.await.expect("a writer"));
        }
        writes
    }
}

/// Prints how the writes ended.
pub fn count(writes: &[Write]) {
    let count = |fate: fn(&Fate) -> bool| writes.iter().filter(|write| fate(&write.fate)).count();
    println!(
        "{} writes: {} acknowledged, {} refused, {} of unknown fate",
        writes.len(),
        count(|fate| matches!(fate, Fate::Done(_))),
        count(|fate| *fate == Fate::NotDone),
        count(|fate| *fate == Fate::Unknown),
    );
}

/// What a writer knows of one write.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    pub value: String,
    pub begun: Instant,
    pub ended: Instant,
    pub fate: Fate,
}

/// What became of a write, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged, with this revision.
    Done(i64),
    /// The server said that it was not done.
    NotDone,
    /// Anything.
    Unknown,
}

/// Writes until told to stop, one write at a time: new keys, and every fourth time its own one key again.
async fn write(id: usize, urls: Vec<String>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Vec<Write> {
    let channels: Vec<Channel> = urls
        .into_iter()
        .map(|url| {
            let endpoint = Endpoint::from_shared(url).expect("a URL");
            endpoint
                .connect_timeout(Duration::from_secs(1))
                .timeout(Duration::from_secs(8))
                .connect_lazy()
        })
        .collect();
    let mut writes = Vec::new();
    let mut n = 0_u64;
    let mut at = id;
    while !stop.load(Ordering::Relaxed) {
        let key = if n.is_multiple_of(4) {
            format!("again/{id}")
        } else {
            format!("new/{id}/{n:06}")
        };
        let value = format!("{id}:{n}");
        let request = PutRequest {
            key: key.clone().into_bytes().into(),
            value: value.clone().into_bytes().into(),
            ..PutRequest::default()
        };
        let begun = Instant::now();
        let answer = KvClient::new(channels[at % channels.len()].clone())
            .put(request)
            .await;
        let fate = match &answer {
            Ok(answer) => Fate::Done(answer.get_ref().header.as_ref().expect("a header").revision),
            Err(status) if status.message() == "etcdserver: no leader" => Fate::NotDone,
            Err(_) => Fate::Unknown,
        };
        writes.push(Write {
            key,
            value,
            begun,
            ended: Instant::now(),
            fate,
        });
        match fate {
            Fate::Done(_) => {
                done.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                // Elsewhere, and not in a busy loop while nobody serves.
                at += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        n += 1;
    }
    writes
}

/// All stores are equal; what was acknowledged is in them, what was refused is not.
pub async fn check_stores(servers: &[&Server], writes: &[Write]) {
    let revision = wait_for("all stores to be at one revision", async || {
        let mut revisions = BTreeSet::new();
        for server in servers {
            revisions.insert(server.status().await?.header?.revision);
        }
        (revisions.len() == 1)
            .then(|| revisions.first().copied())
            .flatten()
    })
    .await;
    let mut hashes = BTreeSet::new();
    let mut contents: Vec<BTreeMap<String, KeyValue>> = Vec::new();
    for server in servers {
        let channel = server.try_channel().await.expect("a connection");
        let answer = MaintenanceClient::new(channel)
            .hash_kv(HashKvRequest { revision })
            .await;
        hashes.insert(answer.expect("HashKV").into_inner().hash);
        contents.push(all_keys(server).await);
    }
    assert_eq!(
        hashes.len(),
        1,
        "the stores' hashes at revision {revision} are equal"
    );
    assert!(
        contents.iter().all(|content| *content == contents[0]),
        "the stores' keys are equal"
    );
    let store = &contents[0];

    let mut fates: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in writes {
        fates.entry(&write.key).or_default().push(write);
    }
    for (key, writes) in &fates {
        let present = store.get(*key);
        let newest = writes
            .iter()
            .rposition(|write| matches!(write.fate, Fate::Done(_)));
        // One writer writes a key, one write after the other. So what is there is the newest acknowledged write, or
        // one of unknown fate (an older one of those may yet have been done later than it was given up).
        let possible: Vec<&str> = writes
            .iter()
            .enumerate()
            .filter(|(at, write)| Some(*at) == newest || write.fate == Fate::Unknown)
            .map(|(_, write)| write.value.as_str())
            .collect();
        match present {
            None => assert!(newest.is_none(), "{key} was acknowledged and is not there"),
            Some(pair) => {
                let value = String::from_utf8_lossy(&pair.value);
                assert!(
                    possible.contains(&&*value),
                    "{key} is {value}, and can only be one of {possible:?}"
                );
                if let Some(Fate::Done(revision)) = newest.map(|at| writes[at].fate) {
                    assert!(
                        pair.mod_revision >= revision,
                        "{key}: the acknowledged revision or a later one"
                    );
                    if *value == writes[newest.unwrap_or_default()].value {
                        assert_eq!(
                            pair.mod_revision, revision,
                            "{key} has the revision that was acknowledged"
                        );
                    }
                }
            }
        }
    }
    for key in store.keys() {
        assert!(fates.contains_key(key.as_str()), "{key} was never written");
    }
}

pub async fn all_keys(server: &Server) -> BTreeMap<String, KeyValue> {
    let request = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        serializable: true,
        ..RangeRequest::default()
    };
    let answer = server
        .kv()
        .await
        .range(request)
        .await
        .expect("a range")
        .into_inner();
    assert_eq!(answer.count, answer.kvs.len() as i64);
    answer
        .kvs
        .into_iter()
        .map(|pair| (String::from_utf8_lossy(&pair.key).into_owned(), pair))
        .collect()
}

/// Acknowledged revisions are distinct, and a write that began after another one's end has the higher revision.
pub fn check_order(writes: &[Write]) {
    let done: Vec<(&Write, i64)> = writes
        .iter()
        .filter_map(|write| match write.fate {
            Fate::Done(revision) => Some((write, revision)),
            _ => None,
        })
        .collect();
    let distinct: BTreeSet<i64> = done.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(distinct.len(), done.len(), "no revision was given to two writes");
    let (mut by_begin, mut by_end) = (done.clone(), done);
    by_begin.sort_by_key(|(write, _)| write.begun);
    by_end.sort_by_key(|(write, _)| write.ended);
    let mut ended = by_end.iter().peekable();
    let mut highest = 0;
    for (write, revision) in &by_begin {
        while let Some((_, earlier)) = ended.next_if(|(other, _)| other.ended < write.begun) {
            highest = highest.max(*earlier);
        }
        assert!(
            *revision > highest,
            "{} got revision {revision}, though {highest} was acknowledged before it began",
            write.key
        );
    }
}
