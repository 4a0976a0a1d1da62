//! Connections that this member makes: to every other one a control connection, always, and a bulk connection for snapshots while
//! there is something to send. This member only writes on them; the other side dials for its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_base::NodeId;
use quorate_node::event::Event;
use quorate_node::handshake::{ANSWER_HEAD, Hello, answer_text_len, decode_answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::asks::Asks;
use super::frame::WriteBuffer;
use super::outbox::{Item, Outbox};
use super::{Jitter, Lane, tune};
use crate::metrics::{Metrics, PeerMetrics};
use crate::work::{Report, Reports};

/// How long a connection and its handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A bulk connection without work is closed after this.
const BULK_IDLE: Duration = Duration::from_secs(30);

/// Dials one peer on one lane.
pub(crate) struct Dialer {
    pub peer: NodeId,
    pub address: String,
    pub lane: Lane,
    pub cluster: u64,
    pub me: NodeId,
    pub boot: u64,
    pub outbox: Arc<Outbox>,
    /// Rung when the peer has connected here: it is worth trying at once.
    pub hint: Arc<Notify>,
    pub asks: Arc<Asks>,
    pub metrics: Arc<Metrics>,
    pub reports: Reports,
    pub dead_after: Duration,
    pub jitter: Jitter,
}

impl Dialer {
    fn peer_metrics(&self) -> &PeerMetrics {
        &self.metrics.peers[&self.peer]
    }

    /// Keeps the control connection up for ever.
    pub(crate) async fn run_control(mut self) {
        let mut pause = PAUSES.0;
        let mut said = String::new();
        loop {
            match self.connect().await {
                Ok(stream) => {
                    (pause, said) = (PAUSES.0, String::new());
                    self.up();
                    let why = self.carry(stream, None).await;
                    self.down(&why);
                }
                // The same reason again is no news.
                Err(why) if why != said => {
                    tracing::warn!(peer = %format_args!("{:016x}", self.peer.0), address = %self.address, %why, "peer is not reachable");
                    said = why;
                }
                Err(_) => {}
            }
            let hint = self.hint.clone();
            let _ = timeout(self.jitter.around(pause), hint.notified()).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn up(&self) {
        tracing::info!(peer = %format_args!("{:016x}", self.peer.0), address = %self.address, "peer is connected");
        self.peer_metrics().connects.add(1);
        self.peer_metrics().connected.set(1);
        self.outbox.open();
        (self.reports)(Report::Events(vec![Event::LinkUp(self.peer)]));
    }

    fn down(&self, why: &str) {
        tracing::warn!(peer = %format_args!("{:016x}", self.peer.0), address = %self.address, %why, "peer is disconnected");
        self.peer_metrics().connected.set(0);
        let mut events = self.dropped(self.outbox.close());
        events.push(Event::LinkDown(self.peer));
        (self.reports)(Report::Events(events));
        self.asks.lost(self.peer);
    }

    /// Connects whenever there is something to send.
    pub(crate) async fn run_bulk(self) {
        self.outbox.open();
        loop {
            let items = self.outbox.wait().await;
            match self.connect().await {
                Ok(stream) => {
                    self.carry(stream, Some(items)).await;
                }
                Err(_) => self.report_dropped(items),
            }
            // What was queued behind a connection that broke has not left.
            self.report_dropped(self.outbox.take());
        }
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
        self.peer_metrics().dropped.add(lost.len() as u64);
        lost
    }

    fn report_dropped(&self, items: Vec<Item>) {
        let events = self.dropped(items);
        if !events.is_empty() {
            (self.reports)(Report::Events(events));
        }
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        match timeout(PATIENCE, self.try_connect()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    async fn try_connect(&self) -> Result<TcpStream, String> {
        let text = |error: io::Error| error.to_string();
        let mut stream = TcpStream::connect(&self.address).await.map_err(text)?;
        tune(&stream, self.dead_after).map_err(text)?;
        let mut hello = Hello::new(self.cluster, self.me, self.peer, self.boot)
            .encode()
            .to_vec();
        hello.push(self.lane as u8);
        stream.write_all(&hello).await.map_err(text)?;
        let mut head = [0; ANSWER_HEAD];
        stream
            .read_exact(&mut head)
            .await
            .map_err(|_| "it hung up on the greeting".to_owned())?;
        let len = answer_text_len(&head).map_err(|error| error.to_string())?;
        let mut why = vec![0; len];
        stream.read_exact(&mut why).await.map_err(text)?;
        decode_answer(&head, &why).map_err(|why| format!("refused: {why}"))?;
        Ok(stream)
    }

    /// Writes what comes until the connection ends, and answers why it did. A bulk connection ends for want of work, too.
    async fn carry(&self, mut stream: TcpStream, first: Option<Vec<Item>>) -> String {
        let (mut reading, mut writing) = stream.split();
        let mut unexpected = [0; 1];
        let bulk = first.is_some();
        let write = async {
            let mut buffer = WriteBuffer::default();
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
                items.iter().for_each(|item| buffer.push(item));
                match buffer.write_to(&mut writing).await {
                    Ok(bytes) => self.peer_metrics().sent_bytes.add(bytes),
                    // Which of them the peer has is not known, so none is reported as unsent: a proposal sent once more could be done
                    // twice. The end of the link says what there is to say; snapshots have timers.
                    Err(error) => return error.to_string(),
                }
            }
        };
        tokio::select! {
            why = write => why,
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
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use quorate_base::Term;
    use quorate_node::handshake::{HELLO_LEN, encode_answer};
    use quorate_node::message::{PeerMessage, RequestId};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::frame::ReadBuffer;
    use super::*;

    fn forward(seq: u64) -> Item {
        let (node, boot) = (1, 1);
        Item::Message(PeerMessage::Forward {
            term: Term(1),
            request: RequestId { node, boot, seq },
            command: Bytes::from(vec![0; 1 << 20]),
        })
    }

    /// A dialer of member 2 at `address`, whose events come out of the receiver.
    fn dialer(address: String, outbox: Arc<Outbox>) -> (Dialer, mpsc::UnboundedReceiver<Event>) {
        let (events, reported) = mpsc::unbounded_channel();
        let reports: Reports = Arc::new(move |report| {
            if let Report::Events(list) = report {
                list.into_iter().for_each(|event| _ = events.send(event));
            }
        });
        let (peer, me) = (NodeId(2), NodeId(1));
        let dialer = Dialer {
            peer,
            address,
            lane: Lane::Control,
            cluster: 7,
            me,
            boot: 1,
            outbox,
            hint: Arc::default(),
            asks: Arc::new(Asks::new(me, BTreeMap::new(), PATIENCE, 1 << 20)),
            metrics: Arc::new(Metrics::new([peer])),
            reports,
            dead_after: PATIENCE,
            jitter: Jitter(1),
        };
        (dialer, reported)
    }

    #[tokio::test]
    async fn what_may_have_left_is_not_reported_as_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outbox = Arc::<Outbox>::default();
        let address = listener.local_addr().unwrap().to_string();
        let (dialer, mut reported) = dialer(address, outbox.clone());
        let dialing = tokio::spawn(dialer.run_control());
        // Several times, since it is open whether a reset shows first in a write or in a read.
        for _ in 0..8 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; HELLO_LEN + 1]).await.unwrap();
            stream.write_all(&encode_answer(&Ok(()))).await.unwrap();
            assert!(matches!(reported.recv().await, Some(Event::LinkUp(_))));
            // More than the system buffers, so that the reset comes in the middle of the batch.
            (1..=24).for_each(|seq| outbox.push(forward(seq)).unwrap());
            let mut read = ReadBuffer::new(2 << 20);
            while read.next().unwrap().is_none() {
                assert!(read.fill(&mut stream).await.unwrap() > 0);
            }
            // The batch is under way, so this waits behind it.
            outbox.push(forward(99)).unwrap();
            drop(stream);
            let mut unsent = Vec::new();
            loop {
                match reported.recv().await.unwrap() {
                    Event::Dropped {
                        message: PeerMessage::Forward { request, .. },
                        ..
                    } => unsent.push(request.seq),
                    Event::LinkDown(_) => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(unsent, [99], "the peer has read the first of the others");
        }
        dialing.abort();
    }
}
