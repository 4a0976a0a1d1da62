//! Sessions and states in memory in real nodes: commands repeated across stops, changes of leader and restarts count once.

mod common;

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use common::{TempDir, within};
use quorate::*;

/// Adds up, and answers the sum.
#[derive(Default)]
struct Total {
    sum: u64,
    /// How often something was added.
    times: u64,
}

impl State for Total {
    type Output = Bytes;

    fn apply(&mut self, _at: LogId, command: &Bytes) -> Bytes {
        self.sum += u64::from(command[0]);
        self.times += 1;
        Bytes::copy_from_slice(&self.sum.to_le_bytes())
    }

    fn save(&self) -> Vec<u8> {
        [self.sum.to_le_bytes(), self.times.to_le_bytes()].concat()
    }

    fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        let (sum, times) = saved.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        self.sum = u64::from_le_bytes(*sum);
        self.times = u64::from_le_bytes(times.try_into().map_err(io::Error::other)?);
        Ok(())
    }
}

type Machine = Checkpointed<Sessions<Total>>;

struct Node {
    handle: Handle<Machine>,
    running: Running,
}

impl Node {
    async fn stop(self) {
        within(self.handle.shutdown()).await;
        within(self.running).await.unwrap();
    }
}

/// Three members on loopback ports that stay theirs.
struct Cluster {
    dir: TempDir,
    addresses: Vec<String>,
}

impl Cluster {
    fn new(size: usize) -> (Cluster, Vec<TcpListener>) {
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<TcpListener> = (0..size).map(bind).collect();
        let addresses = listeners.iter().map(|one| one.local_addr().unwrap().to_string());
        let addresses = addresses.collect();
        let dir = TempDir::new();
        (Cluster { dir, addresses }, listeners)
    }

    async fn start(&self, n: usize, listener: Option<TcpListener>) -> Node {
        let listener = match listener {
            Some(listener) => listener,
            // Closed a moment ago by the node before.
            None => {
                within(async {
                    loop {
                        match TcpListener::bind(&self.addresses[n]) {
                            Ok(listener) => return listener,
                            Err(_) => common::breathe().await,
                        }
                    }
                })
                .await
            }
        };
        let id = NodeId(n as u64 + 1);
        let mut builder = Builder::new(id, 77, self.dir.path().join(format!("n{id}")))
            .listener(listener)
            .configure(|config| {
                config.heartbeat = Duration::from_millis(50);
                config.election = Duration::from_millis(500);
                config.timeout = Duration::from_secs(5);
            });
        for (address, id) in self.addresses.iter().zip(1..) {
            builder = builder.member(NodeId(id), address);
        }
        let open = |disk| Ok(Checkpointed::open(disk, Sessions::new(Total::default()))?.every(2_000));
        let (handle, running) = builder.start(open).await.unwrap();
        Node { handle, running }
    }
}

fn number(bytes: &Bytes) -> u64 {
    u64::from_le_bytes(bytes[..].try_into().unwrap())
}

#[tokio::test]
async fn a_session_survives_a_restart_and_a_repetition_gets_the_first_answer() {
    let (cluster, mut listeners) = Cluster::new(1);
    let node = cluster.start(0, listeners.pop()).await;
    let mut session = within(Session::open(node.handle.clone())).await.unwrap();
    for n in 1..=20_u64 {
        let answer = within(session.propose(vec![1])).await.unwrap();
        assert_eq!(number(&answer), n);
    }
    let (id, sequence) = (session.id(), session.sequence());
    node.stop().await;
    assert_eq!(
        within(session.propose(vec![1])).await,
        Err(SessionError::NotDone(Reason::Stopped)),
        "a node that has stopped certainly does nothing"
    );

    let node = cluster.start(0, None).await;
    // A client that lost the answer to its last command, and asks for it after a restart of its own.
    let mut session = Session::resume(node.handle.clone(), id, sequence - 1);
    let again = within(session.propose(vec![1])).await.unwrap();
    assert_eq!(number(&again), 20, "the first answer, and nothing added");
    assert_eq!(number(&within(session.propose(vec![1])).await.unwrap()), 21);

    // Another client of the same session that is behind.
    let mut behind = Session::resume(node.handle.clone(), id, 3);
    assert_eq!(within(behind.propose(vec![1])).await, Err(SessionError::NotAlone));

    // Evicted by somebody else's session, it never executes anything again.
    let other = within(Session::open_within(node.handle.clone(), 1))
        .await
        .unwrap();
    let expired = SessionError::Expired { maybe_done: false };
    assert_eq!(within(session.propose(vec![1])).await, Err(expired));
    assert_eq!(within(session.retry()).await, None, "its fate is known");
    let look = |machine: &Machine| (machine.sum, machine.times, machine.table().len());
    assert_eq!(within(node.handle.read(look)).await, Ok((21, 21, 1)));
    within(other.close()).await.unwrap();
    assert_eq!(within(node.handle.read(look)).await, Ok((21, 21, 0)));
    node.stop().await;
}

#[tokio::test]
async fn a_command_given_up_is_settled_or_superseded() {
    let (cluster, mut listeners) = Cluster::new(1);
    let node = cluster.start(0, listeners.pop()).await;
    let mut session = within(Session::open(node.handle.clone())).await.unwrap();
    {
        let mut given_up = Box::pin(session.propose(vec![5]));
        // Polled once: proposed, and not waited for.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(given_up.as_mut().poll(context).is_ready())
        });
        assert!(!polled.await);
    }
    let settled = within(session.retry()).await.unwrap().unwrap();
    assert_eq!(number(&settled), 5);
    assert_eq!(within(session.retry()).await, None);
    assert_eq!(number(&within(session.propose(vec![1])).await.unwrap()), 6);
    let times = |machine: &Machine| machine.times;
    assert_eq!(within(node.handle.read(times)).await, Ok(2));
    let large = vec![0; 2 << 20];
    assert_eq!(
        within(session.propose(large)).await,
        Err(SessionError::NotDone(Reason::TooLarge))
    );
    node.stop().await;
}

/// The members stop one after the other, leaders among them, while a client counts through whichever is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_counts_once_while_leaders_come_and_go() {
    let (cluster, listeners) = Cluster::new(3);
    let mut nodes = Vec::new();
    for (n, listener) in listeners.into_iter().enumerate() {
        nodes.push(cluster.start(n, Some(listener)).await);
    }
    let mut session = tokio::time::timeout(Duration::from_secs(60), Session::open(nodes[0].handle.clone()))
        .await
        .expect("a leader is elected in a minute")
        .unwrap();
    let mut sum = 0;
    let mut stopped_leaders = 0;
    for round in 0..9 {
        // Commands are under way while a member stops: the leader, or the one that the session speaks to.
        let mut status = nodes[round % 3].handle.subscribe();
        let leader = within(status.wait_for(|now| now.leader.is_some()))
            .await
            .unwrap()
            .leader;
        let stops = match leader {
            Some(leader) if round % 2 == 0 => leader.0 as usize - 1,
            _ => round % 3,
        };
        stopped_leaders += usize::from(leader == Some(NodeId(stops as u64 + 1)));
        session.go_on_at(nodes[round % 3].handle.clone());
        let elsewhere = nodes[(stops + 1) % 3].handle.clone();
        let victim = nodes.remove(stops);
        let stopping = tokio::spawn(victim.stop());
        for _ in 0..10 {
            sum += 3;
            let answer = match within(session.propose(vec![3])).await {
                Err(SessionError::Unknown(_)) => {
                    session.go_on_at(elsewhere.clone());
                    within(session.retry()).await.unwrap()
                }
                // This very number was not done. The next one may be.
                Err(SessionError::NotDone(_)) => {
                    session.go_on_at(elsewhere.clone());
                    within(session.propose(vec![3])).await
                }
                known => known,
            };
            assert_eq!(number(&answer.unwrap()), sum, "round {round}");
        }
        within(stopping).await.unwrap();
        nodes.insert(stops, cluster.start(stops, None).await);
    }
    assert!(stopped_leaders > 0, "no leader was ever stopped");
    for node in &nodes {
        let look = |machine: &Machine| (machine.sum, machine.times);
        assert_eq!(within(node.handle.read(look)).await, Ok((sum, sum / 3)));
    }
    for node in nodes {
        node.stop().await;
    }
}
