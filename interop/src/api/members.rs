//! Who belongs to the cluster.

use std::time::Duration;

use etcd_client::{Client, MemberAddOptions};

use super::{refusal, revision, same};
use crate::Result;

pub(super) async fn status_and_members(client: &mut Client) -> Result {
    let status = client.status().await?;
    same!(
        status.leader() != 0 && status.raft_term() > 0 && status.raft_index() > 0,
        true
    );
    let numbers: Vec<_> = status.version().split('.').map(str::parse::<u32>).collect();
    same!((numbers.len(), numbers.iter().all(|n| n.is_ok())), (3, true));
    let members = client.member_list().await?;
    same!(
        members
            .members()
            .iter()
            .any(|member| member.id() == status.leader()),
        true
    );
    same!(
        members
            .members()
            .iter()
            .all(|member| !member.client_urls().is_empty()),
        true
    );
    let at = revision(client.put("i/h", "1", None).await?.header())?;
    same!(client.hash_kv(at).await?.hash() != 0, true);
    Ok(())
}

pub(super) async fn members_change(client: &mut Client) -> Result {
    // A port that nobody uses: the learner is never started.
    let url = |port| [format!("http://127.0.0.1:{port}")];
    let learner = || Some(MemberAddOptions::new().with_is_learner());
    // etcd changes no membership whose members have known each other for less than five seconds.
    let added = loop {
        match client.member_add(url(9), learner()).await {
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("unhealthy cluster") => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => break answer?,
        }
    };
    let member = added.member().ok_or("an answer without member")?;
    let id = member.id();
    same!((member.name(), member.is_learner()), ("", true));
    same!(added.member_list().len(), 4);
    same!(
        refusal(client.member_promote(id).await)?,
        "FailedPrecondition: etcdserver: can only promote a learner member which is in sync with leader"
    );
    let first = client.member_list().await?;
    let first = first
        .members()
        .iter()
        .find(|member| member.id() != id)
        .ok_or("nobody else")?;
    same!(
        refusal(client.member_update(id, first.peer_urls()).await)?,
        "FailedPrecondition: etcdserver: Peer URLs already exists"
    );
    client.member_update(first.id(), first.peer_urls()).await?;
    client.member_remove(id).await?;
    same!(client.member_list().await?.members().len(), 3);
    same!(
        refusal(client.member_remove(id).await)?,
        "NotFound: etcdserver: member not found"
    );
    Ok(())
}
