//! Checks of the lives of leases (S17), in true time, which no node knows: an expiry takes effect only if it was proposed by the leader of
//! the term it is committed in, and not before the TTL has passed since the last renewal that a client was told of, on that leader's
//! clock, nor before what that leader said is left. That all keys of a lease go in one revision is the model's affair, see [`applying`](super::applying).

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::{Index, NodeId, Term};
use quorate_kv::{Applied, Command, Expiry, Response};

use super::{Ghost, Violation};
use crate::coverage::Kind;
use crate::params::SEC;
use crate::trace::Nanos;

/// What clients were promised, and what leaders proposed.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    lives: BTreeMap<i64, Life>,
    /// When each expiry was proposed, by whom, and how fast that one's clock runs: by lease, term and name of the grant.
    proposed: BTreeMap<(i64, Term, Option<Index>), Proposal>,
    /// When each machine's clock leapt ahead, and how far.
    leaps: BTreeMap<NodeId, Vec<(Nanos, Nanos)>>,
}

/// A lease, from its grant on, until its id is granted anew.
#[derive(Clone, Debug, Default)]
struct Life {
    /// For how many seconds it was granted.
    ttl: i64,
    /// The latest promise: the client asked at this moment, and was told that the lease lives.
    promised: Option<Nanos>,
    /// When a leader said of how many seconds that they are left, the last of which may have begun.
    told: BTreeMap<NodeId, (Nanos, i64)>,
    /// The terms whose leaders have renewed it.
    terms: BTreeSet<Term>,
    /// It has expired: this proposal took effect.
    expired: Option<Proposal>,
    /// When its end was applied first, by a client or by its leader.
    ended: Option<Nanos>,
    /// When its grant was applied first.
    granted: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Proposal {
    by: NodeId,
    at: Nanos,
    /// The error of the proposer's clock in millionths.
    drift: i64,
}

impl Leases {
    /// A leader has seen a lease expire and proposes to revoke it.
    pub fn proposed(&mut self, command: &Command, (by, drift): (NodeId, i64), at: Nanos) {
        if let Command::LeaseRevoke {
            id,
            expiry: Some(Expiry { term, grant }),
        } = command
        {
            // The first proposal is the earliest; one that is repeated is later.
            let proposal = Proposal { by, at, drift };
            self.proposed.entry((*id, *term, *grant)).or_insert(proposal);
        }
    }

    /// A machine's clock leapt.
    pub fn leapt(&mut self, id: NodeId, at: Nanos, by: Nanos) {
        self.leaps.entry(id).or_default().push((at, by));
    }

    /// The end of a lease was applied for the first time anywhere.
    fn ended(&mut self, id: i64, now: Nanos) {
        self.lives.entry(id).or_default().ended = Some(now);
    }

    /// What the clock of `id` has shown between two moments besides the time that passed.
    fn leaps(&self, id: NodeId, from: Nanos, to: Nanos) -> Nanos {
        let leaps = self.leaps.get(&id).into_iter().flatten();
        let between = leaps.filter(|(at, _)| (from..=to).contains(at));
        between.map(|(_, by)| by).sum()
    }

    /// Whether the TTL has passed since the promise, on the clock of this machine.
    fn has_passed(&self, seen: Proposal, (asked, ttl): (Nanos, i64)) -> bool {
        let Proposal { by, at, drift } = seen;
        let rate = 1_000_000 + drift as i128;
        let shown = (at as i128 - asked as i128) * rate / 1_000_000 + self.leaps(by, asked, at) as i128;
        // A clock that shows whole nanoseconds may round up.
        shown + 2 >= ttl as i128 * SEC as i128
    }

    /// The lease was seen to expire when so many seconds had passed since the promise, on the clock of the leader that saw it.
    fn check(&self, id: i64, proposal: Proposal, promise: (Nanos, i64)) -> Result<(), Violation> {
        if self.has_passed(proposal, promise) {
            return Ok(());
        }
        let ((since, ttl), Proposal { by, at, .. }) = (promise, proposal);
        let after = at as i128 - since as i128;
        Violation::because(
            "S17",
            format!("{by} lets lease {id} expire {after} ns after it was promised for {ttl} s"),
        )
    }

    /// A client that had asked at `asked` was told that its lease lives: by its grant, or by the leader of `term`. Returns
    /// whether leaders of several terms have renewed this lease.
    pub fn promised(&mut self, id: i64, asked: Nanos, term: Option<Term>) -> Result<bool, Violation> {
        let life = self.lives.entry(id).or_default();
        if asked < life.granted && term.is_some() {
            // About the lease that had this id before.
            return Ok(false);
        }
        life.promised = life.promised.max(Some(asked));
        life.terms.extend(term);
        let (ttl, several) = (life.ttl, life.terms.len() > 1);
        match life.expired {
            Some(proposal) => self.check(id, proposal, (asked, ttl)).map(|()| false),
            None => Ok(term.is_some() && several),
        }
    }

    /// A leader answers a renewal that was asked for at `asked`: so many seconds are left. Who hears that counts from now on.
    pub fn told(&mut self, id: i64, by: NodeId, asked: Nanos, now: Nanos, left: i64) {
        let life = self.lives.get_mut(&id).filter(|life| life.granted < asked);
        if let Some(life) = life {
            let (since, before) = life.told.get(&by).copied().unwrap_or_default();
            if since + before as u64 * SEC < now + left as u64 * SEC {
                life.told.insert(by, (now, left));
            }
        }
    }
}

impl Ghost {
    /// A command was applied for the first time anywhere, and answered so. Answers what that means for the life of a lease.
    pub(super) fn lease_applied(
        &mut self,
        now: Nanos,
        term: Term,
        command: &Command,
        applied: &Applied,
    ) -> Result<Option<Kind>, Violation> {
        match (command, &applied.response) {
            (Command::LeaseGrant { id, .. }, Response::LeaseGrant { ttl, .. }) => {
                let life = Life {
                    ttl: *ttl,
                    granted: now,
                    ..Life::default()
                };
                self.leases.lives.insert(*id, life);
                Ok(None)
            }
            (
                Command::LeaseRevoke {
                    id,
                    expiry: Some(expiry),
                },
                Response::LeaseRevoke { void: false },
            ) => {
                self.leases.ended(*id, now);
                self.check_expiry(*id, term, *expiry)?;
                Ok(Some(Kind::LeaseExpired))
            }
            (Command::LeaseRevoke { .. }, Response::LeaseRevoke { void: true }) => Ok(Some(Kind::ExpiryVoid)),
            (Command::LeaseRevoke { id, .. }, Response::LeaseRevoke { .. }) => {
                self.leases.ended(*id, now);
                Ok(Some(Kind::LeaseRevoked))
            }
            _ => Ok(None),
        }
    }

    /// The answer to a renewal that was asked for at `asked`, of the leader `by` with this error of its clock: a lease that lived all the
    /// while is known, with what is left since then of the TTL it was granted, unless it may be on its way out; one that had ended before is not.
    pub fn renewed(
        &self,
        id: i64,
        (by, drift): (NodeId, i64),
        (asked, now): (Nanos, Nanos),
        ttl: Option<i64>,
    ) -> Result<(), Violation> {
        let Some(life) = self.leases.lives.get(&id).filter(|life| life.granted < asked) else {
            return Ok(());
        };
        if let Some(ended) = life.ended {
            if ttl.is_none() || ended >= asked {
                return Ok(());
            }
            return Violation::because(
                "S17",
                format!("a renewal of lease {id}, which has ended, is told {ttl:?}"),
            );
        }
        let Some(promise) = life.promised else {
            return Ok(());
        };
        let seen = Proposal { by, at: now, drift };
        let right = match ttl {
            Some(left) => left <= life.ttl && self.leases.has_passed(seen, (asked, life.ttl - left)),
            None => self.leases.has_passed(seen, (promise, life.ttl)),
        };
        if right {
            return Ok(());
        }
        Violation::because(
            "S17",
            format!(
                "a renewal of lease {id}, granted for {} s, is told {ttl:?}",
                life.ttl
            ),
        )
    }

    fn check_expiry(&mut self, id: i64, term: Term, expiry: Expiry) -> Result<(), Violation> {
        let proposal = self.leases.proposed.get(&(id, term, expiry.grant)).copied();
        let Some(proposal) = proposal.filter(|_| expiry.term == term) else {
            return Violation::because(
                "S17",
                format!("lease {id} expires in term {term}, whose leader has not seen that"),
            );
        };
        if self.leaders.get(&term) != Some(&proposal.by) {
            return Violation::because(
                "S17",
                format!(
                    "{} lets lease {id} expire in term {term}, which it does not lead",
                    proposal.by
                ),
            );
        }
        let life = self.leases.lives.entry(id).or_default();
        life.expired = Some(proposal);
        let promise = life.promised.map(|asked| (asked, life.ttl));
        // Of other leaders' clocks this one's need not know.
        let told = life
            .told
            .get(&proposal.by)
            .map(|(since, left)| (*since, left - 1));
        let mut promises = promise.into_iter().chain(told);
        promises.try_for_each(|promise| self.leases.check(id, proposal, promise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::Config;

    const LEADER: NodeId = NodeId(1);

    fn ghost() -> Ghost {
        let mut ghost = Ghost::new(Config::of([LEADER, NodeId(2)]));
        ghost.leaders = [(Term(3), LEADER), (Term(4), NodeId(2))].into();
        let grant = Command::grant(2, 7, 5);
        let granted = Applied {
            revision: 1,
            response: Response::LeaseGrant { id: 7, ttl: 5 },
        };
        ghost.lease_applied(SEC, Term(3), &grant, &granted).unwrap();
        ghost
    }

    fn expiry(term: u64) -> Command {
        let expiry = Some(Expiry {
            term: Term(term),
            grant: None,
        });
        Command::LeaseRevoke { id: 7, expiry }
    }

    fn expire(ghost: &mut Ghost, seen: u64, term: u64) -> Result<Option<Kind>, Violation> {
        let applied = Applied {
            revision: 1,
            response: Response::LeaseRevoke { void: false },
        };
        ghost.lease_applied(60 * SEC, Term(term), &expiry(seen), &applied)
    }

    fn rule<T: std::fmt::Debug>(result: Result<T, Violation>) -> &'static str {
        result.expect_err("a broken rule").rule
    }

    #[test]
    fn a_lease_may_expire_when_its_time_is_over_on_the_leaders_clock() {
        let proposed_at = |at: Nanos, drift: i64| {
            let mut ghost = ghost();
            ghost.leases.promised(7, 2 * SEC, Some(Term(3))).unwrap();
            ghost.leases.proposed(&expiry(3), (LEADER, drift), at);
            expire(&mut ghost, 3, 3)
        };
        assert_eq!(proposed_at(7 * SEC, 0), Ok(Some(Kind::LeaseExpired)));
        assert_eq!(rule(proposed_at(7 * SEC - 3, 0)), "S17", "too early");
        assert_eq!(rule(proposed_at(6_950_000_000, 0)), "S17", "too early");
        assert!(
            proposed_at(6_950_000_000, 20_000).is_ok(),
            "by a clock that is fast"
        );
    }

    #[test]
    fn what_a_leader_says_is_left_counts_from_the_answer() {
        let expires = |told: i64, by: NodeId| {
            let mut ghost = ghost();
            ghost.leases.promised(7, 2 * SEC, Some(Term(3))).unwrap();
            ghost.leases.told(7, by, 2 * SEC, 4 * SEC, told);
            ghost.leases.told(7, by, 2 * SEC, 4 * SEC, 1);
            ghost.leases.proposed(&expiry(3), (LEADER, 0), 7 * SEC);
            expire(&mut ghost, 3, 3)
        };
        assert_eq!(expires(3, LEADER), Ok(Some(Kind::LeaseExpired)));
        assert!(expires(4, LEADER).is_ok(), "the last second had begun");
        assert_eq!(rule(expires(5, LEADER)), "S17");
        assert!(expires(5, NodeId(2)).is_ok(), "by another clock");
        // The lease that had this id before.
        let mut ghost = ghost();
        ghost.leases.told(7, LEADER, SEC / 2, 4 * SEC, 5);
        ghost.leases.proposed(&expiry(3), (LEADER, 0), 6 * SEC);
        assert!(expire(&mut ghost, 3, 3).is_ok());
    }

    #[test]
    fn a_renewal_is_told_no_less_than_can_be_left() {
        let mut ghost = ghost();
        ghost.leases.promised(7, 2 * SEC, Some(Term(3))).unwrap();
        let told = |now, left| ghost.renewed(7, (LEADER, 0), (3 * SEC, now), left);
        assert_eq!(told(4 * SEC, Some(5)), Ok(()));
        assert_eq!(told(5 * SEC, Some(3)), Ok(()));
        assert_eq!(rule(told(5 * SEC, Some(2))), "S17", "too little");
        assert_eq!(
            rule(told(5 * SEC, Some(6))),
            "S17",
            "more than it was granted for"
        );
        assert_eq!(rule(told(5 * SEC, None)), "S17", "it lives");
        assert_eq!(told(7 * SEC, None), Ok(()));
    }

    #[test]
    fn a_leap_of_the_clock_excuses_what_comes_after_it_only() {
        let leapt_at = |leap: Nanos| {
            let mut ghost = ghost();
            ghost.leases.leapt(LEADER, leap, 2 * SEC);
            ghost.leases.promised(7, 3 * SEC, Some(Term(3))).unwrap();
            ghost.leases.proposed(&expiry(3), (LEADER, 0), 6 * SEC);
            expire(&mut ghost, 3, 3)
        };
        assert_eq!(leapt_at(4 * SEC), Ok(Some(Kind::LeaseExpired)));
        assert_eq!(rule(leapt_at(2 * SEC)), "S17");
    }

    #[test]
    fn only_the_leader_of_the_term_may_let_a_lease_expire() {
        let mut nobody = ghost();
        assert_eq!(rule(expire(&mut nobody, 3, 3)), "S17", "proposed by nobody");
        let mut follower = ghost();
        follower.leases.proposed(&expiry(3), (NodeId(2), 0), 50 * SEC);
        assert_eq!(rule(expire(&mut follower, 3, 3)), "S17", "not its term");
        let mut late = ghost();
        late.leases.proposed(&expiry(3), (LEADER, 0), 50 * SEC);
        assert_eq!(rule(expire(&mut late, 3, 4)), "S17", "void in another term");
    }

    #[test]
    fn a_lease_that_has_ended_is_not_renewed() {
        let mut ghost = ghost();
        let revoke = Command::LeaseRevoke { id: 7, expiry: None };
        let applied = Applied {
            revision: 1,
            response: Response::LeaseRevoke { void: false },
        };
        ghost.lease_applied(4 * SEC, Term(3), &revoke, &applied).unwrap();
        let told = |asked, ttl| ghost.renewed(7, (LEADER, 0), (asked, 6 * SEC), ttl);
        assert_eq!(told(3 * SEC, Some(5)), Ok(()), "before its end, perhaps");
        assert_eq!(told(5 * SEC, None), Ok(()));
        assert_eq!(rule(told(5 * SEC, Some(5))), "S17");
    }

    #[test]
    fn a_promise_that_is_told_after_the_end_counts_too() {
        let mut ghost = ghost();
        ghost.leases.proposed(&expiry(3), (LEADER, 0), 10 * SEC);
        assert!(expire(&mut ghost, 3, 3).is_ok());
        assert_eq!(ghost.leases.promised(7, 5 * SEC, Some(Term(3))), Ok(false));
        assert_eq!(rule(ghost.leases.promised(7, 9 * SEC, Some(Term(3)))), "S17");
        ghost
            .lease_applied(
                70 * SEC,
                Term(3),
                &Command::grant(2, 7, 5),
                &Applied {
                    revision: 1,
                    response: Response::LeaseGrant { id: 7, ttl: 5 },
                },
            )
            .unwrap();
        assert_eq!(
            ghost.leases.promised(7, 9 * SEC, Some(Term(3))),
            Ok(false),
            "an earlier lease"
        );
    }
}
