//! The same as [`Config`] and [`start_with`], written from left to right.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use quorate_base::{Disk, NodeId, StateMachine};

use crate::config::Config;
use crate::error::StartError;
use crate::handle::Handle;
use crate::join::Joined;
use crate::membership::Member;
use crate::start::{Resources, Running, start_with};
use crate::transport::Transport;

/// A node to be started.
///
/// ```no_run
/// use quorate::{Builder, Checkpointed, NodeId};
/// # use quorate::State;
/// # async fn build<Counter: State + Default>() -> Result<(), Box<dyn std::error::Error>> {
/// let (node, running) = Builder::new(NodeId(1), 42, "data/n1")
///     .member(NodeId(1), "10.0.0.1:7000")
///     .member(NodeId(2), "10.0.0.2:7000")
///     .member(NodeId(3), "10.0.0.3:7000")
///     .listen("10.0.0.1:7000".parse()?)
///     .start(|disk| Checkpointed::open(disk, Counter::default()))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    config: Config,
    resources: Resources,
}

impl Builder {
    /// The member `id` of the cluster `cluster`, with its data in `data_dir`. See [`Config::new`] for what is usual otherwise.
    pub fn new(id: NodeId, cluster: u64, data_dir: impl Into<PathBuf>) -> Builder {
        let name = format!("n{id}");
        Builder {
            config: Config::new(id, cluster, name, BTreeMap::<_, Member>::new(), data_dir),
            resources: Resources::default(),
        }
    }

    /// A member that was [added](crate::MemberChange::AddLearner) to a running cluster, with an empty directory. `joined` is what
    /// [`join`](crate::join) has found out.
    pub fn joining(joined: Joined, data_dir: impl Into<PathBuf>) -> Builder {
        let mut builder = Builder::new(joined.id, joined.cluster, data_dir);
        builder.config.members = joined.members;
        builder.config.join = true;
        builder
    }

    /// One of the members that the cluster is founded with, and where its peer listener is reached (`host:port`). Told of all of them, this
    /// one included.
    pub fn member(mut self, id: NodeId, member: impl Into<Member>) -> Builder {
        self.config.members.insert(id, member.into());
        self
    }

    /// Listens for peers here.
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.config.listen_peers.push(address);
        self
    }

    /// Listens for peers on a socket that is already bound.
    pub fn listener(mut self, listener: TcpListener) -> Builder {
        self.resources.listeners.push(listener);
        self
    }

    /// Connects to the other members by this in place of TCP; whatever listens is its own affair.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Builder {
        self.config.transport = Some(transport);
        self
    }

    /// Keeps everything on this disk in place of the data directory, which is neither locked nor touched then.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Builder {
        self.resources.disk = Some(disk);
        self
    }

    /// Sets anything else of the configuration: `.configure(|config| config.timeout = Duration::from_secs(2))`.
    pub fn configure(mut self, set: impl FnOnce(&mut Config)) -> Builder {
        set(&mut self.config);
        self
    }

    /// Starts the node, as [`start`](crate::start) does.
    ///
    /// # Errors
    /// If the node cannot start; nothing is left running then.
    pub async fn start<S: StateMachine>(
        self,
        open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
    ) -> Result<(Handle<S>, Running), StartError> {
        start_with(self.config, self.resources, open).await
    }
}
