//! Who waits for what: the requests that the node knows by their tokens only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use quorate_base::{StateMachine, Term};
use quorate_node::event::{ChangeFailure, Failure, Token};
use quorate_raft::{BadChange, ChangeRefused};
use tokio::sync::oneshot;

use crate::error::{ChangeError, ChangeRefusal, ProposeError, ReadError, Reason};
use crate::inbox::{ChangeReply, Look};
use crate::membership::Membership;
use crate::metrics::Metrics;

/// Whoever waits for one proposal.
pub(crate) type Reply<S> = oneshot::Sender<Result<<S as StateMachine>::Output, ProposeError>>;

/// What hangs on one read of the node. All reads of a turn share one, as they share their fate.
pub(crate) enum Readers<S> {
    /// They want to see the state.
    Looks(Vec<Look<S>>),
    /// They want to know that this node leads.
    Confirms(Vec<oneshot::Sender<Result<Term, ReadError>>>),
}

impl<S> Readers<S> {
    /// Tells all of them that it failed.
    pub(crate) fn fail(self, error: ReadError) {
        match self {
            Readers::Looks(looks) => looks.into_iter().for_each(|look| look(Err(error))),
            Readers::Confirms(replies) => {
                for reply in replies {
                    let _ = reply.send(Err(error));
                }
            }
        }
    }
}

/// See the module.
pub(crate) struct Replies<S: StateMachine> {
    last: Token,
    proposals: HashMap<Token, (Instant, Reply<S>)>,
    reads: BTreeMap<Token, Readers<S>>,
    changes: BTreeMap<Token, ChangeReply>,
    metrics: Arc<Metrics>,
}

impl<S: StateMachine> Replies<S> {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Replies<S> {
        Replies {
            last: 0,
            proposals: HashMap::new(),
            reads: BTreeMap::new(),
            changes: BTreeMap::new(),
            metrics,
        }
    }

    fn token(&mut self) -> Token {
        self.last += 1;
        self.last
    }

    /// Notes a proposal; answers its token.
    pub(crate) fn proposal(&mut self, arrived: Instant, reply: Reply<S>) -> Token {
        let token = self.token();
        self.proposals.insert(token, (arrived, reply));
        token
    }

    /// Notes a read; answers its token.
    pub(crate) fn read(&mut self, readers: Readers<S>) -> Token {
        let token = self.token();
        self.reads.insert(token, readers);
        token
    }

    /// Notes a membership change; answers its token.
    pub(crate) fn change(&mut self, reply: ChangeReply) -> Token {
        let token = self.token();
        self.changes.insert(token, reply);
        token
    }

    /// A membership change has ended, with this membership if it was done.
    pub(crate) fn changed(&mut self, token: Token, end: Result<Membership, ChangeFailure>) {
        let reply = self
            .changes
            .remove(&token)
            .expect("a membership change is answered once");
        let _ = reply.send(end.map_err(change_error));
    }

    /// A proposal was applied here.
    pub(crate) fn applied(&mut self, token: Token, output: S::Output) {
        let (arrived, reply) = self
            .proposals
            .remove(&token)
            .expect("a proposal is answered once");
        self.metrics.commit_latency.observe(arrived.elapsed());
        // Nobody there any more is no error.
        let _ = reply.send(Ok(output));
    }

    /// A proposal ended otherwise.
    pub(crate) fn failed(&mut self, token: Token, failure: Failure) {
        let (_, reply) = self
            .proposals
            .remove(&token)
            .expect("a proposal is answered once");
        let _ = reply.send(Err(match failure {
            Failure::NotDone(why) => ProposeError::NotDone(reason(why)),
            Failure::Unknown(why) => ProposeError::Unknown(reason(why)),
        }));
    }

    /// Whoever waits for this read, which is answered now.
    pub(crate) fn readers(&mut self, token: Token) -> Readers<S> {
        self.reads.remove(&token).expect("a read is answered once")
    }

    /// How many proposals wait.
    pub(crate) fn waiting(&self) -> usize {
        self.proposals.len()
    }
}

/// The node's reasons in this crate's words.
pub(crate) fn reason(why: quorate_node::event::Reason) -> Reason {
    use quorate_node::event::Reason as Theirs;
    match why {
        Theirs::NoLeader => Reason::NoLeader,
        Theirs::LeaderChanged => Reason::LeaderChanged,
        Theirs::LinkDown => Reason::LinkDown,
        Theirs::Timeout => Reason::Timeout,
        Theirs::Busy => Reason::Busy,
        Theirs::TooLarge => Reason::TooLarge,
        Theirs::Stopping => Reason::Stopped,
    }
}

/// Likewise for membership changes.
fn change_error(failure: ChangeFailure) -> ChangeError {
    use ChangeRefused as Why;
    ChangeError::NotDone(match failure {
        ChangeFailure::Unknown(why) => return ChangeError::Unknown(reason(why)),
        ChangeFailure::NotDone(why) => ChangeRefusal::Request(reason(why)),
        ChangeFailure::Level => ChangeRefusal::Level,
        ChangeFailure::Refused(why) => match why {
            Why::NotLeader(_) => ChangeRefusal::Request(Reason::NoLeader),
            Why::Transferring => ChangeRefusal::Transferring,
            Why::Pending => ChangeRefusal::Pending,
            Why::NotCaughtUp(id) => ChangeRefusal::NotCaughtUp(id),
            Why::WouldLoseQuorum => ChangeRefusal::WouldLoseQuorum,
            Why::Bad(bad) => match bad {
                BadChange::NotMember(id) => ChangeRefusal::NotMember(id),
                BadChange::AlreadyMember(id) => ChangeRefusal::AlreadyMember(id),
                BadChange::WasRemoved(id) => ChangeRefusal::WasRemoved(id),
                BadChange::NotLearner(id) => ChangeRefusal::NotLearner(id),
                BadChange::NoVoters => ChangeRefusal::NoVoters,
                BadChange::Nothing => ChangeRefusal::Nothing,
                // Nobody here asks for that, so the leader that says so means something else.
                BadChange::LowerLevel => ChangeRefusal::Nothing,
            },
        },
    })
}
