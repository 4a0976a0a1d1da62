//! Checks of client sessions (S18), in two ways that share nothing with the production table. What was executed is seen in the store, where
//! every execution leaves a value that is like no other: no value twice, no answer but the first. And what each command must answer, and
//! leave in the store, follows from [`Table`]: the rules of sessions written down once more, as plainly as possible.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::Index;
use quorate_kv::{Command, RequestOp};
use quorate_node::session::{Answer, SessionCommand, SessionId};

use super::Violation;
use crate::sessions::Logged;

/// What is known of one open session.
#[derive(Clone, Debug)]
struct Open {
    /// The entry that opened it.
    id: Index,
    /// The last entry that named it.
    used: Index,
    /// The command that was executed last, by its number, and what it answered.
    last: Option<(u64, Bytes)>,
}

/// The open sessions, the one that was not used for the longest time first.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Open>);

impl Table {
    /// What the entry at `at` must do to the store and answer.
    pub fn take_in(&mut self, at: Index, bytes: &Bytes) -> Logged {
        if Logged::is_of_store(bytes) {
            return Logged::Store(bytes.clone());
        }
        let (executed, answer) = match SessionCommand::decode(bytes) {
            Ok(SessionCommand::Open { limit }) => (None, self.open(at, limit)),
            Ok(SessionCommand::Close { session }) => {
                self.0.retain(|open| open.id != session.0);
                (None, Answer::Closed)
            }
            Ok(SessionCommand::Run {
                session,
                sequence,
                command,
            }) => self.run(at, session.0, sequence, command),
            Ok(SessionCommand::Plain { command }) => (Some(command), Answer::Done(answer_of(at))),
            Err(_) => (None, Answer::NotUnderstood),
        };
        Logged::session(executed, self.bytes(), answer)
    }

    fn open(&mut self, at: Index, limit: u32) -> Answer {
        // There is room for one more when all but `limit - 1` are gone, and for this one always.
        let kept = (limit as usize).saturating_sub(1);
        let surplus = self.0.len().saturating_sub(kept);
        self.0.drain(..surplus);
        self.0.push(Open {
            id: at,
            used: at,
            last: None,
        });
        Answer::Opened(SessionId(at))
    }

    fn run(&mut self, at: Index, id: Index, sequence: u64, command: Bytes) -> (Option<Bytes>, Answer) {
        if sequence == 0 {
            return (None, Answer::NotUnderstood);
        }
        let Some(place) = self.0.iter().position(|open| open.id == id) else {
            return (None, Answer::Expired);
        };
        let mut open = self.0.remove(place);
        open.used = at;
        let (executed, answer) = match &open.last {
            Some((last, _)) if sequence < *last => (None, Answer::Superseded),
            Some((last, answer)) if sequence == *last => (None, Answer::Done(answer.clone())),
            _ => {
                open.last = Some((sequence, answer_of(at)));
                (Some(command), Answer::Done(answer_of(at)))
            }
        };
        self.0.push(open);
        (executed, answer)
    }

    /// What stands in the store for this table: format 1, then each session in the order of their ids: id, last use, number of the
    /// last command (0: none), length of its answer, eight bytes each, little-endian; the answer.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1];
        let mut sessions: Vec<&Open> = self.0.iter().collect();
        sessions.sort_by_key(|open| open.id);
        for open in sessions {
            let (sequence, answer) = open.last.clone().unwrap_or_default();
            for number in [open.id.0, open.used.0, sequence, answer.len() as u64] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(answer);
        }
        bytes
    }
}

/// What a command answers that is executed at `at`.
fn answer_of(at: Index) -> Bytes {
    at.to_string().into()
}

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
    use crate::rng::Rng;
    use crate::sessions::take_in;
    use quorate_node::session::SessionTable;

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

    /// What commands of sessions do and answer, one after the other from entry 1 on.
    fn play(
        commands: &[SessionCommand],
        mut take_in: impl FnMut(Index, &Bytes) -> Logged,
    ) -> Vec<(Bytes, Answer)> {
        let logged = (1..)
            .zip(commands)
            .map(|(at, command)| take_in(Index(at), &command.encode()));
        let sessions = logged.map(|logged| match logged {
            Logged::Session(done, answer) => (done, answer),
            Logged::Store(bytes) => panic!("{bytes:?} is a command of a session"),
        });
        sessions.collect()
    }

    #[test]
    fn the_table_by_hand_follows_the_rules() {
        let run = |session, sequence| SessionCommand::Run {
            session: SessionId(Index(session)),
            sequence,
            command: "v".into(),
        };
        let open = |limit| SessionCommand::Open { limit };
        let close = |session| SessionCommand::Close {
            session: SessionId(Index(session)),
        };
        let done = |at: &'static str| Answer::Done(at.into());
        let opened = |at| Answer::Opened(SessionId(Index(at)));
        let story = [
            (open(2), opened(1)),
            (open(2), opened(2)),
            (run(1, 3), done("3")),
            (run(1, 3), done("3")),
            (run(1, 2), Answer::Superseded),
            (run(1, 0), Answer::NotUnderstood),
            // Session 2 was not used since it was opened.
            (open(2), opened(7)),
            (run(2, 1), Answer::Expired),
            (run(1, 4), done("9")),
            (close(1), Answer::Closed),
            (run(1, 5), Answer::Expired),
            (open(0), opened(12)),
            (run(7, 1), Answer::Expired),
            (run(12, 1), done("14")),
        ];
        let (commands, answers): (Vec<_>, Vec<_>) = story.into_iter().unzip();
        let mut table = Table::default();
        let told = play(&commands, |at, bytes| table.take_in(at, bytes));
        assert_eq!(
            told.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>(),
            answers
        );
    }

    #[test]
    fn the_table_by_hand_agrees_with_the_one_that_ships() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut commands = Vec::new();
            for at in 1..300 {
                let session = SessionId(Index(rng.within(1..at + 1)));
                commands.push(match rng.below(8) {
                    0 | 1 => SessionCommand::Open {
                        limit: rng.below(5) as u32,
                    },
                    2 => SessionCommand::Close { session },
                    3 => SessionCommand::Plain { command: "p".into() },
                    _ => SessionCommand::Run {
                        // Mostly one of those that are still open.
                        session: SessionId(Index(rng.within(at.saturating_sub(6).max(1)..at + 1))),
                        sequence: rng.within(0..4),
                        command: format!("s{at}").into(),
                    },
                });
            }
            let (mut plain, mut table) = (Table::default(), SessionTable::new());
            let expected = play(&commands, |at, bytes| plain.take_in(at, bytes));
            let found = play(&commands, |at, bytes| take_in(&mut table, at, bytes));
            assert_eq!(found, expected, "seed {seed}");
        }
    }
}
