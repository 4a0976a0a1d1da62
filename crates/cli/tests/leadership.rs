//! Who leads, and how it may read: the flags `--election-priority` and `--lease-reads` on real processes.

mod common;

use common::{Cluster, quorate, quorate_until_ok, wait_for};

#[tokio::test]
async fn leadership_moves_to_the_member_that_leads_most_gladly() {
    let mut cluster = Cluster::new("priority", 3, &[]);
    // The glad one comes last, when another leads already.
    cluster.servers[2].add_flag("--election-priority=high");
    cluster.servers[0].start();
    cluster.servers[1].start();
    cluster.servers[0].wait_until_led().await;
    cluster.servers[2].start_and_serve().await;
    wait_for("n3 to lead", async || (cluster.leader().await == 2).then_some(())).await;

    // It is no condition: without it another one leads.
    cluster.servers[2].kill();
    wait_for("another one to lead", async || {
        (cluster.leader().await != 2).then_some(())
    })
    .await;
    quorate_until_ok(&["put", "a", "1", "--endpoints", &cluster.servers[0].url()]).await;
}

#[tokio::test]
async fn lease_reads_are_on_everywhere_or_nowhere() {
    let mut cluster = Cluster::new("leases", 3, &["--election-timeout=2000"]);
    for server in &mut cluster.servers[..2] {
        server.add_flag("--lease-reads");
        server.start();
    }
    cluster.servers[0].wait_until_led().await;
    let url = cluster.servers[0].url();
    for n in 0..20 {
        quorate_until_ok(&["put", "a", &n.to_string(), "--endpoints", &url]).await;
        let other = cluster.servers[1].url();
        let read = quorate_until_ok(&["get", "a", "--print-value-only", "--endpoints", &other]).await;
        assert_eq!(read, n.to_string());
    }
    cluster.servers[2].start();
    wait_for("the refusal of the member without them", async || {
        let logs = [cluster.servers[0].log_text(), cluster.servers[2].log_text()].concat();
        logs.contains("lease reads must be on with the same election timeout")
            .then_some(())
    })
    .await;
    let unserved = quorate(&["get", "a", "--endpoints", &cluster.servers[2].url()], None);
    assert_ne!(unserved.status.code(), Some(0), "it takes no part");
    quorate_until_ok(&["put", "a", "after", "--endpoints", &url]).await;
}
