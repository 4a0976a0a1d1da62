//! The lives of leases on the leader: the [`Office`] with a real clock and the node around it, and the leases' questions that
//! travel to the leader. What a leader may say and do about leases are the office's rules, in `quorate-kv`, which the simulator drives too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::ProposeError;
use quorate_base::{NodeId, Term};
use quorate_kv::lease::Expired;
use quorate_kv::office::{Claim, Next, Office};
use quorate_kv::{Applied, Kv, Lease, Response};
use tokio::sync::watch;
use tonic::Status;

use crate::asks::{self, Question};
use crate::context::{Context, elsewhere};
use crate::errors;

/// How often the leader looks for expired leases: etcd's interval.
const TICK: Duration = Duration::from_millis(500);

/// How many expiries are proposed in one tick.
const PER_TICK: usize = 500;

/// After how many nanoseconds an expiry that the state machine refused is proposed again: etcd's interval.
const PAUSE: u64 = 3_000_000_000;

/// The office and its clock.
#[derive(Debug)]
pub(crate) struct Leases {
    office: Mutex<Office>,
    /// The term for which it is held, for those who wait.
    term: watch::Sender<Option<Term>>,
    epoch: Instant,
}

/// A lease's remaining and granted seconds, and its keys if asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub ttl: i64,
    pub granted: i64,
    pub keys: Vec<Bytes>,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases {
            office: Mutex::default(),
            term: watch::Sender::new(None),
            epoch: Instant::now(),
        }
    }
}

impl Leases {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn office(&self) -> MutexGuard<'_, Office> {
        // The office has no state between two of its calls that a panic elsewhere could break.
        self.office.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command was applied. Most concern no lease, and cost neither the lock nor a look at the clock.
    pub fn applied(&self, kv: &Kv, command: &Bytes, applied: &Applied) {
        if !matches!(
            applied.response,
            Response::LeaseGrant { .. } | Response::LeaseRevoke { .. }
        ) {
            return;
        }
        let now = self.now();
        self.office().applied(kv, command, applied, now);
    }

    fn take(&self, claim: Claim, leases: Vec<Lease>) {
        let now = self.now();
        self.office().take(claim, leases, now);
        self.term.send_replace(Some(claim.term()));
    }

    /// Takes office anew, with these leases.
    #[cfg(test)]
    pub(crate) fn promote(&self, term: Term, leases: Vec<Lease>) {
        assert_eq!(self.follow(None), None);
        let claim = self.follow(Some(term)).expect("an office to be taken");
        self.take(claim, leases);
    }

    /// What has expired by the end of all time, not yet reported.
    #[cfg(test)]
    pub(crate) fn fired(&self, level: u32) -> Vec<(Expired, quorate_kv::Command)> {
        self.office().expired(level, u64::MAX, usize::MAX)
    }

    /// This member leads in this term, or does not. The claim to the office that is to be taken, if one is.
    fn follow(&self, leads: Option<Term>) -> Option<Claim> {
        let mut office = self.office();
        let claim = office.follow(leads);
        let held = office.term();
        self.term
            .send_if_modified(|told| std::mem::replace(told, held) != held);
        claim
    }

    /// What came of the proposal to revoke an expired lease. Only what certainly has no effect is tried again.
    fn proposed(
        &self,
        expired: Expired,
        result: &Result<Result<Applied, quorate_kv::Error>, ProposeError>,
        now: u64,
    ) {
        match result {
            // Revoked now, or the term is over, or it was granted anew; or gone.
            Ok(Ok(_) | Err(quorate_kv::Error::LeaseNotFound)) | Err(ProposeError::Unknown(_)) => {}
            Err(ProposeError::NotDone(_)) => self.office().not_done(expired, now),
            // The state machine takes none at the moment, because of an alarm.
            Ok(Err(_)) => self.office().not_done(expired, now.saturating_add(PAUSE)),
        }
    }

    fn term(&self) -> Option<Term> {
        self.office().term()
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
        let claim = ctx.leases.follow(leads.then_some(term));
        if stopping {
            return;
        }
        if let Some(claim) = claim
            && !take_office(&ctx, claim).await
        {
            // Either leadership is gone already, or it is not confirmed yet: look again.
            ctx.leadership_changed(TICK).await;
            continue;
        }
        if leads {
            revoke_expired(&ctx);
            let _ = tokio::time::timeout(TICK, status.changed()).await;
        } else if status.changed().await.is_err() {
            return;
        }
    }
}

/// Promotes the lessor from a state that holds everything earlier terms committed. Runs on the driver, between two applied
/// entries, so that no grant or revocation falls between the list and the promotion.
async fn take_office(ctx: &Context, claim: Claim) -> bool {
    let leases = ctx.leases.clone();
    let promoted = ctx.handle.read(move |machine| {
        let listed = machine.kv().leases()?;
        leases.take(claim, listed);
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

/// Proposes the end of expired leases.
fn revoke_expired(ctx: &Arc<Context>) {
    let now = ctx.leases.now();
    let expired = ctx.leases.office().expired(ctx.news.level(), now, PER_TICK);
    for (expired, command) in expired {
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let id = expired.id;
            let result = ctx.handle.propose(command.encode()).await;
            if let Err(error) = &result {
                tracing::debug!(id, %error, "an expired lease is perhaps still to be revoked");
            }
            ctx.leases.proposed(expired, &result, ctx.leases.now());
        });
    }
}

/// Renews a lease, wherever its leader is; the seconds that are left then, or `None` if there is no such lease.
pub(crate) async fn renew(ctx: &Context, id: i64) -> Result<Option<i64>, Status> {
    on_leader(ctx, Question::Renew { id }, || renew_here(ctx, id)).await
}

/// What is left of a lease, as its leader knows it; `None` if there is no such lease. Its keys are listed here: there may be more of
/// them than one member would tell another, and the leader has more to do.
pub(crate) async fn time_to_live(ctx: &Context, id: i64, keys: bool) -> Result<Option<Remaining>, Status> {
    let question = Question::TimeToLive { id, keys: false };
    let remaining = on_leader(ctx, question, || remaining_here(ctx, id, false)).await?;
    let Some(remaining) = remaining else {
        return Ok(None);
    };
    if !keys {
        return Ok(Some(remaining));
    }
    let picture = ctx.look(false, Kv::picture).await?;
    let listed = elsewhere(move || picture.lease_keys(id)).await?;
    // Or it has been revoked meanwhile.
    Ok(listed.map(|keys| Remaining { keys, ..remaining }))
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

/// The leader's part of a renewal. What comes after what, and what may be answered in the end, is for the office to say.
pub(crate) async fn renew_here(ctx: &Context, id: i64) -> Result<Option<i64>, Refusal> {
    office(ctx).await?;
    let now = ctx.leases.now();
    let next = ctx.leases.office().renew(id, now);
    let renewal = match next.ok_or(Refusal::NotLeader)? {
        Next::Confirm(renewal) => renewal,
        Next::Look(look) => {
            let exists = ctx.handle.read(move |machine| machine.kv().lease(id)).await;
            exists
                .map_err(read_refusal)?
                .map_err(|e| Refusal::Failed(errors::of_kv(&e)))?;
            let now = ctx.leases.now();
            let looked = ctx.leases.office().looked(look, now);
            looked.ok_or(Refusal::NotLeader)?
        }
    };
    let confirmed = ctx.handle.confirm_leadership().await.map_err(read_refusal)?;
    let now = ctx.leases.now();
    let answer = ctx.leases.office().confirmed(renewal, confirmed, now);
    answer.ok_or(Refusal::NotLeader)
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
            .office()
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

/// The term for which the office is held, waiting a little for one that is about to be.
async fn office(ctx: &Context) -> Result<Term, Refusal> {
    let mut term = ctx.leases.term.subscribe();
    let taken = tokio::time::timeout(ctx.config.election, term.wait_for(Option::is_some)).await;
    match taken {
        Ok(Ok(term)) => term.ok_or(Refusal::NotLeader),
        _ => Err(Refusal::NotLeader),
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
        let expired = || leases.fired(2);
        let reported = expired();
        assert_eq!(reported.len(), 1);
        for reason in [Reason::Busy, Reason::NoLeader] {
            leases.proposed(reported[0].0, &Err(ProposeError::NotDone(reason)), end);
            assert_eq!(expired(), reported, "{reason}");
        }
        let refused = Ok(Err(quorate_kv::Error::Corrupt));
        leases.proposed(reported[0].0, &refused, end);
        assert_eq!(expired(), reported, "an alarm is on");
        for reason in [Reason::Timeout, Reason::LeaderChanged] {
            leases.proposed(reported[0].0, &Err(ProposeError::Unknown(reason)), end);
            assert!(expired().is_empty(), "{reason}");
        }
        let gone = Ok(Err(quorate_kv::Error::LeaseNotFound));
        leases.proposed(reported[0].0, &gone, end);
        assert!(expired().is_empty(), "gone");
    }
}
