//! The table of sessions: a deterministic part of the replicated state, so it has to be in every checkpoint and snapshot, together with
//! the state that its commands change. No clock, no I/O; the log alone decides who is evicted.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use quorate_base::Index;

use super::command::{Answer, SessionCommand, SessionId};

const FORMAT: u8 = 1;

/// What is remembered of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// The last entry that named it.
    used: Index,
    /// The number of its last command; 0 before the first.
    sequence: u64,
    /// What that command answered.
    answer: Bytes,
}

/// Who has executed what (thesis §6.3). One per replicated state.
///
/// Memory: the last answer of each session and about 150 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTable {
    sessions: BTreeMap<SessionId, Record>,
    /// The sessions by the last entry that named each: the first is evicted first.
    by_use: BTreeMap<Index, SessionId>,
}

impl SessionTable {
    /// A table without sessions.
    pub fn new() -> SessionTable {
        SessionTable::default()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether `session` is open.
    pub fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Applies the encoded [`SessionCommand`] of the entry `at`. `execute` is called if and only if a command is to be executed now: at
    /// most once for each number of a session, however often that is in the log.
    ///
    /// ```
    /// use quorate_base::Index;
    /// use quorate_node::session::{Answer, SessionCommand, SessionTable};
    ///
    /// let (mut table, mut total) = (SessionTable::new(), 0);
    /// let open = SessionCommand::Open { limit: 100 }.encode();
    /// let Answer::Opened(session) = table.apply(Index(1), &open, |_| unreachable!()) else { panic!() };
    /// let run = SessionCommand::Run { session, sequence: 1, command: "add one".into() }.encode();
    /// for index in [2, 3, 4] {
    ///     let answer = table.apply(Index(index), &run, |_command| {
    ///         total += 1;
    ///         format!("now {total}").into()
    ///     });
    ///     assert_eq!(answer, Answer::Done("now 1".into()));
    /// }
    /// ```
    ///
    /// # Panics
    /// If `at` is not after every entry applied before.
    pub fn apply(&mut self, at: Index, command: &Bytes, execute: impl FnOnce(&Bytes) -> Bytes) -> Answer {
        if let Some((last, _)) = self.by_use.last_key_value() {
            assert!(
                *last < at,
                "entry {at} comes after entry {last}: entries are applied in order"
            );
        }
        match SessionCommand::decode(command) {
            Ok(SessionCommand::Open { limit }) => self.open(at, limit),
            Ok(SessionCommand::Run {
                session,
                sequence,
                command,
            }) => self.run(at, session, sequence, || execute(&command)),
            Ok(SessionCommand::Close { session }) => {
                self.forget(session);
                Answer::Closed
            }
            Ok(SessionCommand::Plain { command }) => Answer::Done(execute(&command)),
            Err(_) => Answer::NotUnderstood,
        }
    }

    fn open(&mut self, at: Index, limit: u32) -> Answer {
        while self.sessions.len() >= (limit as usize).max(1) {
            let (_, oldest) = self.by_use.pop_first().expect("every session was used once");
            self.sessions.remove(&oldest);
        }
        let id = SessionId(at);
        let record = Record {
            used: at,
            sequence: 0,
            answer: Bytes::new(),
        };
        self.sessions.insert(id, record);
        self.by_use.insert(at, id);
        Answer::Opened(id)
    }

    fn run(&mut self, at: Index, id: SessionId, sequence: u64, execute: impl FnOnce() -> Bytes) -> Answer {
        if sequence == 0 {
            return Answer::NotUnderstood;
        }
        let Some(record) = self.sessions.get_mut(&id) else {
            return Answer::Expired;
        };
        self.by_use.remove(&record.used);
        self.by_use.insert(at, id);
        record.used = at;
        if sequence < record.sequence {
            return Answer::Superseded;
        }
        if sequence > record.sequence {
            record.sequence = sequence;
            // A copy: the answer may be a slice of something large.
            record.answer = Bytes::copy_from_slice(&execute());
        }
        Answer::Done(record.answer.clone())
    }

    fn forget(&mut self, id: SessionId) {
        if let Some(record) = self.sessions.remove(&id) {
            self.by_use.remove(&record.used);
        }
    }

    /// The table as bytes, for a checkpoint or snapshot. Equal tables give equal bytes.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        for (id, record) in &self.sessions {
            for number in [id.0.0, record.used.0, record.sequence, record.answer.len() as u64] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&record.answer);
        }
        bytes
    }

    /// The table that [`save`](SessionTable::save) wrote.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if these are no such bytes.
    pub fn load(saved: &[u8]) -> io::Result<SessionTable> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "this is no saved table of sessions");
        let Some((&FORMAT, mut rest)) = saved.split_first() else {
            return Err(damaged());
        };
        let mut table = SessionTable::new();
        while !rest.is_empty() {
            let mut number = || {
                let (first, others) = rest.split_first_chunk::<8>()?;
                rest = others;
                Some(u64::from_le_bytes(*first))
            };
            let (Some(id), Some(used), Some(sequence), Some(len)) = (number(), number(), number(), number())
            else {
                return Err(damaged());
            };
            let len = usize::try_from(len).map_err(|_| damaged())?;
            let (answer, others) = rest.split_at_checked(len).ok_or_else(damaged)?;
            rest = others;
            let (id, used) = (SessionId(Index(id)), Index(used));
            let record = Record {
                used,
                sequence,
                answer: Bytes::copy_from_slice(answer),
            };
            let known = table.sessions.insert(id, record).is_some();
            if known || table.by_use.insert(used, id).is_some() {
                return Err(damaged());
            }
        }
        Ok(table)
    }
}
