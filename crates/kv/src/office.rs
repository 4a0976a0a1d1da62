//! A leader's time in office over leases: what it may say of them, and what it does about those that expire. Clock-fed like the
//! [`Lessor`] that it holds, and free of I/O: whoever drives it asks the node, carries answers and proposes. Until when a lease lives is
//! the lessor's affair; whether it exists is the state machine's.
//!
//! The rules that keep a lease from ending too early while leaders change:
//! - a leader takes office with the leases of a linearizable read that was begun in its term, each at its full TTL;
//! - a renewal is an answer only once a round that began after it has shown that its leader still leads;
//! - an expiry is proposed under the term in which it was seen, and is void in any other ([`expired`](Office::expired)).
//!
//! What takes a word with others comes in steps, each of which hands out what the next one needs:
//!
//! | | first | then | then |
//! | --- | --- | --- | --- |
//! | office | [`follow`](Office::follow) gives a [`Claim`] | a linearizable read of all leases | [`take`](Office::take) |
//! | renewal | [`renew`](Office::renew) gives a [`Renewal`] | a round | [`confirmed`](Office::confirmed) gives the answer |
//! | renewal of a lease not known here | [`renew`](Office::renew) gives a [`Look`] | a linearizable read | [`looked`](Office::looked) gives a [`Renewal`] |

use bytes::Bytes;
use quorate_base::Term;

use crate::command::{Applied, Command, Response};
use crate::kv::Kv;
use crate::lease::{Expired, Lessor};
use crate::types::Lease;

/// The lessor of one member, in office or not.
#[derive(Clone, Debug, Default)]
pub struct Office {
    lessor: Lessor,
    /// The term for which it is in office.
    term: Option<Term>,
}

/// The right to take office for a term, once the leases are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the office is to be taken"]
pub struct Claim {
    term: Term,
}

impl Claim {
    /// The term.
    pub fn term(self) -> Term {
        self.term
    }
}

/// What must come next before anything may be said of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a renewal is answered once leadership was confirmed"]
pub enum Next {
    /// There is no such lease here, but its grant may be committed and not applied on this member yet: a linearizable read, after which
    /// the office [looks again](Office::looked).
    Look(Look),
    /// A round begun from now on, which shows in which term this member leads, if it does: [`Office::confirmed`].
    Confirm(Renewal),
}

/// A lease that is to be looked for once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a renewal is answered once leadership was confirmed"]
pub struct Look {
    term: Term,
    id: i64,
}

/// A renewal that was made and is not to be spoken of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a renewal is answered once leadership was confirmed"]
pub struct Renewal {
    term: Term,
    id: i64,
    /// Whether it was there.
    found: bool,
}

impl Office {
    /// The term for which it is in office.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// The member leads in this term, or does not lead: an office that belongs to another term is left. If one is to be taken, the claim
    /// to it: with the leases as a linearizable read finds them that begins now or later.
    pub fn follow(&mut self, leads: Option<Term>) -> Option<Claim> {
        if self.term.is_some() && self.term != leads {
            self.term = None;
            self.lessor.demote();
        }
        let vacant = self.term.is_none();
        leads.filter(|_| vacant).map(|term| Claim { term })
    }

    /// Takes office. No entry may be applied between the reading of `leases` and this call. Leadership may be over by now: what is done in
    /// an office of a term that has ended is void, and [`follow`](Office::follow) leaves it.
    pub fn take(&mut self, claim: Claim, leases: impl IntoIterator<Item = Lease>, now: u64) {
        self.lessor.promote(leases, now);
        self.term = Some(claim.term);
    }

    /// A command was applied to `kv`: grants and revocations concern the lessor. Its deadlines follow this member's clock, which never
    /// touches the replicated state.
    pub fn applied(&mut self, kv: &Kv, command: &Bytes, applied: &Applied, now: u64) {
        match applied.response {
            Response::LeaseGrant { id, .. } => {
                let written = kv.lease(id).ok().flatten();
                self.lessor
                    .grant(written.expect("what was just granted stands in memory"), now);
            }
            Response::LeaseRevoke { void: false } => {
                if let Ok(Command::LeaseRevoke { id, .. }) = Command::decode(command) {
                    self.lessor.revoke(id);
                }
            }
            _ => {}
        }
    }

    /// Renews a lease, if this member is in office.
    pub fn renew(&mut self, id: i64, now: u64) -> Option<Next> {
        let term = self.term?;
        Some(match self.lessor.renew(id, now) {
            None => Next::Look(Look { term, id }),
            Some(_) => Next::Confirm(Renewal {
                term,
                id,
                found: true,
            }),
        })
    }

    /// A linearizable read, begun after [`renew`](Office::renew) knew no such lease, has been served: whatever was granted before the renewal was
    /// asked for is known now. Renews it, if this is still the same office.
    pub fn looked(&mut self, look: Look, now: u64) -> Option<Renewal> {
        let Look { term, id } = look;
        (self.term == Some(term)).then(|| Renewal {
            term,
            id,
            found: self.lessor.renew(id, now).is_some(),
        })
    }

    /// What may be answered to a renewal when a round *begun after it* has shown that this member leads in `term`, and everything that was
    /// committed before the round is applied: the seconds that are left, since who is told of them counts from the answer; or that there is no such lease.
    /// It may have been revoked before the renewal was asked for, or granted anew, and that be known to whoever asked, but not here until now.
    ///
    /// `None` if the renewal means nothing and is to be asked for again. That is so in another term: another leader may have let the lease expire in
    /// between. And so if all this took so long that the lease has expired since: the round is too old to show that nobody else has renewed it.
    pub fn confirmed(&self, renewal: Renewal, term: Term, now: u64) -> Option<Option<i64>> {
        let Renewal { term: of, id, found } = renewal;
        if self.term != Some(term) || term != of {
            return None;
        }
        match self.lessor.left(id, now).filter(|_| found) {
            Some(0) => None,
            told => Some(told),
        }
    }

    /// Remaining and granted seconds, see [`Lessor::time_to_live`].
    pub fn time_to_live(&self, id: i64, now: u64) -> Option<(i64, i64)> {
        self.lessor.time_to_live(id, now)
    }

    /// Up to `limit` leases that have expired, with the commands to propose, in the form for this feature level of the cluster. Each carries
    /// the term of this office and is void in any other, so nothing bad comes of one that goes through another leader. From
    /// [`level::NAMED_GRANTS`](crate::level::NAMED_GRANTS) on it names the grant and is void for any other, so nothing bad comes of one
    /// that is late, after a client revoked the lease and took the id anew.
    pub fn expired(&mut self, level: u32, now: u64, limit: usize) -> Vec<(Expired, Command)> {
        let Some(term) = self.term else {
            return Vec::new();
        };
        let expired = self.lessor.expired(now, limit).into_iter();
        expired
            .map(|expired| (expired, Command::expiry(level, term, expired)))
            .collect()
    }

    /// The proposal to revoke an expired lease certainly has no effect, so it is proposed again. Not to be called when its fate is unknown: proposed by
    /// the leader itself, it is committed in the term it carries, or is void; below feature level 2 a second one could end a lease that
    /// was granted under the same id after the first.
    pub fn not_done(&mut self, expired: Expired, now: u64) {
        self.lessor.report_again(expired, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::NAMED_GRANTS;
    use quorate_base::Index;

    const SECOND: u64 = 1_000_000_000;

    fn lease(id: i64, ttl: i64) -> Lease {
        let grant = Index(4);
        Lease { id, ttl, grant }
    }

    /// An office of this term, in which lease 7 lives for five seconds from now 0 on.
    fn taken(term: u64) -> Office {
        let mut office = Office::default();
        take(&mut office, term);
        office
    }

    fn take(office: &mut Office, term: u64) {
        let claim = office.follow(Some(Term(term))).expect("to be taken");
        assert_eq!(claim.term(), Term(term));
        office.take(claim, [lease(7, 5)], 0);
    }

    #[test]
    fn an_office_ends_with_its_term() {
        let mut office = Office::default();
        assert_eq!(office.follow(None), None);
        take(&mut office, 3);
        assert_eq!(office.follow(Some(Term(3))), None, "held");
        assert_eq!(office.term(), Some(Term(3)));
        assert!(
            office.follow(Some(Term(5))).is_some(),
            "leading again, in another term: anything may have happened between the two"
        );
        assert_eq!((office.term(), office.time_to_live(7, 0)), (None, None));
        take(&mut office, 5);
        assert_eq!(office.follow(None), None);
        assert_eq!(office.term(), None);
        assert!(office.expired(NAMED_GRANTS, u64::MAX, 9).is_empty());
    }

    #[test]
    fn a_claim_that_comes_late_is_to_an_office_that_is_left_at_once() {
        let mut office = Office::default();
        let claim = office.follow(Some(Term(3))).expect("to be taken");
        assert_eq!(office.follow(None), None, "deposed while the leases are read");
        office.take(claim, [lease(7, 5)], 0);
        let Some(Next::Confirm(renewal)) = office.renew(7, 0) else {
            panic!("the office does not know yet")
        };
        assert_eq!(office.confirmed(renewal, Term(4), 0), None, "void");
        assert!(
            office.follow(Some(Term(4))).is_some(),
            "it is left, and another to be taken"
        );
        assert_eq!(office.renew(7, 0), None);
    }

    #[test]
    fn a_renewal_counts_in_its_term_only() {
        assert_eq!(Office::default().renew(7, 0), None, "not in office");
        let mut office = taken(3);
        let Some(Next::Confirm(renewal)) = office.renew(7, SECOND) else {
            panic!("it is there")
        };
        assert_eq!(office.confirmed(renewal, Term(3), SECOND), Some(Some(5)));
        assert_eq!(office.confirmed(renewal, Term(4), SECOND), None);
        assert_eq!(office.time_to_live(7, SECOND), Some((5, 5)));
        assert_eq!(office.follow(None), None);
        assert_eq!(
            office.confirmed(renewal, Term(3), SECOND),
            None,
            "in office no more"
        );
    }

    #[test]
    fn a_renewal_of_what_turns_out_to_be_revoked_is_none() {
        let mut office = taken(3);
        let Some(Next::Confirm(renewal)) = office.renew(7, SECOND) else {
            panic!("it is there")
        };
        // Committed before the renewal was asked for, and applied here only now.
        office.lessor.revoke(7);
        assert_eq!(office.confirmed(renewal, Term(3), SECOND), Some(None));
        office.lessor.grant(lease(7, 2), SECOND);
        assert_eq!(
            office.confirmed(renewal, Term(3), SECOND),
            Some(Some(2)),
            "of another TTL"
        );
    }

    #[test]
    fn a_renewal_that_is_confirmed_late_is_told_what_is_left() {
        let mut office = taken(3);
        let Some(Next::Confirm(renewal)) = office.renew(7, SECOND) else {
            panic!("it is there")
        };
        let told = [1, 2, 5, 6, 9].map(|now| office.confirmed(renewal, Term(3), now * SECOND));
        assert_eq!(
            told,
            [Some(Some(5)), Some(Some(4)), Some(Some(1)), None, None],
            "it is denied after another round only"
        );
        assert_eq!(
            office.confirmed(renewal, Term(3), SECOND + 1),
            Some(Some(5)),
            "a round takes a moment"
        );
        let Some(Next::Look(look)) = office.renew(7, 9 * SECOND) else {
            panic!("it has expired")
        };
        let again = office.looked(look, 9 * SECOND).expect("in office");
        assert_eq!(office.confirmed(again, Term(3), 9 * SECOND), Some(None));
        office.lessor.revoke(7);
        assert_eq!(
            office.confirmed(renewal, Term(3), 9 * SECOND),
            Some(None),
            "its end is in the log, and was applied"
        );
    }

    #[test]
    fn a_lease_that_is_not_known_is_looked_for_once() {
        let mut office = taken(3);
        let Some(Next::Look(look)) = office.renew(8, SECOND) else {
            panic!("there is none")
        };
        let nothing = office.looked(look, SECOND).expect("in office");
        assert_eq!(office.confirmed(nothing, Term(3), SECOND), Some(None));
        assert_eq!(
            office.confirmed(nothing, Term(4), SECOND),
            None,
            "nor is it denied by whom nobody follows"
        );
        office.lessor.grant(lease(8, 9), SECOND);
        let found = office.looked(look, SECOND).expect("in office");
        assert_eq!(
            office.confirmed(found, Term(3), SECOND),
            Some(Some(9)),
            "its grant was applied meanwhile"
        );
        assert_eq!(office.follow(None), None);
        assert_eq!(office.looked(look, SECOND), None, "deposed");
        take(&mut office, 5);
        assert_eq!(office.looked(look, SECOND), None, "in another office");
    }

    #[test]
    fn an_expiry_carries_the_term_of_the_office() {
        let mut office = taken(3);
        assert!(office.expired(NAMED_GRANTS, 5 * SECOND - 1, 9).is_empty());
        let mut reported = office.expired(NAMED_GRANTS, 5 * SECOND, 9);
        let (expired, command) = reported.pop().expect("it has expired");
        assert!(reported.is_empty(), "there was one");
        assert_eq!(command, Command::expiry(NAMED_GRANTS, Term(3), expired));
        assert!(office.expired(NAMED_GRANTS, u64::MAX, 9).is_empty(), "once");
        office.not_done(expired, 6 * SECOND);
        assert_eq!(office.expired(NAMED_GRANTS, 6 * SECOND, 9).len(), 1);
    }
}
