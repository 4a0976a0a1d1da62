//! Watches.

use etcd_client::{Client, DeleteOptions, EventType, WatchOptions};

use super::{revision, same};
use crate::Result;

pub(super) async fn watch_from_a_revision(client: &mut Client) -> Result {
    let first = revision(client.put("i/w/a", "1", None).await?.header())?;
    client.put("i/w/b", "2", None).await?;
    client.put("i/elsewhere", "x", None).await?;
    client
        .delete("i/w/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(first)
        .with_prev_key();
    let mut stream = client.watch("i/w/", Some(options)).await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        for event in answer.events() {
            let pair = event.kv().ok_or("an event without pair")?;
            let before = event.prev_kv().map(|pair| pair.value().to_vec());
            seen.push((
                event.event_type(),
                pair.key().to_vec(),
                pair.mod_revision(),
                before,
            ));
        }
    }
    same!(
        seen,
        [
            (EventType::Put, b"i/w/a".to_vec(), first, None),
            (EventType::Put, b"i/w/b".to_vec(), first + 1, None),
            (
                EventType::Delete,
                b"i/w/a".to_vec(),
                first + 3,
                Some(b"1".to_vec())
            ),
            (
                EventType::Delete,
                b"i/w/b".to_vec(),
                first + 3,
                Some(b"2".to_vec())
            ),
        ]
    );
    Ok(())
}

pub(super) async fn watch_lives(client: &mut Client) -> Result {
    let mut stream = client.watch("i/l", None).await?;
    same!(stream.message().await?.ok_or("the stream ended")?.created(), true);
    for n in 0..20 {
        client.put("i/l", format!("{n}"), None).await?;
    }
    let mut next = 0;
    while next < 20 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        for event in answer.events() {
            same!(
                event.kv().ok_or("an event without pair")?.value(),
                next.to_string().as_bytes()
            );
            next += 1;
        }
    }
    stream.request_progress().await?;
    let progress = stream.message().await?.ok_or("the stream ended")?;
    same!(progress.events().len(), 0);
    Ok(())
}
