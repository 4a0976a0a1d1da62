//! What clients asked and were told, one line of text a call, and the checks of such a history. Here are the words and their text
//! form; what is committed is in [`committed`], the checks in [`order`], [`leases`], [`watched`] and [`search`]; [`doctored`] and
//! [`doctored_watchers`] show that they bite.
//!
//! Nothing here knows of Quorate: revisions, leases and watches are etcd's.

pub mod committed;
pub mod doctored;
pub mod doctored_watchers;
pub mod leases;
pub mod order;
pub mod search;
pub mod watched;
mod witnesses;

use std::fmt;
use std::str::FromStr;

/// Nanoseconds on the one monotonic clock of the program that made the load.
pub type Moment = u64;

/// A request. No two requests write the same value.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Write a value, attached to a lease (0: none).
    Put {
        /// Where.
        key: String,
        /// What.
        value: String,
        /// Until when.
        lease: i64,
    },
    /// Write several keys in one transaction, in this order.
    Many {
        /// Key and value.
        pairs: Vec<(String, String)>,
    },
    /// Remove a key.
    Delete {
        /// Which.
        key: String,
    },
    /// Read a key.
    Get {
        /// Which.
        key: String,
        /// Whether the member's own, perhaps old, state is good enough.
        serializable: bool,
    },
    /// Write `new` if the value is `expected` (or the key absent), otherwise read.
    Swap {
        /// Where.
        key: String,
        /// What must be there.
        expected: Option<String>,
        /// What comes there.
        new: String,
    },
    /// Make a lease of so many seconds.
    Grant {
        /// Seconds.
        ttl: i64,
    },
    /// Renew a lease.
    Renew {
        /// Which.
        lease: i64,
    },
    /// End a lease.
    Revoke {
        /// Which.
        lease: i64,
    },
}

impl Ask {
    /// The values that it may write, and where.
    pub fn writes(&self) -> Vec<(&str, &str)> {
        match self {
            Ask::Put { key, value, .. } | Ask::Swap { key, new: value, .. } => vec![(key, value)],
            Ask::Many { pairs } => pairs.iter().map(|(key, value)| (&**key, &**value)).collect(),
            _ => Vec::new(),
        }
    }

    /// All that its revision changes if it is carried out.
    pub fn changes(&self) -> Vec<(String, Option<String>)> {
        if let Ask::Delete { key } = self {
            return vec![(key.clone(), None)];
        }
        let writes = self.writes().into_iter();
        writes
            .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
            .collect()
    }
}

/// What an answer says, beside the revision of its header.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It was carried out.
    Done,
    /// A swap found something else; a read found this: a value and the revision that wrote it.
    Saw(Option<(String, i64)>),
    /// How many keys a deletion removed.
    Deleted(i64),
    /// The lease, and the seconds it was given.
    Lease(i64, i64),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Ok {
        /// `header.revision` of the answer.
        revision: i64,
        /// The rest of it.
        told: Told,
    },
    /// The answer says that it was not carried out and will not be.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

/// One request of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Who asked.
    pub client: usize,
    /// Which endpoint.
    pub member: usize,
    /// When it was asked.
    pub invoked: Moment,
    /// When the answer was there, or the client gave up.
    pub returned: Moment,
    /// What.
    pub ask: Ask,
    /// The answer.
    pub outcome: Outcome,
}

impl Call {
    /// Whether a write was acknowledged, with its revision.
    pub fn acknowledged(&self) -> Option<i64> {
        match (&self.ask, &self.outcome) {
            (
                Ask::Put { .. } | Ask::Many { .. } | Ask::Swap { .. },
                Outcome::Ok {
                    revision,
                    told: Told::Done,
                },
            ) => Some(*revision),
            (
                Ask::Delete { .. },
                Outcome::Ok {
                    revision,
                    told: Told::Deleted(count),
                },
            ) if *count > 0 => Some(*revision),
            _ => None,
        }
    }
}

/// A name that may be missing, as text: keys and values have no spaces and are no dashes.
fn or_dash(value: Option<&str>) -> &str {
    value.unwrap_or("-")
}

fn from_dash(word: &str) -> Option<String> {
    (word != "-").then(|| word.to_owned())
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Put { key, value, lease } => write!(f, "put {key} {value} {lease}"),
            Ask::Many { pairs } => {
                write!(f, "many")?;
                pairs
                    .iter()
                    .try_for_each(|(key, value)| write!(f, " {key} {value}"))
            }
            Ask::Delete { key } => write!(f, "delete {key}"),
            Ask::Get {
                key,
                serializable: false,
            } => write!(f, "get {key}"),
            Ask::Get {
                key,
                serializable: true,
            } => write!(f, "stale-get {key}"),
            Ask::Swap { key, expected, new } => {
                write!(f, "swap {key} {} {new}", or_dash(expected.as_deref()))
            }
            Ask::Grant { ttl } => write!(f, "grant {ttl}"),
            Ask::Renew { lease } => write!(f, "renew {lease}"),
            Ask::Revoke { lease } => write!(f, "revoke {lease}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok { revision, told } => match told {
                Told::Done => write!(f, "ok {revision} done"),
                Told::Saw(None) => write!(f, "ok {revision} saw - 0"),
                Told::Saw(Some((value, written))) => write!(f, "ok {revision} saw {value} {written}"),
                Told::Deleted(count) => write!(f, "ok {revision} deleted {count}"),
                Told::Lease(id, ttl) => write!(f, "ok {revision} lease {id} {ttl}"),
            },
            Outcome::Failed(why) => write!(f, "failed {why}"),
            Outcome::Unknown(why) => write!(f, "unknown {why}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call {
            client,
            member,
            invoked,
            returned,
            ask,
            outcome,
        } = self;
        write!(f, "{client} {member} {invoked} {returned} {ask} => {outcome}")
    }
}

/// A number among the words of a line.
fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

impl FromStr for Ask {
    type Err = String;

    fn from_str(text: &str) -> Result<Ask, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let ask = match words[..] {
            ["put", key, value, lease] => Ask::Put {
                key: key.into(),
                value: value.into(),
                lease: number(lease)?,
            },
            ["many", ref pairs @ ..] if !pairs.is_empty() && pairs.len() % 2 == 0 => Ask::Many {
                pairs: pairs
                    .chunks(2)
                    .map(|pair| (pair[0].into(), pair[1].into()))
                    .collect(),
            },
            ["delete", key] => Ask::Delete { key: key.into() },
            ["get", key] => Ask::Get {
                key: key.into(),
                serializable: false,
            },
            ["stale-get", key] => Ask::Get {
                key: key.into(),
                serializable: true,
            },
            ["swap", key, expected, new] => Ask::Swap {
                key: key.into(),
                expected: from_dash(expected),
                new: new.into(),
            },
            ["grant", ttl] => Ask::Grant { ttl: number(ttl)? },
            ["renew", lease] => Ask::Renew {
                lease: number(lease)?,
            },
            ["revoke", lease] => Ask::Revoke {
                lease: number(lease)?,
            },
            _ => return Err(format!("what is asked with {text:?}")),
        };
        Ok(ask)
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Outcome, String> {
        if let Some(why) = text.strip_prefix("failed ") {
            return Ok(Outcome::Failed(why.into()));
        }
        if let Some(why) = text.strip_prefix("unknown ") {
            return Ok(Outcome::Unknown(why.into()));
        }
        let words: Vec<&str> = text.split(' ').collect();
        let (revision, told) = match words[..] {
            ["ok", revision, "done"] => (revision, Told::Done),
            ["ok", revision, "saw", "-", _] => (revision, Told::Saw(None)),
            ["ok", revision, "saw", value, written] => {
                (revision, Told::Saw(Some((value.into(), number(written)?))))
            }
            ["ok", revision, "deleted", count] => (revision, Told::Deleted(number(count)?)),
            ["ok", revision, "lease", id, ttl] => (revision, Told::Lease(number(id)?, number(ttl)?)),
            _ => return Err(format!("what is told with {text:?}")),
        };
        Ok(Outcome::Ok {
            revision: number(revision)?,
            told,
        })
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(line: &str) -> Result<Call, String> {
        let (left, outcome) = line
            .split_once(" => ")
            .ok_or_else(|| format!("no outcome in {line:?}"))?;
        let mut words = left.splitn(5, ' ');
        let mut next = || words.next().ok_or_else(|| format!("too short: {line:?}"));
        Ok(Call {
            client: number(next()?)?,
            member: number(next()?)?,
            invoked: number(next()?)?,
            returned: number(next()?)?,
            ask: next()?.parse()?,
            outcome: outcome.parse()?,
        })
    }
}

/// A history that no correct store can have produced.
pub type Violation = String;

/// An answer that says that a lease is not there: a renewal's, or that of a write or revocation that needs it.
pub const NO_LEASE: &str = "etcdserver: requested lease not found";
/// The answer of a member that has no vote yet.
pub const NO_LEARNERS: &str = "etcdserver: rpc not supported for learner";

/// All checks of calls. Returns what the search for linearizations covered.
pub fn check(calls: &[Call], committed: &committed::Committed) -> Result<search::Searched, Violation> {
    order::check(calls, committed)?;
    leases::check(calls, committed)?;
    search::check(calls, committed)
}

#[cfg(test)]
pub mod tests {
    use super::committed::Committed;
    use super::*;

    /// Calls from lines as they stand in a history.
    pub fn calls(lines: &[&str]) -> Vec<Call> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    /// Changes: revision, key, and value or dash.
    pub fn committed(lines: &[&str]) -> Committed {
        let mut committed = Committed::default();
        for line in lines {
            let seen: watched::Seen = line.parse().unwrap();
            committed.push(seen.revision, seen.key, seen.value);
        }
        committed
    }

    #[test]
    fn calls_are_read_as_they_were_written() {
        let lines = [
            "1 0 5 9 put a v1 0 => ok 2 done",
            "1 0 5 9 many a v1 b v2 => ok 2 done",
            "1 0 5 9 delete a => ok 3 deleted 1",
            "1 0 5 9 stale-get a => ok 3 saw - 0",
            "1 0 5 9 swap a - v3 => ok 3 saw v2 2",
            "1 0 5 9 grant 2 => ok 3 lease 7 2",
            "1 0 5 9 renew 7 => failed etcdserver: no leader",
            "1 0 5 9 revoke 7 => unknown no answer in time",
        ];
        for (line, call) in lines.iter().zip(calls(&lines)) {
            assert_eq!(call.to_string(), *line);
        }
        assert!("1 0 5 9 many a v1 b => ok 2 done".parse::<Call>().is_err());
    }
}
