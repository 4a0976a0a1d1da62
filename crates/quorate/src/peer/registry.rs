//! The roster of peers with its file: who may come in is settled and made durable here, before anybody is answered. The rules are
//! `quorate_node::roster`'s.
//!
//! A disk that is full keeps nobody out: what should be recorded then stays in memory until there is room. Only if this node restarts
//! before that, it has forgotten it. Any other failure to write is final, as it is for the log: nobody is let in, nothing is tried again, and
//! the node ends.

use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_base::disk::is_full;
use quorate_base::{Disk, Index, NodeId, Term};
use quorate_node::handshake::{Hello, Refusal};
use quorate_node::roster::{Changed, Roster};

use crate::error::Fatal;
use crate::lock::DirLock;
use crate::work::{Report, Reports, panic_text};

/// How often it is looked whether there is something to save that could wait, and every how many looks log positions are reason enough:
/// they move on all the time. Terms hardly ever do.
const LOOKS: (Duration, u32) = (Duration::from_secs(1), 10);

/// See the module.
pub(crate) struct Registry {
    file: Arc<File>,
    /// One save at a time. Held by whoever writes, not by whoever waits for that.
    saving: Arc<tokio::sync::Mutex<()>>,
}

/// What a save needs. It outlives those who wait for it.
struct File {
    disk: Arc<dyn Disk>,
    /// Where it is told that the node must end.
    reports: Reports,
    state: Mutex<State>,
}

struct State {
    roster: Roster,
    /// Held by whoever writes, so that no other process does before it is done.
    lock: Option<Arc<DirLock>>,
    /// Counts changes.
    version: u64,
    /// The last change of a term or of a data directory's identity.
    telling: u64,
    /// The last change that somebody waits for.
    urgent: u64,
    /// The last change in the file.
    saved: u64,
    /// The disk had no room the last time.
    full: bool,
    closed: bool,
}

impl Registry {
    pub(crate) fn new(
        roster: Roster,
        disk: Arc<dyn Disk>,
        lock: Option<Arc<DirLock>>,
        reports: Reports,
    ) -> Registry {
        let state = State {
            roster,
            lock,
            version: 0,
            telling: 0,
            urgent: 0,
            saved: 0,
            full: false,
            closed: false,
        };
        Registry {
            file: Arc::new(File {
                disk,
                reports,
                state: Mutex::new(state),
            }),
            saving: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.file.state()
    }

    /// Whether this one may come in; with what it shows recorded, durably.
    pub(crate) async fn admit(&self, from: NodeId, hello: &Hello) -> Result<(), Refusal> {
        let wait_for = {
            let mut state = self.state();
            if state.roster.admit(from, hello)? == Changed::Now {
                state.version += 1;
                (state.telling, state.urgent) = (state.version, state.version);
            }
            // Perhaps another connection of the same peer came first, and its record is on its way.
            state.urgent
        };
        self.save(wait_for).await.map_err(|error| {
            tracing::error!(%error, "cannot record what a peer shows");
            Refusal::NotRecorded
        })
    }

    /// Notes facts about a peer, see [`Roster::note`].
    pub(crate) fn note(&self, peer: NodeId, term: Term, matched: Index) {
        let mut state = self.state();
        let term_before = state.roster.known(peer).map(|known| known.term);
        if state.roster.note(peer, term, matched) {
            state.version += 1;
            if state.roster.known(peer).map(|known| known.term) != term_before {
                state.telling = state.version;
            }
        }
    }

    /// Forgets those who were removed; the file does so with its next change.
    pub(crate) fn forget(&self, removed: &BTreeSet<NodeId>) {
        let mut state = self.state();
        if state.roster.forget(removed) {
            state.version += 1;
        }
    }

    /// Makes the changes up to this one durable, and all others that there are. Whoever waits here may be cut off at any moment (a greeting has
    /// its time, and connections end with the node), so nothing of a save depends on it: one that has begun goes on to its end, nobody else
    /// begins another before, and what came of it is noted and told in any case.
    async fn save(&self, wait_for: u64) -> io::Result<()> {
        if self.state().saved >= wait_for {
            return Ok(());
        }
        let one = self.saving.clone().lock_owned().await;
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let saved = file.save(wait_for);
            drop(one);
            saved
        });
        // It is never aborted but with the runtime, before it has begun.
        saved.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Saves now and then what could wait.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut look = 0_u32;
        loop {
            tokio::time::sleep(LOOKS.0).await;
            look = look.wrapping_add(1);
            let wanted = {
                let state = self.state();
                if look.is_multiple_of(LOOKS.1) {
                    state.version
                } else {
                    state.telling
                }
            };
            if self.save(wanted).await.is_err() {
                // The node has been told.
                return;
            }
        }
    }

    /// Saves everything for the last time: from now on the file is left alone. That the node ends is settled, and whoever was let in was
    /// recorded before. So if this fails, nothing is lost but what might have waited, and might have been lost by a crash.
    pub(crate) async fn close(&self) {
        let (version, closed) = {
            let state = self.state();
            (state.version, state.closed)
        };
        if !closed && let Err(error) = self.save(version).await {
            tracing::warn!(%error, "cannot save what is known of the peers");
        }
        let _one = self.saving.lock().await;
        let mut state = self.state();
        (state.closed, state.lock) = (true, None);
    }
}

impl File {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code runs under this lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Registry::save`]; by one thread at a time.
    fn save(&self, wait_for: u64) -> io::Result<()> {
        let (roster, version, lock) = {
            let state = self.state();
            if state.saved >= wait_for {
                return Ok(());
            }
            if state.closed {
                return Err(io::Error::other("the node has stopped"));
            }
            (state.roster.clone(), state.version, state.lock.clone())
        };
        let written = std::panic::catch_unwind(AssertUnwindSafe(|| roster.save(&*self.disk)));
        let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic_text(&*panic))));
        let mut state = self.state();
        let result = match written {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut state.full, true) {
                    tracing::error!(
                        "the disk is full: what is learned of the peers' identities is kept in memory only"
                    );
                }
                Ok(())
            }
            Err(error) => {
                // Whether the new file has the name is not known, nor what a second attempt would be worth.
                (state.closed, state.lock) = (true, None);
                drop(state);
                (self.reports)(Report::Failed(Fatal::Peers(error.to_string())));
                Err(error)
            }
            Ok(()) => {
                (state.full, state.saved) = (false, version);
                Ok(())
            }
        };
        drop(lock);
        result
    }
}

#[cfg(test)]
mod tests;
