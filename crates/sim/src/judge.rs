//! The verdict on a run: last requests at every node, one state on all of them, and a history that clients may see.

use bytes::Bytes;
use quorate_base::{NodeId, StateMachine};
use quorate_kv::{Command, PutRequest, RangeRequest, RangeResponse};

use crate::failure::Failure;
use crate::history::{self, Action, Outcome};
use crate::params::SEC;
use crate::world::World;

impl World {
    /// Each of these nodes takes a write and a linearizable read now.
    pub(crate) fn last_requests(&mut self, ids: &[NodeId]) -> Result<(), Failure> {
        for id in ids.iter().copied() {
            let request = RangeRequest {
                key: "key".into(),
                range_end: "kez".into(),
                ..RangeRequest::default()
            };
            let read = Action::Read {
                request,
                serializable: false,
            };
            self.insist_on_write(id)?;
            let outcome = self.insist(id, read)?;
            if !matches!(outcome, Outcome::Read(Ok(_))) {
                return Err(refused(id, &outcome));
            }
        }
        Ok(())
    }

    /// A node that is still behind may get its own write by a snapshot, and cannot know then how it ended; but not again and again.
    fn insist_on_write(&mut self, id: NodeId) -> Result<(), Failure> {
        let mut outcome = Outcome::Unknown;
        for _ in 0..5 {
            let write = self.last_write(id);
            outcome = self.insist(id, write)?;
            if outcome != Outcome::Unknown {
                break;
            }
        }
        match outcome {
            Outcome::Written(Ok(_)) => Ok(()),
            _ => Err(refused(id, &outcome)),
        }
    }

    /// A write for `id`, of a value that nobody else writes.
    pub(crate) fn last_write(&self, id: NodeId) -> Action {
        let value = Bytes::from(format!("last of n{id}, {}", self.calls.len()));
        let put = PutRequest {
            key: "key00".into(),
            value,
            ..PutRequest::default()
        };
        Action::Write(Command::Put(put))
    }

    /// The answer to a request at `id`; there must be one.
    fn insist(&mut self, id: NodeId, action: Action) -> Result<Outcome, Failure> {
        let call = self.calls.len();
        self.clients[0].become_patient();
        self.ask(0, id, action);
        self.until(30 * SEC, "answer to a last request", |world| {
            world.calls[call].returned != u64::MAX
        })?;
        Ok(self.calls[call].outcome.clone())
    }

    /// Each of these nodes has applied everything that was ever committed.
    pub(crate) fn await_convergence(&mut self, ids: &[NodeId]) -> Result<(), Failure> {
        self.until(60 * SEC, "convergence", |world| {
            let last = world.ghost.commits().last();
            ids.iter().all(|id| {
                let host = world.hosts.get(id);
                let process = host.and_then(|host| host.process.as_ref());
                process.is_some_and(|process| process.kv.applied().index == last)
            })
        })
    }

    /// Leases that nobody renews come to an end.
    pub(crate) fn await_expiry(&mut self) -> Result<(), Failure> {
        let longest = 2 * self.params.max_ttl * SEC;
        self.until(longest + 10 * SEC, "end of all leases", |world| {
            world.ghost.machines.model().leases().is_empty()
        })
    }

    /// Every watcher is told of everything that happened.
    pub(crate) fn await_watchers(&mut self) -> Result<(), Failure> {
        self.until(
            30 * SEC,
            "watchers that know everything",
            World::watchers_know_all,
        )
    }

    /// All nodes have one state, which is the model's, and the history is one that clients may see.
    pub(crate) fn judge(&mut self) -> Result<(), Failure> {
        self.check_never()?;
        self.scan(true)?;
        for id in self.members() {
            self.check_hash(id)?;
            let all = RangeRequest {
                key: "a".into(),
                range_end: "z".into(),
                ..RangeRequest::default()
            };
            let model = self.ghost.machines.model();
            let last = model.revision();
            let process = self.hosts[&id].process.as_ref().expect("converged");
            let found = process.kv.range(&all);
            let right =
                |found: &RangeResponse| found.revision == last && found.kvs.iter().eq(model.read(&all, last));
            if !found.as_ref().is_ok_and(right) {
                return Err(Failure::Correctness(format!(
                    "S14: the store of n{id} is not the model's"
                )));
            }
        }
        history::check(&self.calls, self.ghost.machines.model())?;
        let missing = self.coverage.missing(&self.wanted);
        if !missing.is_empty() {
            return Err(Failure::Liveness(format!(
                "planned, but never happened: {missing:?}"
            )));
        }
        Ok(())
    }
}

fn refused(id: NodeId, outcome: &Outcome) -> Failure {
    Failure::Liveness(format!("n{id} answers in a healthy cluster: {outcome:?}"))
}
