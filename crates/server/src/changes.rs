//! Membership changes in etcd's terms: what the Cluster service's calls mean for the replicated membership, and when they are refused, in
//! etcd's words. Whether a change is safe is judged by the leader's node; the checks here are those of etcd that are about names and URLs.
//!
//! A member that is added as a voter is replicated as a learner that is promoted by itself once it has caught up; clients see a voter from
//! the start, as with etcd, but it never costs the cluster its quorum.

use std::collections::BTreeSet;
use std::time::SystemTime;

use quorate::{ChangeError, ChangeRefusal, Member, MemberChange, Membership, Promote, Reason};
use quorate_base::NodeId;
use tonic::{Code, Status};

use crate::context::Context;
use crate::{errors, ids};

/// Adds a member with these peer URLs; answers its id and the membership with it.
pub(crate) async fn add(
    ctx: &Context,
    peer_urls: Vec<String>,
    as_learner: bool,
) -> Result<(NodeId, Membership), Status> {
    let addresses = addresses(&peer_urls)?;
    let now = current(ctx).await?;
    if ctx.config.strict_reconfig_check && !as_learner && !has_enough_started(&now) {
        return Err(not_enough_started());
    }
    if exists_elsewhere(&now, None, &addresses) {
        return Err(Status::failed_precondition(
            "etcdserver: Peer URLs already exists",
        ));
    }
    let learners = now
        .learners
        .values()
        .filter(|promote| **promote == Promote::Never);
    if as_learner && learners.count() >= ctx.config.max_learners {
        return Err(Status::failed_precondition(
            "etcdserver: too many learner members in cluster",
        ));
    }
    let id = ids::added_member_id(&peer_urls, SystemTime::now());
    let change = MemberChange::AddLearner {
        id,
        promote: match as_learner {
            true => Promote::Never,
            false => Promote::WhenCaughtUp,
        },
        member: Member {
            addresses,
            ..Member::default()
        },
    };
    Ok((id, carry_out(ctx, change).await?))
}

/// Removes a member for good.
pub(crate) async fn remove(ctx: &Context, id: NodeId) -> Result<Membership, Status> {
    carry_out(ctx, MemberChange::Remove(id)).await
}

/// Makes a learner a voter.
pub(crate) async fn promote(ctx: &Context, id: NodeId) -> Result<Membership, Status> {
    let now = current(ctx).await?;
    if now.learners.get(&id) == Some(&Promote::WhenCaughtUp) {
        // To clients it has been a voter from the start.
        return Err(only_a_learner());
    }
    carry_out(ctx, MemberChange::Promote(id)).await
}

/// Gives a member other peer URLs.
pub(crate) async fn update(ctx: &Context, id: NodeId, peer_urls: Vec<String>) -> Result<Membership, Status> {
    let addresses = addresses(&peer_urls)?;
    let now = current(ctx).await?;
    let member = now.members.get(&id).ok_or_else(not_found)?;
    if exists_elsewhere(&now, Some(id), &addresses) {
        return Err(Status::failed_precondition(
            "etcdserver: Peer URLs already exists",
        ));
    }
    if member.addresses == addresses {
        return Ok(now);
    }
    let member = Member {
        addresses,
        ..member.clone()
    };
    carry_out(ctx, MemberChange::Describe { id, member }).await
}

/// The membership with everything that was answered, anywhere in the cluster, before this call.
pub(crate) async fn current(ctx: &Context) -> Result<Membership, Status> {
    ctx.handle.read(|_| ()).await.map_err(errors::of_read)?;
    Ok(Membership::clone(&ctx.membership()))
}

async fn carry_out(ctx: &Context, change: MemberChange) -> Result<Membership, Status> {
    let force = !ctx.config.strict_reconfig_check;
    // A promotion is never forced: a learner that lacks entries must not vote, whatever the operator thinks of quorums.
    let force = force && !matches!(change, MemberChange::Promote(_));
    let changed = ctx.handle.change_membership(vec![change], force).await;
    changed.map_err(of_change)
}

/// etcd's rule for adding a voter: with it, a majority of the voters listed must have been started. The core does not need it, since a member
/// votes only when it has caught up; but it keeps an operator from adding one member after the other that nobody starts.
fn has_enough_started(now: &Membership) -> bool {
    let pending = now
        .learners
        .iter()
        .filter(|(_, promote)| **promote == Promote::WhenCaughtUp);
    let pending: Vec<bool> = pending
        .map(|(id, _)| now.members.get(id).is_some_and(|member| !member.name.is_empty()))
        .collect();
    // Who votes has caught up, so it has been started.
    let started = now.voters.len() + pending.iter().filter(|named| **named).count();
    let listed = now.voters.len() + pending.len() + 1;
    (started, listed) == (1, 2) || started > listed / 2
}

fn exists_elsewhere(now: &Membership, than: Option<NodeId>, addresses: &[String]) -> bool {
    let others = now.members.iter().filter(|(id, _)| Some(**id) != than);
    let known: BTreeSet<&String> = others.flat_map(|(_, member)| &member.addresses).collect();
    addresses.iter().any(|address| known.contains(address))
}

/// `host:port` of peer URLs.
fn addresses(peer_urls: &[String]) -> Result<Vec<String>, Status> {
    let invalid = || Status::invalid_argument("etcdserver: given member URLs are invalid");
    let mut addresses = Vec::new();
    for url in peer_urls {
        if url.starts_with("https://") {
            return Err(errors::unimplemented("TLS between members (https in a peer URL)"));
        }
        let address = address(url).ok_or_else(invalid)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(invalid()),
        false => Ok(addresses),
    }
}

/// `host:port` of `http://host:port`, which is all that a peer URL may be.
fn address(url: &str) -> Option<String> {
    let rest = url.trim().strip_prefix("http://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '@', '?', '#', ' ', '[', ']']),
    };
    (sound && port > 0).then(|| format!("{host}:{port}"))
}

fn not_enough_started() -> Status {
    // etcd has no gRPC form of this error and lets it through as Unknown.
    Status::unknown("etcdserver: re-configuration failed due to not enough started members")
}

fn not_found() -> Status {
    Status::not_found("etcdserver: member not found")
}

fn only_a_learner() -> Status {
    Status::failed_precondition("etcdserver: can only promote a learner member")
}

/// What a client is told of a change that was not made, or perhaps was.
fn of_change(error: ChangeError) -> Status {
    match error {
        ChangeError::NotDone(why) => of_refusal(why),
        ChangeError::Unknown(reason) => errors::of_unknown(reason),
    }
}

fn of_refusal(why: ChangeRefusal) -> Status {
    match why {
        ChangeRefusal::NotMember(_) => not_found(),
        ChangeRefusal::NotLearner(_) => only_a_learner(),
        ChangeRefusal::NotCaughtUp(_) => Status::failed_precondition(
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        ChangeRefusal::AlreadyMember(_) | ChangeRefusal::WasRemoved(_) => {
            Status::failed_precondition("etcdserver: member ID already exist")
        }
        ChangeRefusal::WouldLoseQuorum => Status::unavailable("etcdserver: unhealthy cluster"),
        ChangeRefusal::NoVoters => not_enough_started(),
        ChangeRefusal::Level => Status::failed_precondition("etcdserver: not capable"),
        // etcd has no words for these: it lets the change wait until it times out, and then does not know what became of it.
        ChangeRefusal::Pending => Status::unavailable("etcdserver: another membership change is under way"),
        ChangeRefusal::Transferring => errors::not_done(Reason::LeaderChanged),
        ChangeRefusal::Nothing => Status::internal("etcdserver: the change changes nothing"),
        ChangeRefusal::Request(reason) => errors::not_done(reason),
    }
}

/// What a learner answers to all but stale reads and questions about itself.
pub(crate) fn not_for_learners() -> Status {
    Status::new(
        Code::FailedPrecondition,
        "etcdserver: rpc not supported for learner",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_what_etcd_takes_and_no_more() {
        for (url, expected) in [
            ("http://127.0.0.1:2380", Some("127.0.0.1:2380")),
            ("http://[::1]:2380/", Some("[::1]:2380")),
            ("http://n1.example:2380", Some("n1.example:2380")),
            ("http://127.0.0.1", None),
            ("http://127.0.0.1:0", None),
            ("http://127.0.0.1:2380/x", None),
            ("http://a@b:1", None),
            ("http://:1", None),
            ("ftp://127.0.0.1:1", None),
            ("127.0.0.1:1", None),
            ("", None),
        ] {
            assert_eq!(address(url).as_deref(), expected, "{url}");
        }
        let said = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            addresses(&urls).expect_err("refused").code()
        };
        assert_eq!(said(&[]), Code::InvalidArgument);
        assert_eq!(said(&["https://a:1"]), Code::Unimplemented);
    }

    fn membership(voters: u64, pending: &[(u64, &str)]) -> Membership {
        let mut all = Membership::default();
        for id in 1..=voters {
            all.voters.insert(NodeId(id));
            all.members
                .insert(NodeId(id), Member::new("n", format!("h:{id}")));
        }
        for (id, name) in pending {
            all.learners.insert(NodeId(*id), Promote::WhenCaughtUp);
            all.members
                .insert(NodeId(*id), Member::new(*name, format!("h:{id}")));
        }
        all
    }

    #[test]
    fn voters_are_added_while_most_of_those_listed_were_started() {
        for (voters, pending, may) in [
            (1, &[][..], true),
            (1, &[(8, "")][..], false),
            (1, &[(8, "n8")][..], true),
            (3, &[][..], true),
            (3, &[(8, "")][..], true),
            (3, &[(8, ""), (9, "")][..], false),
        ] {
            assert_eq!(
                has_enough_started(&membership(voters, pending)),
                may,
                "{voters} {pending:?}"
            );
        }
    }

    #[test]
    fn urls_of_another_member_are_taken() {
        let now = membership(2, &[]);
        let taken = |than, address: &str| exists_elsewhere(&now, than, &[address.to_owned()]);
        assert!(taken(None, "h:1") && taken(Some(NodeId(2)), "h:1"));
        assert!(!taken(Some(NodeId(1)), "h:1") && !taken(None, "h:3"));
    }

    #[test]
    fn a_change_of_unknown_fate_is_a_timeout_to_the_client() {
        for reason in [
            Reason::NoLeader,
            Reason::LinkDown,
            Reason::Timeout,
            Reason::Stopped,
        ] {
            let status = of_change(ChangeError::Unknown(reason));
            assert_eq!(status.code(), Code::Unavailable, "{reason:?}");
            assert!(
                status.message().starts_with("etcdserver: request timed out"),
                "{status}"
            );
        }
    }
}
