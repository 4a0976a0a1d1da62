//! One watcher: follows all changes from the first on, and notes each answer. When its stream ends, it goes on at another member, behind
//! the last change that it has seen, until it has seen the last that the clients wrote.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, EventType, WatchOptions, WatchResponse};
use tokio::sync::watch;

use super::Shared;
use super::client::{connect, unfilled};
use crate::history::watched::{Note, Seen};

/// A pause before the next member is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// The last revision that watchers must see, once it is known.
pub(super) type Last = watch::Receiver<Option<i64>>;

/// Watches until it has seen the last revision, first at member `number`. An error says that it has not after so long.
pub(super) async fn run(
    number: usize,
    path: String,
    shared: Arc<Shared>,
    mut last: Last,
    patience: Duration,
) -> Result<(), String> {
    let notes = BufWriter::new(File::create(path).expect("a file for what is seen"));
    let mut watcher = Watcher {
        notes,
        next: 1,
        last: last.clone(),
    };
    let late = async {
        // An error says that nobody will tell any more.
        let _ = last.wait_for(Option::is_some).await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        _ = watcher.follow_all(number, &shared) => Ok(()),
        () = late => Err(format!("watcher {number} did not see the last write within {patience:?}")),
    }
}

struct Watcher {
    notes: BufWriter<File>,
    /// The revision that comes next.
    next: i64,
    last: Last,
}

impl Watcher {
    async fn follow_all(&mut self, number: usize, shared: &Shared) {
        for member in (0..shared.endpoints.len()).cycle().skip(number) {
            let revision = self.next;
            self.note(&Note::From { revision, member });
            match self.follow(&shared.endpoints[member]).await {
                Ok(None) => return,
                Ok(Some(ended)) => self.note(&ended),
                Err(error) => self.note(&broken(&error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every note is written at once, so that none is missing however this ends.
    fn note(&mut self, note: &Note) {
        writeln!(self.notes, "{note}").expect("what is seen is written");
        self.notes.flush().expect("what is seen is written");
    }

    fn is_done(&self) -> bool {
        self.last.borrow().is_some_and(|last| self.next > last)
    }

    /// Notes changes as long as the stream lasts, and returns how it ended; `None` if all was seen.
    async fn follow(&mut self, endpoint: &str) -> Result<Option<Note>, Error> {
        let client = connect(endpoint).await;
        // Without fragments, so that the changes of a revision must come together.
        let options = WatchOptions::new().with_all_keys().with_start_revision(self.next);
        let mut stream = client
            .watch_client()
            .max_decoding_message_size(usize::MAX)
            .watch("", Some(options))
            .await?;
        while !self.is_done() {
            let answer = tokio::select! {
                answer = stream.message() => answer?,
                Ok(()) = self.last.changed() => continue,
            };
            let Some(answer) = answer else {
                return Err(Error::WatchError("the stream ended".into()));
            };
            if answer.canceled() {
                return Ok(Some(Note::Cancelled {
                    compacted: answer.compact_revision(),
                    why: answer.cancel_reason().replace('\n', " "),
                }));
            }
            let seen = changes(&answer)?;
            if let Some(newest) = seen.last() {
                self.next = newest.revision + 1;
                self.note(&Note::Answer(seen));
            }
        }
        Ok(None)
    }
}

fn changes(answer: &WatchResponse) -> Result<Vec<Seen>, Error> {
    let change = |event: &etcd_client::Event| {
        let no_key = || Error::Internal("an event without a key".into());
        let kv = event.kv().ok_or_else(no_key)?;
        Ok(Seen {
            revision: kv.mod_revision(),
            key: unfilled(kv.key()),
            value: (event.event_type() == EventType::Put).then(|| unfilled(kv.value())),
        })
    };
    answer.events().iter().map(change).collect()
}

fn broken(error: &Error) -> Note {
    let (code, why) = match error {
        Error::GRpcStatus(status) => (format!("{:?}", status.code()), status.message().to_owned()),
        Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => {
            ("transport".to_owned(), error.to_string())
        }
        other => ("other".to_owned(), other.to_string()),
    };
    Note::Broken {
        code,
        why: why.replace('\n', " "),
    }
}
