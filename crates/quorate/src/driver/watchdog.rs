//! Notices a disk that neither answers nor fails, for the log and the metrics. What is done about it is the node's affair.

use std::collections::VecDeque;

use quorate_node::event::{Event, LogOp, Nanos};

/// The writes that the disk has not answered.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Each write's number and when it was handed over, oldest first.
    out: VecDeque<(u64, Nanos)>,
    /// For how long the disk may be silent.
    patience: Nanos,
    /// The present silence has been noticed.
    barked: bool,
}

impl Watchdog {
    pub(crate) fn new(patience: Nanos) -> Watchdog {
        Watchdog {
            out: VecDeque::new(),
            patience,
            barked: false,
        }
    }

    /// These go to the disk.
    pub(crate) fn handed(&mut self, now: Nanos, ops: &[LogOp]) {
        for op in ops {
            if let LogOp::Write { id, .. } = op {
                self.out.push_back((*id, now));
            }
        }
    }

    /// These came back.
    pub(crate) fn answered(&mut self, events: &[Event]) {
        for event in events {
            if let Event::Written(upto) = event {
                self.barked = false;
                while self.out.front().is_some_and(|(id, _)| id <= upto) {
                    self.out.pop_front();
                }
            }
        }
    }

    fn is_stalled(&self, now: Nanos) -> bool {
        self.out
            .front()
            .is_some_and(|(_, handed)| now >= handed + self.patience)
    }

    /// Whether the disk is silent for too long, and this is news.
    pub(crate) fn barks(&mut self, now: Nanos) -> bool {
        let news = self.is_stalled(now) && !self.barked;
        self.barked |= news;
        news
    }

    /// When to look again.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        let (_, handed) = self.out.front().filter(|_| !self.barked)?;
        Some(handed + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(id: u64) -> LogOp {
        LogOp::Write {
            id,
            records: Vec::new(),
        }
    }

    #[test]
    fn it_barks_once_for_each_silence() {
        let mut dog = Watchdog::new(100);
        assert_eq!(dog.deadline(), None);
        dog.handed(10, &[write(1), write(2)]);
        dog.handed(50, &[write(3)]);
        assert_eq!(dog.deadline(), Some(110));
        assert!(!dog.barks(109));
        dog.answered(&[Event::Written(2)]);
        assert!(!dog.barks(149), "the oldest unanswered one counts");
        assert!(dog.barks(150) && !dog.barks(151) && dog.is_stalled(151));
        assert_eq!(dog.deadline(), None, "nothing more to notice");
        dog.handed(200, &[write(4)]);
        dog.answered(&[Event::Written(3)]);
        assert!(!dog.is_stalled(200) && dog.barks(300), "a new silence");
    }
}
