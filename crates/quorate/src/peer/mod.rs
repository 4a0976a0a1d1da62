//! Everything between members: framing, connections, queues, handshakes. What the frames mean is the node's affair.
//!
//! To every other member this one keeps two connections that it dials and writes on: *control*, always, and *bulk* for
//! snapshots, so that a long transfer never holds up a heartbeat. What the other side has to say comes on its own two.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_base::NodeId;
use quorate_node::message::PeerMessage;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::work::Reports;

pub(crate) mod asks;
mod dial;
mod frame;
mod listen;
mod outbox;

use asks::{AskRoad, Asks};
use dial::Dialer;
pub(crate) use listen::Inbound;
use listen::Porter;
use outbox::{Item, Outbox};

/// Batches of frames that may wait for the driver before a connection is no longer read.
const MAX_INBOUND: usize = 256;

/// Which of the two connections; the byte after the greeting.
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

/// The queues to all other members.
pub(crate) struct Links(BTreeMap<NodeId, [Arc<Outbox>; 2]>);

impl Links {
    pub(crate) fn new(peers: impl IntoIterator<Item = NodeId>) -> Links {
        Links(peers.into_iter().map(|peer| (peer, Default::default())).collect())
    }

    /// The roads for asks: the control connections.
    pub(crate) fn roads(&self) -> BTreeMap<NodeId, Arc<dyn AskRoad>> {
        let road = |(peer, lanes): (&NodeId, &[Arc<Outbox>; 2])| {
            (*peer, lanes[Lane::Control as usize].clone() as Arc<dyn AskRoad>)
        };
        self.0.iter().map(road).collect()
    }

    /// Queues a message, or gives it back.
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) -> Result<(), PeerMessage> {
        let Some(lanes) = self.0.get(&to) else {
            return Err(message);
        };
        let lane = match message {
            // The beginning travels before the pieces, on the same connection.
            PeerMessage::SnapshotBegin { .. } | PeerMessage::SnapshotChunk { .. } => Lane::Bulk,
            _ => Lane::Control,
        };
        lanes[lane as usize]
            .push(Item::Message(message))
            .map_err(|item| match item {
                Item::Message(message) => message,
                Item::Ask(_) => unreachable!("a message went in"),
            })
    }
}

/// All connections of a node. Dropping it ends them.
pub(crate) struct Network {
    _tasks: JoinSet<()>,
    /// Keeps the way of frames open even if nothing listens.
    _porter: Arc<Porter>,
}

impl Network {
    /// Listens and dials. Frames come out of the receiver, everything else by `reports`.
    pub(crate) fn start(
        config: &Config,
        boot: u64,
        listeners: Vec<TcpListener>,
        links: &Links,
        asks: &Arc<Asks>,
        metrics: &Arc<Metrics>,
        reports: &Reports,
    ) -> io::Result<(Network, mpsc::Receiver<Inbound>)> {
        let (frames, inbound) = mpsc::channel(MAX_INBOUND);
        let mut tasks = JoinSet::new();
        let hints: BTreeMap<NodeId, Arc<Notify>> =
            links.0.keys().map(|peer| (*peer, Arc::default())).collect();
        let dead_after = (config.election * 3).max(Duration::from_secs(3));
        let porter = Arc::new(Porter {
            cluster: config.cluster,
            me: config.id,
            max_frame: max_frame(config),
            members: hints.clone(),
            frames,
            asks: asks.clone(),
            metrics: metrics.clone(),
            dead_after,
            strangers: Porter::strangers(),
            current: Mutex::default(),
            complaints: Mutex::default(),
        });
        for listener in listeners {
            listener.set_nonblocking(true)?;
            tasks.spawn(
                porter
                    .clone()
                    .listen(tokio::net::TcpListener::from_std(listener)?),
            );
        }
        for (peer, lanes) in &links.0 {
            for lane in [Lane::Control, Lane::Bulk] {
                let dialer = Dialer {
                    peer: *peer,
                    address: config.members[peer].clone(),
                    lane,
                    cluster: config.cluster,
                    me: config.id,
                    boot,
                    outbox: lanes[lane as usize].clone(),
                    hint: hints[peer].clone(),
                    asks: asks.clone(),
                    metrics: metrics.clone(),
                    reports: reports.clone(),
                    dead_after,
                    jitter: Jitter(boot ^ peer.0 | 1),
                };
                match lane {
                    Lane::Control => tasks.spawn(dialer.run_control()),
                    Lane::Bulk => tasks.spawn(dialer.run_bulk()),
                };
            }
        }
        Ok((
            Network {
                _tasks: tasks,
                _porter: porter,
            },
            inbound,
        ))
    }
}

/// The longest frame taken from a peer: several times what this node would itself send.
pub(crate) fn max_frame(config: &Config) -> usize {
    2 * config.max_proposal + (8 << 20)
}

/// Small frames must not wait for company, and a peer whose machine has vanished must be noticed although it says nothing.
fn tune(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let millis = u32::try_from(dead_after.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_keepidle(stream, dead_after.max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = dead_after;
    Ok(())
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
