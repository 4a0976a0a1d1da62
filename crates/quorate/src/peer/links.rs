//! The queues to the other members and the tasks that serve them: members come, move and leave while the node runs. What a connection does
//! is in `dial`; who the members are is the driver's to say.
//!
//! Beside the members there may be *guests*: nodes of this cluster that connected here and that this node does not know, since its log lags
//! behind, or since it has only just joined. They are answered at the address that they name, for as long as they stay connected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_base::{Index, NodeId, Term};
use quorate_node::handshake::{Hello, Local, Papers, Refusal, Welcome, protocol_of};
use quorate_node::message::PeerMessage;
use quorate_raft::Config;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::asks::{AskRoad, AskRoads, Asks};
use super::dial::Dialer;
use super::outbox::{Item, Outbox};
use super::registry::Registry;
use super::{Jitter, Lane, vital};
use crate::metrics::Metrics;
use crate::transport::Transport;
use crate::work::Reports;

/// Guests at the same time.
const MAX_GUESTS: usize = 64;

/// What this node says of itself to its peers.
#[derive(Clone, Debug)]
pub(crate) struct Myself {
    pub id: NodeId,
    pub cluster: u64,
    /// The features it claims to know; with 1 it speaks protocol 1.
    pub features: u32,
    /// Which start of its data directory this is.
    pub boot: u64,
    /// What it shows of its data directory.
    pub papers: Papers,
}

impl Myself {
    /// The greeting for a connection to `to`.
    pub(crate) fn greet(&self, to: NodeId, lane: Lane) -> Hello {
        let hello = Hello {
            protocol: protocol_of(self.features),
            features: self.features,
            cluster: self.cluster,
            from: self.id,
            to,
            boot: self.boot,
            lane: lane as u8,
            papers: Some(self.papers.clone()),
        };
        match hello.protocol {
            1 => hello.without_papers(),
            _ => hello,
        }
    }
}

/// What every dialer of a node shares.
pub(crate) struct Dialing {
    pub myself: Arc<Myself>,
    pub asks: Arc<Asks>,
    pub metrics: Arc<Metrics>,
    pub reports: Reports,
    pub registry: Arc<Registry>,
    pub transport: Arc<dyn Transport>,
}

/// See the module. Clones share the same queues.
#[derive(Clone)]
pub(crate) struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    me: NodeId,
    peers: BTreeMap<NodeId, Link>,
    /// Held by the dialers of a peer, by lane: one that left and comes again is dialled when the farewell is over.
    turns: BTreeMap<NodeId, [Arc<Turn>; 2]>,
    config: Arc<Config>,
    /// By a committed configuration.
    removed: watch::Sender<BTreeSet<NodeId>>,
    /// `None` before the network has started, and after it has ended.
    dialing: Option<Arc<Dialing>>,
    tasks: JoinSet<()>,
}

/// Keeps two dialers from working on one lane.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// The queues to one peer.
struct Link {
    lanes: [Arc<Outbox>; 2],
    /// `host:port` as the driver knows them.
    told: Vec<String>,
    /// As the peer itself names them: the configuration here may be older than its last move.
    shown: Vec<String>,
    /// Both, to be tried in turn.
    addresses: watch::Sender<Vec<String>>,
    /// Rung when the peer has connected here: it is worth trying at once.
    hint: Arc<Notify>,
    /// True: it is no member any more, and the tasks end.
    leaving: watch::Sender<bool>,
    guest: bool,
}

impl Links {
    /// Of the member `me`, without anybody to talk to.
    pub(crate) fn new(me: NodeId) -> Links {
        let state = State {
            me,
            ..State::default()
        };
        Links(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code runs under this lock that could leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are the members (this node among them or not) with `host:port` of their peer listeners, `config` is what those are
    /// told who want to join, and `removed` are those that a *committed* configuration has removed. Connections to members that stay are left
    /// alone; those to members that left end when what is queued has been sent, or after a second.
    pub(crate) fn set_members(
        &self,
        members: BTreeMap<NodeId, Vec<String>>,
        config: Config,
        removed: BTreeSet<NodeId>,
    ) {
        let mut state = self.lock();
        while state.tasks.try_join_next().is_some() {}
        state.config = Arc::new(config);
        let me = state.me;
        state.peers.retain(|id, link| {
            let stays = members.contains_key(id) || (link.guest && !removed.contains(id));
            if !stays {
                link.leaving.send_replace(true);
            }
            stays
        });
        let news = *state.removed.borrow() != removed;
        if news {
            if let Some(dialing) = &state.dialing {
                dialing.registry.forget(&removed);
            }
            state.removed.send_replace(removed);
        }
        let State { turns, peers, .. } = &mut *state;
        turns.retain(|id, turns| peers.contains_key(id) || turns.iter().any(|turn| turn.try_lock().is_err()));
        for (id, addresses) in members.into_iter().filter(|(id, _)| *id != me) {
            match state.peers.get_mut(&id) {
                Some(link) => {
                    link.guest = false;
                    link.told = addresses;
                    link.publish_addresses();
                }
                None => state.add(id, addresses, false),
            }
        }
    }

    /// Begins to dial. Whoever is added later is dialled at once.
    pub(crate) fn begin(&self, dialing: Dialing) {
        let mut state = self.lock();
        dialing.registry.forget(&state.removed.borrow());
        state.dialing = Some(Arc::new(dialing));
        let State {
            peers,
            turns,
            dialing: Some(dialing),
            tasks,
            ..
        } = &mut *state
        else {
            unreachable!("it was set a moment ago")
        };
        for (id, link) in peers {
            link.dial(*id, turns.entry(*id).or_default(), dialing, tasks);
        }
    }

    /// Ends all connections that this node has made as soon as what is queued has been sent, or after a second.
    pub(crate) async fn farewell(&self) {
        let mut tasks = {
            let mut state = self.lock();
            state.dialing = None;
            for link in state.peers.values() {
                link.leaving.send_replace(true);
            }
            std::mem::take(&mut state.tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    /// Ends all connections that this node has made.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.dialing = None;
        state.tasks = JoinSet::new();
    }

    /// Queues a message, or gives it back.
    #[expect(
        clippy::result_large_err,
        reason = "what does not fit is given back, and rarely"
    )]
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) -> Result<(), PeerMessage> {
        let lane = match message {
            // The beginning travels before the pieces, on the same connection.
            PeerMessage::SnapshotBegin { .. } | PeerMessage::SnapshotChunk { .. } => Lane::Bulk,
            _ => Lane::Control,
        };
        let state = self.lock();
        let Some(link) = state.peers.get(&to) else {
            return Err(message);
        };
        link.lanes[lane as usize]
            .push(Item::Message(message))
            .map_err(|item| match item {
                Item::Message(message) => message,
                Item::Ask(_) => unreachable!("a message went in"),
            })
    }

    /// Notes for good that `term` is durable at a peer, and that it has acknowledged the *committed* entries up to `matched`: it will not be
    /// let in with less.
    pub(crate) fn note(&self, peer: NodeId, term: Term, matched: Index) {
        let dialing = self.lock().dialing.clone();
        if let Some(dialing) = dialing {
            dialing.registry.note(peer, term, matched);
        }
    }

    /// Whether somebody who says this may be talked to, as far as it can be told without having met it.
    pub(crate) fn check(&self, hello: &Hello, myself: &Myself) -> Result<(), Refusal> {
        let state = self.lock();
        hello.check(&Local {
            cluster: myself.cluster,
            me: myself.id,
            features: myself.features,
            level: state.config.level,
            leases: myself.papers.leases,
            removed: &state.removed.borrow(),
        })
    }

    /// Resolves when this one has been removed.
    pub(crate) async fn removed(&self, peer: NodeId) {
        let mut removed = self.lock().removed.subscribe();
        let gone = removed.wait_for(|removed| removed.contains(&peer)).await.is_ok();
        if !gone {
            // Without its sender everything ends.
            std::future::pending().await
        }
    }

    /// What one who wants to join is told.
    pub(crate) fn welcome(&self, myself: &Myself) -> Result<Welcome, Refusal> {
        let config = self.lock().config.clone();
        if config.voters.is_empty() {
            return Err(Refusal::NotJoined);
        }
        Ok(Welcome {
            cluster: myself.cluster,
            member: myself.id,
            config: (*config).clone(),
        })
    }

    /// Somebody was let in: it is worth dialling it at once, and if it was not known it is from now on.
    pub(crate) fn arrived(&self, hello: &Hello) {
        let mut state = self.lock();
        if let Some(link) = state.peers.get_mut(&hello.from) {
            if let Some(papers) = &hello.papers {
                link.shown.clone_from(&papers.addresses);
                link.publish_addresses();
            }
            link.hint.notify_one();
            return;
        }
        let guests = state.peers.values().filter(|link| link.guest).count();
        match &hello.papers {
            Some(papers) if guests < MAX_GUESTS && !papers.addresses.is_empty() => {
                state.add(hello.from, papers.addresses.clone(), true);
            }
            _ => {}
        }
    }

    /// The connection that somebody had made here has ended. A guest is gone with it.
    pub(crate) fn departed(&self, peer: NodeId) {
        let mut state = self.lock();
        if state.peers.get(&peer).is_some_and(|link| link.guest)
            && let Some(link) = state.peers.remove(&peer)
        {
            link.leaving.send_replace(true);
        }
    }
}

impl State {
    fn add(&mut self, id: NodeId, addresses: Vec<String>, guest: bool) {
        let link = Link {
            lanes: Default::default(),
            addresses: watch::channel(addresses.clone()).0,
            told: addresses,
            shown: Vec::new(),
            hint: Arc::default(),
            leaving: watch::channel(false).0,
            guest,
        };
        if let Some(dialing) = &self.dialing {
            let turns = self.turns.entry(id).or_default();
            link.dial(id, turns, dialing, &mut self.tasks);
        }
        self.peers.insert(id, link);
    }
}

impl Link {
    fn publish_addresses(&self) {
        let mut addresses = self.told.clone();
        let shown = self.shown.iter().filter(|shown| !self.told.contains(shown));
        addresses.extend(shown.cloned());
        self.addresses.send_if_modified(|before| {
            let moved = *before != addresses;
            *before = addresses;
            moved
        });
    }

    fn dial(&self, peer: NodeId, turns: &[Arc<Turn>; 2], shared: &Arc<Dialing>, tasks: &mut JoinSet<()>) {
        for lane in [Lane::Control, Lane::Bulk] {
            let dialer = Dialer {
                peer,
                lane,
                turn: turns[lane as usize].clone(),
                addresses: self.addresses.subscribe(),
                leaving: self.leaving.subscribe(),
                outbox: self.lanes[lane as usize].clone(),
                hint: self.hint.clone(),
                metrics: shared.metrics.peer(peer),
                jitter: Jitter(shared.myself.boot ^ shared.myself.papers.incarnation ^ peer.0 | 1),
                shared: shared.clone(),
            };
            match lane {
                Lane::Control => tasks.spawn(vital(dialer.run_control(), shared.reports.clone())),
                Lane::Bulk => tasks.spawn(vital(dialer.run_bulk(), shared.reports.clone())),
            };
        }
    }
}

impl AskRoads for Links {
    fn road(&self, to: NodeId) -> Option<Arc<dyn AskRoad>> {
        let state = self.lock();
        let link = state.peers.get(&to)?;
        Some(link.lanes[Lane::Control as usize].clone())
    }
}
