//! What the store says was committed: every change of every revision, as a watch from the first revision tells it, and the state at
//! any revision that follows from it. How it is fetched is in [`crate::verify`].

use std::collections::BTreeMap;

/// All changes, by revision and by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Committed {
    /// Key and value (`None`: deleted), by revision.
    pub changes: BTreeMap<i64, Vec<(String, Option<String>)>>,
    keys: BTreeMap<String, Vec<(i64, Option<String>)>>,
    values: BTreeMap<String, i64>,
    /// Values that were written by two revisions.
    pub twice: Vec<String>,
    /// The newest revision, of these keys or others.
    pub revision: i64,
}

impl Committed {
    /// Nothing yet, of a store whose newest revision is this one.
    pub fn up_to(revision: i64) -> Committed {
        Committed {
            revision,
            ..Committed::default()
        }
    }

    /// Adds a change. They come in the order of revisions.
    pub fn push(&mut self, revision: i64, key: String, value: Option<String>) {
        self.revision = self.revision.max(revision);
        if let Some(value) = &value
            && self.values.insert(value.clone(), revision).is_some()
        {
            self.twice.push(value.clone());
        }
        self.changes
            .entry(revision)
            .or_default()
            .push((key.clone(), value.clone()));
        self.keys.entry(key).or_default().push((revision, value));
    }

    /// The revision that wrote this value.
    pub fn written(&self, value: &str) -> Option<i64> {
        self.values.get(value).copied()
    }

    /// A key's value at a revision, and the revision that wrote it.
    pub fn at(&self, key: &str, revision: i64) -> Option<(&str, i64)> {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(written, _)| *written <= revision);
        let (written, value) = versions.get(after.checked_sub(1)?)?;
        Some((value.as_deref()?, *written))
    }

    /// All keys that are there in the end: value and the revision that wrote it.
    pub fn last(&self) -> BTreeMap<&str, (&str, i64)> {
        let there = self
            .keys
            .keys()
            .filter_map(|key| Some((key.as_str(), self.at(key, i64::MAX)?)));
        there.collect()
    }
}
