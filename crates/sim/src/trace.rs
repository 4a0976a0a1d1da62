//! What happened, one line an event: time, node, words. The lines are always hashed, so that two runs can be compared to the
//! last event, and printed on demand.

use std::fmt::{self, Write};

use quorate_base::NodeId;
use quorate_node::message::PeerMessage;
use quorate_raft::{Body, Message};

use crate::rng;

/// Nanoseconds of virtual time.
pub type Nanos = u64;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    line: String,
    sum: u64,
    lines: u64,
    print: bool,
}

impl Trace {
    /// A trace, printed line by line if `print`.
    pub fn new(print: bool) -> Trace {
        Trace {
            print,
            ..Trace::default()
        }
    }

    /// Something happened, on a node if given: nodes have a column each, which makes the trace a space-time diagram.
    pub fn event(&mut self, now: Nanos, node: Option<NodeId>, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Machines that are not a member's have high numbers, and stand at the margin.
        let column = node.map_or(0, |id| id.0 % 1_000);
        let _ = write!(self.line, "{:>12.6} ", now as f64 / 1e9);
        for other in 0..column {
            self.line.push_str(if other == 0 { "  " } else { "|   " });
        }
        let _ = match node {
            Some(id) => write!(self.line, "n{id}: {what}"),
            None => write!(self.line, "* {what}"),
        };
        self.sum = rng::hash(self.sum, self.line.as_bytes());
        self.lines += 1;
        if self.print {
            println!("{}", self.line);
        }
    }

    /// A number that stands for everything that happened.
    pub fn hash(&self) -> u64 {
        rng::mix(self.sum ^ self.lines)
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

/// A message in a few words.
pub struct Short<'a>(pub &'a PeerMessage);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PeerMessage::Raft(message) => short_raft(f, message),
            PeerMessage::Append {
                term,
                prev,
                entries,
                commit,
            } => {
                write!(f, "t{term} append {prev} +{} c{commit}", entries.len())
            }
            PeerMessage::Forward { request, .. } => write!(f, "forward {}", request.seq),
            PeerMessage::Refuse { request, why } => write!(f, "refuse {}: {why:?}", request.seq),
            PeerMessage::Accept { request, at } => write!(f, "accept {} at {at}", request.seq),
            PeerMessage::Reconfigure { request, changes, .. } => {
                write!(f, "change {}: {changes:?}", request.seq)
            }
            PeerMessage::Reconfigured { request, end } => write!(f, "change {} ended: {end:?}", request.seq),
            PeerMessage::SnapshotBegin { stream, term, meta } => {
                write!(f, "t{term} snapshot {stream} begins, {}", meta.last)
            }
            PeerMessage::SnapshotChunk {
                stream,
                offset,
                bytes,
                done,
                ..
            } => {
                write!(
                    f,
                    "snapshot {stream} at {offset} +{}{}",
                    bytes.len(),
                    if *done { ", done" } else { "" }
                )
            }
            PeerMessage::SnapshotAck { stream, len, outcome } => {
                write!(f, "snapshot {stream} has {len}, {outcome:?}")
            }
        }
    }
}

fn short_raft(f: &mut fmt::Formatter<'_>, message: &Message) -> fmt::Result {
    let term = message.term;
    match &message.body {
        Body::PreVote { next, last } => write!(f, "t{term} prevote for t{next}, log {last}"),
        Body::PreVoteResponse { next, granted } => {
            write!(f, "t{term} prevote t{next}: {granted}")
        }
        Body::Vote { last, transfer } => {
            write!(
                f,
                "t{term} vote, log {last}{}",
                if *transfer { ", transfer" } else { "" }
            )
        }
        Body::VoteResponse { granted } => write!(f, "t{term} vote: {granted}"),
        Body::Append {
            prev,
            entries,
            commit,
        } => {
            write!(f, "t{term} append {prev} +{} c{commit}", entries.len())
        }
        Body::Appended { upto } => write!(f, "t{term} appended {upto}"),
        Body::Conflict { prev, hint } => write!(f, "t{term} conflict at {prev}, hint {hint}"),
        Body::Heartbeat { commit, round } => write!(f, "t{term} heartbeat {round} c{commit}"),
        Body::HeartbeatResponse {
            round,
            verified,
            matched,
            priority,
        } => {
            write!(
                f,
                "t{term} heartbeat {round} answered, verified {verified}, matched {matched}, {priority:?}"
            )
        }
        Body::Commit { index } => write!(f, "t{term} commit {index}"),
        Body::InstallSnapshot { last } => write!(f, "t{term} snapshot {last}"),
        Body::TimeoutNow => write!(f, "t{term} timeout now"),
        Body::ReadIndex { id } => write!(f, "t{term} read index? {id}"),
        Body::ReadIndexResponse { id, index } => write!(f, "t{term} read index {id} is {index}"),
        Body::NewerTerm => write!(f, "t{term} newer term"),
    }
}
