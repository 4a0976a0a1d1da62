//! Bad input to real processes: each case must end in a clear error for whoever caused it, and in nothing for anybody else.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::{Cluster, Dir, QUORATE, Random, Server, run_to_end, wait_for};
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

fn put_request(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

async fn put(server: &Server, key: &str, value: &str) {
    server
        .kv()
        .await
        .put(put_request(key, value.into()))
        .await
        .expect("a put is acknowledged");
}

async fn get(server: &Server, key: &str, serializable: bool) -> Option<Vec<u8>> {
    let request = RangeRequest {
        key: key.as_bytes().to_vec().into(),
        serializable,
        ..RangeRequest::default()
    };
    let answer = server
        .kv()
        .await
        .range(request)
        .await
        .expect("a get is answered")
        .into_inner();
    answer.kvs.first().map(|pair| pair.value.to_vec())
}

async fn single(test: &str, flags: &[&str]) -> (Server, Dir) {
    let dir = Dir::new(test);
    let mut server = Server::single(dir.path(), flags);
    server.start_and_serve().await;
    (server, dir)
}

/// Stops a server that was expected to refuse to start, had it started.
async fn refusal(flags: &[String]) -> String {
    let (code, text) = run_to_end(flags).await;
    assert_eq!(code, 1, "{text}");
    text
}

#[tokio::test]
async fn garbage_on_either_port_ends_that_connection_only() {
    let mut cluster = Cluster::start("garbage", 3, &[]).await;
    let mut random = Random::new();
    let noise: Vec<u8> = (0..65_536).map(|_| random.between(0, 256) as u8).collect();
    let kinds: Vec<Vec<u8>> = vec![
        noise,
        vec![0; 4_096],
        vec![0xff; 4_096],
        b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec(),
        b"POST /v3/kv/put HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![],
    ];
    let leader = cluster.leader().await;
    let ports = [
        cluster.servers[leader].client_port,
        cluster.servers[leader].peer_port,
    ];
    let pids: Vec<u32> = cluster.servers.iter().map(Server::pid).collect();
    for port in ports {
        for bytes in &kinds {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .expect("a timeout");
            // The server may hang up in the middle, which is its right.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer);
            let waiting = end
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(
                !waiting,
                "port {port}: a connection that says {:?}… is kept",
                bytes.get(..20)
            );
        }
    }
    put(&cluster.servers[leader], "after", "garbage").await;
    for (server, pid) in cluster.servers.iter_mut().zip(pids) {
        assert!(server.ended().is_none() && server.pid() == pid);
        assert_eq!(
            get(server, "after", false).await.as_deref(),
            Some(&b"garbage"[..])
        );
    }
}

#[tokio::test]
async fn a_value_of_a_mebibyte_and_a_half_is_stored_and_a_larger_request_is_refused() {
    let cluster = Cluster::start("large", 3, &[]).await;
    let leader = cluster.leader().await;
    let follower = &cluster.servers[(leader + 1) % 3];
    let value: Vec<u8> = (0..1_572_864 - 128).map(|n: u32| (n % 251) as u8).collect();
    follower
        .kv()
        .await
        .put(put_request("big", value.clone()))
        .await
        .expect("just within the limit");
    for server in &cluster.servers {
        assert_eq!(
            get(server, "big", false).await.as_ref(),
            Some(&value),
            "{}",
            server.name
        );
    }
    let status = follower
        .kv()
        .await
        .put(put_request("big", vec![1; 1_572_865]))
        .await
        .expect_err("over");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    let status = follower
        .kv()
        .await
        .put(put_request("big", vec![1; 8 << 20]))
        .await
        .expect_err("far over");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(
        get(follower, "big", false).await,
        Some(value),
        "what was refused has changed nothing"
    );
}

#[tokio::test]
async fn an_unknown_flag_is_refused_with_the_nearest() {
    let (code, text) = run_to_end(&["--election-timout=1000".to_owned()]).await;
    assert_eq!(code, 2);
    assert!(
        text.contains("--election-timout") && text.contains("did you mean --election-timeout?"),
        "{text}"
    );
    let (code, text) = run_to_end(&["--cert-file=server.pem".to_owned()]).await;
    assert_eq!(code, 2);
    assert!(
        text.contains("--cert-file=server.pem is not supported: TLS"),
        "{text}"
    );
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_or_member_is_refused() {
    let (mut server, _dir) = single("identity", &[]).await;
    put(&server, "mine", "1").await;
    server.kill();

    let mut flags = server.flags().to_vec();
    flags.push("--initial-cluster-token=another".to_owned());
    let text = refusal(&flags).await;
    assert!(
        text.contains("with the token \"etcd-cluster\"")
            && text.contains("\"another\"")
            && text.contains(&*server.data_dir.to_string_lossy()),
        "{text}"
    );

    // As with etcd this flag does not matter to a member that was started before; a new one would have to join.
    server.add_flag("--initial-cluster-state=existing");
    server.start_and_serve().await;
    assert_eq!(
        get(&server, "mine", false).await.as_deref(),
        Some(&b"1"[..]),
        "its own member still starts"
    );
    let dir = Dir::new("identity-join");
    let flags = [
        "--initial-cluster-state=existing".to_owned(),
        format!("--data-dir={}", dir.path().join("d").display()),
    ];
    let (code, text) = run_to_end(&flags).await;
    assert!(
        code == 1 && text.contains("no other address is known"),
        "there is nobody to join: {code}: {text}"
    );
}

#[tokio::test]
async fn a_data_directory_of_another_member_of_the_cluster_is_refused() {
    let mut cluster = Cluster::start("member", 3, &[]).await;
    let stolen = cluster.servers[0].data_dir.clone();
    cluster.servers[0].kill();
    cluster.servers[1].kill();
    let mut flags = cluster.servers[1].flags().to_vec();
    flags.push(format!("--data-dir={}", stolen.display()));
    let text = refusal(&flags).await;
    assert!(
        text.contains("belongs to member") && text.contains("\"n1\"") && text.contains("\"n2\""),
        "{text}"
    );
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let (server, _dir) = single("locked", &[]).await;
    let other = (common::free_port(), common::free_port());
    let mut flags = server.flags().to_vec();
    flags.push(format!("--listen-client-urls=http://127.0.0.1:{}", other.0));
    flags.push(format!("--listen-peer-urls=http://127.0.0.1:{}", other.1));
    let text = refusal(&flags).await;
    assert!(
        text.contains("is in use by process") && text.contains(&server.pid().to_string()),
        "{text}"
    );
    put(&server, "still", "served").await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (server, _dir) = single("port", &[]).await;
    let dir = Dir::new("port-other");
    let mut flags = server.flags().to_vec();
    flags.push(format!("--data-dir={}", dir.path().join("d").display()));
    let text = refusal(&flags).await;
    let (client, peer) = (server.client_port.to_string(), server.peer_port.to_string());
    assert!(text.contains(&client) || text.contains(&peer), "{text}");
}

#[tokio::test]
async fn a_damaged_log_is_refused_by_name_offset_and_remedy() {
    let (mut server, _dir) = single("damage", &[]).await;
    for n in 0..50 {
        put(&server, &format!("k{n}"), &format!("the-value-number-{n:04}")).await;
    }
    server.kill();

    // One bit of a value in the middle of the log, with sound frames before and after it.
    let mut hit = None;
    for entry in std::fs::read_dir(&server.data_dir).expect("the data directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with("wal-") {
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("a segment");
        let needle = b"the-value-number-0025";
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at + 3] ^= 0x10;
            std::fs::write(&path, bytes).expect("the segment is written back");
            hit = Some((name, at));
        }
    }
    let (file, at) = hit.expect("the value is in the log");

    let text = refusal(server.flags()).await;
    assert!(text.contains(&file), "names the file {file}: {text}");
    let offset = text.split("at offset ").nth(1).and_then(|rest| {
        rest.split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|digits| digits.parse::<usize>().ok())
    });
    let near = offset.is_some_and(|offset| offset.abs_diff(at) <= 4_096);
    assert!(near, "names an offset near {at}: {text}");
    assert!(
        text.contains("rejoin the cluster as a new member"),
        "says what to do: {text}"
    );

    let dir = server.data_dir.to_string_lossy().into_owned();
    let output = common::quorate(&["debug", "log", &dir], None);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "the damage fails the command");
    assert!(shown.contains("DAMAGE") && shown.contains(&file), "{shown}");
    assert!(
        shown.contains("k24") && shown.contains("k49"),
        "what is sound around it is shown: {shown}"
    );
}

#[tokio::test]
async fn debug_log_shows_a_log_without_changing_it() {
    let (mut server, _dir) = single("debuglog", &[]).await;
    put(&server, "greeting", "hello").await;
    let dir = server.data_dir.to_string_lossy().into_owned();
    let shown = common::quorate_ok(&["debug", "log", &dir]);
    assert!(shown.contains("greeting") && shown.contains("term 1"), "{shown}");
    server.kill();
    let before = files(&server);
    common::quorate_ok(&["debug", "log", &dir]);
    assert_eq!(files(&server), before);
    let output = common::quorate(&["debug", "log", "/no/such/directory"], None);
    assert_eq!(output.status.code(), Some(1));
}

fn files(server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(&server.data_dir)
        .expect("the data directory")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file")))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_member_of_another_cluster_gets_no_hearing() {
    let mut cluster = Cluster::new("stranger", 3, &[]);
    cluster.servers[2].add_flag("--initial-cluster-token=another");
    for server in &mut cluster.servers {
        server.start();
    }
    for at in 0..2 {
        cluster.servers[at].wait_until_led().await;
    }
    put(&cluster.servers[0], "ours", "1").await;
    let stranger = &cluster.servers[2];
    wait_for("the refusal in the stranger's log", async || {
        stranger
            .log_text()
            .contains("cluster")
            .then_some(())
            .filter(|()| refused_in(&stranger.log_text()))
    })
    .await;
    let status = stranger.status().await.expect("it runs");
    assert_eq!(
        (status.leader, status.raft_applied_index),
        (0, 0),
        "it has no leader and no data"
    );
    assert_eq!(
        get(&cluster.servers[1], "ours", false).await.as_deref(),
        Some(&b"1"[..])
    );
}

fn refused_in(log: &str) -> bool {
    log.lines()
        .any(|line| line.contains("cluster") && (line.contains("\twarn\t") || line.contains("\terror\t")))
}

#[tokio::test]
async fn sigterm_hands_leadership_over_and_exits_0() {
    // An election timeout so long that a successor within it can only come from a hand-over.
    let mut cluster = Cluster::start(
        "sigterm",
        3,
        &["--election-timeout=8000", "--heartbeat-interval=100"],
    )
    .await;
    put(&cluster.servers[0], "before", "1").await;
    let leader = cluster.leader().await;
    let before = std::time::Instant::now();
    cluster.servers[leader].terminate();
    let status = cluster.servers[leader].wait_for_end().await;
    assert_eq!(status.code(), Some(0), "{}", cluster.servers[leader].log_text());
    let next = cluster.leader().await;
    let took = before.elapsed();
    assert!(
        next != leader && took < Duration::from_secs(6),
        "leadership was handed over, not timed out: {took:?}"
    );
    put(&cluster.servers[next], "after", "2").await;
    cluster.servers[leader].start_and_serve().await;
    for key in ["before", "after"] {
        assert!(get(&cluster.servers[leader], key, false).await.is_some(), "{key}");
    }
}

#[tokio::test]
async fn a_single_node_survives_sigterm_and_kill() {
    let (mut server, _dir) = single("restart", &[]).await;
    put(&server, "a", "1").await;
    server.terminate();
    assert_eq!(server.wait_for_end().await.code(), Some(0));
    server.start_and_serve().await;
    put(&server, "b", "2").await;
    server.kill();
    server.start_and_serve().await;
    assert_eq!(get(&server, "a", false).await.as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&server, "b", false).await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn ten_thousand_idle_connections_disturb_nobody() {
    const IDLE: usize = 10_000;
    let needed = IDLE as u64 + 500;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        println!(
            "skipped: this machine allows {:?} open files, {needed} are needed",
            limit.maximum
        );
        assert!(
            std::env::var_os("CI").is_none(),
            "required in CI: raise the limit of open files (ulimit -Hn)"
        );
        return;
    }
    limit.current = Some(limit.current.map_or(needed, |current| current.max(needed)));
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("the limit can be raised");

    let (mut server, _dir) = single("idle", &[]).await;
    let mut idle = Vec::new();
    for n in 0..IDLE {
        let to = format!("127.0.0.1:{}", server.client_port);
        let stream = tokio::net::TcpStream::connect(&to).await;
        idle.push(stream.unwrap_or_else(|error| panic!("connection {n}: {error}")));
    }
    put(&server, "beside", "idlers").await;
    assert_eq!(
        get(&server, "beside", false).await.as_deref(),
        Some(&b"idlers"[..])
    );
    assert!(server.ended().is_none());
    drop(idle);
    put(&server, "after", "idlers").await;
}

#[tokio::test]
async fn clients_cannot_take_the_files_that_the_log_needs() {
    let dir = Dir::new("files");
    let mut server = Server::single(dir.path(), &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$0\" serve \"$@\"", QUORATE]);
    command.args(server.flags());
    server.start_by(command);
    server.wait_until_led().await;

    let mut kv = server.kv().await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(tokio::net::TcpStream::connect(("127.0.0.1", server.client_port)).await);
    }
    // More than a segment of the log, so that new files are needed.
    for n in 0..40 {
        let request = put_request(&format!("large/{n}"), vec![b'x'; 1 << 20]);
        kv.put(request).await.expect("a put is acknowledged");
    }
    assert!(server.ended().is_none(), "it goes on");
    drop(idle);
    put(&server, "after", "the crowd").await;
}
