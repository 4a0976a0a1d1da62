//! Everything between members: framing, connections, queues, handshakes. What the frames mean is the node's affair.
//!
//! To every other member this one keeps two connections that it dials and writes on: *control*, always, and *bulk* for
//! snapshots, so that a long transfer never holds up a heartbeat. What the other side has to say comes on its own two.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{Config, MAX_PROPOSAL};
use crate::error::Fatal;
use crate::metrics::Metrics;
use crate::transport::Transport;
use crate::work::{Report, Reports, panic_text};

pub(crate) mod asks;
mod dial;
mod frame;
pub(crate) mod inquire;
mod links;
mod listen;
mod outbox;
mod registry;

use asks::Asks;
use links::Dialing;
pub(crate) use links::{Links, Myself};
pub(crate) use listen::Inbound;
use listen::Porter;
pub(crate) use registry::Registry;

/// Batches of frames that may wait for the driver before a connection is no longer read.
const MAX_INBOUND: usize = 256;

/// Which of the two connections; a byte of the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Lane {
    Control = 0,
    Bulk = 1,
}

impl Lane {
    fn from_byte(byte: u8) -> Option<Lane> {
        match byte {
            0 => Some(Lane::Control),
            1 => Some(Lane::Bulk),
            _ => None,
        }
    }
}

/// All connections of a node. Dropping it ends them.
pub(crate) struct Network {
    _tasks: JoinSet<()>,
    /// Keeps the way of frames open even if nothing listens.
    porter: Arc<Porter>,
    links: Links,
}

impl Network {
    /// Resolves when nobody is connected here any more.
    pub(crate) async fn deserted(&self) {
        while !self.porter.is_deserted() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A part without which a node looks healthy and is not: a panic in it ends the node. (One in a connection that was accepted ends that connection:
/// strangers can make those.)
async fn vital(part: impl Future<Output = ()> + Send + 'static, reports: Reports) {
    // A set, since it takes its tasks with it when it is dropped.
    let mut task = JoinSet::new();
    task.spawn(part);
    if let Some(Err(error)) = task.join_next().await
        && let Ok(panic) = error.try_into_panic()
    {
        reports(Report::Failed(Fatal::Panic(panic_text(&*panic))));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.links.end();
    }
}

/// What a network needs.
pub(crate) struct Setup {
    pub myself: Arc<Myself>,
    pub links: Links,
    pub registry: Arc<Registry>,
    pub asks: Arc<Asks>,
    pub metrics: Arc<Metrics>,
    pub reports: Reports,
    /// Makes and takes the connections.
    pub transport: Arc<dyn Transport>,
}

impl Network {
    /// Listens and dials. Frames come out of the receiver, everything else by `reports`.
    pub(crate) fn start(setup: Setup) -> (Network, mpsc::Receiver<Inbound>) {
        let (frames, inbound) = mpsc::channel(MAX_INBOUND);
        let mut tasks = JoinSet::new();
        let porter = Arc::new(Porter {
            myself: setup.myself.clone(),
            links: setup.links.clone(),
            registry: setup.registry.clone(),
            frames,
            asks: setup.asks.clone(),
            metrics: setup.metrics.clone(),
            reports: setup.reports.clone(),
            strangers: Porter::strangers(),
            current: Mutex::default(),
            complaints: Mutex::default(),
        });
        let listen = porter.clone().listen(setup.transport.clone());
        tasks.spawn(vital(listen, setup.reports.clone()));
        tasks.spawn(vital(setup.registry.clone().keep(), setup.reports.clone()));
        let links = setup.links;
        links.begin(Dialing {
            myself: setup.myself,
            asks: setup.asks,
            metrics: setup.metrics,
            reports: setup.reports,
            registry: setup.registry,
            transport: setup.transport,
        });
        let network = Network {
            _tasks: tasks,
            porter,
            links,
        };
        (network, inbound)
    }
}

/// A connection is given up when the other machine has not answered for so long.
pub(crate) fn dead_after(config: &Config) -> Duration {
    (config.election * 3).max(Duration::from_secs(3))
}

/// The longest frame taken from a peer: several times what any member may be configured to send. Not what this one is: members may
/// differ in that, while it is changed one by one for example, and whoever closed a connection for an entry of the log would close it again for
/// the same entry. A promise of length costs nothing, see [`frame`].
const MAX_FRAME: usize = 2 * MAX_PROPOSAL + (8 << 20);

/// The longest request or answer that this node would itself send.
pub(crate) fn max_ask(config: &Config) -> usize {
    config.max_proposal + (4 << 20)
}

/// Spreads retries so that members do not dial in step. Its quality does not matter.
pub(crate) struct Jitter(u64);

impl Jitter {
    /// Between half and one and a half of `pause`.
    fn around(&mut self, pause: Duration) -> Duration {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        pause / 2 + pause.mul_f64((self.0 % 1024) as f64 / 1024.0)
    }
}
