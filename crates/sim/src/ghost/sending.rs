//! Checks of what leaves a node: no message promises what the disk does not hold (S6), nor more than one vote a term (S8),
//! and every entry goes out with its own bytes.

use quorate_base::{LogId, NodeId, Term};
use quorate_node::entry;
use quorate_node::event::StreamId;
use quorate_node::message::{PeerMessage, SnapshotOutcome};
use quorate_raft::{Body, Message, Raft};

use super::log::chain;
use super::{Ghost, Violation};

impl Ghost {
    /// Checks a message at the moment it leaves.
    pub fn sent(
        &mut self,
        id: NodeId,
        raft: &Raft,
        to: NodeId,
        message: &PeerMessage,
    ) -> Result<(), Violation> {
        match message {
            PeerMessage::Raft(message) => self.sent_raft(id, raft, to, message),
            PeerMessage::Append {
                term, prev, entries, ..
            } => {
                self.check_term(id, raft, *term)?;
                // It may have been elected and deposed by one batch of inputs, which shows nowhere else.
                self.note_leader(id, *term)?;
                self.check_entries(id, raft, *term, *prev, entries)
            }
            PeerMessage::SnapshotBegin { stream, term, meta } => {
                self.check_term(id, raft, *term)?;
                let last = meta.last;
                self.transfers.insert((id, *stream), last.index);
                if self.commits.term_at(last.index) != Some(last.term)
                    || meta.config != *self.commits.config_at(last.index).1
                {
                    return Violation::because(
                        "S12",
                        format!("{id} offers a snapshot of {meta:?}, unlike C"),
                    );
                }
                Ok(())
            }
            PeerMessage::SnapshotChunk { term, .. } => self.check_term(id, raft, *term),
            PeerMessage::Accept { at, .. } => {
                if raft.log().base().last.index < at.index && self.commits.body(*at).is_none() {
                    return Violation::because(
                        "S6",
                        format!("{id} accepted a proposal at {at}, which nobody has"),
                    );
                }
                Ok(())
            }
            PeerMessage::Forward { .. }
            | PeerMessage::Refuse { .. }
            | PeerMessage::Reconfigure { .. }
            | PeerMessage::Reconfigured { .. }
            // See `acknowledged`.
            | PeerMessage::SnapshotAck { .. } => Ok(()),
        }
    }

    /// Checks the acknowledgement of a snapshot at the moment it leaves (S6): `len` bytes of it are staged, or all of it is installed, so that a
    /// crash now would keep that. `staged` is how much of this very transfer, number `stream` of `to`'s, a crash now would leave in the staging
    /// file.
    pub fn acknowledged(
        &self,
        id: NodeId,
        raft: &Raft,
        (to, stream): (NodeId, StreamId),
        (len, outcome): (u64, SnapshotOutcome),
        staged: u64,
    ) -> Result<(), Violation> {
        // Refused: it is not wanted. Checking: it is only being read.
        if matches!(outcome, SnapshotOutcome::Refused | SnapshotOutcome::Checking) {
            return Ok(());
        }
        let Some(index) = self.transfers.get(&(to, stream)).copied() else {
            return Violation::because("S6", format!("{id} has of a snapshot that {to} never offered"));
        };
        // A piece may come late, when the state machine has taken the file over.
        let log = &self.members[&id].durable;
        let installed = log.holds(index, &self.commits);
        // One that the log has overtaken is not needed: to say so promises nothing of the disk.
        let overtaken = raft.commit() >= index && raft.log().base().last.index != index;
        let kept = match outcome {
            SnapshotOutcome::Done => overtaken,
            _ => len <= staged,
        };
        if installed || kept {
            return Ok(());
        }
        let last = log.last();
        Violation::because(
            "S6",
            format!(
                "{id} says of the snapshot {index}: {len}, {outcome:?}; its disk has {staged} staged, and the log to {last}"
            ),
        )
    }

    fn sent_raft(&mut self, id: NodeId, raft: &Raft, to: NodeId, message: &Message) -> Result<(), Violation> {
        // Pre-votes promise nothing, and are exempt from durability.
        if !matches!(message.body, Body::PreVote { .. } | Body::PreVoteResponse { .. }) {
            self.check_term(id, raft, message.term)?;
        } else if message.term > raft.term() {
            return Violation::because(
                "S8",
                format!("{id} speaks of term {} in {}", message.term, raft.term()),
            );
        }
        match &message.body {
            // Who runs under another's name votes for that name.
            Body::Vote { .. } => {
                let own = self.aliases.get(&id).copied().unwrap_or(id);
                self.check_vote(id, message.term, own)
            }
            Body::VoteResponse { granted: true } => self.check_vote(id, message.term, to),
            Body::Heartbeat { .. } => self.note_leader(id, message.term),
            Body::Appended { upto } => {
                let durable = &self.members[&id].durable;
                let Some(leader) = self.leaders.get(&message.term) else {
                    return Violation::because(
                        "S1",
                        format!("{id} acknowledges in term {}, which nobody leads", message.term),
                    );
                };
                if durable.last().index < *upto {
                    let last = durable.last();
                    return Violation::because(
                        "S6",
                        format!("{id} acknowledges {upto}, and its disk has {last}"),
                    );
                }
                let Some(member) = self.members.get(leader) else {
                    return Ok(());
                };
                if member.leads == Some(message.term)
                    && durable.hash_at(*upto) != member.volatile.hash_at(*upto)
                    && !(durable.holds(*upto, &self.commits) && member.volatile.holds(*upto, &self.commits))
                {
                    return Violation::because(
                        "S6",
                        format!("{id} acknowledges {upto} with another log than {leader}'s"),
                    );
                }
                Ok(())
            }
            Body::HeartbeatResponse { matched, .. } => {
                let last = self.members[&id].durable.last();
                if last.index < *matched {
                    return Violation::because(
                        "S6",
                        format!("{id} answers that {matched} is matched, and its disk has {last}"),
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A message's term is at most its sender's, and durable (S6, S8).
    fn check_term(&self, id: NodeId, raft: &Raft, term: Term) -> Result<(), Violation> {
        let durable = self.members[&id].durable.hard.term;
        if term > raft.term() || term > durable {
            let own = raft.term();
            return Violation::because(
                "S6",
                format!("{id} says term {term}; its own is {own}, durable {durable}"),
            );
        }
        Ok(())
    }

    fn check_vote(&mut self, id: NodeId, term: Term, to: NodeId) -> Result<(), Violation> {
        if self.durable_votes.get(&(id, term)) != Some(&to) {
            return Violation::because("S6", format!("{id} votes for {to} in term {term}, not durably"));
        }
        self.note_vote(id, term, to)
    }

    /// A vote of a machine that only claims to be a member is the member's if it is heard. Until then it is one of those that nobody lets in.
    pub fn vote_heard(
        &mut self,
        machine: NodeId,
        message: &PeerMessage,
        by: NodeId,
    ) -> Result<(), Violation> {
        let PeerMessage::Raft(Message { term, body }) = message else {
            return Ok(());
        };
        match (body, self.aliases.get(&machine).copied()) {
            (Body::VoteResponse { granted: true }, Some(member)) => self.note_vote(member, *term, by),
            _ => Ok(()),
        }
    }

    fn note_vote(&mut self, id: NodeId, term: Term, to: NodeId) -> Result<(), Violation> {
        let before = *self.votes.entry((id, term)).or_insert(to);
        if before != to {
            return Violation::because("S8", format!("{id} votes for {before} and {to} in term {term}"));
        }
        Ok(())
    }

    fn check_entries(
        &self,
        id: NodeId,
        raft: &Raft,
        term: Term,
        prev: LogId,
        entries: &[bytes::Bytes],
    ) -> Result<(), Violation> {
        let member = &self.members[&id];
        let mut hash = member.volatile.hash_at(prev.index);
        let mut last = prev;
        for body in entries {
            let Some(at) = entry::id_of(body) else {
                return Violation::because("S2", format!("{id} sends nonsense after {last}"));
            };
            if at.index != last.index.next() || self.commits.body(at) != Some(body) {
                return Violation::because(
                    "S2",
                    format!("{id} sends after {last} what is not the entry {at}"),
                );
            }
            hash = hash.map(|hash| chain(hash, body));
            last = at;
        }
        let leads = raft.term() == term && member.leads == Some(term);
        if leads && hash.is_some() && hash != member.volatile.hash_at(last.index) {
            return Violation::because(
                "S2",
                format!("{id} sends entries up to {last} that are not its log"),
            );
        }
        Ok(())
    }
}
