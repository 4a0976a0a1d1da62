//! Connections that other members make: greeting, refusal or admission, then frames to the driver. Whatever else connects to the
//! peer port costs one short task for a few seconds at most, and nothing is lost by it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_node::handshake::{HELLO_LEN, Hello, encode_answer};
use quorate_node::message::PeerMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::asks::Asks;
use super::frame::{Arrived, ReadBuffer};
use super::{Lane, tune};
use crate::metrics::Metrics;

/// How long a greeting may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may be at their greeting at the same time.
const MAX_STRANGERS: usize = 64;
/// The same complaint about the same address is repeated at most this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(600);
/// Complaints remembered.
const MAX_COMPLAINTS: usize = 64;

/// Frames of one peer, for the driver.
pub(crate) struct Inbound {
    pub from: NodeId,
    pub messages: Vec<PeerMessage>,
}

/// What all listeners of a node share.
pub(crate) struct Porter {
    pub cluster: u64,
    pub me: NodeId,
    pub max_frame: usize,
    /// The members that may come in, and whom to tell that they did.
    pub members: BTreeMap<NodeId, Arc<Notify>>,
    pub frames: mpsc::Sender<Inbound>,
    pub asks: Arc<Asks>,
    pub metrics: Arc<Metrics>,
    pub dead_after: Duration,
    pub strangers: Arc<Semaphore>,
    /// The connection that counts, for each member and lane: a newer one ends the older.
    pub current: Mutex<BTreeMap<(NodeId, Lane), AbortHandle>>,
    pub complaints: Mutex<BTreeMap<(IpAddr, String), Instant>>,
}

impl Porter {
    pub(crate) fn strangers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_STRANGERS))
    }

    /// Accepts for ever. Dropping the future ends all that was accepted.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut guests = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.strangers.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let porter = self.clone();
                        let (own, handle) = tokio::sync::oneshot::channel();
                        let guest = guests.spawn(async move {
                            let Ok(handle) = handle.await else { return };
                            porter.receive(stream, address, permit, handle).await;
                        });
                        let _ = own.send(guest);
                    }
                    Err(_) => self.complain(address, "too many connections that do not greet"),
                },
                // Out of file descriptors, most likely: give others time to close theirs.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while guests.try_join_next().is_some() {}
        }
    }

    async fn receive(
        &self,
        mut stream: TcpStream,
        address: SocketAddr,
        permit: tokio::sync::OwnedSemaphorePermit,
        own: AbortHandle,
    ) {
        let admitted = timeout(PATIENCE, self.greet(&mut stream)).await;
        drop(permit);
        let (peer, lane) = match admitted {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(why)) => return self.complain(address, &why),
            Err(_) => return self.complain(address, "no greeting in time"),
        };
        let older = self.lock_current().insert((peer, lane), own.clone());
        if let Some(older) = older {
            older.abort();
        }
        if let Err(why) = self.read_frames(&mut stream, peer).await {
            self.complain(address, &why);
        }
        let mut current = self.lock_current();
        if current
            .get(&(peer, lane))
            .is_some_and(|handle| handle.id() == own.id())
        {
            current.remove(&(peer, lane));
        }
    }

    fn lock_current(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, Lane), AbortHandle>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges greetings; an error is the reason for the refusal, which the other side has heard.
    async fn greet(&self, stream: &mut TcpStream) -> Result<(NodeId, Lane), String> {
        let gone = |_| "it hung up during the greeting".to_owned();
        tune(stream, self.dead_after).map_err(gone)?;
        let mut bytes = vec![0; HELLO_LEN + 1];
        // Garbage may be short: what cannot become a greeting need not be waited for.
        stream.read_exact(&mut bytes[..1]).await.map_err(gone)?;
        if bytes[0] == quorate_node::handshake::MAGIC[0] {
            stream.read_exact(&mut bytes[1..]).await.map_err(gone)?;
        }
        let lane = bytes.pop().and_then(Lane::from_byte);
        let hello = Hello::decode(Bytes::from(bytes));
        let checked = hello.and_then(|hello| hello.check(self.cluster, self.me).map(|()| hello));
        match checked {
            Err(refusal) => {
                let _ = stream.write_all(&encode_answer(&Err(refusal))).await;
                Err(refusal.to_string())
            }
            Ok(hello) => {
                let guest = self.members.get(&hello.from).zip(lane).ok_or_else(|| match lane {
                    Some(_) => format!("{:016x} is not a member of this cluster", hello.from.0),
                    None => "this kind of connection is not known here".to_owned(),
                });
                let (hint, lane) = match guest {
                    Ok(guest) => guest,
                    Err(why) => {
                        let _ = stream.write_all(&refusal(&why)).await;
                        return Err(why);
                    }
                };
                stream.write_all(&encode_answer(&Ok(()))).await.map_err(gone)?;
                hint.notify_one();
                Ok((hello.from, lane))
            }
        }
    }

    /// Reads until the connection ends; an error is worth a complaint.
    async fn read_frames(&self, stream: &mut TcpStream, from: NodeId) -> Result<(), String> {
        let mut buffer = ReadBuffer::new(self.max_frame);
        let received = &self.metrics.peers[&from].received_bytes;
        loop {
            match buffer.fill(stream).await {
                // An end or a break is the dialler's to report; the next connection comes by itself.
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => received.add(count as u64),
            }
            let mut messages = Vec::new();
            while let Some(frame) = buffer.next().map_err(|error| error.to_string())? {
                match frame {
                    Arrived::Message(message) => messages.push(message),
                    Arrived::Ask(ask) => self.asks.arrived(from, ask),
                }
            }
            if !messages.is_empty() && self.frames.send(Inbound { from, messages }).await.is_err() {
                return Ok(());
            }
        }
    }

    /// One line for each address and reason, and not again for a while.
    fn complain(&self, address: SocketAddr, why: &str) {
        self.metrics.peer_refused.add(1);
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|_, said| said.elapsed() < COMPLAINT_EVERY);
        if complaints.len() >= MAX_COMPLAINTS {
            return;
        }
        let key = (address.ip(), why.to_owned());
        if let std::collections::btree_map::Entry::Vacant(new) = complaints.entry(key) {
            new.insert(Instant::now());
            tracing::warn!(%address, %why, "a connection on the peer port was refused");
        }
    }
}

/// A refusal for a reason that the handshake itself does not know.
fn refusal(why: &str) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(why.len() as u32).to_le_bytes());
    bytes.extend_from_slice(why.as_bytes());
    bytes
}
