//! Single requests: who leads, and since when a cluster that was just started, or started again, answers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Cluster;

/// A new request is sent so often, whatever became of those before it, so that none waits for a server's own pauses between tries.
const EVERY: Duration = Duration::from_millis(5);

/// What one request may take.
const PATIENCE_ONE: Duration = Duration::from_secs(2);

/// What a server may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A put: there is a leader, and a majority has it on disk.
    Put,
    /// A linearizable read: this member knows all that was acknowledged before.
    Read,
}

/// A client of its own runtime.
#[derive(Debug)]
pub struct Probe {
    runtime: Runtime,
}

impl Probe {
    /// A new one.
    pub fn new() -> Result<Probe> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime")?;
        Ok(Probe { runtime })
    }

    /// Asks these endpoints over and over until one answers, and says how long after `since` that was.
    pub fn first_answer(&self, endpoints: &[String], ask: Ask, since: Instant) -> Result<Duration> {
        self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for endpoint in endpoints {
                asking.spawn(ask_until_answered(channel(endpoint)?, ask));
            }
            let first = timeout(PATIENCE, asking.join_next()).await;
            match first {
                Ok(Some(answered)) => Ok(answered?.saturating_duration_since(since)),
                _ => bail!("no answer from {} within {PATIENCE:?}", endpoints.join(", ")),
            }
        })
    }

    /// Which member leads; waits until one does.
    pub fn leader(&self, cluster: &mut Cluster) -> Result<usize> {
        let endpoints = cluster.endpoints();
        let until = Instant::now() + PATIENCE;
        loop {
            cluster.check()?;
            for (k, endpoint) in endpoints.iter().enumerate() {
                if self.runtime.block_on(leads(endpoint)).unwrap_or(false) {
                    return Ok(k);
                }
            }
            if Instant::now() > until {
                return Err(anyhow!(
                    "none of {} leads within {PATIENCE:?}",
                    endpoints.join(", ")
                ));
            }
            std::thread::sleep(EVERY);
        }
    }
}

/// Connected with the first request, and again with every request that finds it broken.
fn channel(endpoint: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned())?.tcp_nodelay(true);
    Ok(endpoint.connect_timeout(PATIENCE_ONE).connect_lazy())
}

async fn leads(endpoint: &str) -> Result<bool> {
    let mut client = MaintenanceClient::new(channel(endpoint)?);
    let status = timeout(PATIENCE_ONE, client.status(StatusRequest {}))
        .await??
        .into_inner();
    let member = status.header.map(|header| header.member_id);
    Ok(status.leader != 0 && member == Some(status.leader))
}

/// The moment of the first answer.
async fn ask_until_answered(channel: Channel, ask: Ask) -> Instant {
    let mut requests = JoinSet::new();
    loop {
        let client = KvClient::new(channel.clone());
        requests.spawn(async move {
            let answered = timeout(PATIENCE_ONE, once(client, ask)).await;
            matches!(answered, Ok(Ok(()))).then(Instant::now)
        });
        tokio::select! {
            answered = first_success(&mut requests) => return answered,
            () = sleep(EVERY) => {}
        }
    }
}

/// Never, if all requests fail.
async fn first_success(requests: &mut JoinSet<Option<Instant>>) -> Instant {
    while let Some(answered) = requests.join_next().await {
        if let Ok(Some(moment)) = answered {
            return moment;
        }
    }
    std::future::pending().await
}

async fn once(mut client: KvClient<Channel>, ask: Ask) -> Result<(), Status> {
    let key = Bytes::from_static(b"probe");
    match ask {
        Ask::Put => client
            .put(PutRequest {
                key,
                value: Bytes::from_static(b"x"),
                ..PutRequest::default()
            })
            .await
            .map(drop),
        Ask::Read => client
            .range(RangeRequest {
                key,
                ..RangeRequest::default()
            })
            .await
            .map(drop),
    }
}
