//! Real `quorate serve` processes for the tests: started, killed, asked, waited for. Nothing here sleeps for a guess: every wait
//! polls for what it waits for, and fails with the processes' logs when that does not come.

// Each test file uses a part of this.
#![allow(dead_code)]

pub mod load;

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{StatusRequest, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

/// The binary under test.
pub const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// Longest wait for anything that a healthy machine does in a second or two.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of this test's own, empty, removed when the test passes.
pub struct Dir(PathBuf);

impl Dir {
    /// Makes one.
    pub fn new(test: &str) -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Dir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A port that nobody listens on, below the range from which outgoing connections take theirs.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    for _ in 0..10_000 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if port < 32_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Waits until `poll` gives something.
pub async fn wait_for<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {} s for {what}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One server: what it is started with, and its process while there is one.
pub struct Server {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A server of its own, not started.
    pub fn single(dir: &Path, flags: &[&str]) -> Server {
        let ports = (free_port(), free_port());
        Server::with_ports(
            dir,
            "n1",
            ports,
            &format!("n1=http://127.0.0.1:{}", ports.1),
            flags,
        )
    }

    /// A server with these ports (client, peer), not started.
    pub fn with_ports(dir: &Path, name: &str, ports: (u16, u16), cluster: &str, flags: &[&str]) -> Server {
        let data_dir = dir.join(name);
        let mut all = vec![
            format!("--name={name}"),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client-urls=http://127.0.0.1:{}", ports.0),
            format!("--listen-peer-urls=http://127.0.0.1:{}", ports.1),
            format!("--initial-cluster={cluster}"),
            "--log-format=console".to_owned(),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Server {
            name: name.to_owned(),
            client_port: ports.0,
            peer_port: ports.1,
            data_dir,
            log: dir.join(format!("{name}.log")),
            flags: all,
            child: None,
        }
    }

    /// The command line, for runs that are expected to fail.
    pub fn flags(&self) -> &[String] {
        &self.flags
    }

    /// Adds or overrides a flag for the next start.
    pub fn add_flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// Starts the process and does not wait for it to serve.
    pub fn start(&mut self) {
        self.start_by(serve_command(&self.flags));
    }

    /// The same by a command of the test's own.
    pub fn start_by(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} is running", self.name);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
    }

    /// Starts the process and waits until it answers and knows a leader.
    pub async fn start_and_serve(&mut self) {
        self.start();
        self.wait_until_led().await;
    }

    /// Waits until the server answers and knows a leader.
    pub async fn wait_until_led(&mut self) {
        let what = format!("{} to know a leader", self.name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.status().await.is_some_and(|status| status.leader != 0) {
                return;
            }
            if let Some(status) = self.ended() {
                panic!(
                    "{} ended ({status}) while waiting for {what}; log:\n{}",
                    self.name,
                    self.log_text()
                );
            }
            assert!(
                Instant::now() < deadline,
                "waited for {what}; log:\n{}",
                self.log_text()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// Whether a process is there that has not been waited for.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the process with signal 9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().expect("kill -9");
        child.wait().expect("the process is gone");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process id");
        kill_process(pid, Signal::TERM).expect("SIGTERM");
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("try_wait")?;
        self.child = None;
        Some(status)
    }

    /// Waits for the process to end.
    pub async fn wait_for_end(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), async || self.ended()).await
    }

    /// `http://…` for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// `http://…` for the other members.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// A connection, if the server accepts one.
    pub async fn try_channel(&self) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(self.url()).expect("a URL");
        endpoint
            .connect_timeout(Duration::from_secs(1))
            .connect()
            .await
            .ok()
    }

    /// A key-value client.
    pub async fn kv(&self) -> KvClient<Channel> {
        let channel = wait_for("a connection", async || self.try_channel().await).await;
        KvClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    /// What the server says of itself, if it answers within a second.
    pub async fn status(&self) -> Option<StatusResponse> {
        let ask = async {
            let mut client = MaintenanceClient::new(self.try_channel().await?);
            client
                .status(StatusRequest {})
                .await
                .ok()
                .map(tonic::Response::into_inner)
        };
        tokio::time::timeout(Duration::from_secs(1), ask)
            .await
            .ok()
            .flatten()
    }

    /// All that it has logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let text = self.log_text();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of {}'s log\n{}", self.name, last.join("\n"));
        }
    }
}

/// A cluster of servers that know each other.
pub struct Cluster {
    pub servers: Vec<Server>,
    pub dir: Dir,
}

impl Cluster {
    /// `size` servers with short timeouts, started, with a leader.
    pub async fn start(test: &str, size: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(test, size, flags);
        for server in &mut cluster.servers {
            server.start();
        }
        for server in &mut cluster.servers {
            server.wait_until_led().await;
        }
        cluster
    }

    /// `size` servers, not started.
    pub fn new(test: &str, size: usize, flags: &[&str]) -> Cluster {
        let dir = Dir::new(test);
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let members: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(k, p)| format!("n{}=http://127.0.0.1:{}", k + 1, p.1))
            .collect();
        let members = members.join(",");
        let mut all = vec!["--heartbeat-interval=50", "--election-timeout=500"];
        all.extend(flags);
        let servers = ports
            .iter()
            .enumerate()
            .map(|(k, p)| Server::with_ports(dir.path(), &format!("n{}", k + 1), *p, &members, &all))
            .collect();
        Cluster { servers, dir }
    }

    /// A server that is to join, not started. It is told of all members that are there from the start.
    pub fn newcomer(&self, name: &str) -> Server {
        let ports = (free_port(), free_port());
        let founders = self
            .servers
            .iter()
            .map(|s| format!("{}={}", s.name, s.peer_url()));
        let members: Vec<String> = founders
            .chain([format!("{name}=http://127.0.0.1:{}", ports.1)])
            .collect();
        let flags = [
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--initial-cluster-state=existing",
        ];
        Server::with_ports(self.dir.path(), name, ports, &members.join(","), &flags)
    }

    /// The clients' endpoints, for `--endpoints`.
    pub fn endpoints(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        urls.join(",")
    }

    /// The position of the leader, once a majority names the same one.
    pub async fn leader(&self) -> usize {
        wait_for("a leader that a majority names", async || {
            let mut named = Vec::new();
            let mut members = Vec::new();
            for (at, server) in self.servers.iter().enumerate() {
                if !server.is_running() {
                    continue;
                }
                let Some(status) = server.status().await else {
                    continue;
                };
                members.push((at, status.header.as_ref().expect("a header").member_id));
                named.push((status.raft_term, status.leader));
            }
            let (term, leader) = *named.iter().max()?;
            let votes = named.iter().filter(|&&vote| vote == (term, leader)).count();
            let at = members.iter().find(|(_, id)| *id == leader)?.0;
            (votes > self.servers.len() / 2).then_some(at)
        })
        .await
    }
}

/// `quorate serve` with these flags and without the tester's own `ETCD_*` variables.
pub fn serve_command(flags: &[String]) -> Command {
    let mut command = Command::new(QUORATE);
    command.arg("serve").args(flags);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a server that is expected to end by itself, and gives its exit code and all that it printed.
pub async fn run_to_end(flags: &[String]) -> (i32, String) {
    let mut child = serve_command(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("try_wait") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the server was expected to end by itself: {}", flags.join(" "));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let text = reader.join().expect("the reader").expect("standard error");
    (status.code().unwrap_or(-1), text)
}

/// Runs a client command.
pub fn quorate(args: &[&str], stdin: Option<&[u8]>) -> Output {
    use std::io::Write;
    let mut child = Command::new(QUORATE)
        .args(args)
        .env_remove("QUORATE_ENDPOINTS")
        .env_remove("ETCDCTL_ENDPOINTS")
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    if let Some(bytes) = stdin {
        let written = child.stdin.take().expect("piped").write_all(bytes);
        // A command that wants nothing of it may have ended already.
        let unread = written
            .as_ref()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        assert!(written.is_ok() || unread, "standard input: {written:?}");
    }
    child.wait_with_output().expect("the command ends")
}

/// Standard output of a command that must succeed.
pub fn quorate_ok(args: &[&str]) -> String {
    let output = quorate(args, None);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "quorate {}: {}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Standard output of a command that may be given twice, and is until it succeeds: an election may come in between, or take longer
/// than the command waits. Any other failure than having got no answer fails the test.
pub async fn quorate_until_ok(args: &[&str]) -> String {
    wait_for(&format!("quorate {}", args.join(" ")), async || {
        let output = quorate(args, None);
        if output.status.code() == Some(3) {
            return None;
        }
        assert!(
            output.status.success(),
            "quorate {}: {}\n{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .await
}

/// Adds a member and gives what the command printed: nothing if it was an earlier try, without an answer, that had added it.
pub async fn add_member(name: &str, peer_url: &str, endpoints: &str) -> Option<String> {
    let mut in_doubt = false;
    wait_for(&format!("{name} to be added"), async || {
        let args = [
            "member",
            "add",
            name,
            "--peer-urls",
            peer_url,
            "--endpoints",
            endpoints,
        ];
        let output = quorate(&args, None);
        if output.status.success() {
            return Some(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if in_doubt && said.contains("Peer URLs already exists") {
            return Some(None);
        }
        in_doubt |= output.status.code() == Some(3);
        // The one that was added before may be on its way to become a voter.
        None
    })
    .await
}

/// Small random numbers for choosing moments; the seed is printed, so that a failure can be looked at again.
pub struct Random(u64);

impl Random {
    /// Seeded by the clock, or by `QUORATE_TEST_SEED`.
    pub fn new() -> Random {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        let given = std::env::var("QUORATE_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(clock.as_nanos() as u64);
        println!("QUORATE_TEST_SEED={seed}");
        Random(seed)
    }

    /// From `low` up to, not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        // splitmix64: any seed is a good seed.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low)
    }
}
