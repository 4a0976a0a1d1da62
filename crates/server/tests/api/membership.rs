//! Changing the membership through the API: what is answered, what is refused in which words, and what a learner serves. Codes and words
//! are those of a real etcd 3.6.

use std::time::Duration;

use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;
use quorate_server::{Member, Server, ServerConfig};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{
    Cluster, Kv, Lease, Maintenance, One, Scratch, Watch, channel, free_ports, get, http, members, post, put,
    refused, wait_for_leader,
};

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    }
}

fn update(id: u64, url: &str) -> pb::MemberUpdateRequest {
    pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.to_owned()],
    }
}

fn not_found() -> (Code, String) {
    (Code::NotFound, "etcdserver: member not found".to_owned())
}

/// Asks until there is an answer that is none of those which only say that leadership moved, or that the machine was slow, just then.
async fn settled<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
    let asked = async {
        loop {
            match call().await {
                Err(status)
                    if status.code() == Code::Unavailable || status.message() == "etcdserver: not leader" => {
                }
                settled => return settled,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), asked)
        .await
        .unwrap_or_else(|_| panic!("{what}: no answer in time"))
}

/// The members, as a majority knows them.
async fn listed(channel: &Channel) -> Vec<pb::Member> {
    let mut cluster = Cluster::new(channel.clone());
    let request = pb::MemberListRequest { linearizable: true };
    let answer = settled("list", async || cluster.member_list(request).await).await;
    answer.expect("listed").into_inner().members
}

fn precondition(text: &str) -> (Code, String) {
    (Code::FailedPrecondition, format!("etcdserver: {text}"))
}

#[tokio::test]
async fn members_are_added_updated_and_removed_in_etcds_words() {
    let one = One::start().await;
    let mut cluster = Cluster::new(one.channel.clone());
    let answer = cluster
        .member_add(add("http://127.0.0.1:1", true))
        .await
        .expect("added")
        .into_inner();
    let learner = answer.member.expect("the new member");
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_ur_ls.is_empty());
    assert_eq!(learner.peer_ur_ls, ["http://127.0.0.1:1"]);
    assert_eq!(answer.header.expect("a header").revision, 0);
    assert!(answer.members.len() == 2 && answer.members.contains(&learner));

    let invalid = (
        Code::InvalidArgument,
        "etcdserver: given member URLs are invalid".to_owned(),
    );
    for url in [
        "foo",
        "http://127.0.0.1",
        "http://127.0.0.1:1/x",
        "ftp://127.0.0.1:1",
    ] {
        assert_eq!(
            refused(cluster.member_add(add(url, false)).await),
            invalid,
            "{url}"
        );
        assert_eq!(
            refused(cluster.member_update(update(learner.id, url)).await),
            invalid,
            "{url}"
        );
    }
    assert_eq!(
        refused(cluster.member_add(pb::MemberAddRequest::default()).await),
        invalid
    );
    assert_eq!(
        refused(cluster.member_add(add("http://127.0.0.1:1", false)).await),
        precondition("Peer URLs already exists")
    );
    assert_eq!(
        refused(cluster.member_add(add("http://127.0.0.1:2", true)).await),
        precondition("too many learner members in cluster")
    );
    assert_eq!(
        refused(
            cluster
                .member_promote(pb::MemberPromoteRequest { id: learner.id })
                .await
        ),
        precondition("can only promote a learner member which is in sync with leader")
    );
    assert_eq!(
        refused(cluster.member_promote(pb::MemberPromoteRequest { id: 7 }).await),
        precondition("can only promote a learner member")
    );
    for result in [
        refused(cluster.member_promote(pb::MemberPromoteRequest { id: 5 }).await),
        refused(cluster.member_remove(pb::MemberRemoveRequest { id: 5 }).await),
        refused(cluster.member_update(update(5, "http://127.0.0.1:9")).await),
    ] {
        assert_eq!(result, not_found());
    }

    let answer = cluster
        .member_update(update(learner.id, "http://127.0.0.1:3"))
        .await;
    let members = answer.expect("updated").into_inner().members;
    let now = members
        .iter()
        .find(|member| member.id == learner.id)
        .expect("listed");
    assert_eq!(now.peer_ur_ls, ["http://127.0.0.1:3"]);
    assert!(now.is_learner, "its role is the same");
    let same = cluster
        .member_update(update(learner.id, "http://127.0.0.1:3"))
        .await;
    same.expect("what changes nothing is fine");

    let remove = |id| pb::MemberRemoveRequest { id };
    let left = cluster
        .member_remove(remove(learner.id))
        .await
        .expect("removed")
        .into_inner()
        .members;
    assert_eq!(left.len(), 1);
    assert_eq!(
        refused(cluster.member_remove(remove(learner.id)).await),
        not_found()
    );
    let not_enough = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(
        refused(cluster.member_remove(remove(7)).await),
        (Code::Unknown, not_enough.to_owned()),
        "the last one stays"
    );
    one.kv().put(put("a", "1")).await.expect("it serves as before");
}

#[tokio::test]
async fn a_member_that_is_added_counts_as_a_voter_at_once_and_costs_no_quorum() {
    let one = One::start().await;
    let mut cluster = Cluster::new(one.channel.clone());
    let added = cluster
        .member_add(add("http://127.0.0.1:1", false))
        .await
        .expect("added")
        .into_inner();
    let member = added.member.expect("the new member");
    assert!(!member.is_learner);
    // An etcd of which one of two members is not there could not do this.
    one.kv().put(put("a", "1")).await.expect("served");
    assert_eq!(
        refused(
            cluster
                .member_promote(pb::MemberPromoteRequest { id: member.id })
                .await
        ),
        precondition("can only promote a learner member")
    );
    let not_enough = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(
        refused(cluster.member_add(add("http://127.0.0.1:2", false)).await),
        (Code::Unknown, not_enough.to_owned())
    );
}

#[tokio::test]
async fn without_the_strict_check_members_are_added_that_nobody_has_started() {
    let one = One::start_with(|config| config.strict_reconfig_check = false).await;
    let mut cluster = Cluster::new(one.channel.clone());
    for url in ["http://127.0.0.1:1", "http://127.0.0.1:2"] {
        cluster.member_add(add(url, false)).await.expect("added");
    }
    one.kv().put(put("a", "1")).await.expect("served");
}

#[tokio::test]
async fn the_gateway_changes_members_too() {
    let one = One::start().await;
    let call = async |path: &str, body: &str| {
        let (code, text) = post(one.address, &format!("/v3/cluster/member/{path}"), body).await;
        (
            code,
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON"),
        )
    };
    let (code, added) = call("add", r#"{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}"#).await;
    assert_eq!(code, 200, "{added}");
    assert_eq!(added["member"]["isLearner"], true);
    assert_eq!(added["members"].as_array().map(Vec::len), Some(2));
    let id = added["member"]["ID"].as_str().expect("an id as text").to_owned();
    let body = format!(r#"{{"ID":"{id}","peerURLs":["http://127.0.0.1:2"]}}"#);
    let (code, updated) = call("update", &body).await;
    assert_eq!(code, 200, "{updated}");
    let (code, said) = call("promote", &format!(r#"{{"ID":"{id}"}}"#)).await;
    assert_eq!((code, said["code"].as_i64()), (400, Some(9)), "{said}");
    assert_eq!(
        said["message"],
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    let (code, removed) = call("remove", &format!(r#"{{"ID":"{id}"}}"#)).await;
    assert_eq!(
        (code, removed["members"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    let (code, said) = call("remove", r#"{"ID":"5"}"#).await;
    assert_eq!((code, said["code"].as_i64()), (404, Some(5)), "{said}");
}

/// Two servers, the second of which has joined the first's cluster.
struct Two {
    first: Server,
    second: Server,
    id: u64,
    channels: [Channel; 2],
    _scratch: Scratch,
}

impl Two {
    async fn start(as_learner: bool) -> Two {
        let scratch = Scratch::new();
        let ports = free_ports(2);
        let urls: Vec<String> = ports
            .iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let mut config = ServerConfig::new(NodeId(1), 77, members(&[(1, ports[0])]), scratch.0.join("first"));
        config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
        config.listen_peers = vec![([127, 0, 0, 1], ports[0]).into()];
        let first = quorate_server::start(config).await.expect("the first starts");
        wait_for_leader(&first).await;
        let to_first = channel(first.addresses()[0]).await;
        let mut cluster = Cluster::new(to_first.clone());
        let added = settled("add", async || {
            cluster.member_add(add(&urls[1], as_learner)).await
        })
        .await;
        match added {
            Ok(_) => {}
            // After a timeout it may have been added at the first try.
            Err(status) => assert_eq!(
                (status.code(), status.message().to_owned()),
                precondition("Peer URLs already exists")
            ),
        }
        let known = listed(&to_first).await;
        let new = known.iter().find(|member| member.peer_ur_ls == [urls[1].clone()]);
        let id = new.expect("the new member").id;

        let address = |port: &u16| format!("127.0.0.1:{port}");
        let joined = quorate::join(&[address(&ports[0])], &[address(&ports[1])])
            .await
            .expect("it is known");
        assert_eq!((joined.id, joined.cluster), (NodeId(id), 77));
        let known = joined.members.iter().map(|(id, member)| {
            let peer_urls = member.addresses.iter().map(|at| format!("http://{at}")).collect();
            let name = member.name.clone();
            (*id, Member { name, peer_urls })
        });
        let mut config = ServerConfig::new(
            joined.id,
            joined.cluster,
            known.collect(),
            scratch.0.join("second"),
        );
        config.name = "second".into();
        config.join = true;
        config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
        config.listen_peers = vec![([127, 0, 0, 1], ports[1]).into()];
        let second = quorate_server::start(config).await.expect("the second starts");
        wait_for_leader(&second).await;
        let to_second = channel(second.addresses()[0]).await;
        Two {
            first,
            second,
            id,
            channels: [to_first, to_second],
            _scratch: scratch,
        }
    }

    /// Waits until both list both members by name, and the second in this role.
    async fn wait_until_listed(&self, is_learner: bool) {
        // A learner does not list anybody.
        let askable = if is_learner {
            &self.channels[..1]
        } else {
            &self.channels[..]
        };
        for channel in askable {
            let mut cluster = Cluster::new(channel.clone());
            let listed = async {
                loop {
                    let request = pb::MemberListRequest { linearizable: true };
                    let answer = cluster.member_list(request).await;
                    let members = answer
                        .map(|answer| answer.into_inner().members)
                        .unwrap_or_default();
                    let second = members.iter().find(|member| member.id == self.id);
                    if second.is_some_and(|second| {
                        second.name == "second"
                            && !second.client_ur_ls.is_empty()
                            && second.is_learner == is_learner
                    }) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), listed)
                .await
                .expect("listed in time");
        }
    }
}

#[tokio::test]
async fn a_learner_serves_what_may_be_stale_and_nothing_else_until_it_is_promoted() {
    let two = Two::start(true).await;
    two.wait_until_listed(true).await;
    let mut first = Kv::new(two.channels[0].clone());
    let written = settled("put", async || first.put(put("a", "1")).await).await;
    written.expect("a put");
    let here = two.channels[1].clone();
    let (mut kv, mut lease) = (Kv::new(here.clone()), Lease::new(here.clone()));
    let (mut maintenance, mut cluster) = (Maintenance::new(here.clone()), Cluster::new(here.clone()));
    let learner = precondition("rpc not supported for learner");
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    let (asked, renewals) = (tokio_stream::pending(), tokio_stream::pending());
    let mut renewing = lease.clone();
    let renewed = async {
        let mut answers = renewing.lease_keep_alive(renewals).await?.into_inner();
        answers.message().await
    };
    for (what, result) in [
        ("range", refused(kv.range(get("a")).await)),
        ("put", refused(kv.put(put("a", "2")).await)),
        ("txn", refused(kv.txn(pb::TxnRequest::default()).await)),
        ("grant", refused(lease.lease_grant(grant).await)),
        ("keep alive", refused(renewed.await)),
        (
            "watch",
            refused(Watch::new(here.clone()).watch(asked).await.map(drop)),
        ),
        ("hash", refused(maintenance.hash(pb::HashRequest {}).await)),
        (
            "hashkv",
            refused(maintenance.hash_kv(pb::HashKvRequest::default()).await),
        ),
        (
            "alarm",
            refused(maintenance.alarm(pb::AlarmRequest::default()).await),
        ),
        (
            "list",
            refused(cluster.member_list(pb::MemberListRequest::default()).await),
        ),
        (
            "remove",
            refused(
                cluster
                    .member_remove(pb::MemberRemoveRequest { id: two.id })
                    .await,
            ),
        ),
    ] {
        assert_eq!(result, learner, "{what}");
    }
    let stale = pb::RangeRequest {
        serializable: true,
        ..get("a")
    };
    kv.range(stale).await.expect("a stale read");
    let led = async {
        loop {
            let status = maintenance.status(pb::StatusRequest {}).await;
            let status = status.expect("a status").into_inner();
            assert!(status.is_learner);
            if status.leader == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), led)
        .await
        .expect("it knows the leader in time");
    let (code, page) = http(two.second.addresses()[0], "GET", "/readyz", "").await;
    assert!(
        code == 503 && page.contains("[-]non_learner failed: not supported for learner"),
        "{code}: {page}"
    );
    let mut leader = Maintenance::new(two.channels[0].clone());
    let target_id = two.id;
    let moved = settled("move", async || {
        leader.move_leader(pb::MoveLeaderRequest { target_id }).await
    });
    assert_eq!(refused(moved.await), precondition("bad leader transferee"));

    promote(&two).await;
    two.wait_until_listed(false).await;
    let written = settled("put", async || kv.put(put("a", "2")).await).await;
    written.expect("a voter serves everything");
}

async fn promote(two: &Two) {
    let mut leader = Cluster::new(two.channels[0].clone());
    let request = pb::MemberPromoteRequest { id: two.id };
    let promoted = async {
        let mut in_doubt = false;
        loop {
            let Err(status) = leader.member_promote(request).await else {
                return;
            };
            let said = (status.code(), status.message().to_owned());
            if in_doubt && said == precondition("can only promote a learner member") {
                return;
            }
            in_doubt |= status.code() == Code::Unavailable;
            // The leader judges whether it has caught up, which takes it a moment.
            let early = status.message().ends_with("in sync with leader");
            assert!(early || status.code() == Code::Unavailable, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), promoted)
        .await
        .expect("promoted in time");
}

#[tokio::test]
async fn a_member_that_was_added_as_a_voter_votes_by_itself_and_a_removed_leader_ends() {
    let mut two = Two::start(false).await;
    two.wait_until_listed(false).await;
    let mut status = two.second.node().subscribe();
    let id = NodeId(two.id);
    let votes = status.wait_for(|now| now.membership.voters.contains(&id) && !now.membership.is_joint());
    tokio::time::timeout(Duration::from_secs(60), votes)
        .await
        .expect("it votes in time")
        .expect("a running node");

    // Through the follower, which is then alone.
    let mut cluster = Cluster::new(two.channels[1].clone());
    let mut asked = 0;
    let removed = settled("remove", async || {
        asked += 1;
        cluster.member_remove(pb::MemberRemoveRequest { id: 1 }).await
    });
    let left = match removed.await {
        Ok(left) => left.into_inner().members,
        Err(status) => {
            assert!(asked > 1, "{status}");
            assert_eq!((status.code(), status.message().to_owned()), not_found());
            listed(&two.channels[1]).await
        }
    };
    let left: Vec<u64> = left.iter().map(|member| member.id).collect();
    assert_eq!(left, [two.id]);
    let ended = tokio::time::timeout(Duration::from_secs(60), two.first.ended())
        .await
        .expect("ends in time");
    assert!(matches!(ended, Err(quorate::Fatal::Removed)), "{ended:?}");
    let mut kv = Kv::new(two.channels[1].clone());
    let served = async {
        while kv.put(put("a", "1")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), served)
        .await
        .expect("the other one serves in time");
}
