//! Real processes under fault: three servers, clients that never stop writing, and a leader that is killed ten times.

mod common;

use std::collections::BTreeSet;

use common::load::{Load, check_order, check_stores, count};
use common::{Cluster, Random, Server};

const KILLS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_the_leader_is_killed_ten_times() {
    let mut random = Random::new();
    let mut cluster = Cluster::start("faults", 3, &[]).await;
    let urls: Vec<String> = cluster.servers.iter().map(Server::url).collect();
    let load = Load::start(&urls);

    let mut terms = BTreeSet::new();
    for _ in 0..KILLS {
        load.go_on_for(random.between(20, 400)).await;
        let leader = cluster.leader().await;
        let before = cluster.servers[leader]
            .status()
            .await
            .map_or(0, |status| status.raft_term);
        cluster.servers[leader].kill();
        let next = cluster.leader().await;
        let term = cluster.servers[next]
            .status()
            .await
            .map_or(0, |status| status.raft_term);
        assert!(
            next != leader && term > before,
            "another leads in a later term: {before}, {term}"
        );
        terms.insert(term);
        cluster.servers[leader].start_and_serve().await;
    }
    assert_eq!(terms.len(), KILLS, "every kill made an election");
    let writes = load.stop().await;
    let servers: Vec<&Server> = cluster.servers.iter().collect();
    check_stores(&servers, &writes).await;
    check_order(&writes);
    count(&writes);
}
