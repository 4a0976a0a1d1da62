//! Clients: each asks one thing at a time, of any node, and remembers what it was told. Values are never written twice, so that
//! the history shows whose write is whose.

use bytes::Bytes;
use quorate_base::{Index, NodeId, StateMachine};
use quorate_kv::level::NAMED_GRANTS;
use quorate_kv::{
    Command, Compare, CompareOp, CompareTarget, DeleteRangeRequest, Error, PutRequest, RangeRequest,
    RequestOp, Response, TxnRequest,
};
use quorate_node::Failure as Refusal;
use quorate_node::event::{Event, Token};

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::history::{Action, Call, Outcome};
use crate::leases;
use crate::params::{MS, Params, SEC};
use crate::picture::Topic;
use crate::rng::Rng;
use crate::sessions::Session;
use crate::trace::Nanos;
use crate::turn::is_told;
use crate::world::{Happening, Pending, World};

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    number: u64,
    rng: Rng,
    /// The lease that it holds, as far as it knows.
    lease: Option<i64>,
    session: Session,
    /// How many ids it has had leases under.
    leases: i64,
    /// The last value read, with its key: what a compare-and-swap expects.
    seen: Option<(Bytes, Bytes)>,
    /// The largest revision seen.
    revision: i64,
    /// Waits longer than any healthy cluster needs.
    patient: bool,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Outcome {
        match refusal {
            Refusal::NotDone(_) => Outcome::NotDone,
            Refusal::Unknown(_) => Outcome::Unknown,
        }
    }
}

impl Client {
    pub(crate) fn new(number: u64, rng: Rng) -> Client {
        Client {
            number,
            rng,
            lease: None,
            session: Session::default(),
            leases: 0,
            seen: None,
            revision: 1,
            patient: false,
        }
    }

    /// From now on this client gives up only after what no healthy cluster needs.
    pub(crate) fn become_patient(&mut self) {
        self.patient = true;
    }

    fn patience(&mut self) -> Nanos {
        if self.patient {
            8 * SEC
        } else {
            self.rng.within(300 * MS..5 * SEC)
        }
    }

    fn key(&mut self, keys: u64) -> Bytes {
        format!("key{:02}", self.rng.within(0..keys)).into()
    }

    /// A key that may be attached to a lease.
    fn leased_key(&mut self) -> Bytes {
        format!("tmp{:02}", self.rng.within(0..12)).into()
    }

    /// A value that carries the number of its call, so that it is unlike every other.
    fn value(&mut self, number: usize) -> Bytes {
        let padding = match self.rng.below(40) {
            0 => self.rng.within(1_000..6_000),
            _ => self.rng.within(0..100),
        };
        format!("v{number}:{}", "x".repeat(padding as usize)).into()
    }

    fn read(&mut self, keys: u64) -> Action {
        let serializable = self.rng.below(4) == 0;
        let mut request = RangeRequest {
            key: self.key(keys),
            ..RangeRequest::default()
        };
        match self.rng.below(10) {
            0 | 1 => (request.key, request.range_end) = ("key".into(), "kez".into()),
            3 => (request.key, request.range_end) = ("tmp".into(), "tmq".into()),
            2 => request.revision = (self.revision - self.rng.within(0..60) as i64).max(1),
            _ => {}
        }
        Action::Read {
            request,
            serializable,
        }
    }

    fn swap(&mut self, keys: u64, number: usize) -> Command {
        let (key, target) = match self.seen.take() {
            Some((key, value)) if self.rng.coin() => (key, CompareTarget::Value(value)),
            _ => {
                let key = self.key(keys);
                let known = self.revision;
                let target = if self.rng.coin() {
                    CompareTarget::Version(0)
                } else {
                    CompareTarget::Mod(known)
                };
                (key, target)
            }
        };
        let op = if self.rng.coin() {
            CompareOp::Equal
        } else {
            CompareOp::Less
        };
        let put = PutRequest {
            key: key.clone(),
            value: self.value(number),
            ..PutRequest::default()
        };
        let get = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        Command::Txn(TxnRequest {
            compare: vec![Compare {
                key,
                range_end: Bytes::new(),
                op,
                target,
            }],
            success: vec![RequestOp::Put(put), RequestOp::Range(get.clone())],
            failure: vec![RequestOp::Range(get)],
        })
    }

    fn pair(&mut self, keys: u64, number: usize) -> Command {
        let (one, other) = (self.key(keys), self.key(keys));
        let put = |key: &Bytes, value| {
            RequestOp::Put(PutRequest {
                key: key.clone(),
                value,
                ..PutRequest::default()
            })
        };
        let mut success = vec![put(&one, self.value(number))];
        if one != other {
            success.push(put(&other, format!("{}+", number).into()));
        }
        Command::Txn(TxnRequest {
            success,
            ..TxnRequest::default()
        })
    }

    /// What it does next about leases, at a node that may propose forms of this feature level: it grants itself one, attaches keys,
    /// renews, and lets it expire more often than it revokes it.
    fn lease(&mut self, level: u32, max_ttl: u64, number: usize) -> Action {
        let Some(lease) = self.lease else {
            // The same id anew is a matter of named grants.
            if self.leases == 0 || level < NAMED_GRANTS || self.rng.coin() {
                self.leases += 1;
            }
            let id = (self.number as i64 + 1) * 10_000 + self.leases;
            let ttl = self.rng.within(1..max_ttl + 1) as i64;
            return Action::Write(Command::grant(level, id, ttl));
        };
        let key = self.leased_key();
        let put = |lease, value| PutRequest {
            key: key.clone(),
            value,
            lease,
            ..PutRequest::default()
        };
        Action::Write(match self.rng.below(20) {
            0..8 => return Action::Renew { lease },
            8..15 => Command::Put(put(lease, self.value(number))),
            15 => Command::Put(put(0, self.value(number))),
            16 => Command::Txn(TxnRequest {
                success: vec![
                    RequestOp::Put(put(lease, self.value(number))),
                    RequestOp::Put(PutRequest {
                        key: self.key(1),
                        value: format!("{number}+").into(),
                        ..PutRequest::default()
                    }),
                ],
                ..TxnRequest::default()
            }),
            17 => Command::DeleteRange(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            }),
            18 => Command::LeaseRevoke {
                id: lease,
                expiry: None,
            },
            _ => {
                // It dies, as far as the cluster can see, and comes again without knowing of its lease.
                self.lease = None;
                return self.read(1);
            }
        })
    }

    fn next_action(&mut self, params: &Params, level: u32, number: usize) -> Action {
        let (keys, prev_kv) = (params.keys, self.rng.coin());
        Action::Write(match self.rng.below(100) {
            0..36 => Command::Put(PutRequest {
                key: self.key(keys),
                value: self.value(number),
                prev_kv,
                ..PutRequest::default()
            }),
            36..45 => Command::DeleteRange(DeleteRangeRequest {
                key: self.key(keys),
                prev_kv,
                ..DeleteRangeRequest::default()
            }),
            45..57 => self.swap(keys, number),
            57..62 => self.pair(keys, number),
            62 => {
                let revision = (self.revision - self.rng.within(0..50) as i64).max(1);
                Command::Compact {
                    revision,
                    physical: self.rng.coin(),
                }
            }
            63..68 => return Action::Session(self.session.next(&mut self.rng, number)),
            68..80 => return self.lease(level, params.max_ttl, number),
            _ => return self.read(keys),
        })
    }

    fn learn(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Written(Ok(applied)) => {
                self.revision = self.revision.max(applied.revision);
                match applied.response {
                    Response::LeaseGrant { id, .. } => self.lease = Some(id),
                    Response::LeaseRevoke { .. } => self.lease = None,
                    _ => {}
                }
            }
            Outcome::Session(answer) => self.session.learn(answer),
            Outcome::Written(Err(Error::LeaseNotFound)) | Outcome::Renewed { ttl: None, .. } => {
                self.lease = None
            }
            Outcome::Read(Ok(response)) => {
                self.revision = self.revision.max(response.revision);
                self.seen = response.kvs.first().map(|kv| (kv.key.clone(), kv.value.clone()));
            }
            _ => {}
        }
    }
}

impl World {
    /// A client's turn: it asks some node something.
    pub(crate) fn client_turn(&mut self, number: usize) {
        if self.healing || self.silent {
            return;
        }
        let running = self.running();
        if running.is_empty() {
            self.client_pause(number);
            return;
        }
        let call = self.calls.len();
        let id = self.clients[number].rng.pick(&running);
        let level = self.process(id).map_or(0, |process| process.tenure.level);
        let action = self.clients[number].next_action(&self.params, level, call);
        self.ask(number, id, action);
    }

    /// A client asks `id` for something.
    pub(crate) fn ask(&mut self, number: usize, id: NodeId, action: Action) {
        let invoked = self.moment();
        let call = self.calls.len();
        self.trace.mark(
            Topic::Client,
            self.now,
            Some(id),
            format_args!("client {number} asks {call}: {}", short(&action)),
        );
        self.calls.push(Call {
            client: number as u64,
            action: action.clone(),
            invoked,
            returned: u64::MAX,
            outcome: Outcome::Unknown,
        });
        let token = call as Token;
        let patience = self.clients[number].patience();
        let (run, deadline) = (self.hosts[&id].run, self.hosts[&id].local(self.now) + patience);
        let local = !matches!(
            action,
            Action::Read {
                serializable: false,
                ..
            }
        );
        let floor = if local {
            Index(0)
        } else {
            self.ghost.commits().last()
        };
        let pending = Pending {
            client: number,
            asked: self.now,
            call,
            floor,
        };
        self.pending.insert((id, run, token), pending);
        let event = match action {
            Action::Write(command) => Event::Propose {
                token,
                command: command.encode(),
                deadline,
            },
            Action::Session(command) => Event::Propose {
                token,
                command: command.encode(),
                deadline,
            },
            Action::Read {
                serializable: false, ..
            } => Event::Read {
                token,
                forward: true,
                deadline,
            },
            Action::Read {
                serializable: true, ..
            } => {
                self.after(0, Happening::LocalRead { id, run, token });
                return;
            }
            Action::Renew { lease } => {
                let origin = (id, run, token);
                self.after(
                    0,
                    Happening::Renewal {
                        id,
                        run,
                        origin,
                        lease,
                    },
                );
                let outcome = Outcome::Unknown;
                self.after(patience, Happening::Renewed { origin, outcome });
                return;
            }
        };
        self.after(0, Happening::Completion { id, run, event });
    }

    /// A read may be served by the node's state machine as it is now.
    pub(crate) fn serve_read(&mut self, id: NodeId, token: Token) -> Result<(), Failure> {
        let run = self.hosts[&id].run;
        let Some(pending) = self.pending.get(&(id, run, token)).copied() else {
            return Err(Failure::Correctness(format!(
                "n{id} answers the read {token} twice"
            )));
        };
        let Action::Read { request, .. } = self.calls[pending.call].action.clone() else {
            return Err(Failure::Correctness(format!(
                "n{id} answers the write {token} like a read"
            )));
        };
        let process = self.process(id).expect("it is serving");
        let applied = process.kv.applied().index;
        let answer = catch(|| Ok(process.kv.range(&request)));
        self.ghost.check_read(id, pending.floor, applied)?;
        let Some(answer) = self.settle(id, answer)? else {
            return Ok(());
        };
        if let Err(quorate_kv::Error::Storage(why)) = &answer {
            let told = self.hosts[&id].disk.has_faulted() && is_told(why);
            let met = !told && self.hosts[&id].in_store && self.names_damage(id, why)?;
            if met {
                self.read_store_damage(id, why);
            }
            if met || told {
                self.answer(id, token, Outcome::NotDone);
                return Ok(());
            }
        }
        self.ghost.machines.check_answer(id, applied, &request, &answer)?;
        self.answer(id, token, Outcome::Read(answer));
        Ok(())
    }

    /// A read that may be served the moment it was asked, without a word with anybody, is one that the leader's lease allows.
    pub(crate) fn note_lease_reads(&mut self, id: NodeId, reads: &[(Token, Result<(), Refusal>)]) {
        let run = self.hosts[&id].run;
        let voters = self.ghost.commits().config().voters.len();
        let at_once = |token: &Token| {
            let pending = self.pending.get(&(id, run, *token));
            pending.is_some_and(|pending| pending.asked == self.now)
        };
        let served = reads.iter().filter(|(_, end)| end.is_ok());
        if self.params.leases && voters > 1 && served.map(|(token, _)| token).any(at_once) {
            self.coverage.hit(Kind::LeaseRead);
        }
    }

    /// A request got its answer.
    pub(crate) fn answer(&mut self, id: NodeId, token: Token, outcome: Outcome) {
        if token >= leases::FIRST_TOKEN {
            return self.expiry_ended(id, token, &outcome);
        }
        let run = self.hosts[&id].run;
        let Some(pending) = self.pending.remove(&(id, run, token)) else {
            panic!("n{id} answers the request {token} twice, or one that nobody asked: {outcome:?}");
        };
        let returned = self.moment();
        match outcome {
            Outcome::Unknown => self.coverage.hit(Kind::UnknownOutcome),
            Outcome::Renewed { ttl: Some(_), .. } => self.coverage.hit(Kind::LeaseRenewed),
            _ => {}
        }
        let told = match &outcome {
            Outcome::Written(Ok(applied)) => format!("done, revision {}", applied.revision),
            Outcome::Read(Ok(response)) => format!("read, revision {}", response.revision),
            Outcome::Written(Err(error)) | Outcome::Read(Err(error)) => format!("error: {error}"),
            other => format!("{other:?}"),
        };
        let client = pending.client;
        self.trace.mark(
            Topic::Client,
            self.now,
            Some(id),
            format_args!("client {client} is told of {token}: {told}"),
        );
        self.clients[client].learn(&outcome);
        let call = &mut self.calls[pending.call];
        call.returned = returned;
        call.outcome = outcome;
        self.client_pause(client);
    }

    fn client_pause(&mut self, number: usize) {
        let pause = self.clients[number].rng.within(0..self.params.think);
        self.after(pause, Happening::Client(number));
    }
}

fn short(action: &Action) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned();
    match action {
        Action::Write(Command::Put(put)) => format!("put {} = {}", text(&put.key), text(&put.value)),
        Action::Write(Command::DeleteRange(delete)) => format!("delete {}", text(&delete.key)),
        Action::Write(Command::Txn(txn)) if txn.compare.is_empty() => "write a pair".to_owned(),
        Action::Write(Command::Txn(txn)) => format!("swap {}", text(&txn.compare[0].key)),
        Action::Write(Command::Compact { revision, .. }) => format!("compact {revision}"),
        Action::Write(other) => format!("{other:?}"),
        Action::Renew { lease } => format!("renew {lease}"),
        Action::Session(command) => format!("{command:?}"),
        Action::Read {
            request,
            serializable,
        } => {
            let how = if *serializable { "read locally" } else { "read" };
            format!("{how} {} at {}", text(&request.key), request.revision)
        }
    }
}
