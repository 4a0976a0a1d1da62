//! What happened, in lines that a person can read: one a message, one an effect. Golden scripts are made of them.

use quorate_base::NodeId;
use quorate_base::{Index, LogId};
use quorate_raft::{Body, ChangeEnd, Config, Effects, EntryShape, Raft, Refused, RoleKind, Write};

use super::{Cluster, Parcel, What};

impl Cluster {
    /// Adds a line to the trace, if one is kept.
    pub fn show(&mut self, line: String) {
        if self.print {
            println!("{line}");
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    pub(super) fn show_parcel(&mut self, parcel: &Parcel, arrives: bool) {
        if self.trace.is_some() || self.print {
            let arrow = if arrives { "→" } else { "✗" };
            self.show(format!(
                "n{} {arrow} n{}  {}",
                parcel.from,
                parcel.to,
                what(&parcel.what)
            ));
        }
    }

    pub(super) fn show_change(&mut self, id: NodeId, before: &Raft) {
        if self.trace.is_none() && !self.print {
            return;
        }
        let after = self.raft(id);
        let mut lines = Vec::new();
        let role = match after.role() {
            RoleKind::Follower => "follower",
            RoleKind::PreCandidate => "pre-candidate",
            RoleKind::Candidate => "candidate",
            RoleKind::Leader => "leader",
        };
        if before.term() != after.term() || before.role() != after.role() || before.leader() != after.leader()
        {
            let of = match (after.role(), after.leader()) {
                (RoleKind::Follower, Some(leader)) => format!(" of n{leader}"),
                _ => String::new(),
            };
            lines.push(format!("n{id} is {role}{of} in term {}", after.term()));
        }
        if before.log().epoch() != after.log().epoch() {
            let (base, kept) = (after.log().base().last, before.log());
            if base.index > kept.last_index() || !kept.contains(base) {
                lines.push(format!("n{id} takes the snapshot {base} for its log"));
            } else {
                lines.push(format!(
                    "n{id} drops conflicting entries, and now ends at {}",
                    after.last()
                ));
            }
        }
        if before.commit() != after.commit() {
            lines.push(format!("n{id} commits {}", after.commit()));
        }
        lines.into_iter().for_each(|line| self.show(line));
    }

    pub(super) fn show_effects(&mut self, id: NodeId, effects: &Effects) {
        if self.trace.is_none() && !self.print {
            return;
        }
        if let Some(write) = &effects.write {
            self.show(format!("n{id} writes {}", write_line(write)));
        }
        if let Some(meta) = &effects.restore {
            self.show(format!(
                "n{id} restores its state machine from the snapshot {}",
                meta.last
            ));
        }
        if let Some(range) = &effects.apply {
            self.show(format!("n{id} applies {}", span(range.first(), range.last.index)));
        }
        for (token, why) in &effects.refused {
            self.show(format!("n{id} refuses proposal {token}: {}", refused(why)));
        }
        for (token, end) in &effects.changed {
            self.show(format!("n{id} ends change {token}: {}", ended(end)));
        }
        for (token, answer) in &effects.reads {
            let line = match answer {
                Ok(index) => format!("n{id} may serve read {token} at {index}"),
                Err(why) => format!("n{id} refuses read {token}: {}", refused(why)),
            };
            self.show(line);
        }
    }
}

fn span(first: Index, last: Index) -> String {
    if first == last {
        format!("{first}")
    } else {
        format!("{first}..{last}")
    }
}

fn refused(why: &Refused) -> String {
    match why {
        Refused::NotLeader(None) => "no leader known".into(),
        Refused::NotLeader(Some(leader)) => format!("n{leader} leads"),
        Refused::Transferring => "leadership is being transferred".into(),
        Refused::Busy => "too much is waiting to be committed".into(),
    }
}

fn ended(end: &ChangeEnd) -> String {
    match end {
        ChangeEnd::Done(index) => format!("done at {index}"),
        ChangeEnd::Refused(why) => format!("refused, {why:?}"),
        ChangeEnd::Unknown => "unknown, since this node leads no longer".into(),
    }
}

fn write_line(write: &Write) -> String {
    let mut parts = vec![format!("{}:", write.id)];
    if let Some(meta) = &write.installed {
        parts.push(format!("installed {}", meta.last));
    }
    if let Some(index) = write.truncate_after {
        parts.push(format!("truncate after {index}"));
    }
    if let Some(range) = &write.append {
        parts.push(format!("entries {}", span(range.first(), range.last.index)));
    }
    if let Some(hard) = &write.hard {
        let vote = hard.vote.map_or("nobody".to_string(), |vote| format!("n{vote}"));
        parts.push(format!("term {} vote {vote} commit {}", hard.term, hard.commit));
    }
    parts.join(" ")
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

fn what(what: &What) -> String {
    match what {
        What::Message(message, _) => format!("[{}] {}", message.term, body(&message.body)),
        What::Snapshot { term, meta, .. } => format!("[{term}] the snapshot {}", meta.last),
        What::SnapshotDone { last: Some(last) } => format!("(got the snapshot {last})"),
        What::SnapshotDone { last: None } => "(snapshot given up)".into(),
    }
}

/// One message without its term.
pub fn body(body: &Body) -> String {
    let granted = |yes: &bool| if *yes { "granted" } else { "refused" };
    match body {
        Body::PreVote { next, last } => format!("PreVote for term {next}, log ends {last}"),
        Body::PreVoteResponse { next, granted: yes } => {
            format!("PreVoteResponse for term {next}: {}", granted(yes))
        }
        Body::Vote { last, transfer } => {
            format!(
                "Vote, log ends {last}{}",
                if *transfer { ", transfer" } else { "" }
            )
        }
        Body::VoteResponse { granted: yes } => format!("VoteResponse: {}", granted(yes)),
        Body::Append {
            prev,
            entries: shapes,
            commit,
        } => {
            format!("Append after {prev}: {}, commit {commit}", entries(*prev, shapes))
        }
        Body::Appended { upto } => format!("Appended up to {upto}"),
        Body::Conflict { prev, hint } => format!("Conflict at {prev}, try {hint}"),
        Body::Heartbeat { commit, round } => format!("Heartbeat, round {round}, commit {commit}"),
        Body::HeartbeatResponse {
            round,
            verified,
            matched,
            ..
        } => {
            format!("HeartbeatResponse, round {round}, verified {verified}, matched {matched}")
        }
        Body::Commit { index } => format!("Commit {index}"),
        Body::InstallSnapshot { last } => format!("InstallSnapshot {last}"),
        Body::TimeoutNow => "TimeoutNow".into(),
        // The number differs from start to start, so it is left out.
        Body::ReadIndex { .. } => "ReadIndex".into(),
        Body::ReadIndexResponse { index, .. } => format!("ReadIndexResponse: {index}"),
        Body::NewerTerm => "NewerTerm".into(),
    }
}

/// The log of a node: its base, if it has one, and its entries.
pub fn log_line(raft: &Raft) -> String {
    let log = raft.log();
    let mut parts = Vec::new();
    if log.base().last.index > Index::ZERO {
        parts.push(format!("({})", log.base().last));
    }
    parts.extend((log.first().0..=log.last_index().0).map(|index| {
        let id = log.id_at(Index(index)).expect("within the log");
        id.to_string()
    }));
    if parts.is_empty() {
        "empty".into()
    } else {
        parts.join(" ")
    }
}
