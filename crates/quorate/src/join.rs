//! Finding out what to join: a node that was added to a running cluster knows where the others listen and where it will listen itself, and
//! asks them who it is. Nothing is changed by asking, here or there; starting the node is [`start`](crate::start)'s affair.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use quorate_base::NodeId;
use quorate_node::handshake::{FEATURE_LEVEL, Welcome};
use thiserror::Error;
use tokio::task::JoinSet;

use crate::membership::{Member, Membership};
use crate::peer::inquire::inquire;
use crate::transport::{TcpTransport, Transport};

/// What a new member has to know of the cluster; [`Config`](crate::Config) takes it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: u64,
    /// Who this node is in it.
    pub id: NodeId,
    /// All members, this one included.
    pub members: BTreeMap<NodeId, Member>,
}

/// Why a node cannot join.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// No member has told anything.
    #[error("no member of the cluster answers: {}", listed(.0))]
    Unreachable(Vec<(String, String)>),
    /// The cluster has no member with this node's addresses.
    #[error(
        "cluster {cluster:016x} has no member that is reached at {}: add it first, or correct its peer addresses. The members are {members}",
        .own.join(" or ")
    )]
    NotMember {
        /// The cluster.
        cluster: u64,
        /// This node's addresses.
        own: Vec<String>,
        /// Its members with their addresses, for people.
        members: String,
    },
    /// Several members are said to be reached at this node's addresses.
    #[error("several members are said to be reached at this node's peer addresses: {}. Correct that first", ids(.0))]
    Ambiguous(Vec<NodeId>),
    /// The member votes, so it has run before.
    #[error(
        "member {:016x} votes in this cluster already, so it has run before, and its data must be what it was. If that is lost, remove the member from \
         the cluster and add it as a new one, which gets a new id", .0.0
    )]
    Votes(NodeId),
}

fn listed(tried: &[(String, String)]) -> String {
    let tried: Vec<String> = tried
        .iter()
        .map(|(address, why)| format!("{address} ({why})"))
        .collect();
    match tried.is_empty() {
        true => "no other address is known".to_owned(),
        false => tried.join(", "),
    }
}

fn ids(ids: &[NodeId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("{:016x}", id.0)).collect();
    ids.join(", ")
}

/// Asks the members of a running cluster, at any of `addresses` (`host:port` of their peer listeners), which member it is that is reached at one
/// of the addresses `own`. All are asked at once; it takes a few seconds at the most.
///
/// # Errors
/// If nobody answers, or nobody who answers knows this node as a member that may start with nothing.
pub async fn join(addresses: &[String], own: &[String]) -> Result<Joined, JoinError> {
    // One question is not worth noticing for a long time that nobody is there.
    let plain =
        TcpTransport::new(Vec::new(), Duration::from_secs(3)).expect("without listeners nothing can fail");
    join_over(Arc::new(plain), addresses, own).await
}

/// [`join`] over a transport of one's own.
///
/// # Errors
/// As [`join`].
pub async fn join_over(
    transport: Arc<dyn Transport>,
    addresses: &[String],
    own: &[String],
) -> Result<Joined, JoinError> {
    let mut asking = JoinSet::new();
    for address in addresses.iter().filter(|address| !is_among(address, own)) {
        let (transport, address, own) = (transport.clone(), address.clone(), own.to_vec());
        asking.spawn(async move {
            let answer = inquire(&*transport, &address, FEATURE_LEVEL, own).await;
            (address, answer)
        });
    }
    let (mut refusal, mut tried) = (None, Vec::new());
    while let Some(asked) = asking.join_next().await {
        match asked.expect("asking does not panic") {
            // Whoever lags behind may not know this node yet, so the first one who does decides.
            (_, Ok(welcome)) => match judge(&welcome, own) {
                Err(error @ JoinError::NotMember { .. }) => refusal = Some(error),
                judged => return judged,
            },
            (address, Err(why)) => tried.push((address, why)),
        }
    }
    tried.sort();
    Err(refusal.unwrap_or(JoinError::Unreachable(tried)))
}

/// What an answer means for the one who is reached at `own`.
fn judge(welcome: &Welcome, own: &[String]) -> Result<Joined, JoinError> {
    let membership = Membership::of(&welcome.config);
    let cluster = welcome.cluster;
    let is_me = |member: &Member| member.addresses.iter().any(|address| is_among(address, own));
    let members = membership.members.iter();
    let me: Vec<NodeId> = members
        .filter(|(_, member)| is_me(member))
        .map(|(id, _)| *id)
        .collect();
    match me[..] {
        [] => Err(JoinError::NotMember {
            cluster,
            own: own.to_vec(),
            members: describe(&membership),
        }),
        [id] if membership.is_voter(id) => Err(JoinError::Votes(id)),
        [id] => Ok(Joined {
            cluster,
            id,
            members: membership.members,
        }),
        _ => Err(JoinError::Ambiguous(me)),
    }
}

/// Host names know no upper and lower case.
fn is_among(address: &str, own: &[String]) -> bool {
    own.iter().any(|own| own.eq_ignore_ascii_case(address))
}

fn describe(membership: &Membership) -> String {
    let mut said = String::new();
    for (id, member) in &membership.members {
        let separator = if said.is_empty() { "" } else { ", " };
        let _ = write!(said, "{separator}{:016x}", id.0);
        let addresses = member.addresses.join(" ");
        let _ = match member.name.as_str() {
            "" => write!(said, " at {addresses}"),
            name => write!(said, " ({name}) at {addresses}"),
        };
    }
    said
}

#[cfg(test)]
mod tests {
    use quorate_raft::{Change, Config, Promote};

    use super::*;

    fn welcome() -> Welcome {
        let mut config = Config::of([NodeId(1), NodeId(2)]);
        config
            .about
            .insert(NodeId(1), Member::new("one", "h1:1").encode());
        config
            .about
            .insert(NodeId(2), Member::new("two", "h2:1").encode());
        let added = Change::AddLearner {
            id: NodeId(3),
            promote: Promote::WhenCaughtUp,
            about: Member::from("h3:1").encode(),
        };
        Welcome {
            cluster: 7,
            member: NodeId(1),
            config: config.after(&[added]).unwrap(),
        }
    }

    fn judged(own: &[&str]) -> Result<Joined, JoinError> {
        let own: Vec<String> = own.iter().map(|own| (*own).to_owned()).collect();
        judge(&welcome(), &own)
    }

    #[test]
    fn an_added_member_finds_itself_by_its_address() {
        let joined = judged(&["elsewhere:1", "H3:1"]).unwrap();
        assert_eq!((joined.cluster, joined.id), (7, NodeId(3)));
        assert_eq!(joined.members[&NodeId(2)], Member::new("two", "h2:1"));
    }

    #[test]
    fn whoever_is_no_new_member_hears_why() {
        let stranger = judged(&["h4:1"]).unwrap_err().to_string();
        for part in ["h4:1", "add it first", "0000000000000001 (one) at h1:1"] {
            assert!(stranger.contains(part), "{stranger}");
        }
        assert_eq!(judged(&["h2:1"]), Err(JoinError::Votes(NodeId(2))));
        let both = judged(&["h2:1", "h3:1"]);
        assert_eq!(both, Err(JoinError::Ambiguous(vec![NodeId(2), NodeId(3)])));
    }

    #[tokio::test]
    async fn every_address_that_was_tried_is_named() {
        // Nothing listens there: these ports were this test's a moment ago.
        let closed = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let (a, b, own) = (closed(), closed(), "127.0.0.1:1".to_owned());
        let error = join(&[a.clone(), b.clone(), own.clone()], &[own])
            .await
            .unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&a) && said.contains(&b), "{said}");
        assert!(!said.contains("127.0.0.1:1 "), "it does not ask itself: {said}");
    }
}
