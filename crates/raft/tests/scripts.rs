//! Golden scripts: one protocol scenario a file in `tests/scripts`, with a header that names the thesis section and says what is
//! shown, then commands and what must come of them, one line a message and an effect. The invariants are checked throughout.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p quorate-raft --test scripts` writes the output anew; read the difference before keeping it.
//! "→" is a message that arrives, "✗" one that is lost, "[2]" its term, "5@2" the entry 5 of term 2.

mod common;

use std::error::Error;

use common::show::{config, log_line};
use common::{Cluster, n};
use goldenscript::Context;
use quorate_base::Index;
use quorate_raft::{Change, Config, Input, Limits, Priority, Promote, RoleKind, Timer};

/// What a script can say. After each command the node it names does all it can by itself, disk and state machine included.
#[derive(goldenscript::Command)]
enum Command {
    /// Nodes 1 to n: voters, or `learners`, or voters of the old configuration as well or only.
    Cluster {
        #[arg(pos)]
        size: u64,
        /// The last so many are learners.
        #[arg(key, optional)]
        learners: u64,
        /// "1 2 3": the configuration is joint, from these to `new`.
        #[arg(key, optional)]
        old: String,
        #[arg(key, optional)]
        new: String,
        /// Bytes in an Append; an entry has ten, a no-op seventeen.
        #[arg(key, optional)]
        append: u64,
    },
    /// Nodes whose logs have entries of these terms: logs "1 1 2" "1".
    Logs(#[arg(optional)] Vec<String>),
    /// A node is elected, everyone else helping.
    Elect(u64),
    /// A timer runs out: election, fresh, heartbeat, quorum, transfer, read, haste.
    Fire(u64, String),
    /// Everything arrives until nothing moves.
    Run,
    /// The oldest message from one node to another arrives.
    Deliver(u64, u64),
    /// Everything between two nodes arrives, until they have nothing more to say to each other.
    Exchange(u64, u64),
    /// What waits on the network is lost; only from one node to another if named.
    Lose(#[arg(optional)] Vec<u64>),
    /// A command comes to a node.
    Propose(u64),
    /// A read comes to a node, under a number.
    Read(u64, u64),
    /// Leadership is to go from a node, to another if named.
    Transfer(u64, #[arg(optional)] Option<u64>),
    /// A node is told that the process of the leader that it follows, or of the one named, is gone.
    Hint(u64, #[arg(optional)] Option<u64>),
    /// A node is told that it can reach another (again).
    Reach(u64, u64),
    /// The link from one node to another loses everything.
    Cut(u64, u64),
    /// All links from and to a node lose everything.
    Isolate(u64),
    /// All links work.
    Heal,
    /// A node's disk takes its time: its writes stay on the way.
    Hold(u64),
    /// The disk is done with everything, and is quick again.
    Release(u64),
    Crash(u64),
    Start(u64),
    /// A server with an empty log that knows nobody, to be added.
    Join(u64),
    /// A change is asked of a node: "add 4", "add 4 to vote" (once it has caught up), "promote 4", "remove 1", or several with commas;
    /// `forced` or not.
    Change(u64, String, #[arg(optional)] Option<String>),
    /// Nodes lead this gladly: low, normal, high.
    Priorities(#[arg(optional)] Vec<String>),
    /// Lease reads are on.
    Leases,
    /// Time passes, in thousandths of the election timeout.
    Pass(u64),
    /// Whether a node would serve a read by its lease, and where.
    Lease(u64),
    /// A node's disk hangs, and its driver says so.
    Stall(u64),
    /// Which configuration is in force at each node.
    Members,
    /// The log is compacted up to an index.
    Compact(u64, u64),
    /// Where everybody stands.
    Status,
}

#[derive(Default)]
struct Script {
    cluster: Cluster,
}

impl Script {
    fn do_it(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let cluster = &mut self.cluster;
        match command {
            Command::Cluster {
                size,
                learners,
                old,
                new,
                append,
            } => {
                let config = shape(*size, *learners, old, new)?;
                let mut limits = Limits::default();
                if *append > 0 {
                    limits.max_append_bytes = *append;
                }
                *cluster = Cluster::of(config, limits);
            }
            Command::Logs(logs) => {
                let logs = logs
                    .iter()
                    .map(|log| numbers(log))
                    .collect::<Result<Vec<_>, _>>()?;
                let logs: Vec<&[u64]> = logs.iter().map(Vec::as_slice).collect();
                *cluster = Cluster::with_logs(&logs, 0);
            }
            Command::Elect(id) => {
                cluster.elect(n(*id));
                // How that went is shown by scripts of its own.
                cluster.trace = Some(vec![format!(
                    "n{id} leads in term {}",
                    cluster.raft(n(*id)).term()
                )]);
            }
            Command::Fire(id, timer) => {
                let timer = match timer.as_str() {
                    "election" => Timer::Election,
                    "fresh" => Timer::Fresh,
                    "heartbeat" => Timer::Heartbeat,
                    "quorum" => Timer::Quorum,
                    "transfer" => Timer::Transfer,
                    "read" => Timer::Read,
                    "haste" => Timer::Haste,
                    other => return Err(format!("no timer is called {other}").into()),
                };
                cluster.settle(n(*id));
                if !cluster.nodes[&n(*id)].timers.contains(&timer) {
                    return Err(format!("n{id} has not set that timer").into());
                }
                cluster.fire(n(*id), timer);
                cluster.settle(n(*id));
            }
            Command::Run => cluster.run(),
            Command::Deliver(from, to) => {
                let at = cluster
                    .network
                    .iter()
                    .position(|p| p.from == n(*from) && p.to == n(*to));
                let at = at.ok_or("there is no such message")?;
                let parcel = cluster.network.remove(at).expect("just found");
                cluster.deliver(parcel);
                cluster.settle(n(*to));
            }
            Command::Exchange(a, b) => {
                let pair = [n(*a), n(*b)];
                let between = |p: &common::Parcel| pair.contains(&p.from) && pair.contains(&p.to);
                while let Some(at) = cluster.network.iter().position(between) {
                    let parcel = cluster.network.remove(at).expect("just found");
                    let to = parcel.to;
                    cluster.deliver(parcel);
                    cluster.settle(to);
                }
            }
            Command::Lose(between) => {
                cluster.lose_where(|p| between.is_empty() || between[..] == [p.from.0, p.to.0]);
            }
            Command::Propose(id) => {
                cluster.propose(n(*id));
                cluster.settle(n(*id));
            }
            Command::Read(id, token) => {
                cluster.read(n(*id), *token);
                cluster.settle(n(*id));
            }
            Command::Transfer(id, to) => {
                cluster.step(n(*id), Input::Transfer(to.map(n)));
                cluster.settle(n(*id));
            }
            Command::Hint(id, leader) => {
                let raft = cluster.raft(n(*id));
                let leader = leader.map(n).or(raft.leader()).ok_or("it follows nobody")?;
                let term = raft.term();
                cluster.step(n(*id), Input::LeaderDead { leader, term });
                cluster.settle(n(*id));
            }
            Command::Reach(id, other) => {
                cluster.step(n(*id), Input::Reachable(n(*other)));
                cluster.settle(n(*id));
            }
            Command::Cut(from, to) => drop(cluster.cut.insert((n(*from), n(*to)))),
            Command::Isolate(id) => cluster.isolate(n(*id)),
            Command::Heal => cluster.heal(),
            Command::Hold(id) => cluster.node(n(*id)).slow_disk = true,
            Command::Release(id) => {
                cluster.node(n(*id)).slow_disk = false;
                cluster.settle(n(*id));
            }
            Command::Crash(id) => cluster.crash(n(*id), 0),
            Command::Start(id) => {
                cluster.start(n(*id));
                cluster.settle(n(*id));
            }
            Command::Compact(id, index) => cluster.compact(n(*id), Index(*index)),
            Command::Status => {
                for id in cluster.ids() {
                    let line = status(cluster, id);
                    cluster.show(line);
                }
            }
            _ => self.do_membership(command)?,
        }
        Ok(())
    }

    fn do_membership(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let cluster = &mut self.cluster;
        match command {
            Command::Join(id) => cluster.join(n(*id)),
            Command::Change(at, what, forced) => {
                cluster.change(n(*at), &changes(what)?, forced.as_deref() == Some("forced"));
                cluster.settle(n(*at));
            }
            Command::Priorities(list) => {
                for (id, word) in (1..).map(n).zip(list) {
                    cluster.node(id).priority = match word.as_str() {
                        "low" => Priority::Low,
                        "normal" => Priority::Normal,
                        "high" => Priority::High,
                        other => return Err(format!("no priority is called {other}").into()),
                    };
                    cluster.restart(id);
                }
            }
            Command::Leases => {
                for id in cluster.ids() {
                    cluster.node(id).leases = true;
                    cluster.restart(id);
                }
            }
            Command::Pass(time) => cluster.pass(*time),
            Command::Lease(id) => {
                let line = match cluster.lease_read(n(*id)) {
                    Some(index) => format!("n{id} may read at {index}"),
                    None => format!("n{id} has no lease"),
                };
                cluster.show(line);
            }
            Command::Stall(id) => {
                cluster.step(n(*id), Input::DiskStalled);
                cluster.settle(n(*id));
            }
            Command::Members => {
                for id in cluster
                    .ids()
                    .into_iter()
                    .filter(|id| cluster.is_up(*id))
                    .collect::<Vec<_>>()
                {
                    let raft = cluster.raft(id);
                    let state = match (raft.is_removed(), raft.config_is_settled()) {
                        (true, _) => ", and is removed",
                        (false, true) => "",
                        (false, false) => ", not settled",
                    };
                    let line = format!("n{id} knows {}{state}", config(raft.config()));
                    cluster.show(line);
                }
            }
            _ => return Err("no such command".into()),
        }
        Ok(())
    }
}

fn changes(what: &str) -> Result<Vec<Change>, Box<dyn Error>> {
    let change = |words: Vec<&str>| -> Result<Change, Box<dyn Error>> {
        let id = n(words.get(1).ok_or("which node?")?.parse()?);
        let promote = match words.get(2..) {
            None | Some([]) => Promote::Never,
            Some(["to", "vote"]) => Promote::WhenCaughtUp,
            Some(other) => return Err(format!("{other:?}?").into()),
        };
        match words[0] {
            "add" => Ok(Change::AddLearner {
                id,
                promote,
                about: Box::default(),
            }),
            "promote" => Ok(Change::Promote(id)),
            "remove" => Ok(Change::Remove(id)),
            other => Err(format!("no change is called {other}").into()),
        }
    };
    what.split(", ")
        .map(|words| change(words.split_whitespace().collect()))
        .collect()
}

fn numbers(list: &str) -> Result<Vec<u64>, std::num::ParseIntError> {
    list.split_whitespace().map(str::parse).collect()
}

fn shape(size: u64, learners: u64, old: &str, new: &str) -> Result<Config, Box<dyn Error>> {
    let ids = |list: &str| -> Result<_, std::num::ParseIntError> {
        Ok(numbers(list)?.into_iter().map(n).collect())
    };
    let mut config = Config::of((1..=size - learners).map(n));
    config.learners = (size - learners + 1..=size)
        .map(|id| (n(id), Promote::Never))
        .collect();
    if !old.is_empty() {
        config.outgoing = ids(old)?;
        config.voters = ids(new)?;
    }
    Ok(config)
}

fn status(cluster: &Cluster, id: quorate_base::NodeId) -> String {
    let Some(raft) = &cluster.nodes[&id].raft else {
        return format!("n{id} is down");
    };
    let role = match raft.role() {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    };
    let applied = raft.applied();
    format!(
        "n{id} {role}, term {}, log {}, commit {}, applied {applied}",
        raft.term(),
        log_line(raft),
        raft.commit()
    )
}

/// A command, and the words it was given in.
struct Line {
    words: String,
    command: Command,
}

impl TryFrom<&goldenscript::Command> for Line {
    type Error = Box<dyn Error>;

    fn try_from(command: &goldenscript::Command) -> Result<Line, Box<dyn Error>> {
        let words = command.to_string();
        let command = Command::try_from(command)?;
        Ok(Line { words, command })
    }
}

impl goldenscript::Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        self.cluster.trace = Some(Vec::new());
        self.do_it(&line.command)?;
        // A new cluster has its first words to say unheard.
        let lines = self.cluster.trace.take().unwrap_or_default();
        let shown = lines.iter().map(|line| format!("  {line}\n"));
        Ok(std::iter::once(format!("> {}\n", line.words))
            .chain(shown)
            .collect())
    }
}

#[test]
fn every_script_goes_as_written() {
    let mut paths: Vec<_> = std::fs::read_dir("tests/scripts")
        .expect("the scripts are there")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "only {} scripts", paths.len());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Script::default(), &path).expect("a readable script");
    }
}
