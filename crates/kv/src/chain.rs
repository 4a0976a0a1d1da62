//! How the changes of one key hang together: each names the one before it, so the last change before a revision is found by walking
//! back from the latest, and no table has to list the changes by key. A key that changes a million times would make that a long walk,
//! so every sixteenth change also names the sixteenth before it, every 256th the 256th before it, and so on: a walk
//! takes some 16 steps for each power of sixteen, there and back.
//!
//! Links are this store's own: they are not part of the replicated state, of snapshots or of hashes, and a store made from a snapshot
//! begins its chains anew. What a link names may be gone by compaction; see [`Reader`](crate::range::Reader).

use crate::codec::{DecodeError, Reader, put_varint};

/// Where a change stands: its revision, and its position among the changes of that revision.
pub(crate) type Place = (i64, u32);

/// The base of the distances that are named.
const STRIDE: u64 = 16;
/// No number of changes needs more distances than that; more are damage.
const MOST: usize = 16;

/// What a change says of those before it, of the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// The one before.
    pub(crate) before: Option<Place>,
    /// Those 16, 256, 4096 ... before.
    jumps: Vec<Place>,
}

/// The end of a key's chain, from which the next change is linked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// How many changes there were.
    number: u64,
    /// The last ones whose numbers are multiples of 16, 256, 4096 ...
    marks: Vec<Place>,
}

impl Links {
    /// The farthest change named that is still after `bound`; if there is none, the one before, wherever that is.
    pub(crate) fn towards(&self, bound: Place) -> Option<Place> {
        let far = self.jumps.iter().rev().find(|jump| **jump > bound);
        far.copied().or(self.before)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self.before {
            // No change has revision 0.
            None => out.push(0),
            Some(before) => {
                put_place(out, before);
                put_places(out, &self.jumps);
            }
        }
    }

    pub(crate) fn get(input: &mut Reader) -> Result<Links, DecodeError> {
        let before = match get_place(input)? {
            None => return Ok(Links::default()),
            before => before,
        };
        let jumps = get_places(input)?;
        Ok(Links { before, jumps })
    }

    /// Bytes in memory beyond the fixed part.
    pub(crate) fn weight(&self) -> usize {
        size_of_val(self.jumps.as_slice())
    }
}

impl Chain {
    /// Adds the change at `place`, which follows the one at `before` if the chain is not empty; what it says of those before.
    pub(crate) fn add(&mut self, before: Option<Place>, place: Place) -> Links {
        self.number += 1;
        let mut links = Links {
            before,
            jumps: Vec::new(),
        };
        let mut rest = self.number;
        for level in 0.. {
            if !rest.is_multiple_of(STRIDE) {
                break;
            }
            rest /= STRIDE;
            match self.marks.get_mut(level) {
                Some(mark) => links.jumps.push(std::mem::replace(mark, place)),
                None => self.marks.push(place),
            }
        }
        links
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.number);
        put_places(out, &self.marks);
    }

    pub(crate) fn get(input: &mut Reader) -> Result<Chain, DecodeError> {
        Ok(Chain {
            number: input.varint("number of changes")?,
            marks: get_places(input)?,
        })
    }

    /// Bytes in memory beyond the fixed part.
    pub(crate) fn weight(&self) -> usize {
        size_of_val(self.marks.as_slice())
    }
}

pub(crate) fn put_place(out: &mut Vec<u8>, (main, sub): Place) {
    put_varint(out, main as u64);
    put_varint(out, u64::from(sub));
}

/// `None` is the revision 0, with nothing after it.
pub(crate) fn get_place(input: &mut Reader) -> Result<Option<Place>, DecodeError> {
    let main = input.int("revision")?;
    if main == 0 {
        return Ok(None);
    }
    let sub = input.varint("position")?;
    let sub = u32::try_from(sub).map_err(|_| DecodeError::Undefined {
        what: "position",
        value: sub,
    })?;
    Ok(Some((main, sub)))
}

fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    put_varint(out, places.len() as u64);
    for place in places {
        put_place(out, *place);
    }
}

fn get_places(input: &mut Reader) -> Result<Vec<Place>, DecodeError> {
    let count = input.varint("number of places")?;
    let undefined = |value| DecodeError::Undefined {
        what: "number of places",
        value,
    };
    if count > MOST as u64 {
        return Err(undefined(count));
    }
    (0..count)
        .map(|_| get_place(input)?.ok_or_else(|| undefined(0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The links of changes at the revisions 10, 20, 30 ...
    fn links(count: i64) -> Vec<Links> {
        let mut chain = Chain::default();
        let place = |n: i64| (n > 0).then_some((n * 10, 0));
        let mut all = Vec::new();
        for n in 1..=count {
            all.push(chain.add(place(n - 1), (n * 10, 0)));
        }
        let mut bytes = Vec::new();
        chain.put(&mut bytes);
        let mut input = Reader(Bytes::from(bytes));
        assert_eq!(Chain::get(&mut input), Ok(chain));
        assert!(input.0.is_empty());
        all
    }

    #[test]
    fn every_change_is_found_from_the_end_in_few_steps() {
        let count = 70_000;
        let all = links(count);
        let mut longest = 0;
        for sought in (1..=count).step_by(97).chain([1, 2, 15, 16, 17, 4096, count]) {
            // Bounds on the change itself, and between it and the next.
            for bound in [(sought * 10, 0), (sought * 10, 7), (sought * 10 + 9, 0)] {
                let (mut at, mut steps) = ((count * 10, 0), 0);
                while at > bound {
                    at = all[(at.0 / 10 - 1) as usize].towards(bound).unwrap();
                    steps += 1;
                }
                assert_eq!(at, (sought * 10, 0), "sought by {bound:?}");
                longest = longest.max(steps);
            }
        }
        assert!(longest <= 2 * 16 * 5, "{longest} steps");
    }

    #[test]
    fn before_the_first_change_there_is_none() {
        let all = links(300);
        let mut at = Some((3_000, 0));
        while let Some(place) = at {
            at = all[(place.0 / 10 - 1) as usize].towards((5, 0));
        }
    }

    #[test]
    fn links_come_back_from_their_bytes() {
        for links in links(600) {
            let mut bytes = Vec::new();
            links.put(&mut bytes);
            let mut input = Reader(Bytes::from(bytes));
            assert_eq!(Links::get(&mut input), Ok(links));
            assert!(input.0.is_empty());
        }
    }
}
