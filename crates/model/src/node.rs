//! One node of the model: the shipped core, and around it a driver as plain as can be: its disk with the writes on their way, its state machine,
//! its timers, and Appends that wait for cold payloads. A stimulus gives the node after it and what others see of it; nothing
//! here knows of other nodes, so the outcome of a stimulus is computed once for all states of the cluster that contain
//! the node (`tables`). How it is computed is in `step`.

use std::collections::{BTreeMap, VecDeque};

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Change, Config, Limits, Names, Raft, Range, Timer};

use crate::action::{How, Stimulus, TIMERS};
use crate::disk::{FilledWrite, Image, Machine, Payload};
use crate::parcel::Parcel;
use crate::step::Step;

/// What is the same for all nodes and all states of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Flow control.
    pub limits: Limits,
    /// The changes of the membership that may be asked for, and whether by force.
    pub menu: Vec<(Vec<Change>, bool)>,
    /// Lease reads are on. Nobody reads by a lease here, since there is no time; but there is no haste either, so ids decide less.
    pub leases: bool,
    /// Disks forget at a restart whom they had voted for. Never so but to show that the checker finds what comes of it.
    pub forgetful: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The core.
    pub raft: Raft,
    /// What a restart would find.
    pub image: Image,
    /// Handed out and not durable yet, oldest first.
    pub writes: VecDeque<FilledWrite>,
    /// The payloads of the log, with the term that each belongs to.
    pub bodies: BTreeMap<Index, (Term, Payload)>,
    /// The state machine in memory.
    pub machine: Machine,
    /// The timers that run, a bit each.
    pub(crate) timers: u8,
    /// Appends that wait for their payloads, in order for each peer.
    pub cold: Vec<Cold>,
    /// How often it was started: the names of reads must not be used twice.
    pub(crate) starts: u64,
}

/// An Append that waits for its payloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cold {
    /// To whom.
    pub to: NodeId,
    pub(crate) term: Term,
    pub(crate) range: Range,
    pub(crate) commit: Index,
}

/// What others see of a stimulus, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It sends something; for an acknowledgement, with the entry that its disk has there.
    Sent(Parcel, Option<LogId>),
    /// It has become leader of this term.
    Leads(Term),
    /// Its commit index has moved over the entries after the first up to the second; it led in the term.
    Commits(Index, Index, Option<Term>),
    /// As leader it has appended a configuration; the one before, and where that stands.
    Reconfigures(Index, Config),
    /// Its disk has dropped these entries.
    Drops(Vec<(LogId, Payload)>),
    /// The machine has applied an entry, or was replaced.
    Machine(Machine),
    /// A read was answered.
    Answers(u8, Option<Index>),
    /// It has crashed, and with it all requests.
    Crashes,
}

/// What a stimulus leads to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node after it.
    pub node: Node,
    /// What others see of it.
    pub events: Vec<Event>,
}

impl Node {
    /// A node with an empty log that knows this configuration.
    pub fn join(rules: &Rules, id: NodeId, config: &Config) -> Outcome {
        let mut image = Image::default();
        image.base.config = config.clone();
        let raft = Raft::new(image.restored(id, 0, rules));
        let node = Node {
            raft,
            image,
            writes: VecDeque::new(),
            bodies: BTreeMap::new(),
            machine: Machine::default(),
            timers: 0,
            cold: Vec::new(),
            starts: 0,
        };
        let mut step = Step::new(rules, &node);
        step.go_on(How::Settled);
        step.end()
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.raft.id()
    }

    /// Whether the core has set this timer.
    pub fn runs(&self, timer: Timer) -> bool {
        self.timers & 1 << timer as u8 != 0
    }

    /// The timers that run.
    pub fn timers(&self) -> impl Iterator<Item = Timer> {
        TIMERS.into_iter().filter(|timer| self.runs(*timer))
    }

    /// A snapshot was installed in the log and not yet in the machine.
    pub(crate) fn is_installing(&self) -> bool {
        self.raft.log().base().last.index > self.image.machine.applied
    }

    /// Gives all nodes new names. The membership must stay what it is, so only who voted, who is written to, and the core know any.
    pub(crate) fn rename(&mut self, names: Names) {
        self.raft.rename(names);
        self.image.hard.vote = self.image.hard.vote.map(names);
        for filled in &mut self.writes {
            if let Some(hard) = &mut filled.write.hard {
                hard.vote = hard.vote.map(names);
            }
        }
        for cold in &mut self.cold {
            cold.to = names(cold.to);
        }
        self.cold.sort_by_key(|cold| cold.to);
    }

    /// What comes of a stimulus; `parcel` is the one that is delivered. `None` if it cannot happen to this node.
    pub fn react(
        &self,
        rules: &Rules,
        stimulus: Stimulus,
        parcel: Option<&Parcel>,
        how: How,
    ) -> Option<Outcome> {
        let mut step = Step::new(rules, self);
        step.stimulate(stimulus, parcel)?;
        step.go_on(how);
        Some(step.end())
    }
}
