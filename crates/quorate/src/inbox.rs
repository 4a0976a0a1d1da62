//! The one queue into the driver: requests of handles and completions of the threads. Whoever finds it empty wakes the driver;
//! the driver takes everything at once. Frames of peers do not pass here, since they need back-pressure of their own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use quorate_base::{NodeId, SnapshotReader, StateMachine, Term};
use quorate_node::event::StreamId;
use quorate_raft::Change;
use tokio::sync::{Notify, oneshot};

use crate::error::{ChangeError, ChangeRefusal, ProposeError, ReadError, Reason};
use crate::flusher::Flushed;
use crate::membership::Membership;
use crate::work::Report;

/// Requests that may wait for the driver before handles answer [`Reason::Busy`].
const MAX_REQUESTS: usize = 1 << 16;
/// Bytes of commands that may wait likewise.
const MAX_BYTES: usize = 64 << 20;

/// Looks at the state, or hears why it may not.
pub(crate) type Look<S> = Box<dyn FnOnce(Result<&S, ReadError>) + Send>;

/// Where the end of a membership change is told, with the membership that it made.
pub(crate) type ChangeReply = oneshot::Sender<Result<Membership, ChangeError>>;

/// What a handle wants.
pub(crate) enum Request<S: StateMachine> {
    Propose {
        command: Bytes,
        arrived: Instant,
        reply: oneshot::Sender<Result<S::Output, ProposeError>>,
    },
    /// A linearizable read.
    Read(Look<S>),
    /// A read of whatever is here.
    Local(Look<S>),
    Confirm(oneshot::Sender<Result<Term, ReadError>>),
    Reconfigure {
        changes: Vec<Change>,
        force: bool,
        reply: ChangeReply,
    },
    Transfer(Option<NodeId>),
    Shutdown,
}

impl<S: StateMachine> Request<S> {
    /// Whether a full queue refuses it. What concerns the node itself always passes: nobody sends many of that, and a node that is
    /// too busy must still stop when told to.
    fn is_bounded(&self) -> bool {
        match self {
            Request::Propose { .. } | Request::Read(_) | Request::Local(_) | Request::Confirm(_) => true,
            Request::Reconfigure { .. } | Request::Transfer(_) | Request::Shutdown => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Request::Propose { command, .. } => command.len(),
            _ => 0,
        }
    }

    /// Answers a request that was never begun.
    pub(crate) fn refuse(self, why: Reason) {
        match self {
            Request::Propose { reply, .. } => drop(reply.send(Err(ProposeError::NotDone(why)))),
            Request::Read(look) | Request::Local(look) => look(Err(ReadError(why))),
            Request::Confirm(reply) => {
                let _ = reply.send(Err(ReadError(why)));
            }
            Request::Reconfigure { reply, .. } => {
                let _ = reply.send(Err(ChangeError::NotDone(ChangeRefusal::Request(why))));
            }
            Request::Transfer(_) | Request::Shutdown => {}
        }
    }
}

/// What was done elsewhere.
pub(crate) enum Done<S> {
    /// By the disk thread or a connection.
    Report(Report),
    /// By the flusher.
    Flushed(Flushed<S>),
    /// A snapshot reader comes back with its next piece.
    Chunk {
        stream: StreamId,
        reader: Box<dyn SnapshotReader>,
        chunk: std::io::Result<Bytes>,
    },
}

/// Everything that waited.
pub(crate) struct Batch<S: StateMachine> {
    pub requests: Vec<Request<S>>,
    pub done: Vec<Done<S>>,
}

struct Queue<S: StateMachine> {
    requests: Vec<Request<S>>,
    done: Vec<Done<S>>,
    bytes: usize,
    closed: bool,
}

/// See the module.
pub(crate) struct Inbox<S: StateMachine> {
    queue: Mutex<Queue<S>>,
    ready: Notify,
}

impl<S: StateMachine> Inbox<S> {
    pub(crate) fn new() -> Inbox<S> {
        let queue = Queue {
            requests: Vec::new(),
            done: Vec::new(),
            bytes: 0,
            closed: false,
        };
        Inbox {
            queue: Mutex::new(queue),
            ready: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        // Nothing below panics while it holds the lock in an inconsistent state.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request; a stopped node or a full queue refuses it at once.
    pub(crate) fn request(&self, request: Request<S>) {
        let mut queue = self.lock();
        let full = queue.requests.len() >= MAX_REQUESTS || queue.bytes >= MAX_BYTES;
        let why = if queue.closed {
            Reason::Stopped
        } else if full && request.is_bounded() {
            Reason::Busy
        } else {
            let wake = queue.requests.is_empty() && queue.done.is_empty();
            queue.bytes += request.bytes();
            queue.requests.push(request);
            drop(queue);
            if wake {
                self.ready.notify_one();
            }
            return;
        };
        drop(queue);
        request.refuse(why);
    }

    /// Queues a completion. Dropped if nobody will look any more.
    pub(crate) fn done(&self, done: Done<S>) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        let wake = queue.requests.is_empty() && queue.done.is_empty();
        queue.done.push(done);
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Waits until something may be there.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes what is there; perhaps nothing.
    pub(crate) fn take(&self) -> Batch<S> {
        let mut queue = self.lock();
        queue.bytes = 0;
        Batch {
            requests: std::mem::take(&mut queue.requests),
            done: std::mem::take(&mut queue.done),
        }
    }

    /// Refuses what is there and all that comes.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let left = std::mem::take(&mut queue.requests);
        queue.done.clear();
        drop(queue);
        for request in left {
            request.refuse(Reason::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use quorate_base::{Index, LogId};

    use super::*;

    /// Never asked for anything here.
    struct Machine;

    impl StateMachine for Machine {
        type Output = ();
        fn apply(&mut self, _: LogId, _: &Bytes) {}
        fn skip(&mut self, _: LogId) {}
        fn applied(&self) -> LogId {
            LogId::new(0, 0)
        }
        fn durable(&self) -> Index {
            Index(0)
        }
        fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn restore(&mut self, _: LogId, _: &mut dyn io::Read) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn propose(inbox: &Inbox<Machine>, command: Bytes) -> oneshot::Receiver<Result<(), ProposeError>> {
        let (reply, answer) = oneshot::channel();
        let arrived = Instant::now();
        inbox.request(Request::Propose {
            command,
            arrived,
            reply,
        });
        answer
    }

    fn is_busy(mut answer: oneshot::Receiver<Result<(), ProposeError>>) -> bool {
        matches!(answer.try_recv(), Ok(Err(ProposeError::NotDone(Reason::Busy))))
    }

    #[test]
    fn a_full_queue_refuses_requests_but_not_the_order_to_stop() {
        let by_bytes = Inbox::new();
        assert!(!is_busy(propose(&by_bytes, vec![0; MAX_BYTES].into())));
        let by_number = Inbox::new();
        (0..MAX_REQUESTS).for_each(|_| by_number.request(Request::Local(Box::new(|_| ()))));
        for inbox in [by_bytes, by_number] {
            assert!(is_busy(propose(&inbox, Bytes::new())));
            inbox.request(Request::Transfer(None));
            inbox.request(Request::Shutdown);
            let last = inbox.take().requests.split_off(1);
            let [.., Request::Transfer(None), Request::Shutdown] = &last[..] else {
                panic!("they are not in the queue");
            };
            assert!(!is_busy(propose(&inbox, Bytes::new())), "there is room again");
        }
    }
}
