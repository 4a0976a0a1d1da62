//! Starting servers on free ports, and a minimal HTTP/1.1 client.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;
use quorate_server::{Member, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

pub type Kv = pb::kv_client::KvClient<Channel>;
pub type Watch = pb::watch_client::WatchClient<Channel>;
pub type Lease = pb::lease_client::LeaseClient<Channel>;
pub type Maintenance = pb::maintenance_client::MaintenanceClient<Channel>;
pub type Cluster = pb::cluster_client::ClusterClient<Channel>;

/// A directory that is removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "quorate-api-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A single server with its data.
pub struct One {
    _server: Server,
    pub address: SocketAddr,
    pub channel: Channel,
    _scratch: Scratch,
}

impl One {
    pub async fn start() -> One {
        One::start_with(|_| {}).await
    }

    /// Starts a cluster of one, on a configuration changed by `adjust`, and waits until it leads.
    pub async fn start_with(adjust: impl FnOnce(&mut ServerConfig)) -> One {
        let scratch = Scratch::new();
        let mut config = ServerConfig::new(NodeId(7), 77, members(&[(7, 0)]), scratch.0.join("data"));
        config.listen_clients = vec![([127, 0, 0, 1], 0).into()];
        adjust(&mut config);
        let server = quorate_server::start(config).await.expect("the server starts");
        wait_for_leader(&server).await;
        let address = server.addresses()[0];
        One {
            _server: server,
            address,
            channel: channel(address).await,
            _scratch: scratch,
        }
    }

    pub fn kv(&self) -> Kv {
        Kv::new(self.channel.clone())
    }

    pub fn watch(&self) -> Watch {
        Watch::new(self.channel.clone())
    }

    pub fn lease(&self) -> Lease {
        Lease::new(self.channel.clone())
    }

    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.channel.clone())
    }
}

/// Members on loopback, by id and peer port.
pub fn members(all: &[(u64, u16)]) -> BTreeMap<NodeId, Member> {
    let member = |(id, port): &(u64, u16)| {
        let member = Member {
            name: format!("n{id}"),
            peer_urls: vec![format!("http://127.0.0.1:{port}")],
        };
        (NodeId(*id), member)
    };
    all.iter().map(member).collect()
}

/// Ports that nobody listens on, below the range from which outgoing connections take theirs.
pub fn free_ports(n: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    let tried = (0..10_000).map(|_| start + NEXT.fetch_add(1, Ordering::Relaxed));
    let free = |port: &u16| *port < 32_000 && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = tried.filter(free).take(n).collect();
    assert_eq!(ports.len(), n, "free ports");
    ports
}

pub async fn wait_for_leader(server: &Server) {
    let mut status = server.node().subscribe();
    let led = status.wait_for(|now| now.leader.is_some());
    tokio::time::timeout(Duration::from_secs(60), led)
        .await
        .expect("a leader in time")
        .expect("a running node");
}

pub async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("a connection")
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

pub fn put_op(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put)),
    }
}

pub fn get_op(get: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(get)),
    }
}

/// Code and message of a call that must fail.
pub fn refused<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> (tonic::Code, String) {
    let status = result.expect_err("the call is refused");
    (status.code(), status.message().to_owned())
}

/// The next item of a stream, in time.
pub async fn next<T>(stream: &mut tonic::Streaming<T>) -> T {
    let item = tokio::time::timeout(Duration::from_secs(10), stream.message());
    item.await.expect("in time").expect("no error").expect("no end")
}

/// Status and body of an HTTP request whose answer ends.
pub async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = send_http(address, method, path, body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

/// Sends an HTTP request and leaves the answer to be read.
pub async fn send_http(address: SocketAddr, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body.as_bytes()).await.expect("sent");
    stream
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        whole += &rest[..size];
        body = rest[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    whole
}

pub async fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
    http(address, "POST", path, body).await
}
