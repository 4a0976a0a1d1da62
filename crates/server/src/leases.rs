//! The lives of leases on the leader: the [`Lessor`] with a real clock, taking and leaving office with the node, and revoking
//! what has expired. That leases exist is replicated state; until when they live is the leader's memory, and a
//! new leader starts each at its full TTL.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate::ProposeError;
use quorate_base::{NodeId, Term};
use quorate_kv::lease::{Expired, Lessor};
use quorate_kv::{Command, Lease};
use tokio::sync::watch;
use tonic::Status;

use crate::asks::{self, Question};
use crate::context::Context;
use crate::errors;

/// How often the leader looks for expired leases: etcd's interval.
const TICK: Duration = Duration::from_millis(500);

/// How many expiries are proposed in one tick.
const PER_TICK: usize = 500;

/// The lessor and its clock.
#[derive(Debug)]
pub(crate) struct Leases {
    lessor: Mutex<Lessor>,
    /// The term for which the lessor is in office.
    office: watch::Sender<Option<Term>>,
    epoch: Instant,
}

/// A lease's remaining and granted seconds, and its keys if asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub ttl: i64,
    pub granted: i64,
    pub keys: Vec<bytes::Bytes>,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            lessor: Mutex::default(),
            office: watch::Sender::new(None),
            epoch: Instant::now(),
        }
    }
}

impl Leases {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lessor(&self) -> MutexGuard<'_, Lessor> {
        // The lessor has no state between two of its calls that a panic elsewhere could break.
        self.lessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A grant was applied.
    pub fn granted(&self, lease: Lease) {
        let now = self.now();
        self.lessor().grant(lease, now);
    }

    /// A revocation was applied.
    pub fn revoked(&self, id: i64) {
        self.lessor().revoke(id);
    }

    pub(crate) fn promote(&self, term: Term, leases: Vec<Lease>) {
        let now = self.now();
        self.lessor().promote(leases, now);
        self.office.send_replace(Some(term));
    }

    /// What has expired by the end of all time, not yet reported.
    #[cfg(test)]
    pub(crate) fn fired(&self) -> Vec<Expired> {
        self.lessor().expired(u64::MAX, usize::MAX)
    }

    fn demote(&self) {
        if self.office.send_replace(None).is_some() {
            self.lessor().demote();
        }
    }

    /// The proposal to revoke an expired lease was not answered. Only what certainly has no effect is tried again: proposed by the
    /// leader itself, the others are committed in the term they carry, or are void. Below feature level 2 a second one could end a
    /// lease that was granted under the same id after the first.
    fn failed(&self, expired: Expired, error: ProposeError, now: u64) {
        match error {
            ProposeError::NotDone(_) => self.lessor().report_again(expired, now),
            ProposeError::Unknown(_) => {}
        }
    }

    fn term(&self) -> Option<Term> {
        *self.office.borrow()
    }
}

/// Keeps the lessor in step with the node until the server ends.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut status = ctx.status.clone();
    loop {
        let (leads, term, stopping) = {
            let now = status.borrow_and_update();
            (now.is_leader(), now.term, now.stopping)
        };
        if !leads || ctx.leases.term().is_some_and(|held| held != term) {
            ctx.leases.demote();
        }
        if stopping {
            return;
        }
        if leads && ctx.leases.term().is_none() && !take_office(&ctx, term).await {
            // Either leadership is gone already, or it is not confirmed yet: look again.
            ctx.leadership_changed(TICK).await;
            continue;
        }
        if leads {
            revoke_expired(&ctx, term);
            let _ = tokio::time::timeout(TICK, status.changed()).await;
        } else if status.changed().await.is_err() {
            return;
        }
    }
}

/// Promotes the lessor from a state that holds everything earlier terms committed. Runs on the driver, between two applied
/// entries, so that no grant or revocation falls between the list and the promotion.
async fn take_office(ctx: &Context, term: Term) -> bool {
    let leases = ctx.leases.clone();
    let promoted = ctx.handle.read(move |machine| {
        let listed = machine.kv().leases()?;
        leases.promote(term, listed);
        Ok::<(), quorate_kv::Error>(())
    });
    match promoted.await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot list the leases, so none expires on this leader yet");
            false
        }
        Err(_) => false,
    }
}

/// Proposes the end of expired leases. Each proposal carries the term in which the expiry was seen and is void in any other, so
/// nothing bad comes of one that goes through another leader. It names the grant and is void for any other, so nothing bad
/// comes of one that is late, after a client revoked the lease and took the id anew; below feature level 2 that is not so.
fn revoke_expired(ctx: &Arc<Context>, term: Term) {
    let now = ctx.leases.now();
    let expired = ctx.leases.lessor().expired(now, PER_TICK);
    for expired in expired {
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let id = expired.id;
            let command = Command::expiry(ctx.news.level(), term, expired);
            // The state machine's answer tells nothing new: it revoked the lease, found it gone or granted anew, or the term over.
            if let Err(error) = ctx.handle.propose(command.encode()).await {
                tracing::debug!(id, %error, "an expired lease is perhaps still to be revoked");
                ctx.leases.failed(expired, error, ctx.leases.now());
            }
        });
    }
}

/// Renews a lease, wherever its leader is; the TTL, or `None` if there is no such lease.
pub(crate) async fn renew(ctx: &Context, id: i64) -> Result<Option<i64>, Status> {
    on_leader(ctx, Question::Renew { id }, || renew_here(ctx, id)).await
}

/// What is left of a lease, as its leader knows it; `None` if there is no such lease.
pub(crate) async fn time_to_live(ctx: &Context, id: i64, keys: bool) -> Result<Option<Remaining>, Status> {
    on_leader(ctx, Question::TimeToLive { id, keys }, || {
        remaining_here(ctx, id, keys)
    })
    .await
}

/// Why the leader's part was not done here.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Not the leader, or not any more: ask who is.
    NotLeader,
    /// Something else.
    Failed(Status),
}

/// Answers a question about a lease here if this member leads, or asks the leader; again when leadership moves, which is safe since
/// the questions may be asked twice.
async fn on_leader<T, F>(ctx: &Context, question: Question, here: impl Fn() -> F) -> Result<T, Status>
where
    T: asks::Answer,
    F: Future<Output = Result<T, Refusal>>,
{
    let deadline = tokio::time::Instant::now() + ctx.config.request_timeout();
    loop {
        let leader: Option<NodeId> = ctx.leader();
        let answer = match leader {
            None => Err(Refusal::NotLeader),
            Some(leader) if leader == ctx.config.id => here().await,
            Some(leader) => asks::ask(ctx, leader, &question).await,
        };
        match answer {
            Ok(answer) => return Ok(answer),
            Err(Refusal::Failed(status)) => return Err(status),
            Err(Refusal::NotLeader) => {
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                if left.is_zero() {
                    return Err(if leader.is_none() {
                        errors::no_leader()
                    } else {
                        errors::timed_out()
                    });
                }
                ctx.leadership_changed(left.min(ctx.config.heartbeat)).await;
            }
        }
    }
}

/// The leader's part of a renewal: acknowledged only when a round begun after it has shown that this is still the leader, in
/// the term in which the lessor took office. Otherwise another leader might have let the lease expire already.
pub(crate) async fn renew_here(ctx: &Context, id: i64) -> Result<Option<i64>, Refusal> {
    let term = office(ctx).await?;
    let mut ttl = renew_in(ctx, id, term)?;
    if ttl.is_none() {
        // Perhaps the grant is committed but not applied on this member yet.
        let exists = ctx.handle.read(move |machine| machine.kv().lease(id)).await;
        exists
            .map_err(read_refusal)?
            .map_err(|e| Refusal::Failed(errors::of_kv(&e)))?;
        ttl = renew_in(ctx, id, term)?;
    }
    confirm(ctx, term).await?;
    Ok(ttl)
}

fn renew_in(ctx: &Context, id: i64, term: Term) -> Result<Option<i64>, Refusal> {
    let now = ctx.leases.now();
    let mut lessor = ctx.leases.lessor();
    if ctx.leases.term() != Some(term) {
        return Err(Refusal::NotLeader);
    }
    Ok(lessor.renew(id, now))
}

/// The leader's part of a question about the remaining time.
pub(crate) async fn remaining_here(ctx: &Context, id: i64, keys: bool) -> Result<Option<Remaining>, Refusal> {
    let term = office(ctx).await?;
    let leases = ctx.leases.clone();
    let looked = ctx.handle.read(move |machine| {
        let kv = machine.kv();
        let Some(lease) = kv.lease(id)? else {
            return Ok(None);
        };
        let keys = if keys { kv.lease_keys(id)? } else { Vec::new() };
        let now = leases.now();
        let ttl = leases
            .lessor()
            .time_to_live(id, now)
            .map_or(lease.ttl, |(left, _)| left);
        Ok(Some(Remaining {
            ttl,
            granted: lease.ttl,
            keys,
        }))
    });
    let remaining = looked.await.map_err(read_refusal)?;
    if ctx.leases.term() != Some(term) {
        return Err(Refusal::NotLeader);
    }
    remaining.map_err(|error: quorate_kv::Error| Refusal::Failed(errors::of_kv(&error)))
}

/// The term in which the lessor is in office, waiting a little for one that is about to be.
async fn office(ctx: &Context) -> Result<Term, Refusal> {
    let mut office = ctx.leases.office.subscribe();
    let taken = tokio::time::timeout(ctx.config.election, office.wait_for(Option::is_some)).await;
    match taken {
        Ok(Ok(term)) => term.ok_or(Refusal::NotLeader),
        _ => Err(Refusal::NotLeader),
    }
}

async fn confirm(ctx: &Context, term: Term) -> Result<(), Refusal> {
    match ctx.handle.confirm_leadership().await {
        Ok(confirmed) if confirmed == term => Ok(()),
        Ok(_) => Err(Refusal::NotLeader),
        Err(error) => Err(read_refusal(error)),
    }
}

fn read_refusal(error: quorate::ReadError) -> Refusal {
    use quorate::Reason::{LeaderChanged, NoLeader};
    match error.0 {
        NoLeader | LeaderChanged => Refusal::NotLeader,
        _ => Refusal::Failed(errors::of_read(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::Reason;
    use quorate_base::Index;

    #[test]
    fn only_a_revocation_that_certainly_was_not_done_is_proposed_again() {
        let leases = Leases::default();
        leases.promote(
            Term(3),
            vec![Lease {
                id: 7,
                ttl: 5,
                grant: Index(9),
            }],
        );
        let end = u64::MAX;
        let reported = leases.lessor().expired(end, PER_TICK);
        assert_eq!(reported.len(), 1);
        for reason in [Reason::Busy, Reason::NoLeader] {
            leases.failed(reported[0], ProposeError::NotDone(reason), end);
            assert_eq!(leases.lessor().expired(end, PER_TICK), reported, "{reason}");
        }
        for reason in [Reason::Timeout, Reason::LeaderChanged] {
            leases.failed(reported[0], ProposeError::Unknown(reason), end);
            assert!(leases.lessor().expired(end, PER_TICK).is_empty(), "{reason}");
        }
    }
}
