//! What a node must be told to start. Few options: what only one value makes safe is not here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quorate_base::NodeId;

/// How to start a node. Made by [`Config::new`], then adjusted field by field.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// The cluster. Members of different clusters never talk to each other.
    pub cluster: u64,
    /// A name for people: in logs and in the `identity` file.
    pub name: String,
    /// All members, this one included, with `host:port` of each one's peer listener. Names are looked up at every
    /// connection attempt. Only what a fresh data directory is founded with: the membership itself is in the log.
    pub members: BTreeMap<NodeId, String>,
    /// Where everything is kept. Made if absent; never shared with anything else.
    pub data_dir: PathBuf,
    /// Where to listen for peers. May be empty for a cluster of one.
    pub listen_peers: Vec<SocketAddr>,
    /// How often a leader is heard of.
    pub heartbeat: Duration,
    /// How long without a leader until a follower campaigns; drawn anew from this to twice this. At least five heartbeats.
    pub election: Duration,
    /// The longest command in bytes.
    pub max_proposal: usize,
    /// How long a proposal, a linearizable read or an [`ask`](crate::Handle::ask) may take.
    pub timeout: Duration,
}

impl Config {
    /// A node with the usual timings: heartbeat 100 ms, election 1 s, commands up to 1.5 MiB, requests up to 7 s.
    pub fn new(
        id: NodeId,
        cluster: u64,
        name: impl Into<String>,
        members: BTreeMap<NodeId, String>,
        data_dir: impl Into<PathBuf>,
    ) -> Config {
        Config {
            id,
            cluster,
            name: name.into(),
            members,
            data_dir: data_dir.into(),
            listen_peers: Vec::new(),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            max_proposal: 3 << 19,
            timeout: Duration::from_secs(7),
        }
    }

    /// What is wrong with these values, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.id == NodeId::ZERO {
            return Some("the member id must not be 0".into());
        }
        if !self.members.contains_key(&self.id) {
            return Some(format!(
                "the members do not include this one ({:016x})",
                self.id.0
            ));
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
        if self.max_proposal == 0 || self.max_proposal > 1 << 30 {
            return Some("the longest command must be between 1 byte and 1 GiB".into());
        }
        if self.timeout.is_zero() {
            return Some("the request timeout must not be zero".into());
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
        assert_eq!(sound().problem(), None);
        let wrong = Config {
            id: NodeId(2),
            ..sound()
        };
        assert!(wrong.problem().unwrap().contains("do not include this one"));
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
