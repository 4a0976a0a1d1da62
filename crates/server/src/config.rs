//! What a server must be told to start. Plain values, already checked for syntax by whoever read the flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quorate_base::NodeId;

/// The version that clients are told. Some parse every dotted part as a number, so it is a plain 3.6 release of the API spoken.
pub const API_VERSION: &str = "3.6.6";

/// The cluster and storage version that clients are told.
pub const CLUSTER_VERSION: &str = "3.6.0";

/// What a gRPC message may be longer than a request: its framing and headers.
pub(crate) const MESSAGE_OVERHEAD: usize = 512 << 10;

/// A member as the cluster was founded with it, or as it was found when this member joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where its peers reach it, as URLs, in order of preference.
    pub peer_urls: Vec<String>,
}

/// How to start a server. Made by [`ServerConfig::new`], then adjusted field by field.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This member.
    pub id: NodeId,
    /// The cluster.
    pub cluster: u64,
    /// This member's name.
    pub name: String,
    /// All members that the cluster is founded with, this one included; or those that [`quorate::join`] has found. Of no
    /// account once there is a data directory: it says who this member is, and the log who the others are.
    pub members: BTreeMap<NodeId, Member>,
    /// Whether a fresh data directory joins a running cluster, as a member that was added before, instead of founding one.
    pub join: bool,
    /// Tells clusters with the same members apart. With one, a data directory is this member's if name and token are those it was
    /// founded with; without, if the ids are.
    pub token: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where to listen for peers. May be empty for a cluster of one.
    pub listen_peers: Vec<SocketAddr>,
    /// Where to listen for clients: gRPC and HTTP on the same port.
    pub listen_clients: Vec<SocketAddr>,
    /// The client URLs to show in the member list. Empty: those of the listening addresses.
    pub advertise_clients: Vec<String>,
    /// How often a leader is heard of.
    pub heartbeat: Duration,
    /// How long without a leader until a follower campaigns.
    pub election: Duration,
    /// How gladly this member leads.
    pub priority: quorate::Priority,
    /// Whether linearizable reads rely on the members' clocks running about equally fast, see [`quorate::Config::leases`].
    pub lease_reads: bool,
    /// Whether membership changes that would cost the cluster its quorum are refused.
    pub strict_reconfig_check: bool,
    /// How many learners may be added that stay learners.
    pub max_learners: usize,
    /// The longest request in bytes.
    pub max_request_bytes: usize,
    /// How often a watcher that asked for it is told the revision while nothing happens.
    pub progress_interval: Duration,
}

impl ServerConfig {
    /// A server with etcd's defaults: heartbeat 100 ms, election 1 s, requests up to 1.5 MiB, progress every 10 minutes.
    pub fn new(
        id: NodeId,
        cluster: u64,
        members: BTreeMap<NodeId, Member>,
        data_dir: impl Into<PathBuf>,
    ) -> ServerConfig {
        ServerConfig {
            id,
            cluster,
            name: members
                .get(&id)
                .map_or_else(String::new, |member| member.name.clone()),
            members,
            join: false,
            token: None,
            data_dir: data_dir.into(),
            listen_peers: Vec::new(),
            listen_clients: Vec::new(),
            advertise_clients: Vec::new(),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            priority: quorate::Priority::Normal,
            lease_reads: false,
            strict_reconfig_check: true,
            max_learners: 1,
            max_request_bytes: 1_572_864,
            progress_interval: Duration::from_secs(600),
        }
    }

    /// How long a request may take: etcd's rule.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + self.election * 2
    }

    /// The shortest lease in seconds: one and a half election timeouts, rounded up, so that no lease ends by an election alone.
    pub(crate) fn min_lease_ttl(&self) -> i64 {
        let millis = self.election.as_millis().saturating_mul(3).div_ceil(2);
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX).max(1)
    }

    /// The node's part of this.
    pub(crate) fn node(&self) -> quorate::Config {
        let members = self.members.iter().map(|(id, member)| {
            let addresses = member.peer_urls.iter().map(|url| peer_address(url)).collect();
            let member = quorate::Member {
                name: member.name.clone(),
                addresses,
                ..quorate::Member::default()
            };
            (*id, member)
        });
        let members: BTreeMap<NodeId, quorate::Member> = members.collect();
        let mut node = quorate::Config::new(self.id, self.cluster, &self.name, members, &self.data_dir);
        node.join = self.join;
        node.token = self.token.clone();
        node.priority = self.priority;
        node.leases = self.lease_reads;
        node.listen_peers = self.listen_peers.clone();
        node.heartbeat = self.heartbeat;
        node.election = self.election;
        node.max_proposal = self.max_request_bytes;
        node.timeout = self.request_timeout();
        node
    }
}

/// `host:port` of a peer URL.
fn peer_address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_addresses_are_cut_from_urls() {
        for (url, address) in [
            ("http://127.0.0.1:2380", "127.0.0.1:2380"),
            ("http://[::1]:2380/", "[::1]:2380"),
            ("n1.example:2380", "n1.example:2380"),
        ] {
            assert_eq!(peer_address(url), address);
        }
    }

    #[test]
    fn lease_and_request_times_follow_the_election_timeout() {
        let mut config = ServerConfig::new(NodeId(1), 1, BTreeMap::new(), "unused");
        assert_eq!(
            (config.min_lease_ttl(), config.request_timeout()),
            (2, Duration::from_secs(7))
        );
        config.election = Duration::from_millis(5000);
        assert_eq!(
            (config.min_lease_ttl(), config.request_timeout()),
            (8, Duration::from_secs(15))
        );
    }
}
