//! One simulated machine: a disk that stays, and the process that runs on it for a while: node, log, store, and the queues
//! between them that threads would serve in production. Starting a process and carrying out disk work are here; when things
//! happen is decided in [`world`](crate::world).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_base::{Disk, Index, Job, NodeId, SnapshotReader, StateMachine};
use quorate_kv::Kv;
use quorate_node::event::{Event, LogOp, MachineOp, StageOp, StreamId, Token};
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_node::roster::Roster;
use quorate_node::session::SessionTable;
use quorate_node::staging::{self, StagingReader};
use quorate_node::{Boot, Failure as Refusal, Node, NodeConfig, Staging};
use quorate_raft::{Config, Limits, Priority, WriteId};
use quorate_wal::{OpenError, Options, ReadError, Record, Wal};

use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::fanout::Fanout;
use crate::ghost::log::Recovered;
use crate::identity::Identity;
use crate::leases::Tenure;
use crate::params::{MS, Params};
use crate::rng::mix;
use crate::sessions;
use crate::trace::Nanos;
use crate::turn::{is_full, is_told};

/// The cluster that all members belong to.
pub const CLUSTER: u64 = 7;

/// A machine.
pub struct Host {
    /// Its number: that of the member that lives here, unless it is an impostor.
    pub id: NodeId,
    /// The member that it claims to be.
    pub member: NodeId,
    /// It runs on something else than the member's latest data, which every peer must notice.
    pub impostor: bool,
    /// It was there when the cluster was founded; else it joins.
    pub founder: bool,
    /// Whom it was told to join by; kept beside its identity.
    pub told: BTreeSet<NodeId>,
    /// How gladly it leads.
    pub priority: Priority,
    /// What it understands.
    pub features: u32,
    /// It was told never to come back.
    pub expelled: bool,
    /// Its disk has broken its word, or may have.
    pub rotten: bool,
    /// The planned fault that did it, until it is known whether that is noticed.
    pub rotted_by: Option<usize>,
    /// It is its store that was spoilt, and not its log.
    pub in_store: bool,
    /// Up to where its store was durable, as its node was told.
    pub stored: Index,
    /// Its disk is damaged, and it does not start.
    pub broken: bool,
    /// It will be destroyed.
    pub doomed: bool,
    /// Its disk.
    pub disk: SimDisk,
    /// Counts processes; events of earlier ones are void.
    pub run: u64,
    /// The process, if one runs.
    pub process: Option<Process>,
    /// Its clock.
    pub clock: Clock,
    /// Disk operations take so many times as long.
    pub slowness: u64,
    /// Until then, if nothing else slows it down.
    pub slow_until: Nanos,
    /// Its disk has no space until then.
    pub full_until: Nanos,
    /// The process stands still until then.
    pub paused_until: Nanos,
    /// Operations of its disk return not before then.
    pub stalled_until: Nanos,
    /// The machine itself has no power: nobody answers there at all.
    pub dark: bool,
    /// The planned fault that waits in the next start: power fails in one of its disk operations.
    pub trap: Option<usize>,
    /// The planned fault that waits in the disk.
    pub armed: Option<usize>,
}

/// What waits for the disk thread.
pub enum DiskWork {
    /// For the log.
    Log(LogOp),
    /// For the staging file.
    Stage(StageOp),
}

/// What waits for the state machine, in the order of the node's effects.
pub enum MachineWork {
    /// Apply or restore.
    Op(MachineOp),
    /// A read that may be served, or that failed.
    Read(Token, Result<(), Refusal>),
}

/// A running process.
pub struct Process {
    /// Who it is.
    pub identity: Identity,
    /// What it has seen of its peers.
    pub roster: Roster,
    /// The roster will be saved.
    pub roster_due: bool,
    /// Those it connects to: the members, as far as it knows, and whom it was told to join by.
    pub contacts: BTreeSet<NodeId>,
    /// Those that have connected to it.
    pub visitors: BTreeSet<NodeId>,
    /// When it started, on its own clock.
    pub started: Nanos,
    /// The node.
    pub node: Node,
    /// Effects are waiting to be taken.
    pub undrained: bool,
    /// The log.
    pub wal: Wal,
    /// The store.
    pub kv: Kv,
    /// Queue of the disk thread.
    pub disk_queue: VecDeque<DiskWork>,
    /// The disk thread is at work.
    pub disk_busy: bool,
    /// Writes handed to the disk and not reported durable, with the times when they were handed out.
    pub outstanding: VecDeque<(WriteId, Nanos)>,
    /// It led when its disk stalled.
    pub led_in_stall: bool,
    /// Queue of the state machine.
    pub machine_queue: VecDeque<MachineWork>,
    /// The machine queue will be served.
    pub machine_due: bool,
    /// Handed to the flusher.
    pub job: Option<Job>,
    /// It has known a leader, itself or another, since it started.
    pub has_been_led: bool,
    /// A snapshot is on its way in.
    pub installing: bool,
    /// Reads of the log that were asked of the disk and have not been answered to the node.
    pub cold_reads: BTreeSet<u64>,
    /// The write that cuts off the end of the log, until it is durable.
    pub truncating: Option<WriteId>,
    /// The write that lets the beginning of the log go, until it is durable.
    pub compacting: Option<WriteId>,
    /// Outgoing snapshots.
    pub views: BTreeMap<StreamId, Box<dyn SnapshotReader>>,
    /// Who watches, and what they are told.
    pub fanout: Fanout,
    /// What the node does about leases when it leads.
    pub tenure: Tenure,
    /// Who has executed what for a client session: as the store has it.
    pub sessions: SessionTable,
    /// When the node will next be woken.
    pub wake_at: Option<Nanos>,
    /// The durable index that the node was told of.
    pub told_durable: u64,
    /// A read has met damage in the store: the next job ends the process.
    pub met_damage: bool,
    /// The job in hand is that one.
    pub last_job: bool,
    staging: Staging,
    mounted: Arc<dyn Disk>,
}

/// Why a process did not start.
pub enum StartFailure {
    /// Power failed, or the disk is full: to be tried again.
    Disk(String),
    /// The data was refused. It was not right to leave it so, or not right to refuse it.
    Refused(String),
}

impl Host {
    /// A machine of a founder, with a perfect clock.
    pub fn new(id: NodeId, disk: SimDisk) -> Host {
        Host {
            id,
            member: id,
            impostor: false,
            founder: true,
            told: BTreeSet::new(),
            priority: Priority::Normal,
            features: FEATURE_LEVEL,
            expelled: false,
            rotten: false,
            rotted_by: None,
            in_store: false,
            stored: Index::ZERO,
            broken: false,
            doomed: false,
            disk,
            run: 0,
            process: None,
            clock: Clock::default(),
            slowness: 1,
            slow_until: 0,
            full_until: 0,
            paused_until: 0,
            stalled_until: 0,
            dark: false,
            trap: None,
            armed: None,
        }
    }

    /// Whether its log may not be what was written.
    pub fn has_log_in_doubt(&self) -> bool {
        self.rotten && !self.in_store
    }

    /// The machine's clock at this moment.
    pub fn local(&self, now: Nanos) -> Nanos {
        self.clock.local(now)
    }

    /// The first moment at which the machine's clock shows `local`.
    pub fn global(&self, local: Nanos) -> Nanos {
        self.clock.global(local)
    }

    /// Starts a process on what the disk holds. Returns it, what its log said, and what its state machine has to do first.
    pub fn boot(&self, params: &Params, founding: Option<Config>) -> Result<Booted, StartFailure> {
        let disk = self.disk.mount();
        let nonce = mix(params.seed ^ mix(self.id.0 << 32 | self.run));
        let mut identity =
            Identity::begin(&*disk, CLUSTER, nonce).map_err(|error| self.disk_or_refused(error))?;
        let roster =
            Roster::load(&*disk, CLUSTER, self.member).map_err(|error| self.disk_or_refused(error))?;
        let kv = Kv::open(disk.clone(), kv_options(params)).map_err(|error| self.disk_or_refused(error))?;
        let mut boot = Boot::new();
        let mut found = Recovered::default();
        let mut wrong = None;
        let wal = Wal::open(disk.clone(), wal_options(params, self.member), &mut |record| {
            wrong = wrong.take().or(found.record(&record).err());
            boot.record(record);
        });
        let wal = match wal {
            Ok(wal) => wal,
            Err(OpenError::Disk(error)) => return Err(self.disk_or_refused(error)),
            Err(error) => return Err(StartFailure::Refused(error.to_string())),
        };
        if let Some(violation) = wrong {
            return Err(StartFailure::Refused(violation.to_string()));
        }
        let config = self.node_config(params, nonce);
        let (node, first) = boot
            .finish(config, founding, kv.applied(), kv.durable())
            .map_err(|error| StartFailure::Refused(error.to_string()))?;
        identity.start = (node.raft().term(), node.raft().last().index);
        let contacts = node.raft().config().members();
        let told_durable = kv.durable().0;
        let sessions = sessions::load(&kv).map_err(|error| self.disk_or_refused(error))?;
        let fanout = Fanout::new(&kv, params.hub.clone());
        let process = Process {
            undrained: false,
            identity,
            roster,
            roster_due: false,
            contacts,
            visitors: BTreeSet::new(),
            started: 0,
            node,
            wal,
            kv,
            disk_queue: VecDeque::new(),
            disk_busy: false,
            outstanding: VecDeque::new(),
            led_in_stall: false,
            machine_queue: first.into_iter().map(MachineWork::Op).collect(),
            machine_due: false,
            job: None,
            has_been_led: false,
            installing: false,
            cold_reads: BTreeSet::new(),
            truncating: None,
            compacting: None,
            views: BTreeMap::new(),
            fanout,
            tenure: Tenure::default(),
            sessions,
            wake_at: None,
            told_durable,
            met_damage: false,
            last_job: false,
            staging: Staging::new(disk.clone()),
            mounted: disk,
        };
        Ok(Booted { process, found })
    }

    fn node_config(&self, params: &Params, nonce: u64) -> NodeConfig {
        NodeConfig {
            heartbeat: params.heartbeat,
            election: params.election,
            priority: self.priority,
            leases: params.leases,
            features: self.features,
            limits: Limits {
                max_append_bytes: params.max_append_bytes,
                max_inflight: params.max_inflight,
                max_inflight_bytes: params.max_append_bytes * params.max_inflight as u64,
                max_uncommitted_bytes: params.max_uncommitted,
            },
            cache_bytes: params.tail_bytes,
            apply_bytes: params.max_append_bytes as usize * 4,
            frame_bytes: params.max_append_bytes as usize,
            max_held: params.max_held,
            max_held_bytes: 16 << 10,
            keep_entries: params.keep_entries,
            keep_bytes: params.keep_bytes,
            chunk_bytes: params.chunk_bytes,
            ..NodeConfig::new(self.member, nonce, nonce)
        }
    }

    fn disk_or_refused(&self, error: impl std::error::Error) -> StartFailure {
        let why = error.to_string();
        if self.disk.is_dead()
            || (self.disk.has_faulted() && is_told(&why))
            || (self.disk.has_run_full() && is_full(&why))
        {
            return StartFailure::Disk(why);
        }
        StartFailure::Refused(why)
    }
}

/// A started process.
pub struct Booted {
    /// It.
    pub process: Process,
    /// What its log said.
    pub found: Recovered,
}

/// What the log on a disk says, without a node.
pub fn read_log(disk: &SimDisk, params: &Params, id: NodeId) -> Result<Recovered, String> {
    let mut found = Recovered::default();
    let mut wrong = None;
    Wal::open(disk.mount(), wal_options(params, id), &mut |record| {
        wrong = wrong.take().or(found.record(&record).err());
    })
    .map_err(|error| error.to_string())?;
    match wrong {
        None => Ok(found),
        Some(violation) => Err(violation.to_string()),
    }
}

fn wal_options(params: &Params, id: NodeId) -> Options {
    Options {
        segment_bytes: params.segment_bytes,
        ..Options::new(mix(params.seed ^ id.0))
    }
}

/// What a store is opened with.
pub fn kv_options(params: &Params) -> quorate_kv::Options {
    quorate_kv::Options {
        flush_bytes: params.flush_bytes,
        log_bytes: params.flush_bytes,
        backlog_bytes: params.flush_bytes * 8,
        cache_bytes: 64 << 10,
        compact_chunk: 50,
        event_bytes: 1 << 20,
        slack_bytes: params.flush_bytes as u64 * 64,
    }
}

/// What a turn of the disk thread does for the log at once.
#[derive(Default)]
pub struct Batch {
    /// The writes.
    pub writes: Vec<Vec<Record>>,
    /// The last one's number.
    pub last: WriteId,
}

impl Process {
    /// Saves the roster durably.
    pub fn save_roster(&self) -> Result<(), String> {
        let saved = self.roster.save(&*self.mounted);
        saved.map_err(|error| format!("saving the roster: {error}"))
    }

    /// The writes at the head of the disk thread's queue, which go out together.
    pub fn take_batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(DiskWork::Log(LogOp::Write { .. })) = self.disk_queue.front() {
            let Some(DiskWork::Log(LogOp::Write { id, records })) = self.disk_queue.pop_front() else {
                break;
            };
            batch.last = id;
            batch.writes.push(records);
        }
        (!batch.writes.is_empty()).then_some(batch)
    }

    /// Carries out work other than a write of the log. An error is final for the process.
    pub fn disk_work(&mut self, work: DiskWork) -> Result<Option<Event>, String> {
        match work {
            DiskWork::Log(LogOp::Read {
                id,
                first,
                last,
                max_bytes,
            }) => {
                let bodies = match self.wal.read(first, last, max_bytes) {
                    Ok(bodies) => Ok(bodies),
                    // Writes went ahead of it; the node knows what they did.
                    Err(error @ (ReadError::Compacted { .. } | ReadError::Absent { .. })) => {
                        Err(error.to_string())
                    }
                    Err(error) => return Err(error.to_string()),
                };
                Ok(Some(Event::LogRead { id, bodies }))
            }
            DiskWork::Log(LogOp::Write { .. }) => unreachable!("writes are taken as batches"),
            DiskWork::Stage(op) => self.staging.carry_out(op).map_err(|error| error.to_string()),
        }
    }

    /// Removes the staging file, if there is one.
    pub fn discard_staged(&self) -> io::Result<()> {
        staging::discard(&*self.mounted)
    }

    /// The staged snapshot, to be read.
    pub fn staged(&self) -> io::Result<StagingReader> {
        StagingReader::open(&*self.mounted)
    }

    /// The next piece of an outgoing snapshot.
    pub fn read_view(&mut self, stream: StreamId, max: usize) -> Result<Option<Bytes>, String> {
        let Some(view) = self.views.get_mut(&stream) else {
            return Ok(None);
        };
        view.read_chunk(max).map(Some).map_err(|error| error.to_string())
    }
}

impl Params {
    /// A usual duration of one disk operation on a disk that is `slowness` times as slow.
    pub fn disk_delay(&self, rng: &mut crate::rng::Rng, slowness: u64) -> Nanos {
        let usual = rng.within(self.min_disk..self.max_disk);
        (usual * slowness).min(3_000 * MS).max(usual)
    }
}
