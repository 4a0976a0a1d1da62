//! Which forwarded requests were seen before. Links deliver in order and once, but a network (or the simulator's) may
//! double or delay what it carries, and a request taken twice would be done twice.

use std::collections::{BTreeMap, BTreeSet};

use quorate_marks::reached;

use crate::message::RequestId;

/// Numbers remembered beyond the floor, for each sender. Links keep the order, so few are needed.
const WINDOW: usize = 1024;

/// The requests seen, by sender; bounded.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    senders: BTreeMap<u64, Run>,
}

/// The newest run of one sender.
#[derive(Debug)]
struct Run {
    boot: u64,
    /// Runs before this one, whose frames may still arrive.
    former: BTreeSet<u64>,
    /// All numbers up to here count as seen.
    floor: u64,
    above: BTreeSet<u64>,
}

impl Seen {
    /// Whether `request` comes for the first time. What is too old to tell counts as seen.
    pub(crate) fn is_new(&mut self, request: RequestId) -> bool {
        let fresh = |former| Run {
            boot: request.boot,
            former,
            floor: 0,
            above: BTreeSet::new(),
        };
        let run = self
            .senders
            .entry(request.node)
            .or_insert_with(|| fresh(BTreeSet::new()));
        if run.former.contains(&request.boot) {
            reached!("node.seen.of_former_run");
            return false;
        }
        if run.boot != request.boot {
            let mut former = std::mem::take(&mut run.former);
            former.insert(run.boot);
            *run = fresh(former);
        }
        reached!("node.seen.below_window", request.seq <= run.floor);
        if request.seq <= run.floor || !run.above.insert(request.seq) {
            return false;
        }
        if run.above.len() > WINDOW {
            run.floor = run.above.pop_first().expect("the window is not empty");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_new_once() {
        let mut seen = Seen::default();
        let mut new = |boot, seq| seen.is_new(RequestId { node: 1, boot, seq });
        assert!(new(1, 1) && new(1, 3) && new(1, 2));
        assert!(!new(1, 1) && !new(1, 2) && !new(1, 3));
        assert!(new(2, 1), "another run counts from the beginning");
        assert!(!new(1, 4), "a late frame of a former run");
        assert!((2..5000).all(|seq| new(2, seq)));
        assert!(!new(2, 5000 - 1) && !new(2, 17));
    }
}
