//! What the nodes are asked to do. Which keys come when follows from numbers alone.

use std::ops::Range;

use bytes::Bytes;
use quorate_kv::{Command, PutRequest, RangeRequest};

use crate::cluster::{Cluster, commands};
use crate::cores::Cores;
use crate::trio::Trio;

/// Keys that are written, again and again. All are in the store before anything is counted.
const KEYS: u64 = 1_024;
/// So many puts are flushed at a time where flushing counts. A server flushes more of them at once, and so pays less for each.
const FLUSHED: u64 = 1_024;
/// Bytes of a value.
const VALUE: usize = 256;

/// Which node a client is connected to.
#[derive(Clone, Copy)]
pub enum At {
    /// The leader.
    Leader,
    /// Another.
    Follower,
}

/// A kind of work, counted for itself.
#[derive(Clone, Copy)]
pub enum Scenario {
    /// Puts of one client, one after the other.
    Put1,
    /// Puts of 64 clients at once.
    Put64,
    /// The same, at a follower.
    PutForwarded64,
    /// Puts of 64 clients at once, and the store flushed now and then.
    Flushed64,
    /// Linearizable reads of one client.
    Read1,
    /// Linearizable reads of 64 clients at once.
    Read64,
    /// The same, at a follower.
    ReadForwarded64,
    /// Proposals one after the other, in the core alone.
    Core1,
    /// Proposals 64 at once, in the core alone.
    Core64,
    /// Proposals 1,024 at once, in the core alone.
    Core1024,
}

impl Scenario {
    /// All there are.
    pub const ALL: [Scenario; 10] = [
        Scenario::Put1,
        Scenario::Put64,
        Scenario::PutForwarded64,
        Scenario::Flushed64,
        Scenario::Read1,
        Scenario::Read64,
        Scenario::ReadForwarded64,
        Scenario::Core1,
        Scenario::Core64,
        Scenario::Core1024,
    ];

    /// What it is called on the command line and in the records.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Put1 => "put-1",
            Scenario::Put64 => "put-64",
            Scenario::PutForwarded64 => "put-64-follower",
            Scenario::Flushed64 => "put-64-flushed",
            Scenario::Read1 => "read-1",
            Scenario::Read64 => "read-64",
            Scenario::ReadForwarded64 => "read-64-follower",
            Scenario::Core1 => "core-1",
            Scenario::Core64 => "core-64",
            Scenario::Core1024 => "core-1024",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Scenario> {
        Scenario::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Does it so many times, after whatever is needed first. Panics unless it was done.
    pub fn run(self, operations: u64) {
        match self {
            Scenario::Core1 => propose(1, operations),
            Scenario::Core64 => propose(64, operations),
            Scenario::Core1024 => propose(1_024, operations),
            _ => {
                let mut trio = Trio::elected();
                warm_up(&mut trio);
                self.ask(&mut trio, KEYS..KEYS + operations);
                trio.check();
            }
        }
    }

    fn ask(self, trio: &mut Trio, range: Range<u64>) {
        match self {
            Scenario::Put1 => put(trio, At::Leader, 1, range),
            Scenario::Put64 => put(trio, At::Leader, 64, range),
            Scenario::PutForwarded64 => put(trio, At::Follower, 64, range),
            Scenario::Flushed64 => {
                for first in range.clone().step_by(FLUSHED as usize) {
                    put(trio, At::Leader, 64, first..range.end.min(first + FLUSHED));
                    trio.flush();
                }
            }
            Scenario::Read1 => read(trio, At::Leader, 1, range),
            Scenario::Read64 => read(trio, At::Leader, 64, range),
            Scenario::ReadForwarded64 => read(trio, At::Follower, 64, range),
            Scenario::Core1 | Scenario::Core64 | Scenario::Core1024 => unreachable!("these ask no nodes"),
        }
    }
}

/// Proposals in the core alone, so many at once.
fn propose(batch: u64, operations: u64) {
    let mut cores = Cores::start();
    for first in (0..operations).step_by(batch as usize) {
        let batch = batch.min(operations - first);
        cores.round(commands(first, batch as usize));
    }
    for applied in cores.applied() {
        assert_eq!(
            applied.count, operations,
            "every member has applied every command"
        );
    }
}

/// Puts of these numbers, so many at once.
fn put(trio: &mut Trio, at: At, clients: u64, range: Range<u64>) {
    for first in range.clone().step_by(clients as usize) {
        for number in first..range.end.min(first + clients) {
            let put = PutRequest {
                key: key(number),
                value: Bytes::from(vec![number as u8; VALUE]),
                ..PutRequest::default()
            };
            trio.propose(at, Command::Put(put).encode());
        }
        trio.settle();
    }
}

/// Reads of what the puts of these numbers wrote, so many at once.
fn read(trio: &mut Trio, at: At, clients: u64, range: Range<u64>) {
    for first in range.clone().step_by(clients as usize) {
        for number in first..range.end.min(first + clients) {
            let request = RangeRequest {
                key: key(number),
                ..RangeRequest::default()
            };
            trio.read(at, request);
        }
        trio.settle();
    }
}

/// Brings every key into the store, and buffers to their sizes.
fn warm_up(trio: &mut Trio) {
    put(trio, At::Leader, 64, 0..KEYS);
    trio.flush();
}

/// A key out of all, in an order that looks like none: the multiplier has no factor in common with the number of keys.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("{:08}", number * 7_919 % KEYS))
}
