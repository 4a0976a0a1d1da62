//! What a watcher noted: every change once, in the order of revisions, all of a revision in one answer, and none left out, wherever
//! its stream broke, until it had seen the last that was written.

use std::fmt;
use std::str::FromStr;

use super::committed::Committed;
use super::{NO_LEARNERS, Violation, from_dash, number, or_dash};

/// A change that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When it was made.
    pub revision: i64,
    /// Where.
    pub key: String,
    /// What came there; `None`: it was deleted.
    pub value: Option<String>,
}

/// What happens to a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// It asked a member for everything from a revision on, each revision in one piece.
    From {
        /// The first that it wants.
        revision: i64,
        /// Which endpoint.
        member: usize,
    },
    /// One answer with these changes.
    Answer(Vec<Seen>),
    /// The server ended the watch.
    Cancelled {
        /// What is said to be compacted, or 0.
        compacted: i64,
        /// The reason given.
        why: String,
    },
    /// The stream broke, or was never there.
    Broken {
        /// The status code by name; `transport` if there is none.
        code: String,
        /// The rest of the error.
        why: String,
    },
}

impl Note {
    /// Whether a member refused since it has no vote yet.
    pub fn is_of_a_learner(&self) -> bool {
        matches!(self, Note::Broken { why, .. } if why == NO_LEARNERS)
    }
}

/// How streams may break when processes and networks do. All else is an answer, and must be right.
fn is_natural(code: &str, why: &str) -> bool {
    match code {
        "transport" | "Unavailable" | "Cancelled" | "Unknown" => true,
        // The library's words for a stream that was reset.
        "Internal" => why.contains("h2 protocol error"),
        _ => false,
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.revision,
            self.key,
            or_dash(self.value.as_deref())
        )
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::From { revision, member } => write!(f, "from {revision} {member}"),
            Note::Answer(seen) => {
                write!(f, "answer")?;
                seen.iter().try_for_each(|seen| write!(f, " {seen}"))
            }
            Note::Cancelled { compacted, why } => write!(f, "cancelled {compacted} {why}"),
            Note::Broken { code, why } => write!(f, "broken {code} {why}"),
        }
    }
}

impl FromStr for Seen {
    type Err = String;

    fn from_str(line: &str) -> Result<Seen, String> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [revision, key, value] => Ok(Seen {
                revision: number(revision)?,
                key: key.into(),
                value: from_dash(value),
            }),
            _ => Err(format!("what is seen with {line:?}")),
        }
    }
}

impl FromStr for Note {
    type Err = String;

    fn from_str(line: &str) -> Result<Note, String> {
        let unknown = || format!("what is noted with {line:?}");
        let (word, rest) = line.split_once(' ').ok_or_else(unknown)?;
        if word == "answer" {
            let words: Vec<&str> = rest.split(' ').collect();
            let seen = words.chunks(3).map(|words| words.join(" ").parse());
            return Ok(Note::Answer(seen.collect::<Result<_, _>>()?));
        }
        let (first, rest) = rest.split_once(' ').ok_or_else(unknown)?;
        match word {
            "from" => Ok(Note::From {
                revision: number(first)?,
                member: number(rest)?,
            }),
            "cancelled" => Ok(Note::Cancelled {
                compacted: number(first)?,
                why: rest.into(),
            }),
            "broken" => Ok(Note::Broken {
                code: first.into(),
                why: rest.into(),
            }),
            _ => Err(unknown()),
        }
    }
}

/// What a watcher went through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Watched {
    /// Changes that it saw.
    pub changes: usize,
    /// How often it had to ask anew.
    pub resumed: usize,
}

/// Checks what one watcher noted, which followed until revision `last` at least.
pub fn check(notes: &[Note], committed: &Committed, last: i64) -> Result<Watched, Violation> {
    let mut watched = Watched::default();
    let mut next = None;
    for note in notes {
        match note {
            Note::From { revision, .. } => {
                watched.resumed += usize::from(next.is_some());
                let expected = *next.get_or_insert(*revision);
                if *revision != expected {
                    return Err(format!(
                        "a watcher went on at revision {revision} where {expected} came next"
                    ));
                }
            }
            Note::Answer(seen) => {
                let from = next.ok_or("a watcher was answered before it asked")?;
                next = Some(check_answer(seen, from, committed)?);
                watched.changes += seen.len();
            }
            // These clients compact nothing, and cancel no watch.
            Note::Cancelled { compacted, why } => {
                return Err(format!(
                    "a watch from revision {next:?} on was cancelled without a cause, with compact revision {compacted}: {why}"
                ));
            }
            Note::Broken { code, why } => {
                if !is_natural(code, why) {
                    return Err(format!(
                        "a watch from revision {next:?} on ended with {code}: {why}"
                    ));
                }
            }
        }
    }
    let from = next.ok_or("a watcher never asked")?;
    if from <= last {
        let missed = committed.changes.range(from..=last).count();
        return Err(format!(
            "a watcher saw nothing from revision {from} on, and followed until {last}: {missed} revisions are missing"
        ));
    }
    Ok(watched)
}

/// One answer: whole revisions, from `from` on without a gap. Returns what comes next.
fn check_answer(seen: &[Seen], from: i64, committed: &Committed) -> Result<i64, Violation> {
    let mut changes = committed.changes.range(from..);
    let mut next = from;
    for together in seen.chunk_by(|one, other| one.revision == other.revision) {
        let expected = changes.next();
        let found: Vec<_> = together
            .iter()
            .map(|seen| (seen.key.clone(), seen.value.clone()))
            .collect();
        let revision = together[0].revision;
        if expected != Some((&revision, &found)) {
            return Err(format!(
                "a watcher saw revision {revision} as {found:?} in one answer where there was {expected:?}"
            ));
        }
        next = revision + 1;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::tests::committed;
    use super::*;

    const CHANGES: [&str; 6] = ["2 a 1", "3 b 2", "3 a 3", "4 a -", "7 l -", "7 m -"];

    fn verdict(lines: &[&str], last: i64) -> Result<Watched, Violation> {
        let notes: Vec<Note> = lines.iter().map(|line| line.parse().unwrap()).collect();
        for (line, note) in lines.iter().zip(&notes) {
            assert_eq!(note.to_string(), *line);
        }
        check(&notes, &committed(&CHANGES), last)
    }

    #[test]
    fn whole_revisions_without_a_gap_are_right_wherever_the_stream_breaks() {
        let watched = verdict(
            &[
                "from 1 0",
                "answer 2 a 1 3 b 2 3 a 3",
                "broken Unavailable no more",
                "from 4 1",
                "broken transport error",
                "from 4 2",
                "answer 4 a -",
                "answer 7 l - 7 m -",
            ],
            7,
        );
        let expected = Watched {
            changes: 6,
            resumed: 2,
        };
        assert_eq!(watched, Ok(expected));
        // Leases may run out after the last write, when nobody watches any more.
        assert!(verdict(&["from 1 0", "answer 2 a 1 3 b 2 3 a 3 4 a -"], 4).is_ok());
    }

    #[test]
    fn whoever_did_not_see_the_last_write_saw_too_little() {
        let objection = |lines: &[&str], last| verdict(lines, last).unwrap_err();
        assert!(objection(&[], 4).contains("never asked"));
        assert!(objection(&["from 1 0"], 4).contains("3 revisions are missing"));
        let cut = ["from 1 0", "answer 2 a 1 3 b 2 3 a 3"];
        assert!(objection(&cut, 4).contains("1 revisions are missing"));
        assert!(verdict(&cut, 3).is_ok());
    }

    #[test]
    fn a_gap_a_repetition_and_another_order_are_objected_to() {
        let wrong = [
            "answer 3 b 2 3 a 3",
            "answer 2 a 1 4 a -",
            "answer 2 a 1 2 a 1",
            "answer 2 a 1 3 a 3 3 b 2",
            "answer 3 b 2 3 a 3 2 a 1",
            "answer 2 a 2",
            "answer 2 a -",
            "answer 2 a 1 3 b 2 3 a 3 4 a - 5 a 9",
        ];
        for answer in wrong {
            assert!(verdict(&["from 1 0", answer], 0).is_err(), "{answer}");
        }
        let skipped = ["from 1 0", "answer 2 a 1", "from 4 1", "answer 4 a -"];
        assert!(
            verdict(&skipped, 0)
                .unwrap_err()
                .contains("went on at revision 4")
        );
    }

    #[test]
    fn a_revision_in_two_answers_is_objected_to() {
        let torn = ["from 1 0", "answer 2 a 1 3 b 2", "answer 3 a 3"];
        assert!(verdict(&torn, 0).unwrap_err().contains("in one answer"));
        let torn = ["from 1 0", "answer 2 a 1 3 b 2", "from 4 1", "answer 4 a -"];
        assert!(verdict(&torn, 0).is_err());
    }

    #[test]
    fn an_unfounded_end_is_objected_to() {
        for end in [
            "cancelled 3 etcdserver: mvcc: required revision has been compacted",
            "cancelled 0 I did not want to",
            "broken Internal I cannot",
            "broken FailedPrecondition etcdserver: rpc not supported for learner",
            "broken OutOfRange etcdserver: mvcc: required revision is a future revision",
        ] {
            let lines = ["from 1 0", end, "from 1 1", "answer 2 a 1 3 b 2 3 a 3 4 a -"];
            assert!(verdict(&lines, 4).is_err(), "{end}");
        }
    }
}
