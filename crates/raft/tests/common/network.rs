//! The network of the cluster: what is sent, what arrives, what is lost.

use quorate_base::{LogId, NodeId, Term};
use quorate_raft::{Body, Input, Message, Outgoing, SnapMeta};

use super::Cluster;
use super::disk::{Machine, Payload};

/// Something on the network.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub from: NodeId,
    pub to: NodeId,
    pub what: What,
}

/// What travels.
#[derive(Clone, Debug)]
pub enum What {
    /// A message, with the payloads if it is an Append.
    Message(Message, Vec<Payload>),
    /// A whole snapshot.
    Snapshot {
        term: Term,
        meta: SnapMeta,
        machine: Machine,
    },
    /// The receiver of a snapshot tells the sender's driver how it went.
    SnapshotDone { last: Option<LogId> },
}

impl Cluster {
    pub(super) fn send(&mut self, from: NodeId, outgoing: Outgoing) {
        let (to, what) = match outgoing {
            Outgoing::Message { to, message } => (to, What::Message(message, Vec::new())),
            Outgoing::Append {
                to,
                term,
                range,
                commit,
            } => {
                let filled = self.fill(from, range);
                let payloads = filled.iter().map(|entry| entry.payload).collect();
                let entries = filled.into_iter().map(|entry| entry.shape).collect();
                let body = Body::Append {
                    prev: range.prev,
                    entries,
                    commit,
                };
                (to, What::Message(Message { term, body }, payloads))
            }
            Outgoing::Snapshot { to, term } => {
                let node = &self.nodes[&from];
                let log = self.raft(from).log();
                // The state machine as it is now; while it is being replaced it is behind the log's base, and has nothing to give.
                let Some(last) = log.id_at(node.machine.applied) else {
                    let what = What::SnapshotDone { last: None };
                    return self.network.push_back(Parcel {
                        from: to,
                        to: from,
                        what,
                    });
                };
                let meta = SnapMeta {
                    last,
                    config: log.config_at(last.index).clone(),
                };
                let offer = Message {
                    term,
                    body: Body::InstallSnapshot { last },
                };
                let machine = node.machine;
                self.post(from, to, What::Message(offer, Vec::new()));
                (to, What::Snapshot { term, meta, machine })
            }
        };
        self.post(from, to, what);
    }

    fn post(&mut self, from: NodeId, to: NodeId, what: What) {
        if let What::Message(message, _) = &what {
            self.ghost.sent(&self.nodes, from, to, message);
        }
        self.network.push_back(Parcel { from, to, what });
    }

    /// The parcel arrives, unless its link is cut or the receiver is down.
    pub fn deliver(&mut self, parcel: Parcel) {
        let Parcel { from, to, what } = parcel;
        if self.cut.contains(&(from, to)) || !self.is_up(to) {
            return self.lose(Parcel { from, to, what });
        }
        self.show_parcel(
            &Parcel {
                from,
                to,
                what: what.clone(),
            },
            true,
        );
        match what {
            What::Message(message, payloads) => self.receive(from, to, message, &payloads),
            What::Snapshot { term, meta, machine } => {
                let last = meta.last;
                // One that a started install needs is not overwritten.
                let installing =
                    self.raft(to).log().base().last.index > self.nodes[&to].image.machine.applied;
                if last.index > self.raft(to).commit() && !installing {
                    self.node(to).image.staged = Some((meta.clone(), machine));
                    let meta = Box::new(meta);
                    self.step(to, Input::SnapshotStaged { from, term, meta });
                }
                let what = What::SnapshotDone { last: Some(last) };
                self.network.push_back(Parcel {
                    from: to,
                    to: from,
                    what,
                });
            }
            What::SnapshotDone { last } => self.step(to, Input::SnapshotSent { to: from, last }),
        }
    }

    /// The parcel is lost. Only the sender of a snapshot hears of that.
    pub fn lose(&mut self, parcel: Parcel) {
        self.show_parcel(&parcel, false);
        let Parcel { from, to, what } = parcel;
        match what {
            What::Snapshot { .. } if self.is_up(from) => {
                self.step(from, Input::SnapshotSent { to, last: None });
            }
            What::SnapshotDone { .. } if self.is_up(to) => {
                self.step(to, Input::SnapshotSent { to: from, last: None });
            }
            _ => {}
        }
    }

    /// Cuts all links from and to a node.
    pub fn isolate(&mut self, id: NodeId) {
        for other in self.ids() {
            if other != id {
                self.cut.extend([(id, other), (other, id)]);
            }
        }
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Loses the messages on the network for which `which` holds.
    pub fn lose_where(&mut self, which: impl Fn(&Parcel) -> bool) -> usize {
        let all = std::mem::take(&mut self.network);
        let (lost, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(which);
        self.network.extend(kept);
        let count = lost.len();
        lost.into_iter().for_each(|parcel| self.lose(parcel));
        count
    }

    /// The messages on the network from one node to another.
    pub fn bodies(&self, from: u64, to: u64) -> Vec<Body> {
        let between = self.network.iter().filter(|p| p.from.0 == from && p.to.0 == to);
        between
            .filter_map(|parcel| match &parcel.what {
                What::Message(message, _) => Some(message.body.clone()),
                _ => None,
            })
            .collect()
    }
}
