//! Checks of the state machines: every node applies C and nothing else, answers what a plain model answers (S15), and has the
//! same state at the same index, replayed and restored ones included (S14).

use std::collections::BTreeMap;

use quorate_base::{Index, LogId, NodeId};
use quorate_kv::{Applied, Command, Error, Response, ResponseOp};
use quorate_node::entry::{Content, Entry};
use quorate_node::event::ToApply;

use super::{Ghost, Violation};
use crate::model::Model;

/// What an applied command answers.
pub type Output = Result<Applied, Error>;

/// What the state machines did, on whichever node it was seen first.
#[derive(Clone, Debug, Default)]
pub struct Machines {
    model: Model,
    /// What the model answers at each index; `None` where there is no command.
    expected: Vec<Option<Output>>,
    /// State hashes, where they were taken.
    hashes: BTreeMap<Index, u32>,
}

impl Machines {
    /// The model after everything that any node has applied.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A node has this hash after applying `index`.
    pub fn check_hash(&mut self, id: NodeId, index: Index, hash: u32) -> Result<(), Violation> {
        let expected = *self.hashes.entry(index).or_insert(hash);
        if expected != hash {
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

    /// A node applied `entry` and answered `output`; `None` for an entry without a command.
    pub fn applied(&mut self, id: NodeId, entry: &ToApply, output: Option<&Output>) -> Result<(), Violation> {
        let slot = entry.at.index.0 as usize - 1;
        let machines = &mut self.machines;
        if slot > machines.expected.len() {
            let next = machines.expected.len() + 1;
            return Violation::because(
                "S9",
                format!("{id} applies {}, and nobody has applied {next}", entry.at),
            );
        }
        if slot == machines.expected.len() {
            let answer = match &entry.command {
                None => None,
                Some(bytes) => match Command::decode(bytes) {
                    Ok(command) => Some(machines.model.apply(&command)),
                    Err(error) => return Violation::because("S14", format!("entry {}: {error}", entry.at)),
                },
            };
            machines.expected.push(answer);
        }
        compare(id, entry.at, machines.expected[slot].as_ref(), output)
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
