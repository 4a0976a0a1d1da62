//! The JSON gateway and the pages, over plain HTTP.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use crate::support::{One, http, post, send_http};

/// A series of `/metrics` that has no labels.
pub async fn metric(address: SocketAddr, name: &str) -> String {
    let (status, page) = http(address, "GET", "/metrics", "").await;
    assert_eq!(status, 200);
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

const HEADER: &str = r#""header":{"cluster_id":"77","member_id":"7","revision":"#;

fn header(revision: u64, term: &str) -> String {
    format!(r#"{HEADER}"{revision}","raft_term":"{term}"}}"#)
}

#[tokio::test]
async fn calls_are_answered_as_etcds_gateway_does() {
    let one = One::start().await;
    let term = metric(one.address, "quorate_term").await;
    let at = one.address;
    let put = post(at, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await;
    assert_eq!(put, (200, format!("{{{}}}", header(2, &term))));
    let pair = r#"{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg=="}"#;
    let found = (
        200,
        format!(r#"{{{},"kvs":[{pair}],"count":"1"}}"#, header(2, &term)),
    );
    for path in ["/v3/kv/range", "/v3beta/kv/range"] {
        assert_eq!(
            post(at, path, r#"{"key":"YQ==","limit":"1"}"#).await,
            found,
            "{path}"
        );
    }
    assert_eq!(
        post(
            at,
            "/v3/kv/range",
            r#"{"key":"YQ==","rangeEnd":"Yg==","sortOrder":"DESCEND"}"#
        )
        .await,
        found
    );
    let txn = r#"{"compare":[{"target":"VALUE","key":"YQ==","value":"eA=="}],"success":[],
        "failure":[{"requestTxn":{"success":[{"request_put":{"key":"YQ==","value":"Yw=="}}]}}]}"#;
    let done = post(at, "/v3/kv/txn", txn).await;
    let inner = r#"{"response_txn":{"header":{},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"3"}}}]}}"#;
    assert_eq!(
        done,
        (200, format!(r#"{{{},"responses":[{inner}]}}"#, header(3, &term)))
    );
    let granted = post(at, "/v3/lease/grant", r#"{"TTL":10,"ID":"7"}"#).await;
    assert_eq!(
        granted,
        (200, format!(r#"{{{},"ID":"7","TTL":"10"}}"#, header(3, &term)))
    );
    for path in ["/v3/lease/timetolive", "/v3/kv/lease/timetolive"] {
        let gone = post(at, path, r#"{"ID":99}"#).await;
        assert_eq!(
            gone,
            (200, format!(r#"{{{},"ID":"99","TTL":"-1"}}"#, header(3, &term))),
            "{path}"
        );
    }
    let listed = post(at, "/v3/cluster/member/list", "").await;
    let member =
        format!(r#"{{"ID":"7","name":"n7","peerURLs":["http://127.0.0.1:0"],"clientURLs":["http://{at}"]}}"#);
    let head = format!(r#""header":{{"cluster_id":"77","member_id":"7","raft_term":"{term}"}}"#);
    assert_eq!(listed, (200, format!(r#"{{{head},"members":[{member}]}}"#)));
    let auth = post(at, "/v3/auth/status", "{}").await;
    assert_eq!(
        auth,
        (200, format!(r#"{{{},"authRevision":"1"}}"#, header(3, &term)))
    );
}

#[tokio::test]
async fn errors_have_the_code_the_words_and_the_http_status() {
    let one = One::start().await;
    let at = one.address;
    for (path, body, status, said) in [
        (
            "/v3/kv/range",
            "",
            400,
            r#"{"code":3,"message":"etcdserver: key is not provided"}"#,
        ),
        (
            "/v3/kv/range",
            r#"{"key":null}"#,
            400,
            r#"{"code":3,"message":"etcdserver: key is not provided"}"#,
        ),
        (
            "/v3/kv/range",
            "{",
            400,
            r#"{"code":3,"message":"unexpected EOF"}"#,
        ),
        (
            "/v3/kv/range",
            r#"{"key":"YQ==","revision":9}"#,
            400,
            r#"{"code":11,"message":"etcdserver: mvcc: required revision is a future revision"}"#,
        ),
        (
            "/v3/kv/lease/revoke",
            r#"{"ID":99}"#,
            404,
            r#"{"code":5,"message":"etcdserver: requested lease not found"}"#,
        ),
        ("/v3/kv/bogus", "{}", 404, r#"{"code":5,"message":"Not Found"}"#),
        (
            "/v3/maintenance/transfer-leadership",
            "{}",
            400,
            r#"{"code":9,"message":"etcdserver: bad leader transferee"}"#,
        ),
        (
            "/v3/auth/enable",
            "{}",
            501,
            r#"{"code":12,"message":"quorate does not support enabling authentication yet"}"#,
        ),
        (
            "/v3/lock/lock",
            "{}",
            501,
            r#"{"code":12,"message":"quorate does not support the lock service yet"}"#,
        ),
    ] {
        assert_eq!(
            post(at, path, body).await,
            (status, said.to_owned()),
            "{path} {body}"
        );
    }
    for body in [
        r#"{"key":"***"}"#,
        r#"{"key":"YQ==","limit":1.5}"#,
        "[]",
        r#"{"key":"YQ==","key":"Yg=="}"#,
    ] {
        let (status, said) = post(at, "/v3/kv/range", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(
            said.starts_with(r#"{"code":3,"message":"proto: "#),
            "{body}: {said}"
        );
    }
    let (status, said) = http(at, "GET", "/v3/kv/range", "").await;
    assert_eq!(
        (status, said.as_str()),
        (501, r#"{"code":12,"message":"Method Not Allowed"}"#)
    );
}

#[tokio::test]
async fn streams_are_lines() {
    let one = One::start().await;
    let at = one.address;
    post(at, "/v3/lease/grant", r#"{"TTL":10,"ID":7}"#).await;
    let term = metric(at, "quorate_term").await;
    let renewed = post(at, "/v3/lease/keepalive", r#"{"ID":7}{"ID":"99"}"#).await;
    let line = |rest: &str| format!("{{\"result\":{{{},{rest}}}}}\n", header(1, &term));
    assert_eq!(
        renewed,
        (200, line(r#""ID":"7","TTL":"10""#) + &line(r#""ID":"99""#))
    );
    let mut watch = send_http(at, "POST", "/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#).await;
    read_until(&mut watch, r#""created":true}}"#).await;
    post(at, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await;
    let event = concat!(
        r#""events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg=="}}]}}"#,
        "\n"
    );
    read_until(&mut watch, event).await;
    let (status, said) = post(at, "/v3/maintenance/snapshot", "{}").await;
    assert_eq!(status, 501);
    assert!(said.starts_with(r#"{"error":{"code":12,"#), "{said}");
}

async fn read_until(stream: &mut tokio::net::TcpStream, wanted: &str) {
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            assert!(
                stream.read_buf(&mut seen).await.expect("readable") > 0,
                "the stream ended"
            );
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(10), reading).await;
    in_time.unwrap_or_else(|_| panic!("{wanted} did not come"));
}

#[tokio::test]
async fn pages() {
    let one = One::start().await;
    let at = one.address;
    let version = r#"{"etcdserver":"3.6.6","etcdcluster":"3.6.0","storage":"3.6.0"}"#;
    for (method, path, status, said) in [
        ("GET", "/version", 200, version),
        ("GET", "/health", 200, r#"{"health":"true","reason":""}"#),
        (
            "GET",
            "/health?serializable=true",
            200,
            r#"{"health":"true","reason":""}"#,
        ),
        ("GET", "/livez", 200, "ok\n"),
        (
            "GET",
            "/readyz?verbose&exclude=non_learner",
            200,
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
        ),
        (
            "GET",
            "/readyz/linearizable_read?verbose",
            200,
            "[+]linearizable_read ok\nok\n",
        ),
        ("GET", "/readyz/nope", 404, "404 page not found\n"),
        ("GET", "/nope", 404, "404 page not found\n"),
        ("GET", "/", 404, "404 page not found\n"),
        ("POST", "/health", 405, "Method Not Allowed\n"),
        ("OPTIONS", "/v3/kv/range", 200, ""),
    ] {
        assert_eq!(
            http(at, method, path, "").await,
            (status, said.to_owned()),
            "{method} {path}"
        );
    }
    let raised = post(
        at,
        "/v3/maintenance/alarm",
        r#"{"action":"ACTIVATE","alarm":"NOSPACE","memberID":"7"}"#,
    )
    .await;
    assert_eq!(raised.0, 200);
    let (status, said) = http(at, "GET", "/health", "").await;
    assert_eq!(
        (status, said.trim_end()),
        (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#)
    );
    assert_eq!(http(at, "GET", "/health?exclude=NOSPACE", "").await.0, 200);
}

#[tokio::test]
async fn metrics_move_with_the_server() {
    let one = One::start().await;
    let at = one.address;
    assert_eq!(metric(at, "etcd_server_has_leader").await, "1");
    assert_eq!(metric(at, "etcd_server_is_leader").await, "1");
    // The leader's own first entry is applied before this is answered.
    post(at, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
    let before: u64 = metric(at, "etcd_server_proposals_applied_total")
        .await
        .parse()
        .expect("a number");
    post(at, "/v3/kv/put", r#"{"key":"YQ=="}"#).await;
    let after: u64 = metric(at, "etcd_server_proposals_applied_total")
        .await
        .parse()
        .expect("a number");
    assert_eq!(after, before + 1);
    assert_eq!(metric(at, "quorate_commit_latency_seconds_count").await, "2");
    assert_ne!(
        metric(at, "etcd_disk_wal_fsync_duration_seconds_count").await,
        "0"
    );
    assert_eq!(metric(at, "etcd_debugging_mvcc_current_revision").await, "3");
}
