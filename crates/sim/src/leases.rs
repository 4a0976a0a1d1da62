//! Leases on running nodes: the production office over leases, driven as the server drives it. It follows the node's leadership, takes
//! office after a linearizable read, proposes the end of what has expired, and answers renewals after a round; renewals that reach
//! another node travel to the leader. Which commands clients send is in [`clients`](crate::clients), what must hold of leases in
//! [`ghost`](crate::ghost::leases).

use std::collections::BTreeMap;

use quorate_base::{NodeId, Term};
use quorate_kv::lease::Expired;
use quorate_kv::office::{Claim, Look, Next, Office, Renewal};
use quorate_kv::{Applied, Response};
use quorate_node::Failure as Refusal;
use quorate_node::event::{Event, Token};
use quorate_raft::RoleKind;

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::history::{Action, Outcome};
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::world::{Happening, World};

/// Tokens of what is asked for leases begin here, far from those of the clients and of the operator.
pub(crate) const FIRST_TOKEN: Token = 1 << 41;

/// How often a leader looks for expired leases, on its own clock.
const TICK: u64 = 500 * MS;

/// How long requests of the office itself may take.
const PATIENCE: u64 = 5 * SEC;

/// The request of a client: where it asked, in which run of that node, under which token.
pub(crate) type Origin = (NodeId, u64, Token);

/// What a process knows of leases.
#[derive(Debug, Default)]
pub struct Tenure {
    office: Office,
    /// The term that the node led when this was looked at last.
    seen: Option<Term>,
    /// The turn that will come; earlier ones are void.
    turn: u64,
    /// The cluster's feature level, as the state machine was told.
    pub level: u32,
    last_token: Token,
    reads: BTreeMap<Token, Read>,
    expiries: BTreeMap<Token, Expired>,
}

/// What a read of the node is for.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// To take office.
    Office(Claim),
    /// To see whether a lease was granted that is not known here yet.
    Look(Origin, Look),
    /// To confirm leadership after a renewal.
    Confirm(Origin, Renewal),
}

impl Tenure {
    fn token(&mut self) -> Token {
        self.last_token += 1;
        FIRST_TOKEN + self.last_token
    }
}

impl World {
    /// The term that a running node leads.
    fn leads(&self, id: NodeId) -> Option<Term> {
        let raft = self.hosts[&id].process.as_ref()?.node.raft();
        (raft.role() == RoleKind::Leader).then(|| raft.term())
    }

    /// The node has made a step: if its leadership is not what the office knows, that will be looked at soon.
    pub(crate) fn watch_leadership(&mut self, id: NodeId) {
        let leads = self.leads(id);
        let Some(process) = self.process(id) else { return };
        let held = process.tenure.office.term();
        if process.tenure.seen == leads && (held.is_none() || held == leads) {
            return;
        }
        process.tenure.seen = leads;
        let delay = self.rng.within(0..20 * MS);
        self.lease_turn_after(id, delay);
    }

    fn lease_turn_after(&mut self, id: NodeId, delay: u64) {
        let run = self.hosts[&id].run;
        let tenure = &mut self.process(id).expect("it is running").tenure;
        tenure.turn += 1;
        let turn = tenure.turn;
        self.after(delay, Happening::LeaseTurn { id, run, turn });
    }

    /// The office follows the node's leadership, and the leader looks for expired leases.
    pub(crate) fn lease_turn(&mut self, id: NodeId, turn: u64) -> Result<(), Failure> {
        let leads = self.leads(id);
        let (local, clock) = (self.hosts[&id].local(self.now), self.hosts[&id].clock);
        let tenure = &mut self.process(id).expect("it is running").tenure;
        if tenure.turn != turn {
            return Ok(());
        }
        let claim = tenure.office.follow(leads);
        let asked = tenure.reads.values().any(|read| matches!(read, Read::Office(_)));
        let mut events = Vec::new();
        if let Some(claim) = claim.filter(|_| !asked) {
            let token = tenure.token();
            tenure.reads.insert(token, Read::Office(claim));
            events.push(read(token, true, local));
        }
        let level = tenure.level;
        let reported = tenure.office.expired(level, local, 500);
        for (expired, command) in reported {
            let tenure = &mut self.process(id).expect("it is running").tenure;
            let token = tenure.token();
            tenure.expiries.insert(token, expired);
            self.ghost
                .leases
                .proposed(&command, (id, clock.drift()), self.now);
            self.trace.mark(
                Topic::Client,
                self.now,
                Some(id),
                format_args!("sees lease {} expire", expired.id),
            );
            events.push(Event::Propose {
                token,
                command: command.encode(),
                deadline: local + PATIENCE,
            });
        }
        if leads.is_some() {
            self.lease_turn_after(id, TICK);
        }
        for event in events {
            self.step_node(id, event)?;
        }
        Ok(())
    }

    /// The state machine has applied a command.
    pub(crate) fn tell_office(&mut self, id: NodeId, command: &bytes::Bytes, applied: &Applied) {
        if !matches!(
            applied.response,
            Response::LeaseGrant { .. } | Response::LeaseRevoke { .. }
        ) {
            return;
        }
        let local = self.hosts[&id].local(self.now);
        let process = self.process(id).expect("its machine is at work");
        process
            .tenure
            .office
            .applied(&process.kv, command, applied, local);
    }

    /// A proposal of the office has ended.
    pub(crate) fn expiry_ended(&mut self, id: NodeId, token: Token, outcome: &Outcome) {
        let local = self.hosts[&id].local(self.now);
        let tenure = &mut self.process(id).expect("it has just answered").tenure;
        let expired = tenure.expiries.remove(&token);
        let expired = expired.unwrap_or_else(|| panic!("n{id} answers the request {token} twice"));
        if *outcome == Outcome::NotDone {
            tenure.office.not_done(expired, local);
        }
    }

    /// A client's renewal has reached a node: the one that it asked, or the leader that this one knows.
    pub(crate) fn renewal(&mut self, id: NodeId, origin: Origin, lease: i64) -> Result<(), Failure> {
        let raft = self.process(id).expect("it is running").node.raft();
        let (leader, member) = (raft.leader(), raft.id());
        match leader {
            Some(leader) if leader != member && id == origin.0 => {
                let leader = self.machine_of(leader);
                if self.reach(id, leader)
                    && let Some(run) = self.hosts.get(&leader).map(|host| host.run)
                {
                    let delay = self.rng.within(MS / 10..5 * MS);
                    let id = leader;
                    self.after(
                        delay,
                        Happening::Renewal {
                            id,
                            run,
                            origin,
                            lease,
                        },
                    );
                }
                Ok(())
            }
            Some(leader) if leader == member => self.renew_here(id, origin, lease),
            _ => {
                self.tell_renewed(id, origin, Outcome::NotDone);
                Ok(())
            }
        }
    }

    fn reach(&self, from: NodeId, to: NodeId) -> bool {
        let open = |pair| self.net.link(pair).is_some_and(|link| !link.cut);
        from == to || (open((from, to)) && open((to, from)))
    }

    /// The leader's part.
    fn renew_here(&mut self, id: NodeId, origin: Origin, lease: i64) -> Result<(), Failure> {
        let local = self.hosts[&id].local(self.now);
        let office = &mut self.process(id).expect("it is running").tenure.office;
        let next = office.renew(lease, local);
        self.go_on(id, origin, next)
    }

    /// Asks the node for what the office wants before anything is said of a renewal. Without office it is refused.
    fn go_on(&mut self, id: NodeId, origin: Origin, next: Option<Next>) -> Result<(), Failure> {
        let (purpose, forward) = match next {
            None => {
                self.tell_renewed(id, origin, Outcome::NotDone);
                return Ok(());
            }
            Some(Next::Confirm(renewal)) if self.hasty => {
                self.confirmed(id, origin, renewal);
                return Ok(());
            }
            Some(Next::Look(look)) => (Read::Look(origin, look), true),
            Some(Next::Confirm(renewal)) => (Read::Confirm(origin, renewal), false),
        };
        let local = self.hosts[&id].local(self.now);
        let tenure = &mut self.process(id).expect("it is running").tenure;
        let token = tenure.token();
        tenure.reads.insert(token, purpose);
        self.step_node(id, read(token, forward, local))
    }

    /// The node leads after a renewal, in its own opinion: what the office allows to answer then.
    fn confirmed(&mut self, id: NodeId, origin: Origin, renewal: Renewal) {
        let local = self.hosts[&id].local(self.now);
        let answer = self.leads(id).and_then(|term| {
            let office = &self.hosts[&id].process.as_ref()?.tenure.office;
            let ttl = office.confirmed(renewal, term, local)?;
            Some(Outcome::Renewed { ttl, term })
        });
        if let Some(Outcome::Renewed { ttl: Some(left), .. }) = answer
            && let Some(pending) = self.pending.get(&origin)
            && let Action::Renew { lease } = self.calls[pending.call].action
        {
            let (asked, now) = (pending.asked, self.now);
            self.ghost.leases.told(lease, id, asked, now, left);
        }
        self.tell_renewed(id, origin, answer.unwrap_or(Outcome::NotDone));
    }

    /// A read that was asked for leases may be served, or has failed.
    pub(crate) fn lease_read(
        &mut self,
        id: NodeId,
        token: Token,
        result: Result<(), Refusal>,
    ) -> Result<(), Failure> {
        let local = self.hosts[&id].local(self.now);
        let process = self.process(id).expect("it has just answered");
        let read = process.tenure.reads.remove(&token);
        let read = read.unwrap_or_else(|| panic!("n{id} answers the read {token} twice"));
        match (read, result) {
            (Read::Office(claim), Ok(())) => {
                let leases = catch(|| process.kv.leases().map_err(|error| error.to_string()));
                let Some(leases) = self.settle(id, leases)? else {
                    return Ok(());
                };
                let tenure = &mut self.process(id).expect("settled").tenure;
                tenure.office.take(claim, leases, local);
                self.trace.mark(
                    Topic::Client,
                    self.now,
                    Some(id),
                    format_args!("holds the leases in term {}", claim.term()),
                );
                self.watch_leadership(id);
            }
            // It is tried again with the next tick.
            (Read::Office(_), Err(_)) => {}
            (Read::Look(origin, look), Ok(())) => {
                let next = process.tenure.office.looked(look, local).map(Next::Confirm);
                self.go_on(id, origin, next)?;
            }
            (Read::Confirm(origin, renewal), Ok(())) => self.confirmed(id, origin, renewal),
            (Read::Look(origin, _) | Read::Confirm(origin, _), Err(_)) => {
                self.tell_renewed(id, origin, Outcome::NotDone);
            }
        }
        Ok(())
    }

    /// The answer to a renewal goes back to where it was asked.
    fn tell_renewed(&mut self, id: NodeId, origin: Origin, outcome: Outcome) {
        if self.reach(id, origin.0) {
            let delay = if id == origin.0 {
                0
            } else {
                self.rng.within(MS / 10..5 * MS)
            };
            self.after(delay, Happening::Renewed { origin, outcome });
        }
    }

    /// The answer to a renewal is there, or nobody waits for it any longer.
    pub(crate) fn renewed(&mut self, origin: Origin, outcome: Outcome) -> Result<(), Failure> {
        let Some(pending) = self.pending.get(&origin) else {
            return Ok(());
        };
        let Action::Renew { lease } = self.calls[pending.call].action else {
            panic!("{origin:?} is not a renewal");
        };
        if let Outcome::Renewed { ttl, term } = outcome
            && let Some(leader) = self.ghost.leader_of(term)
        {
            let clock = (leader, self.hosts[&leader].clock.drift());
            self.ghost.renewed(lease, clock, (pending.asked, self.now), ttl)?;
        }
        if let Outcome::Renewed { ttl: Some(_), term } = outcome
            && self.ghost.leases.promised(lease, pending.asked, Some(term))?
        {
            self.coverage.hit(Kind::LeaseRenewedAcrossLeaders);
        }
        self.answer(origin.0, origin.2, outcome);
        Ok(())
    }

    /// A client is about to be told that its lease was granted: that is a promise too.
    pub(crate) fn note_grant(&mut self, id: NodeId, token: Token, applied: &Applied) -> Result<(), Failure> {
        let Response::LeaseGrant { id: lease, .. } = applied.response else {
            return Ok(());
        };
        let run = self.hosts[&id].run;
        if let Some(pending) = self.pending.get(&(id, run, token)) {
            self.ghost.leases.promised(lease, pending.asked, None)?;
        }
        Ok(())
    }
}

fn read(token: Token, forward: bool, local: u64) -> Event {
    Event::Read {
        token,
        forward,
        deadline: local + PATIENCE,
    }
}
