//! Three members: every request is served by every one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;
use quorate_server::{Server, ServerConfig};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{
    Cluster, Kv, Lease, Maintenance, Scratch, Watch, channel, free_ports, get, members, next, put, refused,
    wait_for_leader,
};

struct Three {
    servers: Vec<Server>,
    channels: Vec<Channel>,
    _scratch: Scratch,
}

impl Three {
    async fn start() -> Three {
        let scratch = Scratch::new();
        let ports = free_ports(3);
        let all: Vec<(u64, u16)> = (1..=3).zip(ports.iter().copied()).collect();
        let mut servers = Vec::new();
        for (id, port) in &all {
            let data = scratch.0.join(format!("n{id}"));
            let mut config = ServerConfig::new(NodeId(*id), 77, members(&all), data);
            config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
            config.listen_peers = vec![([127, 0, 0, 1], *port).into()];
            servers.push(quorate_server::start(config).await.expect("the server starts"));
        }
        let mut channels = Vec::new();
        for server in &servers {
            wait_for_leader(server).await;
            channels.push(channel(server.addresses()[0]).await);
        }
        Three {
            servers,
            channels,
            _scratch: scratch,
        }
    }

    fn leader(&self) -> usize {
        let leads = |server: &Server| server.node().status().is_leader();
        self.servers.iter().position(leads).expect("one leads")
    }

    fn follower(&self) -> usize {
        (self.leader() + 1) % 3
    }
}

#[tokio::test]
async fn writes_and_reads_go_through_any_member() {
    let three = Three::start().await;
    for (n, channel) in three.channels.iter().enumerate() {
        let written = Kv::new(channel.clone())
            .put(put("a", &n.to_string()))
            .await
            .expect("a put")
            .into_inner();
        let header = written.header.expect("a header");
        assert_eq!((header.member_id, header.revision), (n as u64 + 1, n as i64 + 2));
        for other in &three.channels {
            let read = Kv::new(other.clone())
                .range(get("a"))
                .await
                .expect("a read")
                .into_inner();
            assert_eq!(read.kvs[0].value, n.to_string(), "linearizable on every member");
        }
    }
}

#[tokio::test]
async fn the_member_list_fills_with_client_urls_on_every_member() {
    let three = Three::start().await;
    let own: BTreeSet<String> = three
        .servers
        .iter()
        .map(|s| format!("http://{}", s.addresses()[0]))
        .collect();
    for channel in &three.channels {
        let mut cluster = Cluster::new(channel.clone());
        let filled = async {
            loop {
                let request = pb::MemberListRequest { linearizable: true };
                let listed = cluster.member_list(request).await.expect("a list").into_inner();
                assert_eq!(listed.members.len(), 3);
                let urls: BTreeSet<String> =
                    listed.members.into_iter().flat_map(|m| m.client_ur_ls).collect();
                if urls == own {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), filled)
            .await
            .expect("filled in time");
    }
}

#[tokio::test]
async fn leases_are_renewed_and_asked_about_through_a_follower() {
    let three = Three::start().await;
    let mut lease = Lease::new(three.channels[three.follower()].clone());
    lease
        .lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 7 })
        .await
        .expect("a grant");
    let asked = [7, 99].map(|id| pb::LeaseKeepAliveRequest { id });
    let mut renewed = lease
        .lease_keep_alive(tokio_stream::iter(asked))
        .await
        .expect("a stream")
        .into_inner();
    assert!((50..=60).contains(&next(&mut renewed).await.ttl));
    assert_eq!(next(&mut renewed).await.ttl, 0);
    let question = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    let left = lease
        .lease_time_to_live(question)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(left.granted_ttl, 60);
}

#[tokio::test]
async fn leadership_moves_on_request_of_the_leader_only_and_leases_move_with_it() {
    let three = Three::start().await;
    let (leader, follower) = (three.leader(), three.follower());
    let target = three.servers[follower].node().status().id;
    let mut lease = Lease::new(three.channels[leader].clone());
    lease
        .lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 7 })
        .await
        .expect("a grant");
    let request = pb::MoveLeaderRequest { target_id: target.0 };
    let mut from_follower = Maintenance::new(three.channels[follower].clone());
    let not_leader = (Code::FailedPrecondition, "etcdserver: not leader".to_owned());
    assert_eq!(refused(from_follower.move_leader(request).await), not_leader);
    let mut from_leader = Maintenance::new(three.channels[leader].clone());
    from_leader.move_leader(request).await.expect("a new leader");
    let mut status = three.servers[follower].node().subscribe();
    let leads = status.wait_for(quorate::Status::is_leader);
    tokio::time::timeout(Duration::from_secs(10), leads)
        .await
        .expect("in time")
        .expect("a running node");
    let asked = [7].map(|id| pb::LeaseKeepAliveRequest { id });
    let mut renewed = lease
        .lease_keep_alive(tokio_stream::iter(asked))
        .await
        .expect("a stream")
        .into_inner();
    let left = next(&mut renewed).await.ttl;
    assert!((50..=60).contains(&left), "the new leader knows the lease");
}

#[tokio::test]
async fn without_a_majority_clients_are_told_so() {
    let mut three = Three::start().await;
    let last = three.channels[2].clone();
    let mut kv = Kv::new(last.clone());
    kv.put(put("a", "1")).await.expect("a put");
    let create = pb::WatchCreateRequest {
        key: "a".into(),
        ..Default::default()
    };
    let create = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let mut request = tonic::Request::new(tokio_stream::iter([create]));
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("a value"));
    let mut watch = Watch::new(last.clone())
        .watch(request)
        .await
        .expect("a stream")
        .into_inner();
    assert!(next(&mut watch).await.created);
    let (renew, renewals) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(renewals));
    request
        .metadata_mut()
        .insert("hasleader", "true".parse().expect("a value"));
    let missing = pb::LeaseKeepAliveRequest { id: 99 };
    renew.send(missing).await.expect("an open stream");
    let mut renewed = Lease::new(last.clone())
        .lease_keep_alive(request)
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(next(&mut renewed).await.ttl, 0);
    for _ in 0..2 {
        three.servers.remove(0).shutdown().await.expect("an orderly end");
    }
    let mut status = three.servers[0].node().subscribe();
    let leaderless = status.wait_for(|now| now.leader.is_none());
    tokio::time::timeout(Duration::from_secs(20), leaderless)
        .await
        .expect("in time")
        .expect("a running node");
    let insisting = |request: pb::RangeRequest| {
        let mut request = tonic::Request::new(request);
        request
            .metadata_mut()
            .insert("hasleader", "true".parse().expect("a value"));
        request
    };
    let no_leader = (Code::Unavailable, "etcdserver: no leader".to_owned());
    assert_eq!(refused(kv.range(insisting(get("a"))).await), no_leader);
    let cancelled = tokio::time::timeout(Duration::from_secs(20), watch.message());
    assert_eq!(
        refused(cancelled.await.expect("in time")),
        no_leader,
        "a stream that insists ends"
    );
    let cancelled = tokio::time::timeout(Duration::from_secs(20), renewed.message());
    assert_eq!(
        refused(cancelled.await.expect("in time")),
        no_leader,
        "so does one of renewals, though none is asked for"
    );
    drop(renew);
    let local = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    assert_eq!(
        kv.range(local).await.expect("a local read").into_inner().kvs[0].value,
        "1"
    );
    let (code, said) = refused(kv.put(put("a", "2")).await);
    assert_eq!(code, Code::Unavailable, "{said}");
    let status = Maintenance::new(last)
        .status(pb::StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    assert_eq!(
        (status.leader, status.errors),
        (0, vec!["etcdserver: no leader".to_owned()])
    );
    let (code, said) = crate::support::http(three.servers[0].addresses()[0], "GET", "/health", "").await;
    assert_eq!(
        (code, said.trim_end()),
        (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#)
    );
}

/// One of three members, by its number from 1 on.
async fn member(n: u16, scratch: &Scratch, ports: &[u16], election: Duration) -> Server {
    let all: Vec<(u64, u16)> = (1..=3).zip(ports.iter().copied()).collect();
    let mut config = ServerConfig::new(
        NodeId(n.into()),
        77,
        members(&all),
        scratch.0.join(format!("n{n}")),
    );
    config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
    config.listen_peers = vec![([127, 0, 0, 1], ports[usize::from(n) - 1]).into()];
    (config.election, config.heartbeat) = (election, election / 10);
    quorate_server::start(config).await.expect("the server starts")
}

fn local() -> pb::RangeRequest {
    pb::RangeRequest {
        serializable: true,
        ..get("a")
    }
}

#[tokio::test]
async fn a_member_that_has_not_caught_up_speaks_of_itself_only() {
    let scratch = Scratch::new();
    // Long enough that the member does not give up finding a leader within the test.
    let server = member(1, &scratch, &free_ports(3), Duration::from_secs(30)).await;
    let channel = channel(server.addresses()[0]).await;
    let (mut kv, mut watch) = (Kv::new(channel.clone()), Watch::new(channel.clone()));
    let mut lease = Lease::new(channel.clone());
    let data = async {
        // Whichever comes first is one too many.
        tokio::select! {
            read = kv.range(local()) => format!("{read:?}"),
            opened = watch.watch(tokio_stream::pending()) => format!("{:?}", opened.map(drop)),
            listed = lease.lease_leases(pb::LeaseLeasesRequest {}) => format!("{listed:?}"),
        }
    };
    let itself = async {
        for _ in 0..50 {
            let status = Maintenance::new(channel.clone())
                .status(pb::StatusRequest {})
                .await;
            assert_eq!(status.expect("a status").into_inner().leader, 0);
            let address = server.addresses()[0];
            for page in ["/livez", "/health?serializable=true", "/metrics"] {
                assert_eq!(
                    crate::support::http(address, "GET", page, "").await.0,
                    200,
                    "{page}"
                );
            }
        }
    };
    tokio::select! {
        answer = data => panic!("served before it caught up: {answer}"),
        () = itself => {}
    }
    server.shutdown().await.expect("an orderly end");
}

#[tokio::test]
async fn a_member_that_finds_no_leader_serves_stale_reads_in_the_end() {
    let scratch = Scratch::new();
    let ports = free_ports(3);
    let mut two = Vec::new();
    for n in 1..=2 {
        two.push(member(n, &scratch, &ports, Duration::from_secs(1)).await);
    }
    let mut kv = Kv::new(channel(two[0].addresses()[0]).await);
    kv.put(put("a", "1")).await.expect("a put");
    for server in two {
        server.shutdown().await.expect("an orderly end");
    }
    let server = member(1, &scratch, &ports, Duration::from_millis(100)).await;
    let mut kv = Kv::new(channel(server.addresses()[0]).await);
    let read = kv.range(local()).await.expect("a local read").into_inner();
    assert_eq!(read.kvs[0].value, "1");
    assert_eq!(server.node().status().leader, None);
    server.shutdown().await.expect("an orderly end");
}
