//! Scripts: an interesting state of the cluster, told as what happened on the way there, in the words of the golden scripts of
//! `quorate-raft`. Each line is one or several actions of the model, so no state is made up: all are reached from empty logs,
//! with all invariants checked; and as long as the story can be told, it survives changes of the code. What cannot happen, or is not as
//! expected, is an error.
//!
//! A script begins with a comment that says what it is about, then `model static|membership|snapshots`, with `nodes=5` `append=100`
//! (bytes in one Append; the usual 17 are one entry) or `leases=1` (lease reads on) where wanted. A line that starts with a node, `n1 ...`, is one action as the
//! checker prints it. What is lost on the way there may still arrive in the search that starts there, unless the script says `forget`.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_base::{Index, NodeId};
use quorate_raft::{RoleKind, Timer};
use stateright::Model;

use crate::action::{Action, How, ParcelId, Stimulus, TIMERS, timer_name};
use crate::cluster::Cluster;
use crate::kind::Kind;
use crate::node::{Node, Rules};
use crate::state::{MOST, State};

/// Why a script cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It cannot be read from disk.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A line of it makes no sense here, or is not as expected.
    #[error("line {0}, {1:?}: {2}")]
    Line(usize, String, String),
    /// An invariant is broken on the way.
    #[error("line {0}, {1:?}: violation: {2}")]
    Violation(usize, String, Arc<str>),
    /// It does not say of which model it is.
    #[error("the first command must be: model static|membership|snapshots")]
    NoModel,
}

/// A script that was played.
#[derive(Debug)]
pub struct Played {
    /// Of which model it is.
    pub kind: Kind,
    /// Its first command.
    pub header: String,
    /// The cluster in which it was played.
    pub cluster: Cluster,
    /// Where it ended.
    pub state: State,
    /// Every single action.
    pub actions: Vec<String>,
    /// The last one, and where it was taken.
    pub last: Option<(State, Action)>,
}

/// A script by name.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without its ending.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// The scripts of the corpus, by name: those told by hand, then those that random walks have found.
pub fn corpus() -> Result<Vec<Script>, ScriptError> {
    Ok([told()?, walks()?].concat())
}

/// The scripts told by hand.
pub fn told() -> Result<Vec<Script>, ScriptError> {
    folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")))
}

/// The scripts that random walks have found.
pub fn walks() -> Result<Vec<Script>, ScriptError> {
    folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/walks")))
}

fn folder(folder: &Path) -> Result<Vec<Script>, ScriptError> {
    let wrong = |error| ScriptError::File(folder.to_owned(), error);
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_file() {
            scripts.push(Script::open(&path)?);
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

impl Script {
    /// A script in a file.
    pub fn open(path: &Path) -> Result<Script, ScriptError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ScriptError::File(path.to_owned(), error))?;
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Script { name, text })
    }

    /// Of which model it is.
    pub fn kind(&self) -> Result<Kind, ScriptError> {
        Ok(self.header()?.0)
    }

    /// The model, and the line where the story begins.
    fn header(&self) -> Result<(Kind, Option<usize>, Rules, usize), ScriptError> {
        let mut lines = (1..).zip(self.text.lines());
        let (number, line) = lines
            .find(|(_, line)| !is_prose(line))
            .ok_or(ScriptError::NoModel)?;
        let wrong = |why: String| ScriptError::Line(number, line.into(), why);
        let mut words = line.split_whitespace();
        if words.next() != Some("model") {
            return Err(ScriptError::NoModel);
        }
        let kind = words.next().ok_or(ScriptError::NoModel)?;
        let kind: Kind = kind.parse().map_err(|why| wrong(format!("{why}")))?;
        let (mut nodes, mut rules) = (None, kind.rules());
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| wrong("a key=value is missing".into()))?;
            let value: u64 = value.parse().map_err(|why| wrong(format!("{why}")))?;
            match key {
                "nodes" => nodes = Some(value as usize),
                "append" => rules.limits.max_append_bytes = value,
                "leases" => rules.leases = value > 0,
                _ => return Err(wrong(format!("nothing is called {key}"))),
            }
        }
        Ok((kind, nodes, rules, number))
    }

    /// Plays it.
    pub fn play(&self) -> Result<Played, ScriptError> {
        self.play_watched(&mut |_, _, _| {})
    }

    /// Plays it; `watch` sees every action and where it is taken.
    pub fn play_watched(
        &self,
        watch: &mut dyn FnMut(&Cluster, &State, Action),
    ) -> Result<Played, ScriptError> {
        let (kind, nodes, rules, begin) = self.header()?;
        let cluster = kind.cluster_by(nodes, rules);
        let mut player = Player {
            state: cluster.first().clone(),
            cluster,
            waiting: VecDeque::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            actions: Vec::new(),
            last: None,
            watch,
        };
        for (number, line) in (1..).zip(self.text.lines()).skip(begin) {
            if !is_prose(line) {
                let result = player.play(line.trim());
                if let Some(violation) = &player.state.violation {
                    return Err(ScriptError::Violation(number, line.into(), Arc::clone(violation)));
                }
                result.map_err(|why| ScriptError::Line(number, line.into(), why))?;
            }
        }
        Ok(Played {
            kind,
            header: self.text.lines().nth(begin - 1).unwrap_or_default().into(),
            cluster: player.cluster,
            state: player.state,
            actions: player.actions,
            last: player.last,
        })
    }
}

fn is_prose(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

struct Player<'a> {
    cluster: Cluster,
    state: State,
    /// Sent and neither arrived nor lost, oldest first.
    waiting: VecDeque<ParcelId>,
    /// Links on which everything is lost.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose disks take their time.
    held: BTreeSet<NodeId>,
    actions: Vec<String>,
    last: Option<(State, Action)>,
    watch: &'a mut dyn FnMut(&Cluster, &State, Action),
}

impl Player<'_> {
    fn play(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, rest) = words.split_first().ok_or("an empty line")?;
        if command.len() == 2 && command.starts_with('n') {
            return self.play_action(line);
        }
        if *command == "expect" {
            return self.expect(line["expect".len()..].trim());
        }
        let number = |at: usize| -> Result<u64, String> {
            let word = rest.get(at).ok_or("a number is missing")?;
            word.parse().map_err(|why| format!("{word}: {why}"))
        };
        let node = |at: usize| number(at).map(NodeId);
        let small = |at: usize| number(at).map(|n| n as u8);
        match *command {
            "elect" => self.elect(node(0)?)?,
            "heartbeat" => {
                self.act(node(0)?, Stimulus::Fire(Timer::Heartbeat))?;
                self.run(|_, _| true)?;
            }
            "fire" => {
                let name = rest.get(1).ok_or("which timer?")?;
                let timer = TIMERS.into_iter().find(|timer| timer_name(*timer) == *name);
                self.act(node(0)?, Stimulus::Fire(timer.ok_or("no such timer")?))?;
            }
            "run" => self.run(|_, _| true)?,
            "exchange" => {
                let pair = [node(0)?, node(1)?];
                self.run(|from, to| pair.contains(&from) && pair.contains(&to))?;
            }
            "deliver" => self.deliver(node(0)?, node(1)?)?,
            "lose" if rest.is_empty() => self.waiting.clear(),
            "lose" => {
                let (from, to) = (node(0)?, node(1)?);
                let keep = |id: &ParcelId| self.link(*id) != (from, to);
                self.waiting = self.waiting.iter().copied().filter(keep).collect();
            }
            "propose" => {
                let next = self.cluster.ghost(&self.state).proposed + 1;
                self.act(node(0)?, Stimulus::Propose(next))?;
            }
            "read" => {
                let next = self.cluster.ghost(&self.state).asked + 1;
                self.act(node(0)?, Stimulus::Read(next))?;
            }
            "transfer" => self.act(node(0)?, Stimulus::Transfer(Some(node(1)?)))?,
            "hint" => self.act(node(0)?, Stimulus::Hint)?,
            "stall" => self.act(node(0)?, Stimulus::Stall)?,
            "reach" => self.act(node(0)?, Stimulus::Reachable(node(1)?))?,
            "crash" => self.crash(node(0)?, rest.get(1).map_or(Ok(0), |_| small(1))?)?,
            "compact" => self.act(
                node(0)?,
                Stimulus::Compact(rest.get(1).map_or(Ok(0), |_| small(1))?),
            )?,
            "flush" => self.act(node(0)?, Stimulus::Flush)?,
            "change" => self.act(node(0)?, Stimulus::Change(small(1)?))?,
            "cut" => drop(self.cut.insert((node(0)?, node(1)?))),
            "isolate" => self.isolate(node(0)?),
            "heal" => self.cut.clear(),
            "hold" => drop(self.held.insert(node(0)?)),
            "release" => self.release(node(0)?)?,
            "forget" => {
                self.waiting.clear();
                self.state = self.cluster.without_network(&self.state);
                self.actions.push("forget".into());
            }
            _ => return Err("no such command".into()),
        }
        Ok(())
    }

    /// One action, in the words of the checker.
    fn play_action(&mut self, line: &str) -> Result<(), String> {
        let action = self
            .cluster
            .read(&self.state, line)
            .ok_or("that cannot happen here")?;
        if let Stimulus::Deliver(id) = action.what {
            self.waiting.retain(|waiting| *waiting != id);
        }
        self.take(action)?
            .then_some(())
            .ok_or("that changes nothing".into())
    }

    /// Something happens to a node, whose disk is slow if it is held.
    fn act(&mut self, at: NodeId, what: Stimulus) -> Result<(), String> {
        let mut possible = Vec::new();
        self.cluster.actions(&self.state, &mut possible);
        if !possible
            .iter()
            .any(|action| action.at == at && action.what == what)
        {
            return Err("that cannot happen here".into());
        }
        match self.happen(at, what)? {
            true => Ok(()),
            false => Err("that changes nothing".into()),
        }
    }

    fn happen(&mut self, at: NodeId, what: Stimulus) -> Result<bool, String> {
        let how = How::SlowDisk;
        if self.held.contains(&at) && self.take(Action { at, what, how })? {
            return Ok(true);
        }
        let how = How::Settled;
        self.take(Action { at, what, how })
    }

    /// Takes one action. Returns whether it made a difference.
    fn take(&mut self, action: Action) -> Result<bool, String> {
        let sent = self.cluster.sent(&self.state, action);
        let Some(next) = self.cluster.next_state(&self.state, action) else {
            return Ok(false);
        };
        (self.watch)(&self.cluster, &self.state, action);
        self.actions.push(self.cluster.write(&action));
        let before = std::mem::replace(&mut self.state, next);
        self.last = Some((before, action));
        if let Some(violation) = &self.state.violation {
            return Err(violation.to_string());
        }
        for id in sent {
            if !self.cut.contains(&self.link(id)) {
                self.waiting.push_back(id);
            }
        }
        Ok(true)
    }

    /// From whom to whom.
    fn link(&self, id: ParcelId) -> (NodeId, NodeId) {
        let parcel = self.cluster.parcel(id);
        (parcel.from, parcel.to)
    }

    /// Delivers what waits on these links, in order, until nothing more comes of it.
    fn run(&mut self, on: impl Fn(NodeId, NodeId) -> bool) -> Result<(), String> {
        let mut left = 10_000;
        while let Some(at) = self.waiting.iter().position(|id| {
            let (from, to) = self.link(*id);
            on(from, to)
        }) {
            let id = self.waiting.remove(at).expect("just found");
            self.arrive(id)?;
            left -= 1;
            if left == 0 {
                return Err("the cluster never comes to rest".into());
            }
        }
        Ok(())
    }

    fn arrive(&mut self, id: ParcelId) -> Result<(), String> {
        let (from, to) = self.link(id);
        let gone = self.cut.contains(&(from, to)) || self.state.network.binary_search(&id).is_err();
        if !gone {
            self.happen(to, Stimulus::Deliver(id))?;
        }
        Ok(())
    }

    fn deliver(&mut self, from: NodeId, to: NodeId) -> Result<(), String> {
        let at = self.waiting.iter().position(|id| self.link(*id) == (from, to));
        let id = self.waiting.remove(at.ok_or("there is no such message")?);
        self.arrive(id.expect("just found"))
    }

    fn elect(&mut self, id: NodeId) -> Result<(), String> {
        self.run(|_, _| true)?;
        self.act(id, Stimulus::Fire(Timer::Election))?;
        self.run(|_, _| true)?;
        match self.node(id)?.raft.role() {
            RoleKind::Leader => Ok(()),
            _ => Err("it should lead now".into()),
        }
    }

    fn isolate(&mut self, id: NodeId) {
        for other in (1..=MOST as u64).map(NodeId) {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    fn crash(&mut self, id: NodeId, survive: u8) -> Result<(), String> {
        self.act(id, Stimulus::Restart(survive))
    }

    fn release(&mut self, id: NodeId) -> Result<(), String> {
        self.held.remove(&id);
        let writes = self.node(id)?.writes.len() as u8;
        match writes {
            0 => Ok(()),
            _ => self.act(id, Stimulus::Persist(writes)),
        }
    }

    fn node(&self, id: NodeId) -> Result<Arc<Node>, String> {
        self.cluster
            .node(&self.state, id)
            .ok_or_else(|| format!("there is no n{id}"))
    }

    /// "n1 leader, term 1, log 1@1, commit 1"
    fn expect(&self, line: &str) -> Result<(), String> {
        let id = line.strip_prefix('n').and_then(|rest| rest.split(' ').next());
        let id = id.and_then(|id| id.parse().ok()).ok_or("which node?")?;
        let found = status(&*self.node(NodeId(id))?);
        if found == line {
            Ok(())
        } else {
            Err(format!("it is: {found}"))
        }
    }
}

/// Where a node stands.
pub fn status(node: &Node) -> String {
    let raft = &node.raft;
    let role = match raft.role() {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    };
    let log = raft.log();
    let mut parts = Vec::new();
    if log.base().last.index > Index::ZERO {
        parts.push(format!("({})", log.base().last));
    }
    let entries = (log.first().0..=log.last_index().0).filter_map(|index| log.id_at(Index(index)));
    parts.extend(entries.map(|id| id.to_string()));
    if parts.is_empty() {
        parts.push("empty".into());
    }
    let (id, term, log, commit) = (node.id(), raft.term(), parts.join(" "), raft.commit());
    format!("n{id} {role}, term {term}, log {log}, commit {commit}")
}
