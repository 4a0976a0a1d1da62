//! A log in memory with the rules of `quorate-wal`: what breaks one of them would make the real log panic.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_base::Index;
use quorate_wal::Record;

/// What is durable of a log.
#[derive(Clone, Debug, Default)]
pub struct LogDisk {
    mark: Option<(Index, Bytes)>,
    state: Option<Bytes>,
    entries: BTreeMap<Index, Bytes>,
}

impl LogDisk {
    fn base(&self) -> Index {
        self.mark.as_ref().map_or(Index::ZERO, |mark| mark.0)
    }

    pub fn last(&self) -> Index {
        self.entries.keys().next_back().copied().unwrap_or(self.base())
    }

    pub fn append(&mut self, records: Vec<Record>) {
        assert!(!records.is_empty(), "no empty writes");
        for record in records {
            match record {
                Record::Entry { index, body } => {
                    assert_eq!(index, self.last().next(), "entries follow each other");
                    self.entries.insert(index, body);
                }
                Record::State(body) => self.state = Some(body),
                Record::Truncate { after } => {
                    assert!(
                        after >= self.base() && after <= self.last(),
                        "truncation within the log"
                    );
                    self.entries.retain(|index, _| *index <= after);
                }
                Record::Mark { index, body } => {
                    assert!(self.mark.is_none() || index >= self.base(), "marks never go back");
                    self.entries.retain(|entry, _| *entry > index);
                    self.mark = Some((index, body));
                }
            }
        }
    }

    pub fn read(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Bytes>, String> {
        if first <= self.base() {
            return Err(format!("{first} is compacted"));
        }
        let mut bytes = 0;
        let mut bodies = Vec::new();
        for (_, body) in self.entries.range(first..=last) {
            bytes += body.len();
            if bytes > max_bytes && !bodies.is_empty() {
                break;
            }
            bodies.push(body.clone());
        }
        if bodies.is_empty() {
            Err(format!("{first} is not there"))
        } else {
            Ok(bodies)
        }
    }

    /// What `Wal::open` would show: mark, state, entries.
    pub fn records(&self) -> Vec<Record> {
        let mark = self.mark.iter().map(|(index, body)| Record::Mark {
            index: *index,
            body: body.clone(),
        });
        let state = self.state.iter().map(|body| Record::State(body.clone()));
        let entries = self.entries.iter().map(|(index, body)| Record::Entry {
            index: *index,
            body: body.clone(),
        });
        mark.chain(state).chain(entries).collect()
    }
}
