//! Connections between machines: messages on their way, attempts to connect with the handshake that goes with them, and what the two
//! ends learn. Which messages are lost is decided in [`net`](crate::net).

use quorate_base::NodeId;
use quorate_node::event::Event;
use quorate_node::handshake::{Local, PROTOCOL, Refusal, protocol_of};
use quorate_node::message::PeerMessage;
use quorate_node::roster::{Changed, durable_term};
use quorate_node::wire;

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::identity::over_the_wire;
use crate::net::Pair;
use crate::params::{MS, SEC, US};
use crate::trace::Number;
use crate::world::{Happening, World};

impl World {
    /// A message arrives, or would have.
    pub(crate) fn arrive(
        &mut self,
        pair: Pair,
        connection: u64,
        (number, message): (Number, PeerMessage),
    ) -> Result<(), Failure> {
        let delivered = self.net.delivers(pair, connection);
        if !delivered {
            self.struck(Kind::Drop, &[pair.1]);
        }
        self.trace.arrived(self.now, pair, number, &message, delivered);
        if !delivered {
            return Ok(());
        }
        self.ghost.vote_heard(pair.0, &message, pair.1)?;
        let from = self.hosts.get(&pair.0).map_or(pair.0, |host| host.member);
        self.note_peer(pair.1, from, &message);
        self.step_node(pair.1, Event::Peer { from, message })
    }

    /// Hands a message of `id` to the network.
    pub(crate) fn transmit(&mut self, id: NodeId, to: NodeId, message: PeerMessage) {
        let pair = (id, self.machine_of(to));
        let run = self.hosts[&id].run;
        let number = self.trace.sent(self.now, pair, &message);
        if !self.net.is_up(pair) {
            self.trace.lost(self.now, number);
            let event = Event::Dropped { to, message };
            self.after(0, Happening::Completion { id, run, event });
            return;
        }
        let mishap = self.waylay(pair.1);
        let Some(message) = self.through_bytes(pair, message, mishap == Some(Kind::Garbled)) else {
            return;
        };
        let fate = self.net.send(self.now, pair, mishap);
        for (happened, kind) in [
            (fate.dropped, Kind::Drop),
            (fate.delayed, Kind::Delay),
            (fate.reordered, Kind::Reorder),
            (fate.arrivals.len() > 1, Kind::Duplicate),
        ] {
            if happened {
                self.struck(kind, &[pair.1]);
            }
        }
        if fate.dropped {
            self.trace.lost(self.now, number);
        }
        let connection = self.net.link(pair).expect("it is up").connection;
        let run = self.hosts[&pair.1].run;
        for at in fate.arrivals {
            self.at(
                at,
                Happening::Arrival {
                    pair,
                    run,
                    connection,
                    message: (number, message.clone()),
                },
            );
        }
    }

    /// A message as it arrives: on some seeds through the bytes of the wire, where it may be garbled. The transport's checksum sees that, and
    /// ends the connection; the node's decoder, which is not told, must say something, whatever the bytes.
    fn through_bytes(&mut self, pair: Pair, message: PeerMessage, garbled: bool) -> Option<PeerMessage> {
        if !self.params.net.bytes {
            return Some(message);
        }
        let features = self.hosts[&pair.0].features.min(self.hosts[&pair.1].features);
        let protocol = protocol_of(features);
        let (id, run, to) = (pair.0, self.hosts[&pair.0].run, self.hosts[&pair.1].member);
        let Some(frame) = wire::encode(&message, protocol) else {
            let event = Event::Dropped { to, message };
            self.after(0, Happening::Completion { id, run, event });
            return None;
        };
        let parts = frame.parts.iter().flat_map(|part| part.iter());
        let mut bytes: Vec<u8> = frame.head.iter().chain(parts).copied().collect();
        if self.rng.chance(self.params.net.garble) || garbled {
            self.struck(Kind::Garbled, &[pair.1]);
            let at = self.rng.below(bytes.len());
            if self.rng.coin() {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << self.rng.below(8);
            }
            let _ = wire::decode(bytes.into());
            self.net.reset(pair);
            self.after(MS, Happening::LinkNews { pair, run, up: false });
            return None;
        }
        let decoded = wire::decode(bytes.into()).expect("what was encoded can be decoded");
        assert!(
            protocol < PROTOCOL || decoded == message,
            "a message changes on the wire: {message:?} becomes {decoded:?}"
        );
        Some(decoded)
    }

    /// One attempt to have a connection; goes on as long as both machines exist.
    pub(crate) fn dial(&mut self, pair: Pair) -> Result<(), Failure> {
        let (from, to) = pair;
        let Some(link) = self.net.link(pair) else {
            return Ok(());
        };
        let run = self.hosts[&from].run;
        let can = !link.up && !link.cut && self.wants(pair);
        // A cut is noticed after a while, by whatever time limit the transport has; a gap in a stream at once.
        let noticed = link.cut && self.rng.chance(70_000);
        // Connections of a removed member are ended some time later, so that it dials again and hears why.
        let ended = link.up && self.has_removed(to, from) && self.rng.chance(200_000);
        if (self.net.is_broken(pair) || noticed || ended) && self.net.reset(pair) {
            self.after(0, Happening::LinkNews { pair, run, up: false });
        } else if can && self.hosts[&to].process.is_some() {
            self.greet(pair)?;
        } else if can {
            self.find_gone(pair);
        }
        let pause = self.rng.within(30 * MS..200 * MS);
        self.after(pause, Happening::Dial { pair });
        Ok(())
    }

    /// Where there was a connection once and no process listens any more, the machine says so, if it is not down itself and can be reached. A node
    /// whose connection has just broken looks at once.
    fn find_gone(&mut self, pair: Pair) {
        let (from, to) = pair;
        let back = self.net.link((to, from)).is_some_and(|link| !link.cut);
        let once = self
            .net
            .link(pair)
            .is_some_and(|link| link.connection > 0 && !link.cut && !link.up);
        let Some(host) = self.hosts.get(&to) else { return };
        if !(once && back && self.wants(pair)) || host.process.is_some() || host.dark {
            return;
        }
        let (member, id, run) = (host.member, from, self.hosts[&from].run);
        let raft = self.process(id).expect("it dials").node.raft();
        if raft.leader() == Some(member) {
            self.coverage.hit(Kind::Hint);
        }
        let event = Event::Gone(member);
        let delay = self
            .rng
            .within(2 * self.params.net.min_delay..4 * self.params.net.max_delay);
        self.after(delay, Happening::Completion { id, run, event });
    }

    /// Whether `id` knows that `peer` was removed for good.
    fn has_removed(&self, id: NodeId, peer: NodeId) -> bool {
        let member = self.hosts[&peer].member;
        let process = self.hosts[&id].process.as_ref();
        process.is_some_and(|process| {
            let raft = process.node.raft();
            raft.log().config_at(raft.commit()).removed.contains(&member)
        })
    }

    /// Whether `pair.0` has reason to connect to `pair.1`: a member of its configuration, someone it was told to join by, or someone
    /// who has connected to it.
    fn wants(&self, (from, to): Pair) -> bool {
        let (Some(host), member) = (self.hosts.get(&from), self.hosts[&to].member) else {
            return false;
        };
        let Some(process) = &host.process else {
            return false;
        };
        let idle = host.paused_until <= self.now && host.stalled_until <= self.now;
        idle && self.machine_of(member) == to
            && !self.holds_back(from)
            && !self.holds_back(to)
            && member != host.member
            && (process.contacts.contains(&member) || process.visitors.contains(&member))
    }

    /// The handshake. The listener's answer arrives only if the way back is open.
    pub(crate) fn greet(&mut self, pair: Pair) -> Result<(), Failure> {
        let (from, to) = pair;
        let (me, run) = (self.hosts[&to].member, self.hosts[&from].run);
        let dialler = &self.hosts[&from];
        let leases = self.params.lease_timeout();
        let identity = &dialler.process.as_ref().expect("it dials").identity;
        let mut hello = identity.greeting(dialler.member, me, dialler.features, leases);
        if self.hosts[&to].features == 1 {
            // The second attempt, after the listener has refused the later protocol.
            hello = hello.without_papers();
        }
        let features = hello.features;
        let Some(answer) = self.judge_greeting(from, to, over_the_wire(&hello))? else {
            return Ok(());
        };
        let heard = self.net.link((to, from)).is_some_and(|back| !back.cut);
        match answer {
            Ok(()) => {
                if self.net.connect(self.now, pair) {
                    self.after(0, Happening::LinkNews { pair, run, up: true });
                    let met = Event::Met {
                        peer: self.hosts[&from].member,
                        features,
                    };
                    self.step_node(to, met)?;
                }
            }
            Err(why) if heard && why.verdict().is_final() => self.expel(from, to, why)?,
            Err(why) => self
                .trace
                .event(self.now, Some(from), format_args!("n{to} says: {why}")),
        }
        Ok(())
    }

    /// What the listener `to` says to a greeting from a machine; `None` if its process ended over it.
    pub(crate) fn judge_greeting(
        &mut self,
        machine: NodeId,
        to: NodeId,
        hello: quorate_node::handshake::Hello,
    ) -> Result<Option<Result<(), Refusal>>, Failure> {
        let leases = self.params.lease_timeout();
        let host = self.hosts.get_mut(&to).expect("it listens");
        if host.paused_until > self.now || host.stalled_until > self.now {
            return Ok(None);
        }
        let process = host.process.as_mut().expect("it listens");
        let raft = process.node.raft();
        let local = Local {
            cluster: process.identity.cluster,
            me: host.member,
            features: host.features,
            level: raft.config().level,
            leases,
            removed: &raft.log().config_at(raft.commit()).removed,
        };
        if let Err(why) = hello.check(&local) {
            return Ok(Some(Err(why)));
        }
        if self.blind {
            process.visitors.insert(hello.from);
            return Ok(Some(Ok(())));
        }
        let from = hello.from;
        match process.roster.admit(from, &hello) {
            Err(why) => return Ok(Some(Err(why))),
            Ok(Changed::No) => {}
            Ok(Changed::Now) => {
                let result = catch(|| process.save_roster());
                if self.settle(to, result)?.is_none() {
                    return Ok(None);
                }
            }
        }
        self.record_acceptance(machine, to, &hello)?;
        let process = self.process(to).expect("it has answered");
        process.visitors.insert(from);
        Ok(Some(Ok(())))
    }

    /// What a message shows of its sender's disk goes into the roster, which is saved at leisure.
    fn note_peer(&mut self, id: NodeId, from: NodeId, message: &PeerMessage) {
        let Some(term) = durable_term(message) else { return };
        let run = self.hosts[&id].run;
        let Some(process) = self.process(id) else { return };
        let raft = process.node.raft();
        let matched = raft
            .peers()
            .find(|(peer, _)| *peer == from)
            .map_or(quorate_base::Index::ZERO, |(_, peer)| {
                peer.matched.min(raft.commit())
            });
        if process.roster.note(from, term, matched) && !std::mem::replace(&mut process.roster_due, true) {
            let delay = self.rng.within(MS..SEC);
            self.after(delay, Happening::RosterSave { id, run });
        }
    }

    /// The roster is saved.
    pub(crate) fn roster_save(&mut self, id: NodeId) -> Result<(), Failure> {
        let (run, stalled) = (self.hosts[&id].run, self.hosts[&id].stalled_until);
        if stalled > self.now {
            self.at(stalled, Happening::RosterSave { id, run });
            return Ok(());
        }
        let process = self.process(id).expect("a void save is dropped");
        process.roster_due = false;
        let result = catch(|| process.save_roster());
        self.settle(id, result).map(|_| ())
    }

    /// A node learns that a link is up or down.
    pub(crate) fn link_news(&mut self, (id, peer): Pair, up: bool) -> Result<(), Failure> {
        let member = self.hosts.get(&peer).map_or(peer, |host| host.member);
        self.trace.event(
            self.now,
            Some(id),
            format_args!("link to n{member} {}", if up { "up" } else { "down" }),
        );
        let event = if up {
            Event::LinkUp(member)
        } else {
            Event::LinkDown(member)
        };
        self.step_node(id, event)?;
        if !up {
            self.find_gone((id, peer));
        }
        Ok(())
    }

    /// Closes the links of a process that has ended. Its peers find out soon.
    pub(crate) fn hang_up(&mut self, id: NodeId) {
        for pair in self.net.pairs() {
            if pair.0 == id {
                self.net.close(pair);
            } else if pair.1 == id && self.net.close(pair) {
                let run = self.hosts[&pair.0].run;
                // The end of a process is told by its machine; that of a machine only in time.
                let late = if self.hosts[&id].dark { 100 * MS } else { 10 * MS };
                let delay = self.rng.within(100 * US..late);
                self.after(delay, Happening::LinkNews { pair, run, up: false });
            }
        }
    }

    /// The machine that is reached where a member should be.
    pub(crate) fn machine_of(&self, member: NodeId) -> NodeId {
        self.stand_ins.get(&member).copied().unwrap_or(member)
    }
}
