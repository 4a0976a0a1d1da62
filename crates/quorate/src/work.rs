//! A queue into a thread: everything queued is taken at once, and the thread is woken only if it sleeps. And the way back: what
//! threads and connections report to the driver.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_node::event::Event;

use crate::error::Fatal;
use crate::status::Space;

/// What a thread or a connection has to say.
pub(crate) enum Report {
    /// For the node, as it is.
    Events(Vec<Event>),
    /// Whether the log's disk has room has changed.
    Space(Space),
    /// The node cannot go on.
    Failed(Fatal),
}

/// Where reports go.
pub(crate) type Reports = Arc<dyn Fn(Report) + Send + Sync>;

struct State<T> {
    items: Vec<T>,
    closed: bool,
    asleep: bool,
}

/// See the module. One thread takes, any may put.
pub(crate) struct WorkQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// What [`WorkQueue::wait`] found.
pub(crate) enum Work<T> {
    /// Something to do.
    Items(Vec<T>),
    /// Nothing for the time given.
    Idle,
    /// Nothing, and nothing will come.
    Closed,
}

impl<T> WorkQueue<T> {
    pub(crate) fn new() -> WorkQueue<T> {
        let state = State {
            items: Vec::new(),
            closed: false,
            asleep: false,
        };
        WorkQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code runs under this lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues all of `items`, in order, with one wake-up.
    pub(crate) fn put(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.items.extend(items);
        if state.asleep && !state.items.is_empty() {
            state.asleep = false;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// No more will be put. What is queued is still taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Takes everything, waiting for at most `patience` (for ever without) if there is nothing.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Work<T> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.closed && patience != Some(Duration::ZERO) {
            state.asleep = true;
            let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
            state = match patience {
                None => self
                    .changed
                    .wait_while(state, idle)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let woken = self.changed.wait_timeout_while(state, patience, idle);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.asleep = false;
        }
        if !state.items.is_empty() {
            Work::Items(std::mem::take(&mut state.items))
        } else if state.closed {
            Work::Closed
        } else {
            Work::Idle
        }
    }
}

/// The text of a panic's payload.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_queued_is_taken_at_once_even_after_closing() {
        let queue = Arc::new(WorkQueue::new());
        let taker = {
            let queue = queue.clone();
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                loop {
                    match queue.wait(None) {
                        Work::Items(items) => taken.extend(items),
                        Work::Idle => unreachable!("without patience there is no idling"),
                        Work::Closed => return taken,
                    }
                }
            })
        };
        for n in 0..1000 {
            queue.put([n]);
        }
        queue.close();
        assert_eq!(taker.join().unwrap(), (0..1000).collect::<Vec<_>>());
        assert!(matches!(
            WorkQueue::<()>::new().wait(Some(Duration::ZERO)),
            Work::Idle
        ));
    }
}
