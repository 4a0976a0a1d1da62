//! What a node must be told to start. Few options: what only one value makes safe is not here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_base::NodeId;
use quorate_node::handshake::FEATURE_LEVEL;
use quorate_raft::Priority;

use crate::membership::Member;
use crate::transport::Transport;

/// How to start a node. Made by [`Config::new`], then adjusted field by field.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// The cluster. Members of different clusters never talk to each other.
    pub cluster: u64,
    /// A name for people: in logs and in the `identity` file.
    pub name: String,
    /// All members, this one included, and how they are reached: the same on all of them. Only what a fresh data directory is founded with; from then
    /// on the membership is in the log, and this may go out of date.
    pub members: BTreeMap<NodeId, Member>,
    /// Where everything is kept. Made if absent; never shared with anything else.
    pub data_dir: PathBuf,
    /// Where to listen for peers. May be empty for a cluster of one.
    pub listen_peers: Vec<SocketAddr>,
    /// What makes and takes the connections between members, in place of TCP. It listens by itself: no addresses may be named above then.
    pub transport: Option<Arc<dyn Transport>>,
    /// How often a leader is heard of.
    pub heartbeat: Duration,
    /// How long without a leader until a follower campaigns; drawn anew from this to twice this. At least five heartbeats.
    pub election: Duration,
    /// The longest command in bytes.
    pub max_proposal: usize,
    /// How long a proposal, a linearizable read, a membership change or an [`ask`](crate::Handle::ask) may take.
    pub timeout: Duration,
    /// How gladly this member leads: where the voters differ in this, leadership moves to one with the highest priority that has caught up.
    /// Never costs a vote, so a cluster whose glad leaders are down elects another.
    pub priority: Priority,
    /// Whether a leader serves linearizable reads on the strength of its clock, without asking anybody (thesis §6.4.1). The same on all
    /// members, with the same election timeout: those that differ refuse each other.
    ///
    /// **Sound only while the rates of the members' monotonic clocks differ by less than an eighth.** With a clock that runs slower than that a
    /// deposed leader may answer stale reads. Off, reads cost a round trip to a majority and assume nothing.
    pub leases: bool,
    /// What this node claims to understand. Lower than what it does understand only to hold an upgrade back: a node with 1 behaves to its
    /// peers like the releases before membership changes. The cluster uses what all its members understand, and never less again.
    pub features: u32,
    /// Whether a fresh data directory joins a running cluster, as a member that was [added](crate::MemberChange::AddLearner) before, instead of
    /// founding one. What [`join`](crate::join) has found out goes into [`id`](Config::id), [`cluster`](Config::cluster) and
    /// [`members`](Config::members).
    pub join: bool,
    /// A text that tells this cluster from others, recorded when the directory is founded. With one, later starts compare it and the
    /// [`name`](Config::name), and take who they are from the directory; without, they compare [`id`](Config::id) and
    /// [`cluster`](Config::cluster).
    pub token: Option<String>,
}

/// The longest command that can be configured to be allowed.
pub(crate) const MAX_PROPOSAL: usize = 1 << 30;

impl Config {
    /// A node with the usual timings: heartbeat 100 ms, election 1 s, commands up to 1.5 MiB, requests up to 7 s.
    pub fn new(
        id: NodeId,
        cluster: u64,
        name: impl Into<String>,
        members: BTreeMap<NodeId, impl Into<Member>>,
        data_dir: impl Into<PathBuf>,
    ) -> Config {
        Config {
            id,
            cluster,
            name: name.into(),
            members: members
                .into_iter()
                .map(|(id, member)| (id, member.into()))
                .collect(),
            data_dir: data_dir.into(),
            listen_peers: Vec::new(),
            transport: None,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            max_proposal: 3 << 19,
            timeout: Duration::from_secs(7),
            priority: Priority::Normal,
            leases: false,
            features: FEATURE_LEVEL,
            join: false,
            token: None,
        }
    }

    /// How long a node that ends waits for its disk: first for the state machine to be flushed, then for its threads to let go of the
    /// directory.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.saturating_mul(4)
    }

    /// What is wrong with these values, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.id == NodeId::ZERO {
            return Some("the member id must not be 0".into());
        }
        if self.members.contains_key(&NodeId::ZERO) {
            return Some("a member has the id 0".into());
        }
        if self.heartbeat < Duration::from_millis(1) {
            return Some("the heartbeat interval must be at least 1 ms".into());
        }
        if self.election < self.heartbeat * 5 {
            return Some(format!(
                "the election timeout ({:?}) must be at least five heartbeat intervals ({:?})",
                self.election, self.heartbeat
            ));
        }
        if self.max_proposal == 0 || self.max_proposal > MAX_PROPOSAL {
            return Some("the longest command must be between 1 byte and 1 GiB".into());
        }
        if self.timeout.is_zero() {
            return Some("the request timeout must not be zero".into());
        }
        if !(1..=FEATURE_LEVEL).contains(&self.features) {
            return Some(format!(
                "the features must be between 1 and {FEATURE_LEVEL}, which is what this release understands"
            ));
        }
        None
    }

    /// What keeps a fresh data directory from being founded with these values, if anything does.
    pub(crate) fn founding_problem(&self) -> Option<String> {
        let me = self.id.0;
        if self.join && self.members.keys().all(|id| *id == self.id) {
            return Some("to join a cluster, a node must be told of another member".into());
        }
        if !self.join && !self.members.contains_key(&self.id) {
            return Some(format!("the members do not include this one ({me:016x})"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Config {
        let members = BTreeMap::from([(NodeId(1), "127.0.0.1:1".to_owned())]);
        Config::new(NodeId(1), 7, "one", members, "unused")
    }

    #[test]
    fn the_defaults_are_sound_and_nonsense_is_named() {
        assert_eq!((sound().problem(), sound().founding_problem()), (None, None));
        let wrong = Config {
            id: NodeId(2),
            ..sound()
        };
        assert!(
            wrong
                .founding_problem()
                .unwrap()
                .contains("do not include this one")
        );
        let alone = Config {
            join: true,
            ..sound()
        };
        assert!(alone.founding_problem().unwrap().contains("another member"));
        let wrong = Config {
            features: FEATURE_LEVEL + 1,
            ..sound()
        };
        assert!(wrong.problem().unwrap().contains("features"));
        let wrong = Config {
            election: Duration::from_millis(499),
            ..sound()
        };
        assert!(wrong.problem().unwrap().contains("five heartbeat"));
        let wrong = Config {
            max_proposal: 0,
            ..sound()
        };
        assert!(wrong.problem().unwrap().contains("longest command"));
    }
}
