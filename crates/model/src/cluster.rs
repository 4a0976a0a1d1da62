//! The model: which actions are possible in a state of the cluster, and what they lead to. Implements Stateright's `Model` trait, so its
//! checkers do the searching.
//!
//! # What is left out, and why nothing is lost
//! - A node that is down for a while is one that nothing reaches for a while after its restart, so crash and restart are one action.
//! - The freshness timer fires just before a request for a vote arrives, or not at all: nothing else asks whether the leader is fresh, and the
//!   next sign of life sets the timer anew.
//! - What changes nothing is no action, be it alone or together with the next input. A state that differs from where it came from only in what may still happen is dropped: all
//!   it could do can be done from there.
//! - Answers to leaders and candidates of terms before their receiver's durable one leave the network (`Parcel::is_dead`).
//! - The timer of a haste does not fire: what it asks, an election timeout asks as well.
//! - Write numbers, log epochs and byte totals are counted from now on ([`quorate_raft::Raft::renumber`]).
//!
//! Symmetry among nodes is used only where lease reads are on (`symmetry.rs`): else the core breaks ties by node id (who asks
//! first in a haste, who gives way), so exchanging two ids does not give the same behaviour.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_base::{Index, NodeId};
use quorate_raft::{Config, Limits, RoleKind, Timer};
use stateright::{Model, Property};

use crate::action::{Action, How, ParcelId, Stimulus};
use crate::ghost::{Ghost, check_matching};
use crate::node::{Event, Node, Rules};
use crate::state::{Bounds, MOST, NOBODY, State};
use crate::symmetry::{Trade, original, standing_for};
use crate::tables::{Known, Reaction, Tables, caught};

/// A cluster of cores, and where the search starts.
#[derive(Debug)]
pub struct Cluster {
    rules: Rules,
    first: State,
    starts: Vec<State>,
    /// All ways to trade names, where nodes that only differ by name are not told apart; else none.
    trades: Vec<Trade>,
    tables: Mutex<Tables>,
    halt: Arc<AtomicBool>,
}

/// How large the tables have become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Different situations of a node.
    pub nodes: usize,
    /// Different parcels.
    pub parcels: usize,
    /// Different records.
    pub records: usize,
}

impl Cluster {
    /// Nodes 1 to `size` with empty logs; those in `config` know it.
    pub fn new(size: usize, config: &Config, rules: Rules) -> Cluster {
        assert!(size <= MOST, "there is room for {MOST} nodes");
        let mut tables = Tables::default();
        let mut nodes = [NOBODY; MOST];
        for (slot, id) in nodes[..size].iter_mut().zip(1..) {
            let id = NodeId(id);
            let nobody = Config::default();
            let knows = if config.is_member(id) { config } else { &nobody };
            *slot = tables.nodes.number(Node::join(&rules, id, knows).node);
        }
        let ghost = tables.ghosts.number(Ghost::founded(config.clone()));
        let first = State {
            nodes,
            ghost,
            network: Arc::new([]),
            left: Bounds::ANY,
            violation: None,
        };
        Cluster {
            rules,
            first,
            starts: Vec::new(),
            trades: Vec::new(),
            tables: Mutex::new(tables),
            halt: Arc::default(),
        }
    }

    /// Empty logs, no message, anything may happen.
    pub fn first(&self) -> &State {
        &self.first
    }

    /// The search starts from this state, within these bounds.
    pub fn start_from(&mut self, state: &State, left: Bounds) {
        let state = State {
            left,
            ..state.clone()
        };
        let state = self.standing_for(&mut self.tables(), state);
        self.starts.push(state);
    }

    /// From now on states that differ only in what nodes are called are one. Everybody must be a voter, and everybody remain one.
    pub fn take_names_for_nothing(&mut self) {
        assert!(
            self.rules.leases && self.rules.menu.is_empty(),
            "names mean something in a haste, which only leases rule out, and in changes of the membership"
        );
        self.trades = Trade::all(self.size());
    }

    /// The same where it is wrong.
    #[cfg(test)]
    pub(crate) fn take_names_for_nothing_in_a_haste(&mut self) {
        self.trades = Trade::all(self.size());
    }

    /// The actions of a path as they are if everybody keeps the name he has at its beginning, and the state they lead to.
    pub(crate) fn by_first_names(&self, start: &State, path: Vec<Action>) -> Option<(State, Vec<Action>)> {
        let mut state = start.clone();
        let mut told = Vec::new();
        for action in path {
            let mut tables = self.tables();
            let action = match self.trades.is_empty() {
                true => action,
                false => {
                    let (_, at) = standing_for(&mut tables, &self.trades, &state);
                    original(&mut tables, &self.trades, at, action)
                }
            };
            state = self.go(&mut tables, &state, action)?;
            told.push(action);
        }
        Some((state, told))
    }

    /// Set to end a search: no state has any action then.
    pub fn halt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.halt)
    }

    /// What was computed so far, by kind.
    pub fn seen(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.tables().seen.clone()
    }

    /// How large the tables are.
    pub fn sizes(&self) -> Sizes {
        let tables = self.tables();
        Sizes {
            nodes: tables.nodes.len(),
            parcels: tables.parcels.len(),
            records: tables.ghosts.len(),
        }
    }

    /// The rules of this cluster.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables
            .lock()
            .expect("nothing panics while it holds the tables")
    }

    /// A node's situation; `None` if there is no such node.
    pub fn node(&self, state: &State, id: NodeId) -> Option<Arc<Node>> {
        let slot = usize::try_from(id.0).ok()?.checked_sub(1)?;
        let number = state.nodes.get(slot).filter(|number| **number != NOBODY)?;
        Some(Arc::clone(self.tables().nodes.get(*number)))
    }

    /// Whether anybody leads.
    pub fn is_led(&self, state: &State) -> bool {
        let ids = (1..=self.size() as u64).map(NodeId);
        let mut nodes = ids.filter_map(|id| self.node(state, id));
        nodes.any(|node| node.raft.role() == RoleKind::Leader)
    }

    /// The record.
    pub fn ghost(&self, state: &State) -> Arc<Ghost> {
        Arc::clone(self.tables().ghosts.get(state.ghost))
    }

    /// Everything on the network.
    pub fn network(&self, state: &State) -> Vec<(ParcelId, Arc<crate::parcel::Parcel>)> {
        let tables = self.tables();
        let parcel = |id: &ParcelId| (*id, Arc::clone(tables.parcels.get(*id)));
        state.network.iter().map(parcel).collect()
    }

    /// A parcel by its number.
    pub(crate) fn parcel(&self, id: ParcelId) -> Arc<crate::parcel::Parcel> {
        Arc::clone(self.tables().parcels.get(id))
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        let there = |number: &&u32| **number != NOBODY;
        self.first.nodes.iter().filter(there).count()
    }

    /// All that can happen in a state, the bounds aside, and whether or not anything comes of it.
    pub(crate) fn possible(&self, state: &State) -> Vec<(NodeId, Stimulus)> {
        let tables = self.tables();
        let all = possible(&tables, &self.rules, state).into_iter();
        all.map(|(_, at, what)| (at, what)).collect()
    }

    /// Whether this is an action of the model in a state that [`possible`](Cluster::possible) speaks of.
    pub(crate) fn offers(&self, state: &State, action: Action) -> bool {
        let Action { at, what, .. } = action;
        let number = state.nodes[(at.0 - 1) as usize];
        let mut actions = Vec::new();
        self.ways(&mut self.tables(), state.left, number, at, what, &mut actions);
        actions.contains(&action)
    }

    /// The same state with an empty network: all that was on its way is lost for good.
    pub fn without_network(&self, state: &State) -> State {
        State {
            network: Arc::new([]),
            ..state.clone()
        }
    }

    /// In which ways something may happen to a node within the bounds: in none if nothing comes of it.
    fn ways(
        &self,
        tables: &mut Tables,
        left: Bounds,
        number: u32,
        at: NodeId,
        what: Stimulus,
        actions: &mut Vec<Action>,
    ) {
        let ways = [How::Settled, How::SlowDisk, How::Batched, How::Cold];
        // A leader whose disk hangs chooses a successor, and ids decide between equals.
        let hangs = what == Stimulus::Stall && !self.trades.is_empty();
        if hangs
            || pay(tables, left, what, How::Settled).is_none()
            || matches!(
                tables.react(&self.rules, number, what, How::Settled),
                Known::Nothing
            )
        {
            return;
        }
        // Effects that were not taken name nodes.
        let can_be = |how: &How| *how != How::Batched || self.trades.is_empty();
        let ways = ways
            .into_iter()
            .filter(|how| can_be(how) && pay(tables, left, what, *how).is_some());
        actions.extend(ways.map(|how| Action { at, what, how }));
    }

    /// What a node sends when this happens to it, in order.
    pub(crate) fn sent(&self, state: &State, action: Action) -> Vec<ParcelId> {
        let number = state.nodes[(action.at.0 - 1) as usize];
        match self.tables().react(&self.rules, number, action.what, action.how) {
            Known::Reaction(reaction) => reaction.sent.clone(),
            Known::Nothing | Known::Broken(_) => Vec::new(),
        }
    }

    /// An action in words, which [`read`](Cluster::read) takes back in the state where it happens.
    pub fn write(&self, action: &Action) -> String {
        let parcel = |id| self.tables().parcels.get(id).to_string();
        format!("n{} {}{}", action.at, action.what.words(parcel), action.how)
    }

    /// The action of these words that is possible in `state`.
    pub fn read(&self, state: &State, words: &str) -> Option<Action> {
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.into_iter().find(|action| self.write(action) == words)
    }
}

impl Cluster {
    /// What an action leads to, everybody keeping his name; `None` if it makes no difference.
    pub(crate) fn go(&self, tables: &mut Tables, state: &State, action: Action) -> Option<State> {
        let slot = (action.at.0 - 1) as usize;
        let left = pay(tables, state.left, action.what, action.how)?;
        let number = state.nodes[slot];
        let known = tables.react(&self.rules, number, action.what, action.how);
        let reaction = match known {
            Known::Nothing => return None,
            Known::Broken(broken) => {
                return Some(State {
                    left,
                    violation: Some(broken),
                    ..state.clone()
                });
            }
            Known::Reaction(reaction) => reaction,
        };
        // What makes no difference is no case of its own.
        if action.how != How::Settled
            && let Known::Reaction(usual) = tables.react(&self.rules, number, action.what, How::Settled)
            && usual == reaction
        {
            return None;
        }
        let mut next = State {
            left,
            ..state.clone()
        };
        next.nodes[slot] = reaction.node;
        match caught(|| note(tables, &next, action, &reaction)) {
            Ok(Some(ghost)) => next.ghost = tables.ghosts.number(ghost),
            Ok(None) => {}
            Err(broken) => next.violation = Some(broken),
        }
        if let Some(network) = send(tables, state, &next, &reaction) {
            next.network = network;
        }
        (!next.is_like(state) || next.violation.is_some()).then_some(next)
    }

    fn standing_for(&self, tables: &mut Tables, state: State) -> State {
        match self.trades.is_empty() {
            true => state,
            false => standing_for(tables, &self.trades, &state).0,
        }
    }
}

/// What an action takes from the bounds; `None` if they do not allow it.
fn pay(tables: &Tables, left: Bounds, what: Stimulus, how: How) -> Option<Bounds> {
    let mut left = left;
    let mut take = |from: fn(&mut Bounds) -> &mut u8| {
        let of = from(&mut left);
        if *of == u8::MAX {
            return Some(());
        }
        *of = of.checked_sub(1)?;
        Some(())
    };
    match what {
        // Each opens a round, so that these alone could go on for ever.
        Stimulus::Deliver(id) if tables.parcels.get(id).asks_for_a_read() => take(|b| &mut b.reads)?,
        Stimulus::Deliver(_) | Stimulus::Persist(_) | Stimulus::Fill(_) => {}
        Stimulus::Fire(Timer::Election) => take(|b| &mut b.campaigns)?,
        Stimulus::Fire(_) => take(|b| &mut b.ticks)?,
        Stimulus::Propose(_) => take(|b| &mut b.proposals)?,
        Stimulus::Read(_) => take(|b| &mut b.reads)?,
        Stimulus::Restart(_) => take(|b| &mut b.crashes)?,
        Stimulus::Compact(_) => take(|b| &mut b.compactions)?,
        Stimulus::Flush => take(|b| &mut b.flushes)?,
        Stimulus::Change(_) => take(|b| &mut b.changes)?,
        Stimulus::Transfer(_) => take(|b| &mut b.transfers)?,
        Stimulus::Stall
        | Stimulus::Hint
        | Stimulus::Reachable(_)
        | Stimulus::NotSent(..)
        | Stimulus::SnapshotLost(_) => take(|b| &mut b.reports)?,
    }
    match how {
        How::Settled => {}
        How::SlowDisk => take(|b| &mut b.slow)?,
        How::Batched => take(|b| &mut b.batched)?,
        How::Cold => take(|b| &mut b.cold)?,
    }
    Some(left)
}

/// What can happen to one node by itself, the bounds aside.
fn stimuli(node: &Node, others: &[NodeId], ghost: &Ghost, rules: &Rules) -> Vec<Stimulus> {
    let raft = &node.raft;
    let leads = raft.role() == RoleKind::Leader;
    let mut all = Vec::new();
    let timers = node.timers().filter(|timer| *timer != Timer::Fresh);
    all.extend(timers.map(Stimulus::Fire));
    let writes = node.writes.len() as u8;
    all.extend((1..=writes).map(Stimulus::Persist));
    all.extend((0..=writes).map(Stimulus::Restart));
    let waiting: BTreeSet<NodeId> = node.cold.iter().map(|cold| cold.to).collect();
    all.extend(waiting.into_iter().map(Stimulus::Fill));
    if leads {
        all.push(Stimulus::Propose(ghost.proposed.saturating_add(1)));
        all.extend((0..rules.menu.len() as u8).map(Stimulus::Change));
        let voters = others.iter().filter(|id| raft.config().voters.contains(id));
        all.extend(voters.map(|id| Stimulus::Transfer(Some(*id))));
        for (to, peer) in raft.peers() {
            let sent = peer.matched.next().0..peer.next.0;
            all.extend(sent.map(|first| Stimulus::NotSent(to, Index(first))));
            if peer.pace == "snapshot" {
                all.push(Stimulus::SnapshotLost(to));
            }
        }
    } else if raft.leader().is_some() {
        all.push(Stimulus::Hint);
    }
    if raft.leader().is_some() {
        all.push(Stimulus::Read(ghost.asked.saturating_add(1)));
    }
    let base = raft.log().base().last.index.0;
    let applied = node.machine.applied.0;
    all.extend(
        (0..2)
            .filter(|keep| applied > base + keep)
            .map(|keep| Stimulus::Compact(keep as u8)),
    );
    if node.machine != node.image.machine {
        all.push(Stimulus::Flush);
    }
    // The driver says so only while a write is out.
    if writes > 0 {
        all.push(Stimulus::Stall);
    }
    all.extend(others.iter().map(|id| Stimulus::Reachable(*id)));
    all
}

/// What can happen to which node, which has this number, the bounds aside.
fn possible(tables: &Tables, rules: &Rules, state: &State) -> Vec<(u32, NodeId, Stimulus)> {
    let present = state.nodes.iter().copied().filter(|number| *number != NOBODY);
    let present: Vec<(u32, &Node)> = present
        .map(|number| (number, &**tables.nodes.get(number)))
        .collect();
    let ghost = tables.ghosts.get(state.ghost);
    let mut all = Vec::new();
    for (number, node) in &present {
        let at = node.id();
        let others = present.iter().map(|(_, node)| node.id());
        let others: Vec<NodeId> = others.filter(|id| *id != at).collect();
        let arriving = state
            .network
            .iter()
            .filter(|id| tables.parcels.get(**id).to == at);
        let arriving = arriving.map(|id| Stimulus::Deliver(*id));
        let own = stimuli(node, &others, ghost, rules);
        all.extend(arriving.chain(own).map(|what| (*number, at, what)));
    }
    all
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.starts.clone()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() || self.halt.load(Ordering::Relaxed) {
            return;
        }
        let mut tables = self.tables();
        for (number, at, what) in possible(&tables, &self.rules, state) {
            self.ways(&mut tables, state.left, number, at, what, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut tables = self.tables();
        let next = self.go(&mut tables, state, action)?;
        if self.trades.is_empty() || next.violation.is_some() {
            return Some(next);
        }
        let next = self.standing_for(&mut tables, next);
        (!next.is_like(state)).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("S1 to S14", |_, state: &State| {
            state.violation.is_none()
        })]
    }

    fn format_action(&self, action: &Action) -> String {
        self.write(action)
    }
}

/// The record after a reaction, if it is another; panics with the invariant that does not hold.
fn note(tables: &Tables, next: &State, action: Action, reaction: &Reaction) -> Option<Ghost> {
    let counted = match action.what {
        Stimulus::Propose(_) | Stimulus::Read(_) => true,
        _ => !reaction.events.is_empty(),
    };
    if !counted && !reaction.log_changed && !reaction.disk_changed && reaction.matched.is_empty() {
        return None;
    }
    let before = tables.ghosts.get(next.ghost);
    let present = next.nodes.iter().filter(|number| **number != NOBODY);
    let nodes: Vec<&Node> = present.map(|number| &**tables.nodes.get(*number)).collect();
    let node = tables.nodes.get(reaction.node);
    let mut ghost = Ghost::clone(before);
    match action.what {
        Stimulus::Propose(payload) => ghost.proposed = payload,
        Stimulus::Read(token) => ghost.read_begun(action.at, token),
        _ => {}
    }
    for event in &reaction.events {
        ghost.note(&nodes, node, event);
        if let Event::Reconfigures(at, was) = event {
            ghost.check_change(node, *at, was);
        }
    }
    if reaction.log_changed {
        ghost.check_base(node);
        ghost.check_latest(node);
        for other in nodes.iter().filter(|other| other.id() != node.id()) {
            check_matching(node, other);
        }
    }
    ghost.check_matches(&nodes, node, &reaction.matched, reaction.disk_changed);
    if reaction.log_changed || reaction.disk_changed || ghost.len() > before.len() {
        ghost.check_quorums_hold_c(&nodes);
    }
    (ghost != **before).then_some(ghost)
}

/// The network after a reaction, if it is another.
fn send(tables: &Tables, state: &State, next: &State, reaction: &Reaction) -> Option<Arc<[ParcelId]>> {
    let node = |number: u32| tables.nodes.get(number);
    let receiver = |id: NodeId| {
        let number = next
            .nodes
            .get(id.0 as usize - 1)
            .filter(|number| **number != NOBODY);
        number.map(|number| node(*number))
    };
    let lives = |id: &ParcelId| {
        let parcel = tables.parcels.get(*id);
        receiver(parcel.to).is_some_and(|receiver| !parcel.is_dead(&receiver.image))
    };
    let is_new = |id: &&ParcelId| state.network.binary_search(id).is_err() && lives(id);
    let new: BTreeSet<ParcelId> = reaction.sent.iter().filter(is_new).copied().collect();
    let after = node(reaction.node);
    let before = node(state.nodes[after.id().0 as usize - 1]);
    if before.image.hard.term < after.image.hard.term {
        let all = state.network.iter().filter(|id| lives(id)).copied();
        let all: BTreeSet<ParcelId> = all.chain(new).collect();
        return Some(all.into_iter().collect());
    }
    if new.is_empty() {
        return None;
    }
    let mut all: Vec<ParcelId> = state.network.iter().copied().chain(new).collect();
    all.sort_unstable();
    Some(all.into())
}

/// The rules that most models have: one entry an Append, so that a loss can fall between any two.
pub fn usual_rules() -> Rules {
    Rules {
        limits: Limits {
            max_append_bytes: 17,
            ..Limits::default()
        },
        menu: Vec::new(),
        forgetful: false,
        leases: false,
    }
}
