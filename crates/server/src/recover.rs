//! `quorate::recover` for a server's data directory: what a person is shown before a new cluster is made out of one member's data.

use std::io;
use std::path::Path;
use std::sync::Arc;

use quorate::recover::{RecoverError, Recovered, Remains};
use quorate_base::Disk;
use quorate_kv::Options;
use tokio::sync::mpsc;

use crate::machine::KvMachine;

/// What is left, and the revision of the store as it stands on the disk. The rest of the log comes on top of that.
///
/// # Errors
/// See [`quorate::recover::inspect`].
pub fn inspect(dir: &Path) -> Result<(Remains, i64), RecoverError> {
    let mut revision = 0;
    let remains = quorate::recover::inspect(dir, |disk| {
        let machine = open(disk)?;
        revision = machine.kv().revision();
        Ok(machine)
    })?;
    Ok((remains, revision))
}

/// Makes the directory of a member of `cluster` that of a new cluster's only member.
///
/// # Errors
/// See [`quorate::recover::recover`].
pub fn recover(dir: &Path, cluster: u64) -> Result<Recovered, RecoverError> {
    quorate::recover::recover(dir, cluster, open)
}

/// The store, with nobody who listens to its news.
fn open(disk: Arc<dyn Disk>) -> io::Result<KvMachine> {
    let (events, _) = mpsc::unbounded_channel();
    KvMachine::open(disk, Options::default(), Arc::default(), Arc::default(), events)
}
