//! Stopping in order: refuse proposals, hand leadership over, let those under way end, flush the machine. What follows (closing
//! connections and threads) follows from dropping the driver.

use quorate_base::{Index, StateMachine};
use quorate_node::event::{Event, Nanos};

use super::Driver;

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody has asked for it.
    No,
    /// Somebody else is to lead, and proposals under way are to end; not for longer than this.
    HandOver { until: Nanos },
    /// The machine is to be durable up to here; that is not waited for longer than this. Without it the next start has more of the log to
    /// apply again.
    Flush { upto: Index, until: Nanos },
    /// All is done.
    Done,
}

impl Stop {
    /// When to look again without any other reason.
    pub(crate) fn deadline(self) -> Option<Nanos> {
        match self {
            Stop::HandOver { until } | Stop::Flush { until, .. } => Some(until),
            Stop::No | Stop::Done => None,
        }
    }
}

impl<S: StateMachine> Driver<S> {
    pub(super) fn begin_stopping(&mut self, now: Nanos) {
        if self.stop != Stop::No {
            return;
        }
        tracing::info!("stopping");
        self.telling.stopping = true;
        self.stop = Stop::HandOver {
            until: now + self.election,
        };
        if self.node_leads() && self.heir_is_connected() {
            self.node.step(now, Event::Transfer(None));
        }
    }

    pub(super) fn go_on_stopping(&mut self, now: Nanos) {
        if let Stop::HandOver { until } = self.stop {
            let led = !self.node_leads() || !self.heir_is_connected();
            if (led && self.replies.waiting() == 0) || now >= until {
                self.stop = Stop::Flush {
                    upto: self.host.applied(),
                    until: now.saturating_add(self.patience),
                };
                let mut events = Vec::new();
                self.host.hurry(&mut events);
                self.step_all(now, events);
            }
        }
        if let Stop::Flush { upto, until } = self.stop {
            let flushed = self.host.is_flushed(upto);
            if !flushed && now >= until {
                tracing::warn!("the state machine is not flushed, and not waited for any longer");
            }
            if flushed || now >= until {
                self.stop = Stop::Done;
            }
        }
    }
}
