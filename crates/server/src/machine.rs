//! The key-value store as the replicated state machine: [`Kv`] plus the news that the rest of the server lives on (events
//! for watchers, grants and revocations for the leader's lessor, the revision for headers). Nothing here changes
//! what a command does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use quorate_base::{Disk, Index, Job, LogId, SnapshotReader, StateMachine};
use quorate_kv::{AlarmKind, Applied, Error, EventBatch, Kv, Options};
use tokio::sync::{Notify, mpsc};

use crate::leases::Leases;

/// What the machine tells the server, readable at any time from any task.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The store's revision, for headers.
    revision: AtomicI64,
    /// The store found the disk of this member full.
    disk_full: AtomicBool,
    /// Some member raised the NOSPACE alarm, and nobody has cleared it.
    alarmed: AtomicBool,
    /// The cluster's feature level as of what this member has applied.
    level: AtomicU32,
    /// Some background work of the store has ended.
    pub worked: Notify,
}

impl News {
    /// The store's revision after the last applied batch.
    pub fn revision(&self) -> i64 {
        self.revision.load(Relaxed)
    }

    /// Whether the store found the disk of this member full.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Relaxed)
    }

    /// Whether the NOSPACE alarm is raised, whosever disk it is for.
    pub fn alarmed(&self) -> bool {
        self.alarmed.load(Relaxed)
    }

    /// The cluster's feature level as of what this member has applied: every member understands it, and so what is proposed here may
    /// take the forms of this level and no later ones. Zero until the node has told it.
    pub fn level(&self) -> u32 {
        self.level.load(Relaxed)
    }
}

/// The replicated state machine of a server.
pub struct KvMachine {
    kv: Kv,
    news: Arc<News>,
    leases: Arc<Leases>,
    /// To the watch hub, which is told of every batch. Unbounded, because applying must not wait for watchers; the hub empties it
    /// whenever it runs, and does nothing slow.
    events: mpsc::UnboundedSender<Arc<EventBatch>>,
}

impl KvMachine {
    /// Opens the store. The events that follow are those after the store's present revision.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        news: Arc<News>,
        leases: Arc<Leases>,
        events: mpsc::UnboundedSender<Arc<EventBatch>>,
    ) -> io::Result<KvMachine> {
        let kv = Kv::open(disk, options)?;
        let machine = KvMachine {
            kv,
            news,
            leases,
            events,
        };
        machine.publish_state();
        Ok(machine)
    }

    /// The store.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    fn publish_state(&self) {
        self.news.revision.store(self.kv.revision(), Relaxed);
        let alarmed = self
            .kv
            .alarms()
            .iter()
            .any(|alarm| alarm.kind == AlarmKind::NoSpace);
        self.news.alarmed.store(alarmed, Relaxed);
        self.news.disk_full.store(self.kv.space_low(), Relaxed);
    }
}

impl StateMachine for KvMachine {
    type Output = Result<Applied, Error>;

    fn apply(&mut self, at: LogId, command: &Bytes) -> Self::Output {
        let output = self.kv.apply(at, command);
        if let Ok(applied) = &output {
            self.leases.applied(&self.kv, command, applied);
        }
        output
    }

    fn skip(&mut self, at: LogId) {
        self.kv.skip(at);
    }

    /// Only for proposers: how an entry applies is in its form, see [`quorate_kv::level`].
    fn level(&mut self, level: u32) {
        self.news.level.store(level, Relaxed);
    }

    fn batch_applied(&mut self) {
        self.kv.batch_applied();
        self.publish_state();
        if let Some(batch) = self.kv.take_events() {
            // Without a hub the server is stopping.
            let _ = self.events.send(batch);
        }
    }

    fn applied(&self) -> LogId {
        self.kv.applied()
    }

    fn durable(&self) -> Index {
        self.kv.durable()
    }

    fn job(&mut self, urgent: bool) -> Option<Job> {
        let job = self.kv.job(urgent);
        self.publish_state();
        self.news.worked.notify_waiters();
        job
    }

    fn backlog(&self) -> bool {
        self.kv.backlog()
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotReader>> {
        self.kv.snapshot()
    }

    fn restore(&mut self, at: LogId, source: &mut dyn io::Read) -> io::Result<()> {
        self.kv.restore(at, source)?;
        self.batch_applied();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::DirDisk;
    use quorate_base::Term;
    use quorate_kv::{Command, Expiry, Response, level};

    const TERM: Term = Term(3);

    fn apply(machine: &mut KvMachine, command: &Command) -> Response {
        let at = LogId {
            term: TERM,
            index: machine.applied().index.next(),
        };
        let applied = machine
            .apply(at, &command.encode())
            .expect("nothing is wrong with it");
        applied.response
    }

    /// The lease expires; the proposal to revoke it comes only after a client has revoked it and taken the id anew. The answer, and how
    /// many leases the lessor still knows of.
    fn late_expiry(machine: &mut KvMachine, leases: &Leases, news: &News) -> (Response, usize) {
        leases.promote(TERM, Vec::new());
        apply(machine, &Command::grant(news.level(), 7, 5));
        let late = leases.fired(news.level())[0].1.clone();
        apply(machine, &Command::LeaseRevoke { id: 7, expiry: None });
        apply(machine, &Command::grant(news.level(), 7, 60));
        let answer = apply(machine, &late);
        (answer, leases.fired(news.level()).len())
    }

    #[test]
    fn expiries_name_the_grant_once_the_level_allows() {
        let dir = std::env::temp_dir().join(format!("quorate-machine-{}", std::process::id()));
        let (news, leases) = (Arc::new(News::default()), Arc::new(Leases::default()));
        let (events, _hub) = mpsc::unbounded_channel();
        let disk = Arc::new(DirDisk::open(&dir).expect("a directory"));
        let mut machine =
            KvMachine::open(disk, Options::default(), news.clone(), leases.clone(), events).expect("a store");

        assert_eq!(news.level(), 0, "the node has not told it yet");
        let old = late_expiry(&mut machine, &leases, &news);
        assert_eq!(old, (Response::LeaseRevoke { void: false }, 0));

        machine.level(level::NAMED_GRANTS);
        let new = late_expiry(&mut machine, &leases, &news);
        assert_eq!(new, (Response::LeaseRevoke { void: true }, 1));
        let index = machine.kv().lease(7).expect("a read").expect("spared").grant;
        let named = Command::LeaseRevoke {
            id: 7,
            expiry: Some(Expiry {
                term: TERM,
                grant: Some(index),
            }),
        };
        assert_eq!(apply(&mut machine, &named), Response::LeaseRevoke { void: false });
        drop(machine);
        std::fs::remove_dir_all(dir).expect("the directory is still there");
    }
}
