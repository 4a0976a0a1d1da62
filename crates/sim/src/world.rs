//! The simulated world: virtual time, the queue of everything that will happen, and what each happening does. One thread, one
//! seed, no clock: the order of events is the order of the queue, by time and then by number.
//!
//! What nodes do in one step is in [`turn`](crate::turn), faults are in [`nemesis`](crate::nemesis), requests in
//! [`clients`](crate::clients), and the end of a run in [`finish`](crate::finish).

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::{Index, NodeId};
use quorate_node::event::{Event, Token};
use quorate_node::message::PeerMessage;
use quorate_raft::{Config, RoleKind, WriteId};

use crate::clients::Client;
use crate::coverage::{Coverage, Kind};
use crate::failure::Failure;
use crate::ghost::Ghost;
use crate::history::{Call, Outcome};
use crate::host::Host;
use crate::impostors::Masquerade;
use crate::leases::Origin;
use crate::machines::new_host;
use crate::nemesis::{Flapping, Restore};
use crate::net::{Network, Pair};
use crate::operator::{Operator, about};
use crate::params::{MS, Params, SEC};
use crate::rng::Rng;
use crate::steering::Lurking;
use crate::survivors::{Excuse, FOREVER};
use crate::trace::{Nanos, Number, Trace, View};
use crate::watches::WatchClient;

/// Something that will happen. Those with a run are void once that process has ended.
pub(crate) enum Happening {
    /// A message arrives.
    Arrival {
        pair: Pair,
        run: u64,
        connection: u64,
        message: (Number, PeerMessage),
    },
    /// A node learns that a link is up or down.
    LinkNews { pair: Pair, run: u64, up: bool },
    /// A node tries to connect.
    Dial { pair: Pair },
    /// A node's deadline.
    Wake { id: NodeId, run: u64 },
    /// Effects of earlier steps are taken.
    Drain { id: NodeId, run: u64 },
    /// The disk thread's work takes effect.
    DiskTurn { id: NodeId, run: u64 },
    /// The disk thread is free again.
    DiskFree { id: NodeId, run: u64 },
    /// The state machine's work is done.
    MachineTurn { id: NodeId, run: u64 },
    /// The flusher's job is done.
    JobTurn { id: NodeId, run: u64 },
    /// A completion reaches the node.
    Completion { id: NodeId, run: u64, event: Event },
    /// A read of a node's own state reaches it.
    LocalRead { id: NodeId, run: u64, token: Token },
    /// The watch hub takes in what there is.
    HubTurn { id: NodeId, run: u64 },
    /// History is read for the watch hub.
    HistoryTurn { id: NodeId, run: u64 },
    /// The office over leases looks at what is the case; void if another turn was set since.
    LeaseTurn { id: NodeId, run: u64, turn: u64 },
    /// A client's renewal of a lease arrives.
    Renewal {
        id: NodeId,
        run: u64,
        origin: Origin,
        lease: i64,
    },
    /// The answer to a renewal arrives, or its client gives up.
    Renewed { origin: Origin, outcome: Outcome },
    /// A client asks.
    Client(usize),
    /// A watch client takes what it is told.
    Watch(usize),
    /// A write of a stalled disk has been out for long.
    StallCheck { id: NodeId, run: u64, write: WriteId },
    /// The roster is written to disk.
    RosterSave { id: NodeId, run: u64 },
    /// The operator's turn.
    Operator,
    /// A machine comes up for a new member.
    Enlist(NodeId),
    /// An impostor may be let loose.
    Masquerade,
    /// An impostor goes.
    Unmask,
    /// A machine is destroyed.
    Destroy(NodeId),
    /// A process starts.
    Start(NodeId),
    /// The moment of a planned fault.
    Fault(usize),
    /// A disk in doubt is put to the test.
    Suspect(NodeId),
    /// Somebody sees to it that a member with a damaged disk is replaced.
    Replace(NodeId),
    /// What lies in wait is looked at.
    Spring,
    /// Links that come and go do so.
    Flap(Flapping),
    /// A fault ends.
    Restore(Restore),
}

impl Happening {
    /// Whose process must be running, and which.
    fn process(&self) -> Option<(NodeId, u64)> {
        match self {
            Happening::Arrival { pair, run, .. } => Some((pair.1, *run)),
            Happening::LinkNews { pair, run, .. } => Some((pair.0, *run)),
            Happening::Wake { id, run }
            | Happening::Drain { id, run }
            | Happening::DiskTurn { id, run }
            | Happening::DiskFree { id, run }
            | Happening::MachineTurn { id, run }
            | Happening::JobTurn { id, run }
            | Happening::LocalRead { id, run, .. }
            | Happening::StallCheck { id, run, .. }
            | Happening::RosterSave { id, run }
            | Happening::HubTurn { id, run }
            | Happening::HistoryTurn { id, run }
            | Happening::LeaseTurn { id, run, .. }
            | Happening::Renewal { id, run, .. }
            | Happening::Completion { id, run, .. } => Some((*id, *run)),
            _ => None,
        }
    }

    /// Whether it is looked at last after a pause: what came meanwhile waits in sockets and queues, and timers come after it.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Happening::Wake { .. } | Happening::Drain { .. })
    }
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub client: usize,
    pub asked: Nanos,
    pub call: usize,
    /// The length of C when it was asked.
    pub floor: Index,
}

/// Everything.
pub struct World {
    pub(crate) params: Params,
    /// The configuration that the cluster was founded with.
    pub(crate) founding: Config,
    pub(crate) rng: Rng,
    pub(crate) now: Nanos,
    next: u64,
    /// Boxed, since a tree moves what it holds to and fro.
    queue: BTreeMap<(Nanos, u64), Box<Happening>>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) ghost: Ghost,
    pub(crate) net: Network,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) clients: Vec<Client>,
    /// Absent while it has its turn.
    pub(crate) watch_clients: Vec<Option<WatchClient>>,
    /// How many watchers were asked for, and how much they were told.
    pub(crate) watch_requests: u64,
    pub(crate) watch_responses: u64,
    pub(crate) calls: Vec<Call>,
    pub(crate) pending: BTreeMap<(NodeId, u64, Token), Pending>,
    pub(crate) last_leader: Option<NodeId>,
    pub(crate) operator: Operator,
    /// The last committed configuration that was looked at.
    pub(crate) config_seen: (Index, Config),
    /// Impostors that are reached instead of the members they claim to be.
    pub(crate) stand_ins: BTreeMap<NodeId, NodeId>,
    /// Nobody looks at what peers have shown before: only to show what that is good for.
    pub(crate) blind: bool,
    /// Leaders answer renewals without having their leadership confirmed: only to show what that is good for.
    pub(crate) hasty: bool,
    /// The kinds of fault that must have been met before the run ends.
    pub(crate) wanted: Vec<Kind>,
    /// Planned faults that wait for a state.
    pub(crate) lurking: Vec<Lurking>,
    /// The impostor of the moment, and how many there were.
    pub(crate) masquerade: Option<Masquerade>,
    pub(crate) impostors: u64,
    /// Which incarnation and start of a peer a machine has durably seen last.
    pub(crate) recorded: BTreeMap<(NodeId, NodeId), (u64, u64)>,
    /// The clients ask nothing by themselves.
    pub(crate) silent: bool,
    /// No more faults and requests: the run is being ended.
    pub(crate) healing: bool,
    /// Those who have to go on alone, while everything else is broken for good.
    pub(crate) survivors: Option<BTreeSet<NodeId>>,
    /// What waits for machines that are paused without end, and for the end of the others' absence.
    pub(crate) parked: Vec<Happening>,
    /// How many things have happened.
    pub(crate) steps: u64,
    /// Why nothing was demanded of the survivors.
    pub(crate) excused: Option<Excuse>,
}

impl World {
    /// The world of these parameters, at its beginning.
    pub fn new(params: Params, view: View) -> World {
        let mut rng = Rng::new(params.seed ^ 0x0077_6f72_6c64);
        let ids: Vec<NodeId> = (1..=params.nodes).map(NodeId).collect();
        let founding = found(&ids, params.features);
        let hosts = ids
            .iter()
            .map(|id| (*id, new_host(&params, *id, &mut rng)))
            .collect();
        let net = Network::new(&ids, params.net.clone(), rng.fork());
        let operator = Operator::new(rng.fork(), params.nodes);
        let clients = (0..params.clients)
            .map(|number| Client::new(number, rng.fork()))
            .collect();
        let watch_clients = (0..params.watch_clients)
            .map(|_| Some(WatchClient::new(rng.fork())))
            .collect();
        let mut world = World {
            ghost: Ghost::new(founding.clone()),
            trace: Trace::new(view),
            coverage: Coverage::default(),
            now: 0,
            next: 0,
            queue: BTreeMap::new(),
            calls: Vec::new(),
            pending: BTreeMap::new(),
            last_leader: None,
            silent: false,
            healing: false,
            survivors: None,
            parked: Vec::new(),
            excused: None,
            steps: 0,
            config_seen: (Index::ZERO, founding.clone()),
            founding,
            operator,
            stand_ins: BTreeMap::new(),
            recorded: BTreeMap::new(),
            blind: false,
            hasty: false,
            wanted: params.planned(),
            lurking: Vec::new(),
            masquerade: None,
            impostors: 0,
            rng,
            net,
            hosts,
            clients,
            watch_clients,
            watch_requests: 0,
            watch_responses: 0,
            params,
        };
        world.trace.event(0, None, format_args!("{:?}", world.params));
        for id in ids {
            let at = world.rng.within(0..50 * MS);
            world.at(at, Happening::Start(id));
        }
        for client in 0..world.clients.len() {
            let at = world.rng.within(0..SEC);
            world.at(at, Happening::Client(client));
        }
        for client in 0..world.watch_clients.len() {
            let at = world.rng.within(0..SEC);
            world.at(at, Happening::Watch(client));
        }
        for number in 0..world.params.plan.len() {
            world.at(world.params.plan[number].at, Happening::Fault(number));
        }
        if let Some(at) = world.first_turn() {
            world.at(at, Happening::Operator);
        }
        for pair in world.net.pairs() {
            let at = world.rng.within(0..100 * MS);
            world.at(at, Happening::Dial { pair });
        }
        world
    }

    /// Lets something happen at a time.
    pub(crate) fn at(&mut self, time: Nanos, happening: Happening) {
        self.next += 1;
        self.queue
            .insert((time.max(self.now), self.next), Box::new(happening));
    }

    /// Lets something happen after a while.
    pub(crate) fn after(&mut self, delay: Nanos, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    /// This moment in the total order of everything.
    pub(crate) fn moment(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn host(&mut self, id: NodeId) -> &mut Host {
        self.hosts.get_mut(&id).expect("a member has a machine")
    }

    /// The nodes whose processes run.
    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.hosts
            .values()
            .filter(|host| host.process.is_some() && !host.impostor)
            .map(|host| host.id)
            .collect()
    }

    /// The running leader of the highest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let rafts = self
            .hosts
            .values()
            .filter(|host| !host.impostor)
            .filter_map(|host| Some(host.process.as_ref()?.node.raft()));
        let leaders = rafts.filter(|raft| raft.role() == RoleKind::Leader);
        leaders.max_by_key(|raft| raft.term()).map(|raft| raft.id())
    }

    /// Lets the next thing happen. Returns whether there was one before `end`.
    pub(crate) fn step(&mut self, end: Nanos) -> Result<bool, Failure> {
        match self.queue.first_key_value() {
            Some(((time, _), _)) if *time < end => {}
            _ => {
                self.now = end;
                return Ok(false);
            }
        }
        let ((time, _), happening) = self.queue.pop_first().expect("just seen");
        let happening = *happening;
        self.now = time;
        let process = happening.process();
        if let Some((id, run)) = process {
            let Some(host) = self.hosts.get(&id) else {
                return Ok(true);
            };
            if host.run != run || host.process.is_none() {
                return Ok(true);
            }
            if host.paused_until == FOREVER {
                self.parked.push(happening);
                return Ok(true);
            }
            if host.paused_until > self.now {
                self.at(host.paused_until + u64::from(happening.is_late()), happening);
                return Ok(true);
            }
        }
        if !self.is_barred(&happening) {
            self.happen(happening)?;
            self.observe();
            self.scan_sometimes()?;
        }
        self.spring(process.map(|(id, _)| id))?;
        Ok(true)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Arrival {
                pair,
                connection,
                message,
                ..
            } => self.arrive(pair, connection, message),
            Happening::LinkNews { pair, up, .. } => self.link_news(pair, up),
            Happening::Dial { pair } => self.dial(pair),
            Happening::RosterSave { id, .. } => self.roster_save(id),
            Happening::Operator => {
                self.operate();
                Ok(())
            }
            Happening::Enlist(id) => {
                self.enlist(id);
                Ok(())
            }
            Happening::Masquerade => {
                self.masquerade();
                Ok(())
            }
            Happening::Unmask => self.unmask(),
            Happening::Destroy(id) => self.destroy(id),
            Happening::Wake { id, .. } => self.wake(id),
            Happening::Drain { id, .. } => self.drain(id),
            Happening::DiskTurn { id, .. } => self.disk_turn(id),
            Happening::DiskFree { id, .. } => {
                self.hosts
                    .get_mut(&id)
                    .and_then(|host| host.process.as_mut())
                    .expect("running")
                    .disk_busy = false;
                self.disk_start(id);
                Ok(())
            }
            Happening::MachineTurn { id, .. } => self.machine_turn(id),
            Happening::JobTurn { id, .. } => self.job_turn(id),
            Happening::Completion { id, event, .. } => self.step_node(id, event),
            Happening::LocalRead { id, token, .. } => self.serve_read(id, token),
            Happening::HubTurn { id, .. } => self.hub_turn(id),
            Happening::HistoryTurn { id, .. } => self.read_history(id),
            Happening::LeaseTurn { id, turn, .. } => self.lease_turn(id, turn),
            Happening::Renewal {
                id, origin, lease, ..
            } => self.renewal(id, origin, lease),
            Happening::Renewed { origin, outcome } => self.renewed(origin, outcome),
            Happening::Client(number) => {
                self.client_turn(number);
                Ok(())
            }
            Happening::Watch(number) => self.watch_turn(number),
            Happening::StallCheck { id, write, .. } => self.check_stall(id, write),
            Happening::Start(id) => self.start(id),
            Happening::Fault(number) => self.release(number),
            Happening::Suspect(id) => self.suspect(id),
            Happening::Replace(id) => {
                self.see_replaced(id);
                Ok(())
            }
            Happening::Spring => Ok(()),
            Happening::Flap(flapping) => {
                self.flap(flapping);
                Ok(())
            }
            Happening::Restore(what) => {
                self.restore(what);
                Ok(())
            }
        }
    }

    /// How many requests there were.
    pub fn operations(&self) -> usize {
        self.calls.len()
    }
}

/// The configuration of a cluster of these founders, who understand so much.
fn found(ids: &[NodeId], features: u32) -> Config {
    let mut config = Config::of(ids.iter().copied());
    if features > 1 {
        config.level = features;
        config.about = ids.iter().map(|id| (*id, about(*id))).collect();
    }
    config
}
