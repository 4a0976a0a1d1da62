//! Who the members are and how clients reach them. Members, names and addresses are the replicated membership; each member writes its own
//! name and client URLs into it once it runs (as etcd's members do), so that every list shows them, even of members that are down.
//!
//! Until that is done, and in a cluster whose feature level does not allow it yet, the servers also introduce themselves to each other;
//! what is learnt so is kept in memory. How the membership is changed stands in [`crate::changes`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quorate::{ChangeError, ChangeRefusal, Member, MemberChange, Membership, Promote};
use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;

use crate::asks::{self, Question};
use crate::changes;
use crate::context::Context;

/// How often members that were not heard of are asked again, and how often the others are (their URLs may have changed).
const ASK_AGAIN: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(30);

/// What this member knows of the others beyond the replicated membership.
#[derive(Debug)]
pub(crate) struct Directory {
    own: pb::Member,
    learnt: Mutex<BTreeMap<NodeId, pb::Member>>,
}

impl Directory {
    /// Nobody has been heard of; this member's own name and client URLs are known.
    pub fn new(id: NodeId, name: &str, client_urls: Vec<String>) -> Directory {
        Directory {
            own: pb::Member {
                id: id.0,
                name: name.to_owned(),
                client_ur_ls: client_urls,
                ..Default::default()
            },
            learnt: Mutex::default(),
        }
    }

    /// All members, by id, as clients are told. What is replicated counts; what is missing there was perhaps learnt.
    pub fn list(&self, membership: &Membership) -> Vec<pb::Member> {
        let learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = membership.members.iter().map(|(id, member)| {
            let heard = match id.0 == self.own.id {
                true => Some(&self.own),
                false => learnt.get(id),
            };
            let mut listed = replicated(*id, member);
            listed.is_learner = is_learner(membership, *id);
            if let Some(heard) = heard {
                listed.name = or(listed.name, &heard.name);
                // An older release tells its peer URLs, which are not in the membership it was founded with.
                listed.peer_ur_ls = or_all(listed.peer_ur_ls, &heard.peer_ur_ls);
                listed.client_ur_ls = or_all(listed.client_ur_ls, &heard.client_ur_ls);
            }
            listed
        });
        listed.collect()
    }

    /// This member, for an introduction.
    fn own(&self, membership: &Membership) -> pb::Member {
        let id = NodeId(self.own.id);
        let known = membership.members.get(&id).cloned().unwrap_or_default();
        pb::Member {
            peer_ur_ls: replicated(id, &known).peer_ur_ls,
            ..self.own.clone()
        }
    }

    /// A member told about itself.
    pub fn learn(&self, from: NodeId, member: pb::Member) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.insert(from, member);
    }

    /// Of whom nothing is known that clients could use.
    fn unknown(&self, membership: &Membership) -> Vec<NodeId> {
        let listed = self.list(membership).into_iter();
        listed
            .filter(|member| member.client_ur_ls.is_empty())
            .map(|member| NodeId(member.id))
            .collect()
    }
}

fn or(text: String, other: &str) -> String {
    match text.is_empty() {
        true => other.to_owned(),
        false => text,
    }
}

fn or_all(urls: Vec<String>, others: &[String]) -> Vec<String> {
    match urls.is_empty() {
        true => others.to_vec(),
        false => urls,
    }
}

/// Whether clients are told that this member is a learner: one that becomes a voter by itself was added as a voter, and is listed as one.
pub(crate) fn is_learner(membership: &Membership, id: NodeId) -> bool {
    membership.learners.get(&id) == Some(&Promote::Never)
}

/// A member as the membership describes it.
fn replicated(id: NodeId, member: &Member) -> pb::Member {
    // What cannot be read was written by a later release: its client URLs are then not known.
    let extra = <pb::Member as Message>::decode(member.extra.clone()).unwrap_or_default();
    pb::Member {
        id: id.0,
        name: member.name.clone(),
        peer_ur_ls: member.addresses.iter().map(|at| format!("http://{at}")).collect(),
        client_ur_ls: extra.client_ur_ls,
        is_learner: false,
    }
}

/// What the membership is to say of a member with these client URLs.
fn extra(client_urls: &[String]) -> Bytes {
    let message = pb::Member {
        client_ur_ls: client_urls.to_vec(),
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// Writes this member's name and client URLs into the replicated membership, whenever they are not what stands there.
pub(crate) async fn publish(ctx: Arc<Context>) {
    let mut status = ctx.status.clone();
    loop {
        let (now, stopping) = {
            let status = status.borrow_and_update();
            (status.membership.clone(), status.stopping)
        };
        if stopping {
            return;
        }
        let written = match outdated(&ctx, &now) {
            Some(_) => describe(&ctx).await,
            None => Ok(()),
        };
        match written {
            // A change of the membership wakes this. The level is part of it, so its rise is a change, too.
            Ok(()) => {
                if status.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "this member's name and client URLs are not in the membership yet");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
}

/// What the membership is to say of this member, if that is not what it says.
fn outdated(ctx: &Context, now: &Membership) -> Option<Member> {
    let own = &ctx.directory.own;
    let listed = now.members.get(&ctx.config.id)?;
    let wanted = Member {
        name: own.name.clone(),
        extra: extra(&own.client_ur_ls),
        ..listed.clone()
    };
    (wanted != *listed).then_some(wanted)
}

/// Corrects what the membership says of this member. A description is replaced whole, peer URLs and all, so what it is made from must hold
/// everything that was acknowledged: this member may just have been told to move, and not know it yet.
async fn describe(ctx: &Context) -> Result<(), String> {
    let now = changes::current(ctx)
        .await
        .map_err(|status| status.message().to_owned())?;
    let Some(member) = outdated(ctx, &now) else {
        return Ok(());
    };
    let id = ctx.config.id;
    let change = vec![MemberChange::Describe { id, member }];
    match ctx.handle.change_membership(change, false).await {
        Ok(_) | Err(ChangeError::NotDone(ChangeRefusal::Nothing | ChangeRefusal::Level)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Introduces this member to the others until the server ends: at once to whoever becomes reachable, and now and then again.
pub(crate) async fn introduce(ctx: Arc<Context>) {
    let mut status = ctx.status.clone();
    let others = |ctx: &Context| -> Vec<NodeId> {
        let membership = ctx.membership();
        let ids = membership.members.keys().copied();
        ids.filter(|id| *id != ctx.config.id).collect()
    };
    let mut whom = others(&ctx);
    let mut refreshed = tokio::time::Instant::now();
    loop {
        for id in whom {
            let question = Question::Introduce(ctx.directory.own(&ctx.membership()));
            if let Ok(member) = asks::ask::<pb::Member>(&ctx, id, &question).await {
                ctx.directory.learn(id, member);
            }
        }
        // A connection that comes up wakes this; the pause keeps a flapping one from making it busy.
        tokio::time::sleep(ASK_AGAIN).await;
        let wait = match ctx.directory.unknown(&ctx.membership()).is_empty() {
            true => REFRESH,
            false => ASK_AGAIN,
        };
        if let Ok(Err(_)) = tokio::time::timeout(wait, status.changed()).await {
            return;
        }
        if status.borrow_and_update().stopping {
            return;
        }
        whom = if refreshed.elapsed() >= REFRESH {
            refreshed = tokio::time::Instant::now();
            others(&ctx)
        } else {
            ctx.directory.unknown(&ctx.membership())
        };
    }
}

/// Answers an introduction with one's own.
pub(crate) fn introduced(ctx: &Context, from: NodeId, member: pb::Member) -> pb::Member {
    ctx.directory.learn(from, member);
    ctx.directory.own(&ctx.membership())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let mut all = Membership::default();
        for (id, name, urls) in [(1, "one", vec!["http://c:1".to_owned()]), (2, "", Vec::new())] {
            let member = Member {
                name: name.into(),
                addresses: vec![format!("p:{id}")],
                extra: extra(&urls),
            };
            all.members.insert(NodeId(id), member);
            all.voters.insert(NodeId(id));
        }
        all
    }

    #[test]
    fn the_list_is_the_membership_completed_by_what_was_learnt() {
        let directory = Directory::new(NodeId(1), "one", vec!["http://new:1".into()]);
        let mut membership = membership();
        let listed = directory.list(&membership);
        assert_eq!((listed.len(), listed[0].name.as_str()), (2, "one"));
        assert_eq!(
            listed[0].client_ur_ls,
            ["http://c:1"],
            "what is replicated counts, here as on the other members"
        );
        assert_eq!(listed[0].peer_ur_ls, ["http://p:1"]);
        assert!(listed[1].name.is_empty() && listed[1].client_ur_ls.is_empty());
        assert_eq!(directory.unknown(&membership), [NodeId(2)]);

        let two = Directory::new(NodeId(2), "two", vec!["http://c:2".into()]);
        directory.learn(NodeId(2), two.own(&membership));
        directory.learn(NodeId(3), pb::Member::default());
        let listed = directory.list(&membership);
        assert_eq!(listed.len(), 2, "who is no member is not listed");
        assert_eq!(
            (listed[1].name.as_str(), &listed[1].client_ur_ls[..]),
            ("two", &["http://c:2".to_owned()][..])
        );
        assert!(directory.unknown(&membership).is_empty());

        membership.voters.remove(&NodeId(2));
        membership.learners.insert(NodeId(2), Promote::WhenCaughtUp);
        assert!(
            !directory.list(&membership)[1].is_learner,
            "it was added as a voter"
        );
        membership.learners.insert(NodeId(2), Promote::Never);
        assert!(directory.list(&membership)[1].is_learner);
    }

    #[test]
    fn a_description_of_a_later_release_hides_no_member() {
        let member = Member {
            extra: Bytes::from_static(b"\xff\xff"),
            ..Member::new("n", "p:1")
        };
        assert_eq!(replicated(NodeId(1), &member).name, "n");
    }
}
