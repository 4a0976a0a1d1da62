//! Concurrent puts whose answers are noted: every key is used once, so that it names its put wherever it is found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::Client;

use crate::Result;

/// Lets `clients` at a time put until `total` puts were acknowledged, and prints key and revision of each of these. Client k
/// goes to endpoint k, counted round and round; clients of one endpoint share a connection.
pub async fn run(clients: usize, total: u64, endpoints: &[String]) -> Result {
    let mut connections = Vec::new();
    for endpoint in endpoints {
        connections.push(Client::connect([endpoint], None).await?);
    }
    let (acknowledged, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..clients {
        let mut client = connections[number % connections.len()].clone();
        let (acknowledged, refused) = (acknowledged.clone(), refused.clone());
        tasks.spawn(async move {
            let mut put = 0;
            while acknowledged.load(Ordering::Relaxed) < total && refused.load(Ordering::Relaxed) < total {
                put += 1;
                let key = format!("put-{number}-{put};");
                let revision = match client.put(key.clone(), "x".repeat(100), None).await {
                    Ok(answer) => answer.header().map_or(0, |header| header.revision()),
                    // Not acknowledged: whether it is in the log does not matter. The next one has another key.
                    Err(error) => {
                        eprintln!("{key} {error}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                };
                acknowledged.fetch_add(1, Ordering::Relaxed);
                println!("{key} {revision}");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
