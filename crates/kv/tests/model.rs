//! The state machine against the naive model, through flushes at any moment, reopening, physical compaction and snapshots.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_base::{Index, Job, LogId, StateMachine};
use quorate_kv::*;
use support::disk::MemDisk;
use support::model::Model;
use support::strategy;

#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    /// The expiry of a lease as its leader saw it: by its present grant, or by one of the grants before.
    Expiry {
        id: i64,
        back: usize,
    },
    Read(RangeRequest),
    /// Ask for a job; it stays in flight.
    Job {
        urgent: bool,
    },
    /// The job in flight ends.
    Finish,
    /// The disk is full while the job runs; then there is space again.
    FinishFull {
        after: u64,
    },
    Reopen,
    Snapshot {
        chunk: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => strategy::command().prop_map(Step::Command),
        3 => (1i64..4, 0usize..3).prop_map(|(id, back)| Step::Expiry { id, back }),
        10 => strategy::range().prop_map(Step::Read),
        4 => any::<bool>().prop_map(|urgent| Step::Job { urgent }),
        4 => Just(Step::Finish),
        1 => (0u64..30).prop_map(|after| Step::FinishFull { after }),
        1 => Just(Step::Reopen),
        1 => (1usize..2000).prop_map(|chunk| Step::Snapshot { chunk }),
    ]
}

fn options() -> Options {
    Options {
        flush_bytes: 3000,
        cache_bytes: 1 << 20,
        compact_chunk: 3,
        ..Options::default()
    }
}

struct World {
    disk: MemDisk,
    kv: Kv,
    job: Option<Job>,
    /// The entries so far: `None` holds no command.
    log: Vec<(LogId, Bytes)>,
    model: Model,
    /// The grants of each lease ever applied.
    grants: BTreeMap<i64, Vec<Index>>,
    /// How many of the model's events were seen.
    told: usize,
    /// Never flushed, never restored: what every other history must agree with.
    twin: Kv,
}

impl World {
    fn new() -> World {
        let disk = MemDisk::default();
        let kv = Kv::open(Arc::new(disk.clone()), options()).unwrap();
        let twin = Kv::open(Arc::new(MemDisk::default()), Options::default()).unwrap();
        World {
            disk,
            kv,
            job: None,
            log: Vec::new(),
            model: Model::new(),
            grants: BTreeMap::new(),
            told: 0,
            twin,
        }
    }

    fn command(&mut self, command: &Command) {
        let at = self.next();
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).as_ref(), Ok(command));
        let answer = self.kv.apply(at, &bytes);
        assert_eq!(answer, self.model.apply(at, command), "{command:?}");
        assert_eq!(answer, self.twin.apply(at, &bytes));
        if let (Command::LeaseGrant { id, named: true, .. }, Ok(_)) = (command, &answer) {
            self.grants.entry(*id).or_default().push(at.index);
        }
        assert_eq!(self.kv.revision(), self.model.revision());
        assert_eq!(self.kv.compacted_revision(), self.model.compacted);
        self.log.push((at, bytes));
    }

    /// Whatever else the model says: an expiry ends the grant it is about, and no other.
    fn expiry(&mut self, id: i64, back: usize) {
        let before = self.kv.lease(id).unwrap();
        let grants = self.grants.get(&id).map_or(&[][..], Vec::as_slice);
        let grant = match back {
            0 => before.map_or(Index(0), |lease| lease.grant),
            back if back < grants.len() => grants[grants.len() - 1 - back],
            _ => Index(0),
        };
        let corrupt = self
            .model
            .alarms
            .iter()
            .any(|alarm| alarm.kind == AlarmKind::Corrupt);
        let term = self.next().term;
        self.command(&Command::LeaseRevoke {
            id,
            expiry: Some(Expiry {
                term,
                grant: Some(grant),
            }),
        });
        let after = before.filter(|lease| corrupt || lease.grant != grant);
        assert_eq!(self.kv.lease(id).unwrap(), after, "expiry of grant {grant}");
    }

    /// Where the next entry stands.
    fn next(&self) -> LogId {
        LogId::new(1 + self.log.len() as u64 / 20, self.log.len() as u64 + 1)
    }

    /// The events since the last step are the model's.
    fn events(&mut self) {
        let new: Vec<Event> = self.model.events.split_off(self.told);
        if let Some(batch) = self.twin.take_events() {
            assert_eq!(
                Vec::from_iter(batch.events.iter().map(|event| (**event).clone())),
                new
            );
            if let Some(taken) = self.kv.take_events()
                && !taken.gap
            {
                assert_eq!(taken, batch);
            }
        } else {
            assert!(new.is_empty());
        }
        self.model.events.extend(new);
        self.told = self.model.events.len();
    }

    fn finish(&mut self) {
        if let Some(job) = self.job.take() {
            job().unwrap();
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Command(command) => self.command(command),
            Step::Expiry { id, back } => self.expiry(*id, *back),
            Step::Read(range) => {
                assert_eq!(self.kv.range(range), self.model.range(range));
                assert_eq!(self.twin.range(range), self.model.range(range));
            }
            Step::Job { urgent } => {
                let job = self.kv.job(*urgent);
                assert!(job.is_none() || self.job.is_none(), "one job at a time");
                self.job = job.or(self.job.take());
            }
            Step::Finish => self.finish(),
            Step::FinishFull { after } => {
                let durable = self.kv.durable();
                self.disk.full_after(Some(*after));
                self.finish();
                assert!(
                    !self.kv.space_low() || self.kv.durable() == durable,
                    "nothing durable without space"
                );
                self.compare_reads(4);
                self.disk.full_after(None);
            }
            Step::Reopen => self.reopen(),
            Step::Snapshot { chunk } => self.snapshot(*chunk),
        }
    }

    /// Everything not durable is replayed from the log.
    fn reopen(&mut self) {
        self.job = None;
        let durable = self.kv.durable();
        self.kv = Kv::open(Arc::new(self.disk.after_crash(7)), options()).unwrap();
        assert_eq!(self.kv.applied().index, self.kv.durable());
        assert!(self.kv.durable() >= durable);
        // The disk after the crash is the disk from now on.
        self.disk = self.disk.after_crash(7);
        self.kv = Kv::open(Arc::new(self.disk.clone()), options()).unwrap();
        for (at, bytes) in self.log.iter().skip(self.kv.durable().get() as usize) {
            let _ = self.kv.apply(*at, bytes);
        }
        self.kv.take_events();
    }

    /// Moves over to another node that got a snapshot, in chunks, while this one went on.
    fn snapshot(&mut self, chunk: usize) {
        let mut reader = self.kv.snapshot().unwrap();
        let (at, hash) = (self.kv.applied(), self.kv.hash().unwrap());
        self.command(&Command::Put(PutRequest {
            key: Bytes::from_static(b"late"),
            ..PutRequest::default()
        }));
        self.finish();
        let mut stream = Vec::new();
        loop {
            let part = reader.read_chunk(chunk).unwrap();
            assert!(part.len() <= chunk);
            if part.is_empty() {
                break;
            }
            stream.extend_from_slice(&part);
        }
        let disk = MemDisk::default();
        let mut other = Kv::open(Arc::new(disk.clone()), options()).unwrap();
        other.restore(at, &mut stream.as_slice()).unwrap();
        other.restore(at, &mut stream.as_slice()).unwrap();
        assert_eq!(other.hash().unwrap(), hash);
        assert_eq!(other.durable(), at.index);
        let (late, bytes) = self.log.last().unwrap();
        let _ = other.apply(*late, bytes);
        other.take_events();
        (self.kv, self.disk, self.job) = (other, disk, None);
    }

    fn compare_reads(&self, every: i64) {
        let all = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..RangeRequest::default()
        };
        for revision in (-1..=self.model.revision() + 1).filter(|revision| revision % every == 0) {
            let at = RangeRequest {
                revision,
                ..all.clone()
            };
            assert_eq!(
                self.kv.range(&at),
                self.model.range(&at),
                "at revision {revision}"
            );
        }
    }

    fn compare_all(&mut self) {
        self.compare_reads(1);
        for revision in 0..=self.model.revision() + 1 {
            assert_eq!(
                self.kv.hash_kv(revision),
                self.twin.hash_kv(revision),
                "at revision {revision}"
            );
        }
        assert_eq!(self.kv.hash(), self.twin.hash());
        let leases: BTreeMap<i64, Lease> = self
            .kv
            .leases()
            .unwrap()
            .iter()
            .map(|lease| (lease.id, *lease))
            .collect();
        assert_eq!(leases, self.model.leases);
        for id in leases.keys() {
            assert_eq!(self.kv.lease_keys(*id).unwrap(), self.model.lease_keys(*id));
        }
        assert_eq!(
            self.kv.alarms(),
            Vec::from_iter(self.model.alarms.iter().copied())
        );
        self.compare_history();
    }

    /// Every event of every uncompacted revision, in any portions.
    fn compare_history(&self) {
        for (start, max) in [(0, usize::MAX), (1, 1), (self.model.revision() / 2, 300)] {
            let mut from = start;
            let mut found = Vec::new();
            while from <= self.model.revision() {
                let part = self.kv.history(from, max, true).unwrap();
                assert!(part.through >= from, "progress");
                found.extend(part.events.iter().map(|event| (**event).clone()));
                from = part.through + 1;
            }
            let first = start.max(self.model.compacted);
            let expected: Vec<Event> = self
                .model
                .events
                .iter()
                .filter(|event| event.kv.mod_revision >= first)
                .map(|event| {
                    let mut event = event.clone();
                    if event.kv.mod_revision - 1 < self.model.compacted {
                        event.prev_kv = None;
                    }
                    event
                })
                .collect();
            assert_eq!(found, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kv_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..100)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.events();
        }
        world.compare_all();
        // Compaction runs to its end, and nobody can tell.
        world.finish();
        // One question after a full disk is answered with no job, so that the driver does not spin.
        let mut idle = 0;
        while idle < 2 {
            match world.kv.job(true) {
                Some(job) => job().unwrap(),
                None => idle += 1,
            }
        }
        prop_assert_eq!(world.kv.durable(), Index(world.log.len() as u64));
        prop_assert!(world.kv.physically_compacted(world.kv.compacted_revision()));
        world.compare_all();
    }

    #[test]
    fn garbage_is_refused_not_believed(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Command::decode(&Bytes::from(bytes));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_noticed(command in strategy::command()) {
        let bytes = command.encode();
        for len in 0..bytes.len() {
            prop_assert!(Command::decode(&bytes.slice(..len)).is_err());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(Command::decode(&Bytes::from(longer)).is_err());
    }
}
