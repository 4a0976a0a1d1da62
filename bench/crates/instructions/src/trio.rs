//! Three members in one thread, whose frames arrive in the order in which they were sent. Nothing is lost and nothing fails.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_kv::RangeRequest;

use crate::member::Member;
use crate::work::At;

/// See the module.
pub struct Trio {
    members: [Member; 3],
    /// Frames under way: from, to, what.
    wire: VecDeque<(NodeId, NodeId, Bytes)>,
    leader: usize,
}

impl Trio {
    /// A cluster with a leader, at rest.
    pub fn elected() -> Trio {
        let ids = [1, 2, 3].map(NodeId);
        let mut trio = Trio {
            members: ids.map(|id| Member::new(id, &ids)),
            wire: VecDeque::new(),
            leader: 0,
        };
        trio.settle();
        loop {
            if let Some(leader) = trio.members.iter().position(Member::leads) {
                trio.leader = leader;
                return trio;
            }
            let deadlines = trio.members.iter().map(Member::next_deadline);
            let now = deadlines.min().expect("there are three");
            trio.members.iter_mut().for_each(|member| member.wake(now));
            trio.settle();
        }
    }

    fn at(&mut self, at: At) -> &mut Member {
        match at {
            At::Leader => &mut self.members[self.leader],
            At::Follower => &mut self.members[(self.leader + 1) % 3],
        }
    }

    /// A client's command.
    pub fn propose(&mut self, at: At, command: Bytes) {
        self.at(at).propose(command);
    }

    /// A client's linearizable read.
    pub fn read(&mut self, at: At, request: RangeRequest) {
        self.at(at).read(request);
    }

    /// Lets things happen until nobody has anything to do. A member takes all that has arrived before it acts.
    pub fn settle(&mut self) {
        loop {
            for member in 0..self.members.len() {
                let from = NodeId(member as u64 + 1);
                let frames = self.members[member].turn();
                self.wire
                    .extend(frames.into_iter().map(|(to, frame)| (from, to, frame)));
            }
            if self.wire.is_empty() {
                return;
            }
            for (from, to, frame) in self.wire.drain(..) {
                self.members[to.0 as usize - 1].receive(from, frame);
            }
        }
    }

    /// Makes all stores durable, and their logs short.
    pub fn flush(&mut self) {
        self.members.iter_mut().for_each(Member::flush);
        self.settle();
    }

    /// Panics unless every request was answered and the members agree: what was counted was done.
    pub fn check(&self) {
        for member in &self.members {
            assert_eq!(member.answered(), member.asked(), "every request has its answer");
            assert_eq!(member.revision(), self.members[0].revision(), "the members agree");
        }
    }
}
