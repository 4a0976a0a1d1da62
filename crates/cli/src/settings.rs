//! What `quorate serve` was told, after checking: addresses, members, ids, limits. Nothing is opened or bound here.
//!
//! The checks and defaults are etcd's, except where etcd would make the operator write down the same URL twice: an
//! advertised URL that is not given is taken from `--initial-cluster` or from the listening URL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quorate::Priority;
use quorate_base::NodeId;
use quorate_server::ids;

use crate::flags::Values;
use crate::urls::{Url, UrlError};

/// One member as `--initial-cluster` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its `--name`.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<Url>,
}

/// Everything `quorate serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member's name.
    pub name: String,
    /// This member's id, if it founds the cluster.
    pub id: NodeId,
    /// The cluster's id, if this member founds it.
    pub cluster_id: u64,
    /// All members that the flags name, this one included.
    pub members: BTreeMap<NodeId, Member>,
    /// `--initial-cluster-state=existing`: without a data directory the member joins a running cluster.
    pub joins: bool,
    /// `--initial-cluster-token`
    pub token: String,
    /// Where log and store live.
    pub data_dir: PathBuf,
    /// Addresses to bind for peers.
    pub listen_peers: Vec<SocketAddr>,
    /// Addresses to bind for clients.
    pub listen_clients: Vec<SocketAddr>,
    /// Client URLs for the member list.
    pub advertise_clients: Vec<Url>,
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest silence after which a follower campaigns.
    pub election: Duration,
    /// How gladly it leads.
    pub priority: Priority,
    /// Whether reads rely on clocks.
    pub lease_reads: bool,
    /// Whether changes that cost the quorum are refused.
    pub strict_reconfig_check: bool,
    /// How many learners may be added.
    pub max_learners: usize,
    /// Largest request, in bytes.
    pub max_request_bytes: usize,
    /// Between two notifications of progress to an idle watcher.
    pub progress_interval: Duration,
}

/// Why the flags make no server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A URL of a flag is wrong.
    #[error("{flag}: {error}")]
    Url {
        /// The flag or variable.
        flag: String,
        /// What is wrong.
        error: UrlError,
    },
    /// Anything else about one flag, in whole words.
    #[error("{0}")]
    Wrong(String),
}

/// Members' peer URLs under their names.
type ByName = BTreeMap<String, Vec<Url>>;

type Result<T> = std::result::Result<T, SettingsError>;

fn wrong<T>(text: impl Into<String>) -> Result<T> {
    Err(SettingsError::Wrong(text.into()))
}

impl Settings {
    /// Makes sense of the flags of a member that has a data directory (`restarts`) or is to get one. The directory decides who the member is,
    /// so then the members that the flags name, written down for an earlier membership, need not fit.
    pub fn new(values: &Values, restarts: bool) -> Result<Settings> {
        let name = values.get("name").to_owned();
        let listen_peer_urls = urls(values, "listen-peer-urls")?;
        let listen_client_urls = urls(values, "listen-client-urls")?;
        let advertise_clients = advertised(values, "advertise-client-urls", &listen_client_urls)?;
        let cluster = match values.get("initial-cluster") {
            given if values.is_set("initial-cluster") => Some(parse_cluster(given).map_err(|error| {
                SettingsError::Wrong(format!("{}: {error}", values.called("initial-cluster")))
            })?),
            _ => None,
        };
        let cluster = cluster.filter(|cluster| !restarts || cluster.contains_key(&name));
        let (own, cluster) = own_peer_urls(values, &name, cluster, &listen_peer_urls, restarts)?;
        let token = values.get("initial-cluster-token");
        let members = with_ids(cluster, token)?;
        let id = ids::member_id(&texts(&own), token);
        let joins = match values.get("initial-cluster-state") {
            "new" => false,
            "existing" => true,
            other => {
                return wrong(format!(
                    "--initial-cluster-state: {other:?} is neither 'new' nor 'existing'"
                ));
            }
        };
        let (heartbeat, election) = timing(values)?;
        let settings = Settings {
            id,
            cluster_id: ids::cluster_id(members.keys().copied()),
            members,
            joins,
            token: token.to_owned(),
            priority: priority(values)?,
            lease_reads: values.is_true("lease-reads"),
            strict_reconfig_check: values.is_true("strict-reconfig-check"),
            max_learners: max_learners(values)?,
            data_dir: data_dir(values)?,
            listen_peers: addresses(values, "listen-peer-urls", &listen_peer_urls)?,
            listen_clients: addresses(values, "listen-client-urls", &listen_client_urls)?,
            advertise_clients,
            heartbeat,
            election,
            max_request_bytes: max_request_bytes(values)?,
            progress_interval: progress_interval(values),
            name,
        };
        assert!(
            settings.members.contains_key(&settings.id),
            "this member is one of the members"
        );
        Ok(settings)
    }
}

/// The member's own peer URLs and the whole cluster, each completed by the other.
fn own_peer_urls(
    values: &Values,
    name: &str,
    cluster: Option<ByName>,
    listen: &[Url],
    restarts: bool,
) -> Result<(Vec<Url>, ByName)> {
    let flag = "initial-advertise-peer-urls";
    let Some(cluster) = cluster else {
        let own = match restarts {
            // What the others connect to is in the log; a wildcard address does not matter any more.
            true if !values.is_set(flag) => listen.to_vec(),
            _ => advertised(values, flag, listen)?,
        };
        return Ok((own.clone(), BTreeMap::from([(name.to_owned(), own)])));
    };
    let Some(listed) = cluster.get(name) else {
        let names: Vec<&str> = cluster.keys().map(String::as_str).collect();
        return wrong(format!(
            "--initial-cluster names {}, but not this member, whose --name is {name:?}",
            names.join(", ")
        ));
    };
    if values.is_set(flag) && !restarts {
        let mut given = urls(values, flag)?;
        let mut sorted = listed.clone();
        given.sort();
        sorted.sort();
        if given != sorted {
            return wrong(format!(
                "--initial-cluster has {name}={}, but --{flag} is {}: they must be the same",
                texts(&sorted).join(","),
                texts(&given).join(",")
            ));
        }
    }
    Ok((listed.clone(), cluster))
}

/// `n1=http://…,n2=http://…`; a name that comes twice has both URLs.
pub fn parse_cluster(text: &str) -> std::result::Result<ByName, String> {
    let mut cluster: ByName = BTreeMap::new();
    for part in text.split(',') {
        let (name, url) = part
            .trim()
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("{part:?} does not have the form name=http://host:port"))?;
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        if let Some((other, _)) = cluster.iter().find(|(_, urls)| urls.contains(&url)) {
            return Err(format!("{url} stands for {other} and again for {name}"));
        }
        cluster.entry(name.to_owned()).or_default().push(url);
    }
    Ok(cluster)
}

fn with_ids(cluster: ByName, token: &str) -> Result<BTreeMap<NodeId, Member>> {
    let count = cluster.len();
    let members: BTreeMap<NodeId, Member> = cluster
        .into_iter()
        .map(|(name, peer_urls)| {
            (
                ids::member_id(&texts(&peer_urls), token),
                Member { name, peer_urls },
            )
        })
        .collect();
    if members.len() < count {
        return wrong("--initial-cluster: two members have the same id; change --initial-cluster-token");
    }
    Ok(members)
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

fn urls(values: &Values, flag: &str) -> Result<Vec<Url>> {
    Url::parse_list(values.get(flag)).map_err(|error| SettingsError::Url {
        flag: values.called(flag),
        error,
    })
}

/// The URLs of `flag`, or those listened on. Those may be "all interfaces", which is no address to tell anybody.
fn advertised(values: &Values, flag: &str, listen: &[Url]) -> Result<Vec<Url>> {
    if values.is_set(flag) {
        return urls(values, flag);
    }
    match listen.iter().find(|url| url.is_unspecified()) {
        Some(url) => wrong(format!(
            "--{flag} is needed: {url} means all interfaces and is no address to connect to"
        )),
        None => Ok(listen.to_vec()),
    }
}

fn addresses(values: &Values, flag: &str, urls: &[Url]) -> Result<Vec<SocketAddr>> {
    urls.iter()
        .map(|url| {
            url.listen_address().map_err(|error| SettingsError::Url {
                flag: values.called(flag),
                error,
            })
        })
        .collect()
}

fn data_dir(values: &Values) -> Result<PathBuf> {
    match values.get("data-dir") {
        "" => wrong("--data-dir must not be empty"),
        dir => Ok(PathBuf::from(dir)),
    }
}

/// etcd's rules for the two intervals.
fn timing(values: &Values) -> Result<(Duration, Duration)> {
    let (heartbeat, election) = (
        values.number("heartbeat-interval"),
        values.number("election-timeout"),
    );
    if heartbeat == 0 || election == 0 {
        return wrong("--heartbeat-interval and --election-timeout must be at least 1 (millisecond)");
    }
    if election < heartbeat.saturating_mul(5) {
        return wrong(format!(
            "--election-timeout={election} must be at least 5 times --heartbeat-interval={heartbeat}"
        ));
    }
    if election > 50_000 {
        return wrong(format!(
            "--election-timeout={election} must be at most 50000 (milliseconds)"
        ));
    }
    Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)))
}

fn max_learners(values: &Values) -> Result<usize> {
    let given = values.get("max-learners");
    match given.parse::<usize>() {
        Ok(most) => Ok(most),
        Err(_) => wrong(format!("--max-learners={given} must not be negative")),
    }
}

fn priority(values: &Values) -> Result<Priority> {
    match values.get("election-priority") {
        "low" => Ok(Priority::Low),
        "normal" => Ok(Priority::Normal),
        "high" => Ok(Priority::High),
        other => wrong(format!(
            "--election-priority: {other:?} is none of low, normal and high"
        )),
    }
}

/// Under either name; the newer one counts if both are set.
fn progress_interval(values: &Values) -> Duration {
    let names = [
        "watch-progress-notify-interval",
        "experimental-watch-progress-notify-interval",
    ];
    let set = names
        .into_iter()
        .map(|name| values.duration(name))
        .find(|interval| !interval.is_zero());
    set.unwrap_or(Duration::from_secs(600))
}

fn max_request_bytes(values: &Values) -> Result<usize> {
    // One request becomes one log entry, and one frame between peers.
    const MOST: u64 = 64 << 20;
    match values.number("max-request-bytes") {
        0 => wrong("--max-request-bytes must be at least 1"),
        n if n > MOST => wrong(format!("--max-request-bytes={n} must be at most {MOST}")),
        n => Ok(n as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings> {
        Settings::new(&values(args), false)
    }

    fn values(args: &[&str]) -> Values {
        Values::parse(args.iter().map(|s| (*s).to_owned()), []).expect("flags parse")
    }

    fn refusal(args: &[&str]) -> String {
        settings(args).expect_err("refused").to_string()
    }

    #[test]
    fn no_flags_make_a_single_node() {
        let s = settings(&[]).unwrap();
        assert_eq!(
            (s.name.as_str(), s.data_dir.to_str().unwrap()),
            ("default", "quorate.data")
        );
        assert_eq!(s.listen_clients, ["127.0.0.1:2379".parse().unwrap()]);
        assert_eq!(s.listen_peers, ["127.0.0.1:2380".parse().unwrap()]);
        assert_eq!(s.members.len(), 1);
        assert_eq!(
            format!("{:x} {:x}", s.id.get(), s.cluster_id),
            "8e9e05c52164694d cdf818194e3a8c32"
        );
        assert_eq!(
            (s.heartbeat, s.election),
            (Duration::from_millis(100), Duration::from_secs(1))
        );
    }

    #[test]
    fn three_members_agree_on_all_ids() {
        let cluster = "--initial-cluster=n1=http://127.0.0.1:1,n2=http://127.0.0.1:2,n3=http://127.0.0.1:3";
        let all: Vec<Settings> = [("n1", "1"), ("n2", "2"), ("n3", "3")]
            .iter()
            .map(|(name, port)| {
                settings(&[
                    "--name",
                    name,
                    cluster,
                    &format!("--listen-peer-urls=http://0.0.0.0:{port}"),
                ])
                .unwrap()
            })
            .collect();
        assert!(
            all.iter()
                .all(|s| s.members == all[0].members && s.cluster_id == all[0].cluster_id)
        );
        assert_eq!(
            all.iter()
                .map(|s| s.id)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            3
        );
        assert_eq!(all[1].members[&all[1].id].name, "n2");
    }

    #[test]
    fn flags_that_are_out_of_date_do_not_keep_a_member_from_its_data() {
        let stale = [
            "--name=n4",
            "--initial-cluster=n1=http://127.0.0.1:1,n2=http://127.0.0.1:2",
            "--listen-peer-urls=http://0.0.0.0:4",
        ];
        assert!(refusal(&stale).contains("but not this member"));
        assert_eq!(Settings::new(&values(&stale), true).unwrap().name, "n4");
        let moved = [
            "--name=n1",
            "--initial-cluster=n1=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://127.0.0.1:9",
        ];
        assert!(refusal(&moved).contains("must be the same"));
        assert!(Settings::new(&values(&moved), true).is_ok());
        let senseless = values(&["--initial-cluster=what"]);
        assert!(Settings::new(&senseless, true).is_err(), "but they must be flags");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(
            refusal(&["--name=n9", "--initial-cluster=n1=http://127.0.0.1:1"]),
            "--initial-cluster names n1, but not this member, whose --name is \"n9\""
        );
        assert!(
            refusal(&[
                "--initial-cluster=default=http://a:1",
                "--initial-advertise-peer-urls=http://b:1"
            ])
            .contains("must be the same")
        );
        assert!(
            refusal(&["--initial-cluster=a=http://a:1,b=http://a:1"])
                .contains("stands for a and again for b")
        );
        assert!(refusal(&["--initial-cluster=http://a:1"]).contains("name=http://host:port"));
        assert!(
            refusal(&["--listen-client-urls=http://0.0.0.0:2379"])
                .starts_with("--advertise-client-urls is needed")
        );
        assert!(refusal(&["--listen-client-urls=https://127.0.0.1:2379"]).contains("TLS is not supported"));
        assert!(refusal(&["--listen-peer-urls=http://example.org:1"]).contains("IP address"));
        assert!(settings(&["--initial-cluster-state=existing"]).unwrap().joins);
        assert!(refusal(&["--initial-cluster-state=old"]).contains("neither 'new' nor 'existing'"));
        assert!(refusal(&["--election-priority=highest"]).contains("none of low, normal and high"));
        assert!(refusal(&["--max-learners=-1"]).contains("must not be negative"));
        assert!(refusal(&["--election-timeout=499"]).contains("at least 5 times"));
        assert!(refusal(&["--election-timeout=50001"]).contains("at most 50000"));
        assert!(refusal(&["--heartbeat-interval=0"]).contains("at least 1"));
        assert!(refusal(&["--max-request-bytes=0"]).contains("at least 1"));
        assert!(refusal(&["--data-dir="]).contains("must not be empty"));
    }
}
