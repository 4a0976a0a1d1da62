//! Who the members are and how clients reach them. Names and peer URLs are what the cluster was founded with; where a member listens
//! for clients only that member knows, so the servers introduce themselves to each other. What is learnt is kept in memory: until
//! a member was heard since the start, its client URLs are missing from the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;

use crate::asks::{self, Question};
use crate::config::ServerConfig;
use crate::context::Context;

/// How often members that were not heard of are asked again, and how often the others are (their URLs may have changed).
const ASK_AGAIN: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(30);

/// The member list.
#[derive(Debug)]
pub(crate) struct Directory {
    id: NodeId,
    members: Mutex<BTreeMap<NodeId, pb::Member>>,
}

impl Directory {
    /// The list as founded, with this member's own client URLs.
    pub fn new(config: &ServerConfig, client_urls: Vec<String>) -> Directory {
        let members = config.members.iter().map(|(id, member)| {
            let listed = pb::Member {
                id: id.0,
                name: member.name.clone(),
                peer_ur_ls: member.peer_urls.clone(),
                client_ur_ls: if *id == config.id {
                    client_urls.clone()
                } else {
                    Vec::new()
                },
                is_learner: false,
            };
            (*id, listed)
        });
        Directory {
            id: config.id,
            members: Mutex::new(members.collect()),
        }
    }

    /// All members, by id.
    pub fn list(&self) -> Vec<pb::Member> {
        self.lock().values().cloned().collect()
    }

    /// This member.
    pub fn own(&self) -> pb::Member {
        self.lock().get(&self.id).cloned().unwrap_or_default()
    }

    /// A member told about itself. Only its client URLs are news.
    pub fn learn(&self, from: NodeId, member: pb::Member) {
        if let Some(known) = self.lock().get_mut(&from)
            && from != self.id
        {
            known.client_ur_ls = member.client_ur_ls;
        }
    }

    fn unknown(&self) -> Vec<NodeId> {
        self.lock()
            .iter()
            .filter(|(_, member)| member.client_ur_ls.is_empty())
            .map(|(id, _)| *id)
            .collect()
    }

    fn others(&self) -> Vec<NodeId> {
        self.lock().keys().copied().filter(|id| *id != self.id).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, pb::Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Introduces this member to the others until the server ends: at once to whoever becomes reachable, and now and then again.
pub(crate) async fn introduce(ctx: Arc<Context>) {
    let mut status = ctx.status.clone();
    let mut whom = ctx.directory.others();
    if whom.is_empty() {
        return;
    }
    let mut refreshed = tokio::time::Instant::now();
    loop {
        for id in whom {
            let question = Question::Introduce(ctx.directory.own());
            if let Ok(member) = asks::ask::<pb::Member>(&ctx, id, &question).await {
                ctx.directory.learn(id, member);
            }
        }
        // A connection that comes up wakes this; the pause keeps a flapping one from making it busy.
        tokio::time::sleep(ASK_AGAIN).await;
        let wait = if ctx.directory.unknown().is_empty() {
            REFRESH
        } else {
            ASK_AGAIN
        };
        if let Ok(Err(_)) = tokio::time::timeout(wait, status.changed()).await {
            return;
        }
        if status.borrow_and_update().stopping {
            return;
        }
        whom = if refreshed.elapsed() >= REFRESH {
            refreshed = tokio::time::Instant::now();
            ctx.directory.others()
        } else {
            ctx.directory.unknown()
        };
    }
}
