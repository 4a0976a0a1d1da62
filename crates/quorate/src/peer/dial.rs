//! Connections that this member makes: to every other one a control connection, always, and a bulk connection for snapshots while
//! there is something to send. This member only writes on them; the other side dials for its own.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_base::NodeId;
use quorate_node::event::Event;
use quorate_node::handshake::{Answer, Hello, Verdict};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::frame::WriteBuffer;
use super::inquire::exchange;
use super::links::{Dialing, Turn};
use super::outbox::{Item, Outbox};
use super::{Jitter, Lane};
use crate::error::Fatal;
use crate::metrics::PeerMetrics;
use crate::transport::Stream;
use crate::work::Report;

/// How long a connection and its handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// A connection that lasted so long is dialled again without a pause when it ends: it may be the leader's, and every moment counts.
const PROVEN: Duration = Duration::from_millis(50);
/// A bulk connection without work is closed after this.
const BULK_IDLE: Duration = Duration::from_secs(30);
/// How long a member that has left is still sent what was queued for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Dials one peer on one lane.
pub(crate) struct Dialer {
    pub peer: NodeId,
    pub lane: Lane,
    /// Not before the dialer that was here before has gone.
    pub turn: Arc<Turn>,
    /// `host:port`, tried in turn.
    pub addresses: watch::Receiver<Vec<String>>,
    /// True: the peer is no member any more.
    pub leaving: watch::Receiver<bool>,
    pub outbox: Arc<Outbox>,
    /// Rung when the peer has connected here: it is worth trying at once.
    pub hint: Arc<Notify>,
    pub metrics: Arc<PeerMetrics>,
    pub jitter: Jitter,
    pub shared: Arc<Dialing>,
}

/// An open connection.
struct Connection {
    stream: Box<dyn Stream>,
    address: String,
    /// The version of the protocol that both sides speak.
    protocol: u32,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// Perhaps later.
    Now(String),
    /// Perhaps later, too; but where the peer should listen, the system there says that nobody does.
    Nobody(String),
    /// The other side speaks an older protocol.
    Protocol(String),
    /// The other side never wants to hear of this node again.
    ForGood(String),
    /// This node was removed from the cluster.
    Removed,
}

impl Dialer {
    /// Resolves when the peer is no member any more. Asked first wherever there is a choice: with the peer its addresses go, which looks like
    /// a change of them.
    fn left(&self) -> impl Future<Output = ()> + use<> {
        let mut leaving = self.leaving.clone();
        async move {
            // Without its sender everything ends.
            let _ = leaving.wait_for(|leaving| *leaving).await;
        }
    }

    /// Keeps the control connection up until the peer leaves.
    pub(crate) async fn run_control(mut self) {
        let turn = self.turn.clone();
        let _turn = turn.lock().await;
        let mut pause = PAUSES.0;
        let mut said = String::new();
        // There was a connection, and it broke.
        let mut lost = false;
        loop {
            let connected = tokio::select! {
                biased;
                () = self.left() => return,
                connected = self.connect() => connected,
            };
            if lost && matches!(connected, Err(Failed::Nobody(_))) {
                (self.shared.reports)(Report::Events(vec![Event::Gone(self.peer)]));
            }
            match connected {
                Ok(connection) => {
                    said = String::new();
                    let since = Instant::now();
                    self.up(&connection.address);
                    let why = self.carry(connection, None).await;
                    self.down(&why);
                    lost = true;
                    // One that breaks at once, again and again, is not to be dialled without a pause.
                    if since.elapsed() >= PROVEN {
                        pause = PAUSES.0;
                        continue;
                    }
                }
                Err(end @ (Failed::ForGood(_) | Failed::Removed)) => return self.end_node(end),
                Err(Failed::Now(why) | Failed::Nobody(why) | Failed::Protocol(why)) => {
                    self.complain(&mut said, why)
                }
            }
            let mut addresses = self.addresses.clone();
            addresses.mark_unchanged();
            let hint = self.hint.clone();
            let pausing = self.jitter.around(pause);
            tokio::select! {
                biased;
                () = self.left() => return,
                () = hint.notified() => {}
                _ = addresses.changed() => {}
                () = tokio::time::sleep(pausing) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// The same reason again is no news.
    fn complain(&self, said: &mut String, why: String) {
        if *said != why {
            tracing::warn!(peer = %format_args!("{:016x}", self.peer.0), addresses = ?*self.addresses.borrow(), %why, "peer is not reachable");
            *said = why;
        }
    }

    /// This node must not go on: a peer has recorded that it is not, or no longer, what it claims to be, or knows that it was removed.
    fn end_node(&self, end: Failed) {
        let peer = self.peer.0;
        (self.shared.reports)(match end {
            Failed::Removed => Report::Failed(Fatal::Removed),
            Failed::ForGood(why) | Failed::Now(why) | Failed::Nobody(why) | Failed::Protocol(why) => {
                Report::Failed(Fatal::Refused(format!(
                    "member {peer:016x} does not let it in: {why}"
                )))
            }
        });
    }

    fn up(&self, address: &str) {
        tracing::info!(peer = %format_args!("{:016x}", self.peer.0), %address, "peer is connected");
        self.metrics.connects.add(1);
        self.metrics.connected.set(1);
        self.outbox.open();
        (self.shared.reports)(Report::Events(vec![Event::LinkUp(self.peer)]));
    }

    fn down(&self, why: &str) {
        tracing::warn!(peer = %format_args!("{:016x}", self.peer.0), %why, "peer is disconnected");
        self.metrics.connected.set(0);
        let mut events = self.dropped(self.outbox.close());
        events.push(Event::LinkDown(self.peer));
        (self.shared.reports)(Report::Events(events));
        self.shared.asks.lost(self.peer);
    }

    /// Connects whenever there is something to send, until the peer leaves.
    pub(crate) async fn run_bulk(self) {
        let _turn = self.turn.lock().await;
        self.outbox.open();
        loop {
            let items = tokio::select! {
                biased;
                () = self.left() => break,
                items = self.outbox.wait() => items,
            };
            let connected = tokio::select! {
                biased;
                () = self.left() => Err(Failed::Now(String::new())),
                connected = self.connect() => connected,
            };
            match connected {
                Ok(connection) => {
                    self.carry(connection, Some(items)).await;
                }
                Err(failed) => {
                    if matches!(failed, Failed::ForGood(_) | Failed::Removed) {
                        self.end_node(failed);
                    }
                    self.report_dropped(items);
                }
            }
            // What was queued behind a connection that broke has not left.
            self.report_dropped(self.outbox.take());
        }
        self.report_dropped(self.outbox.close());
    }

    fn dropped(&self, items: Vec<Item>) -> Vec<Event> {
        let lost = items.into_iter().filter_map(|item| match item {
            Item::Message(message) => Some(Event::Dropped {
                to: self.peer,
                message,
            }),
            Item::Ask(_) => None,
        });
        let lost: Vec<Event> = lost.collect();
        self.metrics.dropped.add(lost.len() as u64);
        lost
    }

    fn report_dropped(&self, items: Vec<Item>) {
        let events = self.dropped(items);
        if !events.is_empty() {
            (self.shared.reports)(Report::Events(events));
        }
    }

    /// Tries all addresses, one after the other.
    async fn connect(&self) -> Result<Connection, Failed> {
        let addresses = self.addresses.borrow().clone();
        let mut failed = "its address is not known".to_owned();
        let mut nobody = !addresses.is_empty();
        for address in addresses {
            match self.connect_to(&address).await {
                Err(Failed::Nobody(why)) => failed = why,
                Err(Failed::Now(why) | Failed::Protocol(why)) => (failed, nobody) = (why, false),
                done => return done,
            }
        }
        Err(match nobody {
            true => Failed::Nobody(failed),
            false => Failed::Now(failed),
        })
    }

    /// Greets as the latest protocol does, and if the other side does not know that, as the one before.
    async fn connect_to(&self, address: &str) -> Result<Connection, Failed> {
        let hello = self.shared.myself.greet(self.peer, self.lane);
        match self.greet(address, &hello).await {
            Err(Failed::Protocol(_)) if hello.protocol > 1 => {
                self.greet(address, &hello.without_papers()).await
            }
            done => done,
        }
    }

    async fn greet(&self, address: &str, hello: &Hello) -> Result<Connection, Failed> {
        let greeting = async {
            let connecting = self.shared.transport.connect(address);
            let mut stream = connecting.await.map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused => Failed::Nobody(error.to_string()),
                _ => Failed::Now(error.to_string()),
            })?;
            let answer = exchange(&mut stream, hello).await.map_err(Failed::Now)?;
            Ok((stream, answer))
        };
        let (stream, answer) = match timeout(PATIENCE, greeting).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(failed)) => return Err(failed),
            Err(_) => return Err(Failed::Now("no answer".to_owned())),
        };
        match answer {
            Answer::Accepted => Ok(Connection {
                stream,
                address: address.to_owned(),
                protocol: hello.protocol,
            }),
            Answer::Refused { verdict, why } => Err(match verdict {
                Verdict::Final => Failed::ForGood(why),
                Verdict::Removed => Failed::Removed,
                Verdict::Retry => Failed::Now(format!("refused: {why}")),
                Verdict::Protocol => Failed::Protocol(format!("refused: {why}")),
            }),
            Answer::Welcome(_) => Err(Failed::Now("it answers another question".to_owned())),
        }
    }

    /// Writes what comes until the connection ends, and answers why it did. A bulk connection ends for want of work, too.
    async fn carry(&self, connection: Connection, first: Option<Vec<Item>>) -> String {
        let (mut reading, mut writing) = tokio::io::split(connection.stream);
        let mut unexpected = [0; 1];
        let bulk = first.is_some();
        let write = async {
            let mut buffer = WriteBuffer::new(connection.protocol);
            let mut next = first;
            loop {
                let items = match next.take() {
                    Some(items) => items,
                    None if bulk => match timeout(BULK_IDLE, self.outbox.wait()).await {
                        Ok(items) => items,
                        Err(_) => return "idle".to_owned(),
                    },
                    None => self.outbox.wait().await,
                };
                let unknown: Vec<Item> = items.into_iter().filter(|item| !buffer.push(item)).collect();
                self.report_dropped(unknown);
                match buffer.write_to(&mut writing).await {
                    Ok(bytes) => self.metrics.sent_bytes.add(bytes),
                    // Which of them the peer has is not known, so none is reported as unsent: a proposal sent once more could be done
                    // twice. The end of the link says what there is to say; snapshots have timers.
                    Err(error) => return error.to_string(),
                }
            }
        };
        let farewell = async {
            self.left().await;
            let _ = timeout(FAREWELL, self.outbox.drained()).await;
        };
        tokio::select! {
            why = write => why,
            () = farewell => "it is no member any more".to_owned(),
            // Nothing is ever sent this way: whatever comes is the end.
            read = reading.read(&mut unexpected) => match read {
                Ok(0) => "closed by the peer".to_owned(),
                Ok(_) => "the peer speaks where it should listen".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
