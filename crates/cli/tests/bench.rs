//! `quorate bench` against a real server: the figures add up with what the server has done, failures are counted and told, and
//! the exit codes say whether anything was measured. How fast anything is does not matter here.

mod common;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use common::{Dir, Server, quorate, quorate_ok, wait_for};
use quorate_proto::etcdserverpb::LeaseLeasesRequest;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

async fn server(test: &str) -> (Server, Dir) {
    let dir = Dir::new(test);
    let mut server = Server::single(dir.path(), &[]);
    server.start_and_serve().await;
    (server, dir)
}

async fn revision(server: &Server) -> i64 {
    let status = wait_for("a status", async || server.status().await).await;
    status.header.expect("a header").revision
}

/// The report of a run that must succeed.
fn bench(args: &[&str], endpoints: &str) -> Value {
    // The machine may be slow, and no operation is to be given up for that.
    let options = ["-o", "json", "--timeout", "100s", "--endpoints", endpoints];
    let text = quorate_ok(&[&["bench"], args, &options].concat());
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn number(report: &Value, name: &str) -> f64 {
    report[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is a number in {report}"))
}

#[tokio::test]
async fn puts_and_reads_add_up_with_what_the_server_has_done() {
    let (server, _dir) = server("bench").await;
    let url = server.url();
    let before = revision(&server).await;
    let keys = ["--sequential", "--key-space", "300", "--key-size", "5"];

    let empty = bench(&[&["range", "--total", "50"], &keys[..]].concat(), &url);
    assert_eq!(empty["not_found"], 50);

    let put = bench(
        &[&["put", "--total", "300", "--value-size", "10"], &keys[..]].concat(),
        &url,
    );
    assert_eq!(revision(&server).await, before + 300);
    assert_eq!(
        quorate_ok(&["get", "--prefix", "", "--count-only", "--endpoints", &url]),
        "300\n"
    );
    let last = ["get", "00299", "--print-value-only", "--endpoints", &url];
    assert_eq!(quorate(&last, None).stdout.len(), 10);
    assert_eq!(put["operation"], "put");
    assert_eq!(put["endpoints"][0], url);
    assert_eq!(
        (&put["total"], &put["failed"], &put["rate"]),
        (&300.into(), &0.into(), &Value::Null)
    );
    let throughput = number(&put, "total") / number(&put, "seconds");
    assert!(
        (throughput / number(&put, "throughput") - 1.0).abs() < 0.01,
        "{put}"
    );
    let latency = &put["latency_ms"];
    let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(latency, name));
    assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{latency}");
    assert!(number(latency, "mean") <= quantiles[4]);
    assert!(number(&put, "client_cpu_us_per_op") > 0.0);
    assert!(number(&put, "longest_gap_ms") <= number(&put, "seconds") * 1e3);
    assert!(number(&put, "longest_gap_at_s") <= number(&put, "seconds"));

    for more in [&[][..], &["--serializable"], &["--threads", "3"]] {
        let range = bench(&[&["range", "--total", "500"], &keys[..], more].concat(), &url);
        assert_eq!((&range["total"], &range["not_found"]), (&500.into(), &0.into()));
    }
    let txn = bench(
        &[&["txn", "--total", "100", "--warm-up", "20"], &keys[..]].concat(),
        &url,
    );
    assert_eq!(txn["total"], 100, "the warm-up does not count");
    assert_eq!(revision(&server).await, before + 300 + 120);
}

#[tokio::test]
async fn operations_with_a_rate_are_not_begun_before_they_are_due() {
    let (server, _dir) = server("bench_rate").await;
    let report = bench(&["put", "--rate", "200", "--total", "50"], &server.url());
    assert_eq!((&report["total"], &report["rate"]), (&50.into(), &200.into()));
    assert!(
        number(&report, "seconds") >= 49.0 / 200.0,
        "the last one is due then: {report}"
    );
    let report = bench(&["put", "--rate", "10", "--duration", "3s"], &server.url());
    assert_eq!(
        number(&report, "total") + number(&report, "not_started"),
        30.0,
        "{report}"
    );
}

#[tokio::test]
async fn each_watcher_gets_each_put() {
    let (server, _dir) = server("bench_watch").await;
    let url = server.url();
    for threads in ["1", "2"] {
        let args = [
            "watch",
            "--watchers",
            "7",
            "--writers",
            "3",
            "--connections",
            "4",
            "--total",
            "60",
            "--warm-up",
            "10",
            "--value-size",
            "16",
        ];
        let report = bench(&[&args[..], &["--threads", threads]].concat(), &url);
        assert_eq!((&report["total"], &report["clients"]), (&60.into(), &3.into()));
        assert_eq!(
            (&report["events"], &report["events_missing"]),
            (&420.into(), &0.into())
        );
        assert!(number(&report["latency_ms"], "p50") > 0.0);
        assert!(number(&report["put_latency_ms"], "p50") > 0.0);
        assert!(number(&report, "events_per_second") > 0.0);
    }
}

#[tokio::test]
async fn leases_are_granted_renewed_revoked_and_none_is_left() {
    let (server, _dir) = server("bench_lease").await;
    let report = bench(
        &["lease", "--total", "111", "--clients", "5", "--renewals", "4"],
        &server.url(),
    );
    assert_eq!(report["total"], 111);
    let parts = report["parts"].as_object().expect("an object");
    let total: f64 = parts.values().map(|part| number(part, "total")).sum();
    assert_eq!((parts.len(), total), (3, 111.0), "{report}");
    let channel = wait_for("a connection", async || server.try_channel().await).await;
    let left = LeaseClient::new(channel)
        .lease_leases(LeaseLeasesRequest {})
        .await;
    assert_eq!(left.expect("an answer").into_inner().leases, []);
}

#[tokio::test]
async fn a_dead_endpoint_is_told_of_and_the_others_serve() {
    let (server, _dir) = server("bench_dead").await;
    let dead = format!("127.0.0.1:{}", common::free_port());
    let endpoints = format!("{dead},{}", server.url());
    let report = bench(&["put", "--total", "100"], &endpoints);
    assert_eq!((&report["total"], &report["failed"]), (&100.into(), &0.into()));
    let errors = report["connection_errors"].as_object().expect("an object");
    assert!(errors.keys().all(|message| message.contains(&dead)), "{report}");
    assert!(
        errors
            .values()
            .map(|count| count.as_u64().unwrap_or_default())
            .sum::<u64>()
            >= 5
    );

    let table = quorate_ok(&["bench", "put", "--total", "10", "--endpoints", &endpoints]);
    assert!(
        table.contains("COUNT") && table.contains("connections could not be made"),
        "{table}"
    );
}

#[tokio::test]
async fn clients_go_on_after_a_failure_and_interrupting_tells_what_was_measured() {
    let (mut server, _dir) = server("bench_failover").await;
    let before = revision(&server).await;
    let mut load = Load::start(&["put", "--duration", "1h", "--clients", "20"], &server.url());
    wait_for("writes", async || {
        (revision(&server).await > before + 50).then_some(())
    })
    .await;
    server.kill();
    server.start_and_serve().await;
    let restarted = revision(&server).await;
    wait_for("writes after the restart", async || {
        (revision(&server).await > restarted + 50).then_some(())
    })
    .await;
    let report = load.interrupt();
    assert_eq!(report["interrupted"], true);
    let failed = number(&report, "failed");
    let errors = report["errors"].as_object().expect("an object");
    let counted: f64 = errors.values().filter_map(Value::as_f64).sum();
    assert!(failed >= 1.0 && counted == failed, "{report}");
    let done = (revision(&server).await - before) as f64;
    let succeeded = number(&report, "total");
    assert!(
        succeeded > 100.0 && succeeded <= done,
        "{succeeded} acknowledged of {done} done"
    );
    let gap = number(&report, "longest_gap_at_s") + number(&report, "longest_gap_ms") / 1e3;
    assert!(gap <= number(&report, "seconds"), "{report}");
}

#[test]
fn when_nothing_succeeds_the_exit_code_says_so() {
    let run = |args: &[&str]| {
        let output = quorate(&[&["bench"], args].concat(), None);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let dead = format!("127.0.0.1:{}", common::free_port());
    let (code, _, said) = run(&["put", "--endpoints", &dead]);
    assert!(code == Some(3) && said.contains(&dead), "{code:?} {said}");

    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let silence = [
        "put",
        "--total",
        "3",
        "--clients",
        "1",
        "--timeout",
        "50ms",
        "-o",
        "json",
    ];
    let (code, report, said) = run(&[&silence[..], &["--endpoints", &address]].concat());
    assert!(code == Some(1) && said.contains("no answer in time"), "{said}");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["total"], &report["failed"]), (&0.into(), &3.into()));
    assert_eq!(report["errors"]["no answer in time"], 3);
    assert_eq!(report["latency_ms"]["p50"], Value::Null);

    for wrong in [
        &["put", "--key-size", "3", "--key-space", "1001"][..],
        &["watch", "--value-size", "15"],
        &["put", "--rate", "0"],
        &["put", "--clients", "0"],
        &["put", "--endpoints", "https://a:1"],
    ] {
        assert_eq!(run(wrong).0, Some(2), "{wrong:?}");
    }
}

/// A run that ends when it is told to.
struct Load(Option<Child>);

impl Load {
    fn start(args: &[&str], endpoints: &str) -> Load {
        let child = Command::new(common::QUORATE)
            .arg("bench")
            .args(args)
            .args(["-o", "json", "--endpoints", endpoints])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load starts");
        Load(Some(child))
    }

    /// Sends what Ctrl-C sends, and gives the report.
    fn interrupt(&mut self) -> Value {
        let child = self.0.take().expect("a running load");
        let pid = Pid::from_raw(child.id() as i32).expect("a process id");
        kill_process(pid, Signal::INT).expect("SIGINT");
        let output = child.wait_with_output().expect("the load ends");
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
