//! A state with sessions: every command passes through the table, and both are saved as one.

use std::io;
use std::ops::Deref;

use bytes::Bytes;
use quorate_base::LogId;
use quorate_node::session::{Answer, SessionTable};

use crate::checkpoint::{Frozen, State};

/// Adds exactly-once sessions to a [`State`]. Its commands are [`SessionCommand`](crate::SessionCommand)s, usually proposed through a
/// [`Session`](super::Session); the state sees what is inside them.
///
/// It dereferences to the state.
#[derive(Clone, Debug, Default)]
pub struct Sessions<S> {
    table: SessionTable,
    state: S,
}

impl<S> Sessions<S> {
    /// `state`, so far without sessions.
    pub fn new(state: S) -> Sessions<S> {
        Sessions {
            table: SessionTable::new(),
            state,
        }
    }

    /// The sessions.
    pub fn table(&self) -> &SessionTable {
        &self.table
    }

    /// The state. The same as dereferencing.
    pub fn state(&self) -> &S {
        &self.state
    }
}

impl<S> Deref for Sessions<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S: State<Output = Bytes>> State for Sessions<S> {
    type Output = Answer;

    fn apply(&mut self, at: LogId, command: &Bytes) -> Answer {
        let state = &mut self.state;
        self.table
            .apply(at.index, command, |command| state.apply(at, command))
    }

    fn save(&self) -> Vec<u8> {
        join(&self.table.save(), &self.state.save())
    }

    fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "this is no saved state with sessions");
        let (len, rest) = saved.split_first_chunk::<8>().ok_or_else(short)?;
        let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| short())?;
        let (table, state) = rest.split_at_checked(len).ok_or_else(short)?;
        self.table = SessionTable::load(table)?;
        self.state.load(state)
    }

    fn freeze(&self) -> Frozen {
        let (table, state) = (self.table.save(), self.state.freeze());
        Box::new(move || join(&table, &state()))
    }

    fn level(&mut self, level: u32) {
        self.state.level(level);
    }

    fn batch_applied(&mut self) {
        self.state.batch_applied();
    }
}

fn join(table: &[u8], state: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + table.len() + state.len());
    bytes.extend_from_slice(&(table.len() as u64).to_le_bytes());
    bytes.extend_from_slice(table);
    bytes.extend_from_slice(state);
    bytes
}
