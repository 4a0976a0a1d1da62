//! Starting a node: lock, identity, log, machine, threads, sockets, in this order; and what is left to hold on to.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quorate_base::{Disk, NodeId, StateMachine};
use quorate_node::Node;
use quorate_node::event::MachineOp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;

use crate::config::Config;
use crate::disk::DirDisk;
use crate::driver::{Driver, Parts};
use crate::error::{Fatal, StartError};
use crate::flusher::Flusher;
use crate::handle::{Handle, Shared};
use crate::identity::Identity;
use crate::inbox::{Done, Inbox};
use crate::lock::DirLock;
use crate::log_thread::LogThread;
use crate::membership::Membership;
use crate::opened::{Opened, open_state};
use crate::peer::asks::Asks;
use crate::peer::{Links, Network, Registry, Setup, dead_after, max_ask};
use crate::refused;
use crate::status::Status;
use crate::transport::{TcpTransport, Transport};
use crate::work::{Reports, panic_text};

/// Resolves when the node has ended, for whatever reason, and its data directory is free again: `Ok` after
/// [`Handle::shutdown`], an error if it could not go on. Dropping it lets the node run on.
///
/// A disk that does not come back holds it up for four times [`Config::timeout`], and then no longer: the directory is still in use then, until
/// the process ends. That is [`Fatal::DiskHangs`], or whatever ended the node before.
#[derive(Debug)]
pub struct Running {
    ended: oneshot::Receiver<Result<(), Fatal>>,
}

impl Future for Running {
    type Output = Result<(), Fatal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = std::task::ready!(Pin::new(&mut self.ended).poll(context));
        Poll::Ready(ended.unwrap_or_else(|_| Err(Fatal::Panic("the runtime was shut down".into()))))
    }
}

/// Starts a node on the current tokio runtime, which needs its I/O and time drivers. `open` opens the state machine on the
/// node's disk, where the file names `wal-…`, `identity`, `boots`, `peers`, `refused`, `LOCK` and `incoming-snapshot` are taken.
///
/// # Errors
/// If the node cannot start; nothing is left running then.
pub async fn start<S: StateMachine>(
    config: Config,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<(Handle<S>, Running), StartError> {
    start_with(config, Resources::default(), open).await
}

/// Things that [`start`] makes itself and [`start_with`] can be given.
#[derive(Debug, Default)]
pub struct Resources {
    /// The disk to use in place of [`Config::data_dir`], which is neither locked nor touched then.
    pub disk: Option<Arc<dyn Disk>>,
    /// Bound listeners for peers, in place of [`Config::listen_peers`].
    pub listeners: Vec<TcpListener>,
}

/// [`start`] with some resources given.
///
/// # Errors
/// As [`start`].
pub async fn start_with<S: StateMachine>(
    config: Config,
    resources: Resources,
    open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<(Handle<S>, Running), StartError> {
    if let Some(problem) = config.problem() {
        return Err(StartError::Config(problem));
    }
    if config.transport.is_some() && !(config.listen_peers.is_empty() && resources.listeners.is_empty()) {
        let both = "a transport of one's own listens by itself: leave out addresses and sockets to listen on";
        return Err(StartError::Config(both.into()));
    }
    let (disk, lock) = match resources.disk {
        Some(disk) => (disk, None),
        None => open_directory(&config.data_dir)?,
    };
    let transport = match &config.transport {
        Some(transport) => transport.clone(),
        None => listen(&config, resources.listeners)?,
    };
    let mut config = config;
    let opened = open_state(&mut config, &disk, open)?;
    let (shared, links) = share(&config, &opened);
    let incarnation = opened.myself.papers.incarnation;
    let noting = disk.clone();
    let patience = config.patience();
    let Assembled {
        driver,
        first,
        threads,
        registry,
    } = assemble(config, opened, disk, &lock, transport, shared.clone(), links)?;
    let driver = tokio::spawn(driver.run(first));
    let (sender, ended) = oneshot::channel();
    let ending = Ending(shared.clone());
    tokio::spawn(async move {
        // Said at once: what follows may take its time.
        let mut result = verdict(driver.await);
        let let_go = async {
            // The driver is gone, and with it the queues into the threads: these finish what they have and let go.
            for gone in threads {
                let _ = gone.await;
            }
            registry.close().await;
        };
        if tokio::time::timeout(patience, let_go).await.is_err() {
            tracing::error!(
                "the disk does not answer: the data directory stays in use until this process has ended"
            );
            result = result.and(Err(Fatal::DiskHangs));
        } else if let Err(Fatal::Refused(why)) = &result
            // The node ends either way. Without the note it may be started again, and is refused again; only after very many such starts do
            // peers no longer know its history.
            && let Err(error) = refused::note(&*noting, incarnation, why)
        {
            tracing::error!(%error, "cannot note that this data directory was refused");
        }
        drop(noting);
        drop(lock);
        drop(ending);
        let _ = sender.send(result);
    });
    Ok((Handle::new(shared), Running { ended }))
}

/// To whom a data directory belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The cluster's token, if the directory was founded with one.
    pub token: Option<String>,
}

/// To whom the directory belongs; `None` if it is absent, or no node was started on it yet. Neither locks nor changes anything.
///
/// # Errors
/// If the `identity` file cannot be read or is damaged.
pub fn owner(dir: &Path) -> Result<Option<Owner>, StartError> {
    if !dir.exists() {
        return Ok(None);
    }
    let disk = DirDisk::open(dir).map_err(StartError::io(format!(
        "open the data directory {}",
        dir.display()
    )))?;
    let identity = Identity::read(&disk, dir)?;
    Ok(identity.map(|identity| Owner {
        cluster: identity.cluster(),
        id: identity.member(),
        name: identity.name().to_owned(),
        token: identity.token().map(str::to_owned),
    }))
}

/// A node ready to run.
struct Assembled<S: StateMachine> {
    driver: Driver<S>,
    /// What its machine has to do before anything else.
    first: Vec<MachineOp>,
    /// Each hears when its thread has let go of everything.
    threads: [oneshot::Receiver<()>; 2],
    /// To be closed at the end.
    registry: Arc<Registry>,
}

/// Starts connections and threads, and puts the driver together with them.
fn assemble<S: StateMachine>(
    config: Config,
    opened: Opened<S>,
    disk: Arc<dyn Disk>,
    lock: &Option<Arc<DirLock>>,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared<S>>,
    links: Links,
) -> Result<Assembled<S>, StartError> {
    let reports: Reports = {
        let shared = shared.clone();
        Arc::new(move |report| shared.inbox.done(Done::Report(report)))
    };
    let began = Instant::now();
    let registry = Arc::new(Registry::new(
        opened.roster,
        disk.clone(),
        lock.clone(),
        reports.clone(),
    ));
    let setup = Setup {
        myself: Arc::new(opened.myself),
        links: links.clone(),
        registry: registry.clone(),
        asks: shared.asks.clone(),
        metrics: shared.metrics.clone(),
        reports: reports.clone(),
        transport,
    };
    let (network, frames) = Network::start(setup);
    let spawned = |what| StartError::io(format!("start the {what} thread"));
    let (log, log_gone) = LogThread::spawn(
        opened.wal,
        disk.clone(),
        lock.clone(),
        shared.metrics.clone(),
        reports,
    )
    .map_err(spawned("disk"))?;
    let flushed = shared.clone();
    let (flusher, flusher_gone) = Flusher::spawn(disk, lock.clone(), move |done| {
        flushed.inbox.done(Done::Flushed(done))
    })
    .map_err(spawned("flusher"))?;
    announce(&config, &opened.node);
    let Opened {
        node,
        machine,
        first,
        hearsay,
        ..
    } = opened;
    let parts = Parts {
        config,
        node,
        machine,
        flusher,
        log,
        links,
        hearsay,
        network,
        frames,
        shared,
        began,
    };
    Ok(Assembled {
        driver: Driver::new(parts),
        first,
        threads: [log_gone, flusher_gone],
        registry,
    })
}

fn announce(config: &Config, node: &Node) {
    tracing::info!(
        member = %format_args!("{:016x}", config.id.0),
        cluster = %format_args!("{:016x}", config.cluster),
        name = %config.name,
        last_log = %node.raft().last(),
        "started"
    );
}

/// However the node ends, with its runtime for example, whoever waits for that hears of it.
struct Ending<S: StateMachine>(Arc<Shared<S>>);

impl<S: StateMachine> Drop for Ending<S> {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

/// A disk, and the lock on its directory if it has one.
pub(crate) type Directory = (Arc<dyn Disk>, Option<Arc<DirLock>>);

pub(crate) fn open_directory(dir: &Path) -> Result<Directory, StartError> {
    let disk = DirDisk::open(dir).map_err(StartError::io(format!(
        "open the data directory {}",
        dir.display()
    )))?;
    let lock = DirLock::take(dir)?;
    Ok((Arc::new(disk), Some(Arc::new(lock))))
}

/// TCP, on these listeners or else on those that the configuration names.
fn listen(config: &Config, mut listeners: Vec<TcpListener>) -> Result<Arc<dyn Transport>, StartError> {
    let bind = |address: &SocketAddr| {
        TcpListener::bind(address).map_err(StartError::io(format!("listen for peers on {address}")))
    };
    if listeners.is_empty() {
        listeners = config.listen_peers.iter().map(bind).collect::<Result<_, _>>()?;
    }
    let transport =
        TcpTransport::new(listeners, dead_after(config)).map_err(StartError::io("listen for peers"))?;
    Ok(Arc::new(transport))
}

fn share<S: StateMachine>(config: &Config, opened: &Opened<S>) -> (Arc<Shared<S>>, Links) {
    let links = Links::new(config.id);
    let raft = opened.node.raft();
    // Nobody to dial yet, but whoever was removed is not let in.
    let removed = raft.log().config_at(raft.commit()).removed.clone();
    links.set_members(BTreeMap::new(), raft.config().clone(), removed);
    let status = Status {
        id: config.id,
        cluster: config.cluster,
        term: raft.term(),
        commit: raft.commit(),
        applied: opened.machine.applied().index,
        durable: opened.machine.durable(),
        last_log: raft.last(),
        membership: Arc::new(Membership::of(raft.config())),
        ..Status::default()
    };
    let shared = Arc::new(Shared {
        inbox: Inbox::new(),
        status: watch::channel(status).0,
        ended: watch::channel(false).0,
        metrics: Arc::default(),
        asks: Arc::new(Asks::new(
            config.id,
            Arc::new(links.clone()),
            config.timeout,
            max_ask(config),
        )),
        max_proposal: config.max_proposal,
        election: config.election,
    });
    (shared, links)
}

fn verdict(driver: Result<Result<(), Fatal>, JoinError>) -> Result<(), Fatal> {
    let result = match driver {
        Ok(result) => result,
        Err(error) => Err(Fatal::Panic(match error.try_into_panic() {
            Ok(panic) => panic_text(&*panic),
            Err(_) => "the runtime was shut down".to_owned(),
        })),
    };
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(fatal) => tracing::error!(%fatal, "stopped"),
    }
    result
}
