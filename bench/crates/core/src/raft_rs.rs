//! raft-rs (crate `raft`), driven as its documentation says, on its own in-memory log. Append batching is on and the limits are generous;
//! its messages are handed over as they are, payloads shared.

use raft::eraftpb::{ConfState, Entry, Message};
use raft::storage::MemStorage;
use raft::{RawNode, StateRole};
use slog::{Discard, Logger, o};

use crate::cluster::{Applied, COMPACT_EVERY, Cluster};

/// Three of them.
pub struct RaftRs {
    members: Vec<Member>,
}

struct Member {
    node: RawNode<MemStorage>,
    storage: MemStorage,
    inbox: Vec<Message>,
    applied: Applied,
    compacted: u64,
}

impl Cluster for RaftRs {
    fn start() -> RaftRs {
        let member = |id| {
            let config = raft::Config {
                id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                batch_append: true,
                pre_vote: true,
                check_quorum: true,
                ..Default::default()
            };
            let storage = MemStorage::new_with_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
            let node = RawNode::new(&config, storage.clone(), &Logger::root(Discard, o!()))
                .expect("the settings are valid");
            Member {
                node,
                storage,
                inbox: Vec::new(),
                applied: Applied::default(),
                compacted: 0,
            }
        };
        let mut cluster = RaftRs {
            members: [1, 2, 3].map(member).into(),
        };
        cluster.members[0].node.campaign().expect("a voter may campaign");
        cluster.settle();
        assert_eq!(cluster.members[0].node.raft.state, StateRole::Leader);
        cluster
    }

    fn round(&mut self, commands: Vec<Vec<u8>>) {
        for command in commands {
            let proposed = self.members[0].node.propose(Vec::new(), command);
            proposed.expect("a leader without limits takes every proposal");
        }
        self.settle();
    }

    fn applied(&self) -> [&Applied; 3] {
        [0, 1, 2].map(|n| &self.members[n].applied)
    }
}

impl RaftRs {
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for member in 0..self.members.len() {
                busy |= self.turn(member);
            }
        }
    }

    /// Lets a member take all that has arrived, and does what it then wants done.
    fn turn(&mut self, member: usize) -> bool {
        let this = &mut self.members[member];
        let mut inbox = std::mem::take(&mut this.inbox);
        for message in inbox.drain(..) {
            this.node.step(message).expect("a message of a member is taken");
        }
        this.inbox = inbox;
        let mut busy = false;
        while self.members[member].node.has_ready() {
            busy = true;
            self.drain(member);
        }
        busy
    }

    fn drain(&mut self, member: usize) {
        let this = &mut self.members[member];
        let mut ready = this.node.ready();
        let sent = ready.take_messages();
        this.apply(ready.take_committed_entries());
        let mut storage = this.storage.wl();
        storage.append(ready.entries()).expect("entries follow the log");
        if let Some(hard) = ready.hs() {
            storage.set_hardstate(hard.clone());
        }
        drop(storage);
        let persisted = ready.take_persisted_messages();
        let mut light = this.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            this.storage.wl().mut_hard_state().set_commit(commit);
        }
        let late = light.take_messages();
        this.apply(light.take_committed_entries());
        this.node.advance_apply();
        this.compact();
        for message in sent.into_iter().chain(persisted).chain(late) {
            self.members[message.to as usize - 1].inbox.push(message);
        }
    }
}

impl Member {
    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if !entry.data.is_empty() {
                self.applied.apply(&entry.data);
            }
        }
    }

    fn compact(&mut self) {
        let applied = self.node.raft.raft_log.applied();
        if applied - self.compacted >= COMPACT_EVERY {
            // What the other members may still have to be sent stays.
            self.compacted = applied - COMPACT_EVERY / 2;
            self.storage.wl().compact(self.compacted).expect("it is applied");
        }
    }
}
