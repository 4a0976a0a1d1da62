//! Application-level requests between members: numbered on the way out, matched to their answers on the way in. At most once:
//! nothing is ever sent again. The bytes mean nothing here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_base::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::error::AskError;

/// Asks that may wait for the application before they are refused.
const MAX_WAITING: usize = 1024;

/// A request of another member, to be answered through `reply`. Dropping `reply` refuses it.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub from: NodeId,
    /// What it asks.
    pub request: Bytes,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Bytes>,
}

/// An ask or an answer on its way to another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskFrame {
    Ask {
        id: u64,
        request: Bytes,
    },
    /// `None`: refused, nothing was done.
    Answer {
        id: u64,
        answer: Option<Bytes>,
    },
}

/// Where asks leave: the control connection to one member.
pub(crate) trait AskRoad: Send + Sync {
    /// Queues the frame, or says that there is no connection or no room.
    fn send(&self, frame: AskFrame) -> bool;
}

/// Finds the road to a member; members come and go.
pub(crate) trait AskRoads: Send + Sync {
    /// The road to this one, if it is a member.
    fn road(&self, to: NodeId) -> Option<Arc<dyn AskRoad>>;
}

type Waiting = BTreeMap<u64, (NodeId, oneshot::Sender<Result<Bytes, AskError>>)>;

/// See the module.
pub(crate) struct Asks {
    me: NodeId,
    roads: Arc<dyn AskRoads>,
    timeout: Duration,
    max_len: usize,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    server: Mutex<Option<mpsc::Sender<Ask>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets an ask whose asker has gone.
struct Forget<'a>(&'a Asks, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).remove(&self.1);
    }
}

impl Asks {
    pub(crate) fn new(me: NodeId, roads: Arc<dyn AskRoads>, timeout: Duration, max_len: usize) -> Asks {
        let next = AtomicU64::new(1);
        Asks {
            me,
            roads,
            timeout,
            max_len,
            next,
            waiting: Mutex::default(),
            server: Mutex::default(),
        }
    }

    pub(crate) async fn ask(&self, to: NodeId, request: Bytes) -> Result<Bytes, AskError> {
        if request.len() > self.max_len {
            return Err(AskError::TooLarge);
        }
        if to == self.me {
            let answer = self.deliver(self.me, request).ok_or(AskError::Refused)?;
            return match tokio::time::timeout(self.timeout, answer).await {
                Ok(answer) => answer.map_err(|_| AskError::Refused),
                Err(_) => Err(AskError::Timeout),
            };
        }
        let road = self.roads.road(to).ok_or(AskError::NotMember)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, (to, reply));
        let _forget = Forget(self, id);
        if !road.send(AskFrame::Ask { id, request }) {
            return Err(AskError::Unreachable);
        }
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.unwrap_or(Err(AskError::Stopped)),
            Err(_) => Err(AskError::Timeout),
        }
    }

    pub(crate) fn serve(&self) -> mpsc::Receiver<Ask> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        *lock(&self.server) = Some(sender);
        receiver
    }

    /// Hands an ask to the application; `None` if it has none or too many already.
    fn deliver(&self, from: NodeId, request: Bytes) -> Option<oneshot::Receiver<Bytes>> {
        let (reply, answer) = oneshot::channel();
        lock(&self.server)
            .as_ref()?
            .try_send(Ask { from, request, reply })
            .ok()?;
        Some(answer)
    }

    /// Takes a frame that `from` sent.
    pub(crate) fn arrived(&self, from: NodeId, frame: AskFrame) {
        match frame {
            AskFrame::Answer { id, answer } => {
                let mut waiting = lock(&self.waiting);
                // Only the member that was asked may answer.
                if waiting.get(&id).is_some_and(|(to, _)| *to == from)
                    && let Some((_, reply)) = waiting.remove(&id)
                {
                    let _ = reply.send(answer.ok_or(AskError::Refused));
                }
            }
            AskFrame::Ask { id, request } => {
                let Some(road) = self.roads.road(from) else {
                    return;
                };
                let Some(answer) = self.deliver(from, request) else {
                    road.send(AskFrame::Answer { id, answer: None });
                    return;
                };
                let max_len = self.max_len;
                tokio::spawn(async move {
                    // An answer that is too long is as good as none: the asker hears so at once.
                    let answer = answer.await.ok().filter(|answer| answer.len() <= max_len);
                    road.send(AskFrame::Answer { id, answer });
                });
            }
        }
    }

    /// The connection to `peer` broke: its answers will not come.
    pub(crate) fn lost(&self, peer: NodeId) {
        let mut waiting = lock(&self.waiting);
        let lost: Vec<u64> = waiting
            .iter()
            .filter(|(_, (to, _))| *to == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some((_, reply)) = waiting.remove(&id) {
                let _ = reply.send(Err(AskError::Lost));
            }
        }
    }

    /// The node stops: nobody is served and nobody answers any more.
    pub(crate) fn close(&self) {
        *lock(&self.server) = None;
        for (_, (_, reply)) in std::mem::take(&mut *lock(&self.waiting)) {
            let _ = reply.send(Err(AskError::Stopped));
        }
    }
}
