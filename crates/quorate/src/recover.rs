//! When the majority of a cluster is lost for good: a new cluster out of what one member still has. Nothing here happens by itself; every
//! call is a person's decision, who has seen what [`inspect`] says.
//!
//! The new cluster has that one member, under its old id, and all of its log, the end included that was never known to be committed: it may have
//! been acknowledged by those who are lost. What they had acknowledged *after* the end of this log is lost for good, and nobody can say whether
//! there was any. Should one of the other members come back, it finds no cluster to belong to: the new one has another id.
//!
//! ```no_run
//! use quorate::recover;
//! # use quorate::{Checkpointed, State};
//! # fn recover<Counter: State + Default>(ask: fn(&str) -> bool) -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("data/n1");
//! let open = |disk| Checkpointed::open(disk, Counter::default());
//! let remains = recover::inspect(dir, open)?;
//! if ask(&format!("{remains}\nBegin a new cluster with this?")) {
//!     let recovered = recover::recover(dir, remains.cluster, open)?;
//!     println!("cluster {:016x} begins with entry {}", recovered.cluster, recovered.first);
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use quorate_base::{Disk, Index, LogId, NodeId, StateMachine, Term};
use quorate_node::{NodeConfig, Survey};
use thiserror::Error;

use crate::error::StartError;
use crate::identity::Identity;
use crate::membership::Membership;
use crate::opened::{open_log, random, unusable};
use crate::start::open_directory;

/// What one member still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The cluster that it was a member of.
    pub cluster: u64,
    /// The member.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The term that it had reached.
    pub term: Term,
    /// The end of its log.
    pub last_log: LogId,
    /// Up to here it knew its log to be committed.
    pub commit: Index,
    /// Its state machine is up to here; what follows in the log is applied when it starts.
    pub applied: LogId,
    /// The members at the end of its log.
    pub membership: Membership,
}

/// A new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its id.
    pub cluster: u64,
    /// Its only member.
    pub id: NodeId,
    /// The first entry of its own, behind everything that was in the log.
    pub first: LogId,
    /// What it was made of.
    pub before: Remains,
}

/// Why no new cluster was made; nothing has changed then.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The directory is in use or damaged, or cannot be read.
    #[error(transparent)]
    Open(#[from] StartError),
    /// No node was ever started on it.
    #[error("there is no member's data here")]
    Nothing,
    /// It belongs to a member that was added to a cluster and has never heard of it.
    #[error("member {:016x} was added to a cluster and never received anything of it: there is nothing to recover", .0.0)]
    NeverJoined(NodeId),
    /// Another cluster was named than the one that the data belongs to.
    #[error("not confirmed: the data belongs to cluster {found:016x}, not to {named:016x}")]
    NotConfirmed {
        /// The cluster that it belongs to.
        found: u64,
        /// The one that was named.
        named: u64,
    },
}

impl Remains {
    /// Entries that are here without being known to be committed.
    pub fn uncommitted(&self) -> u64 {
        self.last_log.index.0.saturating_sub(self.commit.0)
    }
}

/// For the person who has to decide: several lines, the last ones about what is lost.
impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, cluster, last) = (self.id.0, self.cluster, self.last_log);
        writeln!(f, "member {id:016x} ({}) of cluster {cluster:016x}", self.name)?;
        let (commit, applied) = (self.commit, self.applied.index);
        writeln!(
            f,
            "its log ends with entry {last}, known to be committed up to {commit}, applied up to {applied}; its term is {}",
            self.term
        )?;
        let membership = &self.membership;
        for (id, member) in &membership.members {
            let role = match membership.is_voter(*id) {
                true => "voter",
                false => "learner",
            };
            writeln!(
                f,
                "{role} {:016x} {} {}",
                id.0,
                member.name,
                member.addresses.join(" ")
            )?;
        }
        if !membership.members.contains_key(&self.id) {
            writeln!(
                f,
                "at the end of its log it is no member itself: what it has is old"
            )?;
        }
        if self.uncommitted() > 0 {
            writeln!(
                f,
                "its last {} entries may never have been acknowledged to anybody: they are kept",
                self.uncommitted()
            )?;
        }
        write!(
            f,
            "whatever the others have acknowledged after entry {last} is lost for good, and what they know of it is refused from then on"
        )
    }
}

/// Says what is left in a data directory, without changing what it means.
///
/// # Errors
/// If it cannot be read, or there is nothing.
pub fn inspect<S: StateMachine>(
    dir: &Path,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Remains, RecoverError> {
    if !dir.is_dir() {
        return Err(RecoverError::Nothing);
    }
    let (disk, _lock) = open_directory(dir)?;
    inspect_on(disk, dir, open)
}

/// [`inspect`] for a node on a disk of one's own; `dir` is for the errors.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_on<S: StateMachine>(
    disk: Arc<dyn Disk>,
    dir: &Path,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Remains, RecoverError> {
    look(&disk, dir, open).map(|looked| looked.remains)
}

/// Makes the data directory of a member of `cluster` that of a new cluster's only member. Neither a running node nor a damaged directory is touched. A
/// crash on the way leaves the one or the other: the first start finishes what was begun.
///
/// # Errors
/// If the directory does not belong to that cluster, cannot be read, or holds nothing. An error while writing
/// ([`StartError::Io`]) leaves open which of both it is; [`inspect`] says.
pub fn recover<S: StateMachine>(
    dir: &Path,
    cluster: u64,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Recovered, RecoverError> {
    if !dir.is_dir() {
        return Err(RecoverError::Nothing);
    }
    let (disk, _lock) = open_directory(dir)?;
    recover_on(disk, dir, cluster, open)
}

/// [`recover`] for a node on a disk of one's own, which must not be in use; `dir` is for the errors.
///
/// # Errors
/// As [`recover`].
pub fn recover_on<S: StateMachine>(
    disk: Arc<dyn Disk>,
    dir: &Path,
    cluster: u64,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Recovered, RecoverError> {
    let Looked {
        mut identity,
        survey,
        remains,
    } = look(&disk, dir, open)?;
    if remains.cluster != cluster {
        return Err(RecoverError::NotConfirmed {
            found: remains.cluster,
            named: cluster,
        });
    }
    let (first, _) = survey.begin_alone(remains.id);
    let cluster = random().map_err(StartError::io("draw a random number"))?;
    // With this it is decided. What the peers' roster says counts for the old cluster only, so it is forgotten by that.
    identity
        .replace_cluster(&*disk, cluster, first, &mut random)
        .map_err(StartError::io(format!("write the identity in {}", dir.display())))?;
    open_log(&mut identity, &disk, dir)?;
    Ok(Recovered {
        cluster,
        id: remains.id,
        first,
        before: remains,
    })
}

struct Looked {
    identity: Identity,
    survey: Survey,
    remains: Remains,
}

/// Opens everything as a start would, checks that it fits together, and closes it again.
fn look<S: StateMachine>(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Looked, RecoverError> {
    let mut identity = Identity::read(&**disk, dir)?
        .filter(Identity::founded)
        .ok_or(RecoverError::Nothing)?;
    let id = identity.member();
    let (_wal, log) = open_log(&mut identity, disk, dir)?;
    let survey = log.survey().map_err(unusable(dir))?;
    if survey.config.voters.is_empty() {
        return Err(match identity.joins() {
            true => RecoverError::NeverJoined(id),
            false => RecoverError::Nothing,
        });
    }
    let machine = open(disk.clone()).map_err(StartError::Machine)?;
    // It runs nowhere: this is for the checks.
    let config = NodeConfig::new(id, 1, 1);
    log.finish(config, None, machine.applied(), machine.durable())
        .map_err(unusable(dir))?;
    let remains = Remains {
        cluster: identity.cluster(),
        id,
        name: identity.name().to_owned(),
        term: survey.term,
        last_log: survey.last,
        commit: survey.commit,
        applied: machine.applied(),
        membership: Membership::of(&survey.config),
    };
    Ok(Looked {
        identity,
        survey,
        remains,
    })
}
