//! Connections that other members make: greeting, refusal or admission, then frames to the driver. Whatever else connects to the
//! peer port costs one short task for a few seconds at most, and nothing is lost by it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_base::{Index, NodeId};
use quorate_node::event::Event;
use quorate_node::handshake::{Answer, Hello, Refusal, Verdict};
use quorate_node::message::PeerMessage;
use quorate_node::roster::durable_term;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::asks::Asks;
use super::frame::{Arrived, ReadBuffer};
use super::links::{Links, Myself};
use super::registry::Registry;
use super::{Lane, MAX_FRAME};
use crate::metrics::Metrics;
use crate::transport::{Accepted, Stream, Transport};
use crate::work::{Report, Reports};

/// How long a greeting may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may be at their greeting at the same time.
const MAX_STRANGERS: usize = 64;
/// The same complaint about the same address is repeated at most this often.
const COMPLAINT_EVERY: Duration = Duration::from_secs(600);
/// How long one who was removed may still talk.
const REMOVAL_GRACE: Duration = Duration::from_secs(3);
/// Complaints remembered.
const MAX_COMPLAINTS: usize = 64;

/// Frames of one peer, for the driver.
pub(crate) struct Inbound {
    pub from: NodeId,
    pub messages: Vec<PeerMessage>,
}

/// What all listeners of a node share.
pub(crate) struct Porter {
    pub myself: Arc<Myself>,
    pub links: Links,
    /// Knows its peers again.
    pub registry: Arc<Registry>,
    pub frames: mpsc::Sender<Inbound>,
    pub asks: Arc<Asks>,
    pub metrics: Arc<Metrics>,
    pub reports: Reports,
    pub strangers: Arc<Semaphore>,
    /// The connection that counts, for each member and lane: a newer one ends the older.
    pub current: Mutex<BTreeMap<(NodeId, Lane), Current>>,
    pub complaints: Mutex<BTreeMap<(String, String), Instant>>,
}

/// A connection, and in which start of its dialler it was made.
pub(crate) struct Current {
    boot: u64,
    task: AbortHandle,
}

impl Porter {
    pub(crate) fn strangers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_STRANGERS))
    }

    /// Accepts for ever. Dropping the future ends all that was accepted.
    pub(crate) async fn listen(self: Arc<Self>, transport: Arc<dyn Transport>) {
        let mut guests = JoinSet::new();
        loop {
            match transport.accept().await {
                Ok(Accepted { stream, from }) => match self.strangers.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let porter = self.clone();
                        let (own, handle) = tokio::sync::oneshot::channel();
                        let guest = guests.spawn(async move {
                            let Ok(handle) = handle.await else { return };
                            porter.receive(stream, &from, permit, handle).await;
                        });
                        let _ = own.send(guest);
                    }
                    Err(_) => self.complain(&from, "too many connections that do not greet"),
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
        mut stream: Box<dyn Stream>,
        address: &str,
        permit: tokio::sync::OwnedSemaphorePermit,
        own: AbortHandle,
    ) {
        let admitted = timeout(PATIENCE, self.greet(&mut stream)).await;
        drop(permit);
        let (hello, lane) = match admitted {
            Ok(Ok(Some(admitted))) => admitted,
            Ok(Ok(None)) => return,
            Ok(Err(why)) => return self.complain(address, &why),
            Err(_) => return self.complain(address, "no greeting in time"),
        };
        let peer = hello.from;
        self.replace(peer, lane, hello.boot, own.clone());
        // Now that an older connection's end is not taken for the peer's.
        self.links.arrived(&hello);
        tokio::select! {
            read = self.read_frames(&mut stream, peer) => {
                if let Err(why) = read {
                    self.complain(address, &why);
                }
            }
            // It dials again, and hears why it is not let in: perhaps nobody else can tell it.
            () = self.removed(peer) => {}
        }
        let mut current = self.lock_current();
        if current
            .get(&(peer, lane))
            .is_some_and(|current| current.task.id() == own.id())
        {
            current.remove(&(peer, lane));
            if lane == Lane::Control {
                self.links.departed(peer);
            }
        }
    }

    /// From now on this connection counts. Others of the same lane are no more than leftovers, and those of another start are another process's.
    fn replace(&self, peer: NodeId, lane: Lane, boot: u64, task: AbortHandle) {
        let mut current = self.lock_current();
        current.retain(|(id, other), older| {
            let stays = *id != peer || (*other != lane && older.boot == boot);
            if !stays {
                older.task.abort();
            }
            stays
        });
        current.insert((peer, lane), Current { boot, task });
    }

    /// Resolves when the peer has been removed and had the time to hear of it from its leader.
    async fn removed(&self, peer: NodeId) {
        self.links.removed(peer).await;
        tokio::time::sleep(REMOVAL_GRACE).await;
    }

    /// Whether no other member is connected.
    pub(crate) fn is_deserted(&self) -> bool {
        self.lock_current().is_empty()
    }

    fn lock_current(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, Lane), Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges greetings; an error is the reason for the refusal, which the other side has heard. `None`: it only had a question.
    async fn greet(&self, stream: &mut Box<dyn Stream>) -> Result<Option<(Hello, Lane)>, String> {
        let gone = |_| "it hung up during the greeting".to_owned();
        let mut bytes = Vec::new();
        let hello = loop {
            let needs = match Hello::needs(&bytes) {
                Ok(needs) if needs == bytes.len() => break Hello::decode(Bytes::from(bytes)),
                Ok(needs) => needs,
                Err(refusal) => break Err(refusal),
            };
            let have = bytes.len();
            bytes.resize(needs, 0);
            stream.read_exact(&mut bytes[have..]).await.map_err(gone)?;
        };
        let answered = match &hello {
            Ok(hello) if hello.is_inquiry() => self.links.welcome(&self.myself).map(Answer::Welcome),
            Ok(hello) => self.admit(hello).await.map(|()| Answer::Accepted),
            Err(refusal) => Err(*refusal),
        };
        let answer = answered.as_ref().map_or_else(Answer::from, Clone::clone);
        let answer = answer.encode();
        let written = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        let written = written.await;
        match (hello, answered) {
            (_, Err(refusal)) => {
                if refusal.verdict() == Verdict::Final {
                    self.metrics.impostors_refused.add(1);
                }
                Err(refusal.to_string())
            }
            (Ok(hello), Ok(Answer::Accepted)) => {
                written.map_err(gone)?;
                let lane = Lane::from_byte(hello.lane).expect("a greeting without a lane is not admitted");
                Ok(Some((hello, lane)))
            }
            _ => Ok(None),
        }
    }

    /// Whether whoever says this may come in. If so, that is on record.
    async fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        self.links.check(hello, &self.myself)?;
        Lane::from_byte(hello.lane).ok_or(Refusal::Lane)?;
        self.registry.admit(hello.from, hello).await?;
        let (peer, features) = (hello.from, hello.features);
        (self.reports)(Report::Events(vec![Event::Met { peer, features }]));
        Ok(())
    }

    /// Reads until the connection ends; an error is worth a complaint.
    async fn read_frames(&self, stream: &mut Box<dyn Stream>, from: NodeId) -> Result<(), String> {
        let mut buffer = ReadBuffer::new(MAX_FRAME);
        let metrics = self.metrics.peer(from);
        loop {
            match buffer.fill(stream).await {
                // An end or a break is the dialler's to report; the next connection comes by itself.
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => metrics.received_bytes.add(count as u64),
            }
            let mut messages = Vec::new();
            while let Some(frame) = buffer.next().map_err(|error| error.to_string())? {
                match frame {
                    Arrived::Message(message) => messages.push(message),
                    Arrived::Ask(ask) => self.asks.arrived(from, ask),
                }
            }
            if let Some(term) = messages.iter().filter_map(durable_term).max() {
                self.registry.note(from, term, Index::ZERO);
            }
            if !messages.is_empty() && self.frames.send(Inbound { from, messages }).await.is_err() {
                return Ok(());
            }
        }
    }

    /// One line for each address and reason, and not again for a while.
    fn complain(&self, address: &str, why: &str) {
        self.metrics.peer_refused.add(1);
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|_, said| said.elapsed() < COMPLAINT_EVERY);
        if complaints.len() >= MAX_COMPLAINTS {
            return;
        }
        let host = address
            .parse()
            .map_or_else(|_| address.to_owned(), |known: SocketAddr| known.ip().to_string());
        let key = (host, why.to_owned());
        if let std::collections::btree_map::Entry::Vacant(new) = complaints.entry(key) {
            new.insert(Instant::now());
            tracing::warn!(%address, %why, "a connection on the peer port was refused");
        }
    }
}
