//! The three models: which cluster, and how much may happen at each level of a search.

use std::fmt;
use std::str::FromStr;

use quorate_base::NodeId;
use quorate_raft::{Change, Config, Promote};

use crate::cluster::{Cluster, usual_rules};
use crate::node::Rules;
use crate::state::{Bounds, State};

/// One of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Three voters that stay.
    Static,
    /// Three voters that are replaced by three others, as learners first, in one joint change or member by member.
    Membership,
    /// Three voters that compact their logs.
    Snapshots,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Static, Kind::Membership, Kind::Snapshots];

    /// How many nodes there are, members or not.
    pub fn size(self) -> usize {
        match self {
            Kind::Static | Kind::Snapshots => 3,
            Kind::Membership => 6,
        }
    }

    /// The rules.
    pub fn rules(self) -> Rules {
        let mut rules = usual_rules();
        match self {
            Kind::Static => {}
            Kind::Membership => rules.menu = menu(),
            Kind::Snapshots => {}
        }
        rules
    }

    /// The cluster, in which nothing has happened yet.
    pub fn cluster(self, size: Option<usize>, append: Option<u64>) -> Cluster {
        let mut rules = self.rules();
        if let Some(bytes) = append {
            rules.limits.max_append_bytes = bytes;
        }
        self.cluster_by(size, rules)
    }

    /// The same by other rules.
    pub fn cluster_by(self, size: Option<usize>, rules: Rules) -> Cluster {
        let voters = match self {
            Kind::Membership => 3,
            Kind::Static | Kind::Snapshots => size.unwrap_or(3),
        };
        let config = Config::of((1..=voters as u64).map(NodeId));
        Cluster::new(size.unwrap_or(self.size()), &config, rules)
    }

    /// The cluster with lease reads on, in which states that differ only in what nodes are called are one; `None` where the membership changes.
    pub fn nameless(self) -> Option<Cluster> {
        if self == Kind::Membership {
            return None;
        }
        let mut cluster = self.cluster_by(None, self.leasing());
        cluster.take_names_for_nothing();
        Some(cluster)
    }

    /// The rules with lease reads on.
    pub fn leasing(self) -> Rules {
        Rules {
            leases: true,
            ..self.rules()
        }
    }

    /// How much may happen at `level`, from 1 on, where somebody leads. Each level allows all that the one before did, and the
    /// first what the model is about: an election; a change of the membership; a command, a compaction, and the heartbeat that shows who needs a snapshot.
    pub fn bounds(self, level: u8) -> Bounds {
        // One from level `first` on, one more every so many levels.
        let from = |first: u8, every: u8| match level.checked_sub(first) {
            Some(more) => 1 + more / every,
            None => 0,
        };
        let common = Bounds {
            campaigns: u8::from(level > 1) + from(5, 2),
            proposals: from(2, 4),
            crashes: from(3, 3),
            slow: from(3, 2),
            reads: from(4, 2),
            ticks: from(4, 2),
            reports: from(4, 3),
            batched: from(5, 3),
            cold: from(5, 3),
            transfers: from(5, 4),
            ..Bounds::default()
        };
        match self {
            Kind::Static => Bounds {
                campaigns: common.campaigns.max(1),
                ..common
            },
            Kind::Membership => Bounds {
                changes: from(2, 3).max(1),
                ..common
            },
            Kind::Snapshots => Bounds {
                proposals: common.proposals.max(1),
                compactions: from(2, 3).max(1),
                ticks: common.ticks.max(1),
                flushes: from(4, 3),
                ..common
            },
        }
    }

    /// The same for a search from `state`: where nobody leads, somebody has to be elected first.
    pub fn bounds_from(self, level: u8, cluster: &Cluster, state: &State) -> Bounds {
        let bounds = self.bounds(level);
        let election = u8::from(self != Kind::Static && !cluster.is_led(state));
        Bounds {
            campaigns: bounds.campaigns + election,
            ..bounds
        }
    }
}

/// The changes that may be asked for. Forced ones need not wait until learners have caught up, and until enough is heard of others.
fn menu() -> Vec<(Vec<Change>, bool)> {
    let join = |id, promote| Change::AddLearner {
        id: NodeId(id),
        promote,
        about: Box::default(),
    };
    let add = |id| join(id, Promote::Never);
    let promote = |id| Change::Promote(NodeId(id));
    let remove = |id| Change::Remove(NodeId(id));
    let swap = (4..=6).map(promote).chain((1..=3).map(remove));
    vec![
        ((4..=6).map(add).collect(), false),
        (swap.collect(), true),
        (vec![add(4)], false),
        (vec![promote(4), remove(3)], true),
        (vec![remove(1)], true),
        (vec![join(4, Promote::WhenCaughtUp)], false),
        (vec![promote(4), remove(3)], false),
        (vec![remove(1)], false),
    ]
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Static => "static",
            Kind::Membership => "membership",
            Kind::Snapshots => "snapshots",
        })
    }
}

/// There is no such model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no model is called {0:?}: there are static, membership and snapshots")]
pub struct NoSuchModel(String);

impl FromStr for Kind {
    type Err = NoSuchModel;

    fn from_str(name: &str) -> Result<Kind, NoSuchModel> {
        let found = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| NoSuchModel(name.to_owned()))
    }
}
