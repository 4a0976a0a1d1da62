//! One watcher: follows all changes from the first on, and notes each. When its stream ends, it goes on at another member, behind the
//! last change that it has seen.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions};
use tokio::sync::watch;

use super::Shared;
use super::client::{connect, unfilled};
use crate::Result;
use crate::history::watched::Seen;

/// A pause before the next member is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Watches until it is told to stop, first at member `number`.
pub(super) async fn run(
    number: usize,
    path: String,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut notes = BufWriter::new(File::create(path).expect("a file for what is seen"));
    let mut next = 1;
    for member in (0..shared.endpoints.len()).cycle().skip(number) {
        let followed = follow(&shared.endpoints[member], &mut next, &mut notes);
        tokio::select! {
            _ = followed => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    notes.flush().expect("what is seen is written");
}

/// Notes changes as long as the stream lasts; `next` is the revision that comes next.
async fn follow(endpoint: &str, next: &mut i64, notes: &mut BufWriter<File>) -> Result {
    let mut client = connect(endpoint).await;
    let options = WatchOptions::new().with_all_keys().with_start_revision(*next);
    let mut stream = client.watch("", Some(options)).await?;
    while let Some(answer) = stream.message().await? {
        if answer.canceled() {
            return Err(answer.cancel_reason().into());
        }
        for event in answer.events() {
            let kv = event.kv().ok_or("an event without a key")?;
            let value = (event.event_type() == EventType::Put).then(|| unfilled(kv.value()));
            let seen = Seen {
                revision: kv.mod_revision(),
                key: unfilled(kv.key()),
                value,
            };
            // Every revision of this load is one change, so none is torn by going on behind it.
            *next = seen.revision + 1;
            writeln!(notes, "{seen}")?;
        }
    }
    Ok(())
}
