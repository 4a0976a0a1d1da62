//! Whatever else comes to the peer port: it is refused with a reason, costs nothing that lasts, and disturbs nobody.

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::*;
use quorate::*;
use quorate_node::handshake::{ANSWER_HEAD, Hello, answer_text_len, decode_answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
async fn greet(address: SocketAddr, hello: Hello, lane: u8) -> (TcpStream, Result<(), String>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = hello.encode().to_vec();
    bytes.push(lane);
    stream.write_all(&bytes).await.unwrap();
    let mut head = [0; ANSWER_HEAD];
    within(stream.read_exact(&mut head)).await.unwrap();
    let mut why = vec![0; answer_text_len(&head).unwrap()];
    within(stream.read_exact(&mut why)).await.unwrap();
    (stream, decode_answer(&head, &why))
}

fn hello(cluster: u64, from: u64, to: u64) -> Hello {
    Hello::new(cluster, NodeId(from), NodeId(to), 77)
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
        // As nobody's connection, so that no member's is replaced: lane 1 is idle here.
        let (mut stream, answer) = greet(address, hello(CLUSTER, 2, 1), 1).await;
        assert_eq!(answer, Ok(()));
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
    let newer = Hello {
        protocol: 99,
        ..hello(CLUSTER, 2, 1)
    };
    for (greeting, lane, reason) in [
        (hello(0xbad, 2, 1), 0, "cluster"),
        (hello(CLUSTER, 2, 3), 0, "peer URLs"),
        (hello(CLUSTER, 1, 1), 0, "cannot be"),
        (hello(CLUSTER, 9, 1), 0, "not a member"),
        (newer, 0, "version 99"),
        (hello(CLUSTER, 2, 1), 7, "connection"),
    ] {
        let (stream, answer) = greet(address, greeting, lane).await;
        let why = answer.expect_err("this greeting is wrong");
        assert!(why.contains(reason), "{why:?} does not say {reason:?}");
        assert!(hung_up(stream).await.is_empty());
    }
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
    let mut cluster = Cluster::start(3).await;
    cluster.stop(3).await;
    let (first, answer) = greet(cluster.address(1), hello(CLUSTER, 3, 1), 0).await;
    assert_eq!(answer, Ok(()));
    let (second, answer) = greet(cluster.address(1), hello(CLUSTER, 3, 1), 0).await;
    assert_eq!(answer, Ok(()));
    assert!(hung_up(first).await.is_empty());
    drop(second);
    assert!(
        send(cluster.address(1), b"x").await.len() > ANSWER_HEAD,
        "a stranger hears why"
    );
    cluster.stop_all().await;
}
