//! Members whose data is not what the others know of it: each ends with an error that says what to do, and the others go on.

mod common;

use std::fs;
use std::path::Path;

use common::{Cluster, Server, free_port, quorate_until_ok, run_to_end};

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a data directory") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

async fn stop(server: &mut Server) {
    server.terminate();
    assert_eq!(
        server.wait_for_end().await.code(),
        Some(0),
        "{}",
        server.log_text()
    );
}

async fn put(cluster: &Cluster, key: &str) {
    quorate_until_ok(&["put", key, "1", "--endpoints", &cluster.endpoints()]).await;
}

/// The member ends by itself, and says why.
async fn assert_refused(flags: &[String], words: &[&str]) {
    let (code, text) = run_to_end(flags).await;
    assert_eq!(code, 5, "{text}");
    let text = text.to_lowercase();
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[tokio::test]
async fn a_member_whose_data_was_wiped_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::start("wiped", 3, &[]).await;
    put(&cluster, "before").await;
    cluster.servers[1].kill();
    fs::remove_dir_all(&cluster.servers[1].data_dir).expect("wiped");
    assert_refused(
        cluster.servers[1].flags(),
        &["another data directory", "remove the member", "add it as a new"],
    )
    .await;

    // Nor does it when told to join: its id has voted.
    fs::remove_dir_all(&cluster.servers[1].data_dir).expect("wiped");
    let mut flags = cluster.servers[1].flags().to_vec();
    flags.push("--initial-cluster-state=existing".into());
    let (code, text) = run_to_end(&flags).await;
    assert!(
        code == 1 && text.contains("votes in this cluster already"),
        "{code}: {text}"
    );
    put(&cluster, "after").await;
}

#[tokio::test]
async fn a_member_restored_from_an_old_backup_is_refused() {
    let mut cluster = Cluster::start("backup", 3, &[]).await;
    put(&cluster, "before").await;
    let backup = cluster.dir.path().join("backup");
    stop(&mut cluster.servers[1]).await;
    copy(&cluster.servers[1].data_dir, &backup);
    // Twice: a copy of the directory before its last start but one.
    for key in ["since", "since/then"] {
        cluster.servers[1].start_and_serve().await;
        put(&cluster, key).await;
        stop(&mut cluster.servers[1]).await;
    }
    copy(&backup, &cluster.servers[1].data_dir);
    assert_refused(
        cluster.servers[1].flags(),
        &["older than what was seen", "remove the member"],
    )
    .await;
    put(&cluster, "after").await;
}

#[tokio::test]
async fn of_two_processes_with_one_id_the_second_is_refused() {
    let mut cluster = Cluster::start("twice", 3, &[]).await;
    put(&cluster, "before").await;
    let twin = cluster.dir.path().join("twin");
    stop(&mut cluster.servers[1]).await;
    copy(&cluster.servers[1].data_dir, &twin);
    cluster.servers[1].start_and_serve().await;
    put(&cluster, "since").await;
    let mut flags = cluster.servers[1].flags().to_vec();
    flags.push(format!("--data-dir={}", twin.display()));
    flags.push(format!("--listen-client-urls=http://127.0.0.1:{}", free_port()));
    flags.push(format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()));
    assert_refused(&flags, &["another process runs from a copy"]).await;
    assert!(cluster.servers[1].ended().is_none(), "the first one goes on");
    put(&cluster, "after").await;
}
