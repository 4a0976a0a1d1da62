//! What a watcher saw: every change once, in the order of revisions, and none left out, wherever its stream broke.

use std::fmt;
use std::str::FromStr;

use super::committed::Committed;
use super::{Violation, from_dash, number, or_dash};

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

/// Checks what one watcher saw from the first revision on.
pub fn check(seen: &[Seen], committed: &Committed) -> Result<(), Violation> {
    let changes = committed.changes.iter().flat_map(|(revision, changes)| {
        let each = changes.iter();
        each.map(move |(key, value)| Seen {
            revision: *revision,
            key: key.clone(),
            value: value.clone(),
        })
    });
    let mut changes = changes;
    for seen in seen {
        let expected = changes.next();
        if expected.as_ref() != Some(seen) {
            return Err(format!("a watcher saw {seen:?} where there was {expected:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_a_repetition_and_another_order_are_objected_to() {
        let seen = ["2 a 1", "3 b 2", "4 a -", "7 c 3"].map(|line| line.parse::<Seen>().unwrap());
        let mut committed = Committed::up_to(9);
        for Seen { revision, key, value } in seen.clone() {
            committed.push(revision, key, value);
        }
        let [a, b, c, d] = seen;
        let check = |seen: &[&Seen]| {
            check(
                &seen.iter().map(|seen| (*seen).clone()).collect::<Vec<_>>(),
                &committed,
            )
        };
        assert_eq!(check(&[&a, &b, &c, &d]), Ok(()));
        assert_eq!(check(&[&a, &b]), Ok(()), "the rest was not seen yet");
        assert!(check(&[&b]).is_err());
        assert!(check(&[&a, &c]).is_err());
        assert!(check(&[&a, &a, &b]).is_err());
        assert!(check(&[&b, &a]).is_err());
        assert!(check(&[&a, &b, &c, &d, &d]).is_err());
        let other = Seen {
            value: Some("2".into()),
            ..a.clone()
        };
        assert!(check(&[&other]).is_err());
    }
}
