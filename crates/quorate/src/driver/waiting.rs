//! What waits for the state machine while it is away, in order. What the node wants of it waits for as long as it takes; clients' reads do so
//! within limits, since restoring a large state takes minutes and clients ask again.

use std::collections::VecDeque;

use quorate_node::event::{MachineOp, Nanos, StreamId};

use crate::error::{ReadError, Reason};
use crate::inbox::Look;

/// Reads that may wait. When the machine is back they are all served in one turn.
const MAX_LOOKS: usize = 4096;

/// One thing that waits.
pub(crate) enum Waiting<S> {
    /// An operation.
    Op(MachineOp),
    /// A read, and until when it may wait.
    Look(Look<S>, Nanos),
    /// The opening of a snapshot.
    Open(StreamId),
}

/// See the module.
pub(crate) struct Queue<S> {
    queue: VecDeque<Waiting<S>>,
    /// How many of them are reads.
    looks: usize,
    /// When the first read has waited long enough.
    deadline: Option<Nanos>,
}

impl<S> Queue<S> {
    pub(crate) fn new() -> Queue<S> {
        Queue {
            queue: VecDeque::new(),
            looks: 0,
            deadline: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues it; a read that finds too many others is refused.
    pub(crate) fn push(&mut self, waiting: Waiting<S>) {
        match waiting {
            Waiting::Look(look, _) if self.looks >= MAX_LOOKS => return look(Err(ReadError(Reason::Busy))),
            Waiting::Look(_, until) => {
                self.looks += 1;
                self.deadline = Some(self.deadline.map_or(until, |first| first.min(until)));
            }
            Waiting::Op(_) | Waiting::Open(_) => {}
        }
        self.queue.push_back(waiting);
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> VecDeque<Waiting<S>> {
        (self.looks, self.deadline) = (0, None);
        std::mem::take(&mut self.queue)
    }

    /// When the next read has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// Refuses the reads that have waited long enough.
    pub(crate) fn expire(&mut self, now: Nanos) {
        if self.deadline.is_none_or(|first| now < first) {
            return;
        }
        for waiting in self.take() {
            match waiting {
                Waiting::Look(look, until) if now >= until => look(Err(ReadError(Reason::Timeout))),
                other => self.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    type Answer = Receiver<Result<(), ReadError>>;

    fn look(until: Nanos) -> (Waiting<()>, Answer) {
        let (sender, answer) = channel();
        let look = move |state: Result<&(), ReadError>| sender.send(state.copied()).unwrap();
        (Waiting::Look(Box::new(look), until), answer)
    }

    fn ask(queue: &mut Queue<()>, until: Nanos) -> Answer {
        let (look, answer) = look(until);
        queue.push(look);
        answer
    }

    #[test]
    fn reads_wait_until_their_time_is_over_and_the_rest_waits_on_in_order() {
        let mut queue = Queue::new();
        assert_eq!(queue.next_deadline(), None);
        queue.push(Waiting::Open(1));
        let (first, second) = (ask(&mut queue, 20), ask(&mut queue, 10));
        queue.push(Waiting::Open(2));
        let third = ask(&mut queue, 30);
        assert_eq!(queue.next_deadline(), Some(10));
        queue.expire(9);
        assert!(second.try_recv().is_err());
        queue.expire(10);
        assert_eq!(second.try_recv(), Ok(Err(ReadError(Reason::Timeout))));
        assert_eq!(queue.next_deadline(), Some(20));
        queue.expire(25);
        assert_eq!(first.try_recv(), Ok(Err(ReadError(Reason::Timeout))));
        let left = Vec::from(queue.take());
        let [Waiting::Open(1), Waiting::Open(2), Waiting::Look(..)] = &left[..] else {
            panic!("{} are left", left.len());
        };
        assert_eq!((queue.next_deadline(), queue.is_empty()), (None, true));
        drop(left);
        assert!(third.try_recv().is_err(), "nobody has answered it");
    }

    #[test]
    fn there_is_room_for_so_many_reads_and_for_all_that_the_node_wants() {
        let mut queue = Queue::new();
        let answers: Vec<_> = (0..MAX_LOOKS).map(|_| ask(&mut queue, 10)).collect();
        assert_eq!(ask(&mut queue, 10).try_recv(), Ok(Err(ReadError(Reason::Busy))));
        queue.push(Waiting::Open(1));
        assert!(answers.iter().all(|answer| answer.try_recv().is_err()));
        queue.expire(10);
        assert!(answers.iter().all(|answer| answer.try_recv().is_ok()));
        assert!(ask(&mut queue, 20).try_recv().is_err(), "there is room again");
        assert_eq!(queue.take().len(), 2);
    }
}
