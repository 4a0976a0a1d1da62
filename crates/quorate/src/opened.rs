//! Opening what is on a node's disk: whose it is, the log, the machine, put together and checked against each other. Threads and sockets come
//! after that, in `start`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use quorate_base::disk::is_full;
use quorate_base::{Disk, NodeId, StateMachine};
use quorate_node::event::MachineOp;
use quorate_node::handshake::Papers;
use quorate_node::roster::Roster;
use quorate_node::{Boot, BootError, MEMBERSHIP_LEVEL, Node, NodeConfig};
use quorate_wal::{Options, Wal};

use crate::config::Config;
use crate::driver::nanos;
use crate::error::StartError;
use crate::identity::{Claim, Identity};
use crate::membership::Member;
use crate::peer::Myself;
use crate::refused;

/// What is on the disk, put together.
pub(crate) struct Opened<S> {
    pub wal: Wal,
    pub node: Node,
    pub machine: S,
    /// What the machine has to do before anything else.
    pub first: Vec<MachineOp>,
    pub myself: Myself,
    pub roster: Roster,
    /// Where members are reached as far as the log does not say.
    pub hearsay: BTreeMap<NodeId, Vec<String>>,
}

/// Opens everything on the disk. From here on `config` says who the directory belongs to.
pub(crate) fn open_state<S: StateMachine>(
    config: &mut Config,
    disk: &Arc<dyn Disk>,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<Opened<S>, StartError> {
    let dir = config.data_dir.clone();
    let drawn = || StartError::io("draw a random number");
    let mut identity = settle(config, &**disk)?;
    let roster = Roster::load(&**disk, config.cluster, config.id).map_err(|source| StartError::Roster {
        dir: dir.clone(),
        source,
    })?;
    let (seed, nonce) = (random().map_err(drawn())?, random().map_err(drawn())?);
    let (wal, log) = open_log(&mut identity, disk, &dir)?;
    let machine = open(disk.clone()).map_err(StartError::Machine)?;
    let node = NodeConfig {
        heartbeat: nanos(config.heartbeat),
        election: nanos(config.election),
        priority: config.priority,
        leases: config.leases,
        features: config.features,
        max_proposal: config.max_proposal,
        ..NodeConfig::new(config.id, nonce, seed)
    };
    let initial = (!identity.joins()).then(|| founding(config));
    let (node, first) = log
        .finish(node, initial, machine.applied(), machine.durable())
        .map_err(unusable(&dir))?;
    match refused::reserve(&**disk) {
        // A directory of an earlier release; every other has had the room since it was made.
        Err(error) if is_full(&error) => {
            tracing::warn!("the disk is full: should this node be refused, that cannot be noted")
        }
        reserved => reserved.map_err(StartError::io(format!("write refused.new in {}", dir.display())))?,
    }
    // Last, so that starts that fail are not counted: only so many are remembered.
    identity
        .begin(&**disk, nonce)
        .map_err(StartError::io(format!("count this start in {}", dir.display())))?;
    Ok(Opened {
        wal,
        myself: introduce(config, &identity, &node),
        hearsay: hearsay(config, &identity, &node),
        node,
        machine,
        first,
        roster,
    })
}

/// Opens the log, or makes it. If the directory was made a new cluster's, see [`recover`](crate::recover), this sees to it that the log is, too.
pub(crate) fn open_log(
    identity: &mut Identity,
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> Result<(Wal, Boot), StartError> {
    let mut log = Boot::new();
    let options = Options {
        must_exist: identity.founded(),
        ..Options::new(identity.log())
    };
    let mut wal = Wal::open(disk.clone(), options, &mut |record| log.record(record))?;
    if let Some(first) = identity.recovered() {
        let survey = log.survey().map_err(unusable(dir))?;
        if survey.last.index < first.index {
            let (begins, records) = survey.begin_alone(identity.member());
            if begins != first {
                return Err(StartError::Boot {
                    dir: dir.to_owned(),
                    why: format!(
                        "it was to begin a new cluster with entry {first}, but ends at {}: its end is lost",
                        survey.last
                    ),
                });
            }
            let written = wal
                .append(std::slice::from_ref(&records))
                .map_err(io::Error::other)
                .map_err(StartError::io(format!("write the log in {}", dir.display())));
            written?;
            records.into_iter().for_each(|record| log.record(record));
        }
    }
    identity.found(&**disk).map_err(StartError::io(format!(
        "write {}",
        dir.join("identity").display()
    )))?;
    Ok((wal, log))
}

/// The log does not say anything that makes sense.
pub(crate) fn unusable(dir: &Path) -> impl FnOnce(BootError) -> StartError {
    |error| StartError::Boot {
        dir: dir.to_owned(),
        why: error.to_string(),
    }
}

/// Finds out whose directory this is, or makes it this node's.
fn settle(config: &mut Config, disk: &dyn Disk) -> Result<Identity, StartError> {
    let dir = &config.data_dir;
    let known = Identity::read(disk, dir)?;
    if known.is_none_or(|known| !known.founded())
        && let Some(problem) = config.founding_problem()
    {
        return Err(StartError::Config(problem));
    }
    let claim = Claim {
        cluster: config.cluster,
        member: config.id,
        name: &config.name,
        token: config.token.as_deref(),
        joins: config.join,
    };
    let mut identity = Identity::settle(disk, dir, &claim, &mut random)?;
    if !identity.founded() {
        let members = config.members.iter();
        let addresses = members.map(|(id, member)| (*id, member.addresses.clone()));
        identity.set_members(&addresses.collect());
    }
    (config.cluster, config.id) = (identity.cluster(), identity.member());
    Ok(identity)
}

/// The configuration that a cluster begins with.
fn founding(config: &Config) -> quorate_raft::Config {
    let mut founding = quorate_raft::Config::of(config.members.keys().copied());
    // Releases that know no membership changes do not know descriptions, either.
    if config.features >= MEMBERSHIP_LEVEL {
        let members = config.members.iter();
        founding.about = members.map(|(id, member)| (*id, member.encode())).collect();
    }
    founding
}

/// Where members are reached as far as the log does not say. What the node is told at this start goes before what it was told at the first:
/// in a cluster without descriptions, that is how a member moves. But whoever is told of by nobody else may not be a member at all.
fn hearsay(config: &Config, identity: &Identity, node: &Node) -> BTreeMap<NodeId, Vec<String>> {
    let mut hearsay = identity.members();
    for (id, member) in &config.members {
        if hearsay.contains_key(id) || node.raft().config().is_member(*id) {
            hearsay.insert(*id, member.addresses.clone());
        }
    }
    hearsay
}

/// What the node says of itself to its peers.
fn introduce(config: &Config, identity: &Identity, node: &Node) -> Myself {
    let raft = node.raft();
    let described = raft.config().about.get(&config.id);
    let described = described.map(|about| Member::decode(config.id, about).addresses);
    let told = config
        .members
        .get(&config.id)
        .map(|member| member.addresses.clone());
    let recorded = identity.members().remove(&config.id);
    // All of them: a member may move before the log says so, or after, and peers try one after the other.
    let mut addresses: Vec<String> = Vec::new();
    for address in [described, told, recorded].into_iter().flatten().flatten() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let election = u32::try_from(config.election.as_millis()).unwrap_or(u32::MAX);
    Myself {
        id: config.id,
        cluster: config.cluster,
        features: config.features,
        boot: identity.boot(),
        papers: Papers {
            incarnation: identity.incarnation(),
            nonces: identity.nonces().to_vec(),
            term: raft.term(),
            last: raft.last().index,
            leases: config.leases.then_some(election),
            addresses,
        },
    }
}

/// A number that nobody can foresee and no other run has drawn.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // 0 stands for "none" in places.
    Ok(u64::from_le_bytes(bytes).max(1))
}
