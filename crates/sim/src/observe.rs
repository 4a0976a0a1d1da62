//! What a picture is told after each thing that happened: how every node looks, what it has committed, and which links are cut. Runs
//! without a picture skip it all.

use crate::picture::{Look, State};
use crate::world::World;

impl World {
    /// Tells the picture, if there is one, what has changed.
    pub(crate) fn observe(&mut self) {
        let Some(picture) = self.trace.picture() else {
            return;
        };
        for (id, host) in &self.hosts {
            let raft = host.process.as_ref().map(|process| process.node.raft());
            let look = match raft {
                None if host.dark => Look::Dark,
                None => Look::Down,
                Some(_) if host.paused_until > self.now => Look::Paused,
                Some(raft) => Look::Runs(raft.role()),
            };
            let state = State {
                look,
                term: raft.map(|raft| raft.term()).unwrap_or_default(),
                stalled: host.stalled_until > self.now,
            };
            picture.state(self.now, *id, state);
            picture.commit(self.now, *id, raft.map(|raft| raft.commit()));
        }
        picture.gone(self.now, |id| self.hosts.contains_key(&id));
        picture.cut(self.now, self.net.severed());
    }
}
