//! Checks of client sessions (S18), without any table of sessions: what was executed is seen in the store, where every execution
//! leaves a value that is like no other.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::Index;
use quorate_kv::{Command, RequestOp};
use quorate_node::session::{Answer, SessionCommand};

use super::Violation;

/// What was executed for sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// By value written, the entry that did it.
    executed: BTreeMap<Bytes, Index>,
}

impl Sessions {
    /// The entry `at` of a session did this to the store, as a node applied it first. `asked` is what stands in the log.
    pub fn applied(&mut self, at: Index, asked: &Bytes, done: &Command) -> Result<(), Violation> {
        let Ok(SessionCommand::Run { command, .. }) = SessionCommand::decode(asked) else {
            return Ok(());
        };
        let Command::Txn(txn) = done else {
            return Violation::because("S18", format!("entry {at} did {done:?}"));
        };
        let wrote = |op: &RequestOp| matches!(op, RequestOp::Put(put) if put.value == command);
        if !txn.success.iter().any(wrote) {
            return Ok(());
        }
        match self.executed.insert(command.clone(), at) {
            None => Ok(()),
            Some(first) => {
                Violation::because("S18", format!("{command:?} is executed at {first} and at {at}"))
            }
        }
    }

    /// A client is told this of its command: nothing but the answer of the one execution will do.
    pub fn told(&self, asked: &SessionCommand, answer: &Answer) -> Result<(), Violation> {
        let right = match (asked, answer) {
            (SessionCommand::Run { command, .. }, Answer::Done(told)) => {
                let first = self.executed.get(command);
                first.is_some_and(|first| *told == first.to_string())
            }
            (SessionCommand::Run { .. }, Answer::Expired | Answer::Superseded) => true,
            (SessionCommand::Open { .. }, Answer::Opened(_))
            | (SessionCommand::Close { .. }, Answer::Closed) => true,
            _ => false,
        };
        if right {
            return Ok(());
        }
        let first = match asked {
            SessionCommand::Run { command, .. } => self.executed.get(command),
            _ => None,
        };
        Violation::because(
            "S18",
            format!("{asked:?}, executed at {first:?}, is answered {answer:?}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Logged, take_in};
    use quorate_node::session::{SessionId, SessionTable};

    const SESSION: SessionId = SessionId(Index(1));

    fn run() -> SessionCommand {
        SessionCommand::Run {
            session: SESSION,
            sequence: 1,
            command: "s7".into(),
        }
    }

    /// A ghost that has seen session 1 opened, and its first command in the log at the indexes 2 and 3.
    fn apply(forget_between: bool) -> Result<(Sessions, Answer), Violation> {
        let (mut sessions, mut table) = (Sessions::default(), SessionTable::new());
        let mut last = Answer::NotUnderstood;
        let open = SessionCommand::Open { limit: 9 };
        let mut opened = SessionTable::new();
        for (index, command) in [(1, open), (2, run()), (3, run())] {
            let (at, bytes) = (Index(index), command.encode());
            let Logged::Session(done, answer) = take_in(&mut table, at, &bytes) else {
                panic!("a command of a session")
            };
            sessions.applied(at, &bytes, &Command::decode(&done).expect("a command"))?;
            last = answer;
            if index == 1 {
                opened = table.clone();
            } else if forget_between {
                table = opened.clone();
            }
        }
        Ok((sessions, last))
    }

    #[test]
    fn a_command_that_is_executed_twice_is_rejected() {
        assert_eq!(apply(true).expect_err("the table forgot it").rule, "S18");
        let (_, answer) = apply(false).expect("once");
        assert_eq!(answer, Answer::Done("2".into()));
    }

    #[test]
    fn an_answer_other_than_the_first_is_rejected() {
        let (sessions, answer) = apply(false).expect("once");
        assert_eq!(sessions.told(&run(), &answer), Ok(()));
        assert_eq!(sessions.told(&run(), &Answer::Expired), Ok(()));
        for wrong in [
            Answer::Done("3".into()),
            Answer::Opened(SESSION),
            Answer::NotUnderstood,
        ] {
            assert!(sessions.told(&run(), &wrong).is_err(), "{wrong:?}");
        }
        let never = Sessions::default();
        assert!(never.told(&run(), &answer).is_err(), "it was never executed");
    }
}
