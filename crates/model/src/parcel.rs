//! What travels between nodes, and how it is written for a person.

use std::fmt;

use quorate_base::{LogId, NodeId, Term};
use quorate_raft::{Body, Config, EntryShape, Message, SnapMeta};

use crate::disk::{Image, Machine, Payload};

/// Something on the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parcel {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The contents.
    pub what: What,
}

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A message, with the payloads if it is an Append.
    Message(Message, Vec<Payload>),
    /// A whole snapshot, from the leader of this term.
    Snapshot {
        /// The leader's term.
        term: Term,
        /// What it covers.
        meta: SnapMeta,
        /// The state machine.
        machine: Machine,
    },
    /// The receiver of a snapshot tells the driver of that term's leader how it went.
    SnapshotDone {
        /// The leader's term.
        term: Term,
        /// The last entry covered; `None` if there was nothing to send.
        last: Option<LogId>,
    },
}

impl Parcel {
    /// The message, if it is one.
    pub fn body(&self) -> Option<(Term, &Body)> {
        match &self.what {
            What::Message(message, _) => Some((message.term, &message.body)),
            _ => None,
        }
    }

    /// Whether a follower asks its leader for a read index.
    pub fn asks_for_a_read(&self) -> bool {
        matches!(self.body(), Some((_, Body::ReadIndex { .. })))
    }

    /// Whether it can never again have an effect at its receiver, whose durable term only grows: an answer to a leader or candidate of an
    /// earlier term. Requests are never dead, since they are answered with the newer term.
    pub fn is_dead(&self, receiver: &Image) -> bool {
        let durable = receiver.hard.term;
        match &self.what {
            What::Message(message, _) if message.term < durable => match &message.body {
                Body::PreVoteResponse { next, .. } => *next <= durable,
                Body::VoteResponse { .. }
                | Body::Appended { .. }
                | Body::Conflict { .. }
                | Body::HeartbeatResponse { .. }
                | Body::ReadIndex { .. }
                | Body::ReadIndexResponse { .. }
                | Body::NewerTerm => true,
                Body::PreVote { .. }
                | Body::Vote { .. }
                | Body::Append { .. }
                | Body::Heartbeat { .. }
                | Body::Commit { .. }
                | Body::InstallSnapshot { .. }
                | Body::TimeoutNow => false,
            },
            What::SnapshotDone { term, .. } => *term < durable,
            What::Message(..) | What::Snapshot { .. } => false,
        }
    }
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} → n{}  ", self.from, self.to)?;
        match &self.what {
            What::Message(message, payloads) => {
                write!(f, "[{}] {}", message.term, body(&message.body))?;
                match payloads.iter().filter(|payload| **payload < 1 << 60).count() {
                    0 => Ok(()),
                    _ => write!(f, ", {}", contents(payloads)),
                }
            }
            What::Snapshot { term, meta, .. } => {
                write!(f, "[{term}] the snapshot {}{}", meta.last, config(&meta.config))
            }
            What::SnapshotDone {
                term,
                last: Some(last),
            } => write!(f, "[{term}] (got the snapshot {last})"),
            What::SnapshotDone { term, last: None } => write!(f, "[{term}] (no snapshot to send)"),
        }
    }
}

/// The proposals among these payloads, by number.
fn contents(payloads: &[Payload]) -> String {
    let name = |payload: &Payload| match payload {
        p if *p < 1 << 60 => format!("p{p}"),
        _ => "-".into(),
    };
    payloads.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn entries(prev: LogId, entries: &[EntryShape]) -> String {
    if entries.is_empty() {
        return "no entries".into();
    }
    let ids = (prev.index.0 + 1..).zip(entries).map(|(index, entry)| {
        let config = entry.config.as_deref().map_or(String::new(), config);
        format!("{index}@{}{config}", entry.term)
    });
    ids.collect::<Vec<_>>().join(" ")
}

/// A configuration: the voters, those of the old half, and who else is known.
pub fn config(config: &Config) -> String {
    let list = |ids: &std::collections::BTreeSet<NodeId>| {
        ids.iter()
            .map(|id| format!("n{id}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let learners = config.learners.keys().copied().collect();
    let mut more = String::new();
    for (word, ids) in [(" learning ", &learners), (" removed ", &config.removed)] {
        if !ids.is_empty() {
            more = format!("{more}{word}{}", list(ids));
        }
    }
    format!("({}/{}{more})", list(&config.voters), list(&config.outgoing))
}

/// One message without its term.
fn body(body: &Body) -> String {
    let granted = |yes: &bool| if *yes { "granted" } else { "refused" };
    match body {
        Body::PreVote { next, last } => format!("PreVote for term {next}, log ends {last}"),
        Body::PreVoteResponse { next, granted: yes } => {
            format!("PreVoteResponse for term {next}: {}", granted(yes))
        }
        Body::Vote { last, transfer } => {
            let why = if *transfer { ", transfer" } else { "" };
            format!("Vote, log ends {last}{why}")
        }
        Body::VoteResponse { granted: yes } => format!("VoteResponse: {}", granted(yes)),
        Body::Append {
            prev,
            entries: shapes,
            commit,
        } => format!("Append after {prev}: {}, commit {commit}", entries(*prev, shapes)),
        Body::Appended { upto } => format!("Appended up to {upto}"),
        Body::Conflict { prev, hint } => format!("Conflict at {prev}, try {hint}"),
        Body::Heartbeat { commit, round } => format!("Heartbeat, round {round}, commit {commit}"),
        Body::HeartbeatResponse {
            round,
            verified,
            matched,
            ..
        } => format!("HeartbeatResponse, round {round}, verified {verified}, matched {matched}"),
        Body::Commit { index } => format!("Commit {index}"),
        Body::InstallSnapshot { last } => format!("InstallSnapshot {last}"),
        Body::TimeoutNow => "TimeoutNow".into(),
        Body::ReadIndex { id } => format!("ReadIndex {id}"),
        Body::ReadIndexResponse { id, index } => format!("ReadIndexResponse {id}: {index}"),
        Body::NewerTerm => "NewerTerm".into(),
    }
}
