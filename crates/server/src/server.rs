//! Starting a server and ending it: ports first, then the node, then everything that hangs on it; backwards at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate::{Fatal, Handle, Running, StartError};
use quorate_kv::Options;
use quorate_kv::watch::{Hub, HubOptions};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::config::ServerConfig;
use crate::context::Context;
use crate::grpc::Api;
use crate::leases::Leases;
use crate::machine::{KvMachine, News};
use crate::members::Directory;
use crate::{asks, hub, leases, listener, members, ready, space};

/// How long open connections may finish what they are at when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A client address could not be bound.
    #[error("cannot listen for clients on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The node did not start.
    #[error(transparent)]
    Node(#[from] StartError),
}

/// Why a server that was serving ended.
#[derive(Debug, Error)]
pub enum EndError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] ServeError),
    /// The node could not go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    handle: Handle<KvMachine>,
    running: Running,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    /// Accept connections.
    tasks: JoinSet<()>,
    /// What serves beside the connections: a server is not whole without any of it.
    helpers: JoinSet<()>,
    /// Every connection holds the other end: nothing is ever sent.
    connections: mpsc::Receiver<()>,
}

/// Starts a server and serves until `shutdown` completes or the node cannot go on. Leadership is handed over and everything is
/// written before it returns.
///
/// # Errors
/// If the server does not start, or ends by itself.
pub async fn serve(config: ServerConfig, shutdown: impl Future<Output = ()>) -> Result<(), EndError> {
    let mut server = start(config).await?;
    tokio::select! {
        ended = server.ended() => Ok(ended?),
        () = shutdown => Ok(server.shutdown().await?),
    }
}

/// Starts a server on the current tokio runtime. It answers from the moment this returns; requests
/// for data wait until this member has caught up with what it had shown before.
///
/// # Errors
/// If a client address is taken or the node does not start; nothing is left running then.
pub async fn start(config: ServerConfig) -> Result<Server, ServeError> {
    let listen = |(address, source)| ServeError::Listen { address, source };
    let sockets = listener::bind(&config.listen_clients).map_err(listen)?;
    let (addresses, listeners) = adopt(sockets, &config.listen_clients).map_err(listen)?;
    let places = Arc::new(Semaphore::new(places(raise_descriptor_limit())));
    let (news, leases) = (Arc::new(News::default()), Arc::new(Leases::default()));
    let (events, events_out) = mpsc::unbounded_channel();
    let machine = (news.clone(), leases.clone(), events);
    let mut at_open = None;
    let mut config = config;
    let options = Options::of_member(config.id.0);
    let (handle, running) = quorate::start(config.node(), |disk| {
        let machine = KvMachine::open(disk, options, machine.0, machine.1, machine.2)?;
        at_open = Some((machine.kv().revision(), machine.kv().compacted_revision()));
        Ok(machine)
    })
    .await?;
    // The data directory knows better than flags that may have been written before this member's cluster changed.
    let owner = handle.status();
    (config.id, config.cluster) = (owner.id, owner.cluster);
    let (revision, compacted) = at_open.expect("a node that has started has opened its machine");
    let options = HubOptions {
        fragment_bytes: config.max_request_bytes,
        ..HubOptions::default()
    };
    let hub = Hub::new(options, revision, compacted);
    let (hub, hub_task) = hub::hub(
        hub,
        handle.clone(),
        config.cluster,
        config.progress_interval,
        events_out,
    );

    let client_urls = match config.advertise_clients.is_empty() {
        true => addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect(),
        false => config.advertise_clients.clone(),
    };
    let (caught_up, ready) = watch::channel(false);
    let ctx = Arc::new(Context {
        ready,
        directory: Directory::new(config.id, &config.name, client_urls),
        status: handle.subscribe(),
        handle: handle.clone(),
        config,
        news,
        leases,
        hub,
        connections: Default::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let (connected, connections) = mpsc::channel(1);
    let mut helpers = JoinSet::new();
    helpers.spawn(hub_task.run());
    helpers.spawn(asks::serve(ctx.clone(), handle.serve_asks()));
    helpers.spawn(leases::run(ctx.clone()));
    helpers.spawn(members::introduce(ctx.clone()));
    helpers.spawn(members::publish(ctx.clone()));
    helpers.spawn(space::watch(ctx.clone()));
    helpers.spawn(ready::watch(ctx.clone(), caught_up));
    for listener in listeners {
        tasks.spawn(listener::accept(
            listener,
            Api { ctx: ctx.clone() },
            stopped.clone(),
            connected.clone(),
            places.clone(),
        ));
    }
    Ok(Server {
        handle,
        running,
        addresses,
        stop,
        tasks,
        helpers,
        connections,
    })
}

impl Server {
    /// The bound client addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The node.
    pub fn node(&self) -> &Handle<KvMachine> {
        &self.handle
    }

    /// Completes when the node has ended by itself, or had to be stopped since something else here panicked: a server without watches, or
    /// one whose leases never run out, looks healthy and is not. To be awaited at most once to its end.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn ended(&mut self) -> Result<(), Fatal> {
        let why = tokio::select! {
            ended = &mut self.running => return ended,
            why = panicked(&mut self.helpers) => why,
            why = panicked(&mut self.tasks) => why,
        };
        tracing::error!(%why, "a part of this server panicked: stopping");
        self.handle.shutdown().await;
        Err(Fatal::Panic(why))
    }

    /// Ends the server in order: no new connections, leadership handed over, everything written.
    ///
    /// # Errors
    /// If the node could not go on before or while it stopped.
    pub async fn shutdown(mut self) -> Result<(), Fatal> {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let Server {
            handle,
            running,
            mut connections,
            ..
        } = self;
        // Whatever is in flight is answered by the ending node, and the answers get a moment to leave.
        handle.shutdown().await;
        if tokio::time::timeout(FAREWELL, connections.recv()).await.is_err() {
            tracing::debug!("some clients did not hang up");
        }
        running.await
    }
}

/// Bound addresses and sockets of this runtime. Before the node starts: what fails here must leave nothing running.
fn adopt(
    sockets: Vec<std::net::TcpListener>,
    asked: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let adopt = |socket| {
        let listener = TcpListener::from_std(socket)?;
        Ok((listener.local_addr()?, listener))
    };
    let pairs = sockets.into_iter().zip(asked);
    pairs
        .map(|(socket, asked)| adopt(socket).map_err(|error| (*asked, error)))
        .collect()
}

/// Resolves when one of them has panicked, to the panic's message. That they end in order is nobody's concern.
async fn panicked(tasks: &mut JoinSet<()>) -> String {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => return error.to_string(),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Open files that are not for clients: log, store, peers, and some to spare. A member that could not open the next segment of its log would have to
/// end, and its clients would go on to the next one.
const RESERVED_FILES: u64 = 150;

/// How many clients may be connected when so many files may be open.
fn places(limit: Option<u64>) -> usize {
    let most = Semaphore::MAX_PERMITS;
    limit.map_or(most, |limit| {
        let left = limit.saturating_sub(RESERVED_FILES.min(limit / 2));
        usize::try_from(left).map_or(most, |left| left.min(most))
    })
}

/// Raises the soft limit of open files to the hard one, since every client connection is one, and returns it; `None` if there is none.
fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
            return limit.current;
        }
    }
    limit.maximum
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_base::NodeId;

    use super::*;
    use crate::config::Member;

    #[test]
    fn some_open_files_are_not_for_clients() {
        let limits = [None, Some(20_000), Some(1024), Some(256), Some(10)];
        assert_eq!(limits.map(places), [Semaphore::MAX_PERMITS, 19_850, 874, 128, 5]);
    }

    #[tokio::test]
    async fn a_part_that_panics_ends_the_server() {
        let dir = std::env::temp_dir().join(format!("quorate-server-{}", std::process::id()));
        let member = Member {
            name: "seven".into(),
            peer_urls: vec!["http://127.0.0.1:0".into()],
        };
        let members = BTreeMap::from([(NodeId(7), member)]);
        let mut config = ServerConfig::new(NodeId(7), 77, members, &dir);
        config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
        let mut server = start(config).await.unwrap();
        server.helpers.spawn(async { panic!("a bug of this test") });
        let ended = tokio::time::timeout(Duration::from_secs(120), server.ended()).await;
        let fatal = ended.expect("it ends").unwrap_err();
        assert!(
            matches!(&fatal, Fatal::Panic(why) if why.contains("a bug of this test")),
            "{fatal}"
        );
        assert!(server.node().status().stopping, "the node, too");
        drop(server);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
