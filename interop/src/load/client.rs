//! One client: one call after the other through `etcd-client`, each noted with its times. What an error means is decided here: only an
//! answer that says "not carried out" in the words of the API counts as that; all else leaves the call's fate open.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use tokio::sync::watch;

use super::Shared;
use super::choice::Mind;
use crate::history::{Ask, Call, NO_LEARNERS, NO_LEASE, Outcome, Told};

/// Answers that say that a write was not carried out and will not be.
const NOT_DONE: [&str; 7] = [
    NO_LEASE,
    NO_LEARNERS,
    "etcdserver: no leader",
    "etcdserver: leader changed",
    "etcdserver: too many requests",
    "etcdserver: server stopped",
    "etcdserver: mvcc: database space exceeded",
];

/// Who a client is.
pub struct Plan {
    /// Its number.
    pub number: usize,
    /// The endpoint that it begins with.
    pub member: usize,
    /// How long it waits for an answer.
    pub patience: Duration,
    /// Whether it goes on to another endpoint after a failure.
    pub roams: bool,
    /// Its source of chance.
    pub seed: u64,
}

/// Asks until it is told to stop.
pub(super) async fn run(plan: Plan, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut mind = Mind::new(plan.number, plan.seed);
    let mut member = plan.member;
    let mut connection = connect(&shared.endpoints[member]).await;
    while !*stopped.borrow() {
        let ask = mind.next(shared.asked.fetch_add(1, Ordering::Relaxed));
        let invoked = shared.now();
        let asked = tokio::time::timeout(plan.patience, ask_once(&mut connection, &ask, &shared));
        let answer = tokio::select! {
            answer = asked => answer,
            // What is under way then stays open.
            _ = stopped.wait_for(|stopped| *stopped) => Ok(Err(Error::Internal("the load ended".into()))),
        };
        let outcome = outcome(answer);
        let failed = !matches!(outcome, Outcome::Ok { .. });
        let call = Call {
            client: plan.number,
            member,
            invoked,
            returned: shared.now(),
            ask,
            outcome,
        };
        shared.note(&call);
        if let Outcome::Ok { told, .. } = &call.outcome {
            mind.learn(&call.ask, told);
        }
        if failed {
            if plan.roams {
                member = (member + 1) % shared.endpoints.len();
            }
            connection = connect(&shared.endpoints[member]).await;
        }
        tokio::time::sleep(mind.pause()).await;
    }
}

/// A connection of its own. It is made when it is first used, so this waits for nobody.
pub async fn connect(endpoint: &str) -> Client {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
    Client::connect([endpoint], Some(options))
        .await
        .expect("the endpoint is a URL")
}

pub(super) fn outcome(answer: Result<Result<(i64, Told), Error>, tokio::time::error::Elapsed>) -> Outcome {
    let error = match answer {
        Ok(Ok((revision, told))) => return Outcome::Ok { revision, told },
        Ok(Err(error)) => error,
        Err(_) => return Outcome::Unknown("no answer in time".into()),
    };
    if let Error::GRpcStatus(status) = &error
        && NOT_DONE.contains(&status.message())
    {
        return Outcome::Failed(status.message().to_owned());
    }
    // So the library says that a renewal was answered without any time left.
    if matches!(&error, Error::LeaseKeepAliveError(why) if why == "lease not found") {
        return Outcome::Failed(NO_LEASE.to_owned());
    }
    Outcome::Unknown(error.to_string().replace('\n', " "))
}

/// A value as it is stored: filled up with dots.
fn filled(value: &str, bytes: usize) -> String {
    format!("{value:.<bytes$}")
}

/// A stored value without what it was filled up with.
pub fn unfilled(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('.').to_owned()
}

pub(super) async fn ask_once(client: &mut Client, ask: &Ask, shared: &Shared) -> Result<(i64, Told), Error> {
    let bytes = shared.value_bytes;
    match ask {
        Ask::Put { key, value, lease } => {
            let answer = client
                .put(
                    key.as_str(),
                    filled(value, bytes),
                    Some(PutOptions::new().with_lease(*lease)),
                )
                .await?;
            Ok((revision(answer.header()), Told::Done))
        }
        Ask::Many { pairs } => {
            let puts = pairs.iter();
            let puts: Vec<TxnOp> = puts
                .map(|(key, value)| TxnOp::put(key.as_str(), filled(value, bytes), None))
                .collect();
            let answer = client.txn(Txn::new().and_then(puts)).await?;
            Ok((revision(answer.header()), Told::Done))
        }
        Ask::Delete { key } => {
            let answer = client.delete(key.as_str(), None).await?;
            Ok((revision(answer.header()), Told::Deleted(answer.deleted())))
        }
        Ask::Get { key, serializable } => {
            let options = if *serializable || shared.stale_reads {
                GetOptions::new().with_serializable()
            } else {
                GetOptions::new()
            };
            let answer = client.get(key.as_str(), Some(options)).await?;
            Ok((revision(answer.header()), Told::Saw(first(answer.kvs()))))
        }
        Ask::Swap { key, expected, new } => {
            swap(client, key, expected.as_deref(), filled(new, bytes), bytes).await
        }
        Ask::Grant { ttl } => {
            let answer = client.lease_grant(*ttl, None).await?;
            Ok((revision(answer.header()), Told::Lease(answer.id(), answer.ttl())))
        }
        Ask::Renew { lease } => {
            // The first renewal's answer is not shown, so a second one is asked for.
            let (mut keeper, mut answers) = client.lease_keep_alive(*lease).await?;
            keeper.keep_alive().await?;
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Error::LeaseKeepAliveError("no answer".into()))?;
            Ok((revision(answer.header()), Told::Lease(answer.id(), answer.ttl())))
        }
        Ask::Revoke { lease } => {
            let answer = client.lease_revoke(*lease).await?;
            Ok((revision(answer.header()), Told::Done))
        }
    }
}

async fn swap(
    client: &mut Client,
    key: &str,
    expected: Option<&str>,
    new: String,
    bytes: usize,
) -> Result<(i64, Told), Error> {
    let compare = match expected {
        Some(value) => Compare::value(key, CompareOp::Equal, filled(value, bytes)),
        None => Compare::create_revision(key, CompareOp::Equal, 0),
    };
    let txn = Txn::new()
        .when([compare])
        .and_then([TxnOp::put(key, new, None)])
        .or_else([TxnOp::get(key, None)]);
    let answer = client.txn(txn).await?;
    let told = match answer.op_responses().first() {
        Some(TxnOpResponse::Put(_)) if answer.succeeded() => Told::Done,
        Some(TxnOpResponse::Get(found)) if !answer.succeeded() => Told::Saw(first(found.kvs())),
        other => return Err(Error::Internal(format!("a swap was answered with {other:?}"))),
    };
    Ok((revision(answer.header()), told))
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision())
}

fn first(kvs: &[etcd_client::KeyValue]) -> Option<(String, i64)> {
    kvs.first().map(|kv| (unfilled(kv.value()), kv.mod_revision()))
}
