//! The JSON mapping against tables of what etcd 3.6's gateway answers to the same requests.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::json::{DecodeError, decode, encode, first_value};
use quorate_proto::mvccpb;

fn range(text: &str) -> Result<pb::RangeRequest, DecodeError> {
    decode(text.as_bytes())
}

#[test]
fn inputs_that_etcd_accepts() {
    let wanted = pb::RangeRequest {
        key: "a".into(),
        limit: 100,
        ..Default::default()
    };
    for text in [
        r#"{"key":"YQ==","limit":100}"#,
        r#"{"key":"YQ==","limit":"100"}"#,
        r#"{"key":"YQ","limit":100}"#,
        r#"{"key":"YQ==","limit":1e2}"#,
        r#"{"key":"YQ==","limit":100.0}"#,
        r#"{"key":"YQ==","limit":100,"bogus":{"deep":[1]}}"#,
        r#"{"key":"YQ==","limit":100} whatever follows"#,
        r#"{"key":"YQ==","limit":100,"sort_order":"BOGUS"}"#,
        r#"{"key":"YQ==","limit":100,"sort_order":0}"#,
        r#"{"key":"YQ==","limit":100,"sort_order":null,"revision":null}"#,
    ] {
        assert_eq!(range(text).as_ref(), Ok(&wanted), "{text}");
    }
}

#[test]
fn both_spellings_and_both_enum_forms_mean_the_same() {
    let wanted = pb::RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        sort_order: pb::range_request::SortOrder::Descend as i32,
        keys_only: true,
        ..Default::default()
    };
    for text in [
        r#"{"key":"YQ==","range_end":"Yg==","sort_order":"DESCEND","keys_only":true}"#,
        r#"{"key":"YQ==","rangeEnd":"Yg==","sortOrder":2,"keysOnly":true}"#,
    ] {
        assert_eq!(range(text).as_ref(), Ok(&wanted), "{text}");
    }
    let unknown_number =
        range(r#"{"sort_order":9}"#).expect("an unknown enum number is passed on, to be refused by name");
    assert_eq!(unknown_number.sort_order, 9);
}

#[test]
fn url_safe_base64_is_read_too() {
    let read = range(r#"{"key":"-_8="}"#).expect("url-safe alphabet");
    assert_eq!(read.key.as_ref(), [0xfb, 0xff]);
}

#[test]
fn inputs_that_etcd_refuses() {
    for text in [
        r#"{"limit":1.5}"#,
        r#"{"serializable":"true"}"#,
        r#"{"key":"YQ==","key":"Yg=="}"#,
        r#"{"key":"***"}"#,
        r#"{"key":5}"#,
        r#"[]"#,
        r#""text""#,
        r#"{"limit":"many"}"#,
        r#"{"limit":9223372036854775808}"#,
    ] {
        assert!(
            matches!(range(text), Err(DecodeError::Invalid(_))),
            "{text}: {:?}",
            range(text)
        );
    }
    assert_eq!(range("{"), Err(DecodeError::Truncated));
}

#[test]
fn nothing_at_all_is_the_empty_message() {
    for text in ["", "  \n", "{}"] {
        assert_eq!(range(text), Ok(pb::RangeRequest::default()), "{text:?}");
    }
}

#[test]
fn a_nested_transaction_is_read() {
    let text = r#"{"compare":[{"target":"VALUE","result":"EQUAL","key":"YQ==","value":"Yg=="}],
        "failure":[{"request_txn":{"success":[{"requestPut":{"key":"YQ==","value":"Yw=="}}]}}]}"#;
    let txn: pb::TxnRequest = decode(text.as_bytes()).expect("Patroni's form");
    assert_eq!(
        txn.compare[0].target_union,
        Some(pb::compare::TargetUnion::Value("b".into()))
    );
    let Some(pb::request_op::Request::RequestTxn(inner)) = &txn.failure[0].request else {
        panic!("the failure branch holds a transaction: {txn:?}");
    };
    assert!(
        matches!(&inner.success[0].request, Some(pb::request_op::Request::RequestPut(p)) if p.value == "c")
    );
}

#[test]
fn output_leaves_out_the_unset_and_quotes_wide_integers() {
    let answer = pb::RangeResponse {
        header: Some(pb::ResponseHeader {
            cluster_id: 14301398113967654015,
            member_id: 5662688015068518467,
            revision: 2,
            raft_term: 2,
        }),
        kvs: vec![mvccpb::KeyValue {
            key: "a".into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: "b".into(),
            lease: 0,
        }],
        more: false,
        count: 1,
    };
    assert_eq!(
        String::from_utf8(encode(&answer)).expect("JSON is UTF-8"),
        concat!(
            r#"{"header":{"cluster_id":"14301398113967654015","member_id":"5662688015068518467","revision":"2","raft_term":"2"},"#,
            r#""kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg=="}],"count":"1"}"#
        )
    );
}

#[test]
fn output_keeps_the_api_s_own_capitals_and_enum_names() {
    let lease = pb::LeaseTimeToLiveResponse {
        id: 7,
        ttl: 9,
        granted_ttl: 10,
        ..Default::default()
    };
    assert_eq!(encode(&lease), br#"{"ID":"7","TTL":"9","grantedTTL":"10"}"#);
    let member = pb::Member {
        id: 1,
        peer_ur_ls: vec!["http://x".into()],
        is_learner: true,
        ..Default::default()
    };
    assert_eq!(
        encode(&member),
        br#"{"ID":"1","peerURLs":["http://x"],"isLearner":true}"#
    );
    let alarm = pb::AlarmMember {
        member_id: 1,
        alarm: pb::AlarmType::Nospace as i32,
    };
    assert_eq!(encode(&alarm), br#"{"memberID":"1","alarm":"NOSPACE"}"#);
    let event = mvccpb::Event {
        r#type: mvccpb::event::EventType::Delete as i32,
        ..Default::default()
    };
    assert_eq!(encode(&event), br#"{"type":"DELETE"}"#);
    let status = pb::StatusResponse {
        downgrade_info: Some(pb::DowngradeInfo::default()),
        ..Default::default()
    };
    assert_eq!(
        encode(&status),
        br#"{"downgradeInfo":{}}"#,
        "a message that is set is shown, though empty"
    );
}

#[test]
fn request_streams_are_cut_value_by_value() {
    assert_eq!(first_value(b""), Ok(None));
    assert_eq!(first_value(b" {\"a\":"), Ok(None));
    assert_eq!(first_value(b" {\"a\":1}{\"b\""), Ok(Some(8)));
    assert!(first_value(b"}").is_err());
}
