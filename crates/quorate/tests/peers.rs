//! Whatever comes to the peer port: members and guests are let in, everything else is refused with a reason, costs nothing that lasts, and
//! disturbs nobody.

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::*;
use quorate::*;
use quorate_node::handshake::{ANSWER_HEAD, Answer, Hello, Papers, Verdict, answer_len};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Sends bytes and waits until the other side hangs up; answers what it said.
async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    hung_up(stream).await
}

async fn hung_up(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match within(stream.read_to_end(&mut said)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    said
}

/// Greets as a member would.
async fn greet(address: SocketAddr, hello: &Hello) -> (TcpStream, Answer) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello.encode()).await.unwrap();
    let mut head = [0; ANSWER_HEAD];
    within(stream.read_exact(&mut head)).await.unwrap();
    let mut body = vec![0; answer_len(&head).unwrap()];
    within(stream.read_exact(&mut body)).await.unwrap();
    (stream, Answer::decode(&head, body.into()).unwrap())
}

/// As member 9, which nobody knows, greets member 1: the third start of its data directory.
fn guest() -> Hello {
    Hello {
        protocol: 2,
        features: 2,
        cluster: CLUSTER,
        from: NodeId(9),
        to: NodeId(1),
        boot: 3,
        lane: 0,
        papers: Some(Papers {
            incarnation: 0x77,
            nonces: vec![1, 2, 3],
            ..Papers::default()
        }),
    }
}

fn papers(change: impl FnOnce(&mut Papers)) -> Option<Papers> {
    let mut papers = guest().papers.unwrap();
    change(&mut papers);
    Some(papers)
}

#[tokio::test]
async fn garbage_is_hung_up_on_and_nothing_is_lost() {
    let cluster = Cluster::start(3).await;
    assert_eq!(within(cluster.handle(1).propose(add(1))).await, Ok(1));
    let refused = cluster.handle(1).metrics().peer_refused.get();
    let address = cluster.address(1);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 1],
        &[0xff; 70_000],
        b"q",
        b"quorate\x01",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may hang up before it has read all of it.
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        hung_up(stream).await;
    }
    until(|| cluster.handle(1).metrics().peer_refused.get() >= refused + 5).await;

    // Behind a good greeting, too.
    let oversized = u32::MAX.to_le_bytes();
    let mut flipped = vec![9, 0, 0, 0, 1, 2, 3, 4];
    flipped.resize(17, 0);
    for frame in [[&oversized[..], &[0; 4]].concat(), flipped] {
        let (mut stream, answer) = greet(address, &guest()).await;
        assert_eq!(answer, Answer::Accepted);
        stream.write_all(&frame).await.unwrap();
        assert!(hung_up(stream).await.is_empty());
    }
    assert_eq!(within(cluster.handle(1).propose(add(1))).await, Ok(2));
    cluster.connected().await;
    assert_eq!(
        cluster.handle(1).metrics().peers()[&NodeId(2)].connects.get(),
        1,
        "no member was disconnected"
    );
    cluster.stop_all().await;
}

#[tokio::test]
async fn each_mismatch_is_refused_with_its_reason() {
    let cluster = Cluster::start(3).await;
    let address = cluster.address(1);
    let mut newer = guest();
    newer.protocol = 99;
    let (other, to, from) = (0xbad, NodeId(3), NodeId(1));
    for (greeting, verdict, reason) in [
        (
            Hello {
                cluster: other,
                ..guest()
            },
            Verdict::Retry,
            "cluster",
        ),
        (Hello { to, ..guest() }, Verdict::Retry, "peer URLs"),
        (Hello { from, ..guest() }, Verdict::Retry, "cannot be"),
        (newer, Verdict::Protocol, "version 99"),
        (Hello { lane: 7, ..guest() }, Verdict::Retry, "connection"),
        (guest().without_papers(), Verdict::Retry, "identity"),
        (
            Hello {
                features: 1,
                ..guest().without_papers()
            },
            Verdict::Retry,
            "features of level",
        ),
        (
            Hello {
                papers: papers(|papers| papers.leases = Some(500)),
                ..guest()
            },
            Verdict::Retry,
            "lease",
        ),
    ] {
        let (stream, answer) = greet(address, &greeting).await;
        let Answer::Refused { verdict: said, why } = answer else {
            panic!("this greeting is wrong: {greeting:?}")
        };
        assert!(why.contains(reason), "{why:?} does not say {reason:?}");
        assert_eq!(said, verdict, "{why}");
        assert!(hung_up(stream).await.is_empty());
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn who_comes_with_other_or_older_data_is_refused_for_good_even_after_a_restart() {
    let mut cluster = Cluster::start(1).await;
    assert_eq!(
        greet(cluster.address(1), &guest()).await.1,
        Answer::Accepted,
        "nobody knows it, and its cluster is right"
    );
    let wiped = Hello {
        boot: 1,
        papers: papers(|papers| (papers.incarnation, papers.nonces) = (0x78, vec![9])),
        ..guest()
    };
    let old_copy = Hello {
        boot: 2,
        papers: papers(|papers| papers.nonces = vec![1, 2]),
        ..guest()
    };
    let twin = Hello {
        papers: papers(|papers| papers.nonces = vec![1, 2, 4]),
        ..guest()
    };
    for restarted in [false, true] {
        if restarted {
            cluster.kill(1);
            cluster.start_member(1).await;
        }
        let refused = cluster.handle(1).metrics().impostors_refused.get();
        for (greeting, reason) in [
            (&wiped, "its data was lost"),
            (&old_copy, "older than what was seen of it"),
            (&twin, "another process"),
        ] {
            let (stream, answer) = greet(cluster.address(1), greeting).await;
            let Answer::Refused { verdict, why } = answer else {
                panic!("it is not what it was: {greeting:?}")
            };
            assert!(why.contains(reason), "{why:?} does not say {reason:?}");
            assert_eq!(verdict, Verdict::Final);
            assert!(hung_up(stream).await.is_empty());
        }
        assert_eq!(cluster.handle(1).metrics().impostors_refused.get(), refused + 3);
        let (_, answer) = greet(cluster.address(1), &guest()).await;
        assert_eq!(answer, Answer::Accepted, "the true one has its place still");
    }
    cluster.stop_all().await;
}

/// Takes a connection that a member makes, and what it says first.
async fn answer(listener: &TcpListener) -> (TcpStream, Hello) {
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        let needs = Hello::needs(&bytes).unwrap();
        if needs == bytes.len() {
            return (stream, Hello::decode(bytes.into()).unwrap());
        }
        let have = bytes.len();
        bytes.resize(needs, 0);
        within(stream.read_exact(&mut bytes[have..])).await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_is_answered_at_the_address_it_names_while_it_stays() {
    let cluster = Cluster::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = Hello {
        papers: papers(|papers| papers.addresses = vec![address]),
        ..guest()
    };
    for _ in 0..2 {
        let (stream, said) = greet(cluster.address(1), &greeting).await;
        assert_eq!(said, Answer::Accepted);
        let (mut back, hello) = answer(&listener).await;
        assert_eq!((hello.from, hello.to), (NodeId(1), NodeId(9)));
        assert_eq!(
            (hello.boot, hello.papers.unwrap().nonces.len()),
            (1, 1),
            "its first start"
        );
        back.write_all(&Answer::Accepted.encode()).await.unwrap();
        drop(stream);
        hung_up(back).await;
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_member_that_has_moved_is_answered_where_it_says_it_is() {
    let mut cluster = Cluster::prepare(2);
    // Port 1: nobody is there.
    cluster.addresses.insert(NodeId(2), "127.0.0.1:1".to_owned());
    cluster.start_member(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = Hello {
        from: NodeId(2),
        papers: papers(|papers| papers.addresses = vec![address]),
        ..guest()
    };
    let (_stream, said) = greet(cluster.address(1), &greeting).await;
    assert_eq!(said, Answer::Accepted);
    let (_back, hello) = answer(&listener).await;
    assert_eq!((hello.from, hello.to), (NodeId(1), NodeId(2)));
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_later_start_ends_all_connections_of_the_earlier_one() {
    let cluster = Cluster::start(1).await;
    let mut older = Vec::new();
    for lane in [0, 1] {
        let (stream, said) = greet(cluster.address(1), &Hello { lane, ..guest() }).await;
        assert_eq!(said, Answer::Accepted);
        older.push(stream);
    }
    let later = Hello {
        boot: 4,
        papers: papers(|papers| papers.nonces.push(4)),
        ..guest()
    };
    let (_stream, said) = greet(cluster.address(1), &later).await;
    assert_eq!(said, Answer::Accepted);
    for stream in older {
        assert!(hung_up(stream).await.is_empty());
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn one_who_wants_to_join_is_told_the_membership() {
    let cluster = Cluster::start(3).await;
    let inquiry = Hello::inquiry(2, vec!["127.0.0.1:1".into()]);
    let (stream, answer) = greet(cluster.address(2), &inquiry).await;
    let Answer::Welcome(welcome) = answer else {
        panic!("it only asked: {answer:?}")
    };
    assert_eq!((welcome.cluster, welcome.member), (CLUSTER, NodeId(2)));
    assert_eq!(welcome.config.voters, [1, 2, 3].map(NodeId).into());
    assert!(hung_up(stream).await.is_empty());
    cluster.stop_all().await;
}

#[tokio::test]
async fn silent_strangers_do_not_keep_members_out() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(TcpStream::connect(cluster.address(1)).await.unwrap());
    }
    cluster.start_member(2).await;
    cluster.connected().await;
    assert_eq!(within(cluster.handle(2).propose(add(4))).await, Ok(4));
    // Beyond the limit they are hung up on at once, and not after the greeting's patience.
    for _ in 0..40 {
        strangers.push(TcpStream::connect(cluster.address(1)).await.unwrap());
    }
    assert!(hung_up(strangers.pop().unwrap()).await.is_empty());
    drop(strangers);
    assert_eq!(sum(cluster.handle(1)).await, Ok(4));
    cluster.stop_all().await;
}

/// Keeps all messages logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused_and_both_sides_say_so_once() {
    let lines = Lines::default();
    // While there is only one dispatcher, whether anybody listens to an event is asked on the thread where it first happens and then
    // remembered for all: another test's thread would answer for this one.
    let _another = tracing::Dispatch::new(Lines::default());
    let _guard = tracing::subscriber::set_default(lines.clone());
    let prepared = Cluster::prepare(2);
    let listen = |id: u64| {
        std::net::TcpListener::bind("127.0.0.1:0")
            .map(|listener| (listener.local_addr().unwrap(), id, listener))
    };
    let bound = [listen(1).unwrap(), listen(2).unwrap()];
    let members = bound
        .iter()
        .map(|(address, id, _)| (NodeId(*id), address.to_string()))
        .collect();
    let mut handles = Vec::new();
    for ((_, id, listener), cluster) in bound.into_iter().zip([0xaa, 0xbb]) {
        let config = Config {
            cluster,
            ..config(id, &members, prepared.dirs[&id].path())
        };
        let resources = Resources {
            listeners: vec![listener],
            ..Resources::default()
        };
        handles.push(start_with(config, resources, Sum::open).await.unwrap().0);
    }
    // They keep trying: each is refused again and again.
    for handle in &handles {
        until(|| handle.metrics().peer_refused.get() >= 4).await;
        assert!(handle.status().peers.values().all(|peer| !peer.connected));
        assert_eq!(handle.status().leader, None);
    }
    let lines = lines.0.lock().unwrap().clone();
    let of = |what: &str| {
        lines
            .iter()
            .filter(|line| line.contains(what))
            .cloned()
            .collect::<Vec<_>>()
    };
    for (mine, theirs) in [("aa", "bb"), ("bb", "aa")] {
        let words = format!("the peer belongs to cluster {theirs:0>16}, this node to {mine:0>16}");
        let (listener, dialer) = (of(&words), of(&format!("refused: {words}")));
        assert_eq!(dialer.len(), 1, "{lines:#?}");
        assert_eq!(listener.len() - dialer.len(), 1, "{lines:#?}");
    }
    for handle in handles {
        within(handle.shutdown()).await;
    }
}

#[tokio::test]
async fn a_newer_connection_of_a_member_takes_the_place_of_the_older() {
    let cluster = Cluster::start(1).await;
    let (first, answer) = greet(cluster.address(1), &guest()).await;
    assert_eq!(answer, Answer::Accepted);
    let (second, answer) = greet(cluster.address(1), &guest()).await;
    assert_eq!(answer, Answer::Accepted);
    assert!(hung_up(first).await.is_empty());
    drop(second);
    assert!(
        send(cluster.address(1), b"x").await.len() > ANSWER_HEAD,
        "a stranger hears why"
    );
    cluster.stop_all().await;
}

/// As while the limit is raised member by member: what one of them may propose the others can take in.
#[tokio::test]
async fn a_command_longer_than_others_may_propose_tears_no_connection_down() {
    let cluster = Cluster::start_adjusted(3, |config| {
        config.max_proposal = if config.id == NodeId(1) { 32 << 20 } else { 1 << 20 };
    })
    .await;
    cluster.connected().await;
    let mut command = add(1).to_vec();
    command.resize(12 << 20, 0);
    let command = bytes::Bytes::from(command);
    let sum = within(async {
        loop {
            let leader = cluster.leader().await;
            if leader != 1 {
                let _ = cluster.handle(leader).transfer(Some(NodeId(1))).await;
            }
            match cluster.handle(1).propose(command.clone()).await {
                Ok(sum) => return sum,
                // Another leads.
                Err(ProposeError::NotDone(_)) => breathe().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert_eq!(sum, 1);
    for id in 2..=3 {
        assert_eq!(sum_at(cluster.handle(id)).await, 1);
        let connects = cluster.handle(1).metrics().peers()[&NodeId(id)].connects.get();
        assert_eq!(connects, 1, "to member {id}");
    }
    cluster.stop_all().await;
}
