//! Checks of the state machines: every node applies C and nothing else, answers what a plain model answers (S15), and has the
//! same state at the same index, replayed and restored ones included (S14).

use std::collections::BTreeMap;

use quorate_base::{Index, LogId, NodeId};
use quorate_kv::{Applied, Command, Error, RangeRequest, RangeResponse, Response, ResponseOp};
use quorate_node::entry::{Content, Entry};
use quorate_node::event::ToApply;
use quorate_node::session::Answer;

use super::sessions::Table;
use super::{Ghost, Violation};
use crate::coverage::Kind;
use crate::model::Model;
use crate::sessions::Logged;
use crate::trace::Nanos;

/// What an applied command answers.
pub type Output = Result<Applied, Error>;

/// What the state machines did, on whichever node it was seen first.
#[derive(Clone, Debug, Default)]
pub struct Machines {
    model: Model,
    /// What the model answers at each index; `None` where there is no command.
    expected: Vec<Option<Output>>,
    /// The model's revision and compacted revision after each index.
    revisions: Vec<(i64, i64)>,
    /// The sessions after everything that any node has applied.
    sessions: Table,
    /// What was answered to the session at each index that holds a command of one.
    answers: Vec<Option<Answer>>,
    /// State hashes, where they were taken.
    hashes: BTreeMap<Index, u32>,
}

impl Machines {
    /// Up to where any node has applied.
    pub fn applied(&self) -> Index {
        Index(self.revisions.len() as u64)
    }

    /// The model after everything that any node has applied.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A node that has applied up to `applied` answers a read. What it may be follows from that index alone, so compacted and future
    /// revisions are refused by all nodes alike (S15), and the header's revision is that of the state (S13).
    pub fn check_answer(
        &self,
        id: NodeId,
        applied: Index,
        request: &RangeRequest,
        answer: &Result<RangeResponse, Error>,
    ) -> Result<(), Violation> {
        let (revision, compacted) = match applied {
            Index::ZERO => (1, 0),
            Index(index) => self.revisions[index as usize - 1],
        };
        let expected = match request.revision {
            asked if asked > revision => Err(&Error::FutureRevision),
            asked if asked > 0 && asked < compacted => Err(&Error::Compacted),
            _ => Ok(revision),
        };
        if answer.as_ref().map(|answer| answer.revision) == expected {
            return Ok(());
        }
        let asked = request.revision;
        Violation::because(
            "S15",
            format!(
                "{id} at {applied} answers a read of revision {asked} by {answer:?}, right is {expected:?}"
            ),
        )
    }

    /// A node answers a command of a session so: as all others do (S18).
    pub fn check_session(&self, id: NodeId, at: Index, answer: &Answer) -> Result<(), Violation> {
        let expected = self.answers.get(at.0 as usize - 1).and_then(Option::as_ref);
        if expected == Some(answer) {
            return Ok(());
        }
        Violation::because(
            "S18",
            format!("{id} answers {answer:?} at {at}, right is {expected:?}"),
        )
    }

    /// A node has this hash after applying `index`.
    pub fn check_hash(&mut self, id: NodeId, index: Index, hash: u32) -> Result<(), Violation> {
        self.hashes.entry(index).or_insert(hash);
        self.compare_hash(id, index, hash)
    }

    /// Like [`check_hash`](Machines::check_hash) where another node's is known, of a node that nobody is to be compared with.
    pub fn compare_hash(&self, id: NodeId, index: Index, hash: u32) -> Result<(), Violation> {
        if let Some(expected) = self.hashes.get(&index).filter(|expected| **expected != hash) {
            return Violation::because(
                "S14",
                format!("{id} has state {hash:08x} at {index}, another has {expected:08x}"),
            );
        }
        Ok(())
    }
}

impl Ghost {
    /// A node may apply `entry`: it is C's, and durable in that node's own log (S9).
    pub fn check_apply(&mut self, id: NodeId, entry: &ToApply) -> Result<(), Violation> {
        let at = entry.at;
        if self.commits.term_at(at.index) != Some(at.term) {
            return Violation::because("S3", format!("{id} applies {at}, which was not committed"));
        }
        if !self.members[&id].durable.holds(at.index, &self.commits) {
            let last = self.members[&id].durable.last();
            return Violation::because("S9", format!("{id} applies {at}, and its disk has {last}"));
        }
        let content = self.commits.body(at).map(Entry::decode);
        let same = match (content, &entry.command) {
            (
                Some(Ok(Entry {
                    content: Content::Command { command, .. },
                    ..
                })),
                Some(given),
            ) => command == given,
            (
                Some(Ok(Entry {
                    content: Content::Noop,
                    ..
                })),
                None,
            ) => entry.level.is_none(),
            (
                Some(Ok(Entry {
                    content: Content::Config(config),
                    ..
                })),
                None,
            ) => {
                // The machine hears of a new feature level in log order, with the entry that brings it.
                let before = Index(at.index.0.saturating_sub(1));
                let rises = config.level > self.commits.config_at(before).1.level;
                match entry.level {
                    Some(level) => level == config.level,
                    None => !rises,
                }
            }
            _ => false,
        };
        if same {
            Ok(())
        } else {
            Violation::because("S2", format!("{id} applies something else than the entry {at}"))
        }
    }

    /// A machine that has applied up to `applied` is told the feature level there, which C says. A node that joined does not know what
    /// the founders began with.
    pub fn check_level(
        &self,
        id: NodeId,
        applied: Index,
        level: u32,
        founder: bool,
    ) -> Result<(), Violation> {
        let (since, config) = self.commits.config_at(applied);
        if level == config.level || (since == Index::ZERO && !founder && level == 0) {
            return Ok(());
        }
        let right = config.level;
        Violation::because(
            "S14",
            format!("{id} tells its machine level {level} at {applied}, where it is {right}"),
        )
    }

    /// A node applied `entry` and answered `output`; `None` for an entry without a command. Answers what that means for the lives of
    /// leases, if nobody had applied it before.
    pub fn applied(
        &mut self,
        now: Nanos,
        id: NodeId,
        entry: &ToApply,
        output: Option<&Output>,
    ) -> Result<Option<Kind>, Violation> {
        let slot = entry.at.index.0 as usize - 1;
        let machines = &mut self.machines;
        if slot > machines.expected.len() {
            let next = machines.expected.len() + 1;
            return Violation::because(
                "S9",
                format!("{id} applies {}, and nobody has applied {next}", entry.at),
            );
        }
        if slot < machines.expected.len() {
            return compare(id, entry.at, machines.expected[slot].as_ref(), output).map(|()| None);
        }
        let mut asked = entry.command.as_ref();
        let taken = asked.map(|bytes| machines.sessions.take_in(entry.at.index, bytes));
        let (bytes, told) = match taken {
            None => (None, None),
            Some(Logged::Store(bytes)) => {
                asked = None;
                (Some(bytes), None)
            }
            Some(Logged::Session(bytes, answer)) => (Some(bytes), Some(answer)),
        };
        machines.answers.push(told);
        let command = match bytes.as_ref().map(Command::decode) {
            None => None,
            Some(Ok(command)) => Some(command),
            Some(Err(error)) => return Violation::because("S14", format!("entry {}: {error}", entry.at)),
        };
        let answer = command
            .as_ref()
            .map(|command| machines.model.apply(entry.at, command));
        let model = &machines.model;
        machines.revisions.push((model.revision(), model.compacted()));
        compare(id, entry.at, answer.as_ref(), output)?;
        let met = match (&command, &answer) {
            (Some(command), Some(Ok(applied))) => self.lease_applied(now, entry.at.term, command, applied)?,
            _ => None,
        };
        if let (Some(asked), Some(command)) = (asked, &command) {
            self.sessions.applied(entry.at.index, asked, command)?;
        }
        self.machines.expected.push(answer);
        Ok(met)
    }
}

fn compare(
    id: NodeId,
    at: LogId,
    expected: Option<&Output>,
    output: Option<&Output>,
) -> Result<(), Violation> {
    let same = match (expected, output) {
        (Some(Ok(expected)), Some(Ok(output))) => plain(expected) == plain(output),
        (expected, output) => expected == output,
    };
    if same {
        return Ok(());
    }
    Violation::because(
        "S15",
        format!("{id} answers {output:?} to {at}, right is {expected:?}"),
    )
}

/// The answer without the revisions inside a transaction's parts, which nobody sees: the API has one header only.
fn plain(applied: &Applied) -> Applied {
    let mut applied = applied.clone();
    if let Response::Txn(txn) = &mut applied.response {
        for part in &mut txn.responses {
            match part {
                ResponseOp::Range(range) => range.revision = 0,
                ResponseOp::Put(put) => put.revision = 0,
                ResponseOp::DeleteRange(delete) => delete.revision = 0,
                ResponseOp::Txn(_) => {}
            }
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_may_say_follows_from_the_index_it_is_served_at() {
        // Two writes, and then a compaction of the first.
        let machines = Machines {
            revisions: vec![(2, 0), (3, 0), (3, 3)],
            ..Machines::default()
        };
        let check = |applied, revision, answer: Result<i64, Error>| {
            let request = RangeRequest {
                revision,
                ..RangeRequest::default()
            };
            let answer = answer.map(|revision| RangeResponse {
                revision,
                ..RangeResponse::default()
            });
            let checked = machines.check_answer(NodeId(1), Index(applied), &request, &answer);
            checked.map_err(|violation| violation.rule)
        };
        for (applied, revision, right, wrong) in [
            (0, 0, Ok(1), Ok(2)),
            (2, 0, Ok(3), Ok(2)),
            (2, 2, Ok(3), Err(Error::Compacted)),
            (2, 4, Err(Error::FutureRevision), Ok(3)),
            (3, 2, Err(Error::Compacted), Ok(3)),
            (3, 3, Ok(3), Err(Error::Compacted)),
        ] {
            assert_eq!(check(applied, revision, right), Ok(()), "{revision} at {applied}");
            assert_eq!(
                check(applied, revision, wrong),
                Err("S15"),
                "{revision} at {applied}"
            );
        }
    }

    #[test]
    fn sessions_are_answered_alike_by_all() {
        let machines = Machines {
            answers: vec![None, Some(Answer::Closed)],
            ..Machines::default()
        };
        let check = |at, answer| machines.check_session(NodeId(1), Index(at), &answer);
        assert_eq!(check(2, Answer::Closed), Ok(()));
        for (at, answer) in [(1, Answer::Closed), (2, Answer::Expired), (3, Answer::Closed)] {
            assert_eq!(check(at, answer).expect_err("another").rule, "S18");
        }
    }
}
