//! What every measured cluster has to do, and the check that it did: three members, all in this thread, no I/O. A round proposes a
//! batch at the leader and lets the members talk until all three have committed and applied every command of it.

use bytes::Bytes;

/// Bytes of a command, as the published figures of other implementations have it.
pub const PAYLOAD: usize = 64;

/// A log drops what is applied each time it has grown by so much: nobody's log grows without bound.
pub const COMPACT_EVERY: u64 = 8192;

/// Three members of one kind.
pub trait Cluster {
    /// A cluster that has elected its leader and has nothing more to do.
    fn start() -> Self;

    /// Proposes these commands, all at once, and goes on until nobody has anything left to say.
    fn round(&mut self, commands: Vec<Vec<u8>>);

    /// What the members have applied.
    fn applied(&self) -> [&Applied; 3];
}

/// The state machine: checks that commands come in order, each once, and counts them.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many commands.
    pub count: u64,
}

impl Applied {
    /// The next committed command.
    pub fn apply(&mut self, command: &Bytes) {
        assert_eq!(command.len(), PAYLOAD, "a command arrives whole");
        let number = u64::from_le_bytes(command[..8].try_into().expect("eight bytes"));
        assert_eq!(number, self.count, "commands are applied in order, each once");
        self.count += 1;
    }
}

/// The commands from number `first` on.
pub fn commands(first: u64, batch: usize) -> Vec<Vec<u8>> {
    (first..first + batch as u64)
        .map(|number| {
            let mut command = vec![b'x'; PAYLOAD];
            command[..8].copy_from_slice(&number.to_le_bytes());
            command
        })
        .collect()
}
