//! What can go wrong: one type per operation. Nothing here decides anything.
//!
//! The line that matters to a caller is whether a command can still take effect: [`ProposeError::NotDone`] says it cannot,
//! [`ProposeError::Unknown`] that nobody here knows.

use std::io;
use std::path::PathBuf;

use quorate_base::NodeId;
use thiserror::Error;

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A value of the configuration makes no sense.
    #[error("the configuration is not usable: {0}")]
    Config(String),
    /// A call of the operating system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use by {holder}; only one process may use it", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, for example `process 4711`.
        holder: String,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory {} belongs to cluster {found:016x} (member {name:?}), but this node was started for cluster \
         {expected:016x}: check the initial cluster and its token, or use another data directory", .dir.display()
    )]
    WrongCluster {
        /// The directory.
        dir: PathBuf,
        /// The member's name there.
        name: String,
        /// The cluster it belongs to.
        found: u64,
        /// The cluster asked for.
        expected: u64,
    },
    /// The data directory belongs to another member of the same cluster.
    #[error(
        "the data directory {} belongs to member {:016x} ({found_name:?}) of this cluster, but this node was started as \
         member {:016x} ({expected_name:?}): start it under its own name and peer addresses, or use another data directory",
        .dir.display(), .found.0, .expected.0
    )]
    WrongMember {
        /// The directory.
        dir: PathBuf,
        /// The member it belongs to.
        found: NodeId,
        /// That member's name.
        found_name: String,
        /// The member asked for.
        expected: NodeId,
        /// The name asked for.
        expected_name: String,
    },
    /// The data directory was founded with another token.
    #[error(
        "the data directory {} belongs to member {name:?} of a cluster with the token {found:?}, but this node was started with the token \
         {expected:?}: check the token, or use another data directory", .dir.display()
    )]
    WrongToken {
        /// The directory.
        dir: PathBuf,
        /// The member's name there.
        name: String,
        /// The token recorded.
        found: String,
        /// The token given.
        expected: String,
    },
    /// A member of the cluster refused the data directory for good when it was last started.
    #[error(
        "this data directory was refused when it was last started: {why} (If what the other member had recorded was wrong, and only then, \
         remove the file {})", .file.display()
    )]
    Refused {
        /// Where that is noted.
        file: PathBuf,
        /// The reason.
        why: String,
    },
    /// What this node has recorded of its peers cannot be used.
    #[error("in the data directory {}: {source}", .dir.display())]
    Roster {
        /// The directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        source: quorate_node::roster::RosterError,
    },
    /// The `identity` file is there, but not readable as one.
    #[error("{} is damaged or was written by another program: {why}", .file.display())]
    Identity {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log could not be opened.
    #[error(transparent)]
    Log(#[from] quorate_wal::OpenError),
    /// The log and the state machine do not fit together, or the log's content is not understood.
    #[error("the log in {} cannot be used: {why}", .dir.display())]
    Boot {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The state machine could not be opened.
    #[error("the state machine cannot be opened: {0}")]
    Machine(#[source] io::Error),
}

impl StartError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
        let what = what.into();
        move |source| StartError::Io { what, source }
    }
}

/// Why a running node ended by itself. The process should exit with a code other than 0; what was acknowledged is on disk.
#[derive(Debug, Error)]
pub enum Fatal {
    /// The log could not be written. Nothing that depended on the failed write was acknowledged.
    #[error("the log cannot be written any more, so this node stops: {0}")]
    Log(String),
    /// Staging an incoming snapshot failed.
    #[error("a snapshot from the leader cannot be staged, so this node stops: {0}")]
    Stage(String),
    /// What is seen of the other members could not be recorded. What depends on it, letting them in, was not done.
    #[error("what this node sees of the other members cannot be recorded, so it stops: {0}")]
    Peers(String),
    /// The state machine could not write or replace its state.
    #[error("the state machine failed, so this node stops: {0}")]
    Machine(String),
    /// The node found its own data not to be what it must be.
    #[error("this node stops: {0}")]
    Node(String),
    /// Another member has recorded that this node is not what it claims to be, or not as far as it was.
    #[error("this node must not take part in its cluster, so it stops: {0}")]
    Refused(String),
    /// This node was removed from the cluster. It never belongs to it again; its data directory is of no more use to it.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The node was stopped, but its disk does not come back. What was acknowledged is there; the data directory is in use until the process
    /// has ended.
    #[error("the disk does not answer, so the data directory stays in use until this process has ended")]
    DiskHangs,
    /// The state machine, a transport of one's own, or an own invariant, panicked.
    #[error("this node stops after a panic: {0}")]
    Panic(String),
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Reason {
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// The leader changed meanwhile.
    #[error("leader changed")]
    LeaderChanged,
    /// The link to the leader broke.
    #[error("the link to the leader broke")]
    LinkDown,
    /// It took too long.
    #[error("request timed out")]
    Timeout,
    /// The command is longer than [`Config::max_proposal`](crate::Config::max_proposal).
    #[error("command is too large")]
    TooLarge,
    /// The node is stopping or has stopped.
    #[error("node is stopping")]
    Stopped,
    /// Too much is waiting to be committed: try again later.
    #[error("too many requests")]
    Busy,
    /// The disk has no room for the log.
    #[error("no space left for the log")]
    NoSpace,
}

/// Why a proposal was not answered by the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ProposeError {
    /// The command was not executed, and never will be.
    #[error("not done: {0}")]
    NotDone(Reason),
    /// The command may have been executed, or may yet be.
    #[error("outcome unknown: {0}")]
    Unknown(Reason),
}

impl ProposeError {
    /// Why.
    pub fn reason(&self) -> Reason {
        match self {
            ProposeError::NotDone(reason) | ProposeError::Unknown(reason) => *reason,
        }
    }
}

/// Why a read was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("not read: {0}")]
pub struct ReadError(pub Reason);

/// Why a membership change was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ChangeError {
    /// The membership was not changed, and will not be.
    #[error("not done: {0}")]
    NotDone(ChangeRefusal),
    /// The membership may have been changed, or may yet be.
    #[error("outcome unknown: {0}")]
    Unknown(Reason),
}

/// Why a membership change was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ChangeRefusal {
    /// Another change was under way for as long as this one might wait.
    #[error("another membership change is under way")]
    Pending,
    /// Leadership was being handed over for as long as this change might wait.
    #[error("leadership is being handed over")]
    Transferring,
    /// A learner is too far behind to become a voter.
    #[error("learner {:016x} has not caught up with the leader yet", .0.0)]
    NotCaughtUp(NodeId),
    /// Of the voters that there would be, no majority is alive. Can be forced.
    #[error("too few of the members that would vote then are alive")]
    WouldLoseQuorum,
    /// It concerns a member that is none.
    #[error("{:016x} is no member", .0.0)]
    NotMember(NodeId),
    /// It adds a member that is one.
    #[error("{:016x} is a member already", .0.0)]
    AlreadyMember(NodeId),
    /// It adds a member that was removed before: ids are never used again.
    #[error("{:016x} was a member before and was removed for good", .0.0)]
    WasRemoved(NodeId),
    /// It promotes a member that votes already.
    #[error("{:016x} is no learner", .0.0)]
    NotLearner(NodeId),
    /// It leaves no voter.
    #[error("no voter would be left")]
    NoVoters,
    /// It changes nothing.
    #[error("the change changes nothing")]
    Nothing,
    /// Some member runs a release that does not know membership changes.
    #[error("some members run a release that does not know membership changes: upgrade all of them first")]
    Level,
    /// As with any request.
    #[error(transparent)]
    Request(Reason),
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// There is no such voter, or no other one at all.
    #[error("no such member to hand leadership to")]
    NotMember,
    /// The other member did not take over in time.
    #[error("the transfer timed out")]
    Timeout,
    /// The node is stopping.
    #[error("node is stopping")]
    Stopped,
}

/// Why an [`ask`](crate::Handle::ask) was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum AskError {
    /// There is no link to that member; nothing was sent.
    #[error("member is not reachable")]
    Unreachable,
    /// There is no such member.
    #[error("no such member")]
    NotMember,
    /// The other side does not serve asks or has too many of them; it did nothing.
    #[error("member refused the request")]
    Refused,
    /// The request is too long to be sent.
    #[error("request is too large")]
    TooLarge,
    /// The link broke before the answer: it may have been carried out.
    #[error("the link broke before the answer")]
    Lost,
    /// No answer in time: it may have been carried out.
    #[error("no answer in time")]
    Timeout,
    /// The node is stopping.
    #[error("node is stopping")]
    Stopped,
}
