//! A cluster without a socket: members over a network in memory, one of which comes back under its address, one that joins, and a
//! leader that is cut off.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Sum, TempDir, add, within};
use quorate::*;
use quorate_conformance::transport::MemNetwork;

fn builder(network: &MemNetwork, dir: &TempDir, id: u64, size: u64) -> Builder {
    let mut builder = Builder::new(NodeId(id), 9, dir.path().join(id.to_string()));
    for member in 1..=size {
        builder = builder.member(NodeId(member), format!("place-{member}").as_str());
    }
    over(builder, network, id)
}

fn over(builder: Builder, network: &MemNetwork, id: u64) -> Builder {
    builder
        .transport(Arc::new(network.at(format!("place-{id}"))))
        .configure(|config| {
            config.heartbeat = Duration::from_millis(50);
            config.election = Duration::from_millis(500);
        })
}

/// Adds until it is answered: where a leader goes away, perhaps more than once.
async fn propose(node: &Handle<Sum>, n: u64) -> u64 {
    within(async {
        loop {
            match node.propose(add(n)).await {
                Ok(sum) => return sum,
                Err(_) => common::breathe().await,
            }
        }
    })
    .await
}

async fn read(node: &Handle<Sum>) -> u64 {
    within(async {
        loop {
            match node.read(|machine| machine.sum).await {
                Ok(sum) => return sum,
                Err(_) => common::breathe().await,
            }
        }
    })
    .await
}

async fn add_learner(node: &Handle<Sum>, id: u64) {
    let learner = MemberChange::AddLearner {
        id: NodeId(id),
        promote: Promote::Never,
        member: format!("place-{id}").into(),
    };
    within(async {
        loop {
            match node.change_membership(vec![learner.clone()], false).await {
                Ok(_) | Err(ChangeError::NotDone(ChangeRefusal::AlreadyMember(_))) => return,
                Err(_) => common::breathe().await,
            }
        }
    })
    .await;
}

#[tokio::test]
async fn members_meet_over_a_transport_of_ones_own() {
    let (network, dir) = (MemNetwork::new(), TempDir::new());
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(builder(&network, &dir, id, 3).start(Sum::open).await.unwrap());
    }
    assert!(propose(&nodes[0].0, 5).await >= 5);
    let (third, running) = nodes.pop().unwrap();
    within(third.shutdown()).await;
    within(running).await.unwrap();
    assert!(propose(&nodes[0].0, 6).await >= 11);
    nodes.push(builder(&network, &dir, 3, 3).start(Sum::open).await.unwrap());
    assert_eq!(read(&nodes[2].0).await, read(&nodes[0].0).await);

    add_learner(&nodes[0].0, 4).await;
    // Read here, the membership is in this member's log: it can be asked.
    let known = |now: &Status| now.membership.learners.contains_key(&NodeId(4));
    within(nodes[0].0.subscribe().wait_for(known)).await.unwrap();
    let asking = Arc::new(network.at("place-4"));
    let (others, own) = (["place-1".to_owned()], ["place-4".to_owned()]);
    let joined = within(join_over(asking, &others, &own)).await.unwrap();
    assert_eq!((joined.cluster, joined.id), (9, NodeId(4)));
    let fourth = over(Builder::joining(joined, dir.path().join("4")), &network, 4);
    nodes.push(fourth.start(Sum::open).await.unwrap());
    assert_eq!(read(&nodes[3].0).await, read(&nodes[0].0).await);
    for (node, running) in nodes {
        within(node.shutdown()).await;
        within(running).await.unwrap();
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_and_catches_up() {
    let (network, dir) = (MemNetwork::new(), TempDir::new());
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(builder(&network, &dir, id, 3).start(Sum::open).await.unwrap());
    }
    propose(&nodes[0].0, 5).await;
    let mut seen = nodes[0].0.subscribe();
    let known = within(seen.wait_for(|now| now.leader.is_some())).await.unwrap();
    let old = known.leader.expect("waited for").0;
    drop(known);
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let place = |id: u64| format!("place-{id}");
    for other in &others {
        network.cut(&place(old), &place(*other));
    }
    let node = |id: u64| &nodes[id as usize - 1].0;
    let alone = |now: &Status| now.peers.values().all(|peer| !peer.connected);
    within(node(old).subscribe().wait_for(alone)).await.unwrap();
    let replaced = |now: &Status| now.leader.is_some_and(|leader| leader.0 != old);
    within(node(others[0]).subscribe().wait_for(replaced))
        .await
        .unwrap();
    let without = propose(node(others[0]), 7).await;
    let there = within(node(old).local(|machine| machine.sum)).await.unwrap();
    assert!(there < without, "{there} where nothing arrives");

    for other in &others {
        network.mend(&place(old), &place(*other));
    }
    assert!(read(node(old)).await >= without);
    let connected = |now: &Status| now.peers.values().all(|peer| peer.connected);
    within(node(old).subscribe().wait_for(connected)).await.unwrap();
    for (node, running) in nodes {
        within(node.shutdown()).await;
        within(running).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_brings_a_transport_names_no_addresses_to_listen_on() {
    let (network, dir) = (MemNetwork::new(), TempDir::new());
    let both = builder(&network, &dir, 1, 1).listen("127.0.0.1:0".parse().unwrap());
    let refused = both.start(Sum::open).await.err().map(|error| error.to_string());
    assert!(
        refused
            .as_ref()
            .is_some_and(|why| why.contains("listens by itself")),
        "{refused:?}"
    );
}

/// A transport with a bug: in its listener, or in what dials.
#[derive(Debug)]
struct Buggy {
    listens: bool,
}

impl Transport for Buggy {
    fn connect<'a>(&'a self, _: &'a str) -> Connecting<'a, Box<dyn Stream>> {
        match self.listens {
            true => panic!("a bug in what dials"),
            false => Box::pin(std::future::pending()),
        }
    }

    fn accept(&self) -> Connecting<'_, Accepted> {
        match self.listens {
            true => Box::pin(std::future::pending()),
            false => panic!("a bug in the listener"),
        }
    }
}

/// It would be up, and deaf or mute for good.
#[tokio::test]
async fn a_node_whose_connections_panic_ends() {
    for (listens, bug) in [(false, "a bug in the listener"), (true, "a bug in what dials")] {
        let dir = TempDir::new();
        let buggy = builder(&MemNetwork::new(), &dir, 1, 3).transport(Arc::new(Buggy { listens }));
        let (_node, running) = buggy.start(Sum::open).await.unwrap();
        let ended = within(running).await;
        assert!(
            matches!(&ended, Err(Fatal::Panic(why)) if why == bug),
            "{ended:?}"
        );
    }
}
