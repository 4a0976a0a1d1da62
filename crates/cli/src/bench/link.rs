//! A connection that many clients share and that is always there again: when a server goes away, or says nothing more, the next
//! endpoint is dialled, and the one after that. What the clients had under way fails and is counted; nothing is sent twice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::wire::{Endpoint, Fault};

/// Between two rounds of dialling all endpoints in vain.
const PAUSE: Duration = Duration::from_millis(10);

/// A server that has answered nothing but "unavailable" for so long is left for the next one: it may be cut off from the others.
const USELESS_AFTER: Duration = Duration::from_secs(1);

/// gRPC's code UNAVAILABLE.
const UNAVAILABLE: i32 = 14;

/// One connection of the load, to one endpoint after the other.
#[derive(Debug)]
pub struct Link {
    state: RefCell<State>,
    /// The number of the connection that is up, else 0.
    current: Cell<u64>,
    /// The state is another one.
    changed: Notify,
    /// The connection that was up is given up.
    left: Notify,
    heard: Cell<Instant>,
    /// Since when there has been nothing but "unavailable".
    useless_since: Cell<Option<Instant>>,
    /// Connections that could not be made, by message.
    dial_errors: RefCell<BTreeMap<String, u64>>,
}

#[derive(Debug)]
enum State {
    Dialing,
    Up(Up),
    /// No endpoint could be connected to: why the last one could not.
    Down(String),
}

/// A connection for calls.
#[derive(Clone, Debug)]
pub struct Up {
    /// Makes calls.
    pub send: SendRequest<Bytes>,
    /// Which endpoint it is connected to.
    pub endpoint: usize,
    /// Counts the link's connections, from 1.
    pub number: u64,
}

impl Link {
    /// A link that dials the endpoint at `first` and stays up for as long as its local task set runs.
    pub fn open(endpoints: Rc<[Endpoint]>, first: usize, dial_timeout: Duration) -> Rc<Link> {
        let link = Rc::new(Link {
            state: RefCell::new(State::Dialing),
            current: Cell::new(0),
            changed: Notify::new(),
            left: Notify::new(),
            heard: Cell::new(Instant::now()),
            useless_since: Cell::new(None),
            dial_errors: RefCell::default(),
        });
        spawn_local(keep(link.clone(), endpoints, first, dial_timeout));
        link
    }

    /// Makes `held` the connection that is up; waits while one is dialled.
    pub async fn hold<'a>(&self, held: &'a mut Option<Up>) -> Result<&'a mut Up, Fault> {
        if held.as_ref().is_none_or(|held| held.number != self.current.get()) {
            *held = Some(self.wait().await?);
        }
        Ok(held.as_mut().expect("set if it was not there"))
    }

    /// A connection, once there is one.
    pub async fn wait(&self) -> Result<Up, Fault> {
        loop {
            let changed = match &*self.state.borrow() {
                State::Up(up) => return Ok(up.clone()),
                State::Down(why) => return Err(Fault::Connection(why.clone())),
                State::Dialing => self.changed.notified(),
            };
            changed.await;
        }
    }

    /// Connections that could not be made since the link is there, by message. No operation has failed by them, if there was
    /// another endpoint.
    pub fn dial_errors(&self) -> BTreeMap<String, u64> {
        self.dial_errors.borrow().clone()
    }

    /// An operation on this connection succeeded.
    pub fn succeeded(&self, now: Instant) {
        self.heard.set(now);
        self.useless_since.set(None);
    }

    /// A call on `held`, made at `sent`, failed by `now`: decides whether the connection is still worth anything.
    pub fn failed(&self, held: Option<&Up>, fault: &Fault, sent: Instant, now: Instant) {
        let Some(held) = held else { return };
        let worthless = match fault {
            Fault::Connection(_) => true,
            Fault::Timeout => self.heard.get() < sent,
            Fault::Status { code, .. } => {
                self.heard.set(now);
                *code == UNAVAILABLE && {
                    let since = self.useless_since.get().unwrap_or(now);
                    self.useless_since.set(Some(since));
                    now.duration_since(since) >= USELESS_AFTER
                }
            }
            Fault::Unreadable(_) => false,
        };
        if worthless {
            self.leave(held.number);
        }
    }

    /// Goes on to the next endpoint, if this connection is the one that is up. What is under way on it may yet be answered.
    fn leave(&self, number: u64) {
        if number != 0 && self.current.get() == number {
            self.set(State::Dialing);
            self.left.notify_one();
        }
    }

    fn set(&self, state: State) {
        self.current.set(match &state {
            State::Up(up) => up.number,
            _ => 0,
        });
        self.useless_since.set(None);
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }
}

/// Dials one endpoint after the other, and the next whenever a connection is left.
async fn keep(link: Rc<Link>, endpoints: Rc<[Endpoint]>, first: usize, dial_timeout: Duration) {
    let mut number = 0;
    let mut in_vain = 0;
    for at in (0..endpoints.len()).cycle().skip(first % endpoints.len()) {
        match endpoints[at].dial(dial_timeout).await {
            Ok((send, connection)) => {
                in_vain = 0;
                number += 1;
                let up = Up {
                    send,
                    endpoint: at,
                    number,
                };
                link.set(State::Up(up));
                let driven = link.clone();
                spawn_local(async move {
                    // Its error is every call's error on it.
                    let _ = connection.await;
                    driven.leave(number);
                });
                link.left.notified().await;
            }
            Err(why) => {
                in_vain += 1;
                *link.dial_errors.borrow_mut().entry(why.clone()).or_default() += 1;
                if in_vain % endpoints.len() == 0 {
                    link.set(State::Down(why));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
