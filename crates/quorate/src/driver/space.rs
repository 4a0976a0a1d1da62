//! What the driver does while the log's disk is full. The node knows nothing of that: a disk without room still answers, from its reserve.
//!
//! A member whose disk is full should not lead, but the cluster needs a leader, and every election costs each member a piece of its reserve. So:
//!
//! - A member without room tells the leader that it would rather not lead, with the priority in its answers to heartbeats.
//! - A leader without room hands over to a member that has not said so, if there is one. Where all are full, nobody moves.
//! - When its reserve is nearly used up, once to anybody: a member of low priority may have room and never says so.
//! - Nothing is then taken but what no client has proposed. A new leader's no-op is among it: before that is committed no linearizable read is
//!   served.

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId, StateMachine};
use quorate_node::entry;
use quorate_node::event::{Event, Nanos, Reason};
use quorate_node::message::PeerMessage;
use quorate_raft::{Body, Message, Priority};

use super::Driver;
use crate::status::Space;

/// What there is to know for that.
#[derive(Debug, Default)]
pub(crate) struct Refuge {
    /// Who said last that it does not mind leading, so it has room.
    willing: BTreeSet<NodeId>,
    /// When a leader whose disk is full may next try to hand over to one of them.
    next: Nanos,
    /// How often it has tried since there was room: each time it waits longer, since nothing is proposed meanwhile.
    tries: u32,
    /// It has tried anybody since its reserve was used up.
    tried_anybody: bool,
}

/// The longest wait between two tries is two to the power of this times the first.
const MAX_TRIES: u32 = 6;

impl Refuge {
    /// A peer has sent this.
    fn hear(&mut self, from: NodeId, message: &PeerMessage) {
        let PeerMessage::Raft(Message {
            body: Body::HeartbeatResponse { priority, .. },
            ..
        }) = message
        else {
            return;
        };
        match priority {
            Priority::Low => self.willing.remove(&from),
            Priority::Normal | Priority::High => self.willing.insert(from),
        };
    }

    /// There is room.
    fn rest(&mut self) {
        (self.next, self.tries, self.tried_anybody) = (0, 0, false);
    }

    /// Whether to hand over now, and to whom (`None`: to anybody). `heirs` are the voters within reach with what they are known to have.
    fn flee(
        &mut self,
        now: Nanos,
        space: Space,
        pause: Nanos,
        heirs: &[(NodeId, Index)],
    ) -> Option<Option<NodeId>> {
        if space != Space::Out {
            self.tried_anybody = false;
        }
        let willing = heirs.iter().filter(|(id, _)| self.willing.contains(id));
        match willing.max_by_key(|(_, matched)| matched) {
            Some((heir, _)) if now >= self.next => {
                self.next = now + (pause << self.tries);
                self.tries = (self.tries + 1).min(MAX_TRIES);
                Some(Some(*heir))
            }
            None if space == Space::Out && !heirs.is_empty() && !self.tried_anybody => {
                self.tried_anybody = true;
                Some(None)
            }
            _ => None,
        }
    }
}

/// What of a leader's entries adds no more to a log than the cluster needs to go on: those before the first command.
fn without_commands(message: PeerMessage) -> Option<PeerMessage> {
    let PeerMessage::Append {
        term,
        prev,
        mut entries,
        commit,
    } = message
    else {
        return Some(message);
    };
    if entries.is_empty() {
        // It only asks, or tells what is committed.
        return Some(PeerMessage::Append {
            term,
            prev,
            entries,
            commit,
        });
    }
    let spared = entries.iter().take_while(|body| !entry::is_command(body)).count();
    entries.truncate(spared);
    (spared > 0).then_some(PeerMessage::Append {
        term,
        prev,
        entries,
        commit,
    })
}

/// The same message, of one that would rather not lead.
fn rather_not(mut message: PeerMessage) -> PeerMessage {
    if let PeerMessage::Raft(Message {
        body: Body::HeartbeatResponse { priority, .. },
        ..
    }) = &mut message
    {
        *priority = Priority::Low;
    }
    message
}

impl<S: StateMachine> Driver<S> {
    /// Looks at a message of a peer before the node does. Nothing is left of it if there is no room for it: entries the leader sends again, and
    /// another member's proposals are refused. Votes and everything else go on in what is left of the reserve.
    pub(super) fn hear(&mut self, from: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        self.refuge.hear(from, &message);
        if self.telling.space != Space::Out {
            return Some(message);
        }
        match message {
            PeerMessage::Forward { request, .. } => {
                let why = Reason::Busy;
                // A full queue loses it, and the sender's deadline decides.
                let _ = self.links.send(from, PeerMessage::Refuse { request, why });
                None
            }
            other => without_commands(other),
        }
    }

    /// What this node really says, where the node would say `message`.
    pub(super) fn say(&self, message: PeerMessage) -> PeerMessage {
        match self.telling.space {
            Space::Ok => message,
            Space::Low | Space::Out => rather_not(message),
        }
    }

    /// Hands over where that helps.
    pub(super) fn flee_full_disk(&mut self, now: Nanos) {
        let space = self.telling.space;
        if space == Space::Ok {
            return self.refuge.rest();
        }
        if !self.node_leads() {
            return;
        }
        let peers = self.node.raft().peers();
        let heirs = peers.filter(|(id, _)| self.is_heir(*id));
        let heirs: Vec<_> = heirs.map(|(id, peer)| (id, peer.matched)).collect();
        if let Some(heir) = self.refuge.flee(now, space, 2 * self.election, &heirs) {
            tracing::warn!("handing over leadership, since this node's disk is full");
            self.node.step(now, Event::Transfer(heir));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_base::{LogId, Term};
    use quorate_node::message::RequestId;

    use super::*;

    const PAUSE: Nanos = 100;
    const HEIRS: [(NodeId, Index); 2] = [(NodeId(2), Index(5)), (NodeId(3), Index(6))];

    fn answer(priority: Priority) -> PeerMessage {
        let body = Body::HeartbeatResponse {
            round: 1,
            verified: Index(5),
            matched: Index(5),
            priority,
        };
        let term = Term(1);
        PeerMessage::Raft(Message { term, body })
    }

    fn says(refuge: &mut Refuge, from: u64, priority: Priority) {
        refuge.hear(NodeId(from), &answer(priority));
    }

    fn flee(refuge: &mut Refuge, now: Nanos, space: Space) -> Option<Option<NodeId>> {
        refuge.flee(now, space, PAUSE, &HEIRS)
    }

    #[test]
    fn a_full_leader_goes_to_the_best_that_has_room_and_not_at_every_look() {
        let mut refuge = Refuge::default();
        assert_eq!(flee(&mut refuge, 0, Space::Low), None, "nobody has said anything");
        says(&mut refuge, 2, Priority::Normal);
        assert_eq!(flee(&mut refuge, 2, Space::Low), Some(Some(NodeId(2))));
        says(&mut refuge, 3, Priority::High);
        for (early, due) in [(101, 102), (301, 302), (701, 702)] {
            assert_eq!(flee(&mut refuge, early, Space::Low), None);
            assert_eq!(flee(&mut refuge, due, Space::Low), Some(Some(NodeId(3))));
        }
        assert_eq!(refuge.flee(5000, Space::Out, PAUSE, &[]), None);
        refuge.rest();
        assert_eq!(flee(&mut refuge, 703, Space::Low), Some(Some(NodeId(3))));
    }

    /// By this a healthy leader knows, too, and does not hand over to it for the priority that it was given.
    #[test]
    fn a_full_member_of_any_priority_says_that_it_would_rather_not_lead() {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            assert_eq!(rather_not(answer(priority)), answer(Priority::Low));
        }
    }

    #[test]
    fn where_all_are_full_the_leader_stays_and_tries_anybody_once_with_its_last_room() {
        let mut refuge = Refuge::default();
        says(&mut refuge, 2, Priority::Normal);
        says(&mut refuge, 2, Priority::Low);
        says(&mut refuge, 3, Priority::Low);
        for now in [0, 1000] {
            assert_eq!(flee(&mut refuge, now, Space::Low), None);
        }
        for _ in 0..2 {
            assert_eq!(flee(&mut refuge, 2000, Space::Out), Some(None));
            for now in [2000, 3000] {
                assert_eq!(flee(&mut refuge, now, Space::Out), None, "once is enough");
            }
            // Until there was room for more.
            assert_eq!(flee(&mut refuge, 4000, Space::Low), None);
        }
    }

    #[test]
    fn without_room_no_command_is_taken_and_nothing_behind_one() {
        let at = |index| LogId::new(2, index);
        let append = |entries: &[Bytes]| PeerMessage::Append {
            term: Term(2),
            prev: at(6),
            entries: entries.to_vec(),
            commit: at(6).index,
        };
        let noop = entry::encode_noop(at(7));
        let command = |index| entry::encode_command(at(index), RequestId::default(), b"put");
        let passes = |entries: &[Bytes]| without_commands(append(entries));
        assert_eq!(passes(&[]), Some(append(&[])));
        assert_eq!(
            passes(std::slice::from_ref(&noop)),
            Some(append(std::slice::from_ref(&noop)))
        );
        assert_eq!(passes(&[noop.clone(), command(8)]), Some(append(&[noop])));
        assert_eq!(passes(&[command(7), entry::encode_noop(at(8))]), None);
    }
}
