//! The KV service over gRPC: what comes back, headers included, and the exact words of refusals.

use quorate_proto::etcdserverpb as pb;
use tonic::Code;

use crate::support::{One, get, get_op, put, put_op, refused};

#[tokio::test]
async fn put_get_and_delete_move_the_revision_and_fill_the_header() {
    let one = One::start().await;
    let mut kv = one.kv();
    let empty = kv.range(get("a")).await.expect("a read").into_inner();
    assert_eq!(
        (empty.count, empty.header.expect("a header").revision),
        (0, 1),
        "a fresh store is at 1"
    );
    let first = kv.put(put("a", "1")).await.expect("a put").into_inner();
    let header = first.header.expect("a header");
    assert_eq!((header.cluster_id, header.member_id, header.revision), (77, 7, 2));
    assert!(header.raft_term > 0);
    let second = kv
        .put(pb::PutRequest {
            prev_kv: true,
            ..put("a", "2")
        })
        .await
        .expect("a put")
        .into_inner();
    assert_eq!(second.prev_kv.expect("the version before").value, "1");
    let read = kv.range(get("a")).await.expect("a read").into_inner();
    let pair = &read.kvs[0];
    assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (2, 3, 2));
    let old = kv
        .range(pb::RangeRequest {
            revision: 2,
            ..get("a")
        })
        .await
        .expect("a read")
        .into_inner();
    assert_eq!(
        (old.kvs[0].value.as_ref(), old.header.expect("a header").revision),
        (&b"1"[..], 3)
    );
    let delete = pb::DeleteRangeRequest {
        key: "a".into(),
        prev_kv: true,
        ..Default::default()
    };
    let deleted = kv
        .delete_range(delete.clone())
        .await
        .expect("a delete")
        .into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (1, 1));
    let again = kv.delete_range(delete).await.expect("a delete").into_inner();
    assert_eq!(
        (again.deleted, again.header.expect("a header").revision),
        (0, 4),
        "nothing deleted, no new revision"
    );
}

#[tokio::test]
async fn range_options_reach_the_store() {
    let one = One::start().await;
    let mut kv = one.kv();
    for (key, value) in [("k1", "c"), ("k2", "b"), ("k3", "a")] {
        kv.put(put(key, value)).await.expect("a put");
    }
    let all = pb::RangeRequest {
        range_end: "k9".into(),
        ..get("k")
    };
    let limited = kv
        .range(pb::RangeRequest {
            limit: 2,
            ..all.clone()
        })
        .await
        .expect("a read")
        .into_inner();
    assert_eq!((limited.kvs.len(), limited.more, limited.count), (2, true, 3));
    let by_value = pb::RangeRequest {
        sort_order: pb::range_request::SortOrder::Ascend as i32,
        sort_target: pb::range_request::SortTarget::Value as i32,
        keys_only: true,
        serializable: true,
        ..all.clone()
    };
    let sorted = kv.range(by_value).await.expect("a read").into_inner();
    let keys: Vec<_> = sorted.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(keys, ["k3", "k2", "k1"]);
    assert!(sorted.kvs.iter().all(|kv| kv.value.is_empty()));
    // A target without an order sorts only what the limit let through, and one more.
    let unordered = pb::RangeRequest {
        sort_target: pb::range_request::SortTarget::Value as i32,
        limit: 1,
        ..all.clone()
    };
    let first = kv.range(unordered).await.expect("a read").into_inner();
    assert_eq!(
        (first.kvs[0].key.as_ref(), first.more),
        (&b"k2"[..], true),
        "of k1 and k2 the smaller value"
    );
    let counted = kv
        .range(pb::RangeRequest {
            count_only: true,
            ..all
        })
        .await
        .expect("a read")
        .into_inner();
    assert_eq!((counted.kvs.len(), counted.count), (0, 3));
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_its_inner_headers_carry_only_that() {
    let one = One::start().await;
    let mut kv = one.kv();
    kv.put(put("a", "1")).await.expect("a put");
    let compare = pb::Compare {
        target: pb::compare::CompareTarget::Version as i32,
        key: "a".into(),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let nested = pb::TxnRequest {
        success: vec![get_op(get("a"))],
        ..Default::default()
    };
    let nested = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestTxn(nested)),
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            put_op(put("a", "2")),
            put_op(put("b", "2")),
            get_op(get("a")),
            nested,
        ],
        failure: vec![],
    };
    let done = kv.txn(txn.clone()).await.expect("a transaction").into_inner();
    assert!(done.succeeded);
    assert_eq!(done.header.expect("a header").revision, 3);
    use pb::response_op::Response;
    let inner = |op: &pb::ResponseOp| match op.response.clone().expect("an answer") {
        Response::ResponsePut(r) => r.header,
        Response::ResponseRange(r) => r.header,
        Response::ResponseDeleteRange(r) => r.header,
        Response::ResponseTxn(r) => r.header,
    };
    let header = |revision| {
        Some(pb::ResponseHeader {
            revision,
            ..Default::default()
        })
    };
    let headers: Vec<_> = done.responses.iter().map(inner).collect();
    assert_eq!(headers, [header(3), header(3), header(3), header(0)]);
    let not_again = kv.txn(txn).await.expect("a transaction").into_inner();
    assert!(!not_again.succeeded, "the version is 2 now");
    assert_eq!(
        not_again.header.expect("a header").revision,
        3,
        "an empty branch changes nothing"
    );
    let read_only = pb::TxnRequest {
        success: vec![get_op(get("b"))],
        ..Default::default()
    };
    let read = kv
        .txn(read_only)
        .await
        .expect("a read-only transaction")
        .into_inner();
    assert_eq!((read.succeeded, read.responses.len()), (true, 1));
}

#[tokio::test]
async fn compaction_forgets_and_says_so() {
    let one = One::start().await;
    let mut kv = one.kv();
    for n in 0..5 {
        kv.put(put("a", &n.to_string())).await.expect("a put");
    }
    kv.compact(pb::CompactionRequest {
        revision: 4,
        physical: true,
    })
    .await
    .expect("a compaction");
    let at = |revision| pb::RangeRequest { revision, ..get("a") };
    assert_eq!(
        kv.range(at(4))
            .await
            .expect("the compacted revision itself")
            .into_inner()
            .kvs[0]
            .value,
        "2"
    );
    let compacted = (
        Code::OutOfRange,
        "etcdserver: mvcc: required revision has been compacted".to_owned(),
    );
    let future = (
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision".to_owned(),
    );
    assert_eq!(refused(kv.range(at(3)).await), compacted);
    assert_eq!(refused(kv.range(at(99)).await), future);
    let compact = |revision| pb::CompactionRequest {
        revision,
        physical: false,
    };
    assert_eq!(refused(kv.compact(compact(4)).await), compacted);
    assert_eq!(refused(kv.compact(compact(99)).await), future);
}

#[tokio::test]
async fn refusals_carry_etcds_code_and_words() {
    let one = One::start().await;
    let mut kv = one.kv();
    let invalid = |text: &str| (Code::InvalidArgument, format!("etcdserver: {text}"));
    assert_eq!(
        refused(kv.put(put("", "v")).await),
        invalid("key is not provided")
    );
    assert_eq!(refused(kv.range(get("")).await), invalid("key is not provided"));
    let value_ignored = |value| pb::PutRequest {
        ignore_value: true,
        ..put("a", value)
    };
    assert_eq!(
        refused(kv.put(value_ignored("v")).await),
        invalid("value is provided")
    );
    assert_eq!(refused(kv.put(value_ignored("")).await), invalid("key not found"));
    let leased = pb::PutRequest {
        lease: 99,
        ..put("a", "v")
    };
    let no_lease = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(refused(kv.put(leased).await), no_lease);
    let sorted = pb::RangeRequest {
        sort_order: 9,
        ..get("a")
    };
    assert_eq!(refused(kv.range(sorted).await), invalid("invalid sort option"));
    let twice = pb::TxnRequest {
        success: vec![put_op(put("a", "1")), put_op(put("a", "2"))],
        ..Default::default()
    };
    assert_eq!(
        refused(kv.txn(twice).await),
        invalid("duplicate key given in txn request")
    );
    let many = pb::TxnRequest {
        success: vec![get_op(get("a")); 129],
        ..Default::default()
    };
    assert_eq!(
        refused(kv.txn(many).await),
        invalid("too many operations in txn request")
    );
    let nothing = pb::TxnRequest {
        success: vec![pb::RequestOp::default()],
        ..Default::default()
    };
    assert_eq!(refused(kv.txn(nothing).await), invalid("key not found"));
}

#[tokio::test]
async fn the_nospace_alarm_stops_puts_but_not_deletes_until_it_is_cleared() {
    let one = One::start().await;
    let (mut kv, mut maintenance) = (one.kv(), one.maintenance());
    kv.put(put("a", "1")).await.expect("a put");
    let mut alarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate as i32,
        member_id: 7,
        alarm: pb::AlarmType::Nospace as i32,
    };
    let raised = maintenance.alarm(alarm).await.expect("an alarm").into_inner();
    assert_eq!(
        raised.alarms,
        [pb::AlarmMember {
            member_id: 7,
            alarm: pb::AlarmType::Nospace as i32
        }]
    );
    let full = (
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded".to_owned(),
    );
    assert_eq!(refused(kv.put(put("a", "2")).await), full);
    let status = maintenance
        .status(pb::StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    assert_eq!(status.errors, ["memberID:7 alarm:NOSPACE "]);
    kv.delete_range(pb::DeleteRangeRequest {
        key: "a".into(),
        ..Default::default()
    })
    .await
    .expect("a delete");
    alarm.action = pb::alarm_request::AlarmAction::Deactivate as i32;
    maintenance.alarm(alarm).await.expect("an alarm cleared");
    kv.put(put("a", "2")).await.expect("a put again");
}

/// Or members would raise each other's alarms again, faster than anybody can clear them one by one.
#[tokio::test]
async fn an_alarm_of_another_member_makes_nobody_raise_one() {
    let one = One::start().await;
    let (mut kv, mut maintenance) = (one.kv(), one.maintenance());
    let alarm = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action as i32,
        member_id: 9,
        alarm: pb::AlarmType::Nospace as i32,
    };
    let raise = alarm(pb::alarm_request::AlarmAction::Activate);
    let raised = maintenance.alarm(raise).await.expect("an alarm").into_inner();
    for _ in 0..50 {
        let delete = pb::DeleteRangeRequest {
            key: "a".into(),
            ..Default::default()
        };
        kv.delete_range(delete).await.expect("a delete");
    }
    let listed = maintenance
        .alarm(pb::AlarmRequest::default())
        .await
        .expect("a list");
    assert_eq!(listed.into_inner().alarms, raised.alarms);
    let clear = alarm(pb::alarm_request::AlarmAction::Deactivate);
    maintenance.alarm(clear).await.expect("an alarm cleared");
    kv.put(put("a", "1")).await.expect("a put");
}

#[tokio::test]
async fn status_and_hashes_have_real_values() {
    let one = One::start().await;
    let mut maintenance = one.maintenance();
    one.kv().put(put("a", "1")).await.expect("a put");
    let status = maintenance
        .status(pb::StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    assert_eq!(
        (status.leader, status.version.as_str(), status.errors.len()),
        (7, quorate_server::API_VERSION, 0)
    );
    assert!(status.raft_index >= 2 && status.raft_applied_index <= status.raft_index && status.raft_term > 0);
    let hash = |revision| pb::HashKvRequest { revision };
    let now = maintenance.hash_kv(hash(0)).await.expect("a hash").into_inner();
    let same = maintenance.hash_kv(hash(2)).await.expect("a hash").into_inner();
    let before = maintenance.hash_kv(hash(1)).await.expect("a hash").into_inner();
    assert_eq!((now.hash, now.hash_revision), (same.hash, 2));
    assert_ne!(now.hash, before.hash);
    maintenance
        .defragment(pb::DefragmentRequest {})
        .await
        .expect("nothing to do");
    let refused = refused(
        maintenance
            .move_leader(pb::MoveLeaderRequest { target_id: 9 })
            .await,
    );
    assert_eq!(
        refused,
        (
            Code::FailedPrecondition,
            "etcdserver: bad leader transferee".to_owned()
        )
    );
}
