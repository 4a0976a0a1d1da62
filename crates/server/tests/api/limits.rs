//! Bad input and many clients: nothing that one connection does may cost another anything.

use quorate_proto::etcdserverpb as pb;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{One, channel, get, post, put, refused};

#[tokio::test]
async fn garbage_closes_its_own_connection_and_nothing_else() {
    let one = One::start().await;
    one.kv().put(put("a", "1")).await.expect("a put");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"HELO mail.example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(one.address).await.expect("a connection");
        stream.write_all(garbage).await.expect("sent");
        stream.shutdown().await.expect("no more");
        let mut answer = Vec::new();
        // An answer or a reset: either way the server lets go.
        let closed = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut answer));
        let _ = closed.await.unwrap_or_else(|_| panic!("{garbage:?} is still connected"));
    }
    let read = one
        .kv()
        .range(get("a"))
        .await
        .expect("the old connection works")
        .into_inner();
    assert_eq!(read.kvs[0].value, "1");
    assert_eq!(
        post(one.address, "/v3/kv/range", r#"{"key":"YQ=="}"#).await.0,
        200,
        "and so does a new one"
    );
}

#[tokio::test]
async fn requests_over_the_limits_are_refused_in_two_ways() {
    let one = One::start().await;
    let mut kv = one.kv();
    let too_large = (
        Code::InvalidArgument,
        "etcdserver: request is too large".to_owned(),
    );
    let value = |len: usize| "x".repeat(len);
    assert_eq!(
        refused(kv.put(put("a", &value(1_572_864))).await),
        too_large,
        "a little over, with its key"
    );
    let (code, said) = refused(kv.put(put("a", &value(3 << 20))).await);
    assert_eq!(code, Code::ResourceExhausted, "far over: {said}");
    kv.put(put("a", &value(1_500_000))).await.expect("just below");
    let read = kv
        .max_decoding_message_size(8 << 20)
        .range(get("a"))
        .await
        .expect("and back")
        .into_inner();
    assert_eq!(read.kvs[0].value.len(), 1_500_000);
    let huge = format!(r#"{{"key":"YQ==","value":"{}"}}"#, value(4 << 20));
    assert_eq!(
        post(one.address, "/v3/kv/put", &huge).await.0,
        429,
        "over HTTP, too"
    );
}

#[tokio::test]
async fn unknown_services_and_unbuilt_methods_are_unimplemented() {
    let one = One::start().await;
    let mut raw = tonic::client::Grpc::new(one.channel.clone());
    raw.ready().await.expect("a connection");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/RangeStream");
    let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
    let answer = raw.unary(tonic::Request::new(get("a")), path, codec).await;
    assert_eq!(refused(answer).0, Code::Unimplemented);
    let mut maintenance = one.maintenance();
    let snapshot = maintenance.snapshot(pb::SnapshotRequest {}).await;
    assert_eq!(refused(snapshot).0, Code::Unimplemented);
    let mut auth = pb::auth_client::AuthClient::new(one.channel.clone());
    assert_eq!(
        refused(auth.user_list(pb::AuthUserListRequest {}).await).0,
        Code::Unimplemented
    );
    assert!(
        !auth
            .auth_status(pb::AuthStatusRequest {})
            .await
            .expect("a status")
            .into_inner()
            .enabled
    );
}

#[tokio::test]
async fn the_health_service_serves() {
    use quorate_proto::health as hp;
    let one = One::start().await;
    let mut health = hp::health_client::HealthClient::new(one.channel.clone());
    let whole = hp::HealthCheckRequest {
        service: String::new(),
    };
    let answer = health.check(whole).await.expect("an answer").into_inner();
    assert_eq!(
        answer.status,
        hp::health_check_response::ServingStatus::Serving as i32
    );
    let other = hp::HealthCheckRequest {
        service: "other".into(),
    };
    assert_eq!(refused(health.check(other).await).0, Code::NotFound);
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_nobody_anything() {
    const IDLE: usize = 10_000;
    let one = One::start().await;
    // Both ends are in this process. The server has raised the soft limit to the hard one.
    let limit = getrlimit(Resource::Nofile).current;
    if limit.is_some_and(|limit| limit < 2 * IDLE as u64 + 500) {
        println!("skipped: this machine allows only {limit:?} open files");
        return;
    }
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(one.address).await.expect("a connection"));
    }
    // Accepted in order: once this one is served, all the others are connected.
    let mut kv = crate::support::Kv::new(channel(one.address).await);
    kv.put(put("a", "1")).await.expect("a put among the idle");
    let open: usize = crate::gateway::metric(one.address, "quorate_client_connections")
        .await
        .parse()
        .expect("a number");
    assert!(open >= IDLE, "{open} are connected");
    for stream in idle.iter_mut().step_by(1000) {
        stream
            .write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .expect("sent");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("an answer after all");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
