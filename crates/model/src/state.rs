//! One state of the whole cluster: its nodes and the record of what was committed, named by number (`tables` holds each
//! different one once), the network, and what may still happen.

use std::fmt;
use std::sync::Arc;

use crate::action::ParcelId;

/// As many nodes as there ever are.
pub const MOST: usize = 6;

/// The number of a node that is not there.
pub(crate) const NOBODY: u32 = u32::MAX;

/// One state. Two with equal fields are the same situation in every respect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Each node's situation.
    pub(crate) nodes: [u32; MOST],
    /// The record.
    pub(crate) ghost: u32,
    /// Everything ever sent that may still arrive, in order of number. Nothing is ever taken out for having arrived: that covers loss,
    /// duplication and any order.
    pub(crate) network: Arc<[ParcelId]>,
    /// What may still happen.
    pub left: Bounds,
    /// The invariant that was broken on the way here. Nothing happens after that.
    pub violation: Option<Arc<str>>,
}

impl State {
    /// Whether the two differ at most in what may still happen, and in what is broken.
    pub(crate) fn is_like(&self, other: &State) -> bool {
        self.nodes == other.nodes && self.ghost == other.ghost && self.network == other.network
    }
}

macro_rules! bounds {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each kind of thing may happen (again). All else that can happen is free.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct Bounds {
            $($(#[$doc])* pub $name: u8,)*
        }

        impl Bounds {
            /// Anything goes: for replaying what is given.
            pub const ANY: Bounds = Bounds { $($name: u8::MAX,)* };

            /// Whether `more` allows all that these do.
            pub fn is_within(&self, more: &Bounds) -> bool {
                $(self.$name <= more.$name)&&*
            }
        }

        impl fmt::Display for Bounds {
            /// Those that are not zero.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let parts = [$((stringify!($name), self.$name),)*];
                let parts = parts.iter().filter(|part| part.1 > 0);
                let parts: Vec<String> = parts.map(|(name, n)| format!("{name} {n}")).collect();
                f.write_str(&parts.join(", "))
            }
        }
    };
}

bounds! {
    /// Election timeouts.
    campaigns,
    /// Other timers: heartbeats, quorum checks, reads asked again, transfers given up.
    ticks,
    /// Commands.
    proposals,
    /// Linearizable reads.
    reads,
    /// Crashes with restart.
    crashes,
    /// Stimuli whose writes stay on their way.
    slow,
    /// Stimuli whose effects are taken only after the next.
    batched,
    /// Stimuli after which Appends have to wait for the log to be read.
    cold,
    /// Compactions.
    compactions,
    /// Machines made durable.
    flushes,
    /// Changes of the membership.
    changes,
    /// Transfers of leadership.
    transfers,
    /// Reports of the driver, true or not: not sent, snapshot lost, leader dead, reachable, disk stalled.
    reports,
}
