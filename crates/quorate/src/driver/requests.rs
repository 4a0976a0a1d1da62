//! What handles ask for: passed to the node with a deadline, or refused at once. The answers come back through `replies`.

use quorate_base::StateMachine;
use quorate_node::event::{Event, Nanos};
use quorate_raft::Change;

use super::Driver;
use super::replies::Readers;
use crate::error::{ChangeError, ChangeRefusal, ProposeError, Reason};
use crate::inbox::{ChangeReply, Look, Request};
use crate::status::Space;

impl<S: StateMachine> Driver<S> {
    /// Steps all requests; gives back the reads that want nothing of the node.
    pub(super) fn take_requests(&mut self, now: Nanos, requests: Vec<Request<S>>) -> Vec<Look<S>> {
        let deadline = now.saturating_add(self.timeout);
        let (mut looks, mut confirms, mut local) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Propose {
                    command,
                    arrived,
                    reply,
                } => {
                    let refuse = match self.telling.space {
                        _ if self.telling.stopping => Some(Reason::Stopped),
                        Space::Ok | Space::Low => None,
                        Space::Out => Some(Reason::NoSpace),
                    };
                    if let Some(why) = refuse {
                        let _ = reply.send(Err(ProposeError::NotDone(why)));
                    } else if !reply.is_closed() {
                        let token = self.replies.proposal(arrived, reply);
                        self.node.step(
                            now,
                            Event::Propose {
                                token,
                                command,
                                deadline,
                            },
                        );
                    }
                }
                Request::Read(look) => looks.push(look),
                Request::Local(look) => local.push(look),
                Request::Confirm(reply) => confirms.push(reply),
                Request::Reconfigure {
                    changes,
                    force,
                    reply,
                } => self.reconfigure(now, changes, force, reply),
                Request::Transfer(to) => self.node.step(now, Event::Transfer(to)),
                Request::Shutdown => self.begin_stopping(now),
            }
        }
        if !looks.is_empty() {
            let token = self.replies.read(Readers::Looks(looks));
            self.node.step(
                now,
                Event::Read {
                    token,
                    forward: true,
                    deadline,
                },
            );
        }
        if !confirms.is_empty() {
            let token = self.replies.read(Readers::Confirms(confirms));
            self.node.step(
                now,
                Event::Read {
                    token,
                    forward: false,
                    deadline,
                },
            );
        }
        local
    }

    fn reconfigure(&mut self, now: Nanos, changes: Vec<Change>, force: bool, reply: ChangeReply) {
        if self.telling.stopping {
            let why = ChangeRefusal::Request(Reason::Stopped);
            let _ = reply.send(Err(ChangeError::NotDone(why)));
            return;
        }
        let token = self.replies.change(reply);
        let deadline = now.saturating_add(self.timeout);
        self.node.step(
            now,
            Event::Reconfigure {
                token,
                changes,
                force,
                deadline,
            },
        );
    }
}
