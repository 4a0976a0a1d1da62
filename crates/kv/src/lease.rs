//! The leader's side of leases: when they expire. Clock-fed and sans-I/O: every call brings the time, in nanoseconds of
//! one monotonic clock. Renewals live here and are lost with the leader; a new leader starts every lease at its
//! full TTL (thesis §6.3 has the idea, etcd the rules). That a lease exists, its TTL and its keys are replicated state, in [`Kv`](crate::Kv).

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::Index;

use crate::error::Error;
use crate::types::Lease;

/// No lease lives longer, in seconds (etcd's limit).
pub const MAX_TTL: i64 = 9_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// The TTL to propose in a grant: raised to `min` seconds, an error above [`MAX_TTL`].
pub fn granted_ttl(asked: i64, min: i64) -> Result<i64, Error> {
    if asked > MAX_TTL {
        return Err(Error::LeaseTtlTooLarge);
    }
    Ok(asked.max(min))
}

/// The deadlines of all leases, on the leader. A demoted one holds nothing and answers `None`.
#[derive(Clone, Debug, Default)]
pub struct Lessor {
    leading: bool,
    leases: BTreeMap<i64, Deadline>,
    /// When to report which: at its expiry, or later if it was reported and is to be again.
    due: BTreeSet<(u64, i64)>,
    /// How many schedules there were. Goes on from one time in office to the next.
    schedules: u64,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    ttl: i64,
    grant: Index,
    /// When it expires.
    expiry: u64,
    /// When it is to be reported by `expired`; `None` if it was and is not to be again.
    due: Option<u64>,
    /// Which schedule this is: a grant or renewal begins a fresh one.
    schedule: u64,
}

/// A lease that has expired, by which grant and which schedule: what was decided of it does not touch the same id granted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The lease.
    pub id: i64,
    /// The [`grant`](Lease::grant) that expired.
    pub grant: Index,
    schedule: u64,
}

impl Lessor {
    /// One that does not lead.
    pub fn new() -> Lessor {
        Lessor::default()
    }

    /// Takes office: every lease starts at its full TTL, since renewals acknowledged by earlier leaders are unknown here.
    pub fn promote(&mut self, leases: impl IntoIterator<Item = Lease>, now: u64) {
        self.demote();
        self.leading = true;
        for lease in leases {
            self.grant(lease, now);
        }
    }

    /// Leaves office.
    pub fn demote(&mut self) {
        *self = Lessor {
            schedules: self.schedules,
            ..Lessor::new()
        };
    }

    /// Whether this is the leader's.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// A grant was applied. Without effect when not leading.
    pub fn grant(&mut self, lease: Lease, now: u64) {
        if self.leading {
            self.revoke(lease.id);
            self.schedule(lease, now);
        }
    }

    /// Renews; the TTL in seconds, `None` if the lease is not there or has expired: an expired lease is on its way out
    /// and cannot be saved. The answer may go out only after leadership was confirmed by a round begun after this call.
    pub fn renew(&mut self, id: i64, now: u64) -> Option<i64> {
        let deadline = *self.leases.get(&id)?;
        if deadline.expiry <= now {
            return None;
        }
        self.revoke(id);
        let Deadline { ttl, grant, .. } = deadline;
        self.schedule(Lease { id, ttl, grant }, now);
        Some(deadline.ttl)
    }

    /// The seconds that a lease has left, begun ones counted whole; 0 if it has expired, `None` if it is not there.
    pub fn left(&self, id: i64, now: u64) -> Option<i64> {
        let Deadline { expiry, ttl, .. } = *self.leases.get(&id)?;
        let whole = expiry.saturating_sub(now).div_ceil(SECOND);
        // Whoever asks may have looked at the clock a moment before the lease was renewed once more.
        Some(i64::try_from(whole).map_or(ttl, |whole| whole.min(ttl)))
    }

    /// A revocation was applied.
    pub fn revoke(&mut self, id: i64) {
        if let Some(deadline) = self.leases.remove(&id)
            && let Some(due) = deadline.due
        {
            self.due.remove(&(due, id));
        }
    }

    /// Up to `limit` leases that have expired, to be revoked by [`Command::expiry`](crate::Command::expiry). Each is reported once:
    /// below feature level 2 a second proposal could be applied after the first, when the id was granted anew. See
    /// [`report_again`](Lessor::report_again).
    pub fn expired(&mut self, now: u64, limit: usize) -> Vec<Expired> {
        let due: Vec<(u64, i64)> = self
            .due
            .iter()
            .take(limit)
            .take_while(|(at, _)| *at <= now)
            .copied()
            .collect();
        let mut expired = Vec::with_capacity(due.len());
        for (at, id) in due {
            self.due.remove(&(at, id));
            if let Some(deadline) = self.leases.get_mut(&id) {
                deadline.due = None;
                expired.push(Expired {
                    id,
                    grant: deadline.grant,
                    schedule: deadline.schedule,
                });
            }
        }
        expired
    }

    /// The proposal to revoke a reported lease certainly has no effect: [`expired`](Lessor::expired) is to report it again, from `at`
    /// on. Without effect if it was revoked or granted since. Not to be called for a proposal whose fate is unknown: in the log
    /// of the leader that reported it, it will be committed, or the term ends and with it this time in office.
    pub fn report_again(&mut self, expired: Expired, at: u64) {
        if let Some(deadline) = self.leases.get_mut(&expired.id)
            && deadline.schedule == expired.schedule
            && deadline.due.is_none()
        {
            deadline.due = Some(at);
            self.due.insert((at, expired.id));
        }
    }

    /// When [`expired`](Lessor::expired) next has something to report.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Remaining and granted seconds; `None` if the lease is not there. An expired one not yet revoked remains 0.
    pub fn time_to_live(&self, id: i64, now: u64) -> Option<(i64, i64)> {
        let deadline = self.leases.get(&id)?;
        let left = deadline.expiry.saturating_sub(now) / SECOND;
        Some((i64::try_from(left).unwrap_or(i64::MAX), deadline.ttl))
    }

    fn schedule(&mut self, lease: Lease, now: u64) {
        let Lease { id, ttl, grant } = lease;
        let ttl_ns = u64::try_from(ttl).unwrap_or(0).saturating_mul(SECOND);
        let expiry = now.saturating_add(ttl_ns);
        self.schedules += 1;
        self.leases.insert(
            id,
            Deadline {
                ttl,
                grant,
                expiry,
                due: Some(expiry),
                schedule: self.schedules,
            },
        );
        self.due.insert((expiry, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: i64, ttl: i64) -> Lease {
        let grant = Index::ZERO;
        Lease { id, ttl, grant }
    }

    #[test]
    fn ttl_is_bounded_on_both_sides() {
        assert_eq!(granted_ttl(0, 2), Ok(2));
        assert_eq!(granted_ttl(-5, 2), Ok(2));
        assert_eq!(granted_ttl(60, 2), Ok(60));
        assert_eq!(granted_ttl(MAX_TTL, 2), Ok(MAX_TTL));
        assert_eq!(granted_ttl(MAX_TTL + 1, 2), Err(Error::LeaseTtlTooLarge));
    }

    fn expired(lessor: &mut Lessor, now: u64, limit: usize) -> Vec<i64> {
        lessor.expired(now, limit).iter().map(|found| found.id).collect()
    }

    #[test]
    fn expires_at_its_ttl_not_before_and_is_reported_once() {
        let mut lessor = Lessor::new();
        lessor.promote([lease(7, 5)], 100);
        assert_eq!(lessor.next_due(), Some(100 + 5 * SECOND));
        assert!(lessor.expired(100 + 5 * SECOND - 1, 10).is_empty());
        let found = lessor.expired(100 + 5 * SECOND, 10);
        assert_eq!(found.iter().map(|e| e.id).collect::<Vec<_>>(), [7]);
        assert!(
            lessor.expired(u64::MAX, 10).is_empty(),
            "its revocation may be in the log"
        );
        assert_eq!(lessor.time_to_live(7, u64::MAX), Some((0, 5)));
        for _ in 0..2 {
            lessor.report_again(found[0], 200 + 5 * SECOND);
        }
        assert_eq!(lessor.next_due(), Some(200 + 5 * SECOND));
        assert_eq!(
            lessor.expired(u64::MAX, 10),
            found,
            "nothing came of the proposal"
        );
        lessor.revoke(7);
        lessor.report_again(found[0], 0);
        assert!(lessor.expired(u64::MAX, 10).is_empty());
    }

    #[test]
    fn what_became_of_an_expiry_does_not_touch_the_id_granted_anew() {
        let mut lessor = Lessor::new();
        lessor.promote([lease(7, 5)], 0);
        let old = lessor.expired(5 * SECOND, 10);
        lessor.revoke(7);
        lessor.grant(lease(7, 60), 6 * SECOND);
        lessor.report_again(old[0], 7 * SECOND);
        assert_eq!(lessor.next_due(), Some(66 * SECOND));
        let fresh = lessor.expired(66 * SECOND, 10);
        lessor.report_again(old[0], 67 * SECOND);
        assert_eq!(
            lessor.next_due(),
            None,
            "the fresh one's revocation is on its way"
        );
        assert_ne!(fresh, old);
    }

    #[test]
    fn an_expiry_of_an_earlier_time_in_office_is_not_reported_again() {
        let mut lessor = Lessor::new();
        lessor.promote([lease(7, 5)], 0);
        let old = lessor.expired(5 * SECOND, 10);
        lessor.promote([lease(7, 5)], 10 * SECOND);
        assert_eq!(expired(&mut lessor, 15 * SECOND, 10), [7]);
        lessor.report_again(old[0], 16 * SECOND);
        assert_eq!(lessor.next_due(), None);
    }

    #[test]
    fn renewal_starts_the_full_ttl_again_and_cannot_save_an_expired_lease() {
        let mut lessor = Lessor::new();
        lessor.promote([lease(7, 5)], 0);
        assert_eq!(lessor.renew(7, 4 * SECOND), Some(5));
        assert_eq!(lessor.time_to_live(7, 4 * SECOND), Some((5, 5)));
        assert!(lessor.expired(8 * SECOND, 10).is_empty());
        assert_eq!(lessor.renew(7, 9 * SECOND), None);
        assert_eq!(lessor.time_to_live(7, 10 * SECOND), Some((0, 5)));
        assert_eq!(lessor.renew(8, 0), None);
    }

    #[test]
    fn a_new_leader_extends_every_lease_and_a_demoted_one_knows_nothing() {
        let mut lessor = Lessor::new();
        lessor.grant(lease(1, 5), 0);
        assert_eq!(lessor.time_to_live(1, 0), None, "not leading");
        lessor.promote([lease(1, 5), lease(2, 9)], 1_000 * SECOND);
        assert_eq!(expired(&mut lessor, 1_005 * SECOND, 10), [1]);
        lessor.demote();
        assert_eq!(lessor.next_due(), None);
        assert_eq!(lessor.renew(2, 0), None);
    }

    #[test]
    fn expiry_is_handed_out_in_portions() {
        let mut lessor = Lessor::new();
        lessor.promote((1..=5).map(|id| lease(id, id)), 0);
        assert_eq!(expired(&mut lessor, 10 * SECOND, 2), [1, 2]);
        assert_eq!(expired(&mut lessor, 10 * SECOND, 2), [3, 4]);
        assert_eq!(expired(&mut lessor, 10 * SECOND, 2), [5]);
    }
}
