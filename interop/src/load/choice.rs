//! What a client asks next. Keys are few at any moment, so that clients meet, and change with time, so that the history of each stays
//! short enough to be searched.

use std::time::Duration;

use crate::history::{Ask, Told};
use crate::random::Random;

/// Keys in use at a time.
const SLOTS: u64 = 8;
/// How long they are.
const EPOCH: Duration = Duration::from_millis(1000);
/// Seconds for which a lease is asked for.
const TTL: i64 = 2;

/// What one client remembers between its calls.
pub struct Mind {
    random: Random,
    client: usize,
    count: u64,
    /// What was last seen: key and value.
    seen: Option<(String, Option<String>)>,
    /// The lease it was given, and how often it was used.
    lease: Option<(i64, u32)>,
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

    /// The next call.
    pub fn next(&mut self, elapsed: Duration) -> Ask {
        self.count += 1;
        if let Some(ask) = self.next_of_lease() {
            return ask;
        }
        let key = format!(
            "k{}-{}",
            self.random.below(SLOTS),
            elapsed.as_millis() / EPOCH.as_millis()
        );
        let new = self.value();
        match self.random.below(100) {
            0..35 => Ask::Put {
                key,
                value: new,
                lease: 0,
            },
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

    /// A lease is attached to a key of its own; then it is renewed, or revoked, or left to run out.
    fn next_of_lease(&mut self) -> Option<Ask> {
        let (lease, used) = self.lease?;
        self.lease = Some((lease, used + 1));
        if used == 0 {
            let (key, value) = (format!("l{lease:x}"), self.value());
            return Some(Ask::Put { key, value, lease });
        }
        match self.random.below(8) {
            0..2 => Some(Ask::Renew { lease }),
            2 => {
                self.lease = None;
                Some(Ask::Revoke { lease })
            }
            3 => {
                self.lease = None;
                None
            }
            _ => None,
        }
    }

    fn value(&mut self) -> String {
        format!("v{}.{}", self.client, self.count)
    }

    /// Learns from an answer.
    pub fn learn(&mut self, ask: &Ask, told: &Told) {
        match (ask, told) {
            (Ask::Get { key, .. } | Ask::Swap { key, .. }, Told::Saw(seen)) => {
                self.seen = Some((key.clone(), seen.as_ref().map(|(value, _)| value.clone())));
            }
            (Ask::Put { key, value, lease: 0 }, Told::Done) => {
                self.seen = Some((key.clone(), Some(value.clone())))
            }
            (Ask::Grant { .. }, Told::Lease(lease, _)) => self.lease = Some((*lease, 0)),
            _ => {}
        }
    }
}
