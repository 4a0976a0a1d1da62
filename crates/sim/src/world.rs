//! The simulated world: virtual time, the queue of everything that will happen, and what each happening does. One thread, one
//! seed, no clock: the order of events is the order of the queue, by time and then by number.
//!
//! What nodes do in one step is in [`turn`](crate::turn), faults are in [`nemesis`](crate::nemesis), requests in
//! [`clients`](crate::clients), and the end of a run in [`finish`](crate::finish).

use std::collections::BTreeMap;

use quorate_base::{Index, NodeId};
use quorate_node::event::{Event, Token};
use quorate_node::message::PeerMessage;
use quorate_raft::{Config, RoleKind};

use crate::clients::Client;
use crate::coverage::{Coverage, Kind};
use crate::disk::SimDisk;
use crate::failure::{Failure, catch};
use crate::ghost::Ghost;
use crate::history::Call;
use crate::host::{Host, StartFailure};
use crate::nemesis::Restore;
use crate::net::{Network, Pair};
use crate::params::{MS, Params, SEC, US};
use crate::rng::Rng;
use crate::trace::{Nanos, Short, Trace};

/// Something that will happen. Those with a run are void once that process has ended.
pub(crate) enum Happening {
    /// A message arrives.
    Arrival {
        pair: Pair,
        run: u64,
        connection: u64,
        message: PeerMessage,
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
    /// A client asks.
    Client(usize),
    /// A process starts.
    Start(NodeId),
    /// A planned fault strikes.
    Fault(usize),
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
            | Happening::Completion { id, run, .. } => Some((*id, *run)),
            _ => None,
        }
    }
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub client: usize,
    pub call: usize,
    /// The length of C when it was asked.
    pub floor: Index,
}

/// Everything.
pub struct World {
    pub(crate) params: Params,
    pub(crate) members: Config,
    pub(crate) rng: Rng,
    pub(crate) now: Nanos,
    next: u64,
    queue: BTreeMap<(Nanos, u64), Happening>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) ghost: Ghost,
    pub(crate) net: Network,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) clients: Vec<Client>,
    pub(crate) calls: Vec<Call>,
    pub(crate) pending: BTreeMap<(NodeId, u64, Token), Pending>,
    pub(crate) last_leader: Option<NodeId>,
    /// No more faults and requests: the run is being ended.
    pub(crate) healing: bool,
}

impl World {
    /// The world of these parameters, at its beginning.
    pub fn new(params: Params, print: bool) -> World {
        let mut rng = Rng::new(params.seed ^ 0x0077_6f72_6c64);
        let ids: Vec<NodeId> = (1..=params.nodes).map(NodeId).collect();
        let members = Config::of(ids.iter().copied());
        let hosts = ids
            .iter()
            .map(|id| (*id, new_host(&params, *id, &mut rng)))
            .collect();
        let net = Network::new(&ids, params.net.clone(), rng.fork());
        let clients = (0..params.clients).map(|_| Client::new(rng.fork())).collect();
        let mut world = World {
            ghost: Ghost::new(members.clone()),
            trace: Trace::new(print),
            coverage: Coverage::default(),
            now: 0,
            next: 0,
            queue: BTreeMap::new(),
            calls: Vec::new(),
            pending: BTreeMap::new(),
            last_leader: None,
            healing: false,
            members,
            rng,
            net,
            hosts,
            clients,
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
        for number in 0..world.params.plan.len() {
            world.at(world.params.plan[number].0, Happening::Fault(number));
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
        self.queue.insert((time.max(self.now), self.next), happening);
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
            .filter(|host| host.process.is_some())
            .map(|host| host.id)
            .collect()
    }

    /// The running leader of the highest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let rafts = self
            .hosts
            .values()
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
        self.now = time;
        if let Some((id, run)) = happening.process() {
            let host = &self.hosts[&id];
            if host.run != run || host.process.is_none() {
                return Ok(true);
            }
            if host.paused_until > self.now {
                // What came meanwhile waits in sockets and queues; timers are looked at after it.
                let late = matches!(happening, Happening::Wake { .. } | Happening::Drain { .. });
                self.at(host.paused_until + u64::from(late), happening);
                return Ok(true);
            }
        }
        self.happen(happening)?;
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
            Happening::LinkNews {
                pair: (id, peer), up, ..
            } => {
                self.trace.event(
                    self.now,
                    Some(id),
                    format_args!("link to n{peer} {}", if up { "up" } else { "down" }),
                );
                let event = if up {
                    Event::LinkUp(peer)
                } else {
                    Event::LinkDown(peer)
                };
                self.step_node(id, event)
            }
            Happening::Dial { pair } => {
                self.dial(pair);
                Ok(())
            }
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
            Happening::Client(number) => {
                self.client_turn(number);
                Ok(())
            }
            Happening::Start(id) => self.start(id),
            Happening::Fault(number) => self.strike(number),
            Happening::Restore(what) => {
                self.restore(what);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, pair: Pair, connection: u64, message: PeerMessage) -> Result<(), Failure> {
        let delivered = self.net.delivers(pair, connection);
        if !delivered {
            self.coverage.hit(Kind::Drop);
        }
        let verb = if delivered { "<-" } else { "lost from" };
        self.trace.event(
            self.now,
            Some(pair.1),
            format_args!("{verb} n{}: {}", pair.0, Short(&message)),
        );
        if !delivered {
            return Ok(());
        }
        self.step_node(
            pair.1,
            Event::Peer {
                from: pair.0,
                message,
            },
        )
    }

    /// Hands a message of `id` to the network.
    pub(crate) fn transmit(&mut self, id: NodeId, to: NodeId, message: PeerMessage) {
        let pair = (id, to);
        let run = self.hosts[&id].run;
        self.trace
            .event(self.now, Some(id), format_args!("-> n{to}: {}", Short(&message)));
        if !self.net.link(pair).up {
            let event = Event::Dropped { to, message };
            self.after(0, Happening::Completion { id, run, event });
            return;
        }
        let fate = self.net.send(self.now, pair, &message);
        for (happened, kind) in [
            (fate.dropped, Kind::Drop),
            (fate.delayed, Kind::Delay),
            (fate.reordered, Kind::Reorder),
            (fate.arrivals.len() > 1, Kind::Duplicate),
        ] {
            if happened {
                self.coverage.hit(kind);
            }
        }
        let (run, connection) = (self.hosts[&to].run, self.net.link(pair).connection);
        for at in fate.arrivals {
            self.at(
                at,
                Happening::Arrival {
                    pair,
                    run,
                    connection,
                    message: message.clone(),
                },
            );
        }
    }

    /// One attempt to have a connection; goes on for ever.
    fn dial(&mut self, pair: Pair) {
        let (from, to) = pair;
        let run = self.hosts[&from].run;
        let both = self.hosts[&from].process.is_some() && self.hosts[&to].process.is_some();
        // A cut is noticed after a while, by whatever time limit the transport has; a gap in a stream at once.
        let noticed = self.net.link(pair).cut && self.rng.chance(70_000);
        if (self.net.is_broken(pair) || noticed) && self.net.reset(pair) {
            self.after(0, Happening::LinkNews { pair, run, up: false });
        } else if both && self.net.connect(self.now, pair) {
            self.after(0, Happening::LinkNews { pair, run, up: true });
        }
        let pause = self.rng.within(30 * MS..200 * MS);
        self.after(pause, Happening::Dial { pair });
    }

    /// Closes the links of a process that has ended. Its peers find out soon.
    pub(crate) fn hang_up(&mut self, id: NodeId) {
        for pair in self.net.pairs() {
            if pair.0 == id {
                self.net.close(pair);
            } else if pair.1 == id && self.net.close(pair) {
                let run = self.hosts[&pair.0].run;
                let delay = self.rng.within(100 * US..100 * MS);
                self.after(delay, Happening::LinkNews { pair, run, up: false });
            }
        }
    }

    /// A process starts, or tries to.
    fn start(&mut self, id: NodeId) -> Result<(), Failure> {
        if self.hosts[&id].process.is_some() {
            return Ok(());
        }
        self.host(id).run += 1;
        let trap = self.host(id).trap.take();
        if let Some(number) = trap {
            self.set_trap(id, number);
        }
        let host = &self.hosts[&id];
        let (params, members) = (&self.params, &self.members);
        let booted = match catch(|| host.boot(params, members)) {
            Ok(Ok(booted)) => booted,
            Ok(Err(StartFailure::Refused(why))) => {
                return Err(Failure::Crash(format!("n{id} refuses to start: {why}")));
            }
            Err(why) if !host.disk.is_dead() => return Err(Failure::Crash(format!("n{id} starting: {why}"))),
            Ok(Err(StartFailure::Disk(why))) | Err(why) => {
                self.trace
                    .event(self.now, Some(id), format_args!("does not start: {why}"));
                return self.end_in_disk(id, true, 500 * MS);
            }
        };
        if let Some(number) = trap {
            self.trap_missed(id, number);
        }
        if self.hosts[&id].run > 1 {
            self.coverage.hit(Kind::Restart);
        }
        self.ghost.recovered(id, &booted.found)?;
        let raft = booted.process.node.raft();
        let (term, commit, last) = (raft.term(), raft.commit(), raft.last());
        let applied = booted.process.told_durable;
        self.trace.event(
            self.now,
            Some(id),
            format_args!("starts in term {term}, log {last}, commit {commit}, applied {applied}"),
        );
        let hard = booted.found.hard.unwrap_or_default();
        let base = booted
            .found
            .mark
            .as_ref()
            .map_or(Index::ZERO, |meta| meta.last.index);
        if commit != hard.commit.max(Index(applied)).max(base) {
            let what = format!(
                "S9: n{id} starts with commit {commit}, recorded {}, applied {applied}",
                hard.commit
            );
            return Err(Failure::Correctness(what));
        }
        self.host(id).process = Some(booted.process);
        self.machine_start(id);
        self.drain(id)
    }

    /// How many requests there were.
    pub fn operations(&self) -> usize {
        self.calls.len()
    }
}

fn new_host(params: &Params, id: NodeId, rng: &mut Rng) -> Host {
    let disk = SimDisk::new(rng.fork());
    if params.lying_disks {
        disk.lie();
    }
    Host {
        id,
        disk,
        run: 0,
        process: None,
        drift: params.drift[id.0 as usize - 1],
        slowness: 1,
        paused_until: 0,
        trap: None,
        armed: None,
    }
}
