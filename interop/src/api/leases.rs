//! Leases.

use etcd_client::{Client, EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};

use super::{refusal, same};
use crate::Result;

pub(super) async fn leases(client: &mut Client) -> Result {
    let granted = client.lease_grant(60, None).await?;
    let id = granted.id();
    same!(granted.ttl(), 60);
    client
        .put("i/lease/a", "1", Some(PutOptions::new().with_lease(id)))
        .await?;
    client
        .put("i/lease/b", "2", Some(PutOptions::new().with_lease(id)))
        .await?;
    same!(client.get("i/lease/a", None).await?.kvs()[0].lease(), id);
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    let left = answers.message().await?.ok_or("the stream ended")?.ttl();
    same!((50..=60).contains(&left), true);
    let left = client
        .lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    same!(
        (left.granted_ttl(), left.ttl() > 50, left.keys().len()),
        (60, true, 2)
    );
    same!(
        client
            .leases()
            .await?
            .leases()
            .iter()
            .any(|lease| lease.id() == id),
        true
    );
    client.lease_revoke(id).await?;
    same!(
        client
            .get("i/lease/", Some(GetOptions::new().with_prefix()))
            .await?
            .count(),
        0
    );
    same!(client.lease_time_to_live(id, None).await?.ttl(), -1);

    // A lease that nobody keeps alive takes its keys with it.
    let short = client.lease_grant(1, None).await?;
    client
        .put(
            "i/lease/short",
            "x",
            Some(PutOptions::new().with_lease(short.id())),
        )
        .await?;
    let mut stream = client.watch("i/lease/short", None).await?;
    loop {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        if answer
            .events()
            .iter()
            .any(|event| event.event_type() == EventType::Delete)
        {
            break;
        }
    }
    let chosen = id.wrapping_add(1).max(1);
    same!(
        client
            .lease_grant(60, Some(LeaseGrantOptions::new().with_id(chosen)))
            .await?
            .id(),
        chosen
    );
    same!(
        refusal(
            client
                .lease_grant(60, Some(LeaseGrantOptions::new().with_id(chosen)))
                .await
        )?,
        "FailedPrecondition: etcdserver: lease already exists"
    );
    client.lease_revoke(chosen).await?;
    Ok(())
}
