//! What every service of a server shares: the node, the configuration, the helpers' ends; and the small things that every answer
//! needs (headers, the leader check).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use quorate::{Handle, Membership, Status as NodeStatus};
use quorate_base::NodeId;
use quorate_kv::{Applied, Command, Kv};
use quorate_proto::etcdserverpb::{self as pb, ResponseHeader};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::changes;
use crate::config::ServerConfig;
use crate::errors;
use crate::hub::HubClient;
use crate::leases::Leases;
use crate::machine::{KvMachine, News};
use crate::members::{self, Directory};

/// Election timeouts without a leader after which a stream that insists on one is cancelled: etcd's number.
pub(crate) const LEADERLESS: u32 = 3;

/// Shared by all services of one server.
pub(crate) struct Context {
    pub config: ServerConfig,
    pub handle: Handle<KvMachine>,
    /// The node's status, to be looked at without a copy.
    pub status: watch::Receiver<NodeStatus>,
    pub news: Arc<News>,
    pub leases: Arc<Leases>,
    pub hub: HubClient,
    pub directory: Directory,
    /// Whether this member has caught up since its start.
    pub ready: watch::Receiver<bool>,
    /// Open client connections, for the metrics.
    pub connections: AtomicUsize,
}

impl Context {
    /// A header with the store's present revision.
    pub fn header(&self) -> Option<ResponseHeader> {
        self.header_at(self.news.revision())
    }

    /// A header with a given revision.
    pub fn header_at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.config.cluster,
            member_id: self.config.id.0,
            revision,
            raft_term: self.status.borrow().term.0,
        })
    }

    /// Who leads, if this member knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.status.borrow().leader
    }

    /// Who belongs to the cluster, as known here.
    pub fn membership(&self) -> Arc<Membership> {
        self.status.borrow().membership.clone()
    }

    /// All members as clients are told.
    pub fn members(&self) -> Vec<pb::Member> {
        self.directory.list(&self.membership())
    }

    /// Whether clients see this member as a learner.
    pub fn is_learner(&self) -> bool {
        members::is_learner(&self.status.borrow().membership, self.config.id)
    }

    /// Refuses what etcd's learners do not serve.
    pub fn check_learner(&self) -> Result<(), Status> {
        match self.is_learner() {
            true => Err(changes::not_for_learners()),
            false => Ok(()),
        }
    }

    /// Refuses a request that insists on a leader when none is known.
    pub fn check_leader(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if requires_leader(metadata) && self.leader().is_none() {
            return Err(errors::no_leader());
        }
        Ok(())
    }

    /// Unwraps a request that learners do not serve after the leader check, once this member serves data.
    pub async fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.check_learner()?;
        self.admit_even_here(request).await
    }

    /// The same for one that learners serve.
    pub async fn admit_even_here<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.check_leader(request.metadata())?;
        self.ready().await?;
        Ok(request.into_inner())
    }

    /// Waits until this member has caught up after its start, but no longer than a request may take.
    pub async fn ready(&self) -> Result<(), Status> {
        if *self.ready.borrow() {
            return Ok(());
        }
        let mut ready = self.ready.clone();
        let waited =
            tokio::time::timeout(self.config.request_timeout(), ready.wait_for(|ready| *ready)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(errors::stopped()),
            Err(_) if self.leader().is_none() => Err(errors::no_leader()),
            Err(_) => Err(errors::timed_out()),
        }
    }

    /// Replicates a command.
    pub async fn propose(&self, command: &Command) -> Result<Applied, Status> {
        let bytes = command.encode();
        if bytes.len() > self.config.max_request_bytes {
            return Err(errors::too_large());
        }
        let applied = self.handle.propose(bytes).await.map_err(errors::of_propose)?;
        applied.map_err(|error| errors::of_kv(&error))
    }

    /// Looks at the state here; linearizably, unless the client is content with a state that may be stale.
    pub async fn look<R: Send + 'static>(
        &self,
        serializable: bool,
        look: impl FnOnce(&Kv) -> R + Send + 'static,
    ) -> Result<R, Status> {
        let look = |machine: &KvMachine| look(machine.kv());
        let looked = if serializable {
            self.handle.local(look).await
        } else {
            self.handle.read(look).await
        };
        looked.map_err(errors::of_read)
    }

    /// Whether this member's own disk is full.
    pub fn disk_full(&self) -> bool {
        self.news.disk_full() || self.status.borrow().space != quorate::Space::Ok
    }

    /// Refuses what would grow a store, here or on a member that has no room.
    pub fn check_space(&self) -> Result<(), Status> {
        if self.news.alarmed() || self.disk_full() {
            return Err(errors::no_space());
        }
        Ok(())
    }

    /// Completes when there was no leader for some election timeouts.
    pub async fn leaderless(&self) {
        let mut status = self.status.clone();
        loop {
            if status.wait_for(|now| now.leader.is_none()).await.is_err() {
                return;
            }
            let back = status.wait_for(|now| now.leader.is_some());
            if tokio::time::timeout(self.config.election * LEADERLESS, back)
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Waits until the leader or the term changes, but no longer than `at_most`.
    pub async fn leadership_changed(&self, at_most: Duration) {
        let mut status = self.status.clone();
        let leadership = |now: &NodeStatus| (now.leader, now.term);
        let before = leadership(&status.borrow_and_update());
        let changed = status.wait_for(|now| leadership(now) != before || now.stopping);
        // Whether it changed or time is up, the caller looks again.
        let _ = tokio::time::timeout(at_most, changed).await;
    }
}

/// Runs a read that may take long where it holds up nobody.
pub(crate) async fn elsewhere<R: Send + 'static>(
    read: impl FnOnce() -> Result<R, quorate_kv::Error> + Send + 'static,
) -> Result<R, Status> {
    match tokio::task::spawn_blocking(read).await {
        Ok(found) => found.map_err(|error| errors::of_kv(&error)),
        Err(error) => Err(Status::internal(format!("etcdserver: the read failed: {error}"))),
    }
}

/// Whether the client wants to be refused, and its streams cancelled, when there is no leader.
pub(crate) fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

/// The bug of answering a command with another command's answer. Cannot happen: [`quorate_kv::Response`] says so.
pub(crate) fn mismatched<T>() -> Result<Response<T>, Status> {
    Err(Status::internal(
        "etcdserver: the state machine answered another kind of request",
    ))
}
