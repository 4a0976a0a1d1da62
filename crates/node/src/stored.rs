//! What the log's records hold besides entries: the hard state in [`Record::State`] and the start of the log in
//! [`Record::Mark`], and a readable line for each record (`quorate debug log`).

use std::fmt::Write;

use bytes::Bytes;
use quorate_base::{Index, NodeId, Term};
use quorate_raft::{Config, HardState, SnapMeta};
use quorate_wal::Record;

use crate::codec::{DecodeError, Put, Reader};
use crate::entry::{Content, Entry};

const VERSION: u8 = 1;

/// Bytes of a hard state: version, term, whether a vote was given, to whom, commit index.
const STATE_LEN: usize = 1 + 8 + 1 + 8 + 8;

/// Why the log starts where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This is where the cluster was founded: index 0, with the initial configuration.
    Founded,
    /// Everything before is covered by the durable state machine.
    Compacted,
    /// A received snapshot took the place of the log. The state machine may not have taken it over yet.
    Installed,
}

/// The start of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How it came about.
    pub origin: Origin,
    /// The last entry before the start, and the configuration as of there.
    pub meta: SnapMeta,
}

impl Mark {
    /// As a record.
    pub fn record(&self) -> Record {
        let mut body = vec![VERSION];
        body.put_u8(match self.origin {
            Origin::Founded => 0,
            Origin::Compacted => 1,
            Origin::Installed => 2,
        });
        body.put_snap_meta(&self.meta);
        Record::Mark {
            index: self.meta.last.index,
            body: body.into(),
        }
    }

    /// From a record's body.
    pub fn decode(index: Index, body: &Bytes) -> Result<Mark, DecodeError> {
        let mut reader = versioned(body)?;
        let origin = match reader.u8()? {
            0 => Origin::Founded,
            1 => Origin::Compacted,
            2 => Origin::Installed,
            other => return Err(DecodeError::Tag(other, "the origin of a log")),
        };
        let meta = reader.snap_meta()?;
        reader.end()?;
        if meta.last.index != index {
            return Err(DecodeError::Invalid(
                "a mark's body names another index than its record",
            ));
        }
        Ok(Mark { origin, meta })
    }
}

/// The hard state as a record.
pub fn state_record(hard: &HardState) -> Record {
    let mut body = Vec::with_capacity(STATE_LEN);
    body.put_u8(VERSION);
    body.put_u64(hard.term.0);
    body.put_u8(hard.vote.is_some().into());
    body.put_u64(hard.vote.map_or(0, NodeId::get));
    body.put_u64(hard.commit.0);
    Record::State(body.into())
}

/// The hard state from a record's body.
pub fn decode_state(body: &Bytes) -> Result<HardState, DecodeError> {
    let mut reader = versioned(body)?;
    let term = Term(reader.u64()?);
    let voted = reader.bool()?;
    let vote = NodeId(reader.u64()?);
    let commit = Index(reader.u64()?);
    reader.end()?;
    Ok(HardState {
        term,
        vote: voted.then_some(vote),
        commit,
    })
}

fn versioned(body: &Bytes) -> Result<Reader, DecodeError> {
    let mut reader = Reader::new(body.clone());
    match reader.u8()? {
        VERSION => Ok(reader),
        other => Err(DecodeError::Version(other)),
    }
}

/// One line for people about a record; what cannot be read is said to be so.
pub fn describe(record: &Record) -> String {
    let said = match record {
        Record::Entry { index, body } => Entry::decode(body).map(|entry| describe_entry(*index, &entry)),
        Record::State(body) => decode_state(body).map(|hard| {
            let vote = hard.vote.map_or("none".to_owned(), |id| format!("{:016x}", id.0));
            format!("state     term {} vote {vote} commit {}", hard.term, hard.commit)
        }),
        Record::Truncate { after } => Ok(format!("truncate  after {after}")),
        Record::Mark { index, body } => Mark::decode(*index, body).map(|mark| {
            let origin = match mark.origin {
                Origin::Founded => "founded",
                Origin::Compacted => "compacted",
                Origin::Installed => "snapshot installed",
            };
            let config = describe_config(&mark.meta.config);
            format!("mark      {origin} up to {} with {config}", mark.meta.last)
        }),
    };
    said.unwrap_or_else(|error| format!("unreadable {record:?}: {error}"))
}

fn describe_entry(index: Index, entry: &Entry) -> String {
    let mut line = format!("entry     {}", entry.at);
    if entry.at.index != index {
        let _ = write!(line, " (but its record says {index})");
    }
    let _ = match &entry.content {
        Content::Noop => write!(line, " no-op"),
        Content::Command { request, command } => write!(
            line,
            " command of {} bytes from {:016x} request {}",
            command.len(),
            request.node,
            request.seq
        ),
        Content::Config(config) => write!(line, " configuration {}", describe_config(config)),
    };
    line
}

fn describe_config(config: &Config) -> String {
    let list = |ids: &mut dyn Iterator<Item = &NodeId>| {
        ids.map(|id| format!("{:016x}", id.0))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut said = format!("voters [{}]", list(&mut config.voters.iter()));
    if config.is_joint() {
        let _ = write!(said, " outgoing [{}]", list(&mut config.outgoing.iter()));
    }
    if !config.learners.is_empty() {
        let _ = write!(said, " learners [{}]", list(&mut config.learners.keys()));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::LogId;

    #[test]
    fn hard_state_and_marks_survive_the_log() {
        for vote in [None, Some(NodeId(4))] {
            let hard = HardState {
                term: Term(3),
                vote,
                commit: Index(9),
            };
            let Record::State(body) = state_record(&hard) else {
                panic!("a state record")
            };
            assert_eq!(decode_state(&body), Ok(hard));
            assert_eq!(decode_state(&body.slice(1..)), Err(DecodeError::Version(3)));
        }
        for origin in [Origin::Founded, Origin::Compacted, Origin::Installed] {
            let meta = SnapMeta {
                last: LogId::new(2, 5),
                config: Config::of([NodeId(1)]),
            };
            let mark = Mark { origin, meta };
            let Record::Mark { index, body } = mark.record() else {
                panic!("a mark record")
            };
            assert_eq!(Mark::decode(index, &body), Ok(mark));
            assert!(
                Mark::decode(Index(6), &body).is_err(),
                "the record names another index"
            );
        }
    }

    #[test]
    fn every_record_has_a_readable_line() {
        let hard = HardState {
            term: Term(3),
            vote: Some(NodeId(0xa)),
            commit: Index(9),
        };
        assert_eq!(
            describe(&state_record(&hard)),
            "state     term 3 vote 000000000000000a commit 9"
        );
        let body = Entry {
            at: LogId::new(3, 17),
            content: Content::Noop,
        }
        .encode();
        assert_eq!(
            describe(&Record::Entry {
                index: Index(17),
                body: body.clone()
            }),
            "entry     17@3 no-op"
        );
        assert!(
            describe(&Record::Entry {
                index: Index(18),
                body
            })
            .contains("its record says 18")
        );
        assert!(describe(&Record::State(Bytes::new())).starts_with("unreadable"));
    }
}
