//! The way in: what callers on any thread or task can ask of a running node. Handles only queue and wait; the driver decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_base::{NodeId, StateMachine, Term};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{AskError, ChangeError, ProposeError, ReadError, Reason, TransferError};
use crate::inbox::{Inbox, Request};
use crate::membership::{MemberChange, Membership};
use crate::metrics::Metrics;
use crate::peer::asks::{Ask, Asks};
use crate::status::{PeerStatus, Role, Status};

/// What handles, driver, threads and connections share.
pub(crate) struct Shared<S: StateMachine> {
    pub inbox: Inbox<S>,
    pub status: watch::Sender<Status>,
    /// Becomes true when the node has ended and released everything.
    pub ended: watch::Sender<bool>,
    pub metrics: Arc<Metrics>,
    pub asks: Arc<Asks>,
    pub max_proposal: usize,
    pub election: Duration,
}

impl<S: StateMachine> Shared<S> {
    /// The driver is no more: whoever still waits for it hears so.
    pub(crate) fn close(&self) {
        self.inbox.close();
        self.asks.close();
        self.status.send_modify(|status| {
            status.stopping = true;
            status.leader = None;
            status.role = Role::Follower;
            status
                .peers
                .values_mut()
                .for_each(|peer| *peer = PeerStatus::default());
        });
    }
}

/// A running node, to be used from anywhere. Cheap to clone; the node goes on when all handles are gone.
pub struct Handle<S: StateMachine> {
    shared: Arc<Shared<S>>,
}

impl<S: StateMachine> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Handle {
            shared: self.shared.clone(),
        }
    }
}

impl<S: StateMachine> std::fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("status", &*self.shared.status.borrow())
            .finish()
    }
}

impl<S: StateMachine> Handle<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>) -> Handle<S> {
        Handle { shared }
    }

    /// Replicates a command and answers what applying it *here* gave. On a follower the command is forwarded to the leader,
    /// at most once.
    ///
    /// Dropping the future gives up the answer, not the command.
    ///
    /// # Errors
    /// [`ProposeError::NotDone`] if the command certainly has no effect, [`ProposeError::Unknown`] if it may have one.
    pub async fn propose(&self, command: Bytes) -> Result<S::Output, ProposeError> {
        let metrics = &self.shared.metrics;
        metrics.proposals.add(1);
        let result = if command.len() > self.shared.max_proposal {
            Err(ProposeError::NotDone(Reason::TooLarge))
        } else {
            let (reply, answer) = oneshot::channel();
            self.shared.inbox.request(Request::Propose {
                command,
                arrived: Instant::now(),
                reply,
            });
            // The driver ends without an answer only when the whole node ends.
            answer
                .await
                .unwrap_or(Err(ProposeError::Unknown(Reason::Stopped)))
        };
        if result.is_err() {
            metrics.proposals_failed.add(1);
        }
        result
    }

    /// A linearizable read (thesis §6.4): `look` runs on a state that includes every command answered, anywhere in the cluster,
    /// before this call. It runs on the driver's task, so it must be short.
    ///
    /// # Errors
    /// No leader, no answer in time, or the node stops.
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, ReadError> {
        self.shared.metrics.reads.add(1);
        let result = self.look(look, Request::Read).await;
        if result.is_err() {
            self.shared.metrics.reads_failed.add(1);
        }
        result
    }

    /// A read of the state as it happens to be here (etcd's "serializable"): no messages, perhaps stale.
    ///
    /// # Errors
    /// Only if the node stops, too many requests wait, or the state is being replaced by a snapshot for all the time that a request may
    /// take.
    pub async fn local<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<R, ReadError> {
        self.look(look, Request::Local).await
    }

    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S) -> R + Send + 'static,
        kind: impl FnOnce(crate::inbox::Look<S>) -> Request<S>,
    ) -> Result<R, ReadError> {
        let (reply, answer) = oneshot::channel();
        let look = move |state: Result<&S, ReadError>| {
            let _ = reply.send(state.map(look));
        };
        self.shared.inbox.request(kind(Box::new(look)));
        answer.await.unwrap_or(Err(ReadError(Reason::Stopped)))
    }

    /// The node's state as of its last turn.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// The node's state, and a wake-up when something of note changes; see [`Status`].
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Changes the membership (thesis §4), all of `changes` at once, wherever the leader is; answers the membership that this has made. A change of
    /// voters goes through joint consensus and costs two commits; the cluster serves all the while.
    ///
    /// A change that would leave too few live voters is refused unless `force` is given; `force` also promotes learners that have not
    /// caught up. While another change is under way this one waits, up to [`Config::timeout`](crate::Config::timeout).
    ///
    /// # Errors
    /// [`ChangeError::NotDone`] if the membership is certainly as it was, [`ChangeError::Unknown`] if it may be changed, or may yet be: look at
    /// [`Status::membership`] then.
    pub async fn change_membership(
        &self,
        changes: Vec<MemberChange>,
        force: bool,
    ) -> Result<Membership, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let changes = changes.into_iter().map(Into::into).collect();
        self.shared.inbox.request(Request::Reconfigure {
            changes,
            force,
            reply,
        });
        // The driver ends without an answer only when the whole node ends.
        answer.await.unwrap_or(Err(ChangeError::Unknown(Reason::Stopped)))
    }

    /// Hands leadership to `to`, or to the voter best prepared (thesis §3.10). Returns when this node follows another leader.
    ///
    /// # Errors
    /// If this node does not lead, `to` is no voter, or nobody took over within two election timeouts.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<(), TransferError> {
        let mut status = self.subscribe();
        {
            let now = status.borrow_and_update();
            if now.stopping {
                return Err(TransferError::Stopped);
            }
            if !now.is_leader() {
                return Err(TransferError::NotLeader(now.leader));
            }
            match to {
                Some(to) if to == now.id => return Ok(()),
                Some(to) if !now.membership.voters.contains(&to) => return Err(TransferError::NotMember),
                None if now.membership.voters.iter().all(|id| *id == now.id) => {
                    return Err(TransferError::NotMember);
                }
                _ => {}
            }
        }
        self.shared.inbox.request(Request::Transfer(to));
        let taken_over =
            status.wait_for(|now| now.stopping || now.leader.is_some_and(|leader| leader != now.id));
        match tokio::time::timeout(self.shared.election * 2, taken_over).await {
            Err(_) => Err(TransferError::Timeout),
            Ok(Err(_)) => Err(TransferError::Stopped),
            Ok(Ok(now)) if now.leader.is_some_and(|leader| leader != now.id) => Ok(()),
            Ok(Ok(_)) => Err(TransferError::Stopped),
        }
    }

    /// Confirms with a majority, in a round begun after this call, that this node leads; answers the term in which it does.
    ///
    /// # Errors
    /// If this node does not lead, or could not confirm it in time.
    pub async fn confirm_leadership(&self) -> Result<Term, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.request(Request::Confirm(reply));
        answer.await.unwrap_or(Err(ReadError(Reason::Stopped)))
    }

    /// Sends an application-level request to another member over the peer link, at most once, and waits for the answer. To this
    /// member itself it goes without a link.
    ///
    /// # Errors
    /// See [`AskError`]: some say that nothing was done, some that it may have been.
    pub async fn ask(&self, to: NodeId, request: Bytes) -> Result<Bytes, AskError> {
        self.shared.asks.ask(to, request).await
    }

    /// Serves the requests that other members [`ask`](Handle::ask) here. The latest caller gets them all; without one, or when
    /// the receiver is dropped, they are refused.
    pub fn serve_asks(&self) -> mpsc::Receiver<Ask> {
        self.shared.asks.serve()
    }

    /// The node's counters and histograms.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Stops the node in order: no more proposals, leadership handed over if there is somebody to take it, the state machine
    /// flushed, everything closed. Returns when the data directory is free again, or when its disk has not let go of it for too long
    /// ([`Fatal::DiskHangs`](crate::Fatal::DiskHangs)).
    pub async fn shutdown(&self) {
        self.shared.inbox.request(Request::Shutdown);
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
