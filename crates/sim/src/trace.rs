//! What happened, one line an event: time, node, words. The lines are always hashed, so that two runs can be compared to the
//! last event, and printed or kept for a [`picture`](crate::picture) on demand.

use std::fmt::{self, Write};

use quorate_base::NodeId;
use quorate_node::message::PeerMessage;
use quorate_raft::{Body, Message};

use crate::net::Pair;
use crate::picture::{Picture, Topic};
use crate::rng;

/// Nanoseconds of virtual time.
pub type Nanos = u64;

/// What becomes of the events of a run, besides being hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Nothing.
    #[default]
    Hash,
    /// Printed line by line: nodes have a column each, which makes the lines a space-time diagram.
    Lines,
    /// The last so many are kept for a picture.
    Picture(usize),
}

/// Names a message among all that were sent.
pub type Number = u64;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    line: String,
    sum: u64,
    lines: u64,
    print: bool,
    picture: Option<Box<Picture>>,
}

impl Trace {
    /// A trace without events.
    pub fn new(view: View) -> Trace {
        Trace {
            print: view == View::Lines,
            picture: match view {
                View::Picture(most) => Some(Box::new(Picture::new(most))),
                _ => None,
            },
            ..Trace::default()
        }
    }

    /// Something happened, on a node if given.
    pub fn event(&mut self, now: Nanos, node: Option<NodeId>, what: fmt::Arguments<'_>) {
        self.mark(Topic::Note, now, node, what);
    }

    /// Something of this topic happened, on a node if given.
    pub fn mark(&mut self, topic: Topic, now: Nanos, node: Option<NodeId>, what: fmt::Arguments<'_>) {
        self.line(now, node, what);
        if let Some(picture) = &mut self.picture {
            picture.mark(now, node, topic, &self.line);
        }
    }

    /// A node hands a message to the network. Returns the name by which its fate is told.
    pub fn sent(&mut self, now: Nanos, pair: Pair, message: &PeerMessage) -> Number {
        self.line(
            now,
            Some(pair.0),
            format_args!("-> n{}: {}", pair.1, Short(message)),
        );
        match &mut self.picture {
            Some(picture) => picture.sent(now, pair, message),
            None => 0,
        }
    }

    /// A message reached its end, or would have.
    pub fn arrived(&mut self, now: Nanos, pair: Pair, number: Number, message: &PeerMessage, whole: bool) {
        let verb = if whole { "<-" } else { "lost from" };
        let words = format_args!("{verb} n{}: {}", pair.0, Short(message));
        self.line(now, Some(pair.1), words);
        if let Some(picture) = &mut self.picture {
            picture.ended(now, number, whole);
        }
    }

    /// A message never left, or was lost on its way at some moment.
    pub fn lost(&mut self, now: Nanos, number: Number) {
        if let Some(picture) = &mut self.picture {
            picture.ended(now, number, false);
        }
    }

    /// The picture, if one is made.
    pub fn picture(&mut self) -> Option<&mut Picture> {
        self.picture.as_deref_mut()
    }

    /// Ends the trace, and hands the picture out.
    pub fn into_picture(self) -> Option<Box<Picture>> {
        self.picture
    }

    fn line(&mut self, now: Nanos, node: Option<NodeId>, what: fmt::Arguments<'_>) {
        self.line.clear();
        let _ = self.line.write_fmt(what);
        self.sum = rng::hash(self.sum ^ now, self.line.as_bytes());
        self.sum = rng::mix(self.sum ^ node.map_or(0, |id| id.0));
        self.lines += 1;
        if self.print {
            println!("{}", in_columns(now, node, &self.line));
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

/// A line with a column for each node.
fn in_columns(now: Nanos, node: Option<NodeId>, what: &str) -> String {
    let mut line = format!("{:>12.6} ", now as f64 / 1e9);
    // Machines that are not a member's have high numbers, and stand at the margin.
    let column = node.map_or(0, |id| id.0 % 1_000);
    for other in 0..column {
        line.push_str(if other == 0 { "  " } else { "|   " });
    }
    let _ = match node {
        Some(id) => write!(line, "n{id}: {what}"),
        None => write!(line, "* {what}"),
    };
    line
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
