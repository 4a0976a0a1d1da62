//! Random walks through the model, from empty logs, in search of [situations](crate::situation) that are hard to come by and of coverage marks
//! of the core that no story reaches. What was found is shortened while it still arises, and told as a story: a start for searches, which
//! small bounds would never get to. Everything comes from a seed.
//!
//! Each walk is in a mood of its own: which kinds of things happen often, seldom or never, and how often links are cut. Uniform choices would
//! drown in timeouts and late repetitions. Shortening stands in [`shorten`](crate::shorten).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_base::NodeId;
use quorate_raft::Timer;
use stateright::Model;

use crate::action::{Action, How, ParcelId, Stimulus};
use crate::cluster::Cluster;
use crate::kind::Kind;
use crate::script::{Played, Script, ScriptError};
use crate::situation::{self, Situation};
use crate::state::State;
use crate::view::Moment;

/// A generator of numbers that look random (SplitMix64): the same seed, the same walk, wherever it runs.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// The kinds of things that can happen, as far as moods tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Arrives,
    ArrivesLate,
    Campaigns,
    Ticks,
    Persists,
    Fills,
    Proposes,
    Reads,
    Restarts,
    Compacts,
    Flushes,
    Changes,
    Transfers,
    Reports,
}

/// What a walk is like.
#[derive(Clone, Debug)]
struct Mood {
    weights: BTreeMap<Sort, u64>,
    /// Of a hundred actions, so many with a slow disk, effects not taken, a cold log.
    slow: u64,
    batched: u64,
    cold: u64,
    /// Of a hundred steps, so many change who is cut off.
    cuts: u64,
}

impl Mood {
    fn any(chance: &mut Chance, kind: Kind) -> Mood {
        let mut weights = BTreeMap::from([
            (Sort::Arrives, 60),
            (Sort::ArrivesLate, chance.pick(&[0, 0, 1, 4])),
            (Sort::Campaigns, chance.pick(&[2, 4, 8, 12])),
            (Sort::Ticks, chance.pick(&[0, 1, 4])),
            (Sort::Persists, chance.pick(&[1, 5, 20])),
            (Sort::Fills, 10),
            (Sort::Proposes, chance.pick(&[2, 5, 10])),
            (Sort::Restarts, chance.pick(&[0, 1, 3])),
            (Sort::Reports, chance.pick(&[0, 0, 1, 2])),
            (Sort::Transfers, chance.pick(&[0, 0, 1, 3])),
        ]);
        let own = match kind {
            Kind::Static => [(Sort::Reads, chance.pick(&[0, 1, 5])), (Sort::Flushes, 0)],
            Kind::Membership => [
                (Sort::Changes, chance.pick(&[1, 4, 10])),
                (Sort::Compacts, chance.pick(&[0, 0, 0, 1])),
            ],
            Kind::Snapshots => [
                (Sort::Compacts, chance.pick(&[2, 5, 10])),
                (Sort::Flushes, chance.pick(&[0, 1])),
            ],
        };
        weights.extend(own);
        let mut mood = Mood {
            weights,
            slow: chance.pick(&[0, 0, 5, 25]),
            batched: chance.pick(&[0, 0, 0, 5]),
            cold: chance.pick(&[0, 0, 0, 10]),
            cuts: chance.pick(&[0, 3, 8]),
        };
        if kind != Kind::Static {
            mood.weights.insert(Sort::Reads, chance.pick(&[0, 0, 1, 3]));
        }
        mood
    }
}

/// A walk under way.
#[derive(Debug)]
pub struct Walk<'a> {
    cluster: &'a Cluster,
    chance: Chance,
    mood: Mood,
    state: State,
    /// Arrived once, or lost for now.
    late: BTreeSet<ParcelId>,
    /// Nothing passes between these and the others, nor among them.
    cut: BTreeSet<NodeId>,
}

impl<'a> Walk<'a> {
    /// Begins with empty logs.
    pub fn new(cluster: &'a Cluster, kind: Kind, seed: u64) -> Walk<'a> {
        let mut chance = Chance(seed);
        let mood = Mood::any(&mut chance, kind);
        Walk {
            state: cluster.first().clone(),
            late: BTreeSet::new(),
            cut: BTreeSet::new(),
            cluster,
            chance,
            mood,
        }
    }

    /// Where it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// One action that makes a difference; where it was taken, and which it was.
    pub fn step(&mut self) -> Option<(State, Action)> {
        if self.chance.percent(self.mood.cuts) {
            self.cut_anew();
        }
        let possible = self.cluster.possible(&self.state);
        let mut by_sort: BTreeMap<Sort, Vec<(NodeId, Stimulus)>> = BTreeMap::new();
        for (at, what) in possible {
            let sort = self.sort(what);
            if self.mood.weights.get(&sort).is_some_and(|weight| *weight > 0) {
                by_sort.entry(sort).or_default().push((at, what));
            }
        }
        let sum: u64 = by_sort.keys().map(|sort| self.mood.weights[sort]).sum();
        // Most of what is possible makes a difference; what does not is drawn again.
        for _ in 0..50 {
            let mut at = self.chance.below(sum);
            let sort = by_sort.keys().find(|sort| {
                let weight = self.mood.weights[sort];
                let here = at < weight;
                at = at.saturating_sub(weight);
                here
            })?;
            let (at, what) = self.chance.pick(&by_sort[sort]);
            let how = self.how();
            let action = Action { at, what, how };
            if let Stimulus::Deliver(id) = what {
                self.late.insert(id);
            }
            if self.cluster.offers(&self.state, action)
                && let Some(next) = self.cluster.next_state(&self.state, action)
            {
                let before = std::mem::replace(&mut self.state, next);
                return Some((before, action));
            }
        }
        None
    }

    fn how(&mut self) -> How {
        let Mood {
            slow, batched, cold, ..
        } = self.mood;
        match self.chance.below(100) {
            n if n < slow => How::SlowDisk,
            n if n < slow + batched => How::Batched,
            n if n < slow + batched + cold => How::Cold,
            _ => How::Settled,
        }
    }

    /// What is on its way to or from these is lost for now; it may still arrive late.
    fn cut_anew(&mut self) {
        let nodes = self.cluster.size() as u64;
        self.cut = match self.chance.below(3) {
            0 => BTreeSet::new(),
            1 => BTreeSet::from([NodeId(1 + self.chance.below(nodes))]),
            _ => (1..=nodes)
                .filter(|_| self.chance.percent(40))
                .map(NodeId)
                .collect(),
        };
    }

    fn sort(&mut self, what: Stimulus) -> Sort {
        match what {
            Stimulus::Deliver(id) => {
                let parcel = self.cluster.parcel(id);
                let lost = self.cut.contains(&parcel.from) || self.cut.contains(&parcel.to);
                if lost {
                    self.late.insert(id);
                }
                match self.late.contains(&id) {
                    true => Sort::ArrivesLate,
                    false => Sort::Arrives,
                }
            }
            Stimulus::Fire(Timer::Election) => Sort::Campaigns,
            Stimulus::Fire(_) => Sort::Ticks,
            Stimulus::Persist(_) => Sort::Persists,
            Stimulus::Fill(_) => Sort::Fills,
            Stimulus::Propose(_) => Sort::Proposes,
            Stimulus::Read(_) => Sort::Reads,
            Stimulus::Restart(_) => Sort::Restarts,
            Stimulus::Compact(_) => Sort::Compacts,
            Stimulus::Flush => Sort::Flushes,
            Stimulus::Change(_) => Sort::Changes,
            Stimulus::Transfer(_) => Sort::Transfers,
            Stimulus::Stall
            | Stimulus::Hint
            | Stimulus::Reachable(_)
            | Stimulus::NotSent(..)
            | Stimulus::SnapshotLost(_) => Sort::Reports,
        }
    }
}

/// What a walk may lead to.
#[derive(Clone, Debug)]
pub enum Goal {
    /// This situation.
    Situation(Situation),
    /// The core reaches this mark.
    Mark(String),
}

impl Goal {
    /// By the name of a story: that of a situation, or of a mark.
    pub fn by_name(name: &str) -> Option<Goal> {
        let mark = name.starts_with("raft.").then(|| Goal::Mark(name.to_owned()));
        situation::by_name(name).map(Goal::Situation).or(mark)
    }

    /// The name of its story.
    pub fn name(&self) -> &str {
        match self {
            Goal::Situation(situation) => situation.name,
            Goal::Mark(mark) => mark,
        }
    }

    /// What it is, in a sentence.
    pub fn about(&self) -> String {
        match self {
            Goal::Situation(situation) => situation.about.to_owned(),
            Goal::Mark(mark) => format!("The core has just reached its mark {mark}."),
        }
    }

    /// Whether this action leads to it.
    pub fn is_reached(&self, cluster: &Cluster, before: &State, action: Action, after: &State) -> bool {
        match self {
            Goal::Situation(situation) => (situation.arises)(&moment(cluster, before, action, after)),
            Goal::Mark(mark) => marks(cluster, before, action).contains(mark.as_str()),
        }
    }

    /// Whether the last action of a story leads to it.
    pub fn ends(&self, played: &Played) -> bool {
        let last = played.last.as_ref();
        last.is_some_and(|(before, action)| self.is_reached(&played.cluster, before, *action, &played.state))
    }
}

/// What an action makes of a state.
pub fn moment(cluster: &Cluster, before: &State, action: Action, after: &State) -> Moment {
    Moment {
        before: cluster.view(before),
        action,
        after: cluster.view(after),
    }
}

/// The marks that the core reaches in an action. It is computed anew: what is looked up reaches none.
pub fn marks(cluster: &Cluster, state: &State, action: Action) -> BTreeSet<&'static str> {
    let Some(node) = cluster.node(state, action.at) else {
        return BTreeSet::new();
    };
    let parcel: Option<Arc<_>> = match action.what {
        Stimulus::Deliver(id) => Some(cluster.parcel(id)),
        _ => None,
    };
    quorate_marks::take();
    node.react(cluster.rules(), action.what, parcel.as_deref(), action.how);
    quorate_marks::take().into_keys().collect()
}

/// All marks reached on the way of a story.
pub fn marks_of(script: &Script) -> Result<BTreeSet<&'static str>, ScriptError> {
    let mut reached = BTreeSet::new();
    script.play_watched(&mut |cluster, state, action| reached.extend(marks(cluster, state, action)))?;
    Ok(reached)
}
