//! Requests that get their answer even if leadership moves or a link breaks while they are under way. What they show is what the first try
//! would have shown; tests about such failures themselves ask the handle instead.

use std::sync::Arc;

use bytes::Bytes;
use quorate::{
    ChangeError, ChangeRefusal, Handle, MemberChange, Membership, NodeId, ProposeError, Reason, Status,
    TransferError,
};

use super::{Cluster, Sum, breathe, within};

/// Whether a request that was not done for this reason may be done when it is made again.
fn passes(reason: Reason) -> bool {
    !matches!(reason, Reason::TooLarge | Reason::Stopped | Reason::NoSpace)
}

/// Proposes a command that makes the sum `expected`. When nobody knows what became of it, looks, and proposes it again only if the sum
/// is as it was.
pub async fn reach(handle: &Handle<Sum>, command: Bytes, expected: u64) {
    let n = u64::from_le_bytes(command[..8].try_into().unwrap());
    let reached = within(async {
        loop {
            match handle.propose(command.clone()).await {
                Ok(sum) => return sum,
                Err(ProposeError::NotDone(reason)) => assert!(passes(reason), "{reason}"),
                Err(ProposeError::Unknown(reason)) => {
                    assert!(passes(reason), "{reason}");
                    let sum = sum_at(handle).await;
                    if sum != expected - n {
                        return sum;
                    }
                }
            }
            breathe().await;
        }
    })
    .await;
    assert_eq!(reached, expected, "after adding {n}");
}

/// The sum, read linearizably.
pub async fn sum_at(handle: &Handle<Sum>) -> u64 {
    within(async {
        loop {
            match handle.read(|machine| machine.sum).await {
                Ok(sum) => return sum,
                Err(error) => assert!(passes(error.0), "{error}"),
            }
            breathe().await;
        }
    })
    .await
}

/// Asks for a change until it is made: until the learners in it have caught up and the leader has heard of everyone (one that was only just
/// elected has not), and again if nobody knows what became of it. Asks the next handle when a node has stopped. Answers the membership that
/// the change made, or none if only a refusal to do it twice says that it was made.
pub async fn insist(
    mut handles: impl Iterator<Item = Handle<Sum>>,
    changes: Vec<MemberChange>,
    force: bool,
) -> Option<Membership> {
    use ChangeRefusal::{
        AlreadyMember, NotCaughtUp, NotLearner, NotMember, Pending, Request, Transferring, WouldLoseQuorum,
    };
    let mut handle = handles.next().expect("somebody to ask");
    let mut perhaps = false;
    loop {
        let stopped = match handle.change_membership(changes.clone(), force).await {
            Ok(membership) => return Some(membership),
            Err(ChangeError::NotDone(AlreadyMember(_) | NotLearner(_) | NotMember(_))) if perhaps => {
                return None;
            }
            Err(ChangeError::NotDone(NotCaughtUp(_) | WouldLoseQuorum | Pending | Transferring)) => false,
            Err(ChangeError::NotDone(Request(reason))) if passes(reason) => false,
            Err(ChangeError::NotDone(Request(Reason::Stopped))) => true,
            Err(ChangeError::Unknown(reason)) => {
                perhaps = true;
                reason == Reason::Stopped
            }
            Err(error) => panic!("{error}"),
        };
        if stopped {
            handle = handles.next().expect("nobody is left who could be asked");
        }
        breathe().await;
    }
}

/// Asks for a change at a member until it is made ([`insist`]), or at the others should that one stop meanwhile; waits until a member that
/// stays knows a membership as it must be then, and answers it.
pub async fn change_when_ready(
    cluster: &Cluster,
    at: u64,
    changes: Vec<MemberChange>,
    force: bool,
    made: impl Fn(&Membership) -> bool,
) -> Arc<Membership> {
    let goes = |id: u64| changes.contains(&MemberChange::Remove(NodeId(id)));
    let others = cluster.members.keys().filter(|id| **id != at);
    let stay: Vec<u64> = std::iter::once(&at)
        .chain(others)
        .copied()
        .filter(|id| !goes(*id))
        .collect();
    let asked = std::iter::once(&at).chain(stay.iter().filter(|id| **id != at));
    let asked = asked.map(|id| cluster.handle(*id).clone());
    if let Some(membership) = within(insist(asked, changes.clone(), force)).await {
        assert!(made(&membership), "{membership:?}");
    }
    let mut status = cluster.handle(stay[0]).subscribe();
    let now = within(status.wait_for(|now: &Status| made(&now.membership)))
        .await
        .unwrap();
    now.membership.clone()
}

/// Asks for a change that must be refused for exactly this reason, again when another one may pass.
pub async fn refused(handle: &Handle<Sum>, changes: Vec<MemberChange>, why: ChangeRefusal) {
    use ChangeRefusal::{NotCaughtUp, Pending, Request, Transferring, WouldLoseQuorum};
    within(async {
        loop {
            match handle.change_membership(changes.clone(), false).await {
                Err(ChangeError::NotDone(refusal)) if refusal == why => return,
                Err(ChangeError::NotDone(NotCaughtUp(_) | WouldLoseQuorum | Pending | Transferring)) => {}
                Err(ChangeError::NotDone(Request(reason)) | ChangeError::Unknown(reason))
                    if passes(reason) => {}
                other => panic!("{other:?} instead of {why:?}"),
            }
            breathe().await;
        }
    })
    .await;
}

/// What the leader, whoever that is by then, says to handing over to this member.
pub async fn transfer_from_leader(cluster: &Cluster, to: u64) -> Result<(), TransferError> {
    within(async {
        loop {
            let leader = cluster.leader().await;
            match cluster.handle(leader).transfer(Some(NodeId(to))).await {
                Err(TransferError::NotLeader(_)) => breathe().await,
                said => return said,
            }
        }
    })
    .await
}

/// A membership with these voters, and no change of voters under way.
pub fn voting(voters: &[u64]) -> impl Fn(&Membership) -> bool {
    let voters: Vec<NodeId> = voters.iter().copied().map(NodeId).collect();
    move |now| !now.is_joint() && now.voters.iter().eq(&voters)
}

/// Waits until the leader, another one than member `id`, knows that `id` has everything; answers that leader.
pub async fn caught_up(cluster: &Cluster, id: u64) -> u64 {
    within(async {
        loop {
            let leader = cluster.leader().await;
            let now = cluster.handle(leader).status();
            if leader == id {
                // Whether somebody took over is seen above.
                let _ = cluster.handle(leader).transfer(None).await;
            } else if now.is_leader() && now.peers[&NodeId(id)].matched == Some(now.last_log.index) {
                return leader;
            }
            breathe().await;
        }
    })
    .await
}
