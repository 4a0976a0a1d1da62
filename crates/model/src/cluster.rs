//! The model: a state of the cluster, which actions are possible in it (`choices`), and what they lead to. Implements Stateright's `Model` trait, so its
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

mod choices;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_base::NodeId;
use quorate_raft::{Config, Limits, RoleKind};
use stateright::{Model, Property};

use self::choices::{pay, possible};
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
