//! Each situation of a node, each parcel and each record is kept once and named by a number, and what a stimulus does to a node is
//! computed once. The same few situations of a node occur in millions of states of the cluster, so a state takes some
//! hundred bytes, two are compared in no time, and most steps of the search are look-ups. The core is deterministic (its effects
//! depend on nothing but itself and the input), so looking up is the same as running it again.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use quorate_base::{Index, NodeId};

use crate::action::{How, ParcelId, Stimulus};
use crate::ghost::Ghost;
use crate::node::{Event, Node, Outcome, Rules};
use crate::parcel::{Parcel, What};

/// So many outcomes are remembered before all are forgotten, for the memory's sake.
const REMEMBERED: usize = 8_000_000;

/// Everything that occurred.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub nodes: Interned<Node>,
    pub parcels: Interned<Parcel>,
    pub ghosts: Interned<Ghost>,
    known: HashMap<(u32, Stimulus, How), Known, BuildHasherDefault<Quick>>,
    /// How often each kind of thing was computed: nothing that is looked up counts again.
    pub seen: BTreeMap<&'static str, u64>,
    pub renamed: Renamed,
}

/// Numbers under new names, by the number of the trade ([`symmetry`](crate::symmetry)) and the number before.
#[derive(Debug, Default)]
pub(crate) struct Renamed {
    pub nodes: HashMap<(usize, u32), u32, BuildHasherDefault<Quick>>,
    pub ghosts: HashMap<(usize, u32), u32, BuildHasherDefault<Quick>>,
    pub parcels: HashMap<(usize, u32), u32, BuildHasherDefault<Quick>>,
}

/// What a stimulus does to a node.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// It cannot happen, or changes nothing.
    Nothing,
    /// An invariant of the node is broken.
    Broken(Arc<str>),
    /// This.
    Reaction(Arc<Reaction>),
}

/// See [`Outcome`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reaction {
    pub node: u32,
    pub sent: Vec<ParcelId>,
    /// Those that the record takes note of.
    pub events: Vec<Event>,
    /// The log or the commit index is another.
    pub log_changed: bool,
    /// The log on disk is another.
    pub disk_changed: bool,
    /// Whose match has risen in this leader's list, and to where.
    pub matched: Vec<(NodeId, Index)>,
}

impl Tables {
    /// What `stimulus` does to the node of this number.
    pub fn react(&mut self, rules: &Rules, node: u32, stimulus: Stimulus, how: How) -> Known {
        let key = (node, stimulus, how);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let known = self.compute(rules, node, stimulus, how);
        self.known.insert(key, known.clone());
        known
    }

    fn compute(&mut self, rules: &Rules, number: u32, stimulus: Stimulus, how: How) -> Known {
        let before = self.nodes.get(number).clone();
        let parcel = match stimulus {
            Stimulus::Deliver(id) => Some(self.parcels.get(id).clone()),
            _ => None,
        };
        let Outcome { node, events } = match caught(|| before.react(rules, stimulus, parcel.as_deref(), how))
        {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Known::Nothing,
            Err(broken) => return Known::Broken(broken),
        };
        if node == *before && events.is_empty() {
            return Known::Nothing;
        }
        self.count(&before, &node, &events, how);
        let (log, image) = (before.raft.log(), &before.image);
        let log_changed = node.raft.log() != log || node.raft.commit() != before.raft.commit();
        let disk_changed = node.image.entries != image.entries || node.image.base != image.base;
        let matched = risen(&before, &node);
        let mut sent = Vec::new();
        let mut noted = Vec::new();
        for event in events {
            match event {
                Event::Sent(parcel, held) => {
                    sent.push(self.parcels.number(parcel.clone()));
                    if held.is_some() {
                        noted.push(Event::Sent(parcel, held));
                    }
                }
                other => noted.push(other),
            }
        }
        Known::Reaction(Arc::new(Reaction {
            node: self.nodes.number(node),
            sent,
            events: noted,
            log_changed,
            disk_changed,
            matched,
        }))
    }

    fn count(&mut self, before: &Node, after: &Node, events: &[Event], how: How) {
        let mut count = |what| *self.seen.entry(what).or_default() += 1;
        for event in events {
            count(match event {
                Event::Sent(parcel, _) if matches!(parcel.what, What::Snapshot { .. }) => "sends a snapshot",
                Event::Sent(..) => "sends",
                Event::Leads(_) => "leads",
                Event::Commits(..) => "commits",
                Event::Reconfigures(..) if after.raft.config().is_joint() => "enters a joint configuration",
                Event::Reconfigures(..) => "changes the configuration",
                Event::Drops(_) => "truncates its disk",
                Event::Machine(_) => "applies",
                Event::Answers(_, Some(_)) => "serves a read",
                Event::Answers(_, None) => "refuses a read",
                Event::Crashes => "restarts",
            });
        }
        let base = |node: &Node| node.raft.log().base().last.index;
        if base(after) > before.raft.commit() {
            count("installs a snapshot");
        } else if base(after) > base(before) {
            count("compacts");
        }
        if after.writes.len() > 1 {
            count("has two writes on their way");
        }
        if after.cold.len() < before.cold.len() && how != How::Cold {
            count("fills a cold Append");
        }
        if before.raft.has_effects() {
            count("takes two inputs at once");
        }
    }
}

/// Whom a leader believes to hold more of its log than before.
fn risen(before: &Node, after: &Node) -> Vec<(NodeId, Index)> {
    let known: BTreeMap<NodeId, Index> = match before.raft.term() == after.raft.term() {
        true => before.raft.peers().map(|(id, peer)| (id, peer.matched)).collect(),
        false => BTreeMap::new(),
    };
    let was = |id| known.get(&id).copied().unwrap_or(Index::ZERO);
    let now = after.raft.peers().map(|(id, peer)| (id, peer.matched));
    now.filter(|(id, matched)| *matched > was(*id)).collect()
}

/// Values of one kind, each kept once.
#[derive(Debug)]
pub(crate) struct Interned<T> {
    values: Vec<Arc<T>>,
    numbers: HashMap<Arc<T>, u32, BuildHasherDefault<Quick>>,
}

impl<T> Default for Interned<T> {
    fn default() -> Interned<T> {
        Interned {
            values: Vec::new(),
            numbers: HashMap::default(),
        }
    }
}

impl<T: Hash + Eq> Interned<T> {
    pub fn get(&self, number: u32) -> &Arc<T> {
        &self.values[number as usize]
    }

    pub fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).expect("fewer than four billion");
        let value = Arc::new(value);
        self.values.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }
}

/// A quick hash for tables that compare keys anyway: only speed depends on it, never what is found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.write_u64(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        for byte in words.remainder() {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs the checks, and gives the message of the one that fails. The core's own asserts are among them.
pub(crate) fn caught<R>(run: impl FnOnce() -> R) -> Result<R, Arc<str>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    result.map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").into()
}
