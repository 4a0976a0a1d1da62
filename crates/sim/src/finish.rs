//! A run from its beginning to its report: the time of faults, and then the end, in which a part of the cluster is healed first
//! (`survivors`), then all of it (`healing`), and the verdict (`judge`).

use std::collections::BTreeMap;

use quorate_base::{NodeId, StateMachine};

use crate::coverage::Coverage;
use crate::failure::{Failure, catch};
use crate::history::Call;
use crate::host::Host;
use crate::model::Change;
use crate::operator::show;
use crate::params::{MS, Params, SEC};
use crate::picture::{Picture, Topic};
use crate::survivors::Excuse;
use crate::trace::{Nanos, View};
use crate::world::World;

/// A run that was carried to its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// The parameters.
    pub params: Params,
    /// What was met.
    pub coverage: Coverage,
    /// Stands for everything that happened.
    pub trace_hash: u64,
    /// Virtual time.
    pub elapsed: Nanos,
    /// The history.
    pub calls: Vec<Call>,
    /// What was committed, revision by revision.
    pub changes: BTreeMap<i64, Change>,
    /// Terms that had a leader.
    pub elections: usize,
    /// Why nothing was demanded of the nodes that were healed first, proven.
    pub excused: Option<Excuse>,
    /// Watchers that were created, again after each change of node.
    pub watch_requests: u64,
    /// What they were told: events, progress, ends.
    pub watch_responses: u64,
}

/// How a run ended: with a report, or with a failure and the hash of the trace up to it.
pub type Verdict = Result<Report, (Failure, u64)>;

/// Runs a seed's parameters to the end.
pub fn run(params: Params, print: bool) -> Verdict {
    watch(params, if print { View::Lines } else { View::Hash }).0
}

/// Like [`run`], and keeps a picture, if that is wanted.
pub fn watch(params: Params, view: View) -> (Verdict, Option<Box<Picture>>) {
    let mut world = World::new(params, view);
    // A panic of the simulator's own is a failure with a picture, too.
    let result = catch(|| world.play())
        .map_err(Failure::Crash)
        .and_then(|played| played);
    if let Err(failure) = &result {
        let words = format_args!("FAILURE: {failure}");
        world.trace.mark(Topic::Failure, world.now, None, words);
    }
    let result = match result {
        Ok(()) => Ok(world.report()),
        Err(failure) => Err((failure, world.trace.hash())),
    };
    (result, world.trace.into_picture())
}

impl World {
    fn play(&mut self) -> Result<(), Failure> {
        let (duration, wanted) = (self.params.duration, self.params.operations as usize);
        while self.step(duration)? {}
        let limit = duration + 600 * SEC;
        while self.operations() < wanted {
            if !self.step(limit)? {
                let made = self.operations();
                return Err(Failure::Liveness(format!(
                    "only {made} requests in {} s",
                    self.now / SEC
                )));
            }
        }
        while !self.coverage.missing(&self.wanted).is_empty() && self.step(limit)? {}
        self.conclude()
    }

    /// Heals a part and then everything, and demands each time what must come true then.
    pub(crate) fn conclude(&mut self) -> Result<(), Failure> {
        self.healing = true;
        self.unmask()?;
        self.settle_doubts()?;
        if !self.silent {
            // Otherwise whoever directs the run decides who is cut off.
            self.survive()?;
        }
        self.heal();
        self.await_replacements()?;
        self.await_leader()?;
        self.await_answers()?;
        self.await_lasting_leader()?;
        self.await_expiry()?;
        let members = self.members();
        self.last_requests(&members)?;
        self.await_convergence(&members)?;
        self.await_watchers()?;
        self.judge()
    }

    /// What is to be told of a run that was carried to its end.
    pub(crate) fn report(&mut self) -> Report {
        Report {
            trace_hash: self.trace.hash(),
            elapsed: self.now,
            changes: self.ghost.machines.model().changes().clone(),
            elections: self.ghost.elections(),
            excused: self.excused.take(),
            coverage: std::mem::take(&mut self.coverage),
            calls: std::mem::take(&mut self.calls),
            params: self.params.clone(),
            watch_requests: self.watch_requests,
            watch_responses: self.watch_responses,
        }
    }

    /// Lets things happen until `done`, for at most `time`.
    pub(crate) fn until(
        &mut self,
        time: Nanos,
        what: &str,
        done: impl Fn(&World) -> bool,
    ) -> Result<(), Failure> {
        let end = self.now + time;
        while !done(self) {
            if !self.step(end)? {
                return Err(self.missing(what, time));
            }
        }
        Ok(())
    }

    /// Something did not become true in time.
    pub(crate) fn missing(&self, what: &str, time: Nanos) -> Failure {
        let mut states: Vec<String> = self.hosts.values().map(describe).collect();
        states.push(show(self.ghost.commits().config()));
        let millis = time / MS;
        Failure::Liveness(format!("no {what} within {millis} ms: {}", states.join("; ")))
    }

    /// Those that must come to something in the end: the members of the committed configuration.
    pub(crate) fn members(&self) -> Vec<NodeId> {
        self.ghost.commits().config().members().into_iter().collect()
    }

    fn await_answers(&mut self) -> Result<(), Failure> {
        // The operator's requests have patience, and may wait for each other.
        self.until(30 * SEC, "answers to all requests", |world| {
            world.pending.is_empty() && world.operator.is_idle()
        })
    }
}

fn describe(host: &Host) -> String {
    match &host.process {
        None => format!("n{} is down", host.id),
        Some(process) => {
            let raft = process.node.raft();
            let (term, commit, last, applied) =
                (raft.term(), raft.commit(), raft.last(), process.kv.applied());
            format!(
                "n{} {:?} t{term}, log {last}, commit {commit}, applied {applied}",
                host.id,
                raft.role()
            )
        }
    }
}
