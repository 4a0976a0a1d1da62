//! The driver: one task that orders everything that happens to the node and carries out what the node wants done. It decides
//! nothing about Raft.
//!
//! A turn takes all that has come (frames first, then what the threads have done, then requests), steps the node through it, and
//! carries out the effects: messages into the peers' queues, writes to the disk thread, commands into the machine, answers to
//! whoever waits. So one write and one sync serve everything that came in a turn, and messages leave while the disk works.

mod host;
mod members;
mod replies;
mod requests;
mod space;
mod stop;
mod telling;
mod waiting;
mod watchdog;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_base::{NodeId, StateMachine};
use quorate_node::Node;
use quorate_node::event::{Effects, Event, MachineOp, Nanos};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::{Fatal, ReadError, Reason};
use crate::flusher::{Flushed, Flusher};
use crate::handle::Shared;
use crate::inbox::{Done, Look};
use crate::log_thread::{DiskOp, LogThread};
use crate::membership::Membership;
use crate::peer::{Inbound, Links, Network};
use crate::status::Space;
use crate::work::Report;
use host::Host;
use members::Roll;
use replies::{Readers, Replies, reason};
use space::Refuge;
use stop::Stop;
use telling::Telling;
use watchdog::Watchdog;

/// Rounds of effects in one turn, lest a peer that refuses everything at once keeps the driver from everyone else.
const MAX_ROUNDS: usize = 64;
/// Looks at the network after a pause, and how many of them in a row must find nothing.
const DRAIN_LOOKS: (usize, usize) = (64, 3);

/// A machine that had no job after its last batch may have one later: it is asked this often.
const TEND_EVERY: Nanos = 1_000_000_000;

/// What a driver is made of.
pub(crate) struct Parts<S: StateMachine> {
    pub config: Config,
    pub node: Node,
    pub machine: S,
    pub flusher: Flusher<S>,
    pub log: LogThread,
    pub links: Links,
    /// Where members are reached as far as the log does not say.
    pub hearsay: BTreeMap<NodeId, Vec<String>>,
    pub network: Network,
    pub frames: mpsc::Receiver<Inbound>,
    pub shared: Arc<Shared<S>>,
    pub began: Instant,
}

/// See the module.
pub(crate) struct Driver<S: StateMachine> {
    shared: Arc<Shared<S>>,
    node: Node,
    host: Host<S>,
    replies: Replies<S>,
    log: LogThread,
    links: Links,
    frames: mpsc::Receiver<Inbound>,
    /// Ends all connections with the driver.
    network: Network,
    began: Instant,
    heartbeat: Nanos,
    election: Nanos,
    timeout: Nanos,
    /// How long the machine is waited for at the end.
    patience: Nanos,
    telling: Telling,
    roll: Roll,
    stop: Stop,
    watchdog: Watchdog,
    refuge: Refuge,
    /// When to ask the machine for a job again.
    next_tend: Nanos,
    /// Effects were left over.
    again: bool,
    _closing: Closing<S>,
}

/// However the driver ends, nobody is left waiting for it.
struct Closing<S: StateMachine>(Arc<Shared<S>>);

impl<S: StateMachine> Drop for Closing<S> {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

impl<S: StateMachine> Driver<S> {
    pub(crate) fn new(parts: Parts<S>) -> Driver<S> {
        let Parts {
            config,
            node,
            machine,
            flusher,
            log,
            links,
            hearsay,
            network,
            frames,
            shared,
            began,
        } = parts;
        let roll = Roll::new(hearsay, config.members.clone(), node.raft().config());
        Driver {
            host: Host::new(machine, flusher, shared.clone()),
            replies: Replies::new(shared.metrics.clone()),
            telling: Telling::new(&config),
            roll,
            _closing: Closing(shared.clone()),
            shared,
            node,
            log,
            links,
            frames,
            network,
            began,
            heartbeat: nanos(config.heartbeat),
            election: nanos(config.election),
            timeout: nanos(config.timeout),
            patience: nanos(config.patience()),
            stop: Stop::No,
            watchdog: Watchdog::new(nanos(config.election) / 2),
            refuge: Refuge::default(),
            next_tend: TEND_EVERY,
            again: false,
        }
    }

    /// Runs the node until it is stopped or fails. `first` comes before everything else.
    pub(crate) async fn run(mut self, first: Vec<MachineOp>) -> Result<(), Fatal> {
        let mut events = Vec::new();
        for op in first {
            self.host.carry_out(op, &mut self.replies, &mut events);
        }
        let now = self.now();
        // The first event starts the node's clock.
        self.node.step(now, Event::Wake);
        self.step_all(now, events);
        loop {
            self.turn()?;
            if self.has_left(self.now()) {
                self.take_leave().await;
                return Err(Fatal::Removed);
            }
            if matches!(self.stop, Stop::Done) {
                return Ok(());
            }
            self.wait().await;
        }
    }

    fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        if std::mem::take(&mut self.again) {
            tokio::task::yield_now().await;
            return;
        }
        let deadlines = [
            self.node.next_deadline(),
            self.stop.deadline(),
            self.watchdog.deadline(),
            self.roll.leaving_by,
            self.host.next_deadline(),
        ];
        let deadline = deadlines.into_iter().flatten().fold(self.next_tend, Nanos::min);
        let until = self.began + Duration::from_nanos(deadline);
        let inbound = tokio::select! {
            biased;
            inbound = self.frames.recv() => inbound,
            () = self.shared.inbox.ready() => None,
            () = tokio::time::sleep_until(until.into()) => None,
        };
        let now = self.now();
        if let Some(inbound) = inbound {
            self.take_frames(inbound);
        }
        if now > deadline + self.heartbeat {
            self.drain_network().await;
        }
    }

    /// After a pause of the whole process: hears what the peers have said meanwhile before any timer fires, or a follower would campaign
    /// against a leader that never fell silent.
    async fn drain_network(&mut self) {
        let (looks, quiet_enough) = DRAIN_LOOKS;
        let mut quiet = 0;
        for _ in 0..looks {
            // Lets the runtime look at its sockets, and the readers run.
            tokio::task::yield_now().await;
            quiet += 1;
            while let Ok(inbound) = self.frames.try_recv() {
                self.take_frames(inbound);
                quiet = 0;
            }
            if quiet == quiet_enough {
                return;
            }
        }
    }

    fn turn(&mut self) -> Result<(), Fatal> {
        while let Ok(inbound) = self.frames.try_recv() {
            self.take_frames(inbound);
        }
        let batch = self.shared.inbox.take();
        let now = self.now();
        for done in batch.done {
            self.take_done(now, done)?;
        }
        // Only now: after a pause before the inbox, an older time would let a lease look valid to requests that came after its end.
        let now = self.now();
        let local = self.take_requests(now, batch.requests);
        if self.node.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.node.step(now, Event::Wake);
        }
        self.watch_disk(now);
        self.flee_full_disk(now);
        self.describe_members(now);
        self.tend(now);
        self.carry_out_all(now)?;
        self.host.expire(now);
        self.show(now, local);
        self.go_on_stopping(now);
        self.carry_out_all(now)?;
        self.follow_membership();
        self.tell();
        Ok(())
    }

    /// Steps what a peer has sent, at the time at which it is taken out of the queue. An earlier one would not do: the thread may have been held up
    /// since, and a voter's promise to stay silent (§6.4.1) would be counted from before the leader sent what it answers. Then it would
    /// end before the leader's lease does.
    fn take_frames(&mut self, inbound: Inbound) {
        let now = self.now();
        let Inbound { from, messages } = inbound;
        for message in messages {
            if let Some(message) = self.hear(from, message) {
                self.node.step(now, Event::Peer { from, message });
            }
        }
    }

    fn step_all(&mut self, now: Nanos, events: Vec<Event>) {
        for event in events {
            self.node.step(now, event);
        }
    }

    fn take_done(&mut self, now: Nanos, done: Done<S>) -> Result<(), Fatal> {
        let mut events = Vec::new();
        match done {
            Done::Report(Report::Failed(fatal)) | Done::Flushed(Flushed::Failed(fatal)) => return Err(fatal),
            Done::Report(Report::Events(reported)) => {
                self.telling.links(&reported);
                self.watchdog.answered(&reported);
                events = reported;
            }
            Done::Report(Report::Space(space)) => {
                self.telling.space(space);
                self.host.log_lacks_room(space != Space::Ok, &mut events);
            }
            Done::Flushed(Flushed::Job { result, took }) => {
                self.shared.metrics.flush_duration.observe(took);
                result?;
                self.host.job_done(&mut self.replies, &mut events);
            }
            Done::Flushed(Flushed::Restored { machine, at }) => {
                let applied = machine.applied();
                if applied != at {
                    return Err(Fatal::Machine(format!(
                        "restored a snapshot up to {at} and is at {applied}"
                    )));
                }
                self.host.restored(machine, &mut self.replies, &mut events);
            }
            Done::Chunk {
                stream,
                reader,
                chunk,
            } => {
                self.host.chunk_read(stream, reader, chunk, &mut events);
            }
        }
        self.step_all(now, events);
        Ok(())
    }

    /// A silent disk the node itself notices; here it is told to whoever reads logs and metrics.
    fn watch_disk(&mut self, now: Nanos) {
        if self.watchdog.barks(now) {
            self.shared.metrics.disk_stalls.add(1);
            tracing::warn!("the disk has not answered for half an election timeout");
        }
    }

    fn tend(&mut self, now: Nanos) {
        if now >= self.next_tend {
            self.next_tend = now + TEND_EVERY;
            self.note_peers();
            let mut events = Vec::new();
            self.host.tend(&mut events);
            self.step_all(now, events);
        }
    }

    /// Carries out effects until there are none.
    fn carry_out_all(&mut self, now: Nanos) -> Result<(), Fatal> {
        for _ in 0..MAX_ROUNDS {
            let effects = self.node.take_effects();
            if is_empty(&effects) {
                return Ok(());
            }
            self.carry_out(now, effects)?;
        }
        self.again = true;
        Ok(())
    }

    fn carry_out(&mut self, now: Nanos, effects: Effects) -> Result<(), Fatal> {
        let Effects {
            log,
            stage,
            machine,
            snapshots,
            send,
            answers,
            reads,
            changed,
            membership,
            removed,
            fatal,
        } = effects;
        if let Some(why) = fatal {
            return Err(Fatal::Node(why));
        }
        let mut events = Vec::new();
        // First, since the messages below may be the first ones to new members.
        if let Some(config) = membership {
            self.roll.replace(&config);
            self.follow_membership();
        }
        for (to, message) in send {
            let message = self.say(message);
            if let Err(message) = self.links.send(to, message) {
                self.telling.dropped(&self.shared.metrics, to);
                events.push(Event::Dropped { to, message });
            }
        }
        if !log.is_empty() || !stage.is_empty() {
            self.watchdog.handed(now, &log);
            let log = log.into_iter().map(DiskOp::Log);
            self.log.put(log.chain(stage.into_iter().map(DiskOp::Stage)));
        }
        for op in machine {
            self.host.carry_out(op, &mut self.replies, &mut events);
        }
        for op in snapshots {
            self.host.snapshot(op, &mut events);
        }
        for (token, failure) in answers {
            self.replies.failed(token, failure);
        }
        for (token, result) in reads {
            self.answer_readers(now, token, result);
        }
        for (token, end) in changed {
            let log = self.node.raft().log();
            let made = end.map(|index| match index < log.base().last.index {
                // Applied, made durable and compacted away all in this turn.
                true => Membership::of(log.config()),
                false => Membership::of(log.config_at(index)),
            });
            self.replies.changed(token, made);
        }
        if removed {
            self.removed(now);
        }
        self.step_all(now, events);
        Ok(())
    }

    /// Shows the state to these; if it is away, for as long as a request may take.
    fn show(&mut self, now: Nanos, looks: Vec<Look<S>>) {
        let until = now.saturating_add(self.timeout);
        looks.into_iter().for_each(|look| self.host.look(look, until));
    }

    fn answer_readers(&mut self, now: Nanos, token: u64, result: Result<(), quorate_node::event::Failure>) {
        use quorate_node::event::Failure::{NotDone, Unknown};
        let readers = self.replies.readers(token);
        match (result, readers) {
            (Err(NotDone(why) | Unknown(why)), readers) => readers.fail(ReadError(reason(why))),
            (Ok(()), Readers::Looks(looks)) => self.show(now, looks),
            (Ok(()), Readers::Confirms(replies)) => {
                let answer = self.leading_term().ok_or(ReadError(Reason::LeaderChanged));
                for reply in replies {
                    let _ = reply.send(answer);
                }
            }
        }
    }
}

fn is_empty(effects: &Effects) -> bool {
    let Effects {
        log,
        stage,
        machine,
        snapshots,
        send,
        answers,
        reads,
        changed,
        membership,
        removed,
        fatal,
    } = effects;
    fatal.is_none()
        && log.is_empty()
        && stage.is_empty()
        && machine.is_empty()
        && snapshots.is_empty()
        && send.is_empty()
        && answers.is_empty()
        && reads.is_empty()
        && changed.is_empty()
        && membership.is_none()
        && !removed
}
