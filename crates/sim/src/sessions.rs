//! A store with client sessions, as an embedder with a storage engine of his own builds one: the production table of sessions kept
//! together with the data, here as the value of a key of the store, so that both are saved, restored and hashed as one. Commands of
//! sessions and of the store stand in one log, told apart by their first byte.
//!
//! What a session executes is a put of a value that is like no other. It answers the index of the entry that executed it, so that a
//! second execution cannot give the same answer. What must hold of that (S18) is in [`ghost`](crate::ghost::sessions).

use std::io;

use bytes::Bytes;
use quorate_base::{Index, NodeId};
use quorate_kv::{Command, Kv, PutRequest, RangeRequest, RequestOp, TxnRequest};
use quorate_node::event::Token;
use quorate_node::session::{Answer, SessionCommand, SessionId, SessionTable};

use crate::coverage::Kind;
use crate::failure::Failure;
use crate::history::Action;
use crate::rng::Rng;
use crate::world::World;

/// Where the table stands.
const TABLE: &str = "sessions";

/// What sessions write is under this key.
const WRITTEN: &str = "session";

/// A command in the log.
pub enum Logged {
    /// Of the store.
    Store(Bytes),
    /// Of a session: what it does to the store, and what it answers.
    Session(Bytes, Answer),
}

impl Logged {
    /// Whether these bytes are a command of the store, and of no session.
    pub fn is_of_store(bytes: &Bytes) -> bool {
        // Commands of the store begin with their format's number, 1; those of sessions have the kind in that byte, too.
        bytes.first().is_none_or(|first| *first < 0x10)
    }

    /// A command of a session that executed this, if anything, left the table so and gave this answer.
    pub fn session(executed: Option<Bytes>, table: Vec<u8>, answer: Answer) -> Logged {
        let put = |key: &'static str, value: Bytes| {
            RequestOp::Put(PutRequest {
                key: key.into(),
                value,
                ..PutRequest::default()
            })
        };
        let written = executed.map(|value| put(WRITTEN, value));
        let txn = TxnRequest {
            success: written.into_iter().chain([put(TABLE, table.into())]).collect(),
            ..TxnRequest::default()
        };
        Logged::Session(Command::Txn(txn).encode(), answer)
    }
}

/// What the entry at `at` means for a state with this table, which takes it in.
pub fn take_in(table: &mut SessionTable, at: Index, bytes: &Bytes) -> Logged {
    if Logged::is_of_store(bytes) {
        return Logged::Store(bytes.clone());
    }
    let mut executed = None;
    let answer = table.apply(at, bytes, |value| {
        executed = Some(value.clone());
        Bytes::from(at.to_string())
    });
    Logged::session(executed, table.save(), answer)
}

/// The table as the store has it.
pub fn load(kv: &Kv) -> io::Result<SessionTable> {
    let request = RangeRequest {
        key: TABLE.into(),
        ..RangeRequest::default()
    };
    let found = kv.range(&request).map_err(io::Error::other)?;
    match found.kvs.first() {
        Some(kv) => SessionTable::load(&kv.value),
        None => Ok(SessionTable::new()),
    }
}

/// A client's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    id: Option<SessionId>,
    sequence: u64,
    /// What was asked under the last number.
    asked: Option<Bytes>,
    /// It was answered.
    answered: bool,
}

impl Session {
    /// What the client asks next: mostly what has no answer yet, again; at times it gives that up, or loses an answer and asks again.
    pub(crate) fn next(&mut self, rng: &mut Rng, call: usize) -> SessionCommand {
        let Some(session) = self.id else {
            let limit = rng.pick(&[4, 100, 100]);
            return SessionCommand::Open { limit };
        };
        if rng.below(40) == 0 {
            return SessionCommand::Close { session };
        }
        let again = if self.answered { 3 } else { 9 };
        let command = match &self.asked {
            Some(asked) if rng.below(10) < again => asked.clone(),
            _ => {
                self.sequence += 1;
                Bytes::from(format!("s{call}"))
            }
        };
        (self.asked, self.answered) = (Some(command.clone()), false);
        SessionCommand::Run {
            session,
            sequence: self.sequence,
            command,
        }
    }

    pub(crate) fn learn(&mut self, answer: &Answer) {
        match answer {
            Answer::Opened(id) => {
                *self = Session {
                    id: Some(*id),
                    ..Session::default()
                }
            }
            Answer::Done(_) => self.answered = true,
            Answer::Expired | Answer::Closed | Answer::Superseded | Answer::NotUnderstood => {
                *self = Session::default();
            }
        }
    }
}

impl World {
    /// The state machine of a node has answered a request of a session.
    pub(crate) fn note_session(
        &mut self,
        id: NodeId,
        at: Index,
        token: Token,
        answer: &Answer,
    ) -> Result<(), Failure> {
        let run = self.hosts[&id].run;
        let Some(pending) = self.pending.get(&(id, run, token)) else {
            return Ok(());
        };
        let Action::Session(command) = &self.calls[pending.call].action else {
            return Ok(());
        };
        self.ghost.sessions.told(command, answer)?;
        let kind = match answer {
            Answer::Done(first) if *first != at.to_string() => Some(Kind::SessionRetry),
            Answer::Expired => Some(Kind::SessionExpired),
            _ => None,
        };
        kind.into_iter().for_each(|kind| self.coverage.hit(kind));
        Ok(())
    }

    /// The table of sessions is what the store of a node has: after it was opened, or restored.
    pub(crate) fn load_sessions(&mut self, id: NodeId) -> Result<(), Failure> {
        let process = self.process(id).expect("its machine is at work");
        let loaded = crate::failure::catch(|| load(&process.kv).map_err(|error| error.to_string()));
        if let Some(table) = self.settle(id, loaded)? {
            let process = self.process(id).expect("settled");
            process.sessions = table;
        }
        Ok(())
    }
}
