//! Who a member is, and whom it takes for the leader.

use std::time::Duration;

use crate::load::connect;

/// Prints for each endpoint its member's id, the leader's, term and revision, or a dash if it does not say in time.
pub async fn run(endpoints: &[String]) {
    let asked: Vec<_> = endpoints
        .iter()
        .map(|endpoint| tokio::spawn(line(endpoint.clone())))
        .collect();
    for line in asked {
        println!("{}", line.await.ok().flatten().unwrap_or_else(|| "-".to_owned()));
    }
}

async fn line(endpoint: String) -> Option<String> {
    let asked = async {
        let answer = connect(&endpoint).await.status().await.ok()?;
        let header = answer.header()?;
        Some(format!(
            "{} {} {} {}",
            header.member_id(),
            answer.leader(),
            answer.raft_term(),
            header.revision()
        ))
    };
    tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .ok()
        .flatten()
}
