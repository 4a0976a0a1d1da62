//! Starting a node: lock, identity, log, machine, threads, sockets, in this order; and what is left to hold on to.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quorate_base::{Disk, StateMachine};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::error::{Fatal, StartError};
use crate::handle::Handle;

/// Resolves when the node has ended, for whatever reason, and its data directory is free again: `Ok` after
/// [`Handle::shutdown`], an error if it could not go on. Dropping it lets the node run on.
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
/// node's disk, where the file names `wal-…`, `identity`, `LOCK` and `incoming-snapshot` are taken.
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
    _resources: Resources,
    _open: impl FnOnce(Arc<dyn Disk>) -> io::Result<S>,
) -> Result<(Handle<S>, Running), StartError> {
    match config.problem() {
        Some(problem) => Err(StartError::Config(problem)),
        None => Err(StartError::io("start the node")(
            io::ErrorKind::Unsupported.into(),
        )),
    }
}
