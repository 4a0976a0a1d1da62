//! What the parts of a node produce during a step: effects for the driver, and inputs for the core, which the node feeds to it
//! before it hands the effects out.

use quorate_base::{Index, NodeId};
use quorate_raft::Input;

use crate::event::{Effects, Failure, LogOp, Token};
use crate::message::PeerMessage;

/// Gathers effects and inputs.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) effects: Effects,
    pub(crate) inputs: Vec<Input>,
    /// The number of the last cold read.
    last_read: u64,
}

impl Outbox {
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.effects.send.push((to, message));
    }

    pub(crate) fn answer(&mut self, token: Token, failure: Failure) {
        self.effects.answers.push((token, failure));
    }

    /// Asks the log for the bodies from `first` to `last`, and returns the read's number.
    pub(crate) fn read_log(&mut self, first: Index, last: Index, max_bytes: usize) -> u64 {
        self.last_read += 1;
        let id = self.last_read;
        self.effects.log.push(LogOp::Read {
            id,
            first,
            last,
            max_bytes,
        });
        id
    }
}
