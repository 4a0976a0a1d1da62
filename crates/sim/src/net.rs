//! The network: one link for each ordered pair of nodes, which delivers, delays, reorders, duplicates, loses, is cut and
//! breaks. What a node learns of it is what a real transport tells: link up, link down, and messages that could not be queued.
//!
//! A link in stream mode keeps order and loses messages only by breaking, as TCP does; otherwise every message is on its own.

use std::collections::{BTreeMap, BTreeSet};

use quorate_base::NodeId;

use crate::coverage::Kind;
use crate::params::{MS, NetParams};
use crate::rng::Rng;
use crate::trace::Nanos;

/// The names of a link: from, to.
pub type Pair = (NodeId, NodeId);

/// One direction between two nodes.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The sender holds it for usable.
    pub up: bool,
    /// Counts connections: what was sent on an earlier one is never delivered.
    pub connection: u64,
    /// Nothing passes; nobody is told.
    pub cut: bool,
    /// Something was lost by a cut: a stream cannot go on after that.
    broken: bool,
    /// Latest arrival so far.
    latest: Nanos,
}

/// What becomes of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When it arrives; several times if duplicated, never if lost.
    pub arrivals: Vec<Nanos>,
    /// It took unusually long.
    pub delayed: bool,
    /// It overtakes an earlier one.
    pub reordered: bool,
    /// It was lost by chance.
    pub dropped: bool,
}

/// All links.
#[derive(Clone, Debug)]
pub struct Network {
    params: NetParams,
    nodes: BTreeSet<NodeId>,
    links: BTreeMap<Pair, Link>,
    /// What is cut, by whom: a link is whole when nobody cuts it.
    cuts: BTreeMap<u64, BTreeSet<Pair>>,
    rng: Rng,
}

impl Network {
    /// A network between these nodes, all links down.
    pub fn new(nodes: &[NodeId], params: NetParams, rng: Rng) -> Network {
        let mut network = Network {
            params,
            nodes: BTreeSet::new(),
            links: BTreeMap::new(),
            cuts: BTreeMap::new(),
            rng,
        };
        nodes.iter().for_each(|id| network.add(*id));
        network
    }

    /// A new node: links between it and all others, down.
    pub fn add(&mut self, id: NodeId) {
        for other in &self.nodes {
            self.links.insert((id, *other), Link::default());
            self.links.insert((*other, id), Link::default());
        }
        self.nodes.insert(id);
    }

    /// A node is gone for good, and its links with it.
    pub fn remove(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        self.links.retain(|pair, _| pair.0 != id && pair.1 != id);
    }

    /// All pairs.
    pub fn pairs(&self) -> Vec<Pair> {
        self.links.keys().copied().collect()
    }

    /// One link; `None` where a node is gone or never was.
    pub fn link(&self, pair: Pair) -> Option<&Link> {
        self.links.get(&pair)
    }

    /// Whether the sender holds a link for usable.
    pub fn is_up(&self, pair: Pair) -> bool {
        self.links.get(&pair).is_some_and(|link| link.up)
    }

    fn link_mut(&mut self, pair: Pair) -> &mut Link {
        self.links.get_mut(&pair).expect("a link between two nodes")
    }

    /// Decides when a message handed to a link that is up arrives: by chance, and it suffers a `mishap` if its kind is one of the network's.
    pub fn send(&mut self, now: Nanos, pair: Pair, mishap: Option<Kind>) -> Fate {
        let params = self.params.clone();
        let mut fate = Fate::default();
        if self.rng.chance(params.drop) || mishap == Some(Kind::Drop) {
            fate.dropped = true;
            return fate;
        }
        let doubled = self.rng.chance(params.duplicate) || mishap == Some(Kind::Duplicate);
        let copies = if doubled { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.rng.within(params.min_delay..params.max_delay + 1);
            if self.rng.chance(params.slow) || mishap == Some(Kind::Delay) {
                delay = self.rng.within(params.max_delay..params.max_delay * 20 + 20 * MS);
                fate.delayed = true;
            }
            let link = self.link_mut(pair);
            let mut at = now + delay;
            if params.stream {
                at = at.max(link.latest);
            } else {
                fate.reordered |= at < link.latest;
            }
            link.latest = link.latest.max(at);
            fate.arrivals.push(at);
        }
        fate
    }

    /// Whether a message sent on `connection` still arrives now. If a cut swallows it, the stream is broken.
    pub fn delivers(&mut self, pair: Pair, connection: u64) -> bool {
        let stream = self.params.stream;
        let Some(link) = self.links.get_mut(&pair) else {
            return false;
        };
        if link.connection != connection || (stream && link.broken) {
            return false;
        }
        link.broken |= link.cut;
        !link.cut
    }

    /// Whether this link is a stream that has lost something, so that its sender must find out.
    pub fn is_broken(&self, pair: Pair) -> bool {
        let broken = |link: &Link| link.up && self.params.stream && link.broken;
        self.links.get(&pair).is_some_and(broken)
    }

    /// A new connection. Returns whether there was none.
    pub fn connect(&mut self, now: Nanos, pair: Pair) -> bool {
        let link = self.link_mut(pair);
        if link.up || link.cut {
            return false;
        }
        *link = Link {
            up: true,
            connection: link.connection + 1,
            latest: now,
            ..Link::default()
        };
        true
    }

    /// The sender's end is closed. What is under way may still arrive. Returns whether it was open.
    pub fn close(&mut self, pair: Pair) -> bool {
        std::mem::take(&mut self.link_mut(pair).up)
    }

    /// The connection is gone with everything under way. Returns whether its sender's end was open.
    pub fn reset(&mut self, pair: Pair) -> bool {
        self.link_mut(pair).connection += 1;
        self.close(pair)
    }

    /// Cuts those links for which `cut` holds, and mends the others, whoever had cut them.
    pub fn cut(&mut self, cut: impl Fn(Pair) -> bool) {
        self.cuts.clear();
        for (pair, link) in &mut self.links {
            link.cut = cut(*pair);
        }
    }

    /// The links that are cut.
    pub fn severed(&self) -> impl Iterator<Item = Pair> {
        self.links
            .iter()
            .filter(|(_, link)| link.cut)
            .map(|(pair, _)| *pair)
    }

    /// Cuts these links, besides what else is cut, until [`mend`](Network::mend) is called with the same name.
    pub fn sever(&mut self, name: u64, pairs: BTreeSet<Pair>) {
        self.cuts.insert(name, pairs);
        self.apply_cuts();
    }

    /// The cut of this name is over. Links that others cut stay cut.
    pub fn mend(&mut self, name: u64) {
        if self.cuts.remove(&name).is_some() {
            self.apply_cuts();
        }
    }

    fn apply_cuts(&mut self) {
        for (pair, link) in &mut self.links {
            link.cut = self.cuts.values().any(|pairs| pairs.contains(pair));
        }
    }

    /// Whether some link of this node is cut.
    pub fn is_cut_from_some(&self, id: NodeId) -> bool {
        let mut cut = self.cuts.values().flatten();
        cut.any(|pair| pair.0 == id || pair.1 == id)
    }

    /// From now on nothing is lost, late or doubled.
    pub fn heal(&mut self) {
        self.cut(|_| false);
        self.params.drop = 0;
        self.params.duplicate = 0;
        self.params.slow = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = (NodeId(1), NodeId(2));

    fn network(stream: bool, bad: u32) -> Network {
        let params = NetParams {
            stream,
            min_delay: 10,
            max_delay: 1000,
            slow: bad,
            drop: bad,
            duplicate: bad,
            bytes: false,
            garble: 0,
        };
        let mut network = Network::new(&[NodeId(1), NodeId(2)], params, Rng::new(1));
        assert!(network.connect(0, PAIR));
        network
    }

    #[test]
    fn a_stream_keeps_order() {
        let mut network = network(true, 0);
        let fates: Vec<Fate> = (0..100).map(|now| network.send(now, PAIR, None)).collect();
        let arrivals: Vec<Nanos> = fates.iter().flat_map(|fate| fate.arrivals.clone()).collect();
        assert!(arrivals.is_sorted() && arrivals.len() == 100);
    }

    #[test]
    fn datagrams_are_lost_doubled_and_overtaken() {
        let mut network = network(false, 200_000);
        let fates: Vec<Fate> = (0..1000).map(|now| network.send(now, PAIR, None)).collect();
        let count = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count();
        assert!((100..300).contains(&count(|fate| fate.dropped)));
        assert!((100..300).contains(&count(|fate| fate.arrivals.len() == 2)));
        assert!(count(|fate| fate.reordered) > 100 && count(|fate| fate.delayed) > 100);
    }

    #[test]
    fn a_stream_does_not_survive_what_a_cut_swallowed() {
        for stream in [true, false] {
            let mut network = network(stream, 0);
            network.cut(|_| true);
            assert!(!network.delivers(PAIR, 1));
            network.cut(|_| false);
            assert_eq!(network.delivers(PAIR, 1), !stream);
            assert_eq!(network.is_broken(PAIR), stream);
        }
    }

    #[test]
    fn cuts_that_overlap_end_one_by_one() {
        let mut network = network(false, 0);
        network.sever(1, BTreeSet::from([PAIR]));
        network.sever(2, BTreeSet::from([PAIR]));
        network.mend(1);
        assert!(!network.delivers(PAIR, 1) && network.is_cut_from_some(PAIR.0));
        network.mend(2);
        assert!(network.delivers(PAIR, 1) && !network.is_cut_from_some(PAIR.0));
        network.sever(3, BTreeSet::from([PAIR]));
        network.cut(|_| false);
        network.mend(3);
        assert!(network.delivers(PAIR, 1), "everything was mended");
    }

    #[test]
    fn nothing_of_an_earlier_connection_arrives() {
        let mut network = network(true, 0);
        network.close(PAIR);
        assert!(network.delivers(PAIR, 1), "still under way");
        network.connect(5, PAIR);
        assert!(!network.delivers(PAIR, 1) && network.delivers(PAIR, 2));
    }
}
