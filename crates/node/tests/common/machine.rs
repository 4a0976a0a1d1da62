//! A state machine that remembers every command: the easiest to compare.

use bytes::Bytes;
use quorate_base::LogId;

/// All commands so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub applied: LogId,
    pub commands: Vec<Bytes>,
}

impl Machine {
    pub fn apply(&mut self, at: LogId, command: Option<Bytes>) {
        assert_eq!(
            at.index,
            self.applied.index.next(),
            "entries are applied in order, without gaps, each once"
        );
        assert!(at.term >= self.applied.term, "terms never fall");
        self.applied = at;
        self.commands.extend(command);
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.applied.term.0.to_le_bytes());
        bytes.extend(self.applied.index.0.to_le_bytes());
        for command in &self.commands {
            bytes.extend((command.len() as u64).to_le_bytes());
            bytes.extend_from_slice(command);
        }
        bytes
    }

    pub fn decode(mut bytes: &[u8]) -> Machine {
        let number = |bytes: &mut &[u8]| {
            let (front, rest) = bytes.split_at(8);
            *bytes = rest;
            u64::from_le_bytes(front.try_into().unwrap())
        };
        let applied = LogId::new(number(&mut bytes), number(&mut bytes));
        let mut commands = Vec::new();
        while !bytes.is_empty() {
            let len = number(&mut bytes) as usize;
            let (command, rest) = bytes.split_at(len);
            commands.push(Bytes::copy_from_slice(command));
            bytes = rest;
        }
        Machine { applied, commands }
    }
}
