//! The majority is lost for good: one survivor becomes a cluster of its own, on purpose only, and grows again.

mod common;

use std::fs;

use common::load::{Load, all_keys, check_order, check_stores};
use common::{Cluster, Server, add_member, free_port, quorate, quorate_ok, quorate_until_ok, wait_for};
use quorate_proto::etcdserverpb::ResponseHeader;

fn text(output: &std::process::Output) -> (Option<i32>, String) {
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

async fn header(server: &Server) -> ResponseHeader {
    wait_for("a status", async || server.status().await?.header).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_of_three_becomes_a_cluster_that_grows_again() {
    let mut cluster = Cluster::start("recover", 3, &[]).await;
    let urls: Vec<String> = cluster.servers.iter().map(Server::url).collect();
    let load = Load::start(&urls);
    load.go_on_for(300).await;
    let writes = load.stop().await;
    // All three have everything, so nothing may be missing on whichever survives.
    check_stores(&cluster.servers.iter().collect::<Vec<_>>(), &writes).await;
    let before = all_keys(&cluster.servers[0]).await;
    let id = header(&cluster.servers[0]).await;
    let old_cluster = format!("{:016x}", id.cluster_id);
    let dir = cluster.servers[0].data_dir.display().to_string();

    let (code, said) = text(&quorate(
        &["recover", "--data-dir", &dir, "--confirm", &old_cluster],
        None,
    ));
    assert!(
        code == Some(1) && said.contains("in use"),
        "not while it runs: {said}"
    );
    for server in &mut cluster.servers {
        server.kill();
    }
    fs::remove_dir_all(&cluster.servers[1].data_dir).expect("lost");
    fs::remove_dir_all(&cluster.servers[2].data_dir).expect("lost");

    for (args, expected, word) in [
        (&["--dry-run"][..], 0, "Nothing has been done."),
        (&[], 2, "not confirmed"),
        (&["--confirm", "1234"], 1, "not confirmed"),
        (&["--confirm", "yes"], 2, "hexadecimal"),
    ] {
        let args = [&["recover", "--data-dir", &dir], args].concat();
        let (code, said) = text(&quorate(&args, Some(b"yes\n")));
        assert!(
            code == Some(expected) && said.contains(word),
            "{args:?}: {code:?}: {said}"
        );
    }
    let said = quorate_ok(&["recover", "--data-dir", &dir, "--dry-run"]);
    for part in [
        &old_cluster,
        "n1",
        "n2",
        "lost for good",
        "known to be committed up to",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }

    let said = quorate_ok(&["recover", "--data-dir", &dir, "--confirm", &old_cluster]);
    assert!(
        said.contains("Done: member") && said.contains("quorate member add"),
        "{said}"
    );
    cluster.servers[0].start_and_serve().await;
    assert_eq!(
        all_keys(&cluster.servers[0]).await,
        before,
        "the data is what it was"
    );
    assert_ne!(header(&cluster.servers[0]).await.cluster_id, id.cluster_id);

    let url = cluster.servers[0].url();
    quorate_until_ok(&["put", "alone", "1", "--endpoints", &url]).await;
    quorate_until_ok(&["del", "alone", "--endpoints", &url]).await;
    for name in ["n4", "n5"] {
        let ports = (free_port(), free_port());
        let peer = format!("http://127.0.0.1:{}", ports.1);
        add_member(name, &peer, &url).await;
        let known = format!("n1={},{name}={peer}", cluster.servers[0].peer_url());
        let flags = [
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--initial-cluster-state=existing",
        ];
        let mut server = Server::with_ports(cluster.dir.path(), name, ports, &known, &flags);
        server.start_and_serve().await;
        cluster.servers.push(server);
    }
    cluster.servers.drain(1..3);
    let urls: Vec<String> = cluster.servers.iter().map(Server::url).collect();
    let load = Load::start(&urls);
    load.go_on_for(100).await;
    let mut all = writes;
    all.extend(load.stop().await);
    check_order(&all);
    check_stores(&cluster.servers.iter().collect::<Vec<_>>(), &all).await;
}

#[tokio::test]
async fn there_is_nothing_to_recover_in_an_empty_directory() {
    let (code, said) = text(&quorate(
        &["recover", "--data-dir", "/no/such/place", "--dry-run"],
        None,
    ));
    assert!(code == Some(1) && said.contains("no member's data"), "{said}");
}
