//! A dialer against a listener of the test's.

use bytes::Bytes;
use quorate_base::Term;
use quorate_node::handshake::{Papers, Refusal};
use quorate_node::message::{PeerMessage, RequestId};
use quorate_node::roster::Roster;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::asks::{AskFrame, AskRoad, AskRoads, Asks};
use super::super::frame::ReadBuffer;
use super::super::links::Myself;
use super::super::registry::Registry;
use super::*;
use crate::disk::DirDisk;
use crate::metrics::Metrics;
use crate::testing::TempDir;
use crate::transport::TcpTransport;
use crate::work::Reports;

struct NoRoads;

impl AskRoads for NoRoads {
    fn road(&self, _to: NodeId) -> Option<Arc<dyn AskRoad>> {
        None
    }
}

fn forward(seq: u64) -> Item {
    let (node, boot) = (1, 1);
    Item::Message(PeerMessage::Forward {
        term: Term(1),
        request: RequestId { node, boot, seq },
        command: Bytes::from(vec![0; 1 << 20]),
    })
}

/// A dialer of member 2 at `address`, with the means to watch and command it.
struct Bench {
    outbox: Arc<Outbox>,
    addresses: watch::Sender<Vec<String>>,
    leaving: watch::Sender<bool>,
    events: mpsc::UnboundedReceiver<Event>,
    ends: mpsc::UnboundedReceiver<Fatal>,
    dialing: tokio::task::JoinHandle<()>,
    _dir: TempDir,
}

fn bench(address: String) -> Bench {
    let (events_to, events) = mpsc::unbounded_channel();
    let (ends_to, ends) = mpsc::unbounded_channel();
    let reports: Reports = Arc::new(move |report| match report {
        Report::Events(list) => list.into_iter().for_each(|event| _ = events_to.send(event)),
        Report::Failed(fatal) => _ = ends_to.send(fatal),
        _ => {}
    });
    let dir = TempDir::new();
    let disk = Arc::new(DirDisk::open(dir.path()).unwrap());
    let (peer, me) = (NodeId(2), NodeId(1));
    let (addresses, leaving) = (watch::channel(vec![address]).0, watch::channel(false).0);
    let outbox = Arc::<Outbox>::default();
    let dialer = Dialer {
        peer,
        lane: Lane::Control,
        turn: Arc::default(),
        addresses: addresses.subscribe(),
        leaving: leaving.subscribe(),
        outbox: outbox.clone(),
        hint: Arc::default(),
        metrics: Arc::default(),
        jitter: Jitter(1),
        shared: Arc::new(Dialing {
            myself: Arc::new(Myself {
                id: me,
                cluster: 7,
                features: 2,
                boot: 1,
                papers: Papers {
                    nonces: vec![1],
                    ..Papers::default()
                },
            }),
            asks: Arc::new(Asks::new(me, Arc::new(NoRoads), PATIENCE, 1 << 20)),
            metrics: Arc::new(Metrics::default()),
            registry: Arc::new(Registry::new(Roster::new(7, me), disk, None, reports.clone())),
            reports,
            transport: Arc::new(TcpTransport::new(Vec::new(), PATIENCE).unwrap()),
        }),
    };
    Bench {
        outbox,
        addresses,
        leaving,
        events,
        ends,
        dialing: tokio::spawn(dialer.run_control()),
        _dir: dir,
    }
}

/// Takes a connection and reads what it begins with.
async fn accept(listener: &TcpListener) -> (TcpStream, Hello) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let needs = Hello::needs(&bytes).unwrap();
        if needs == bytes.len() {
            return (stream, Hello::decode(bytes.into()).unwrap());
        }
        let have = bytes.len();
        bytes.resize(needs, 0);
        stream.read_exact(&mut bytes[have..]).await.unwrap();
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn what_may_have_left_is_not_reported_as_unsent() {
    let (listener, address) = listen().await;
    let mut bench = bench(address);
    // Several times, since it is open whether a reset shows first in a write or in a read.
    for _ in 0..8 {
        let (mut stream, _) = accept(&listener).await;
        stream.write_all(&Answer::Accepted.encode()).await.unwrap();
        assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
        // More than the system buffers, so that the reset comes in the middle of the batch.
        (1..=24).for_each(|seq| bench.outbox.push(forward(seq)).unwrap());
        let mut read = ReadBuffer::new(2 << 20);
        while read.next().unwrap().is_none() {
            assert!(read.fill(&mut stream).await.unwrap() > 0);
        }
        // The batch is under way, so this waits behind it.
        bench.outbox.push(forward(99)).unwrap();
        drop(stream);
        let mut unsent = Vec::new();
        loop {
            match bench.events.recv().await.unwrap() {
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
    bench.dialing.abort();
}

#[tokio::test]
async fn an_old_release_is_spoken_to_as_it_speaks() {
    let (listener, address) = listen().await;
    let mut bench = bench(address);
    for _ in 0..2 {
        // The newest protocol first, each time: the peer may have been replaced meanwhile.
        let (mut stream, hello) = accept(&listener).await;
        assert_eq!((hello.protocol, hello.papers.is_some()), (2, true));
        let (theirs, ours) = (2, 1);
        let refusal = Refusal::Protocol { theirs, ours };
        stream.write_all(&Answer::from(&refusal).encode()).await.unwrap();
        drop(stream);
        let (mut stream, hello) = accept(&listener).await;
        assert_eq!((hello.protocol, hello.papers.is_some()), (1, false));
        stream.write_all(&Answer::Accepted.encode()).await.unwrap();
        assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
        // What it does not understand comes back at once, and what it understands goes its way.
        let request = RequestId::default();
        let end = quorate_raft::ChangeEnd::Unknown;
        let unknown = PeerMessage::Reconfigured { request, end };
        bench.outbox.push(Item::Message(unknown.clone())).unwrap();
        bench.outbox.push(forward(1)).unwrap();
        match bench.events.recv().await {
            Some(Event::Dropped { message, .. }) => assert_eq!(message, unknown),
            other => panic!("{other:?}"),
        }
        let mut read = ReadBuffer::new(2 << 20);
        while read.next().unwrap().is_none() {
            assert!(read.fill(&mut stream).await.unwrap() > 0);
        }
        drop(stream);
        assert!(matches!(bench.events.recv().await, Some(Event::LinkDown(_))));
    }
    bench.dialing.abort();
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_node_and_one_for_now_does_not() {
    let id = NodeId(1);
    let (known, shown) = (1, 2);
    for end in [Refusal::Wiped { id, known, shown }, Refusal::Removed { id }] {
        let (listener, address) = listen().await;
        let mut bench = bench(address);
        for refusal in [Refusal::NotRecorded, end] {
            let (mut stream, _) = accept(&listener).await;
            stream.write_all(&Answer::from(&refusal).encode()).await.unwrap();
        }
        match (end, bench.ends.recv().await.unwrap()) {
            (Refusal::Removed { .. }, Fatal::Removed) => {}
            (_, Fatal::Refused(why)) => assert!(why.contains("its data was lost"), "{why}"),
            (_, other) => panic!("{other}"),
        }
        bench.dialing.await.unwrap();
    }
}

#[tokio::test]
async fn addresses_are_tried_in_turn_and_may_change() {
    let (first, first_at) = listen().await;
    let (second, second_at) = listen().await;
    drop(first);
    let bench = bench(first_at.clone());
    bench.addresses.send_replace(vec![first_at, second_at]);
    accept(&second).await;
    bench.dialing.abort();
}

#[tokio::test]
async fn one_who_left_is_sent_what_was_queued_and_hung_up_on() {
    let (listener, address) = listen().await;
    let mut bench = bench(address);
    let (mut stream, _) = accept(&listener).await;
    stream.write_all(&Answer::Accepted.encode()).await.unwrap();
    assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
    let asked = Item::Ask(AskFrame::Answer { id: 1, answer: None });
    bench.outbox.push(asked).unwrap();
    bench.leaving.send_replace(true);
    let mut read = ReadBuffer::new(2 << 20);
    let mut arrived = 0;
    while read.fill(&mut stream).await.unwrap() > 0 {
        while read.next().unwrap().is_some() {
            arrived += 1;
        }
    }
    assert_eq!(arrived, 1);
    assert!(matches!(bench.events.recv().await, Some(Event::LinkDown(_))));
    bench.dialing.await.unwrap();
}

#[tokio::test]
async fn a_process_that_listened_and_does_no_more_is_reported_gone() {
    let (listener, address) = listen().await;
    drop(listener);
    // Nobody was ever there, so nobody is gone: the connection is what comes first.
    let mut bench = bench(address.clone());
    let listener = loop {
        match TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (mut stream, _) = accept(&listener).await;
    stream.write_all(&Answer::Accepted.encode()).await.unwrap();
    assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
    // The connection breaks, and somebody still listens.
    drop(stream);
    assert!(matches!(bench.events.recv().await, Some(Event::LinkDown(_))));
    let (mut stream, _) = accept(&listener).await;
    stream.write_all(&Answer::Accepted.encode()).await.unwrap();
    assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
    // Both are gone. Said again and again, since what was on its way may have spoken against it.
    drop((stream, listener));
    assert!(matches!(bench.events.recv().await, Some(Event::LinkDown(_))));
    for _ in 0..3 {
        assert!(matches!(bench.events.recv().await, Some(Event::Gone(peer)) if peer == NodeId(2)));
    }
    bench.dialing.abort();
}

#[tokio::test]
async fn a_peer_of_which_one_address_says_nothing_is_not_gone() {
    let (listener, address) = listen().await;
    let mut bench = bench(address.clone());
    let (mut stream, _) = accept(&listener).await;
    stream.write_all(&Answer::Accepted.encode()).await.unwrap();
    assert!(matches!(bench.events.recv().await, Some(Event::LinkUp(_))));
    // Somebody takes connections at the second address, and hangs up.
    let (second, second_at) = listen().await;
    bench.addresses.send_replace(vec![address.clone(), second_at]);
    drop((stream, listener));
    assert!(matches!(bench.events.recv().await, Some(Event::LinkDown(_))));
    for _ in 0..3 {
        drop(accept(&second).await);
    }
    assert!(bench.events.try_recv().is_err());
    drop(second);
    assert!(matches!(bench.events.recv().await, Some(Event::Gone(_))));
    bench.dialing.abort();
}
