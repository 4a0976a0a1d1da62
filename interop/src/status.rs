//! Who a member is, whom it takes for the leader, and who shall lead instead.

use std::time::Duration;

use crate::Result;
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

/// Asks each until one, which leads then, hands over to the member with id `to`.
pub async fn move_leader(to: u64, endpoints: &[String]) -> Result {
    let mut refusals = Vec::new();
    for endpoint in endpoints {
        let mut client = connect(endpoint).await;
        match tokio::time::timeout(Duration::from_secs(2), client.move_leader(to)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(refusal)) => refusals.push(format!("{endpoint}: {refusal}")),
            Err(_) => refusals.push(format!("{endpoint}: no answer")),
        }
    }
    Err(refusals.join("\n").into())
}
