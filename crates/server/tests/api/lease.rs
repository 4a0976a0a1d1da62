//! The Lease service on one member: grants, renewals, expiry, revocation.

use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb as pb;
use tonic::Code;

use crate::support::{One, get, next, put, refused};

fn grant(ttl: i64, id: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

#[tokio::test]
async fn grants_are_bounded_and_ids_unique() {
    let one = One::start().await;
    let mut lease = one.lease();
    let chosen = lease
        .lease_grant(grant(60, 0))
        .await
        .expect("a grant")
        .into_inner();
    assert!(chosen.id > 0);
    assert_eq!(chosen.ttl, 60);
    assert_eq!(
        chosen.header.expect("a header").revision,
        1,
        "a grant is no revision"
    );
    let raised = lease
        .lease_grant(grant(1, 42))
        .await
        .expect("a grant")
        .into_inner();
    assert_eq!(
        (raised.id, raised.ttl),
        (42, 2),
        "the shortest is one and a half election timeouts"
    );
    let exists = (
        Code::FailedPrecondition,
        "etcdserver: lease already exists".to_owned(),
    );
    assert_eq!(refused(lease.lease_grant(grant(9, 42)).await), exists);
    let too_long = (Code::OutOfRange, "etcdserver: too large lease TTL".to_owned());
    assert_eq!(
        refused(lease.lease_grant(grant(9_000_000_001, 0)).await),
        too_long
    );
    let listed = lease
        .lease_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("a list")
        .into_inner();
    assert_eq!(listed.leases.len(), 2);
}

#[tokio::test]
async fn a_renewed_lease_lives_and_a_missing_one_is_no_error() {
    let one = One::start().await;
    let mut lease = one.lease();
    lease.lease_grant(grant(60, 7)).await.expect("a grant");
    let asked = [7, 99, 7].map(|id| pb::LeaseKeepAliveRequest { id });
    let mut renewed = lease
        .lease_keep_alive(tokio_stream::iter(asked))
        .await
        .expect("a stream")
        .into_inner();
    // What is left, when leadership has been confirmed.
    for (id, ttl) in [(7, 50..=60), (99, 0..=0), (7, 50..=60)] {
        let answer = next(&mut renewed).await;
        assert!(answer.id == id && ttl.contains(&answer.ttl), "{answer:?}");
    }
    assert_eq!(renewed.message().await.expect("a proper end"), None);
    let question = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    one.kv()
        .put(pb::PutRequest {
            lease: 7,
            ..put("a", "1")
        })
        .await
        .expect("a put");
    let left = lease
        .lease_time_to_live(question(7))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((left.granted_ttl, left.keys), (60, vec!["a".into()]));
    assert!((55..=60).contains(&left.ttl), "{}", left.ttl);
    let missing = lease
        .lease_time_to_live(question(99))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((missing.ttl, missing.granted_ttl), (-1, 0));
}

#[tokio::test]
async fn revoking_deletes_the_keys_in_one_revision() {
    let one = One::start().await;
    let (mut kv, mut lease) = (one.kv(), one.lease());
    lease.lease_grant(grant(60, 7)).await.expect("a grant");
    for key in ["b", "a"] {
        kv.put(pb::PutRequest {
            lease: 7,
            ..put(key, "1")
        })
        .await
        .expect("a put");
    }
    let revoked = lease
        .lease_revoke(pb::LeaseRevokeRequest { id: 7 })
        .await
        .expect("a revocation")
        .into_inner();
    assert_eq!(revoked.header.expect("a header").revision, 4);
    assert_eq!(kv.range(get("a")).await.expect("a read").into_inner().count, 0);
    let missing = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(
        refused(lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await),
        missing
    );
}

#[tokio::test]
async fn an_expired_lease_takes_its_keys_with_it_and_not_too_early() {
    let one = One::start().await;
    let (mut kv, mut lease) = (one.kv(), one.lease());
    let granted = Instant::now();
    lease.lease_grant(grant(2, 7)).await.expect("a grant");
    kv.put(pb::PutRequest {
        lease: 7,
        ..put("a", "1")
    })
    .await
    .expect("a put");
    let create = pb::WatchCreateRequest {
        key: "a".into(),
        ..Default::default()
    };
    let create = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let mut events = one
        .watch()
        .watch(tokio_stream::iter([create]))
        .await
        .expect("a stream")
        .into_inner();
    assert!(next(&mut events).await.created);
    let deleted = next(&mut events).await;
    assert_eq!(
        deleted.events[0].r#type,
        quorate_proto::mvccpb::event::EventType::Delete as i32
    );
    assert!(
        granted.elapsed() >= Duration::from_secs(2),
        "not before its time: {:?}",
        granted.elapsed()
    );
}
