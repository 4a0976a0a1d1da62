//! What a client asks next. Keys are few at any moment, so that clients meet, and change after so many calls, so that the history of
//! each stays short enough to be searched, however fast the machine is.

use std::time::Duration;

use crate::history::{Ask, Told};
use crate::random::Random;

/// Keys in use at a time.
const SLOTS: u64 = 8;
/// For how many calls of all clients together. Some forty a key: a third of what the search can hold.
const EPOCH: u64 = SLOTS * 40;
/// What the names of leased keys begin with, and no others.
pub const LEASED: char = 'l';
/// Seconds for which a lease is asked for.
const TTL: i64 = 2;

/// What one client remembers between its calls.
pub struct Mind {
    random: Random,
    client: usize,
    count: u64,
    /// What was last seen: key and value.
    seen: Option<(String, Option<String>)>,
    /// The lease it was given.
    lease: Option<Leased>,
}

/// What a client does with a lease.
#[derive(Clone, Copy)]
struct Leased {
    id: i64,
    /// How many keys it gets.
    keys: u64,
    /// How many it has got.
    attached: u64,
}

impl Mind {
    /// Of client number `client`.
    pub fn new(client: usize, seed: u64) -> Mind {
        Mind {
            random: Random::new(seed),
            client,
            count: 0,
            seen: None,
            lease: None,
        }
    }

    /// How long it thinks before the next call.
    pub fn pause(&mut self) -> Duration {
        Duration::from_micros(self.random.below(20_000))
    }

    /// The next call, after so many of all clients.
    pub fn next(&mut self, asked: u64) -> Ask {
        self.count += 1;
        if let Some(ask) = self.next_of_lease() {
            return ask;
        }
        let slot = self.random.below(SLOTS);
        let epoch = asked / EPOCH;
        let key = format!("k{slot}-{epoch}");
        let new = self.value();
        match self.random.below(100) {
            0..30 => Ask::Put {
                key,
                value: new,
                lease: 0,
            },
            30..35 => self.next_of_many(slot, epoch),
            35..65 => Ask::Get {
                key,
                serializable: false,
            },
            65..70 => Ask::Get {
                key,
                serializable: true,
            },
            70..84 => match self.seen.take() {
                Some((key, expected)) => Ask::Swap { key, expected, new },
                None => Ask::Get {
                    key,
                    serializable: false,
                },
            },
            84..91 => Ask::Swap {
                key,
                expected: None,
                new,
            },
            91..97 => Ask::Delete { key },
            _ => Ask::Grant { ttl: TTL },
        }
    }

    /// Two or three keys that are neighbours, each with a value of its own. Their order is not always that of the keys.
    fn next_of_many(&mut self, slot: u64, epoch: u64) -> Ask {
        let count = 2 + self.random.below(2);
        let value = self.value();
        let pair = |number| {
            let slot = (slot + number) % SLOTS;
            (format!("k{slot}-{epoch}"), format!("{value}.{number}"))
        };
        Ask::Many {
            pairs: (0..count).map(pair).collect(),
        }
    }

    /// A lease is attached to up to three keys of its own; then it is renewed, or revoked, or left to run out, and its keys are read.
    fn next_of_lease(&mut self) -> Option<Ask> {
        let leased = self.lease.as_mut()?;
        let Leased { id, keys, attached } = *leased;
        let key = |number| format!("{LEASED}{id:x}-{number}");
        if attached < keys {
            leased.attached += 1;
            let value = self.value();
            return Some(Ask::Put {
                key: key(attached),
                value,
                lease: id,
            });
        }
        match self.random.below(10) {
            0..2 => Some(Ask::Renew { lease: id }),
            2 => {
                self.lease = None;
                Some(Ask::Revoke { lease: id })
            }
            3 => {
                self.lease = None;
                None
            }
            4..6 => Some(Ask::Get {
                key: key(self.random.below(keys)),
                serializable: false,
            }),
            _ => None,
        }
    }

    fn value(&mut self) -> String {
        format!("v{}.{}", self.client, self.count)
    }

    /// Learns from an answer.
    pub fn learn(&mut self, ask: &Ask, told: &Told) {
        match (ask, told) {
            // Leased keys are left alone: a swap would take them away from their lease, and they would stay.
            (Ask::Get { key, .. }, Told::Saw(_)) if key.starts_with(LEASED) => {}
            (Ask::Get { key, .. } | Ask::Swap { key, .. }, Told::Saw(seen)) => {
                self.seen = Some((key.clone(), seen.as_ref().map(|(value, _)| value.clone())));
            }
            (Ask::Put { key, value, lease: 0 }, Told::Done) => {
                self.seen = Some((key.clone(), Some(value.clone())))
            }
            (Ask::Grant { .. }, Told::Lease(id, _)) => {
                self.lease = Some(Leased {
                    id: *id,
                    keys: 1 + self.random.below(3),
                    attached: 0,
                });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::history::search::MOST;

    /// What twelve clients ask one after the other, with answers that send them everywhere.
    fn asked(count: u64) -> Vec<Ask> {
        let mut minds: Vec<Mind> = (0..12).map(|client| Mind::new(client, client as u64)).collect();
        let ask = |asked: u64| {
            let mind = &mut minds[asked as usize % 12];
            let ask = mind.next(asked);
            let told = match &ask {
                Ask::Get { .. } => Told::Saw(None),
                Ask::Grant { ttl } => Told::Lease(asked as i64, *ttl),
                _ => Told::Done,
            };
            mind.learn(&ask, &told);
            ask
        };
        (0..count).map(ask).collect()
    }

    #[test]
    fn no_key_is_asked_for_more_often_than_can_be_searched() {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for ask in asked(20_000) {
            let read = match &ask {
                Ask::Get { key, .. } | Ask::Delete { key } => Some(key.as_str()),
                _ => None,
            };
            let written = ask.writes();
            for key in written.iter().map(|(key, _)| *key).chain(read) {
                *counts.entry(key.to_owned()).or_default() += 1;
            }
        }
        let most = counts.values().max().copied().unwrap();
        assert!((20..=MOST).contains(&most), "{most}");
    }

    #[test]
    fn leases_have_several_keys_which_nothing_else_writes() {
        let mut keys: BTreeMap<i64, usize> = BTreeMap::new();
        for ask in asked(20_000) {
            match &ask {
                Ask::Put { lease, .. } if *lease != 0 => *keys.entry(*lease).or_default() += 1,
                _ => assert!(
                    !ask.changes().iter().any(|(key, _)| key.starts_with(LEASED)),
                    "{ask}"
                ),
            }
        }
        let with = |count| keys.values().filter(|keys| **keys == count).count();
        assert!((1..=3).all(|count| with(count) > 50), "{keys:?}");
    }
}
